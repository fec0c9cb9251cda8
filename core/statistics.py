"""Figures of what was asked: how much, how well and how fast, over time and by place, knowledge base and model."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from sqlalchemy import BigInteger, ColumnElement, String, Text, and_, case, cast, func, select, type_coerce

from core.db.session import Database
from core.db.tables import AnswerRow, ChannelRow, RatingRow
from core.errors import UserError
from core.selection import Selection
from core.temporary import base_of
from core.texts import tell

Dimension = Literal["platform", "channel", "kb", "model"]
Step = Literal["hour", "day", "week"]

LONGEST: Final = timedelta(days=366)
_MOST_ITEMS: Final = 20
_MOST_REFUSED: Final = 5000
"""Unanswered questions that are looked through, the latest."""
_ALONE: Final = ("web", "terminal", "api")
"""Platforms where a channel is one person."""
_THREAD: Final = base_of("")
"""How the knowledge bases begin that hold the files of one conversation."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds."""

    p50: int
    p95: int


@dataclass(frozen=True, slots=True)
class Figures:
    questions: int
    answered: int
    refused: int
    """For want of evidence."""
    failed: int
    stopped: int
    """By whoever asked."""
    up: int
    down: int
    first_token: Latency | None
    total: Latency | None
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Point:
    """A stretch of time."""

    at: datetime
    """Its beginning, in the zone that was asked for."""
    figures: Figures


@dataclass(frozen=True, slots=True)
class Overview:
    step: Step
    totals: Figures
    before: Figures
    """Of the time just before, as long."""
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One platform, channel, knowledge base or model."""

    key: Mapping[str, str]
    """What narrows a selection down to it; empty where nothing does."""
    name: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A question that could not be answered, however it was written."""

    question: str
    count: int
    last_at: datetime
    answer_id: str
    """Of the latest."""
    kbs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choices:
    """What there is to narrow a selection down to."""

    platforms: tuple[str, ...]
    channels: tuple[Item, ...]
    kbs: tuple[str, ...]
    models: tuple[tuple[str, str], ...]
    """Engine and model."""


@dataclass(slots=True)
class _Sum:
    """Figures while they are added up."""

    counts: list[int] = field(default_factory=lambda: [0] * 7)
    """Questions, answered, refused, failed, stopped, tokens of prompts, tokens of answers."""
    first: list[str] = field(default_factory=list)
    total: list[str] = field(default_factory=list)
    up: int = 0
    down: int = 0

    def add(self, row: Sequence[Any]) -> None:
        """What `_MEASURES` found."""
        *counts, first, total = row
        self.counts = [so_far + int(more or 0) for so_far, more in zip(self.counts, counts, strict=True)]
        if first:
            self.first.append(first)
        if total:
            self.total.append(total)

    def rate(self, value: int, count: int) -> None:
        if value > 0:
            self.up += count
        else:
            self.down += count

    def figures(self) -> Figures:
        questions, answered, refused, failed, stopped, prompts, answers = self.counts
        return Figures(
            questions=questions,
            answered=answered,
            refused=refused,
            failed=failed,
            stopped=stopped,
            up=self.up,
            down=self.down,
            first_token=_latency(self.first),
            total=_latency(self.total),
            prompt_tokens=prompts,
            answer_tokens=answers,
        )


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
        return await asyncio.to_thread(_overview, answers, ratings, step, (since, until), clock)

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
        return await asyncio.to_thread(_by, answers, ratings, _named(names))

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
        return await asyncio.to_thread(_unanswered, rows, limit)

    async def choices(self, selection: Selection) -> Choices:
        """What occurs in it."""
        row = AnswerRow
        keys = (row.platform, row.workspace, row.channel, cast(row.kbs, Text), row.engine, row.model)
        query = select(*keys).where(selection.condition(is_sqlite=self._db.is_sqlite)).distinct()
        async with self._db.read() as session:
            rows = (await session.execute(query)).all()
            names = _named((await session.execute(_NAMES)).all())
        channels: dict[tuple[str, str, str], None] = {}
        kbs: set[str] = set()
        for platform, workspace, channel, listed, _engine, _model in rows:
            kbs |= {kb for kb in _kbs(listed) if not kb.startswith(_THREAD)}
            if channel and platform not in _ALONE:
                channels[platform, workspace, channel] = None
        empty = _Sum().figures()
        return Choices(
            platforms=tuple(sorted({row[0] for row in rows})),
            channels=tuple(
                sorted(
                    (Item(_channel_key(place), names.get(place, place[2]), empty) for place in channels),
                    key=lambda item: (item.key["platform"], item.name),
                )
            ),
            kbs=tuple(sorted(kbs)),
            models=tuple(sorted({(row[4], row[5]) for row in rows if row[4]})),
        )

    # ------------------------------------------------------------ as each database says it
    def _hour(self) -> ColumnElement[str]:
        """`2026-11-21 16`, in UTC."""
        if self._db.is_sqlite:
            return func.substr(type_coerce(AnswerRow.created_at, String), 1, 13).label("hour")
        return func.to_char(func.timezone("UTC", AnswerRow.created_at), "YYYY-MM-DD HH24").label("hour")

    def _measures(self) -> Sequence[ColumnElement[Any]]:
        """The columns that `_Sum.add` reads."""
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


def normal(question: str) -> str:
    """Equal for questions that differ in letters' case, signs and blanks alone."""
    folded = unicodedata.normalize("NFKC", question).casefold()
    return " ".join("".join(char if char.isalnum() else " " for char in folded).split())


def _bounds(selection: Selection) -> tuple[datetime, datetime]:
    since, until = selection.since, selection.until
    if since is None or until is None or since >= until:
        raise UserError(tell("period_order"))
    if until - since > LONGEST:
        raise UserError(tell("period_long", days=LONGEST.days))
    return since, until


