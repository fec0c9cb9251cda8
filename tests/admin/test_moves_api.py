"""A knowledge base moves to another store as a job: offered, followed, cancelled, killed, and answering meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import select, update

from core.app import Kvasir
from core.db.tables import GenerationRow, JobRow, now
from core.errors import Conflict, KvasirError
from core.indexing import moving as moving_module
from core.indexing import reindex
from core.indexing.ingest import Incoming
from core.indexing.storage import is_set_up
from core.settings import WeaviateSettings, load
from core.types import Generation, IndexedDocument, Role
from core.work.jobs import Job, run_job
from tests.admin.conftest import OpenSite, Site
from tests.databases import Postgres
from tests.weaviate_server import empty

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

KB = "/api/v1/kbs/kb"
FILES = {f"{n}.md": f"# Paper {n}\n\nIt says {n}, of the tide." for n in range(9)}


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving_module, "_GRACE_SECONDS", 0)
    monkeypatch.setattr(moving_module, "_PAUSE", 0.01)
    monkeypatch.setattr(moving_module, "_DOCUMENTS_AT_ONCE", 4)
    monkeypatch.setattr(reindex, "_LOOKED_SECONDS", 0.01)


@pytest.fixture
async def site(open_site: OpenSite, postgres: Postgres) -> AsyncIterator[Site]:
    """Its home is `local`; `pgvector` is set up, too."""
    async with postgres.database(migrated=False) as url, open_site(pgvector={"url": url}) as made:
        await furnish(made)
        yield made


async def furnish(site: Site) -> None:
    await site.kvasir.knowledge.create("kb")

    async def incoming() -> Any:
        for name, text in FILES.items():
            yield Incoming(name, text.encode)

    ticket = await site.kvasir.ingest.submit("kb", incoming(), claimed=True)
    await run_job(site.kvasir.jobs, ticket.job, site.kvasir.run_job)


async def work_off(kvasir: Kvasir) -> None:
    while (job := await kvasir.jobs.claim()) is not None:
        await run_job(kvasir.jobs, job, kvasir.run_job)


async def indexes(kvasir: Kvasir) -> list[tuple[str | None, str]]:
    async with kvasir.db.read() as session:
        rows = await session.scalars(select(GenerationRow))
        return sorted((row.store, row.state) for row in rows)


async def first(kvasir: Kvasir) -> str:
    return (await kvasir.retriever.retrieve("what says 7", ["kb"], limit=1)).passages[0].document


async def test_it_is_offered_moved_and_written_down(site: Site) -> None:
    anna = await site.person("anna", Role.OWNER)
    ben = await site.person("ben", Role.EDITOR)
    found = (await anna.get(f"{KB}/indexes")).json()
    assert (found["store"], found["stores"]) == ("local", ["pgvector"])
    assert (await ben.post(f"{KB}/move", json={"store": "pgvector"})).status_code == 403
    refused = await anna.post(f"{KB}/move", json={"store": "weaviate"})  # installed, and not set up
    assert (refused.status_code, "«weaviate» is not set up" in refused.json()["detail"]) == (422, True)
    started = await anna.post(f"{KB}/move", json={"store": "pgvector"})
    assert (started.status_code, started.json()["kind"]) == (202, "move")
    assert (await anna.post(f"{KB}/move", json={"store": "pgvector"})).status_code == 409
    assert (await anna.post(f"{KB}/indexes", json={})).status_code == 409
    await work_off(site.kvasir)
    job = (await anna.get(f"/api/v1/jobs/{started.json()['id']}")).json()
    assert (job["state"], job["about"]) == ("done", "«kb» to another store")
    assert "9 documents" in job["result"]
    found = (await anna.get(f"{KB}/indexes")).json()
    assert (found["store"], found["stores"], found["job"]) == ("pgvector", ["local"], None)
    assert await first(site.kvasir) == "7.md"
    audit = (await anna.get("/api/v1/audit")).json()["items"]
    assert [one["action"] for one in audit].count("generations.move_index") == 1


async def test_cancelled_it_leaves_nothing_behind(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = await site.person("anna", Role.OWNER)
    reached = asyncio.Event()

    async def stuck(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(site.kvasir.store, "put", stuck)
    started = (await anna.post(f"{KB}/move", json={"store": "pgvector"})).json()["id"]
    working = asyncio.create_task(work_off(site.kvasir))
    async with asyncio.timeout(20):
        await reached.wait()
        assert (await anna.post(f"/api/v1/jobs/{started}/cancel")).status_code == 200
        await working
    assert (await site.kvasir.jobs.get(started)).state == "cancelled"
    assert await indexes(site.kvasir) == [("local", "live")]
    assert await first(site.kvasir) == "7.md"


async def test_a_failure_is_one_sentence_and_tried_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = await site.person("anna", Role.OWNER)

    async def refuses(*_: object) -> None:
        raise KvasirError("The disk there is full.")

    with monkeypatch.context() as patch:
        patch.setattr(site.kvasir.store, "put", refuses)
        started = (await anna.post(f"{KB}/move", json={"store": "pgvector"})).json()["id"]
        await work_off(site.kvasir)
    assert (await anna.get(f"{KB}/indexes")).json()["failure"] == "The disk there is full."
    assert await first(site.kvasir) == "7.md"
    await anna.post(f"/api/v1/jobs/{started}/retry")
    await work_off(site.kvasir)
    found = (await anna.get(f"{KB}/indexes")).json()
    assert (found["store"], found["failure"]) == ("pgvector", "")


async def killed_half_way(site: Site, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job that moved some documents when its process was killed; its lease has run out."""
    kvasir = site.kvasir
    put, calls = kvasir.store.put, 0

    async def killing(generation: Generation, documents: Sequence[IndexedDocument]) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed
        await put(generation, documents)

    job = await kvasir.jobs.add("move", {"kb": "kb", "store": "pgvector"}, claimed=True)
    with monkeypatch.context() as patch:
        patch.setattr(kvasir.store, "put", killing)
        with pytest.raises(Killed):
            await run_job(kvasir.jobs, job, kvasir.run_job)
    async with kvasir.db.session() as session:
        await session.execute(update(JobRow).values(lease_until=now() - timedelta(seconds=1)))
    return job


