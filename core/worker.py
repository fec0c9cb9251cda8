"""The service `jobs`: on SQLite it works off the queue by itself, on PostgreSQL procrastinate brings it what to do."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from functools import partial

from core import scheduled
from core.app import Kvasir
from core.errors import Unavailable
from core.work import queue
from core.work.jobs import LANES, OTHER_LANE, WIDTHS, Job, lane_of, run_job

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 5.0
_TIDY_SECONDS = 60.0
_OPTIMIZED_EACH = 60
"""Turns of tidying up."""


async def serve(kvasir: Kvasir, _handler: object) -> None:
    """Put right what a crash left, then do the jobs, until cancelled; meanwhile mind the schedules, and tidy up.

    In each lane one job at a time, or a few. A database or store that is away is waited for; the other services go on
    meanwhile.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(_tidy(kvasir), name="tidy")
        group.create_task(kvasir.scheduler.run(), name="scheduler")
        if kvasir.db.is_sqlite:
            await _work(kvasir, group)
        else:
            await _recover(kvasir)
            lanes = queue.lanes_of([*scheduled.KINDS], LANES, WIDTHS, OTHER_LANE)
            await queue.serve(kvasir.db, lanes, partial(_delivered, kvasir))


async def _recover(kvasir: Kvasir) -> None:
    while True:
        try:
            await kvasir.ingest.recover()
        except Unavailable as error:
            logger.warning("jobs wait: %s", error)
            await asyncio.sleep(_WAIT_SECONDS)
        else:
            return


async def _delivered(kvasir: Kvasir, job_id: str) -> None:
    """Do it, unless it is over, or another process is at it."""
    try:
        job = await kvasir.jobs.take(job_id)
    except Unavailable as error:
        logger.info("job %s is left for later: %s", job_id, error)
        return
    if job is not None:
        await _do(kvasir, job)


async def _tidy(kvasir: Kvasir) -> None:
    gone = False
    for turn in itertools.count():
        try:
            if count := await kvasir.temporary.delete_expired():
                logger.info("deleted the files of %s conversations, which were kept long enough", count)
            if count := await kvasir.generations.drop_old():
                logger.info("gave up %s former indexes, which were kept long enough", count)
            if count := await kvasir.moving.drop_abandoned():
                logger.info("gave up %s copies of indexes that nobody moves any more", count)
            if turn % _OPTIMIZED_EACH == 0:
                await kvasir.db.optimize()
                await kvasir.limits.forget_old()
            if count := await kvasir.audit.delete_older(kvasir.settings.audit.days):
                logger.info("forgot %s entries of the log of changes, which are older than the settings want", count)
            if count := await kvasir.jobs.delete_old():
                logger.info("forgot %s jobs, which ended long ago", count)
            await kvasir.mirror_live()
            gone = False
        except Unavailable as error:
            if not gone:
                logger.info("nothing could be tidied up: %s", error)
            gone = True
        await asyncio.sleep(_TIDY_SECONDS)


async def _work(kvasir: Kvasir, group: asyncio.TaskGroup) -> None:
    recovered = gone = False
    lanes: dict[asyncio.Task[None], str] = {}
    while True:
        try:
            if not recovered:
                await kvasir.ingest.recover()
                recovered = True
            await _next(kvasir, group, lanes)
        except Unavailable as error:
            if not gone:
                logger.warning("jobs wait: %s", error)
            gone = True
            await asyncio.sleep(_WAIT_SECONDS)
        else:
            if gone:
                logger.info("jobs go on")
            gone = False


async def _next(kvasir: Kvasir, group: asyncio.TaskGroup, lanes: dict[asyncio.Task[None], str]) -> None:
    """Start the next job of a lane that is free, or wait a moment; `lanes` says where each of those that run is."""
    for task in [task for task in lanes if task.done()]:
        del lanes[task]
    counts = Counter(lanes.values())
    job = await kvasir.jobs.claim([lane for lane, count in counts.items() if count >= WIDTHS.get(lane, 1)])
    if job is None:
        await kvasir.jobs.wait_for_work(lanes.keys())
    else:
        lanes[group.create_task(_do(kvasir, job), name=f"job-{job.kind}")] = lane_of(job.kind)


async def _do(kvasir: Kvasir, job: Job) -> None:
    """To its end; where the database is away meanwhile, its lease runs out, and it is taken up again."""
    try:
        await run_job(kvasir.jobs, job, kvasir.run_job)
    except Unavailable as error:
        logger.warning("job %s (%s) was left: %s", job.id, job.kind, error)
