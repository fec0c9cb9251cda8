"""On PostgreSQL procrastinate brings jobs to whoever is there, and what a dead process leaves is done by another."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text, update

from core import scheduled, worker
from core.app import Kvasir
from core.db.postgres import for_asyncpg, for_psycopg
from core.db.session import Database, checked_url
from core.db.tables import JobRow, now
from core.settings import Settings, load
from core.work import queue
from core.work.jobs import Job, Jobs
from tests.databases import Postgres
from tests.fakes.library import incoming
from tests.processes import KVASIR, start

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

DEAD = (
    "UPDATE procrastinate_workers SET last_heartbeat = last_heartbeat - interval '1 minute'",
    "UPDATE jobs SET lease_until = lease_until - interval '1 minute' WHERE state = 'running'",
)
"""As if a minute had gone by."""


@pytest.fixture
async def settings(postgres: Postgres, tmp_path: Path) -> AsyncIterator[Settings]:
    async with postgres.database(migrated=True) as url:
        yield load(data_dir=tmp_path, database={"url": url}, embedder={"kind": "none"})


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    found = Database(settings.database_url)
    yield found
    await found.close()


async def _run(db: Database, *statements: str) -> None:
    async with db.session() as session:
        for statement in statements:
            await session.execute(text(statement))


async def _deliveries(db: Database) -> list[tuple[str, str, str]]:
    """Queue, state and job of each, in the order of their making; not what the engine does for itself each minute."""
    query = (
        "SELECT queue_name, status::text, args ->> 'job_id' FROM procrastinate_jobs"
        f" WHERE queue_name != '{queue._TIDY}' ORDER BY id"
    )
    async with db.read() as session:
        return [(row[0], row[1], row[2]) for row in await session.execute(text(query))]


async def _until(jobs: Jobs, job_id: str, *states: str) -> str:
    async with asyncio.timeout(60):
        while (state := (await jobs.get(job_id)).state) not in states:
            await asyncio.sleep(0.02)
    return state


async def test_what_waits_is_delivered_with_the_transaction_that_lets_it_wait(database: Database) -> None:
    """Protection: the triggers on `jobs`."""
    jobs = Jobs(database)
    waiting = await jobs.add("ingest", {"kb": "a"})
    own = await jobs.add("sync", {}, claimed=True)
    assert await _deliveries(database) == [("ingest", "todo", waiting.id)]
    async with database.session() as session:
        session.add(jobs.new_row("ingest", {"kb": "b"}))
        await session.flush()
        await session.rollback()
    assert len(await _deliveries(database)) == 1
    await jobs.release(own)
    assert await _deliveries(database) == [("ingest", "todo", waiting.id), ("sync", "todo", own.id)]
    await jobs.cancel(waiting.id)
    await jobs.retry(waiting.id)
    assert [found[2] for found in await _deliveries(database)] == [waiting.id, own.id, waiting.id]


async def test_a_job_is_taken_once_and_only_while_nobody_is_at_it(database: Database) -> None:
    jobs = Jobs(database)
    job = await jobs.add("ingest", {"kb": "a"})
    first = await jobs.take(job.id)
    assert first is not None
    assert await jobs.take(job.id) is None
    await _run(database, DEAD[1])
    second = await jobs.take(job.id)
    assert second is not None
    assert second.fence == first.fence + 1
    await jobs.finish(second)
    assert await jobs.take(job.id) is None
    assert await jobs.take("0" * 32) is None


async def test_jobs_are_done_lane_by_lane_and_given_back_at_the_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: a width for each lane; what a process that stops was doing waits for the next one."""
    begun: list[str] = []

    async def long(_kvasir: Kvasir, job: Job) -> str:
        begun.append(job.id)
        await asyncio.sleep(600)
        return ""

    async def short(_kvasir: Kvasir, _job: Job) -> str:
        return "Done at once."

    monkeypatch.setattr(scheduled, "KINDS", {"backup": scheduled.Kind(long), "sync": scheduled.Kind(short)})
    async with Kvasir.open(settings) as kvasir:
        service = asyncio.create_task(worker.serve(kvasir, None))
        slow = [await kvasir.jobs.add("backup", {"target": "x"}) for _ in range(2)]
        quick = await kvasir.jobs.add("sync", {"target": "x"})
        await _until(kvasir.jobs, slow[0].id, "running")
        await _until(kvasir.jobs, quick.id, "done")
        assert (await kvasir.jobs.get(quick.id)).progress["result"] == "Done at once."
        service.cancel()
        with pytest.raises(asyncio.CancelledError):
            await service
        assert begun == [slow[0].id]
        assert [(await kvasir.jobs.get(job.id)).state for job in slow] == ["queued", "queued"]
        waiting = [(state, job_id) for _, state, job_id in await _deliveries(kvasir.db)]
        assert sorted(waiting) == sorted(("todo", job.id) for job in slow)