async def copied(site: Site, monkeypatch: pytest.MonkeyPatch, work: Any) -> int:
    """How many documents are copied while this is awaited."""
    put, count = site.kvasir.store.put, 0

    async def counting(generation: Generation, documents: Sequence[IndexedDocument]) -> None:
        nonlocal count
        count += len(documents)
        await put(generation, documents)

    with monkeypatch.context() as patch:
        patch.setattr(site.kvasir.store, "put", counting)
        await work
    return count


async def test_killed_it_is_taken_up_where_it_was(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await killed_half_way(site, monkeypatch)
    assert await site.kvasir.moving.drop_abandoned() == 0
    assert await copied(site, monkeypatch, work_off(site.kvasir)) == 5
    assert (await site.kvasir.jobs.get(job.id)).state == "done"
    assert await indexes(site.kvasir) == [("pgvector", "live")]


async def test_the_command_goes_on_with_what_a_killed_one_has_copied(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await killed_half_way(site, monkeypatch)
    told: list[tuple[int, int]] = []
    moving = reindex.move(site.kvasir, "kb", "pgvector", lambda *numbers: told.append(numbers))
    assert await copied(site, monkeypatch, moving) == 5
    assert told[-1] == (9, 9)
    await work_off(site.kvasir)
    assert await indexes(site.kvasir) == [("pgvector", "live")]


async def test_the_command_watches_a_move_that_is_under_way(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    kvasir = site.kvasir
    job = await kvasir.jobs.add("move", {"kb": "kb", "store": "pgvector"}, claimed=True)
    with pytest.raises(Conflict):
        await reindex.move(kvasir, "kb", "local", lambda *_: None)
    seen = asyncio.Event()
    watching = asyncio.create_task(reindex.move(kvasir, "kb", "pgvector", lambda *_: seen.set()))
    async with asyncio.timeout(20):
        await seen.wait()
        await run_job(kvasir.jobs, job, kvasir.run_job)
        assert not (await watching).is_moved  # by it: it was there already
    assert await indexes(kvasir) == [("pgvector", "live")]


async def test_a_move_that_ends_while_the_command_looks_at_it_is_no_error(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    kvasir = site.kvasir
    job = await kvasir.jobs.add("move", {"kb": "kb", "store": "pgvector"}, claimed=True)
    looked = reindex._is_held

    async def just_over(opened: Kvasir, other: Job) -> bool:
        monkeypatch.undo()
        await run_job(kvasir.jobs, job, kvasir.run_job)
        return await looked(opened, other)

    monkeypatch.setattr(reindex, "_is_held", just_over)
    assert not (await reindex.move(kvasir, "kb", "pgvector", lambda *_: None)).is_moved
    assert await indexes(kvasir) == [("pgvector", "live")]


async def test_a_copy_that_nobody_goes_on_with_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await killed_half_way(site, monkeypatch)
    await site.kvasir.jobs.cancel(job.id)
    await work_off(site.kvasir)
    assert ("pgvector", "moving") in await indexes(site.kvasir)
    assert await site.kvasir.moving.drop_abandoned() == 1
    assert await indexes(site.kvasir) == [("local", "live")]


@asynccontextmanager
async def beside_weaviate(
    open_site: OpenSite, weaviate: WeaviateSettings, **given: Any
) -> AsyncIterator[tuple[Site, httpx2.AsyncClient]]:
    settings = weaviate.model_dump()
    settings["api_key"] = weaviate.api_key and weaviate.api_key.get_secret_value()
    async with open_site(weaviate=settings, **given) as site:
        await furnish(site)
        yield site, await site.person("anna", Role.OWNER)
    await empty(weaviate)


async def test_to_weaviate_and_back_while_it_answers(
    open_site: OpenSite, weaviate_server: WeaviateSettings, postgres: Postgres
) -> None:
    async with (
        postgres.database(migrated=False) as url,
        beside_weaviate(open_site, weaviate_server, pgvector={"url": url}) as (site, anna),
    ):
        count = await site.kvasir.store.count((await site.kvasir.knowledge.live(["kb"]))[0].generation)
        asked, done = 0, asyncio.Event()

        async def ask() -> None:
            nonlocal asked
            while not done.is_set():
                assert await first(site.kvasir) == "7.md"
                asked += 1

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(ask())
            for store in ("weaviate", "local", "pgvector", "weaviate", "pgvector"):
                assert (await anna.post(f"{KB}/move", json={"store": store})).status_code == 202
                await work_off(site.kvasir)
                found = (await anna.get(f"{KB}/indexes")).json()
                assert (found["store"], found["failure"]) == (store, "")
                live = (await site.kvasir.knowledge.live(["kb"]))[0].generation
                assert await site.kvasir.store.count(live) == count
            done.set()
        assert asked


@pytest.mark.sqlite("on PostgreSQL pgvector is set up, too")
def test_what_counts_as_set_up(tmp_path: Any) -> None:
    bare = load(data_dir=tmp_path)
    assert [is_set_up(bare, kind) for kind in ("local", "pgvector", "weaviate", "nonesuch")] == [
        True, False, False, False
    ]  # fmt: skip
    shared = load(data_dir=tmp_path, database={"url": "postgresql+asyncpg://h/d"}, store={"kind": "weaviate"})
    assert [is_set_up(shared, kind) for kind in ("local", "pgvector", "weaviate")] == [False, True, True]
    assert is_set_up(load(data_dir=tmp_path, weaviate={"url": "http://w:8080"}), "weaviate")
