"""What PostgreSQL refuses, or does not do in time, is said in a sentence; and when it is back, all goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import NullPool, make_url, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from core.db import session as session_module
from core.db.session import Database
from core.db.sizes import table_sizes
from core.db.tables import KnowledgeBaseRow
from core.doctor import examine
from core.errors import Unavailable
from core.ports import Finding
from core.settings import DatabaseSettings, load
from core.texts import speaking
from core.work import queue
from core.work.jobs import Jobs
from tests.databases import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]


@pytest.fixture
async def url(postgres: Postgres) -> AsyncIterator[str]:
    async with postgres.database(migrated=True) as found:
        yield found


@asynccontextmanager
async def away(url: str) -> AsyncIterator[None]:
    """The server takes nobody in any more, and all who were connected are out."""
    name = make_url(url).database
    engine = create_async_engine(
        make_url(url).set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool
    )
    async with engine.connect() as connection:
        await connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        await connection.execute(
            text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        )
        try:
            yield
        finally:
            await connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    await engine.dispose()


async def test_what_takes_too_long_is_given_up_in_a_sentence(url: str) -> None:
    """Protection: `statement_seconds`."""
    db = Database(url, DatabaseSettings(statement_seconds=0.1))
    with pytest.raises(Unavailable, match="in time"):
        async with db.session() as session:
            await session.execute(text("SELECT pg_sleep(60)"))
    async with db.session() as session:
        assert await session.scalar(text("SELECT 1")) == 1
    await db.close()


async def test_whoever_waits_too_long_for_another_is_told_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protection: `lock_timeout`, and the size of the pool."""
    monkeypatch.setattr(session_module, "_LOCK_SECONDS", 0.1)
    db = Database(url, DatabaseSettings(pool_size=2, pool_overflow=0, pool_seconds=0.1))
    async with db.session() as session:
        session.add(KnowledgeBaseRow(name="a", chunk_size=100, chunk_overlap=10))
    rename = update(KnowledgeBaseRow).values(name="b")
    async with db.session() as holder:
        await holder.execute(rename)
        with pytest.raises(Unavailable, match="in time"):
            async with db.session() as waits:
                await waits.execute(rename)
        async with db.read() as second:
            await second.execute(text("SELECT 1"))
            with pytest.raises(Unavailable, match="pool_overflow"):
                async with db.read() as third:
                    await third.execute(text("SELECT 1"))
    await db.close()


async def test_what_a_use_case_handles_stays_what_it_is(url: str) -> None:
    db = Database(url)
    with pytest.raises(IntegrityError):
        async with db.session() as session:
            session.add_all([KnowledgeBaseRow(name="a", chunk_size=1, chunk_overlap=0) for _ in range(2)])
    await db.close()


async def test_a_server_that_is_away_is_told_and_found_again(url: str) -> None:
    """Protection: errors while connecting are no errors of SQLAlchemy's."""
    db = Database(url)
    async with db.session() as session:
        await session.execute(text("SELECT 1"))
    async with away(url):
        with pytest.raises(Unavailable, match="not currently accepting"):
            async with db.session() as session:
                await session.execute(text("SELECT 1"))
    async with db.session() as session:
        assert await session.scalar(text("SELECT 1")) == 1
    await db.close()
    nowhere = Database("postgresql://kvasir:hunter2secret@127.0.0.1:9/kvasir")
    with pytest.raises(Unavailable) as caught:
        async with nowhere.read() as session:
            await session.execute(text("SELECT 1"))
    assert "hunter2secret" not in str(caught.value)
    await nowhere.close()


async def test_the_doctor_counts_the_connections_of_all_processes(url: str, tmp_path: Path) -> None:
    async def finding(**pool: int) -> Finding:
        settings = load(data_dir=tmp_path, database={"url": url, **pool}, embedder={"kind": "none"})
        (found,) = [one async for one in examine(settings) if one.what == "Connections"]
        return found

    with speaking("en"):
        good, bad = await finding(), await finding(pool_overflow=90)
    assert good.ok
    assert not bad.ok
    assert "max_connections" in bad.says


async def test_how_large_tables_are(url: str) -> None:
    db = Database(url)
    found = {one.name: one for one in await table_sizes(db)}
    assert found["answers"].bytes > 0
    assert "procrastinate_jobs" in found
    await db.close()


async def noted(db: Database) -> None:
    """What was done is noted by the queue, too: to lose the server in that moment is an error of its own there."""
    left = text("SELECT count(*) FROM procrastinate_jobs WHERE task_name = :task")
    while True:
        async with db.read() as session:
            if not await session.scalar(left, {"task": queue.TASK}):
                return
        await asyncio.sleep(0.02)


async def test_jobs_go_on_when_the_server_is_back(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(queue, "_CONNECT_SECONDS", 0.5)
    db = Database(url)
    jobs, done = Jobs(db), asyncio.Queue[str]()

    async def work(job_id: str) -> None:
        if (job := await jobs.take(job_id)) is not None:
            await jobs.finish(job)
            done.put_nowait(job.id)

    service = asyncio.create_task(queue.serve(db, [queue.Lane("documents", ("ingest",), 1)], work))
    async with asyncio.timeout(60):
        first = await jobs.add("ingest", {"kb": "a"})
        assert await done.get() == first.id
        await noted(db)
        async with away(url):
            with pytest.raises(Unavailable):
                await jobs.add("ingest", {"kb": "b"})
        second = await jobs.add("ingest", {"kb": "c"})
        assert await done.get() == second.id
        await noted(db)
        async with away(url):
            with pytest.raises(Unavailable):
                await jobs.add("ingest", {"kb": "d"})
            await asyncio.sleep(0.05)  # the service is about to notice
            service.cancel()
            await asyncio.wait({service})
    assert service.cancelled()
    await db.close()
