"""Conversations: what was asked and answered in one place, and who may see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Text, bindparam, case, delete, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.direct import AnyRow, Statement, Step
from core.db.session import Database
from core.db.tables import AnswerRow, ConversationRow, RatingRow, new_id, now
from core.errors import NotFound, UserError
from core.texts import place_of, say, tell, text_language
from core.types import Finished, Language, Locator, Passage, PastTurn, Place, Rating, Source

LONGEST_TITLE: Final = 200
_TITLE_FROM_QUESTION: Final = 60
_REMEMBERED: Final = ("complete", "stopped")
"""States of answers that belong to the history an engine is shown."""


@dataclass(frozen=True, slots=True)
class Conversation:
    id: str
    place: Place
    person: str
    """Who opened it."""
    title: str
    """Empty before the first question."""
    kb: str | None
    """The knowledge base chosen in it."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question with its answer, as a page shows it."""

    answer_id: str
    question: str
    standalone_question: str
    text: str
    answered: bool
    state: str
    """complete, stopped, failed, or replaced."""
    error: str
    notice: str
    engine: str
    sources: tuple[Source, ...]
    """Those the answer cites."""
    rating: Rating | None
    """By the person who looks."""
    created_at: datetime


_HERE: Final = (
    ConversationRow.platform == bindparam("on"),
    ConversationRow.workspace == bindparam("within"),
    ConversationRow.channel == bindparam("at"),
    ConversationRow.thread == bindparam("below"),
)
_FIRST: Final = (ConversationRow.created_at, ConversationRow.id)
_OF_PLACE: Final = Statement(select(ConversationRow).where(*_HERE).order_by(*_FIRST).limit(1))
_BEGIN: Final = Statement(
    insert(ConversationRow).from_select(
        ["platform", "workspace", "channel", "thread", "person", "kb"],
        select(*(bindparam(name, type_=Text) for name in ("on", "within", "at", "below", "who", "chosen"))).where(
            ~exists().where(*_HERE)
        ),
    )
)
_LAST_QUESTION: Final = Statement(
    select(AnswerRow.standalone_question, AnswerRow.question, AnswerRow.kbs)
    .where(
        AnswerRow.conversation_id
        == select(ConversationRow.id).where(*_HERE).order_by(*_FIRST).limit(1).scalar_subquery(),
        AnswerRow.state != "replaced",
    )
    .order_by(AnswerRow.created_at.desc(), AnswerRow.id)
    .limit(1)
)
_PAST_TURNS: Final = Statement(
    select(AnswerRow.question, AnswerRow.standalone_question, AnswerRow.text, AnswerRow.answered, AnswerRow.passages)
    .where(AnswerRow.conversation_id == bindparam("conversation"), AnswerRow.state.in_(_REMEMBERED))
    .order_by(AnswerRow.created_at.desc(), AnswerRow.id)
    .limit(bindparam("most"))
)
_NOTE_QUESTION: Final = Statement(
    update(ConversationRow)
    .where(ConversationRow.id == bindparam("conversation"))
    .values(
        updated_at=bindparam("at"),
        title=case((ConversationRow.title == "", bindparam("first", type_=Text)), else_=ConversationRow.title),
    )
)


