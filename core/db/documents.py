"""Statements on many documents at once; each is one round trip, since one per document costs more than reading it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, cast

from sqlalchemy import Column, ColumnElement, Update, bindparam, func, insert, or_, select, update
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.direct import Statement, run_many
from core.db.session import Database
from core.db.tables import DocumentRow, now

_PAGE = 500
_DOCUMENTS = cast(SqlTable, DocumentRow.__table__)
_UNFINISHED = ("queued", "working")
_ADD = Statement(insert(_DOCUMENTS))
_OUTCOMES = Statement(
    select(*(_DOCUMENTS.c[name] for name in ("name", "status", "chunks", "reason")))
    .where(_DOCUMENTS.c.job_id == bindparam("of_job"))
    .order_by(_DOCUMENTS.c.name)
)
_STILL_WAITING = select(_DOCUMENTS.c.id).where(
    _DOCUMENTS.c.id.in_(bindparam("ids", expanding=True)),
    _DOCUMENTS.c.job_id == bindparam("of_job"),
    _DOCUMENTS.c.status.in_(_UNFINISHED),
)
_WAITING = Statement(
    select(*(_DOCUMENTS.c[name] for name in ("id", "name", "content_hash", "live_hash", "size")))
    .where(
        _DOCUMENTS.c.job_id == bindparam("of_job"),
        _DOCUMENTS.c.status.in_(_UNFINISHED),
        _DOCUMENTS.c.name > bindparam("after"),
    )
    .order_by(_DOCUMENTS.c.name)
    .limit(bindparam("most"))
)
_OF_BATCH = (
    update(_DOCUMENTS)
    .where(_DOCUMENTS.c.id == bindparam("of_id"), _DOCUMENTS.c.content_hash == bindparam("of_hash"))
    .execution_options(synchronize_session=False)
)
_OF_JOB = (
    update(_DOCUMENTS)
    .where(
        _DOCUMENTS.c.id == bindparam("of_id"),
        _DOCUMENTS.c.content_hash == bindparam("of_hash"),
        _DOCUMENTS.c.job_id == bindparam("of_job"),
        or_(*(_DOCUMENTS.c.status == status for status in _UNFINISHED)),
    )
    .execution_options(synchronize_session=False)
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A document that waits for its job."""

    id: str
    name: str
    content_hash: str
    live_hash: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Known:
    """What is there already under a name."""

    id: str
    content_hash: str
    live_hash: str | None
    status: str
    size: int
    chunks: int
    reason: str | None
    by: str
    created_at: datetime


async def known(session: AsyncSession, kb_id: str, names: Sequence[str]) -> dict[str, Known]:
    """The documents of these names, by name."""
    found: dict[str, Known] = {}
    c = _DOCUMENTS.c
    columns: tuple[Column[Any], ...] = (
        c.name,
        c.id,
        c.content_hash,
        c.live_hash,
        c.status,
        c.size,
        c.chunks,
        c.reason,
        c.by,
    )
    columns += (c.created_at,)
    for start in range(0, len(names), _PAGE):
        page = names[start : start + _PAGE]
        rows = await session.execute(select(*columns).where(c.kb_id == kb_id, c.name.in_(page)))
        found.update((name, Known(*values)) for name, *values in rows)
    return found


async def totals(session: AsyncSession, kb_id: str) -> tuple[int, int]:
    """Documents of a knowledge base, and the bytes of their originals."""
    c = _DOCUMENTS.c
    row = (
        await session.execute(select(func.count(), func.coalesce(func.sum(c.size), 0)).where(c.kb_id == kb_id))
    ).one()
    return int(row[0]), int(row[1])


async def add(session: AsyncSession, rows: Sequence[Mapping[str, Any]]) -> None:
    await run_many(session, _ADD, rows)


async def change(
    session: AsyncSession, rows: Sequence[tuple[str, str | None]], values: Sequence[Mapping[str, Any]]
) -> None:
    """Set each document's own values where it still has the bytes it had (`rows`: id and content hash)."""
    if not rows:
        return
    moment = now()
    parameters = [
        {"of_id": document_id, "of_hash": content, "updated_at": moment, **given}
        for (document_id, content), given in zip(rows, values, strict=True)
    ]
    await _update(session, _OF_BATCH, parameters)


async def finish(session: AsyncSession, job_id: str, ended: Sequence[tuple[Waiting, Mapping[str, Any]]]) -> None:
    """Set each document's own values where it still waits for this job with the bytes it had."""
    if not ended:
        return
    moment = now()
    parameters = [
        {"of_id": row.id, "of_hash": row.content_hash, "of_job": job_id, "updated_at": moment, **given}
        for row, given in ended
    ]
    await _update(session, _OF_JOB, parameters)


async def _update(session: AsyncSession, statement: Update, parameters: Sequence[Mapping[str, Any]]) -> None:
    names = tuple(name for name in parameters[0] if not name.startswith("of_"))
    await run_many(session, _setting(statement, names), parameters)


@cache
def _setting(statement: Update, names: tuple[str, ...]) -> Statement:
    return Statement(statement.values({name: bindparam(name) for name in names}))


async def mark(session: AsyncSession, job_id: str, ids: Sequence[str], **values: Any) -> None:
    """Set the same values on all of them that still wait for this job."""
    c = _DOCUMENTS.c
    await session.execute(
        update(_DOCUMENTS)
        .where(c.id.in_(ids), c.job_id == job_id, c.status.in_(_UNFINISHED))
        .values(updated_at=now(), **values)
    )


async def of_job(session: AsyncSession, job_id: str, ids: Sequence[str]) -> set[str]:
    """Those of the documents that still wait for this job."""
    return set(await session.scalars(_STILL_WAITING, {"ids": ids, "of_job": job_id}))


async def queue(
    session: AsyncSession, job_id: str, ids: Sequence[str], *where: ColumnElement[bool], **values: Any
) -> None:
    """Let documents wait for a job, with other `values` of their rows; only those that are as `where` says."""
    for start in range(0, len(ids), _PAGE):
        await session.execute(
            update(_DOCUMENTS)
            .where(_DOCUMENTS.c.id.in_(ids[start : start + _PAGE]), *where)
            .values(status="queued", stage="stored", reason=None, job_id=job_id, updated_at=now(), **values)
        )


async def waiting(db: Database, job_id: str, after: str, limit: int) -> list[Waiting]:
    """The job's documents that are not at their end, by name, from `after` on."""
    [found] = await db.fetch(_WAITING(of_job=job_id, after=after, most=limit))
    return [Waiting(*row) for row in found.rows]


async def outcomes(db: Database, job_id: str) -> list[tuple[str, str, int, str | None]]:
    """(name, status, chunks, reason) of the job's documents, by name."""
    [found] = await db.fetch(_OUTCOMES(of_job=job_id))
    return [(name, status, chunks, reason) for name, status, chunks, reason in found.rows]
