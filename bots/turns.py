"""Whose turn it is: one question at a time in a conversation, so many in all, and nobody crowds others out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TypeAlias

from core.gate import Gate

Hear: TypeAlias = Callable[[int], Awaitable[None]]
"""Hears the place in the line, from 1, whenever it changes."""


class Turns:
    """Lets questions in: in order in each conversation, and overall one of each person in turn."""

    def __init__(self, parallel: int) -> None:
        self._all = Gate(parallel)
        self._lines: dict[str, Gate] = {}
        """Those who wait in one conversation, in the order they came."""

    @asynccontextmanager
    async def turn(self, conversation: str, person: str, queued: Hear) -> AsyncIterator[None]:
        """Inside, the question may be answered; `queued` hears of it while it must wait."""
        line = self._lines.setdefault(conversation, Gate(1))
        try:
            async with _inside(line, "", queued), _inside(self._all, person, queued):
                yield
        finally:
            if not line.inside:
                del self._lines[conversation]


@asynccontextmanager
async def _inside(gate: Gate, person: str, queued: Hear) -> AsyncIterator[None]:
    async with aclosing(gate.enter(person)) as places:
        async for place in places:
            await queued(place)
    try:
        yield
    finally:
        gate.leave()
