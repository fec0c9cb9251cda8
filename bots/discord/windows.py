"""The library's windows of calls, made to refuse a long wait only where somebody would have to wait.

Told not to wait long, the library's own refuse every call while a window longer than that is open, also the second of
fifty that are allowed in it.
"""

from __future__ import annotations

from functools import partial
from types import TracebackType

from discord.http import HTTPClient, Ratelimit


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
        room = self.remaining - self.outgoing + 1
        if self._pending_requests and room > 0 and not self._sleeping.locked():
            self.outgoing -= 1
            self._wake(room)
        else:
            await super().__aexit__(kind, error, trace)  # type: ignore[type-var, arg-type]  # no None in its types


def open_windows(http: HTTPClient, longest: float) -> None:
    """Let the library wait `longest` seconds at most for any call from now on; its constructor takes 30 at least."""
    http.max_ratelimit_timeout = longest
    http.get_ratelimit = partial(_window, http, longest)  # type: ignore[method-assign]


def _window(http: HTTPClient, longest: float, key: str) -> Ratelimit:
    window = http._buckets.get(key)
    if window is None:
        window = http._buckets[key] = Window(longest)
        http._try_clear_expired_ratelimits()
    return window
