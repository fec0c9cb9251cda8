"""Jobs on many machines: procrastinate hands those that wait to the processes that do them, on PostgreSQL.

The row in `jobs` is what is known of a job; procrastinate carries its id: a *delivery*. A trigger makes one in the
transaction that lets the job wait, so that there is never the one without the other; LISTEN wakes whoever is free; the
kind of the job is the name of the queue. Whoever gets a delivery claims the row with a lease and a fence: that alone
decides who does the job and may write, so a delivery too many does no harm, and one too few is made up for by `mend`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from core.db.postgres import for_psycopg
from core.db.session import Database
from core.db.tables import now
from core.errors import Unavailable

if TYPE_CHECKING:
    from procrastinate import App
    from procrastinate.manager import JobManager

logger = logging.getLogger(__name__)

TASK: Final = "kvasir.job"
_TIDY: Final = "kvasir.tidy"
_HEARTBEAT: Final = 5.0
STALLED: Final = 15.0
"""Seconds without a heartbeat after which a process counts as gone."""
_MEND_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 5.0
"""LISTEN is what wakes; this is for the moments without it."""
_WAIT_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 10.0
POOL_SIZE: Final = 3
"""Connections of procrastinate in each process; one for each lane comes to them, which listens."""
_LOCK: Final = 0x4B76_6A62
_LOST: Final = text("""
SELECT count(procrastinate_defer_jobs_v1(ARRAY[
    ROW(jobs.kind, 'kvasir.job', 0, NULL, NULL, jsonb_build_object('job_id', jobs.id), NULL)
    ::procrastinate_job_to_defer_v1
]))
FROM jobs WHERE (jobs.state = 'queued' OR (jobs.state = 'running' AND jobs.lease_until < :moment))
AND NOT EXISTS (
    SELECT 1 FROM procrastinate_jobs AS delivery
    WHERE delivery.task_name = 'kvasir.job' AND delivery.status IN ('todo', 'doing')
    AND delivery.args ->> 'job_id' = jobs.id
)
""")

Work = Callable[[str], Awaitable[None]]
"""Claims the job of that id, where it can still be claimed, and does it."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Kinds of jobs that wait only for their like in a process."""

    name: str
    kinds: Sequence[str]
    width: int
    """Of them at a time."""


async def serve(db: Database, lanes: Sequence[Lane], work: Work) -> None:
    """Do what is delivered, until cancelled; jobs under way are given back then. A database that is away is waited for.

    A job of a kind that is in no lane waits for a process that knows it.
    """
    import psycopg
    from procrastinate.exceptions import ConnectorException

    gone = False
    while True:
        try:
            async with _opened(db, work) as app:
                if gone:
                    logger.info("jobs go on")
                gone = False
                await _until_one_fails([*(_follow(app, lane) for lane in lanes), _keep_mended(db, app.job_manager)])
        except (ConnectorException, psycopg.Error, Unavailable) as error:
            if not gone:
                logger.warning("jobs wait: %s", error.__cause__ or error)
            gone = True
        await asyncio.sleep(_WAIT_SECONDS)


async def _until_one_fails(works: Sequence[Coroutine[None, None, None]]) -> None:
    """Raises its error, when the others have come to rest.

    No TaskGroup: that keeps to itself a cancellation which comes while it is failing (Python 3.11 and 3.12).
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    errors = [task.exception() for task in tasks if not task.cancelled()]
    for error in filter(None, errors):
        raise error


async def mend(db: Database, manager: JobManager) -> int:
    """Deliver anew what nobody will do otherwise: its process is gone, or its delivery is. Gives how many jobs."""
    from procrastinate.exceptions import ConnectorException
    from procrastinate.jobs import Status

    async with db.session() as session:
        if not await session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}):
            return 0  # another process is at it
        for delivery in await manager.get_stalled_jobs(task_name=TASK, seconds_since_heartbeat=STALLED):
            with suppress(ConnectorException):  # it ended at this moment
                await manager.finish_job(delivery, Status.FAILED, delete_job=True)
        return int(await session.scalar(_LOST, {"moment": now()}) or 0)


async def _keep_mended(db: Database, manager: JobManager) -> None:
    while True:
        if count := await mend(db, manager):
            logger.info("%s jobs were left by others, and are done by whoever is there", count)
        await asyncio.sleep(_MEND_SECONDS)


async def _follow(app: App, lane: Lane) -> None:
    """Do what comes in this lane; raises Unavailable when procrastinate has lost the database."""
    await app.run_worker_async(
        queues=[*lane.kinds, _TIDY],
        name=lane.name,
        concurrency=lane.width,
        fetch_job_polling_interval=_POLL_SECONDS,
        update_heartbeat_interval=_HEARTBEAT,
        stalled_worker_timeout=STALLED,
        shutdown_graceful_timeout=0,
        delete_jobs="always",
        install_signal_handlers=False,
    )
    raise Unavailable("The queue has lost its connection.")


@asynccontextmanager
async def _opened(db: Database, work: Work) -> AsyncIterator[App]:
    import procrastinate

    for name in ("procrastinate", "psycopg.pool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what becomes of jobs and of the server we say ourselves
    connector = procrastinate.PsycopgConnector(
        conninfo=for_psycopg(db.url),
        kwargs={"prepare_threshold": None},
        min_size=1,
        max_size=POOL_SIZE,
        timeout=_CONNECT_SECONDS,
    )
    app = procrastinate.App(connector=connector)

    @app.task(name=TASK)
    async def do(job_id: str) -> None:
        await work(job_id)

    # A worker of procrastinate 3.10 minds its own heart and ears only while there is something periodic.
    @app.periodic(cron="17 3 * * *")
    @app.task(name=_TIDY, queue=_TIDY)
    async def tidy(timestamp: int) -> None:  # noqa: ARG001 - procrastinate gives it
        """What an operator has cancelled or ended with procrastinate's own commands."""
        await app.job_manager.delete_old_jobs(
            nb_hours=24, include_failed=True, include_cancelled=True, include_aborted=True
        )

    async with app.open_async():
        yield app


def lanes_of(
    kinds: Sequence[str], lanes: Mapping[str, Sequence[str]], widths: Mapping[str, int], other: str
) -> list[Lane]:
    """Each lane, with those of the kinds that are in it; `other` has the rest."""
    named = {kind for some in lanes.values() for kind in some}
    found = {**lanes, other: [kind for kind in kinds if kind not in named]}
    return [Lane(name, list(some), widths.get(name, 1)) for name, some in found.items()]
