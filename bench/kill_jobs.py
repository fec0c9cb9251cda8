"""kill -9 of processes that do jobs, on a real PostgreSQL, while documents come in and change: nothing is lost, nothing
is doubled, and how long it takes until another process goes on with the work.

`python -m bench kill_jobs` does it with two processes, then with three; each stands for a machine. In the end the index
must hold what one clean run on SQLite gives, by name, number and hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from bench.common import write_corpus
from core import settings as settings_module
from core.app import Kvasir
from core.db.tables import JobRow
from core.indexing.ingest import Incoming
from core.settings import Settings
from core.work.jobs import run_job
from tests.databases import Postgres

KILLS = 12
DOCUMENTS = 48
CHARACTERS = 60_000
JOBS = 6
PATIENCE = 180.0

Content = dict[str, tuple[str, list[tuple[int, str]]]]
"""Document name -> (hash of its bytes, [(chunk number, content hash)])."""


def main() -> None:
    for processes in (2, 3):
        with tempfile.TemporaryDirectory() as folder:
            print(asyncio.run(drill(Path(folder), processes=processes, kills=KILLS, seed=processes)), flush=True)


async def drill(folder: Path, *, processes: int, kills: int, seed: int) -> str:
    """Run it in `folder`; raises AssertionError where something differs, else gives one sentence."""
    chance = random.Random(seed)
    corpus = folder / "corpus"
    paths = write_corpus(corpus, DOCUMENTS, CHARACTERS, seed)
    server = Postgres(folder)
    try:
        async with server.database(migrated=False) as address:
            settings = _settings(folder / "data", url=address)
            async with Kvasir.open(settings) as kvasir:
                waits, hit = await _rounds(kvasir, settings, paths, chance, processes, kills)
                survived = await content(kvasir)
                jobs = await kvasir.jobs.list(limit=10_000)
                left = await _deliveries(kvasir)
    finally:
        server.leave()
    clean = await clean_run(folder / "clean", paths)
    assert survived == clean, f"{len(survived)} documents differ from {len(clean)} of a clean run"
    assert {job.state for job in jobs} == {"done"}, "a job did not end well"
    assert not left, f"{left} deliveries are left"
    took = f"{statistics.median(waits):.1f} s [{min(waits):.1f}..{max(waits):.1f}]" if waits else "never needed"
    chunks = sum(len(found) for _, found in survived.values())
    return (
        f"{processes} processes, {kills} killed, {hit} of them at work; {len(jobs)} jobs done,"
        f" {len(survived)} documents, {chunks} chunks, equal to one clean run by name, number and hash;"
        f" until another went on: {took}"
    )


async def _rounds(
    kvasir: Kvasir, settings: Settings, paths: Sequence[Path], chance: random.Random, processes: int, kills: int
) -> tuple[list[float], int]:
    """Seconds that each job waited whose process was killed, and how many processes were at work when they were."""
    waits: list[float] = []
    hit = 0
    crew = [_start(settings) for _ in range(processes)]
    try:
        await kvasir.knowledge.create("kb")
        for number in range(kills):
            if number:
                for path in chance.sample(list(paths), len(paths) // 2):
                    path.write_text(path.read_text(encoding="utf-8") + f"\n\nChange {number}.\n", encoding="utf-8")
            for first in range(JOBS):
                await kvasir.ingest.submit("kb", _files(paths[first::JOBS]))
            await _until_at_work(kvasir)
            await asyncio.sleep(chance.uniform(0.0, 1.0))
            os.killpg(crew[0].pid, signal.SIGKILL)
            moment = time.monotonic()
            fences = await _fences(kvasir, running=True)
            crew[0].wait(30)
            found = await _taken_over(kvasir, fences, moment)
            waits += found
            hit += bool(found)
            crew = [*crew[1:], _start(settings)]
    finally:
        for process in crew:
            process.terminate()
        for process in crew:
            process.wait(30)
    return waits, hit


async def _until_at_work(kvasir: Kvasir) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await _fences(kvasir, running=True):
            await asyncio.sleep(0.02)


async def _taken_over(kvasir: Kvasir, before: dict[str, int], moment: float) -> list[float]:
    """Wait until every job has ended; for each of those `before` that got another worker, after how long."""
    found: dict[str, float] = {}
    async with asyncio.timeout(PATIENCE):
        while True:
            for job_id, fence in (await _fences(kvasir)).items():
                if fence > before.get(job_id, fence):
                    found.setdefault(job_id, time.monotonic() - moment)
            if not await kvasir.jobs.active("ingest"):
                return list(found.values())
            await asyncio.sleep(0.05)


async def _fences(kvasir: Kvasir, *, running: bool = False) -> dict[str, int]:
    query = select(JobRow.id, JobRow.fence)
    if running:
        query = query.where(JobRow.state == "running")
    async with kvasir.db.read() as session:
        return {row.id: row.fence for row in await session.execute(query)}


async def _deliveries(kvasir: Kvasir) -> int:
    async with kvasir.db.read() as session:
        return int(await session.scalar(text("SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'kvasir.job'")))


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    environment = dict(
        os.environ,
        KVASIR_DATA_DIR=str(settings.data_dir),
        KVASIR_DATABASE__URL=settings.database_url,
        KVASIR_STORE__KIND="pgvector",
        KVASIR_EMBEDDER__KIND="none",
        KVASIR_LOG__LEVEL="ERROR",
    )
    program = Path(sys.executable).with_name("kvasir")
    return subprocess.Popen(
        [str(program), "up", "jobs"], env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )


def _settings(data: Path, *, url: str = "") -> Settings:
    given: dict[str, Any] = {"database": {"url": url}, "store": {"kind": "pgvector"}} if url else {}
    return settings_module.load(data_dir=data, embedder=settings_module.EmbedderSettings(kind="none"), **given)


async def _files(paths: Sequence[Path]) -> AsyncIterator[Incoming]:
    for path in paths:
        yield Incoming(path.name, path.read_bytes)


async def clean_run(data: Path, paths: Sequence[Path]) -> Content:
    """What one process makes of the documents on SQLite and `local`."""
    async with Kvasir.open(_settings(data)) as kvasir:
        await kvasir.knowledge.create("kb")
        ticket = await kvasir.ingest.submit("kb", _files(paths), claimed=True)
        await run_job(kvasir.jobs, ticket.job, kvasir.run_job)
        return await content(kvasir)


async def content(kvasir: Kvasir) -> Content:
    """What is there, once index and database count the same."""
    found: Content = {}
    documents, total = await kvasir.knowledge.documents("kb", limit=100_000)
    for document in documents:
        assert document.status == "indexed", f"{document.name} is {document.status}: {document.reason}"
        original = await kvasir.knowledge.original(document.id)
        chunks = [(chunk.number, chunk.content_hash) for chunk in await kvasir.knowledge.chunks(document.id)]
        assert len(chunks) == document.chunks
        found[document.name] = (hashlib.sha256(original.read_bytes()).hexdigest(), chunks)
    live = await kvasir.knowledge.live(["kb"])
    count = await kvasir.store.count(live[0].generation)
    assert (count.documents, count.chunks) == (total, sum(len(chunks) for _, chunks in found.values()))
    return found
