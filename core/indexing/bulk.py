"""Changes to many documents at once: read again, cancelled, switched off and on, moved, deleted.

Each is one step in the database; what is left to do in the store after a crash, `Ingest.reconcile` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Row, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.db import curated, documents
from core.db.session import Database
from core.db.tables import DocumentRow, DocumentVersionRow, GenerationRow, KnowledgeBaseRow, now
from core.errors import UserError
from core.indexing.ingest import check_quota
from core.kb.documents import Wanted, where
from core.kb.knowledge import Knowledge, generation_of, kb_row
from core.ports import VectorStore
from core.settings import IngestSettings
from core.texts import tell
from core.types import Generation
from core.work.jobs import Job, Jobs, job_of

Change: TypeAlias = Literal["delete", "retry", "reread", "cancel", "disable", "enable", "move"]

CURATED: Final = "curated"
"""Source of the documents that hold curated answers, which are looked after elsewhere."""
_PAGE: Final = 500
_WAITING: Final = ("queued", "working")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A document that was not changed, and why."""

    id: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Changed:
    done: int
    left_out: Sequence[LeftOut]
    job: Job | None = None
    """The one that reads them, where they are to be read."""


class Bulk:
    """Changes documents."""

    def __init__(
        self, db: Database, store: VectorStore, jobs: Jobs, knowledge: Knowledge, settings: IngestSettings
    ) -> None:
        self._db = db
        self._store = store
        self._jobs = jobs
        self._knowledge = knowledge
        self._settings = settings

    async def change(
        self, kb: str, change: Change, which: Sequence[str] | Wanted, *, into: str = "", claimed: bool = False
    ) -> Changed:
        """Change these documents of a knowledge base, by id or by what a list shows; `into` names where to move them.

        What cannot be done with one leaves that one out. `claimed` gives the lease of the job to the caller.
        """
        match change:
            case "delete":
                return await self._delete(kb, which)
            case "cancel":
                return await self._cancel(kb, which)
            case "disable":
                return await self._disable(kb, which)
            case "move":
                return await self._move(kb, which, into)
            case "retry" | "reread" | "enable":
                return await self._read_again(kb, which, _REFUSALS[change], claimed)

    async def _read_again(self, kb: str, which: Sequence[str] | Wanted, refusal: _Refusal, claimed: bool) -> Changed:
        async with self._db.session() as session:
            base = await kb_row(session, kb, lock=True)
            good, left_out = _sorted(await _chosen(session, base, which), refusal)
            if not good:
                return Changed(0, left_out)
            job = self._jobs.new_row("ingest", {"kb": kb}, claimed=claimed)
            session.add(job)
            await documents.queue(session, job.id, [row.id for row in good])
        self._jobs.wake()
        return Changed(len(good), left_out, job_of(job))

    async def _cancel(self, kb: str, which: Sequence[str] | Wanted) -> Changed:
        """What is searched stays as it is; what never was ends as failed, to be read again some day."""
        async with self._db.session() as session:
            base = await kb_row(session, kb, lock=True)
            good, left_out = _sorted(await _chosen(session, base, which), _not_waiting)
            new = [row.id for row in good if row.live_hash is None]
            same = [row.id for row in good if row.live_hash == row.content_hash]
            await _set(session, new, status="failed", reason=tell("document_cancelled"))
            await _set(session, same, status="indexed", stage="live", reason=None)
            for row in good:
                if row.live_hash not in (None, row.content_hash):
                    await _go_back(session, row)
        return Changed(len(good), left_out)

    async def _delete(self, kb: str, which: Sequence[str] | Wanted) -> Changed:
        async with self._db.session() as session:
            base = await kb_row(session, kb, lock=True)
            ids = [row.id for row in await _chosen(session, base, which)]
            await _set(session, ids, status="deleting")
            generations = await _generations(session, base)
        for page in _pages(ids):
            await self._knowledge.finish_deleting(generations, page)
        return Changed(len(ids), ())

    async def _disable(self, kb: str, which: Sequence[str] | Wanted) -> Changed:
        async with self._db.session() as session:
            base = await kb_row(session, kb, lock=True)
            good, left_out = _sorted(await _chosen(session, base, which), _not_to_be_disabled)
            ids = [row.id for row in good]
            await curated.documents_changed(session, ids)
            await _set(session, ids, status="disabled", stage="stored", live_hash=None, chunks=0, job_id=None)
            generations = await _generations(session, base)
        await self._take_out(generations, ids)
        return Changed(len(good), left_out)

    async def _move(self, kb: str, which: Sequence[str] | Wanted, into: str) -> Changed:
        if into == kb:
            raise UserError(tell("document_moved_to_itself", kb=into))
        async with self._db.session() as session:
            bases = {name: await kb_row(session, name, lock=True) for name in sorted((kb, into))}
            base, target = bases[kb], bases[into]
            good, left_out = _sorted(await _chosen(session, base, which), _not_to_be_moved)
            taken = set((await documents.known(session, target.id, [row.name for row in good])).keys())
            left_out += [
                LeftOut(row.id, row.name, tell("document_name_taken", kb=into)) for row in good if row.name in taken
            ]
            good = [row for row in good if row.name not in taken]
            if not good:
                return Changed(0, left_out)
            count, size = await documents.totals(session, target.id)
            check_quota(target, count + len(good), size + sum(row.size for row in good), self._settings)
            ids = [row.id for row in good]
            await curated.documents_changed(session, ids)
            job = self._jobs.new_row("ingest", {"kb": into})
            session.add(job)
            await documents.queue(session, job.id, ids, kb_id=target.id, live_hash=None, source_id=None, chunks=0)
            generations = await _generations(session, base)
        self._jobs.wake()
        await self._take_out(generations, ids)
        return Changed(len(good), left_out, job_of(job))

    async def _take_out(self, generations: Sequence[Generation], ids: Sequence[str]) -> None:
        """Out of the indexes; where this is stopped, `Ingest.reconcile` does the rest."""
        for page in _pages(ids):
            for generation in generations:
                await self._store.delete(generation, page)


