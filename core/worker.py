"""The service `jobs`: works off the queue of one Kvasir."""

from __future__ import annotations

import asyncio
import logging

from core.app import Kvasir
from core.errors import Unavailable
from core.jobs import run_job

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 5.0
_TIDY_SECONDS = 60.0


async def serve(kvasir: Kvasir, _handler: object) -> None:
    """Put right what a crash left, then do one job after the other, until cancelled; meanwhile delete what is over.

    A database or store that is away is waited for; the other services go on meanwhile.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(_tidy(kvasir), name="tidy")
        await _work(kvasir)


async def _tidy(kvasir: Kvasir) -> None:
    while True:
        try:
            if count := await kvasir.temporary.delete_expired():
                logger.info("deleted the files of %s conversations, which were kept long enough", count)
        except Unavailable as error:
            logger.info("nothing could be tidied up: %s", error)
        await asyncio.sleep(_TIDY_SECONDS)


async def _work(kvasir: Kvasir) -> None:
    recovered = gone = False
    while True:
        try:
            if not recovered:
                await kvasir.ingest.recover()
                recovered = True
            await _next(kvasir)
        except Unavailable as error:
            if not gone:
                logger.warning("jobs wait: %s", error)
            gone = True
            await asyncio.sleep(_WAIT_SECONDS)
        else:
            if gone:
                logger.info("jobs go on")
            gone = False


async def _next(kvasir: Kvasir) -> None:
    job = await kvasir.jobs.claim()
    if job is None:
        await kvasir.jobs.wait_for_work()
    else:
        await run_job(kvasir.jobs, job, kvasir.run_job)
