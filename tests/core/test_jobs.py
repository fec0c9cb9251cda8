"""Jobs outlive the process that runs them, and only one worker may write for each."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import update

from core.db.session import Database
from core.db.tables import JobRow, now
from core.errors import Conflict, KvasirError, NotFound
from core.work import jobs as jobs_module
from core.work.jobs import Job, Jobs, run_job

pytestmark = pytest.mark.anyio


async def _expire(db: Database, job: Job) -> None:
    async with db.session() as session:
        await session.execute(
            update(JobRow).where(JobRow.id == job.id).values(lease_until=now() - timedelta(seconds=1))
        )


async def test_the_oldest_waiting_job_is_claimed_once(db: Database) -> None:
    jobs = Jobs(db)
    first = await jobs.add("ingest", {"kb": "a"})
    second = await jobs.add("ingest", {"kb": "b"})
    claimed = [await jobs.claim(), await jobs.claim(), await jobs.claim()]
    assert [job and job.id for job in claimed] == [first.id, second.id, None]


async def test_two_workers_at_once_never_get_the_same_job(db: Database) -> None:
    jobs = Jobs(db)
    for number in range(20):
        await jobs.add("ingest", {"kb": str(number)})

    async def work() -> list[str]:
        found = []
        while (job := await jobs.claim()) is not None:
            found.append(job.id)
        return found

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(work()) for _ in range(4)]
    taken = [job_id for worker in workers for job_id in worker.result()]
    assert len(taken) == len(set(taken)) == 20


async def test_a_dead_workers_job_is_taken_over_and_the_dead_may_not_write(db: Database) -> None:
    """Protection: the fencing number (fault 92)."""
    jobs = Jobs(db)
    await jobs.add("ingest", {"kb": "a"})
    dead = await jobs.claim()
    assert dead is not None
    assert await jobs.claim() is None
    await _expire(db, dead)
    heir = await jobs.claim()
    assert heir is not None
    assert heir.id == dead.id
    await jobs.finish(dead, error="from the grave")
    assert (await jobs.get(heir.id)).state == "running"
    await jobs.finish(heir)
    assert (await jobs.get(heir.id)).state == "done"


async def test_a_job_that_kills_its_workers_is_given_up(db: Database) -> None:
    jobs = Jobs(db)
    job = await jobs.add("ingest", {"kb": "a"})
    for _ in range(jobs_module.MAX_ATTEMPTS):
        claimed = await jobs.claim()
        assert claimed is not None
        await _expire(db, claimed)
    assert await jobs.claim() is None
    assert (await jobs.get(job.id)).state == "failed"


async def test_an_error_of_ours_is_kept_with_its_sentence(db: Database) -> None:
    jobs = Jobs(db)
    job = await jobs.add("ingest", {"kb": "a"}, claimed=True)

    async def fails(_job: Job) -> None:
        raise KvasirError("The disk is full; make room.")

    await run_job(jobs, job, fails)
    ended = await jobs.get(job.id)
    assert (ended.state, ended.error) == ("failed", "The disk is full; make room.")


async def test_a_cancelled_worker_gives_its_job_back(db: Database) -> None:
    jobs = Jobs(db)
    job = await jobs.add("ingest", {"kb": "a"}, claimed=True)
    started = asyncio.Event()

    async def long(_job: Job) -> None:
        started.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(run_job(jobs, job, long))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await jobs.get(job.id)).state == "queued"


async def test_cancelling_stops_a_running_job(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_HEARTBEAT", 0.02)
    jobs = Jobs(db)
    job = await jobs.add("ingest", {"kb": "a"}, claimed=True)

    async def long(_job: Job) -> None:
        await jobs.cancel(job.id)
        await asyncio.sleep(60)

    async with asyncio.timeout(10):
        await run_job(jobs, job, long)
    assert (await jobs.get(job.id)).state == "cancelled"


async def test_a_job_of_this_process_is_stopped_at_once(db: Database) -> None:
    """Protection: nobody waits for the next heartbeat."""
    jobs = Jobs(db)
    job = await jobs.add("ingest", {"kb": "a"}, claimed=True)

    async def long(_job: Job) -> None:
        await jobs.cancel(job.id)
        await asyncio.sleep(60)

    async with asyncio.timeout(jobs_module._HEARTBEAT - 1):
        await run_job(jobs, job, long)
    assert (await jobs.get(job.id)).state == "cancelled"


async def test_jobs_that_ended_long_ago_are_forgotten(db: Database) -> None:
    jobs = Jobs(db)
    done, waiting, recent = [await jobs.add("ingest", {"kb": "a"}) for _ in range(3)]
    await jobs.cancel(done.id)
    await jobs.cancel(recent.id)
    async with db.session() as session:
        old = now() - jobs_module.KEPT - timedelta(days=1)
        await session.execute(update(JobRow).where(JobRow.id.in_((done.id, waiting.id))).values(created_at=old))
    assert await jobs.delete_old() == 1
    assert {job.id for job in await jobs.list()} == {waiting.id, recent.id}


async def test_a_failed_job_can_be_tried_again_and_a_done_one_cannot(db: Database) -> None:
    jobs = Jobs(db)
    job = await jobs.add("ingest", {"kb": "a"}, claimed=True)
    await jobs.finish(job, error="No.")
    await jobs.retry(job.id)
    again = await jobs.claim()
    assert again is not None
    await jobs.finish(again)
    with pytest.raises(Conflict):
        await jobs.retry(job.id)
    with pytest.raises(NotFound):
        await jobs.retry("0" * 32)
