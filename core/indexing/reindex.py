"""Jobs that build an index beside the live one, switch to one, or move it to another store, with how far they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from core.db.tables import JobRow, now
from core.errors import Conflict, KvasirError
from core.indexing.moving import Moved, OnDocuments
from core.texts import tell
from core.work.jobs import Job, Jobs, run_job

if TYPE_CHECKING:
    from core.app import Kvasir

logger = logging.getLogger(__name__)

_MOST_SETS: Final = 10
_TOLD_SECONDS: Final = 1.0
_LOOKED_SECONDS: Final = 1.0
KINDS: Final = ("reindex", "switch", "move")


async def run(kvasir: Kvasir, job: Job) -> str:
    """Do a job of one of these kinds; gives what came of it in one sentence.

    `reindex` builds an index and switches to it, or with `beside` leaves it to wait. `switch` goes to the index
    `generation`, also when documents are lost by it where `give_up` is set. `move` takes the live one to `store`.
    """
    kb = str(job.payload["kb"])
    async with _followed(kvasir.jobs, job) as follow:
        if job.kind == "move":
            return sentence_of(await _moved(kvasir, job, kb, follow))
        if job.kind == "switch":
            wanted, give_up = str(job.payload["generation"]), bool(job.payload.get("give_up", False))
            live = await kvasir.knowledge.live([kb])
            if [one.generation.id for one in live] != [wanted]:  # else a worker died just behind it
                await kvasir.generations.switch(kb, wanted, give_up=give_up, on_documents=follow)
        elif job.payload.get("beside"):
            await _measure(kvasir, job, kb, await kvasir.generations.build(kb, follow))
            return tell("index_waits", kb=kb)
        else:
            await kvasir.indexes.reindex(kb, follow)
    return tell("index_switched", kb=kb)


async def _moved(kvasir: Kvasir, job: Job, kb: str, follow: OnDocuments) -> Moved:
    """Stopped by a shutdown it goes on later; cancelled by somebody, what was copied is given up."""
    store = str(job.payload["store"])
    try:
        await kvasir.store.usable(store)
        return await kvasir.moving.move(kb, store, follow)
    except asyncio.CancelledError:
        if (await kvasir.jobs.get(job.id)).cancelling:
            await kvasir.moving.abandon(kb)
        raise


async def move(kvasir: Kvasir, kb: str, store: str, on_documents: OnDocuments) -> Moved:
    """Move it to this store in this process and wait; where another process is at it, watch that one.

    Raises NotFound; Conflict where something else is done to its indexes; KvasirError with the job's reason.
    """
    await kvasir.moving.store_of(kb)
    while (other := await latest(kvasir.jobs, kb)) and is_busy(other):
        is_held = await _is_held(kvasir, other)
        if other.kind != "move" or (is_held and other.payload.get("store") != store):
            raise Conflict(tell("index_busy", kb=kb))
        if not is_held:  # it waits, or its process is gone: what it has copied is gone on with
            with suppress(Conflict):  # it has ended meanwhile
                await kvasir.jobs.cancel(other.id)
            break
        on_documents(int(other.progress.get("done") or 0), int(other.progress.get("total") or 0))
        await asyncio.sleep(_LOOKED_SECONDS)
    found: list[Moved] = []

    async def work(job: Job) -> str:
        async with _followed(kvasir.jobs, job) as follow:

            def both(done: int, total: int) -> None:
                follow(done, total)
                on_documents(done, total)

            found.append(await _moved(kvasir, job, kb, both))
        return sentence_of(found[0])

    job = await kvasir.jobs.add("move", {"kb": kb, "store": store}, claimed=True)
    await run_job(kvasir.jobs, job, work)
    if not found:
        raise KvasirError((await kvasir.jobs.get(job.id)).error or tell("move_stopped", kb=kb))
    return found[0]


async def _is_held(kvasir: Kvasir, job: Job) -> bool:
    """Whether a process that lives does it just now."""
    async with kvasir.db.read() as session:
        until = await session.scalar(select(JobRow.lease_until).where(JobRow.id == job.id, JobRow.state == "running"))
    return until is not None and until > now()


def sentence_of(moved: Moved) -> str:
    """What became of it, for people."""
    key = "kb_moved" if moved.is_moved else "kb_there" if moved.store else "kb_no_index"
    return tell(key, kb=moved.kb, store=moved.store, documents=moved.documents, chunks=moved.chunks)


async def _measure(kvasir: Kvasir, job: Job, kb: str, generation_id: str) -> None:
    """Ask what is in the evaluation sets of both indexes, so that they can be compared; where that can be done."""
    live = await kvasir.knowledge.live([kb])
    generations = [*(one.generation for one in live), await kvasir.generations.find(kb, generation_id)]
    sets, _ = await kvasir.evaluations.sets(kb, limit=_MOST_SETS)
    for number, one in enumerate(sets):
        await kvasir.jobs.progress(job, done=number, total=len(sets), note=tell("index_measured", name=one.name))
        for generation in generations if one.questions else ():
            try:
                await kvasir.evaluations.measure(kb, one.id, generation=generation)
            except KvasirError as error:
                logger.warning("%s: the set «%s» could not be measured: %s", kb, one.name, error)
                return


async def latest(jobs: Jobs, kb: str) -> Job | None:
    """The newest job that builds, switches or moves an index of a knowledge base."""
    found = [job for kind in KINDS for job in (await jobs.page(kind=kind, kbs=[kb], limit=1))[0]]
    return max(found, key=lambda job: job.created_at, default=None)


def is_busy(job: Job | None) -> bool:
    return job is not None and job.state in ("queued", "running")


@asynccontextmanager
async def _followed(jobs: Jobs, job: Job) -> AsyncIterator[OnDocuments]:
    """Writes down now and then what the block tells of documents done and in all."""
    newest: tuple[int, int] | None = None

    def follow(done: int, total: int) -> None:
        nonlocal newest
        newest = (done, total)

    async def write() -> None:
        written: tuple[int, int] | None = None
        while True:
            if newest is not None and newest != written:
                written = newest
                await jobs.progress(job, done=written[0], total=written[1])
            await asyncio.sleep(_TOLD_SECONDS)

    writing = asyncio.create_task(write(), name=f"progress-{job.id}")
    try:
        yield follow
    finally:
        writing.cancel()
        await asyncio.wait({writing})
