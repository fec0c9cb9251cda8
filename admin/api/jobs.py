"""Jobs, as those see them who wait for their documents."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import asdict

from fastapi import APIRouter

from admin.deps import CallerDep, KvasirDep, is_id
from admin.stream import EventStream, event
from core.access import Action
from core.app import Kvasir
from core.errors import KvasirError, NotAllowed, NotFound
from core.texts import tell

router = APIRouter(prefix="/jobs")


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
