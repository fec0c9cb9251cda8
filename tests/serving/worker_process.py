"""Real workers for tests: a process with the scripted driver, and clients of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from core.engines.local import LocalEngine
from core.ports import Engine
from core.serving.house import SharedWorker
from core.serving.plan import Plan
from core.serving.workers import worker_of
from core.types import Prompt, Sampling, Turn
from tests.fakes.engine import text_of

TEXT = "one two three four five six seven"


def plan(folder: Path, drill: str = "", *, kind: str = "scripted", stall: float = 60.0, **values: Any) -> Plan:
    return Plan(kind, {"drill": drill, **values}, folder, start_seconds=60.0, stall_seconds=stall, pause_seconds=0.05)


@asynccontextmanager
async def engine(wanted: Plan) -> AsyncIterator[LocalEngine]:
    """An engine on a worker of its own, opened."""
    made = LocalEngine(wanted, worker_of(wanted, lambda _stage, _done: None))
    try:
        await made.open()
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def worker(wanted: Plan) -> AsyncIterator[SharedWorker]:
    made = SharedWorker(wanted, lambda _stage, _done: None)
    try:
        trouble = await made.open()
        assert trouble is None, trouble.say("en")
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def asking(shared: SharedWorker, wanted: Plan) -> AsyncIterator[LocalEngine]:
    """An engine on a worker that is there; both are closed."""
    made = LocalEngine(wanted, shared)
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def client(shared: SharedWorker) -> AsyncIterator[httpx2.AsyncClient]:
    async with shared.address.client() as found:
        found.timeout = httpx2.Timeout(30)
        yield found


def prompt(question: str = "hello") -> Prompt:
    return Prompt((Turn("user", question),), question, ())


async def answer(asked: Engine, question: str = "hello", **sampling: Any) -> str:
    return await text_of(asked.stream(prompt(question), Sampling(**sampling)))


async def pid_of(shared: SharedWorker) -> int:
    """The worker's process, where it is our own; else 0."""
    running = shared._own.supervisor._process if shared._own is not None else None
    return running.pid if running is not None else 0


async def is_gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether there is no such process any more; waits for its end."""
    async with asyncio.timeout(seconds):
        while _is_alive(pid):
            await asyncio.sleep(0.02)
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
