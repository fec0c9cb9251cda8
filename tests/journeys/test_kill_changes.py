"""A process that is killed while it makes a person's change leaves it to the next one: never half, never lost."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from core.app import Kvasir
from core.db.tables import JobRow, now
from core.indexing.ingest import Incoming
from core.settings import load
from core.work.jobs import run_job
from tests.databases import copy_data, put_sqlite
from tests.processes import run

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("parser_here")]

TEA = "# Tea\n\nTea is at four."
COFFEE = "# Tea\n\nCoffee is at nine."
KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from core.app import Kvasir
from core.settings import load

async def main(folder, what, step):
    async with Kvasir.open(load(data_dir=Path(folder), embedder={"kind": "none"})) as kvasir:
        document = (await kvasir.knowledge.find_document("kb", "tea.md")).id
        places = {"read": (kvasir.ingest, "_parse"), "put": (kvasir.store, "put"), "switch": (kvasir.ingest, "_switch")}
        setattr(*places[step], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        if what == "edit":
            (chunk,) = (await kvasir.chunks.page(document)).items
            job = await kvasir.chunks.edit(document, 0, chunk.content_hash, "There is no tea.", by="ada")
        else:
            job = await kvasir.versions.restore(document, 1, by="ada", claimed=True)
        await kvasir.at_once(job)

asyncio.run(main(*sys.argv[1:]))
"""


async def _put(kvasir: Kvasir, text: str) -> None:
    async def incoming() -> AsyncIterator[Incoming]:
        yield Incoming("tea.md", text.encode)

    ticket = await kvasir.ingest.submit("kb", incoming(), claimed=True)
    await run_job(kvasir.jobs, ticket.job, kvasir.run_job)


def _killed(folder: Path, what: str, step: str) -> None:
    command = [sys.executable, "-c", KILLED, str(folder), what, step]
    done = run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a document that has a former version."""
    folder = tmp_path_factory.mktemp("stock") / "data"

    async def fill() -> None:
        await put_sqlite(folder / "kvasir.db")
        async with Kvasir.open(load(data_dir=folder, embedder={"kind": "none"})) as kvasir:
            await kvasir.knowledge.create("kb")
            for text in (TEA, COFFEE):
                await _put(kvasir, text)

    asyncio.run(fill())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "step"), [("edit", "put"), ("edit", "switch"), ("restore", "read"), ("restore", "switch")]
)
async def test_a_killed_change_is_made_by_the_next_process(tmp_path: Path, stock: Path, what: str, step: str) -> None:
    copy_data(stock, tmp_path / "data")
    settings = load(data_dir=tmp_path / "data", embedder={"kind": "none"})
    await asyncio.to_thread(_killed, tmp_path / "data", what, step)
    async with Kvasir.open(settings) as kvasir:
        await kvasir.ingest.recover()
        async with kvasir.db.session() as session:
            await session.execute(update(JobRow).values(lease_until=now() - timedelta(1)))
        while (job := await kvasir.jobs.claim()) is not None:
            await run_job(kvasir.jobs, job, kvasir.run_job)
        document = (await kvasir.knowledge.find_document("kb", "tea.md")).id
        listed = await kvasir.documents.get(document)
        (chunk,) = (await kvasir.chunks.page(document)).items
        assert chunk.text == ("There is no tea." if what == "edit" else "Tea is at four.")
        assert (listed.info.status, listed.versions) == ("indexed", 1)
        assert listed.changes == (what == "edit")
        await kvasir.ingest.reconcile("kb")
        assert await kvasir.jobs.claim() is None
