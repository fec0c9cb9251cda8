"""Former versions of documents, many in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.tables import DocumentVersionRow, new_id, now

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Former:
    """Bytes of a document that others take the place of."""

    document_id: str
    content_hash: str
    size: int
    by: str
    successor: str
    """Content hash of those others."""


async def keep(session: AsyncSession, former: Sequence[Former], most: int) -> None:
    """Make each a version; of every document the `most` newest stay, and none that has the bytes it has now."""
    for start in range(0, len(former), _PAGE):
        await _keep(session, former[start : start + _PAGE], most)


async def _keep(session: AsyncSession, former: Sequence[Former], most: int) -> None:
    known: dict[str, list[tuple[int, str, str]]] = {}
    ids = [one.document_id for one in former]
    row = DocumentVersionRow
    query = select(row.document_id, row.number, row.id, row.content_hash).where(row.document_id.in_(ids))
    for document_id, number, key, content_hash in await session.execute(query.order_by(row.number)):
        known.setdefault(document_id, []).append((number, key, content_hash))
    dropped: list[str] = []
    made = []
    moment = now()
    for one in former:
        there = known.get(one.document_id, [])
        same = [key for _, key, content_hash in there if content_hash in (one.content_hash, one.successor)]
        left = [key for _, key, _ in there if key not in same]
        dropped += same + left[: max(0, len(left) - max(0, most - 1))]
        number = max((number for number, _, _ in there), default=0) + 1
        made.append(
            {
                "id": new_id(),
                "document_id": one.document_id,
                "number": number,
                "content_hash": one.content_hash,
                "size": one.size,
                "by": one.by,
                "created_at": moment,
            }
        )
    if dropped:
        await session.execute(delete(row).where(row.id.in_(dropped)))
    if most > 0:
        await session.execute(insert(row), made)