# ---------------------------------------------------------------- over time
def _overview(
    answers: Iterable[Sequence[Any]],
    ratings: Iterable[Sequence[Any]],
    step: Step,
    bounds: tuple[datetime, datetime],
    clock: tzinfo,
) -> Overview:
    totals, before = _Sum(), _Sum()
    stretches: dict[datetime, _Sum] = {start: _Sum() for start in _starts(*bounds, step, clock)}
    for hour, is_now, *measures in answers:
        (totals if is_now else before).add(measures)
        if is_now:
            stretches.setdefault(_start(_moment(hour, clock), step), _Sum()).add(measures)
    for hour, is_now, value, count in ratings:
        (totals if is_now else before).rate(value, count)
        if is_now:
            stretches.setdefault(_start(_moment(hour, clock), step), _Sum()).rate(value, count)
    points = tuple(Point(start, stretches[start].figures()) for start in sorted(stretches))
    return Overview(step, totals.figures(), before.figures(), points)


def _moment(hour: str, clock: tzinfo) -> datetime:
    return datetime.strptime(hour, "%Y-%m-%d %H").replace(tzinfo=UTC).astimezone(clock)


def _start(moment: datetime, step: Step) -> datetime:
    """Of the stretch that a moment is in; weeks begin on Monday."""
    if step == "hour":
        return moment.replace(minute=0, second=0, microsecond=0)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return day - timedelta(days=day.weekday()) if step == "week" else day


def _starts(since: datetime, until: datetime, step: Step, clock: tzinfo) -> Iterable[datetime]:
    if step == "hour":  # in UTC, since an hour may come twice or not at all on the clock
        at = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        while at < until:
            yield _start(at.astimezone(clock), step)
            at += timedelta(hours=1)
        return
    day = _start(since.astimezone(clock), step)
    while day < until:
        yield day
        day += timedelta(days=7 if step == "week" else 1)


# ---------------------------------------------------------------- by place, knowledge base and model
def _by(
    answers: Iterable[Sequence[Any]], ratings: Iterable[Sequence[Any]], names: Mapping[tuple[str, str, str], str]
) -> Mapping[Dimension, Sequence[Item]]:
    sums: dict[Dimension, dict[tuple[str, ...], _Sum]] = {
        "platform": defaultdict(_Sum),
        "channel": defaultdict(_Sum),
        "kb": defaultdict(_Sum),
        "model": defaultdict(_Sum),
    }
    for platform, workspace, channel, kbs, engine, model, *measures in answers:
        for dimension, key in _keys(platform, workspace, channel, kbs, engine, model):
            sums[dimension][key].add(measures)
    for platform, workspace, channel, kbs, engine, model, value, count in ratings:
        for dimension, key in _keys(platform, workspace, channel, kbs, engine, model):
            sums[dimension][key].rate(value, count)
    return {dimension: _items(dimension, found, names) for dimension, found in sums.items()}


def _keys(
    platform: str, workspace: str, channel: str, kbs: str, engine: str, model: str
) -> Iterable[tuple[Dimension, tuple[str, ...]]]:
    yield "platform", (platform,)
    if channel and platform not in _ALONE:
        yield "channel", (platform, workspace, channel)
    for kb in dict.fromkeys("" if name.startswith(_THREAD) else name for name in _kbs(kbs)):
        yield "kb", (kb,)
    if engine:
        yield "model", (engine, model)


def _items(
    dimension: Dimension, sums: Mapping[tuple[str, ...], _Sum], names: Mapping[tuple[str, str, str], str]
) -> Sequence[Item]:
    ordered = sorted(sums.items(), key=lambda pair: (-pair[1].counts[0], pair[0]))[:_MOST_ITEMS]
    return [_item(dimension, key, found.figures(), names) for key, found in ordered]


def _item(
    dimension: Dimension, key: tuple[str, ...], figures: Figures, names: Mapping[tuple[str, str, str], str]
) -> Item:
    match dimension, key:
        case "channel", (platform, workspace, channel):
            place = (platform, workspace, channel)
            return Item(_channel_key(place), names.get(place, channel), figures)
        case "model", (engine, model):
            return Item({"engine": engine, "model": model}, model or engine, figures)
        case "kb", ("",):
            return Item({}, tell("files_of_threads"), figures)
    return Item({dimension: key[0]}, key[0], figures)


def _channel_key(place: tuple[str, str, str]) -> Mapping[str, str]:
    return dict(zip(("platform", "workspace", "channel"), place, strict=True))


def _named(rows: Iterable[Sequence[Any]]) -> Mapping[tuple[str, str, str], str]:
    return {(platform, workspace, channel): name for platform, workspace, channel, name in rows}


def _kbs(listed: str) -> Sequence[str]:
    return [str(name) for name in json.loads(listed or "[]")]


# ---------------------------------------------------------------- unanswered
def _unanswered(rows: Sequence[Sequence[Any]], limit: int) -> tuple[Sequence[Unanswered], int]:
    groups: dict[str, list[Sequence[Any]]] = defaultdict(list)
    for row in rows:
        groups[normal(row[0])].append(row)
    ordered = sorted(groups.values(), key=lambda group: (-len(group), -group[0][1].timestamp()))
    found = [
        Unanswered(question, len(group), at, answer_id, tuple(str(kb) for kb in kbs))
        for group in ordered[:limit]
        for question, at, answer_id, kbs in group[:1]
    ]
    return found, len(groups)


def _latency(lists: Sequence[str]) -> Latency | None:
    if not lists:
        return None
    p50, p95 = np.percentile(np.fromstring(",".join(lists), dtype=np.int64, sep=","), (50, 95))
    return Latency(round(float(p50)), round(float(p95)))
