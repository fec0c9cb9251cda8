"""Who was let into a knowledge base."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from core.db.session import Database
from core.db.tables import KbGrantRow, KnowledgeBaseRow, new_id, now
from core.errors import NotFound, UserError
from core.knowledge import kb_row
from core.texts import tell

_PERSON = re.compile(r"(?!user:)[a-z][a-z0-9_-]{0,31}:[^\s:*]{0,100}:(?:[^\s:*]{1,100}|\*)")
"""The key of a person on a chat platform; `*` in the place of the last part: everybody of a workspace."""


class Grants:
    """Who was let into a knowledge base."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def allow(self, kb: str, person: str) -> None:
        """Let a person of a chat platform, or with `platform:workspace:*` a whole workspace, ask a private one.

        Raises UserError where `person` cannot be such a key.
        """
        if not _PERSON.fullmatch(person):
            raise UserError(tell("bad_person_key", person=person))
        insert = sqlite.insert if self._db.is_sqlite else postgresql.insert
        async with self._db.session() as session:
            row = await kb_row(session, kb)
            grant = {"id": new_id(), "kb_id": row.id, "person": person, "created_at": now()}
            await session.execute(insert(KbGrantRow).values(grant).on_conflict_do_nothing())

    async def disallow(self, kb: str, person: str) -> None:
        """Raises NotFound where the person was not allowed."""
        async with self._db.session() as session:
            row = await kb_row(session, kb)
            grant = await session.scalar(select(KbGrantRow).filter_by(kb_id=row.id, person=person))
            if grant is None:
                raise NotFound(tell("person_not_allowed", person=person, kb=kb))
            await session.delete(grant)

    async def allowed(self, kb: str) -> Sequence[str]:
        """Keys of those let in, in order."""
        async with self._db.read() as session:
            row = await kb_row(session, kb)
            query = select(KbGrantRow.person).where(KbGrantRow.kb_id == row.id).order_by(KbGrantRow.person)
            return list(await session.scalars(query))

    async def is_granted(self, kb: str, person: str, *, member: bool = False) -> bool:
        """Whether a person was let in; by name, or as one of a workspace, of which they must be a `member`."""
        keys = [person, f"{person.rpartition(':')[0]}:*"] if member else [person]
        async with self._db.read() as session:
            found = await session.scalar(
                select(KbGrantRow.id)
                .join(KnowledgeBaseRow, KnowledgeBaseRow.id == KbGrantRow.kb_id)
                .where(KnowledgeBaseRow.name == kb, KbGrantRow.person.in_(keys))
                .limit(1)
            )
            return found is not None
