"""Jobs: the queue as administrators see it, and one job as those see it who wait for its documents."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from admin.deps import Caller, CallerDep, KvasirDep, is_id
from admin.schemas import Out
from admin.stream import EventStream, event
from core.access import Action
from core.app import Kvasir
from core.errors import KvasirError, NotAllowed, NotFound
from core.scheduled import about, title
from core.texts import tell
from core.work.jobs import Job

router = APIRouter(prefix="/jobs", tags=["jobs"])

State = Literal["queued", "running", "done", "failed", "cancelled"]


class JobProgress(Out):
    done: int | None
    total: int | None
    """None: nobody knows beforehand."""
    note: str
    """What it is at, in words; may be empty."""


class JobOut(Out):
    id: str
    kind: str
    title: str
    """Its kind in words."""
    about: str
    """What it is about, in words."""
    kb: str | None
    state: str
    """queued, running, cancelling, done, failed, or cancelled."""
    progress: JobProgress
    result: str
    """What came of it, one sentence; may be empty."""
    error: str | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobsOut(Out):
    items: Sequence[JobOut]
    total: int


class KindCounts(Out):
    kind: str
    title: str
    queued: int
    running: int
    failed: int
    done: int
    cancelled: int


class JobCounts(Out):
    items: Sequence[KindCounts]


@router.get("")
async def list_jobs(
    caller: CallerDep,
    kvasir: KvasirDep,
    state: State | None = None,
    kind: Annotated[str | None, Query(max_length=32)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> JobsOut:
    """A page of jobs, the newest first: all for administrators, for editors those of their knowledge bases."""
    found, total = await kvasir.jobs.page(state=state, kind=kind, kbs=await _kbs(caller), limit=limit, offset=offset)
    return JobsOut(items=await shown(kvasir, found), total=total)


@router.get("/counts")
async def count_jobs(caller: CallerDep, kvasir: KvasirDep) -> JobCounts:
    """How many jobs of each kind are in each state."""
    counts = await kvasir.jobs.counts(await _kbs(caller))
    return JobCounts(
        items=[KindCounts(kind=kind, title=title(kind), **states) for kind, states in sorted(counts.items())]
    )


@router.get("/{job_id}")
async def get_job(job_id: str, caller: CallerDep, kvasir: KvasirDep) -> JobOut:
    """One job with its progress."""
    return (await shown(kvasir, [await _job(job_id, caller)]))[0]


@router.post("/{job_id}/retry")
async def retry_job(job_id: str, caller: CallerDep, kvasir: KvasirDep) -> JobOut:
    """Queues a job again that failed or was cancelled, with the documents it left unfinished."""
    await _job(job_id, caller)
    await kvasir.retry_job(job_id)
    return (await shown(kvasir, [await kvasir.jobs.get(job_id)]))[0]


@router.post("/{job_id}/cancel")
async def cancel_job(job_id: str, caller: CallerDep, kvasir: KvasirDep) -> JobOut:
    """Stops a job; one that runs comes to rest after some seconds. What was live before stays live."""
    await _job(job_id, caller)
    await kvasir.cancel_job(job_id)
    return (await shown(kvasir, [await kvasir.jobs.get(job_id)]))[0]


@router.get("/{job_id}/events")
async def job_events(job_id: str, caller: CallerDep, kvasir: KvasirDep) -> EventStream:
    """Events `document`, one for each step of each document, and `end`."""
    unknown = NotFound(tell("no_such_job"))
    if not is_id(job_id):
        raise unknown
    try:
        job = await kvasir.jobs.get(job_id)
        await caller.kb(str(job.payload.get("kb", "")), Action.READ)
    except (NotFound, NotAllowed) as error:
        raise unknown from error
    return EventStream(_steps(kvasir, job.id))


async def _steps(kvasir: Kvasir, job_id: str) -> AsyncGenerator[bytes]:
    try:
        async for step in kvasir.ingest.watch(job_id):
            yield event("document", asdict(step))
        job = await kvasir.jobs.get(job_id)
    except KvasirError as error:
        yield event("error", {"detail": str(error)})
    else:
        yield event("end", {"state": job.state, "error": job.error})


async def _kbs(caller: Caller) -> list[str] | None:
    """Whose jobs the caller sees; None: all there are."""
    caller.require(Action.WRITE)
    return None if caller.may(Action.MANAGE) else await caller.kb_names(Action.WRITE)


async def _job(job_id: str, caller: Caller) -> Job:
    """Raises NotFound for a job that the caller could not have started."""
    unknown = NotFound(tell("no_such_job"))
    if not is_id(job_id):
        raise unknown
    job = await caller.kvasir.jobs.get(job_id)
    kbs = await _kbs(caller)
    if kbs is not None and job.payload.get("kb") not in kbs:
        raise unknown
    return job


async def shown(kvasir: Kvasir, jobs: Sequence[Job]) -> list[JobOut]:
    """Jobs as the API gives them."""
    documents = await kvasir.jobs.documents([job.id for job in jobs if job.kind == "ingest"])
    return [_out(job, documents) for job in jobs]


def progress_of(known: Mapping[str, object]) -> JobProgress:
    done, total = _number(known.get("done")), _number(known.get("total"))
    return JobProgress(done=done, total=total, note=str(known.get("note") or ""))


def _out(job: Job, documents: Mapping[str, tuple[int, int]]) -> JobOut:
    known = dict(job.progress)
    if job.id in documents:
        known["done"], known["total"] = documents[job.id]
    return JobOut(
        id=job.id,
        kind=job.kind,
        title=title(job.kind),
        about=about(job),
        kb=job.payload.get("kb"),
        state="cancelling" if job.cancelling else job.state,
        progress=progress_of(known),
        result=str(known.get("result") or ""),
        error=job.error,
        attempts=job.attempts,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) else None
