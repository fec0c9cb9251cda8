"""All that is kept about a person: found by key or name, given out on request, and erased on request."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, exists, func, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import ACCOUNT_PREFIX
from core.blobs import Blobs
from core.db.session import Database
from core.db.tables import (
    AnswerRow,
    ApiKeyRow,
    ConversationRow,
    DocumentRow,
    EscalationRow,
    InboxRow,
    KbGrantRow,
    KnowledgeBaseRow,
    PostRow,
    RatingRow,
    SessionRow,
    Table,
    UserRow,
    now,
)
from core.errors import NotFound
from core.kb.temporary import base_of
from core.quality.records import names_of
from core.texts import tell
from core.types import JSON
from core.upkeep.removal import DropFiles, Removal

_MOST_BYTES: Final = 50_000_000
"""Of files that are given out with their content; of the rest, name and size."""


@dataclass(frozen=True, slots=True)
class KnownPerson:
    key: str
    name: str
    """The account's name, where there is one."""
    answers: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Kept:
    """How much there is of a person."""

    person: str
    name: str
    conversations: int
    """That they opened."""
    answers: int
    """To their questions."""
    ratings: int
    messages: int
    """Rows of the inbox that hold a question of theirs."""
    posts: int
    """Our messages that answer them."""
    grants: int
    escalations: int
    files: int
    """Sent in conversations that they opened."""
    has_account: bool
    """It is not erased with the rest; delete it among the users."""

    @property
    def is_nothing(self) -> bool:
        counts = (self.conversations, self.answers, self.ratings, self.messages, self.grants, self.escalations)
        return not (any(counts) or self.has_account)


class Persons:
    def __init__(self, db: Database, removal: Removal, blobs: Blobs, drop_files: DropFiles) -> None:
        self._db = db
        self._removal = removal
        self._blobs = blobs
        self._drop_files = drop_files

    async def find(self, text: str = "", *, limit: int = 25, offset: int = 0) -> tuple[Sequence[KnownPerson], int]:
        """A page of those who asked something and whose key or name contains `text`, the latest first; and how many."""
        row = AnswerRow
        named = select(literal(ACCOUNT_PREFIX) + UserRow.id).where(UserRow.name.icontains(text, autoescape=True))
        last_at = func.max(row.created_at).label("last_at")
        query = (
            select(row.person, func.count(), last_at, func.count().over())
            .where(or_(row.person.icontains(text, autoescape=True), row.person.in_(named)))
            .group_by(row.person)
            .order_by(last_at.desc(), row.person)
            .limit(limit)
            .offset(offset)
        )
        async with self._db.read() as session:
            rows = (await session.execute(query)).all()
            names = await names_of(session, [person for person, *_ in rows])
        found = [KnownPerson(person, names.get(person, ""), count, at) for person, count, at, _ in rows]
        return found, rows[0][3] if rows else 0

    async def kept(self, person: str) -> Kept:
        """Raises NotFound where nothing is."""
        async with self._db.read() as session:
            counts = {name: await _count(session, table, where) for name, table, where in _parts(person)}
            names = await names_of(session, [person])
            files = await session.scalar(select(func.count()).select_from(DocumentRow).where(_files_of(person)))
        kept = Kept(person=person, name=names.get(person, ""), files=files or 0, has_account=person in names, **counts)
        if kept.is_nothing:
            raise NotFound(tell("no_person_kept", person=person[:255]))
        return kept

    async def export(self, person: str) -> JSON:
        """All of it as one JSON document. Raises NotFound where nothing is kept."""
        kept = await self.kept(person)
        found: JSON = {"person": person, "name": kept.name, "exported_at": now().isoformat(), "counts": asdict(kept)}
        async with self._db.read() as session:
            for name, table, where in _parts(person):
                rows = await session.scalars(select(table).where(where).order_by(table.__table__.c["id"]))
                found[name] = [_plain(row) for row in rows]
            found["account"] = await _account(session, person)
            documents = list(await session.scalars(select(DocumentRow).where(_files_of(person))))
        found["files"] = await asyncio.to_thread(self._files, documents)
        return found

    async def erase(self, person: str) -> Kept:
        """Delete all of it but the account; gives what there was. Raises NotFound.

        What others were told in the same conversation stays theirs; the turns before, which their prompts repeat, go.
        A conversation that others asked in too stays, without its opener and its title. Begun again after a crash, it
        goes on where it was.
        """
        kept = await self.kept(person)
        async with self._db.read() as session:
            opened = list(await session.scalars(select(ConversationRow.id).where(ConversationRow.person == person)))
            query = select(AnswerRow.conversation_id).where(AnswerRow.person == person).distinct()
            talked_in = [one for one in await session.scalars(query) if one is not None]
        for conversation in opened:  # first, since afterwards nobody knows any more whose files they are
            await self._drop_files(conversation)
        await self._removal.answers(AnswerRow.person == person)
        async with self._db.session() as session:
            await session.execute(delete(RatingRow).where(RatingRow.person == person))
            await session.execute(delete(EscalationRow).where(EscalationRow.person == person))
            await session.execute(
                update(EscalationRow).where(EscalationRow.resolved_by == person).values(resolved_by=None)
            )
            if not person.startswith(ACCOUNT_PREFIX):  # an account's go with the account
                await session.execute(delete(KbGrantRow).where(KbGrantRow.person == person))
            mine = _said_by(person)
            posts = select(InboxRow.id).where(mine)
            await session.execute(delete(PostRow).where(PostRow.inbox_id.in_(posts)))
            await session.execute(delete(InboxRow).where(mine))
            for start in range(0, len(talked_in), 500):
                some = talked_in[start : start + 500]
                await session.execute(update(AnswerRow).where(AnswerRow.conversation_id.in_(some)).values(prompt=[]))
            is_shared = exists().where(AnswerRow.conversation_id == ConversationRow.id)
            opener = ConversationRow.person == person
            await session.execute(update(ConversationRow).where(opener, is_shared).values(person="", title=""))
        await self._removal.empty(ConversationRow.person == person)
        return kept

    def _files(self, documents: Sequence[DocumentRow]) -> list[JSON]:
        room, found = _MOST_BYTES, []
        for row in documents:
            described = {
                "name": row.name,
                "size": row.size,
                "media_type": row.media_type,
                "at": row.created_at.isoformat(),
            }
            original = self._blobs.get(row.content_hash) if row.size <= room else None
            content = None
            if original is not None:
                room -= row.size
                content = base64.b64encode(original.read_bytes()).decode("ascii")
            found.append({**described, "content_base64": content})
        return found


