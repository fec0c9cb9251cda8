"""The review of what went wrong: every answer that was rated 👎, and every question that was not answered."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Text, and_, cast, exists, func, or_, select, union
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import ACCOUNT_PREFIX
from core.db.session import Database
from core.db.tables import (
    AnswerRow,
    ConversationRow,
    EscalationRow,
    InboxRow,
    PostRow,
    RatingRow,
    ReviewRow,
    UserRow,
    now,
)
from core.errors import NotFound, UserError
from core.quality.feedback import cell
from core.quality.records import names_of
from core.quality.selection import NOT_PEOPLE, Selection, seen
from core.texts import tell
from core.types import JSON, Person, Place, Role

STATES: Final = ("new", "working", "solved")
LABELS: Final = ("wrong_passage", "missing_document", "wrong_answer", "unclear_question", "out_of_scope")
CURES: Final = ("curated", "chunk", "document", "settings")
LONGEST_NOTE: Final = 4000
EXPORTED: Final = (
    "answer_id", "asked_at", "question", "answer", "answered", "kbs", "platform", "workspace", "channel", "person",
    "name", "engine", "model", "complaints", "reasons", "escalated", "state", "assignee_name", "labels", "note", "cure",
    "updated_by", "updated_at",
)  # fmt: skip
"""Columns of an export."""
MOST_EXPORTED: Final = 50_000
_PAGE: Final = 500
_SHOWN: Final = 400
"""Characters of an answer in a list."""
_REVIEWERS: Final = (Role.OWNER, Role.ADMIN, Role.EDITOR, Role.REVIEWER)

Why = Literal["down", "unanswered"]


@dataclass(frozen=True, slots=True)
class Sought:
    """What is looked for in the queue; each field that is set narrows it down."""

    selection: Selection = Selection()  # noqa: RUF009 - it is frozen
    states: tuple[str, ...] = ()
    label: str = ""
    assignee: str = ""
    """Id of an account; `none`: nobody's."""
    text: str = ""
    """Part of the question or the answer."""
    why: Why | None = None


@dataclass(frozen=True, slots=True)
class Complaint:
    """Somebody's 👎."""

    person: str
    name: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Escalation:
    """Somebody asked for a human."""

    person: str
    at: datetime
    resolved_by: str | None
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class Review:
    """An answer to be looked at, and what became of it."""

    answer_id: str
    question: str
    answer: str
    """In a list its beginning."""
    answered: bool
    kbs: tuple[str, ...]
    person: str
    name: str
    platform: str
    workspace: str
    channel: str
    engine: str
    model: str
    asked_at: datetime
    complaints: tuple[Complaint, ...]
    escalation: Escalation | None
    state: str
    """new, working, or solved."""
    assignee: str | None
    assignee_name: str
    labels: tuple[str, ...]
    note: str
    cure: Mapping[str, Any]
    """`kind` (one of CURES), and `object`: what of that kind; `posted`: id of the message in the thread."""
    again_id: str | None
    updated_by: str
    updated_at: datetime | None
    conversation_id: str | None

    def as_json(self) -> JSON:
        values = {name: _plain(getattr(self, name)) for name in EXPORTED if hasattr(self, name)}
        values["complaints"] = len(self.complaints)
        values["reasons"] = [one.reason for one in self.complaints if one.reason]
        values["escalated"] = self.escalation is not None
        values["cure"] = str(self.cure.get("kind", ""))
        return {name: values[name] for name in EXPORTED}


@dataclass(frozen=True, slots=True)
class Changed:
    """What a reviewer sets; None leaves it as it is."""

    state: str | None = None
    assignee: str | None = None
    """Id of an account; empty: nobody's."""
    labels: tuple[str, ...] | None = None
    note: str | None = None
    cure: Mapping[str, Any] | None = None
    again_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reviewer:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Page:
    items: tuple[Review, ...]
    total: int
    counts: Mapping[str, int]
    """Of each state, whatever state was asked for."""


