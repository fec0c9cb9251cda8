"""Which answers are meant when somebody looks at what was asked: of a time, a place, a knowledge base, a model."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Text, and_, cast, exists, func

from core.db.tables import AnswerRow

NOT_PEOPLE: Final = ("eval", "console")
"""Platforms on which Kvasir itself asks: evaluations, and trials of the console."""


@dataclass(frozen=True, slots=True)
class Selection:
    """All answers but those that Kvasir asked for itself; each field that is set narrows it down."""

    since: datetime | None = None
    until: datetime | None = None
    """The first moment that is out of it."""
    platform: str | None = None
    workspace: str | None = None
    channel: str | None = None
    kb: str | None = None
    engine: str | None = None
    model: str | None = None
    allowed: tuple[str, ...] | None = None
    """Knowledge bases, by name, from which whoever looks may see answers; None: from all, also those that are gone."""

    @property
    def length(self) -> timedelta:
        assert self.since is not None  # noqa: S101 - asked for only where both are set
        assert self.until is not None  # noqa: S101 - as above
        return self.until - self.since

    def within(self, since: datetime, until: datetime) -> Selection:
        """The same in another time."""
        return replace(self, since=since, until=until)

    def with_before(self) -> Selection:
        """As long again before it, too."""
        assert self.since is not None  # noqa: S101 - as above
        return replace(self, since=self.since - self.length)

    def condition(self, *, is_sqlite: bool) -> ColumnElement[bool]:
        """For a query over `AnswerRow`."""
        row = AnswerRow
        parts: list[ColumnElement[bool]] = []
        if self.since is not None:
            parts.append(row.created_at >= self.since)
        if self.until is not None:
            parts.append(row.created_at < self.until)
        if self.platform is None:
            parts.append(row.platform.not_in(NOT_PEOPLE))
        for column, value in (
            (row.platform, self.platform),
            (row.workspace, self.workspace),
            (row.channel, self.channel),
            (row.engine, self.engine),
            (row.model, self.model),
        ):
            if value is not None:
                parts.append(column == value)
        if self.kb is not None:
            place = func.instr if is_sqlite else func.strpos
            parts.append(place(cast(row.kbs, Text), json.dumps(self.kb)) > 0)
        if self.allowed is not None:
            parts.append(seen(self.allowed, is_sqlite=is_sqlite))
        return and_(*parts)


def seen(allowed: tuple[str, ...], *, is_sqlite: bool) -> ColumnElement[bool]:
    """That an answer rests on no other knowledge bases than these."""
    each = func.json_each if is_sqlite else func.json_array_elements_text
    kb = each(AnswerRow.kbs).table_valued("value", name="kb")
    return ~exists().where(kb.c.value.not_in(allowed)).select_from(kb)
