"""Conversations and answers removed with all that belongs to them, in steps that keep nobody waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import ColumnElement, CursorResult, Delete, Update, delete, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.session import Database
from core.db.tables import AnswerRow, ConversationRow, InboxRow, PostRow, now

DropFiles = Callable[[str], Awaitable[int]]
"""Deletes the files that were sent in the conversation of that id; gives their number."""

TOGETHER: Final = 500
"""Answers that are deleted in one step, so that nobody waits long for the database."""
_REDELIVERED: Final = timedelta(days=2)
"""For so long a platform may bring a message again; what says that it was answered already is kept."""


@dataclass(slots=True)
class Deleted:
    """How much is gone."""

    answers: int = 0
    conversations: int = 0
    files: int = 0


class Removal:
    def __init__(self, db: Database, drop_files: DropFiles) -> None:
        self._db = db
        self._drop_files = drop_files

    async def conversations(self, ids: Sequence[str]) -> Deleted:
        """Delete conversations, and questions that stand alone, with all that belongs to them; unknown ids are none."""
        gone = Deleted()
        for one in dict.fromkeys(ids):
            of_it = or_(AnswerRow.conversation_id == one, (AnswerRow.id == one) & AnswerRow.conversation_id.is_(None))
            gone.answers += await self.answers(of_it)
            async with self._db.session() as session:
                found = await touched(session, delete(ConversationRow).where(ConversationRow.id == one))
            if found:
                gone.conversations += found
                gone.files += await self._drop_files(one)
        return gone

    async def answers(
        self, where: ColumnElement[bool], progress: Callable[[int], Awaitable[None]] | None = None
    ) -> int:
        """Delete answers with ratings, reviews, our messages and the inbox's rows, in small steps; gives how many."""
        count = 0
        while True:
            async with self._db.session() as session:
                found = await session.scalars(select(AnswerRow.id).where(where).limit(TOGETHER))
                ids = list(found)
                if ids:
                    await _delete_answers(session, ids)
            count += len(ids)
            if progress is not None and ids:
                await progress(count)
            if len(ids) < TOGETHER:
                return count

    async def empty(self, where: ColumnElement[bool]) -> Deleted:
        """Delete those of the conversations in which no answer is left, with the files that were sent in them."""
        gone = Deleted()
        is_empty = ~exists().where(AnswerRow.conversation_id == ConversationRow.id)
        while True:
            async with self._db.session() as session:
                query = select(ConversationRow.id).where(where, is_empty).limit(TOGETHER)
                ids = list(await session.scalars(query))
                await session.execute(delete(ConversationRow).where(ConversationRow.id.in_(ids)))
            for one in ids:
                gone.files += await self._drop_files(one)
            gone.conversations += len(ids)
            if len(ids) < TOGETHER:
                return gone


async def touched(session: AsyncSession, statement: Update | Delete) -> int:
    """Run it; how many rows it changed."""
    done = await session.execute(statement)
    assert isinstance(done, CursorResult)  # noqa: S101 - what these statements give
    return int(done.rowcount)


async def _delete_answers(session: AsyncSession, ids: Sequence[str]) -> None:
    """Ratings, reviews and escalations go with their answers."""
    of_them = InboxRow.answer_id.in_(ids)
    is_old = InboxRow.created_at < now() - _REDELIVERED
    await session.execute(delete(PostRow).where(PostRow.inbox_id.in_(select(InboxRow.id).where(of_them, is_old))))
    await session.execute(delete(InboxRow).where(of_them, is_old))
    is_over = InboxRow.state.not_in(("waiting", "working"))
    await session.execute(update(InboxRow).where(of_them, is_over).values(mention={}))
    await session.execute(delete(AnswerRow).where(AnswerRow.id.in_(ids)))
