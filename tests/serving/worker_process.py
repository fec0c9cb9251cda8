"""Real workers for tests: a process with the scripted driver, and clients of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import httpx2
import pytest

from core.engines.local import LocalEngine
from core.ports import Engine
from core.serving.house import SharedWorker
from core.serving.plan import Plan
from core.serving.workers import worker_of
from core.types import Prompt, Sampling, Turn
from tests.fakes.engine import text_of
from tests.processes import REAL, start

TEXT = "one two three four five six seven"
_WORKER: Final = [sys.executable, "-P", "-m", "core.serving"]
_LATE: Final = (
    *("core.serving.kinds", "core.serving.server", "core.serving.drivers.scripted", "numpy"),
    *("uvicorn.protocols.http.h11_impl", "uvicorn.lifespan.off", "uvicorn.logging", "asyncio.runners"),
)
_FORKED: Final = """\
import os, runpy
os.dup2(2, {socket})
os.dup2(1, 2)
runpy.run_module("core.serving", run_name="__main__", alter_sys=True)
"""
"""A worker whose socket comes in the place of its standard error."""


@pytest.fixture(scope="module")
def forked_workers() -> Iterator[None]:
    """The workers of this process are forked, as `tests/processes.py` does: most of their time goes into imports."""

    def popen(words: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        if list(words) != _WORKER or os.environ.get(REAL):
            return subprocess.Popen(words, **options)
        (socket,) = options["pass_fds"]
        unbuffered = {name: value for name, value in os.environ.items() if name == "PYTHONUNBUFFERED"}
        kept = {name: value for name, value in options["env"].items() if name != "PYTHONUNBUFFERED"}
        return start(
            [sys.executable, "-P", "-c", _FORKED.format(socket=socket)], imports=_LATE, env=kept | unbuffered,
            stdin=options["stdin"], stdout=options["stdout"], stderr=socket, start_new_session=True,
        )  # fmt: skip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asyncio.unix_events.subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": popen}))
        yield


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
