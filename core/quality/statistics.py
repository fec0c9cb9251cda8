"""Figures of what was asked: how much, how well and how fast, over time and by place, knowledge base and model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import BigInteger, ColumnElement, String, Text, and_, case, cast, func, select, type_coerce

from core.db.session import Database
from core.db.tables import AnswerRow, ChannelRow, RatingRow
from core.errors import UserError
from core.quality.figures import (
    Choices,
    Dimension,
    Item,
    Overview,
    Step,
    Unanswered,
    by_dimension,
    choices_of,
    grouped,
    named_channels,
    over_time,
)
from core.quality.selection import Selection
from core.texts import tell

LONGEST: Final = timedelta(days=366)
_MOST_REFUSED: Final = 5000
"""Unanswered questions that are looked through, the latest."""


class Statistics:
    """Every method reads with a number of statements that does not grow with what it finds."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def overview(self, selection: Selection, zone: str = "UTC") -> Overview:
        """The figures over time; days begin at midnight of `zone`. Raises UserError where the time is too long."""
        since, until = _bounds(selection)
        clock = zone_of(zone)
        both = selection.with_before().condition(is_sqlite=self._db.is_sqlite)
        is_now = case((AnswerRow.created_at >= since, 1), else_=0)
        hour = self._hour()
        asked = (
            select(hour, is_now, *self._measures()).where(both, AnswerRow.state != "replaced").group_by(hour, is_now)
        )
        rated = (
            select(hour, is_now, RatingRow.value, func.count())
            .join(AnswerRow, AnswerRow.id == RatingRow.answer_id)
            .where(both, RatingRow.value != 0, AnswerRow.state != "replaced")
            .group_by(hour, is_now, RatingRow.value)
        )
        async with self._db.read() as session:
            answers = (await session.execute(asked)).all()
            ratings = (await session.execute(rated)).all()
        step: Step = "hour" if until - since <= timedelta(days=2) else "day"
        if until - since > timedelta(days=120):
            step = "week"
        return await asyncio.to_thread(over_time, answers, ratings, step, (since, until), clock)

    async def by(self, selection: Selection) -> Mapping[Dimension, Sequence[Item]]:
        """The figures of each platform, channel, knowledge base and model, those asked most first."""
        _bounds(selection)
        row = AnswerRow
        keys = (row.platform, row.workspace, row.channel, cast(row.kbs, Text).label("kbs"), row.engine, row.model)
        where = and_(selection.condition(is_sqlite=self._db.is_sqlite), row.state != "replaced")
        asked = select(*keys, *self._measures()).where(where).group_by(*keys)
        rated = (
            select(*keys, RatingRow.value, func.count())
            .join(row, row.id == RatingRow.answer_id)
            .where(where, RatingRow.value != 0)
            .group_by(*keys, RatingRow.value)
        )
        async with self._db.read() as session:
            answers = (await session.execute(asked)).all()
            ratings = (await session.execute(rated)).all()
            names = (await session.execute(_NAMES)).all()
        return await asyncio.to_thread(by_dimension, answers, ratings, named_channels(names))

    async def unanswered(self, selection: Selection, limit: int = 10) -> tuple[Sequence[Unanswered], int]:
        """The questions asked most that could not be answered, and how many different ones there are.

        Only the latest 5000 are looked at.
        """
        _bounds(selection)
        row = AnswerRow
        query = (
            select(row.question, row.created_at, row.id, row.kbs)
            .where(row.answered.is_(False), row.state == "complete", selection.condition(is_sqlite=self._db.is_sqlite))
            .order_by(row.created_at.desc(), row.id)
            .limit(_MOST_REFUSED)
        )
        async with self._db.read() as session:
            rows = (await session.execute(query)).all()
        return await asyncio.to_thread(grouped, rows, limit)

    async def choices(self, selection: Selection) -> Choices:
        """What occurs in it."""
        row = AnswerRow
        keys = (row.platform, row.workspace, row.channel, cast(row.kbs, Text), row.engine, row.model)
        query = select(*keys).where(selection.condition(is_sqlite=self._db.is_sqlite)).distinct()
        async with self._db.read() as session:
            rows = (await session.execute(query)).all()
            names = named_channels((await session.execute(_NAMES)).all())
        return choices_of(rows, names)

    # ------------------------------------------------------------ as each database says it
    def _hour(self) -> ColumnElement[str]:
        """`2026-11-21 16`, in UTC."""
        if self._db.is_sqlite:
            return func.substr(type_coerce(AnswerRow.created_at, String), 1, 13).label("hour")
        return func.to_char(func.timezone("UTC", AnswerRow.created_at), "YYYY-MM-DD HH24").label("hour")

    def _measures(self) -> Sequence[ColumnElement[Any]]:
        """The columns that `core/quality/figures.py` adds up."""
        row = AnswerRow
        is_complete = row.state == "complete"
        counted = (
            and_(is_complete, row.answered),
            and_(is_complete, ~row.answered),
            row.state == "failed",
            row.state == "stopped",
        )
        return (
            func.count(),
            *(func.sum(case((condition, 1), else_=0)) for condition in counted),
            func.sum(row.prompt_tokens),
            func.sum(row.answer_tokens),
            self._listed(case((is_complete, row.first_token_ms))),
            self._listed(case((is_complete, row.total_ms))),
        )

    def _listed(self, column: ColumnElement[Any]) -> ColumnElement[str]:
        """Whole numbers with commas between: the quickest way for many of them out of a database."""
        whole = cast(column, BigInteger)
        if self._db.is_sqlite:
            return func.group_concat(whole)
        return func.string_agg(cast(whole, Text), ",")


_NAMES: Final = select(ChannelRow.platform, ChannelRow.workspace, ChannelRow.channel, ChannelRow.name).where(
    ChannelRow.name != ""
)


def zone_of(name: str) -> tzinfo:
    """Raises UserError where there is no such time zone."""
    if name == "UTC":  # it is there also where the machine knows no zones
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UserError(tell("no_such_zone", name=name)) from error


def _bounds(selection: Selection) -> tuple[datetime, datetime]:
    since, until = selection.since, selection.until
    if since is None or until is None or since >= until:
        raise UserError(tell("period_order"))
    if until - since > LONGEST:
        raise UserError(tell("period_long", days=LONGEST.days))
    return since, until
