"""Whose turn it is: one question at a time in a conversation, so many in all, and nobody crowds others out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class _Line:
    """Those who wait in one conversation, in the order they came."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    people: int = 0


class Turns:
    """Lets questions in: in order in each conversation, and overall one of each person in turn."""

    def __init__(self, parallel: int) -> None:
        self._free = parallel
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By person; whoever got a place goes to the end."""
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def turn(
        self, conversation: str, person: str, queued: Callable[[int], Awaitable[None]]
    ) -> AsyncIterator[None]:
        """Inside, the question may be answered; `queued` hears how many come before, where any do."""
        line = self._lines.setdefault(conversation, _Line())
        line.people += 1
        try:
            if line.people == 1:
                await line.lock.acquire()
            else:
                await _after_others(line, queued)
            try:
                await self._place(person, queued)
                try:
                    yield
                finally:
                    self._leave()
            finally:
                line.lock.release()
        finally:
            line.people -= 1
            if line.people == 0:
                del self._lines[conversation]

    async def _place(self, person: str, queued: Callable[[int], Awaitable[None]]) -> None:
        if self._free > 0:
            self._free -= 1
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before = sum(len(line) for line in self._waiting.values()) + 1
        self._waiting.setdefault(person, deque()).append(mine)
        try:
            await queued(before)
            await mine
        except BaseException:
            if mine.done() and not mine.cancelled():
                self._leave()
            else:
                mine.cancel()
            raise

    def _leave(self) -> None:
        """Give the place to the next person's oldest question."""
        while self._waiting:
            person, line = next(iter(self._waiting.items()))
            del self._waiting[person]
            while line:
                turn = line.popleft()
                if not turn.done():
                    turn.set_result(None)
                    if line:
                        self._waiting[person] = line
                    return
        self._free += 1


async def _after_others(line: _Line, queued: Callable[[int], Awaitable[None]]) -> None:
    waits = asyncio.create_task(line.lock.acquire())  # the place is taken before anybody is told
    try:
        await queued(line.people - 1)
        await waits
    except BaseException:
        _let_go(waits, line.lock)
        raise


def _let_go(waits: asyncio.Task[Literal[True]], lock: asyncio.Lock) -> None:
    if waits.done() and not waits.cancelled() and waits.exception() is None:
        lock.release()
    else:
        waits.cancel()
