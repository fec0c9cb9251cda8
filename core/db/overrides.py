"""The overrides of many documents in one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, bindparam, select, update
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.direct import AnyRow, Statement
from core.db.session import Database
from core.db.tables import ChunkOverrideRow, DocumentRow
from core.kb.overrides import Action, Override

_OVERRIDES = cast(SqlTable, ChunkOverrideRow.__table__)
_EACH = (
    select(*(_OVERRIDES.c[name] for name in ("document_id", "id", "action", "original", "text", "place")))
    .join(DocumentRow, DocumentRow.id == _OVERRIDES.c.document_id)
    .order_by(_OVERRIDES.c.created_at, _OVERRIDES.c.id)
)
_OF_JOB = Statement(_EACH.where(DocumentRow.job_id == bindparam("of_job")))
_OF_ONE = update(_OVERRIDES).where(_OVERRIDES.c.id == bindparam("of_id"))


async def of_base(session: AsyncSession, kb_id: str) -> dict[str, list[Override]]:
    """Those of a knowledge base, by document, in the order they were made in."""
    return await _of(session, DocumentRow.kb_id == kb_id)


async def of_job(db: Database, job_id: str) -> dict[str, list[Override]]:
    """Those of the documents that a job brings in."""
    [found] = await db.fetch(_OF_JOB(of_job=job_id))
    return _by_document(found.rows)


async def of_document(session: AsyncSession, document_id: str) -> Sequence[Override]:
    return (await _of(session, DocumentRow.id == document_id)).get(document_id, [])


async def _of(session: AsyncSession, which: ColumnElement[bool]) -> dict[str, list[Override]]:
    return _by_document((await session.execute(_EACH.where(which))).all())


def _by_document(rows: Sequence[AnyRow]) -> dict[str, list[Override]]:
    found: dict[str, list[Override]] = {}
    for document_id, key, action, original, text, place in rows:
        found.setdefault(document_id, []).append(Override(key, cast(Action, action), original, text, place))
    return found


async def keep_places(session: AsyncSession, places: Mapping[str, int | None]) -> None:
    """Write down where each override is now (its id → number of a chunk); None: its chunk was not found."""
    lost = [key for key, place in places.items() if place is None]
    rows: list[dict[str, Any]] = [
        {"of_id": key, "of_place": place} for key, place in places.items() if place is not None
    ]
    if rows:
        statement = _OF_ONE.values(applied=True, place=bindparam("of_place"))
        await (await session.connection()).execute(statement, rows)
    if lost:
        await session.execute(update(_OVERRIDES).where(_OVERRIDES.c.id.in_(lost)).values(applied=False))
