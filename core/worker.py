"""The service `jobs`: works off the queue of one Kvasir."""

from __future__ import annotations

from core.app import Kvasir
from core.jobs import run_job


async def serve(kvasir: Kvasir, _handler: object) -> None:
    """Put right what a crash left, then do one job after the other, until cancelled."""
    await kvasir.ingest.recover()
    while True:
        job = await kvasir.jobs.claim()
        if job is None:
            await kvasir.jobs.wait_for_work()
        else:
            await run_job(kvasir.jobs, job, kvasir.run_job)
