"""How late the event loop is while documents come in and questions are answered in the same process."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from pathlib import Path

from bench.common import quantile, write_corpus
from bench.ingestion import model_settings
from core.app import Kvasir
from core.cli.ask import answer_of
from core.cli.documents import bring_in

TICK = 0.005


def main() -> None:
    asyncio.run(measure())


async def measure() -> None:
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        write_corpus(corpus, 60, 6000)
        async with Kvasir.open(model_settings(Path(folder, "data")), embedder="wait") as kvasir:
            first = Path(folder, "first")
            write_corpus(first, 5, 3000, seed=1)
            await bring_in(kvasir, "kb", [str(first)], show=False)
            late: list[float] = []
            probe = asyncio.create_task(watch(late))
            coming = asyncio.create_task(bring_in(kvasir, "kb", [str(corpus)], show=False))
            answers: list[float] = []
            while not coming.done():
                started = time.perf_counter()
                await answer_of(kvasir, "What does the retention policy say on the warranty?", "kb")
                answers.append((time.perf_counter() - started) * 1000)
                await asyncio.sleep(0.1)
            await coming
            probe.cancel()
    print(
        f"loop late by p50 {quantile(late, 0.5):.1f} ms, p99 {quantile(late, 0.99):.1f} ms, "
        f"at most {max(late):.1f} ms over {len(late)} ticks (bar: p99 ≤ 50 ms)"
    )
    print(f"answers meanwhile: p50 {quantile(answers, 0.5):.0f} ms, p95 {quantile(answers, 0.95):.0f} ms")


async def watch(late: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(TICK)
        late.append((time.perf_counter() - before - TICK) * 1000)