class Reviews:
    """Whoever asks says which knowledge bases they may see answers from (`Selection.allowed`)."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # ------------------------------------------------------------ reading
    async def list(self, sought: Sought, *, limit: int = 50, offset: int = 0) -> Page:
        """The newest question first."""
        where = self._where(sought)
        state = func.coalesce(ReviewRow.state, "new")
        count = self._of(sought, select(state, func.count())).where(*where).group_by(state)
        async with self._db.read() as session:
            counts = {str(name): int(number) for name, number in await session.execute(count)}
            total = sum(number for name, number in counts.items() if not sought.states or name in sought.states)
            query = self._of(sought, select(*_COLUMNS, ReviewRow)).where(*where)
            if sought.states:
                query = query.where(state.in_(sought.states))
            query = query.order_by(AnswerRow.created_at.desc(), AnswerRow.id).limit(limit).offset(offset)
            rows = list(await session.execute(query))
            return Page(tuple(await _reviews(session, rows)), total, {name: counts.get(name, 0) for name in STATES})

    async def get(self, answer_id: str, allowed: tuple[str, ...] | None = None) -> Review:
        """One with its whole answer. Raises NotFound, also where it may not be seen or needs no review."""
        async with self._db.read() as session:
            query = _with_reviews(select(*_COLUMNS, ReviewRow)).where(_NEEDED, AnswerRow.id == answer_id)
            if allowed is not None:
                query = query.where(seen(allowed, is_sqlite=self._db.is_sqlite))
            rows = list(await session.execute(query))
            if not rows:
                raise NotFound(tell("no_such_review"))
            (found,) = await _reviews(session, rows)
            text = await session.scalar(select(AnswerRow.text).where(AnswerRow.id == answer_id))
        return replace(found, answer=text or "")

    async def reviewers(self) -> Sequence[Reviewer]:
        """Accounts that something can be given to."""
        query = select(UserRow.id, UserRow.name).where(
            ~UserRow.disabled, UserRow.role.in_([role.value for role in _REVIEWERS])
        )
        async with self._db.read() as session:
            return [Reviewer(key, name) for key, name in await session.execute(query.order_by(UserRow.name))]

    async def place(self, answer_id: str) -> tuple[Place, str]:
        """Where it was asked, and a link to it where its platform has such; an empty place where it stands alone."""
        async with self._db.read() as session:
            row = (
                await session.execute(
                    select(ConversationRow)
                    .join(AnswerRow, AnswerRow.conversation_id == ConversationRow.id)
                    .where(AnswerRow.id == answer_id)
                )
            ).scalar_one_or_none()
            if row is None:
                return Place(""), ""
            message = await session.scalar(
                select(PostRow.message)
                .join(InboxRow, InboxRow.id == PostRow.inbox_id)
                .where(InboxRow.answer_id == answer_id)
                .order_by(PostRow.number)
                .limit(1)
            )
        place = Place(row.platform, row.workspace, row.channel, row.thread)
        return place, permalink(place, message or "")

    # ------------------------------------------------------------ changing
    async def change(
        self, answer_id: str, given: Changed, by: Person, allowed: tuple[str, ...] | None = None
    ) -> Review:
        """Raises NotFound as `get`, and UserError for a state, label, cure or account there is not."""
        await self.get(answer_id, allowed)
        values = _checked(given)
        async with self._db.session() as session:
            if given.assignee:
                account = await session.get(UserRow, given.assignee)
                if account is None or account.disabled or Role(account.role) not in _REVIEWERS:
                    raise UserError(tell("review_bad_assignee"))
            fresh = {"state": "new", "labels": [], "note": "", "cure": {}, "created_at": now()} | values
            changes = values | {"updated_by": by.name, "updated_at": now()}
            await session.execute(
                self._db.insert(ReviewRow)
                .values(answer_id=answer_id, **(fresh | changes))
                .on_conflict_do_update(index_elements=["answer_id"], set_=changes)
            )
        return await self.get(answer_id, allowed)

    async def set_state(
        self, answer_ids: Sequence[str], state: str, by: Person, allowed: tuple[str, ...] | None = None
    ) -> int:
        """Give several one state; those that are not there or may not be seen are passed by. Gives how many it was."""
        values = _checked(Changed(state)) | {"updated_by": by.name, "updated_at": now()}
        where = [_NEEDED, AnswerRow.id.in_(dict.fromkeys(answer_ids))]
        if allowed is not None:
            where.append(seen(allowed, is_sqlite=self._db.is_sqlite))
        fresh = {"labels": [], "note": "", "cure": {}, "created_at": now()} | values
        async with self._db.session() as session:
            ids = list(await session.scalars(select(AnswerRow.id).where(*where)))
            for start in range(0, len(ids), _PAGE):
                rows = [{"answer_id": key, **fresh} for key in ids[start : start + _PAGE]]
                put = self._db.insert(ReviewRow).values(rows)
                await session.execute(put.on_conflict_do_update(index_elements=["answer_id"], set_=values))
        return len(ids)

    # ------------------------------------------------------------ giving away
    async def export(self, sought: Sought, kind: Literal["csv", "jsonl"]) -> str:
        """The filtered list as CSV, with nothing in it that a spreadsheet would run, or as JSON lines."""
        found: list[Review] = []
        while len(found) < MOST_EXPORTED:
            page = await self.list(sought, limit=_PAGE, offset=len(found))
            found += page.items
            if len(page.items) < _PAGE:
                break
        rows = [item.as_json() for item in found]
        if kind == "jsonl":
            return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(EXPORTED)
        for row in rows:
            writer.writerow([cell(_flat(row[column])) for column in EXPORTED])
        return "\ufeff" + text.getvalue()

    # ------------------------------------------------------------ what belongs to the queue
    def _of(self, sought: Sought, query: Any) -> Any:
        """The query over what was, or is, to be looked at.

        What is narrowed down by what stands in the answers themselves begins with those that are in the queue; else
        the answers are gone through by time, all of which an index tells.
        """
        narrow = sought.text or sought.label or sought.assignee or sought.why or sought.selection.kb
        if not narrow and sought.selection.allowed is None:
            return _with_reviews(query).where(_NEEDED)
        down = select(RatingRow.answer_id.label("id")).where(RatingRow.value == -1)
        unanswered = select(AnswerRow.id.label("id")).where(_UNANSWERED)
        match sought.why:
            case "down":
                ids = down.distinct().subquery()
            case "unanswered":
                ids = unanswered.subquery()
            case _:
                ids = union(down, unanswered, select(ReviewRow.answer_id.label("id"))).subquery()
        return (
            query.select_from(ids)
            .join(AnswerRow, AnswerRow.id == ids.c.id)
            .outerjoin(ReviewRow, ReviewRow.answer_id == AnswerRow.id)
        )

    def _where(self, sought: Sought) -> Sequence[ColumnElement[bool]]:
        where = [sought.selection.condition(is_sqlite=self._db.is_sqlite)]
        if sought.label:
            place = func.instr if self._db.is_sqlite else func.strpos
            where.append(place(cast(ReviewRow.labels, Text), json.dumps(sought.label)) > 0)
        if sought.assignee == "none":
            where.append(ReviewRow.assignee.is_(None))
        elif sought.assignee:
            where.append(ReviewRow.assignee == sought.assignee)
        if sought.text:
            columns = (AnswerRow.question, AnswerRow.text)
            where.append(or_(*(column.icontains(sought.text, autoescape=True) for column in columns)))
        return where


def permalink(place: Place, message: str) -> str:
    """The address of a message, or at least of its thread or channel; empty where its platform has none."""
    match place.platform:
        case "slack" if place.workspace and place.channel:
            thread = f"/thread/{place.channel}-{place.thread}" if place.thread else ""
            return f"https://app.slack.com/client/{place.workspace}/{place.channel}{thread}"
        case "discord" if place.channel:
            guild, room = place.workspace or "@me", place.thread or place.channel
            return f"https://discord.com/channels/{guild}/{room}" + (f"/{message}" if message else "")
        case "telegram" if place.channel.startswith("-100") and message:
            return f"https://t.me/c/{place.channel.removeprefix('-100')}/{message}"
    return ""


_COLUMNS: Final = (
    AnswerRow.id, AnswerRow.question, func.substr(AnswerRow.text, 1, _SHOWN).label("text"), AnswerRow.answered,
    AnswerRow.kbs, AnswerRow.person, AnswerRow.platform, AnswerRow.workspace, AnswerRow.channel, AnswerRow.engine,
    AnswerRow.model, AnswerRow.created_at, AnswerRow.conversation_id,
)  # fmt: skip


_UNANSWERED: Final = and_(
    AnswerRow.answered.is_(False), AnswerRow.state == "complete", AnswerRow.platform.not_in(NOT_PEOPLE)
)
_NEEDED: Final = or_(
    _UNANSWERED,
    # A list made once; for an EXISTS, SQLite would go through all ratings of this value, again for every answer.
    AnswerRow.id.in_(select(RatingRow.answer_id).where(RatingRow.value == -1)),
    exists().where(ReviewRow.answer_id == AnswerRow.id).correlate(AnswerRow),
)


def _with_reviews(query: Any) -> Any:
    return query.select_from(AnswerRow).outerjoin(ReviewRow, ReviewRow.answer_id == AnswerRow.id)


async def _reviews(session: AsyncSession, rows: Sequence[Any]) -> list[Review]:
    ids = [row.id for row in rows]
    votes = list(
        await session.scalars(
            select(RatingRow)
            .where(RatingRow.answer_id.in_(ids), RatingRow.value == -1)
            .order_by(RatingRow.updated_at, RatingRow.id)
        )
    )
    helped = {
        one.answer_id: Escalation(one.person, one.created_at, one.resolved_by, one.resolved_at)
        for one in await session.scalars(select(EscalationRow).where(EscalationRow.answer_id.in_(ids)))
    }
    assigned = {row.ReviewRow.assignee for row in rows if row.ReviewRow and row.ReviewRow.assignee}
    people = {row.person for row in rows} | {vote.person for vote in votes}
    names = await names_of(session, people | {ACCOUNT_PREFIX + key for key in assigned})
    complaints: dict[str, list[Complaint]] = {}
    for vote in votes:
        complaint = Complaint(vote.person, names.get(vote.person, ""), vote.reason, vote.updated_at)
        complaints.setdefault(vote.answer_id, []).append(complaint)
    return [_review(row, tuple(complaints.get(row.id, ())), helped.get(row.id), names) for row in rows]


def _review(
    row: Any, complaints: tuple[Complaint, ...], escalation: Escalation | None, names: Mapping[str, str]
) -> Review:
    review: ReviewRow | None = row.ReviewRow
    assignee = review.assignee if review else None
    return Review(
        answer_id=row.id,
        question=row.question,
        answer=row.text,
        answered=row.answered,
        kbs=tuple(row.kbs),
        person=row.person,
        name=names.get(row.person, ""),
        platform=row.platform,
        workspace=row.workspace,
        channel=row.channel,
        engine=row.engine,
        model=row.model,
        asked_at=row.created_at,
        complaints=complaints,
        escalation=escalation,
        state=review.state if review else "new",
        assignee=assignee,
        assignee_name=names.get(ACCOUNT_PREFIX + assignee, "") if assignee else "",
        labels=tuple(review.labels) if review else (),
        note=review.note if review else "",
        cure=review.cure if review else {},
        again_id=review.again_id if review else None,
        updated_by=review.updated_by if review else "",
        updated_at=review.updated_at if review else None,
        conversation_id=row.conversation_id,
    )


def _checked(given: Changed) -> dict[str, Any]:
    """The columns that are set."""
    if given.state is not None and given.state not in STATES:
        raise UserError(tell("review_bad_state"))
    if given.labels is not None and not set(given.labels) <= set(LABELS):
        raise UserError(tell("review_bad_label"))
    if given.cure and given.cure.get("kind", CURES[0]) not in CURES:
        raise UserError(tell("review_bad_cure"))
    if given.note is not None and len(given.note) > LONGEST_NOTE:
        raise UserError(tell("review_note_long", most=LONGEST_NOTE))
    values: dict[str, Any] = {
        "state": given.state,
        "labels": None if given.labels is None else [label for label in LABELS if label in given.labels],
        "note": given.note,
        "cure": None if given.cure is None else dict(given.cure),
        "again_id": given.again_id,
    }
    values = {key: value for key, value in values.items() if value is not None}
    return values if given.assignee is None else {**values, "assignee": given.assignee or None}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


def _flat(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
