"""Jobs that build an index beside the live one, or switch to one, with how far they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from core.errors import KvasirError
from core.jobs import Job, Jobs
from core.texts import tell

if TYPE_CHECKING:
    from core.app import Kvasir

logger = logging.getLogger(__name__)

_MOST_SETS: Final = 10
_TOLD_SECONDS: Final = 1.0
KINDS: Final = ("reindex", "switch")


async def run(kvasir: Kvasir, job: Job) -> str:
    """Do a job of one of these kinds; gives what came of it in one sentence.

    `reindex` builds an index and switches to it, or with `beside` leaves it to wait. `switch` goes to the index
    `generation`, also when documents are lost by it where `give_up` is set.
    """
    kb = str(job.payload["kb"])
    async with _followed(kvasir.jobs, job) as follow:
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
    """The newest job that builds or switches an index of a knowledge base."""
    found = [job for kind in KINDS for job in (await jobs.page(kind=kind, kbs=[kb], limit=1))[0]]
    return max(found, key=lambda job: job.created_at, default=None)


def is_busy(job: Job | None) -> bool:
    return job is not None and job.state in ("queued", "running")


@asynccontextmanager
async def _followed(jobs: Jobs, job: Job) -> AsyncIterator[Callable[[int, int], None]]:
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