async def test_what_would_get_lost_is_delivered_again(database: Database) -> None:
    """Protection: `mend`, for a delivery that is gone, and for one whose process is."""
    jobs, done = Jobs(database), asyncio.Queue[str]()
    lane = queue.Lane("documents", ("ingest",), 1)

    async def work(job_id: str) -> None:
        if (job := await jobs.take(job_id)) is not None:
            await jobs.finish(job)
            done.put_nowait(job.id)

    orphan = await jobs.add("ingest", {"kb": "a"})
    await _run(database, "DELETE FROM procrastinate_jobs")
    left = await jobs.add("ingest", {"kb": "b"})
    await _run(
        database,
        "INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 minute')",
        "UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT max(id) FROM procrastinate_workers)",
    )
    fresh = await jobs.add("ingest", {"kb": "c"})
    service = asyncio.create_task(queue.serve(database, [lane], work))
    async with asyncio.timeout(60):
        ended = {await done.get() for _ in range(3)}
    service.cancel()
    await asyncio.wait({service})
    assert ended == {orphan.id, left.id, fresh.id}
    assert await _deliveries(database) == []


async def test_a_process_is_killed_while_it_brings_documents_in(settings: Settings) -> None:
    """Protection: the lease and its fence; the same with many kills: `python -m bench kill_jobs`."""
    text_ = "# Tea {0}\n\n" + "\n\n".join(f"Pot {number} of sort {{0}} is served at four." for number in range(200))
    files = {f"tea-{number}.md": text_.format(number) for number in range(100)}
    async with Kvasir.open(settings) as kvasir:
        await kvasir.knowledge.create("kb")
        with _process(settings) as victim:
            ticket = await kvasir.ingest.submit("kb", incoming(files))
            await _until(kvasir.jobs, ticket.job.id, "running", "done")
            os.killpg(victim.pid, signal.SIGKILL)
        before = await kvasir.jobs.get(ticket.job.id)
        await _run(kvasir.db, *DEAD)
        service = asyncio.create_task(worker.serve(kvasir, None))
        assert await _until(kvasir.jobs, ticket.job.id, "done", "failed") == "done"
        service.cancel()
        await asyncio.wait({service})
        after = await kvasir.jobs.get(ticket.job.id)
        assert before.state == "running"
        assert after.fence == before.fence + 1
        base = await kvasir.knowledge.get("kb")
        (live,) = await kvasir.knowledge.live(["kb"])
        count = await kvasir.store.count(live.generation)
        assert (base.documents, base.chunks) == (count.documents, count.chunks)
        documents, total = await kvasir.knowledge.documents("kb", limit=100)
        assert total == len(files)
        assert {one.status for one in documents} == {"indexed"}
        for one in documents:
            assert [chunk.number for chunk in await kvasir.knowledge.chunks(one.id)] == list(range(one.chunks))


def _process(settings: Settings) -> subprocess.Popen[bytes]:
    environment = dict(
        os.environ, KVASIR_DATA_DIR=str(settings.data_dir), KVASIR_DATABASE__URL=settings.database_url,
        KVASIR_EMBEDDER__KIND="none", KVASIR_LOG__LEVEL="ERROR",
    )  # fmt: skip
    return start([KVASIR, "up", "jobs"], env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


async def test_the_dead_are_not_followed_by_their_lease_alone(database: Database) -> None:
    """Protection: a job of another process that still holds its lease is left alone, whatever is delivered."""
    jobs = Jobs(database)
    job = await jobs.add("ingest", {"kb": "a"})
    assert await jobs.take(job.id) is not None
    async with database.session() as session:
        await session.execute(update(JobRow).where(JobRow.id == job.id).values(lease_until=now() + timedelta(days=1)))
    await _run(database, DEAD[0])
    assert await jobs.take(job.id) is None


@pytest.mark.parametrize(
    ("address", "line", "kept", "given"),
    [
        (
            "postgresql://k:p%40ss@db:6432/kvasir?sslmode=verify-full&sslrootcert=/ca.pem&application_name=ours",
            "application_name=ours user=k password=p@ss dbname=kvasir host=db port=6432 sslmode=verify-full",
            "postgresql+asyncpg://k:p%40ss@db:6432/kvasir",
            {"dsn": "postgresql://?sslmode=verify-full&sslrootcert=%2Fca.pem", "name": "ours"},
        ),
        (
            "postgresql://k@/kvasir?host=/run/postgresql&ssl=require&command_timeout=9&timeout=4",
            "connect_timeout=4 user=k dbname=kvasir host=/run/postgresql sslmode=require",
            "postgresql+asyncpg://k@/kvasir?command_timeout=9&host=%2Frun%2Fpostgresql&ssl=require&timeout=4",
            {"name": "kvasir"},
        ),
        (
            "postgresql://k@/kvasir?host=a:1,b:2&target_session_attrs=read-write",
            "user=k dbname=kvasir host=a,b port=1,2 target_session_attrs=read-write",
            "postgresql+asyncpg://k@/kvasir?host=a%3A1%2Cb%3A2",
            {"dsn": "postgresql://?target_session_attrs=read-write", "name": "kvasir"},
        ),
    ],
)
def test_one_address_does_for_both_drivers(address: str, line: str, kept: str, given: dict[str, str]) -> None:
    url = checked_url(address)
    assert conninfo_to_dict(line).items() <= conninfo_to_dict(for_psycopg(url)).items()
    stripped, arguments = for_asyncpg(url, {"statement_timeout": "1000"})
    assert stripped.render_as_string(hide_password=False) == kept
    assert arguments.get("dsn") == given.get("dsn")
    assert arguments["server_settings"] == {"application_name": given["name"], "statement_timeout": "1000"}
