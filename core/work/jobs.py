"""Durable work: a row per job, taken under a lease, so that a job outlives the process that runs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, case, func, or_, select, update

from core.db.batches import delete_in_batches
from core.db.direct import AnyRow, Statement
from core.db.session import Database
from core.db.tables import DocumentRow, JobRow, new_id, now
from core.errors import Conflict, KvasirError, NotFound, Unavailable
from core.texts import tell

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=20)
"""With what finding out and claiming take, a job of a process that died is done by another within 30 seconds."""
_HEARTBEAT = 5.0
_POLL = 1.0
MAX_ATTEMPTS = 5
KEPT: Final = timedelta(days=90)
"""How long ended jobs are remembered."""

LANES: Final[Mapping[str, tuple[str, ...]]] = {
    "documents": ("ingest",),
    "index": ("reindex", "switch", "move"),
    "sync": ("sync",),
    "evaluation": ("evaluation",),
}
"""Kinds that wait only for their like, so that a long one holds up no upload; all other kinds share one more lane."""
WIDTHS: Final[Mapping[str, int]] = {"sync": 3}
"""Jobs at a time in a lane, where that is more than one: those that mostly wait for other people's servers."""
OTHER_LANE: Final = "other"
_STATES: Final = ("queued", "running", "failed", "done", "cancelled")
_JOB: Final = Statement(select(JobRow).where(JobRow.id == bindparam("job")))


@dataclass(frozen=True, slots=True)
class Job:
    id: str
    kind: str
    payload: Mapping[str, Any]
    state: str
    progress: Mapping[str, Any]
    error: str | None
    attempts: int
    fence: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancelling: bool = False
    """It runs, and is to stop."""


class LeaseLost(Exception):
    """Another worker has taken the job over, or it was cancelled: stop without writing."""


