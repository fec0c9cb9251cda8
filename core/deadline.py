"""One time for many waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Deadline:
    """A time by which several waits must be over, with one timer for them all.

    `asyncio.timeout` sets one for each, which costs more than it costs to read and to write a piece of an answer.
    """

    def __init__(self, seconds: float, late: Exception) -> None:
        self._late = late
        self._is_over = False
        self._waiting: asyncio.Task[object] | None = None
        self._cut_short = False
        self._loop = asyncio.get_running_loop()
        self._by = self._loop.time() + seconds
        self._timer = self._loop.call_at(self._by, self._end)

    def move(self, seconds: float) -> None:
        """Let it be over so many seconds from now."""
        self._by = self._loop.time() + seconds
        if self._is_over or self._by < self._timer.when():  # else the timer finds out by itself
            self._is_over = False
            self._timer.cancel()
            self._timer = self._loop.call_at(self._by, self._end)

    async def wait(self, work: Awaitable[T]) -> T:
        """The work's result. Cancels it when the time is over, and raises `late`."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - what awaits is a task
        before = task.cancelling()
        self._waiting, self._cut_short = task, False
        if self._is_over:
            self._loop.call_soon(self._cut)
        try:
            return await work
        except asyncio.CancelledError:
            if self._cut_short and task.cancelling() == before + 1:  # by nobody else
                raise self._late from None
            raise
        finally:
            self._waiting = None
            if self._cut_short:
                task.uncancel()

    @property
    def is_over(self) -> bool:
        return self._is_over

    def close(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        if self._loop.time() < self._by:  # it was moved
            self._timer = self._loop.call_at(self._by, self._end)
            return
        self._is_over = True
        self._cut()

    def _cut(self) -> None:
        if self._waiting is not None and not self._cut_short:
            self._cut_short = True
            self._waiting.cancel()
