"""What a worker costs beside its model: CPU a token, time to the first, and how soon an answer comes after a drill."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import psutil

from bench.common import quantile
from core.errors import EngineUnavailable
from core.serving.client import health
from core.serving.driver import Done, Job
from core.serving.drivers.scripted import ScriptedDriver
from core.serving.plan import Plan
from core.types import Sampling
from tests.serving.worker_process import answer, asking, client, engine, is_gone, pid_of, prompt, worker

TOKENS = 4000
ROUNDS = 3


def main() -> None:
    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> None:
    await _start(folder)
    for pace in (0.002, 0.02):
        await _sockets(folder, pace)
    for streams, pace in ((1, 0.002), (1, 0.02), (8, 0.01), (32, 0.02), (8, 0.0)):
        await _tokens(folder, streams, pace)
    await _drills(folder)
    await _cancels(folder)


async def _start(folder: Path) -> None:
    opened, first = [], []
    for number in range(5):
        before = time.perf_counter()
        async with engine(Plan("scripted", {"reply": "one two"}, folder / f"s{number}")) as asked:
            opened.append(time.perf_counter() - before)
            for _ in range(20):
                before = time.perf_counter()
                async with aclosing(asked.stream(prompt(), Sampling())) as pieces:
                    await anext(pieces)
                    first.append((time.perf_counter() - before) * 1000)
    print(f"from nothing to ready: p50 {quantile(opened, 0.5):.2f} s")
    print(f"to the first token: p50 {quantile(first, 0.5):.1f} ms")


async def _sockets(folder: Path, pace: float) -> None:
    """What it costs to wake two processes for each token: a chunk written by one event loop and read by another."""
    tokens, took = int(8 / pace), []
    for number in range(ROUNDS):
        path, ended = str(folder / f"bare{number}-{pace}"), asyncio.Event()
        spawned = get_context("spawn")
        told: SimpleQueue[float] = spawned.SimpleQueue()

        async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, end: asyncio.Event = ended) -> None:
            while await reader.read(1 << 16):
                pass
            writer.close()
            end.set()

        async with await asyncio.start_unix_server(read, path):
            child = spawned.Process(target=_write_alone, args=(path, pace, tokens, told))
            child.start()
            before = time.process_time()
            async with asyncio.timeout(60):
                await ended.wait()
            took.append(time.process_time() - before + told.get())
            await asyncio.to_thread(child.join)
    a_token = quantile(took, 0.5) * 1000 / tokens
    print(f"two bare sockets, one chunk in {pace * 1000:g} ms: {a_token:.3f} ms CPU a chunk in both processes")


def _write_alone(path: str, pace: float, tokens: int, told: SimpleQueue[float]) -> None:
    async def write() -> float:
        _, writer = await asyncio.open_unix_connection(path)
        before = time.process_time()
        for _ in range(tokens):
            await asyncio.sleep(pace)
            writer.write(b"x" * 200)
        took = time.process_time() - before
        writer.close()
        await writer.wait_closed()
        return took

    told.put(asyncio.run(write()))


async def _tokens(folder: Path, streams: int, pace: float) -> None:
    """CPU of both processes, without what the driver takes by itself at the same tempo."""
    each = min(TOKENS // streams, int(8 / pace) if pace else TOKENS)
    values: dict[str, Any] = {"tokens": each, "token_seconds": pace, "parallel": streams, "context_size": 100_000}
    ours, bare = [], []
    plan = Plan("scripted", values, folder / f"t{streams}-{pace}")
    async with worker(plan) as running, asking(running, plan) as asked:
        await answer(asked, max_tokens=5)
        child = psutil.Process(await pid_of(running))
        for _ in range(ROUNDS):
            before = time.process_time() + sum(child.cpu_times()[:2])
            await asyncio.gather(*(answer(asked, "word", max_tokens=each) for _ in range(streams)))
            ours.append(time.process_time() + sum(child.cpu_times()[:2]) - before)
            before = time.process_time()
            _alone(values, streams, each)
            bare.append(time.process_time() - before)
    a_token = (quantile(ours, 0.5) - quantile(bare, 0.5)) * 1000 / (each * streams)
    tempo = f"one token in {pace * 1000:g} ms each" if pace else "as fast as they come"
    print(f"{streams} streams, {tempo}: {a_token:.3f} ms CPU a token in both processes (bar: 0.2)", flush=True)


def _alone(values: dict[str, Any], streams: int, tokens: int) -> None:
    driver = ScriptedDriver(values)
    driver.load(lambda _stage, _done, _total: None)
    ids = tuple(driver.tokenizer.encode("<|bos|><|user|>word<|end|><|assistant|>", special=True))
    for number in range(streams):
        driver.begin(Job(str(number), ids, max_tokens=tokens))
    left = streams
    while left:
        left -= sum(isinstance(event, Done) for event in driver.step())


async def _drills(folder: Path) -> None:
    """From the moment of the fault to the first piece of the next answer, or of the same one asked again."""
    for what in ("segv", "kill", "poison", "oom", "bug"):
        took = [await _recovery(folder / f"{what}{token}", f"{what}@{token}") for token in (1, 2, 3, 5, 8, 13)]
        print(f"{what} at token 1 to 13: next answer after p50 {quantile(took, 0.5):.2f} s, at most {max(took):.2f} s")
    for what in ("hang", "freeze"):
        took = [await _recovery(folder / what, f"{what}@2", stall=2.0)]
        print(f"{what} with 2 s to stall: next answer after {took[0]:.2f} s")
    async with worker(plan := Plan("scripted", {}, folder / "outside")) as running, asking(running, plan) as asked:
        first = await pid_of(running)
        os.kill(first, signal.SIGKILL)
        before = time.perf_counter()
        await is_gone(first)
        await answer(asked)
        print(f"kill -9 from outside: next answer after {time.perf_counter() - before:.2f} s")


async def _recovery(folder: Path, drill: str, stall: float = 60.0) -> float:
    folder.mkdir(parents=True)
    values = {"drill": f"{drill},once:{folder / 'mark'}", "token_seconds": 0.01, "tokens": 20}
    async with engine(Plan("scripted", values, folder, stall_seconds=stall)) as asked:
        watching = asyncio.create_task(_seen(folder / "mark"))
        try:
            await answer(asked)
        except EngineUnavailable:
            await answer(asked)
        return time.perf_counter() - await watching


async def _seen(mark: Path) -> float:
    while not mark.exists():
        await asyncio.sleep(0.002)
    return time.perf_counter()


async def _cancels(folder: Path) -> None:
    plan = Plan("scripted", {"parallel": 4, "token_seconds": 0.001, "tokens": 500}, folder / "cancels")
    async with worker(plan) as running, client(running) as http, asking(running, plan) as asked:
        chance, late = random.Random(7), []

        async def leave() -> None:
            task = asyncio.create_task(answer(asked))
            await asyncio.sleep(chance.uniform(0, 0.1))
            before = time.perf_counter()
            task.cancel()
            await asyncio.wait({task})
            late.append((time.perf_counter() - before) * 1000)

        for _ in range(50):
            await asyncio.gather(*(leave() for _ in range(20)))
        before = time.perf_counter()
        while (found := await health(http, 5))["active"] or found["queued"]:
            await asyncio.sleep(0.005)
        idle = time.perf_counter() - before
        _told(late, idle)
        await answer(asked, max_tokens=2)


def _told(late: Sequence[float], idle: float) -> None:
    print(
        f"{len(late)} cancels: gone after p99 {quantile(late, 0.99):.1f} ms, no place taken {idle * 1000:.0f} ms later"
    )


if __name__ == "__main__":
    main()
