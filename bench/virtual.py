"""A loop whose time is not the world's: nobody sleeps in it, and only real work of other threads is waited for."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, TypeVar
from unittest.mock import patch

from core.db.direct import Result, Step
from core.db.session import Database

T = TypeVar("T")

_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_GLANCE: Final = 0.02
"""Real seconds between two looks whether another thread is done."""


class Clock(selectors.DefaultSelector):
    """Waits by setting its time on, unless real work is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.under_way = 0
        """Calls of the database that other threads are at."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if found or timeout == 0:
            return found
        if self.under_way or timeout is None:
            return list(super().select(_GLANCE))
        self.now += max(timeout, 0.0)
        return []


class Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._clock_of_ours = clock

    def time(self) -> float:
        return self._clock_of_ours.now


class CountedDatabase(Database):
    """Says when it works, so that no time passes meanwhile; inside a session nothing else may be waited for."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(url)
        self._clock = clock

    async def run(self, *steps: Step) -> Sequence[Result]:
        return await self._counted(super().run(*steps))

    async def fetch(self, *steps: Step) -> Sequence[Result]:
        return await self._counted(super().fetch(*steps))

    def session(self) -> Any:
        return _Counted(super().session(), self._clock)

    def read(self) -> Any:
        return _Counted(super().read(), self._clock)

    async def _counted(self, call: Awaitable[T]) -> T:
        self._clock.under_way += 1
        try:
            return await call
        finally:
            self._clock.under_way -= 1


class _Counted:
    def __init__(self, inner: Any, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    async def __aenter__(self) -> Any:
        self._clock.under_way += 1
        return await self._inner.__aenter__()

    async def __aexit__(self, *error: Any) -> Any:
        try:
            return await self._inner.__aexit__(*error)
        finally:
            self._clock.under_way -= 1


@contextmanager
def clocks(clock: Clock) -> Iterator[None]:
    """Inside, every clock that Kvasir looks at is this one."""

    class Moment(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain one
            return (_BEGIN + timedelta(seconds=clock.now)).astimezone(tz)

    with (
        patch.object(time, "monotonic", lambda: clock.now),
        patch.object(time, "time", lambda: _BEGIN.timestamp() + clock.now),
        patch("core.db.tables.datetime", Moment),
    ):
        yield


def run(work: Callable[[Clock], Awaitable[T]]) -> T:
    """What the work gives, in a loop of its own time."""
    clock = Clock()
    loop = Loop(clock)

    async def whole() -> T:
        return await work(clock)

    try:
        with clocks(clock):
            return loop.run_until_complete(whole())
    finally:
        loop.close()
