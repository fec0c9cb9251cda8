"""What a change of documents means to the curated answers that rest on them; one step of the session that changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.tables import CuratedRow, DocumentRow

CHANGED: Final = "changed"
GONE: Final = "gone"
"""Begin a line of a curated answer's `reason`; a tab and the document's name follow."""
REMOVED: Final = "removed"
"""Its own document was deleted."""
_MOST_REASONS: Final = 5

COUNT: Final = func.count(CuratedRow.id)
LATEST: Final = func.max(CuratedRow.updated_at)


async def documents_changed(session: AsyncSession, document_ids: Sequence[str], *, gone: bool = False) -> None:
    """Mark the answers that rest on these documents, all of one knowledge base, for review.

    One whose own document is `gone` is switched off. A base without curated answers costs one look into an index.
    """
    if not document_ids:
        return
    base = select(DocumentRow.kb_id).where(DocumentRow.id == document_ids[0]).scalar_subquery()
    rows = list(await session.scalars(select(CuratedRow).where(CuratedRow.kb_id == base)))
    changed = set(document_ids)
    of_row = {row.id: [key for key, *_ in row.rests_on if key in changed] for row in rows}
    names = await _names(session, {key for found in of_row.values() for key in found})
    for row in rows:
        if gone and row.document_id in changed:
            row.document_id, row.state, row.reason = None, "off", REMOVED
        elif of_row[row.id] and row.state in ("active", "review"):
            word = GONE if gone else CHANGED
            lines = [*row.reason.splitlines(), *(f"{word}\t{names.get(key, key)}" for key in of_row[row.id])]
            row.state, row.reason = "review", "\n".join(list(dict.fromkeys(lines))[-_MOST_REASONS:])


async def _names(session: AsyncSession, ids: set[str]) -> dict[str, str]:
    if not ids:
        return {}
    rows = await session.execute(select(DocumentRow.id, DocumentRow.name).where(DocumentRow.id.in_(ids)))
    return {key: " ".join(name.split()) for key, name in rows}
