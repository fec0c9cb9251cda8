"""Lets only so many in at a time; others wait in a line, and know their place in it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from itertools import zip_longest
from typing import Final

_FAR: Final = 32
"""Whoever is farther from the front hears only of every such place: in a long line each step would wake thousands."""


class _Spot:
    """One that waits."""

    def __init__(self) -> None:
        self.place = -1
        """From 1; 0: it is inside."""
        self.moved = asyncio.Event()

    def move(self, place: int) -> None:
        if place != self.place:
            if place <= _FAR or not place % _FAR or self.place < 0:
                self.moved.set()
            self.place = place


class Gate:
    """Lets so many in at a time, one of each person in turn; 0: everybody."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.inside = 0
        self._waiting: dict[str, deque[_Spot]] = {}
        """By person; whoever was let in goes to the end."""

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def enter(self, person: str = "") -> AsyncGenerator[int, None]:
        """Ends when one is inside, until `leave`; before that, the place in the line, from 1, whenever that changes.

        Closing or cancelling it while one waits gives the place up.
        """
        if not self.limit or (self.inside < self.limit and not self._waiting):
            self.inside += 1
            return
        mine = _Spot()
        self._waiting.setdefault(person, deque()).append(mine)
        self._number()
        try:
            while mine.place:
                mine.moved.clear()
                yield mine.place
                await mine.moved.wait()
        except BaseException:
            if mine.place:
                self._waiting[person].remove(mine)
                self._number()
            else:
                self.leave()  # it was let in just now
            raise

    def leave(self) -> None:
        """The place goes to whoever is first in the line."""
        if not self._waiting:
            self.inside -= 1
            return
        person = next(iter(self._waiting))
        spots = self._waiting[person] = self._waiting.pop(person)
        spots.popleft().move(0)
        self._number()

    def _number(self) -> None:
        self._waiting = {person: spots for person, spots in self._waiting.items() if spots}
        for place, spot in enumerate(self._in_turn(), 1):
            spot.move(place)

    def _in_turn(self) -> Iterator[_Spot]:
        """All that wait, round by round."""
        for round_ in zip_longest(*self._waiting.values()):
            yield from filter(None, round_)
