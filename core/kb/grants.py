"""Who was let into a knowledge base."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from sqlalchemy import func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import ACCOUNT_PREFIX
from core.db.session import Database
from core.db.tables import KbGrantRow, KnowledgeBaseRow, UserRow, new_id, now
from core.errors import NotFound, UserError
from core.kb.knowledge import kb_row
from core.texts import tell

_PERSON = re.compile(r"(?!user:)[a-z][a-z0-9_-]{0,31}:[^\s:*]{0,100}:(?:[^\s:*]{1,100}|\*)")
"""The key of a person on a chat platform; `*` in the place of the last part: everybody of a workspace."""


Right: TypeAlias = Literal["ask", "edit"]
"""edit: what the account's role allows, here too."""


@dataclass(frozen=True, slots=True)
class Grant:
    person: str
    """Key of an account or of a person of a chat platform; with `*` at its end: everybody of a workspace."""
    name: str
    """Of the account; else empty."""
    right: str
    created_at: datetime


class Grants:
    """Who was let into a knowledge base."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def allow(self, kb: str, person: str, right: Right = "ask") -> Grant:
        """Let an account (by name or key), a person of a chat platform, or with `platform:workspace:*` a whole
        workspace, into a knowledge base; who was let in already has this right from now on.

        Raises UserError where there can be no such person, or where one of a chat platform is to edit.
        """
        async with self._db.session() as session:
            row = await kb_row(session, kb)
            key, name = await _known(session, person)
            if right == "edit" and not key.startswith(ACCOUNT_PREFIX):
                raise UserError(tell("edit_needs_account"))
            grant = Grant(key, name, right, now())
            values = {"id": new_id(), "kb_id": row.id, "person": key, "right": right, "created_at": grant.created_at}
            await session.execute(
                self._db.insert(KbGrantRow)
                .values(values)
                .on_conflict_do_update(index_elements=["kb_id", "person"], set_={"right": right})
            )
        return grant

    async def disallow(self, kb: str, person: str) -> None:
        """Raises NotFound where the person was not allowed."""
        async with self._db.session() as session:
            row = await kb_row(session, kb)
            account = await session.scalar(select(UserRow.id).where(UserRow.name == person.lower()))
            keys = [person, f"{ACCOUNT_PREFIX}{account}"]
            grant = await session.scalar(
                select(KbGrantRow).where(KbGrantRow.kb_id == row.id, KbGrantRow.person.in_(keys))
            )
            if grant is None:
                raise NotFound(tell("person_not_allowed", person=person, kb=kb))
            await session.delete(grant)

    async def page(self, kb: str, *, limit: int = 50, offset: int = 0) -> tuple[Sequence[Grant], int]:
        """A page of those let in, accounts last, and how many there are."""
        async with self._db.read() as session:
            row = await kb_row(session, kb)
            mine = KbGrantRow.kb_id == row.id
            total = await session.scalar(select(func.count()).select_from(KbGrantRow).where(mine)) or 0
            rows = await session.execute(
                select(KbGrantRow.person, UserRow.name, KbGrantRow.right, KbGrantRow.created_at)
                .outerjoin(UserRow, KbGrantRow.person == literal(ACCOUNT_PREFIX) + UserRow.id)
                .where(mine)
                .order_by(KbGrantRow.person)
                .limit(limit)
                .offset(offset)
            )
            return [Grant(person, name or "", right, at) for person, name, right, at in rows], total

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


async def _known(session: AsyncSession, person: str) -> tuple[str, str]:
    """Key of the person, and the name of the account. Raises UserError where there can be none such."""
    if _PERSON.fullmatch(person):
        return person, ""
    is_key = person.startswith(ACCOUNT_PREFIX)
    wanted = UserRow.id == person.removeprefix(ACCOUNT_PREFIX) if is_key else UserRow.name == person.lower()
    account = await session.scalar(select(UserRow).where(wanted))
    if account is None:
        raise UserError(tell("bad_person_key", person=person))
    return f"{ACCOUNT_PREFIX}{account.id}", account.name
