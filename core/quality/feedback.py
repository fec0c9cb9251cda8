"""What people think of answers: one vote for each answer and person, the last one counts."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import BindParameter, Insert, Integer, Text, bindparam, func, or_, select, update

from core.answering.conversation import rating_from
from core.db.direct import InsertInto, Statement
from core.db.session import Database
from core.db.tables import AnswerRow, RatingRow, UtcDateTime, now
from core.errors import NotFound, UserError
from core.texts import tell
from core.types import JSON, Rating

LONGEST_REASON: Final = 2000
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class RatedAnswer:
    """A rating with all that is needed to judge it."""

    answer_id: str
    value: int
    """1 or -1."""
    reason: str
    person: str
    at: datetime
    question: str
    standalone_question: str
    answer: str
    answered: bool
    sources: tuple[str, ...]
    """Documents the answer cites."""
    kbs: tuple[str, ...]
    engine: str
    model: str
    platform: str

    def as_json(self) -> JSON:
        return {
            **asdict(self),
            "at": self.at.isoformat(),
            "sources": list(self.sources),
            "kbs": list(self.kbs),
        }


_VOTE: Final = {"value": Integer, "reason": Text, "updated_at": UtcDateTime}


def _putting(insert: InsertInto) -> Insert:
    """Insert a vote on an answer that is there, or change it."""
    values: list[BindParameter[Any]] = [bindparam(f"new_{name}", type_=kind) for name, kind in _VOTE.items()]
    row = insert(RatingRow).from_select(
        ["answer_id", "person", *_VOTE],
        select(AnswerRow.id, bindparam("who", type_=Text), *values).where(AnswerRow.id == bindparam("answer")),
    )
    changes = {name: row.excluded[name] for name in _VOTE}
    return row.on_conflict_do_update(index_elements=["answer_id", "person"], set_=changes)


_OWN: Final = (RatingRow.answer_id == bindparam("answer"), RatingRow.person == bindparam("who"))
_PUT: Final = Statement(_putting)
_WITHDRAW: Final = Statement(
    update(RatingRow)
    .where(*_OWN, or_(bindparam("was", type_=Integer) == 0, RatingRow.value == bindparam("was")))
    .values(value=0, reason="", updated_at=bindparam("at"))
)
_RATING: Final = Statement(select(RatingRow).where(*_OWN, RatingRow.value != 0))


class Feedback:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def rate(self, answer_id: str, person: str, value: int, reason: str = "") -> Rating:
        """Keep a person's vote (1 or -1) in the place of an earlier one."""
        if value not in (1, -1):
            raise UserError(tell("rating_value"))
        reason = reason.strip()
        if len(reason) > LONGEST_REASON:
            raise UserError(tell("reason_long", most=LONGEST_REASON))
        put = _PUT(answer=answer_id, who=person, new_value=value, new_reason=reason, new_updated_at=now())
        done, found = await self._db.run(put, _RATING(answer=answer_id, who=person))
        if not done.count:
            raise NotFound(tell("no_such_answer"))
        return rating_from(found.rows[0])

    async def withdraw(self, answer_id: str, person: str, was: int = 0) -> None:
        """Take a vote back, or only one that `was` 1 or -1; nothing happens where there is none."""
        await self._db.run(_WITHDRAW(answer=answer_id, who=person, was=was, at=now()))

    async def rating(self, answer_id: str, person: str) -> Rating | None:
        (found,) = await self._db.fetch(_RATING(answer=answer_id, who=person))
        return rating_from(found.first) if found.first is not None else None

    async def list(self, *, limit: int = 50, offset: int = 0, value: int | None = None) -> Sequence[RatedAnswer]:
        """Ratings with question and answer, the latest first; `value` keeps only 👍 (1) or 👎 (-1)."""
        query = select(RatingRow, AnswerRow).join(AnswerRow, AnswerRow.id == RatingRow.answer_id)
        query = query.where(RatingRow.value != 0) if value is None else query.where(RatingRow.value == value)
        query = query.order_by(RatingRow.updated_at.desc(), RatingRow.id).limit(limit).offset(offset)
        async with self._db.read() as session:
            return [_rated(rating, answer) for rating, answer in await session.execute(query)]

    async def totals(self) -> tuple[int, int]:
        """How many 👍 and 👎 stand."""
        async with self._db.read() as session:
            rows = await session.execute(select(RatingRow.value, func.count()).group_by(RatingRow.value))
            counts = {int(value): int(count) for value, count in rows}
        return counts.get(1, 0), counts.get(-1, 0)

    async def export(self, file: Path) -> int:
        """Write all ratings to a `.csv` or `.jsonl` file; gives their number."""
        writers = {".csv": as_csv, ".jsonl": as_jsonl}
        write = writers.get(file.suffix.lower())
        if write is None:
            raise UserError(tell("export_suffix"))
        rated: list[RatedAnswer] = []
        while page := await self.list(limit=_PAGE, offset=len(rated)):
            rated += page
        try:
            await asyncio.to_thread(file.write_text, write(rated), "utf-8")
        except OSError as error:
            raise UserError(tell("export_unwritable", file=file, reason=error.strerror or error)) from error
        return len(rated)


def as_jsonl(rated: Sequence[RatedAnswer]) -> str:
    return "".join(json.dumps(item.as_json(), ensure_ascii=False) + "\n" for item in rated)


def as_csv(rated: Sequence[RatedAnswer]) -> str:
    """Comma-separated, with nothing in it that a spreadsheet would run."""
    columns = list(RatedAnswer.__dataclass_fields__)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    for item in rated:
        values = item.as_json()
        writer.writerow([cell(_flat(values[column])) for column in columns])
    return "\ufeff" + text.getvalue()


def cell(text: str) -> str:
    """A text that a spreadsheet shows and does not run: it gets an apostrophe where it could begin a formula."""
    begin = text.lstrip(" \u00a0\u3000\ufeff")
    return f"'{text}" if begin[:1] in ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠") else text


def _flat(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _rated(rating: RatingRow, answer: AnswerRow) -> RatedAnswer:
    return RatedAnswer(
        answer_id=answer.id,
        value=rating.value,
        reason=rating.reason,
        person=rating.person,
        at=rating.updated_at,
        question=answer.question,
        standalone_question=answer.standalone_question,
        answer=answer.text,
        answered=answer.answered,
        sources=tuple(dict.fromkeys(kept["document"] for kept in answer.passages if kept["cited"])),
        kbs=tuple(answer.kbs),
        engine=answer.engine,
        model=answer.model,
        platform=answer.platform,
    )
