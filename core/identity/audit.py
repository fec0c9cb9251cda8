"""Who changed what, and when; secrets are masked before they are written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, or_, select

from core.db.batches import delete_in_batches
from core.db.session import Database
from core.db.tables import AuditRow, now
from core.types import Person

MASK: Final = "•••"
_SECRET: Final = re.compile(r"secret|token|password|passphrase|api_?key|credential|private_key|^key$", re.IGNORECASE)
_NOT_SECRET: Final = re.compile(r"_tokens$|^tokens$|^max_|tokens?_", re.IGNORECASE)
"""Numbers of tokens, which are no secrets."""
_IN_URL: Final = re.compile(r"(?<=://)[^/@\s]+@")
_LONGEST: Final = 500
_MOST: Final = 50


@dataclass(frozen=True, slots=True)
class Change:
    id: str
    person: str
    name: str
    action: str
    kind: str
    object: str
    changes: Mapping[str, Any]
    address: str
    created_at: datetime


class Audit:
    """The log of changes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def note(
        self,
        who: Person,
        action: str,
        *,
        kind: str = "",
        object: str = "",
        changes: Mapping[str, Any] | None = None,
        address: str = "",
    ) -> None:
        """Write down that `who` did `action` (`noun.verb`) to `object` (a name or id)."""
        row = AuditRow(
            person=who.key[:255],
            name=who.name[:255],
            action=action[:64],
            kind=kind[:32],
            object=object[:255],
            changes=masked(changes or {}),
            address=address[:64],
        )
        async with self._db.session() as session:
            session.add(row)

    async def delete_older(self, days: int) -> int:
        """Forget what was written down longer ago; 0 days: nothing ever. Gives how many."""
        if not days:
            return 0
        return await delete_in_batches(self._db, AuditRow, AuditRow.created_at < now() - timedelta(days=days))

    async def list(
        self, *, text: str = "", kind: str = "", object: str = "", limit: int = 50, offset: int = 0
    ) -> tuple[Sequence[Change], int]:
        """A page of changes, the newest first, and how many there are; `text` is part of who, what, or action."""
        query = select(AuditRow)
        if text:
            query = query.where(
                or_(
                    *(
                        column.icontains(text, autoescape=True)
                        for column in (AuditRow.name, AuditRow.action, AuditRow.object)
                    )
                )
            )
        if kind:
            query = query.where(AuditRow.kind == kind)
        if object:
            query = query.where(AuditRow.object == object)
        async with self._db.read() as session:
            total = await session.scalar(select(func.count()).select_from(query.subquery())) or 0
            rows = await session.scalars(
                query.order_by(AuditRow.created_at.desc(), AuditRow.id).limit(limit).offset(offset)
            )
            return [_change(row) for row in rows], total


def masked(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without secrets, and with long values cut: what is called like a secret, and logins within URLs."""
    return {str(key)[:100]: _masked(str(key), value) for key, value in list(values.items())[:_MOST]}


def _masked(key: str, value: Any) -> Any:
    if _SECRET.search(key) and not _NOT_SECRET.search(key):
        return MASK if value else value
    if isinstance(value, Mapping):
        return masked(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_masked("", item) for item in list(value)[:_MOST]]
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    text = _IN_URL.sub(f"{MASK}@", str(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _change(row: AuditRow) -> Change:
    return Change(
        row.id, row.person, row.name, row.action, row.kind, row.object, row.changes, row.address, row.created_at
    )