class Conversations:
    """Everything a person reads is asked for together with that person; another's conversation is not found."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def open(self, place: Place, person: str, *, kb: str | None = None) -> Conversation:
        """The conversation of a place, which all who talk there share; begun where there is none yet."""
        here = _here(place)
        (found,) = await self._db.fetch(_OF_PLACE(**here))
        if not found.rows:
            _, found = await self._db.run(_BEGIN(**here, who=person, chosen=kb), _OF_PLACE(**here))
        return _conversation(found.rows[0])

    async def known(self, place: Place) -> bool:
        """Whether something was asked there before."""
        (found,) = await self._db.fetch(_OF_PLACE(**_here(place)))
        return bool(found.rows)

    async def last_question(self, place: Place) -> tuple[str, Sequence[str]] | None:
        """What was last asked in a place, standing alone, and the names of the knowledge bases that were asked."""
        (found,) = await self._db.fetch(_LAST_QUESTION(**_here(place)))
        row = found.first
        return (row.standalone_question or row.question, row.kbs) if row is not None else None

    async def start(self, platform: str, person: str, *, kb: str | None = None) -> Conversation:
        """A new conversation of one person, on a platform that keeps them by name."""
        return await self.open(Place(platform, channel=person, thread=new_id()), person, kb=kb)

    async def get(self, id: str, person: str) -> Conversation:
        async with self._db.read() as session:
            return _conversation(await _own(session, id, person))

    async def list(self, person: str, *, limit: int = 200) -> Sequence[Conversation]:
        """A person's conversations in which something was asked, the latest first."""
        async with self._db.read() as session:
            rows = await session.scalars(
                select(ConversationRow)
                .where(ConversationRow.person == person, ConversationRow.title != "")
                .order_by(ConversationRow.updated_at.desc(), ConversationRow.id)
                .limit(limit)
            )
            return [_conversation(row) for row in rows]

    async def rename(self, id: str, person: str, title: str) -> Conversation:
        title = " ".join(title.split())
        if not 1 <= len(title) <= LONGEST_TITLE:
            raise UserError(tell("title_length", most=LONGEST_TITLE))
        async with self._db.session() as session:
            row = await _own(session, id, person)
            row.title = title
            return _conversation(row)

    async def choose_kb(self, id: str, person: str, kb: str | None) -> Conversation:
        async with self._db.session() as session:
            row = await _own(session, id, person)
            row.kb = kb
            return _conversation(row)

    async def delete(self, id: str, person: str) -> None:
        """Remove it with its answers and their ratings."""
        async with self._db.session() as session:
            row = await _own(session, id, person)
            answers = select(AnswerRow.id).where(AnswerRow.conversation_id == row.id)
            await session.execute(delete(RatingRow).where(RatingRow.answer_id.in_(answers)))
            await session.execute(delete(AnswerRow).where(AnswerRow.conversation_id == row.id))
            await session.delete(row)

    async def turns(self, id: str, limit: int) -> Sequence[PastTurn]:
        """As `turns_from`."""
        (found,) = await self._db.fetch(past_turns(id, limit))
        return turns_from(found.rows)

    async def exchanges(self, id: str, person: str) -> Sequence[Exchange]:
        """What was asked and answered in it, oldest first, without what was replaced."""
        async with self._db.read() as session:
            await _own(session, id, person)
            rows = await session.execute(
                select(AnswerRow, RatingRow)
                .outerjoin(
                    RatingRow,
                    (RatingRow.answer_id == AnswerRow.id) & (RatingRow.person == person) & (RatingRow.value != 0),
                )
                .where(AnswerRow.conversation_id == id, AnswerRow.state != "replaced")
                .order_by(AnswerRow.created_at, AnswerRow.id)
            )
            return [_exchange(answer, rating) for answer, rating in rows]

    async def swap_state(self, answer_id: str, person: str, state: str) -> tuple[str, str]:
        """Give an own answer another state, e.g. `replaced`; returns the question it answers and its former state."""
        async with self._db.session() as session:
            row = await session.scalar(select(AnswerRow).where(AnswerRow.id == answer_id, AnswerRow.person == person))
            if row is None:
                raise NotFound(tell("no_such_answer"))
            former, row.state = row.state, state
            return row.question, former

    async def markdown(self, id: str, person: str, language: Language | None = None) -> str:
        """The whole conversation as a Markdown document."""
        conversation = await self.get(id, person)
        exchanges = await self.exchanges(id, person)
        words = language or text_language(exchanges[0].question if exchanges else conversation.title)
        title = conversation.title or say("conversation_untitled", words)
        parts = [f"# {_heading(title)}"]
        for exchange in exchanges:
            parts += [f"## {_heading(exchange.question)}", exchange.text or f"*{_heading(exchange.error)}*"]
            if exchange.notice:
                parts.append(f"*{_heading(exchange.notice)}*")
            if exchange.sources:
                lines = [_source_line(source, words) for source in exchange.sources]
                parts.append(f"**{say('word_sources', words)}**\n\n" + "\n".join(lines))
            parts.append(f"<sub>{exchange.created_at:%Y-%m-%d %H:%M} UTC · {exchange.engine}</sub>")
        return "\n\n".join(parts) + "\n"


def past_turns(conversation_id: str, limit: int) -> Step:
    """Find the last questions with their answers; those that failed or were replaced are left out."""
    return _PAST_TURNS(conversation=conversation_id, most=limit)


def turns_from(rows: Sequence[AnyRow]) -> Sequence[PastTurn]:
    """What `past_turns` found, oldest first."""
    return [_past_turn(*row) for row in reversed(rows)]


