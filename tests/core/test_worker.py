"""The service `jobs` outlives a database that goes away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path

import pytest

from core import registry, scheduled, worker
from core import settings as settings_module
from core.app import Kvasir
from core.db.tables import now
from core.errors import Unavailable
from core.work.jobs import WIDTHS, Job
from tests.fakes.embedder import HashEmbedder
from tests.fakes.library import incoming, opened_library

pytestmark = pytest.mark.anyio


@pytest.mark.sqlite("its worker; that of PostgreSQL is tried in test_session_postgres")
async def test_jobs_go_on_when_the_database_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_WAIT_SECONDS", 0.01)
    settings = settings_module.load(data_dir=tmp_path)
    async with Kvasir.open(settings, embedder=HashEmbedder()) as kvasir:
        await kvasir.knowledge.create("kb")
        job = await kvasir.jobs.add("ingest", {"kb": "kb"})
        claim, failures = kvasir.jobs.claim, 3

        async def away(busy: Collection[str]) -> Job | None:
            nonlocal failures
            if failures:
                failures -= 1
                raise Unavailable("The database is locked.")
            return await claim(busy)

        monkeypatch.setattr(kvasir.jobs, "claim", away)
        service = asyncio.create_task(worker.serve(kvasir, None))
        async with asyncio.timeout(10):
            while (await kvasir.jobs.get(job.id)).state != "done":
                await asyncio.sleep(0.02)
        service.cancel()
        with pytest.raises(asyncio.CancelledError):
            await service
    assert failures == 0


async def test_what_was_kept_long_enough_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_TIDY_SECONDS", 0.01)
    async with Kvasir.open(settings_module.load(data_dir=tmp_path), embedder=HashEmbedder()) as kvasir:
        await kvasir.knowledge.create("kb")
        service = asyncio.create_task(worker.serve(kvasir, None))
        await kvasir.temporary.ensure("thread-1", now() - timedelta(seconds=1))
        async with asyncio.timeout(10):
            while len(await kvasir.knowledge.list(temporary=True)) > 1:
                await asyncio.sleep(0.01)
        service.cancel()
        with pytest.raises(asyncio.CancelledError):
            await service
        assert [kb.name for kb in await kvasir.knowledge.list()] == ["kb"]


async def test_what_came_in_without_vectors_gets_them_though_another_process_fetched_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: `add_vectors` also when the model stands ready at the start."""
    async with opened_library(tmp_path, keywords_only=True) as library:
        await library.bring("kb", {"tea.md": "# Tea\n\nTea is served at four."})
    genuine = registry.load

    async def ready(_settings: object, _progress: object = None) -> HashEmbedder:
        return HashEmbedder()

    def load(group: str, name: str) -> object:
        return ready if group == "kvasir.embedders" else genuine(group, name)

    monkeypatch.setattr(registry, "load", load)
    async with Kvasir.open(settings_module.load(data_dir=tmp_path), embedder="background") as kvasir:
        async with asyncio.timeout(10):
            while not [job for job in await kvasir.jobs.list() if job.kind == "reindex"]:
                await asyncio.sleep(0.02)


async def test_a_long_synchronisation_holds_up_no_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protection: the lanes of the queue."""
    going, over, begun = asyncio.Event(), asyncio.Event(), 0

    async def long(_kvasir: Kvasir, _job: Job) -> str:
        nonlocal begun
        begun += 1
        if begun == WIDTHS["sync"]:
            going.set()
        await over.wait()
        return "Done at last."

    monkeypatch.setattr(scheduled, "KINDS", {"sync": scheduled.Kind(long)})
    async with Kvasir.open(settings_module.load(data_dir=tmp_path), embedder=HashEmbedder()) as kvasir:
        await kvasir.knowledge.create("kb")
        service = asyncio.create_task(worker.serve(kvasir, None))
        async with asyncio.timeout(20):
            slow = [await kvasir.jobs.add("sync", {"target": "x"}) for _ in range(WIDTHS["sync"] + 1)]
            await going.wait()
            ticket = await kvasir.ingest.submit("kb", incoming({"tea.md": "Tea is served at four."}))
            while (await kvasir.jobs.get(ticket.job.id)).state != "done":
                await asyncio.sleep(0.02)
            states = [(await kvasir.jobs.get(job.id)).state for job in slow]
            assert states == ["running"] * WIDTHS["sync"] + ["queued"]
            over.set()
            while (ended := await kvasir.jobs.get(slow[-1].id)).state != "done":
                await asyncio.sleep(0.02)
        service.cancel()
        with pytest.raises(asyncio.CancelledError):
            await service
    assert ended.progress["result"] == "Done at last."