class Jobs:
    """The queue. `run` is called with a claimed job and does its work."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._wake = asyncio.Event()
        self._looked_for: dict[str, asyncio.Event] = {}
        """Jobs held in this process, by id; set where one is to look at once whether it may go on."""

    async def add(self, kind: str, payload: Mapping[str, Any], *, claimed: bool = False) -> Job:
        """A new job; `claimed` gives its lease to the caller at once."""
        row = self.new_row(kind, payload, claimed=claimed)
        async with self._db.session() as session:
            session.add(row)
        self.wake()
        return job_of(row)

    def new_row(self, kind: str, payload: Mapping[str, Any], *, claimed: bool = False) -> JobRow:
        """The row of a new job, for a session that writes more than this; call `wake` when it is committed."""
        row = JobRow(
            id=new_id(), kind=kind, payload=dict(payload), state="queued", progress={}, attempts=0, fence=0,
            cancel_requested=False, created_at=now(),
        )  # fmt: skip
        if claimed:
            row.state, row.fence, row.attempts = "running", 1, 1
            row.started_at, row.lease_until = now(), now() + LEASE
        return row

    def wake(self) -> None:
        """Tell a worker in this process that there may be work."""
        self._wake.set()

    async def claim(self, busy: Collection[str] = ()) -> Job | None:
        """The oldest job that waits, or whose worker is gone, in a lane that is not `busy`; None: nothing to do."""
        async with self._db.session() as session:
            free = _not_in(busy) & or_(
                JobRow.state == "queued", and_(JobRow.state == "running", JobRow.lease_until < now())
            )
            row = await session.scalar(
                select(JobRow).where(free).order_by(JobRow.created_at).limit(1).with_for_update(skip_locked=True)
            )
            is_taken = row is not None and _take(row)
        return job_of(row) if row is not None and is_taken else None

    async def take(self, job_id: str) -> Job | None:
        """The job of that id, claimed; None where it is over, or another process is at it."""
        async with self._db.session() as session:
            row = await session.get(JobRow, job_id, with_for_update=True)
            is_taken = row is not None and _is_free(row) and _take(row)
        return job_of(row) if row is not None and is_taken else None

    @asynccontextmanager
    async def held(self, job: Job) -> AsyncIterator[None]:
        """Keep the lease of a claimed job; the block is cancelled with LeaseLost when it is lost or cancelled."""
        owner = asyncio.current_task()
        lost = False
        looked_for = self._looked_for[job.id] = asyncio.Event()

        async def beat() -> None:
            nonlocal lost
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_HEARTBEAT):
                        await looked_for.wait()
                if not await self._is_ours(job):
                    lost = True
                    if owner is not None:
                        owner.cancel()
                    return

        heart = asyncio.create_task(beat(), name=f"lease-{job.id}")
        try:
            yield
        except asyncio.CancelledError:
            if lost and owner is not None:
                owner.uncancel()
                raise LeaseLost(job.id) from None
            raise
        finally:
            heart.cancel()
            del self._looked_for[job.id]

    async def progress(self, job: Job, **values: Any) -> None:
        await self._write(job, progress=values)

    async def finish(self, job: Job, *, error: str | None = None, result: str | None = None) -> None:
        """`result`: what came of it, one sentence, which the progress keeps."""
        state = "failed" if error else "done"
        values: dict[str, Any] = {"state": state, "error": error, "finished_at": now(), "lease_until": None}
        if result:
            async with self._db.read() as session:
                progress = await session.scalar(select(JobRow.progress).where(JobRow.id == job.id))
            values["progress"] = {**(progress or {}), "result": result}
        await self._write(job, **values)

    async def release(self, job: Job) -> None:
        """Give it back unfinished, for whoever comes next."""
        await self._write(job, state="queued", lease_until=None, attempts=max(0, job.attempts - 1))

    async def stopped(self, job: Job) -> None:
        """Record that a cancelled job has come to rest."""
        async with self._db.session() as session:
            await session.execute(
                update(JobRow)
                .where(JobRow.id == job.id, JobRow.cancel_requested, JobRow.state == "running")
                .values(state="cancelled", finished_at=now(), lease_until=None)
            )

    async def get(self, job_id: str) -> Job:
        [found] = await self._db.fetch(_JOB(job=job_id))
        if found.first is None:
            raise NotFound(tell("no_such_job"))
        return job_of(found.first)

    async def list(self, *, state: str | None = None, limit: int = 50) -> Sequence[Job]:
        """The newest first."""
        found, _ = await self.page(state=state, limit=limit)
        return found

    async def page(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        target: str | None = None,
        kbs: Collection[str] | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[Job], int]:
        """The newest first, and how many there are in all; `kbs`: only those about one of these knowledge bases."""
        where = _of_kbs(kbs)
        if state:
            where.append(JobRow.state == state)
        if kind:
            where.append(JobRow.kind == kind)
        if target is not None:
            where.append(JobRow.payload["target"].as_string() == target)
        async with self._db.read() as session:
            total = await session.scalar(select(func.count()).select_from(JobRow).where(*where)) or 0
            rows = await session.scalars(
                select(JobRow).where(*where).order_by(JobRow.created_at.desc(), JobRow.id).limit(limit).offset(offset)
            )
            return [job_of(row) for row in rows], total

    async def counts(self, kbs: Collection[str] | None = None) -> Mapping[str, Mapping[str, int]]:
        """Kind → state → how many."""
        query = select(JobRow.kind, JobRow.state, func.count()).where(*_of_kbs(kbs))
        found: dict[str, dict[str, int]] = {}
        async with self._db.read() as session:
            for kind, state, count in await session.execute(query.group_by(JobRow.kind, JobRow.state)):
                found.setdefault(kind, dict.fromkeys(_STATES, 0))[state] = count
        return found

    async def documents(self, job_ids: Collection[str]) -> Mapping[str, tuple[int, int]]:
        """Of jobs that bring documents in: how many have ended, and how many there are."""
        if not job_ids:
            return {}
        done = func.sum(case((DocumentRow.status.in_(("indexed", "failed")), 1), else_=0))
        query = select(DocumentRow.job_id, done, func.count()).where(DocumentRow.job_id.in_(list(job_ids)))
        async with self._db.read() as session:
            rows = await session.execute(query.group_by(DocumentRow.job_id))
            return {str(job_id): (int(ended), total) for job_id, ended, total in rows}

    async def active(self, kind: str) -> Sequence[Job]:
        """Those of a kind that wait or run, the oldest first."""
        async with self._db.read() as session:
            query = select(JobRow).where(JobRow.kind == kind, JobRow.state.in_(("queued", "running")))
            return [job_of(row) for row in await session.scalars(query.order_by(JobRow.created_at, JobRow.id))]

    async def cancel(self, job_id: str) -> None:
        async with self._db.session() as session:
            row = await session.get(JobRow, job_id)
            if row is None:
                raise NotFound(tell("no_such_job"))
            if row.state == "queued":
                row.state, row.finished_at = "cancelled", now()
            elif row.state != "running":
                raise Conflict(tell("job_ended"))
            row.cancel_requested = True
        if job_id in self._looked_for:
            self._looked_for[job_id].set()

    async def retry(self, job_id: str) -> None:
        async with self._db.session() as session:
            row = await session.get(JobRow, job_id)
            if row is None:
                raise NotFound(tell("no_such_job"))
            if row.state not in ("failed", "cancelled"):
                raise Conflict(tell("job_not_failed"))
            row.state, row.attempts, row.error, row.cancel_requested = "queued", 0, None, False
            row.finished_at = None
        self._wake.set()

    async def delete_old(self) -> int:
        """Forget jobs that ended long ago; gives how many."""
        is_over = JobRow.state.in_(("done", "failed", "cancelled"))
        return await delete_in_batches(self._db, JobRow, is_over, JobRow.created_at < now() - KEPT)

    async def wait_for_work(self, ended: Collection[asyncio.Task[None]] = ()) -> None:
        """Until a job was added here, a task has ended, or a moment has passed (others may have added one)."""
        bell = asyncio.create_task(self._wake.wait(), name="bell")
        try:
            await asyncio.wait({bell, *ended}, timeout=_POLL, return_when=asyncio.FIRST_COMPLETED)
        finally:
            bell.cancel()
        self._wake.clear()

    async def _is_ours(self, job: Job) -> bool:
        """With a longer lease from now on; a database that is away is asked again."""
        try:
            return await self._extend(job)
        except Unavailable as error:
            logger.warning("the lease of job %s was not renewed: %s", job.id, error)
            return True

    async def _extend(self, job: Job) -> bool:
        async with self._db.session() as session:
            result = await session.execute(
                update(JobRow)
                .where(
                    JobRow.id == job.id, JobRow.fence == job.fence, JobRow.state == "running", ~JobRow.cancel_requested
                )
                .values(lease_until=now() + LEASE)
            )
        return bool(getattr(result, "rowcount", 0))

    async def _write(self, job: Job, **values: Any) -> None:
        async with self._db.session() as session:
            await session.execute(
                update(JobRow)
                .where(JobRow.id == job.id, JobRow.fence == job.fence, JobRow.state == "running")
                .values(**values)
            )


def job_of(row: JobRow | AnyRow) -> Job:
    return Job(
        row.id, row.kind, row.payload, row.state, row.progress, row.error, row.attempts, row.fence,
        row.created_at, row.started_at, row.finished_at, row.cancel_requested and row.state == "running",
    )  # fmt: skip


def _is_free(row: JobRow) -> bool:
    return row.state == "queued" or (row.state == "running" and row.lease_until is not None and row.lease_until < now())


def _take(row: JobRow) -> bool:
    """Claim it; False where it ends instead: it was to stop, or has killed too many workers."""
    if row.attempts >= MAX_ATTEMPTS or row.cancel_requested:
        row.state = "cancelled" if row.cancel_requested else "failed"
        row.error = None if row.cancel_requested else f"Its worker died {row.attempts} times."
        row.finished_at = now()
        return False
    row.state, row.fence, row.attempts = "running", row.fence + 1, row.attempts + 1
    row.started_at, row.lease_until = row.started_at or now(), now() + LEASE
    return True


def lane_of(kind: str) -> str:
    return next((lane for lane, kinds in LANES.items() if kind in kinds), OTHER_LANE)


def _not_in(busy: Collection[str]) -> ColumnElement[bool]:
    taken = [kind for lane, kinds in LANES.items() if lane in busy for kind in kinds]
    where: ColumnElement[bool] = JobRow.kind.not_in(taken)
    if OTHER_LANE in busy:
        where &= JobRow.kind.in_([kind for kinds in LANES.values() for kind in kinds])
    return where


def _of_kbs(kbs: Collection[str] | None) -> list[ColumnElement[bool]]:
    return [] if kbs is None else [JobRow.payload["kb"].as_string().in_(list(kbs))]


async def run_job(jobs: Jobs, job: Job, work: Callable[[Job], Awaitable[str | None]]) -> None:
    """Do a claimed job to its end, whatever that is; being cancelled from outside gives it back.

    `work` may give one sentence, which says what came of it.
    """
    try:
        async with jobs.held(job):
            result = await work(job)
    except asyncio.CancelledError:
        await asyncio.shield(jobs.release(job))
        raise
    except LeaseLost:
        await jobs.stopped(job)
    except KvasirError as error:
        logger.warning("job %s (%s) failed: %s", job.id, job.kind, error)
        await jobs.finish(job, error=str(error))
    except Exception as error:
        logger.exception("job %s (%s) failed", job.id, job.kind)
        await jobs.finish(job, error=f"An error of ours ({type(error).__name__}); the log tells more.")
    else:
        await jobs.finish(job, result=result)
