"""Whose turn it is: one question at a time in a conversation, and no more than so many in all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class _Line:
    """Those who wait in one conversation, in the order they came."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    people: int = 0


class Turns:
    """Lets questions in: first come, first served, in each conversation and overall."""

    def __init__(self, parallel: int) -> None:
        self._free = asyncio.Semaphore(parallel)
        self._parallel = parallel
        self._inside = 0
        """Questions that are being answered, or wait for a free place after their conversation's turn came."""
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def turn(self, conversation: str, queued: Callable[[int], Awaitable[None]]) -> AsyncIterator[None]:
        """Inside, the question may be answered; `queued` hears how many come before, where any do."""
        line = self._lines.setdefault(conversation, _Line())
        line.people += 1
        try:
            if line.people > 1:
                await queued(line.people - 1)
            async with line.lock:
                self._inside += 1
                try:
                    if self._inside > self._parallel:
                        await queued(self._inside - self._parallel)
                    async with self._free:
                        yield
                finally:
                    self._inside -= 1
        finally:
            line.people -= 1
            if line.people == 0:
                del self._lines[conversation]
