"""One life of a worker process: started, listened to, and ended with all that it started."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections import deque
from typing import Final

from core.serving.plan import Plan, Trouble
from core.serving.thread import STATUS
from core.texts import tell

logger = logging.getLogger(__name__)

_LONGEST_LINE: Final = 64 << 10
_LINES: Final = 8
_BURST: Final = 200
"""Lines that are passed on in a second."""
_TERM_SECONDS: Final = 5.0
_NO_HUB: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""Models are read from this machine alone, but where their settings say otherwise (`download`)."""


class CannotStart(Exception):
    """`trouble` says why."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.key)
        self.trouble = trouble


class Process:
    """A running worker; `ended` is done when it is no more."""

    def __init__(self, process: asyncio.subprocess.Process, key: str) -> None:
        self._process = process
        self._key = key
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._reading = asyncio.create_task(self._read(), name=f"worker-{process.pid}-log")
        self.ended = asyncio.create_task(process.wait(), name=f"worker-{process.pid}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def last_lines(self) -> str:
        return " / ".join(self._lines) or "-"

    def trouble(self) -> Trouble:
        """Why it ended, by its exit status."""
        status = self.ended.result()
        if status == STATUS["out_of_memory"]:
            return Trouble("worker_memory")
        if status == STATUS["poisoned"]:
            return Trouble("worker_poisoned")
        if status < 0:
            reason = tell("worker_signal", signal=_signal_name(-status))
        else:
            reason = tell("worker_status", status=status)
        return Trouble("worker_crashed", {"reason": reason})

    async def end(self, seconds: float = _TERM_SECONDS) -> None:
        """End it, kindly for so long, with all processes that it has started."""
        try:
            self._signal(signal.SIGTERM)
            await asyncio.wait({self.ended}, timeout=seconds)
        finally:
            self._signal(signal.SIGKILL)
            await asyncio.wait({self.ended, self._reading}, timeout=_TERM_SECONDS)
            self._reading.cancel()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _read(self) -> None:
        """Pass on what it says, which is untrusted and may be much."""
        clock, since, count = asyncio.get_running_loop(), 0.0, 0
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # longer than the limit; what follows is read as the next one
                continue
            if not line:
                return
            text = "".join(char if char.isprintable() else " " for char in line.decode("utf-8", "replace")).strip()
            text = text.replace(self._key, "…") if self._key else text
            if not text:
                continue
            self._lines.append(text[:200])
            if clock.time() - since > 1:
                since, count = clock.time(), 0
            count += 1
            if count <= _BURST:
                logger.info("%s", text[:500])


async def start(plan: Plan, key: str, fd: int) -> Process:
    """A fresh worker that serves on the socket `fd`, with no model loaded. Raises CannotStart."""
    python = plan.python or sys.executable
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KVASIR_")}
    own = {"PYTHONUNBUFFERED": "1"} | ({} if plan.values.get("download") else _NO_HUB)
    wanted = {
        "kind": plan.kind,
        "values": dict(plan.values),
        "key": key,
        "fd": fd,
        "queue": plan.queue,
        "load_seconds": plan.start_seconds,
        "stall_seconds": plan.stall_seconds,
        "parent": os.getpid(),
    }
    try:
        process = await asyncio.create_subprocess_exec(
            python, "-P", "-m", "core.serving",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=(fd,),
            env=inherited | own,
            start_new_session=True,
            limit=_LONGEST_LINE,
        )  # fmt: skip
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotStart(Trouble("worker_no_start", {"python": python, "reason": reason}, is_final=True)) from error
    started = Process(process, key)
    assert process.stdin is not None  # noqa: S101 - it was asked for
    process.stdin.write(json.dumps(wanted).encode() + b"\n")
    with contextlib.suppress(OSError):  # it is gone already; its status says why
        await process.stdin.drain()
    return started


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
