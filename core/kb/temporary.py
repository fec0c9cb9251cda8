"""Knowledge bases that are there for a while: they hold the files of one conversation, and are listed nowhere."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, func, select

from core.db.direct import Statement
from core.db.session import Database
from core.db.tables import DocumentRow, KnowledgeBaseRow, new_id, now
from core.errors import Conflict
from core.kb.knowledge import LASTING, checked_kb_name, delete_rows, kb_row
from core.ports import VectorStore
from core.settings import SplitterSettings
from core.texts import tell

_HAS = Statement(
    select(KnowledgeBaseRow.id).where(
        KnowledgeBaseRow.name == bindparam("kb"), LASTING | (KnowledgeBaseRow.expires_at > bindparam("at"))
    )
)


def base_of(conversation_id: str) -> str:
    """The name of the knowledge base that holds the files of a conversation."""
    return f"thread-{conversation_id}"


class TemporaryBases:
    """Makes, keeps and deletes them."""

    def __init__(self, db: Database, store: VectorStore, defaults: SplitterSettings) -> None:
        self._db = db
        self._store = store
        self._defaults = defaults

    async def has(self, name: str) -> bool:
        """Whether it is there, temporary or not."""
        (found,) = await self._db.fetch(_HAS(kb=name, at=now()))
        return bool(found.rows)

    async def ensure(self, name: str, expires_at: datetime) -> None:
        """Make it, or keep it until then. Raises Conflict where the name is that of a lasting one."""
        name = checked_kb_name(name)
        row = {
            "id": new_id(),
            "name": name,
            "private": True,
            "chunk_size": self._defaults.chunk_size,
            "chunk_overlap": self._defaults.chunk_overlap,
            "title_enhance": self._defaults.title_enhance,
            "expires_at": expires_at,
        }
        async with self._db.session() as session:
            await session.execute(
                self._db.insert(KnowledgeBaseRow)
                .values(row)
                .on_conflict_do_update(index_elements=["name"], set_={"expires_at": expires_at}, where=~LASTING)
            )
            if (await kb_row(session, name)).expires_at is None:
                raise Conflict(tell("kb_exists", name=name))

    async def delete(self, conversation_id: str) -> int:
        """Remove the files of a conversation; gives their number."""
        async with self._db.session() as session:
            row = await session.scalar(
                select(KnowledgeBaseRow)
                .where(KnowledgeBaseRow.name == base_of(conversation_id), ~LASTING)
                .with_for_update()
            )
            if row is None:
                return 0
            count = await session.scalar(select(func.count()).where(DocumentRow.kb_id == row.id))
            generations = await delete_rows(session, row)
        for generation in generations:
            await self._store.drop_generation(generation)
        return count or 0

    async def delete_expired(self) -> int:
        """Remove what was there for a while only, once that is over; gives the number."""
        over = KnowledgeBaseRow.expires_at <= now()
        async with self._db.read() as session:
            names = list(await session.scalars(select(KnowledgeBaseRow.name).where(over)))
        count = 0
        for name in names:
            async with self._db.session() as session:
                row = await session.scalar(
                    select(KnowledgeBaseRow).where(KnowledgeBaseRow.name == name, over).with_for_update()
                )
                generations = await delete_rows(session, row) if row is not None else ()
                count += row is not None
            for generation in generations:
                await self._store.drop_generation(generation)
        return count