def note_question(conversation_id: str, question: str) -> Step:
    """Move a conversation to the top, and name it after its first question."""
    return _NOTE_QUESTION(conversation=conversation_id, at=now(), first=title_from(question))


def title_from(question: str) -> str:
    """A short title: the question's beginning, cut at a word."""
    line = " ".join("".join(char if char.isprintable() else " " for char in question).split())
    if len(line) <= _TITLE_FROM_QUESTION:
        return line or "…"
    head = line[: _TITLE_FROM_QUESTION - 1]
    blank = head.rfind(" ")
    return (head[:blank] if blank > _TITLE_FROM_QUESTION // 2 else head) + "…"


def passage_json(passage: Passage, number: int, *, cited: bool) -> dict[str, Any]:
    """A passage as the record of an answer keeps it."""
    place = passage.locator
    return {
        "n": number,
        "kb": passage.kb,
        "document_id": passage.document_id,
        "document": passage.document,
        "title": passage.title,
        "chunk": passage.chunk,
        "text": passage.text,
        "headings": list(passage.headings),
        "locator": {"kind": place.kind, "label": place.label, "first": place.first, "last": place.last},
        "score": passage.score,
        "vector_score": passage.vector_score,
        "keyword_score": passage.keyword_score,
        "rerank_score": passage.rerank_score,
        "cited": cited,
    }


def source_from(kept: Mapping[str, Any]) -> Source:
    """The source that `passage_json` kept."""
    passage = Passage(
        kb=kept["kb"],
        document_id=kept["document_id"],
        document=kept["document"],
        title=kept["title"],
        chunk=kept["chunk"],
        text=kept["text"],
        headings=tuple(kept["headings"]),
        locator=Locator(**kept["locator"]),
        score=kept["score"],
        vector_score=kept["vector_score"],
        keyword_score=kept["keyword_score"],
        rerank_score=kept["rerank_score"],
    )
    return Source(kept["n"], passage)


def finished_from(row: AnyRow) -> Finished:
    """The event that ended a recorded answer."""
    return Finished(
        answer_id=row.id,
        text=row.text,
        answered=row.answered,
        sources=tuple(source_from(kept) for kept in row.passages if kept["cited"]),
        engine=row.engine,
        standalone_question=row.standalone_question,
        timings_ms=row.timings,
        notice=row.notice,
    )


async def _own(session: AsyncSession, id: str, person: str) -> ConversationRow:
    row = await session.scalar(
        select(ConversationRow).where(ConversationRow.id == id, ConversationRow.person == person)
    )
    if row is None:
        raise NotFound(tell("no_such_conversation"))
    return row


def _here(place: Place) -> dict[str, str]:
    return {"on": place.platform, "within": place.workspace, "at": place.channel, "below": place.thread}


def _conversation(row: ConversationRow | AnyRow) -> Conversation:
    place = Place(row.platform, row.workspace, row.channel, row.thread)
    return Conversation(row.id, place, row.person, row.title, row.kb, row.created_at, row.updated_at)


def _past_turn(question: str, standalone: str, text: str, answered: bool, passages: Sequence[Any]) -> PastTurn:
    cited = tuple(dict.fromkeys(kept["document"] for kept in passages if kept["cited"]))
    return PastTurn(question, standalone, text, answered, cited)


def _exchange(row: AnswerRow, rating: RatingRow | None) -> Exchange:
    return Exchange(
        answer_id=row.id,
        question=row.question,
        standalone_question=row.standalone_question,
        text=row.text,
        answered=row.answered,
        state=row.state,
        error=row.error or "",
        notice=row.notice,
        engine=row.engine,
        sources=tuple(source_from(kept) for kept in row.passages if kept["cited"]),
        rating=rating_from(rating) if rating else None,
        created_at=row.created_at,
    )


def rating_from(row: RatingRow | AnyRow) -> Rating:
    return Rating(row.answer_id, row.person, 1 if row.value > 0 else -1, row.reason, row.updated_at)


def _heading(text: str) -> str:
    """On one line, and no Markdown of its own."""
    line = " ".join(text.split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>#|" else char for char in line)


def _source_line(source: Source, language: Language) -> str:
    passage = source.passage
    place = place_of(passage.locator, passage.headings, language)
    return f"- [{source.n}] " + " — ".join(_heading(part) for part in (passage.title, passage.document, place) if part)
