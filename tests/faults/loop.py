"""Watches an event loop for callbacks that keep it from everything else."""

from __future__ import annotations

import asyncio
import asyncio.events
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

BLOCKING = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "sqlite3.connect", "os.system"})
"""Events of the interpreter that a loop's own thread has no business with."""


@dataclass
class Watch:
    slowest: float = 0.0
    """Seconds the longest callback took, without those in which the processor was given to others."""
    slowest_name: str = ""
    calls: list[str] = field(default_factory=list)
    """Blocking calls that the loop's thread made."""
    thread: int = 0


_watches: list[Watch] = []


def _heard(event: str, _: tuple[Any, ...]) -> None:
    if event in BLOCKING:
        for watch in _watches:
            if watch.thread == threading.get_ident():
                watch.calls.append(event)


sys.addaudithook(_heard)


@contextmanager
def watched_loop() -> Iterator[Watch]:
    """Every callback that the loops of this thread run until the block ends is timed."""
    genuine = asyncio.events.Handle._run
    watch = Watch(thread=threading.get_ident())
    scheduled = os.open("/proc/thread-self/schedstat", os.O_RDONLY)

    def waited_for_processor() -> float:
        """Seconds for which this thread was ready to run and another ran instead."""
        return int(os.pread(scheduled, 99, 0).split()[1]) / 1e9

    def timed(handle: asyncio.events.Handle) -> None:
        if threading.get_ident() != watch.thread:
            return genuine(handle)
        before, waited = time.perf_counter(), waited_for_processor()
        genuine(handle)
        if asyncio.events.Handle._run is not timed:
            return None  # the block has ended in it
        took = time.perf_counter() - before - (waited_for_processor() - waited)
        if took > watch.slowest:
            watch.slowest, watch.slowest_name = took, repr(handle)
        return None

    asyncio.events.Handle._run = timed  # type: ignore[method-assign, assignment]  # all callbacks come through it
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.remove(watch)
        os.close(scheduled)
        asyncio.events.Handle._run = genuine  # type: ignore[method-assign]
