"""Conversations of everybody, for those who review them: searched and read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import ACCOUNT_PREFIX
from core.answering.conversation import source_from
from core.db.session import Database
from core.db.tables import (
    AnswerRow,
    ChannelRow,
    ConversationRow,
    EscalationRow,
    RatingRow,
    UserRow,
)
from core.errors import NotFound
from core.quality.selection import Selection, seen
from core.texts import tell
from core.types import Place, Source, Turn

_EVERYTHING: Final = Selection()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for; each field that is set narrows it down."""

    selection: Selection = _EVERYTHING
    text: str = ""
    """Part of a question or an answer."""
    person: str = ""
    """Part of the key of who asked, or of an account's name."""
    rating: int | None = None
    """1 or -1."""
    answered: bool | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A conversation in which something was found, or a question that stands alone."""

    id: str
    """That of the conversation, or of the answer where there is none."""
    title: str
    place: Place
    channel: str
    """The channel's name, where it is known."""
    person: str
    """Who asked what was found last."""
    name: str
    """Their name, where they have an account."""
    kbs: tuple[str, ...]
    question: str
    """What was found last."""
    count: int
    """Questions that were found in it."""
    refused: int
    up: int
    down: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Vote:
    person: str
    name: str
    value: int
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """A question with its answer and everything that is known of both."""

    answer_id: str
    person: str
    name: str
    question: str
    standalone_question: str
    text: str
    state: str
    answered: bool
    error: str
    notice: str
    kbs: tuple[str, ...]
    engine: str
    model: str
    passages: tuple[Source, ...]
    """Those offered to the engine."""
    cited: tuple[int, ...]
    prompt: tuple[Turn, ...]
    evidence: float | None
    timings_ms: Mapping[str, float]
    prompt_tokens: int | None
    answer_tokens: int | None
    curated_id: str | None
    votes: tuple[Vote, ...]
    asked_for_help: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Whole:
    """A conversation with all of it that may be seen."""

    id: str
    title: str
    place: Place
    channel: str
    created_at: datetime
    entries: tuple[Entry, ...]
    hidden: int
    """Answers from knowledge bases that whoever looks may not read."""


@dataclass(frozen=True, slots=True)
class _Details:
    """Of a page of what was found, by its id."""

    conversations: Mapping[str, ConversationRow]
    last: Mapping[str, Any]
    votes: Mapping[tuple[str, int], int]
    names: Mapping[str, str] = field(default_factory=dict)
    channels: Mapping[tuple[str, str, str], str] = field(default_factory=dict)


_KEY: Final = func.coalesce(AnswerRow.conversation_id, AnswerRow.id)


class Records:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def search(self, wanted: Wanted, *, limit: int = 25, offset: int = 0) -> tuple[Sequence[Found], int]:
        """A page of conversations, that with the latest find first, and how many there are."""
        where = self._condition(wanted)
        last_at, key = func.max(AnswerRow.created_at).label("last_at"), _KEY.label("key")
        query = (
            select(key, last_at, func.count(), func.count().filter(_REFUSED), func.count().over())
            .where(where)
            .group_by(key)
            .order_by(last_at.desc(), key)
        )
        async with self._db.read() as session:
            rows = (await session.execute(query.limit(limit).offset(offset))).all()
            if not rows:
                total = await session.scalar(select(func.count(func.distinct(_KEY))).where(where)) if offset else 0
                return [], total or 0
            details = await self._details(session, [row[0] for row in rows], where)
        entitled = wanted.selection.allowed is None
        return [_found(*row[:4], details, entitled=entitled) for row in rows], rows[0][4]

    async def get(self, id: str, allowed: tuple[str, ...] | None = None) -> Whole:
        """A conversation, or a question that stands alone. Raises NotFound, also where nothing of it may be seen."""
        async with self._db.read() as session:
            conversation = await session.get(ConversationRow, id)
            mine = AnswerRow.conversation_id == id if conversation else AnswerRow.id == id
            rows = list(
                await session.scalars(
                    select(AnswerRow)
                    .where(mine, seen(allowed, is_sqlite=self._db.is_sqlite) if allowed is not None else true())
                    .order_by(AnswerRow.created_at, AnswerRow.id)
                )
            )
            if not rows:
                raise NotFound(tell("no_such_record"))
            count = await session.scalar(select(func.count()).select_from(AnswerRow).where(mine)) or 0
            ids = select(AnswerRow.id).where(mine)
            votes = list(
                await session.scalars(
                    select(RatingRow)
                    .where(RatingRow.answer_id.in_(ids), RatingRow.value != 0)
                    .order_by(RatingRow.updated_at, RatingRow.id)
                )
            )
            helped = set(await session.scalars(select(EscalationRow.answer_id).where(EscalationRow.answer_id.in_(ids))))
            people = {row.person for row in rows} | {vote.person for vote in votes}
            names = await names_of(session, people)
            first = rows[0]
            place = (
                Place(conversation.platform, conversation.workspace, conversation.channel, conversation.thread)
                if conversation
                else Place(first.platform, first.workspace, first.channel)
            )
            channels = await _channel_names(session, [(place.platform, place.workspace, place.channel)])
        return Whole(
            id=id,
            title=conversation.title if conversation and allowed is None else first.question,
            place=place,
            channel=channels.get((place.platform, place.workspace, place.channel), ""),
            created_at=conversation.created_at if conversation else first.created_at,
            entries=tuple(_entry(row, votes, names, row.id in helped) for row in rows),
            hidden=count - len(rows),
        )

    # ------------------------------------------------------------ inside
    def _condition(self, wanted: Wanted) -> ColumnElement[bool]:
        row = AnswerRow
        where = wanted.selection.condition(is_sqlite=self._db.is_sqlite)
        if wanted.text:
            where &= or_(
                row.question.icontains(wanted.text, autoescape=True), row.text.icontains(wanted.text, autoescape=True)
            )
        if wanted.person:
            named = select(literal(ACCOUNT_PREFIX) + UserRow.id).where(
                UserRow.name.icontains(wanted.person, autoescape=True)
            )
            where &= or_(row.person.icontains(wanted.person, autoescape=True), row.person.in_(named))
        if wanted.rating is not None:
            where &= row.id.in_(select(RatingRow.answer_id).where(RatingRow.value == wanted.rating))
        if wanted.answered is not None:
            where &= (row.state == "complete") & row.answered.is_(wanted.answered)
        return where

    async def _details(self, session: AsyncSession, keys: Sequence[str], where: ColumnElement[bool]) -> _Details:
        mine = or_(AnswerRow.conversation_id.in_(keys), AnswerRow.id.in_(keys)) & where
        conversations = {
            row.id: row for row in await session.scalars(select(ConversationRow).where(ConversationRow.id.in_(keys)))
        }
        order = (AnswerRow.created_at.desc(), AnswerRow.id)
        ranked = (
            select(AnswerRow.id, func.row_number().over(partition_by=_KEY, order_by=order).label("place"))
            .where(mine)
            .subquery()
        )
        row = AnswerRow
        latest = select(
            _KEY.label("key"), row.question, row.person, row.kbs, row.platform, row.workspace, row.channel
        ).join(ranked, (ranked.c.id == row.id) & (ranked.c.place == 1))
        last = {found.key: found for found in await session.execute(latest)}
        counted = await session.execute(
            select(_KEY, RatingRow.value, func.count())
            .join(RatingRow, RatingRow.answer_id == AnswerRow.id)
            .where(mine, RatingRow.value != 0)
            .group_by(_KEY, RatingRow.value)
        )
        votes = {(key, value): count for key, value, count in counted}
        names = await names_of(session, {found.person for found in last.values()})
        places = [(found.platform, found.workspace, found.channel) for found in last.values()]
        return _Details(conversations, last, votes, names, await _channel_names(session, places))