def _parts(person: str) -> Sequence[tuple[str, type[Table], ColumnElement[bool]]]:
    """Where something about a person is kept, by the name it has in `Kept`."""
    return (
        ("conversations", ConversationRow, ConversationRow.person == person),
        ("answers", AnswerRow, AnswerRow.person == person),
        ("ratings", RatingRow, (RatingRow.person == person) & (RatingRow.value != 0)),
        ("messages", InboxRow, _said_by(person)),
        ("posts", PostRow, PostRow.inbox_id.in_(select(InboxRow.id).where(_said_by(person)))),
        ("grants", KbGrantRow, KbGrantRow.person == person),
        ("escalations", EscalationRow, EscalationRow.person == person),
    )


def _said_by(person: str) -> ColumnElement[bool]:
    """Rows of the inbox with a question of theirs: answered, or still to be."""
    answered = InboxRow.answer_id.in_(select(AnswerRow.id).where(AnswerRow.person == person))
    return or_(answered, InboxRow.mention["person"]["key"].as_string() == person)


def _files_of(person: str) -> ColumnElement[bool]:
    names = select(literal(base_of("")) + ConversationRow.id).where(ConversationRow.person == person)
    bases = select(KnowledgeBaseRow.id).where(KnowledgeBaseRow.name.in_(names))
    return DocumentRow.kb_id.in_(bases)


async def _count(session: AsyncSession, table: type[Table], where: ColumnElement[bool]) -> int:
    return await session.scalar(select(func.count()).select_from(table).where(where)) or 0


async def _account(session: AsyncSession, person: str) -> JSON | None:
    """The account without its secrets."""
    user = (
        await session.get(UserRow, person.removeprefix(ACCOUNT_PREFIX)) if person.startswith(ACCOUNT_PREFIX) else None
    )
    if user is None:
        return None
    sessions = await session.scalars(select(SessionRow).where(SessionRow.user_id == user.id))
    keys = await session.scalars(select(ApiKeyRow).where(ApiKeyRow.user_id == user.id))
    return {
        **_plain(user),
        "sessions": [_plain(row) for row in sessions],
        "api_keys": [_plain(row) for row in keys],
    }


_SECRET: Final = frozenset({"password_hash", "token_hash"})


def _plain(row: Table) -> JSON:
    """The columns of a row as JSON takes them, without secrets."""
    return {
        column.key: _value(getattr(row, column.key)) for column in row.__table__.columns if column.key not in _SECRET
    }


def _value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
