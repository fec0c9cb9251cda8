"""The library's windows of calls, made to refuse a long wait only where somebody would have to wait.

Told not to wait long, the library's own refuse every call while a window longer than that is open, also the second of
fifty that are allowed in it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from types import TracebackType
from typing import Final

from discord import RateLimited
from discord.http import HTTPClient, Ratelimit

_IDLE_SECONDS: Final = 10.0
_TIDIED_EVERY: Final = 256


class Window(Ratelimit):
    """Calls that share one budget; raises RateLimited where it is spent, and longer than the library may wait."""

    async def acquire(self) -> None:
        if self.is_expired():
            self.reset()  # type: ignore[no-untyped-call]  # it has no types
        if self.remaining <= 0:
            await super().acquire()
            return
        self._last_request = self._loop.time()
        self.remaining -= 1
        self.outgoing += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.outgoing -= 1
        room = self.remaining - self.outgoing
        if self.expires is None:  # Discord did not say how many there may be: one at a time
            self.reset()  # type: ignore[no-untyped-call]  # it has no types
            room = self.remaining
        if room > 0:
            self._wake(room)
        elif self._is_long:
            self._wake(len(self._pending_requests), exception=RateLimited(self._left))

    async def _refresh(self) -> None:
        """Begin anew when the window is over; the library's own does so at once where that is far away."""
        if self._is_long:
            self._wake(len(self._pending_requests), exception=RateLimited(self._left))
            return
        await asyncio.sleep(self._left)
        if self.remaining <= 0:
            self.reset()  # type: ignore[no-untyped-call]  # it has no types
        self._wake(self.remaining)

    @property
    def _left(self) -> float:
        return max(0.0, self.expires - self._loop.time()) if self.expires is not None else 0.0

    @property
    def _is_long(self) -> bool:
        return self._max_ratelimit_timeout is not None and self._left > self._max_ratelimit_timeout

    def is_over(self) -> bool:
        """Nobody uses it and its time has passed: to forget it changes nothing."""
        if self.outgoing or self._pending_requests or self._loop.time() - self._last_request < _IDLE_SECONDS:
            return False
        return self.expires is None or self.is_expired()


def open_windows(http: HTTPClient, longest: float) -> None:
    """Let the library wait `longest` seconds at most for any call from now on; its constructor takes 30 at least."""
    http.max_ratelimit_timeout = longest
    http.get_ratelimit = partial(_window, http, longest)  # type: ignore[method-assign]


def _window(http: HTTPClient, longest: float, key: str) -> Ratelimit:
    window = http._buckets.get(key)
    if window is None:
        if len(http._buckets) % _TIDIED_EVERY == _TIDIED_EVERY - 1:
            _tidy(http)
        window = http._buckets[key] = Window(longest)
    return window


def _tidy(http: HTTPClient) -> None:
    """Forget what is over; the library would look through all of them for each new one, and each thread is one."""
    for key, window in list(http._buckets.items()):
        if isinstance(window, Window) and window.is_over():
            del http._buckets[key]
