"""A worker: `python -P -m core.serving`, with what it is to do as a line of JSON on its standard input.

It ends with whoever started it: when its input is closed, and on Linux also by the kernel's hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import resource
import signal
import socket
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any, Final

from core.serving.kinds import make_driver
from core.serving.loop import ModelLoop
from core.serving.server import Worker, serve
from core.serving.thread import STATUS, Fatal

_PR_SET_PDEATHSIG: Final = 1
_LAST_WORDS: Final = 0.3
"""Seconds for those who listen to hear why it ends."""
_FIRST_TO_GO: Final = "500"
"""Where the machine runs out of memory, the model goes before whoever uses it."""


def main() -> None:
    wanted = json.loads(sys.stdin.buffer.readline())
    _bind_to(int(wanted["parent"]))
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("uvicorn", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    asyncio.run(_run(wanted))


async def _run(wanted: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()

    def ended(fatal: Fatal) -> None:
        loop.call_later(_LAST_WORDS, os._exit, STATUS[fatal.cause])

    def unloaded() -> None:
        loop.call_later(_LAST_WORDS / 6, os._exit, 0)

    model = ModelLoop(
        partial(make_driver, wanted["kind"], wanted["values"]), queue_size=int(wanted["queue"]), ended=ended
    )
    worker = Worker(
        model,
        key=wanted["key"],
        load_seconds=float(wanted["load_seconds"]),
        stall_seconds=float(wanted["stall_seconds"]),
        unloaded=unloaded,
    )
    await serve(worker, socket.socket(fileno=int(wanted["fd"])))


def _bind_to(parent: int) -> None:
    """End with the parent, leave no cores, which would hold all of a model, and take no keys of its terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
    if os.getppid() != parent:
        os._exit(0)
    threading.Thread(target=_watch, name="parent", daemon=True).start()


def _watch() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