_REFUSED: Final = (AnswerRow.state == "complete") & ~AnswerRow.answered


async def names_of(session: AsyncSession, people: Iterable[str]) -> Mapping[str, str]:
    """The names of those who have an account, by their keys."""
    ids = [key.removeprefix(ACCOUNT_PREFIX) for key in people if key.startswith(ACCOUNT_PREFIX)]
    rows = await session.execute(select(UserRow.id, UserRow.name).where(UserRow.id.in_(ids)))
    return {ACCOUNT_PREFIX + key: name for key, name in rows}


async def _channel_names(
    session: AsyncSession, places: Sequence[tuple[str, str, str]]
) -> Mapping[tuple[str, str, str], str]:
    channels = {channel for _, _, channel in places if channel}
    rows = await session.execute(
        select(ChannelRow.platform, ChannelRow.workspace, ChannelRow.channel, ChannelRow.name).where(
            ChannelRow.channel.in_(channels), ChannelRow.name != ""
        )
    )
    return {(platform, workspace, channel): name for platform, workspace, channel, name in rows}


def _found(key: str, last_at: datetime, count: int, refused: int, details: _Details, *, entitled: bool) -> Found:
    """`entitled`: the conversation's title may be shown; it is the first question, whatever that one rests on."""
    conversation, last = details.conversations.get(key), details.last[key]
    place = Place(last.platform, last.workspace, last.channel, conversation.thread if conversation else "")
    return Found(
        id=key,
        title=(conversation.title if conversation and entitled else "") or last.question,
        place=place,
        channel=details.channels.get((last.platform, last.workspace, last.channel), ""),
        person=last.person,
        name=details.names.get(last.person, ""),
        kbs=tuple(last.kbs),
        question=last.question,
        count=count,
        refused=refused,
        up=details.votes.get((key, 1), 0),
        down=details.votes.get((key, -1), 0),
        last_at=last_at,
    )


def _entry(row: AnswerRow, votes: Sequence[RatingRow], names: Mapping[str, str], asked_for_help: bool) -> Entry:
    return Entry(
        answer_id=row.id,
        person=row.person,
        name=names.get(row.person, ""),
        question=row.question,
        standalone_question=row.standalone_question,
        text=row.text,
        state=row.state,
        answered=row.answered,
        error=row.error or "",
        notice=row.notice,
        kbs=tuple(row.kbs),
        engine=row.engine,
        model=row.model,
        passages=tuple(source_from(kept) for kept in row.passages),
        cited=tuple(kept["n"] for kept in row.passages if kept["cited"]),
        prompt=tuple(Turn(turn["role"], turn["text"]) for turn in row.prompt),
        evidence=row.evidence,
        timings_ms=row.timings,
        prompt_tokens=row.prompt_tokens,
        answer_tokens=row.answer_tokens,
        curated_id=row.curated_id,
        votes=tuple(
            Vote(vote.person, names.get(vote.person, ""), vote.value, vote.reason, vote.updated_at)
            for vote in votes
            if vote.answer_id == row.id
        ),
        asked_for_help=asked_for_help,
        created_at=row.created_at,
    )