# ---------------------------------------------------------------- which
_Chosen: TypeAlias = Row[tuple[str, str, str, str, str | None, int, str]]
_Refusal: TypeAlias = Callable[[_Chosen], str]
"""The key of a sentence that says why a document cannot be changed; empty where it can."""


async def _chosen(session: AsyncSession, base: KnowledgeBaseRow, which: Sequence[str] | Wanted) -> list[_Chosen]:
    row = DocumentRow
    query = select(row.id, row.name, row.status, row.content_hash, row.live_hash, row.size, row.source)
    if isinstance(which, Wanted):
        return list(await session.execute(query.where(*where(base.id, which)).order_by(row.name)))
    found: list[_Chosen] = []
    for page in _pages(list(dict.fromkeys(which))):
        found += await session.execute(query.where(*where(base.id, Wanted()), row.id.in_(page)).order_by(row.name))
    return found


def _sorted(rows: Iterable[_Chosen], refusal: _Refusal) -> tuple[list[_Chosen], list[LeftOut]]:
    good: list[_Chosen] = []
    left_out: list[LeftOut] = []
    for row in rows:
        if reason := refusal(row):
            left_out.append(LeftOut(row.id, row.name, tell(reason)))
        else:
            good.append(row)
    return good, left_out


def _not_failed(row: _Chosen) -> str:
    return "" if row.status == "failed" else "document_not_failed"


def _not_to_be_read(row: _Chosen) -> str:
    return {"queued": "document_busy", "working": "document_busy", "disabled": "document_is_disabled"}.get(
        row.status, ""
    )


def _not_disabled(row: _Chosen) -> str:
    return "" if row.status == "disabled" else "document_not_disabled"


def _not_waiting(row: _Chosen) -> str:
    return "" if row.status in _WAITING else "document_not_waiting"


def _not_to_be_disabled(row: _Chosen) -> str:
    if row.source == CURATED:
        return "document_of_curated"
    return "document_is_off" if row.status == "disabled" else ""


def _not_to_be_moved(row: _Chosen) -> str:
    if row.source == CURATED:
        return "document_of_curated"
    return "document_is_disabled" if row.status == "disabled" else ""


_REFUSALS: Final[dict[str, _Refusal]] = {"retry": _not_failed, "reread": _not_to_be_read, "enable": _not_disabled}


# ---------------------------------------------------------------- statements
async def _set(session: AsyncSession, ids: Sequence[str], **values: Any) -> None:
    for page in _pages(ids):
        await session.execute(update(DocumentRow).where(DocumentRow.id.in_(page)).values(updated_at=now(), **values))


async def _go_back(session: AsyncSession, row: _Chosen) -> None:
    """To the bytes that are live; those that were to take their place are dropped."""
    version = DocumentVersionRow
    is_live = (version.document_id == row.id, version.content_hash == row.live_hash)
    former = (await session.execute(select(version.size, version.by).where(*is_live))).first()
    size, by = former if former else (row.size, "")
    await session.execute(delete(version).where(*is_live))
    values = {"content_hash": row.live_hash, "size": size, "by": by}
    await _set(session, [row.id], status="indexed", stage="live", reason=None, **values)


async def _generations(session: AsyncSession, base: KnowledgeBaseRow) -> list[Generation]:
    rows = await session.scalars(select(GenerationRow).where(GenerationRow.kb_id == base.id))
    return [generation_of(row) for row in rows]


def _pages(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE))
