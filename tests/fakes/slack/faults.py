"""What goes wrong, on demand: refusals, slowness, lost answers, streams that end by themselves."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import dataclass, field

from tests.fakes.slack.world import JSON


@dataclass(frozen=True)
class Refusal:
    """One answer instead of what was asked for."""

    status: int = 200
    error: str = ""
    retry_after: str | None = None
    """Value of the header; None leaves it out."""
    body: str | None = None
    """Not JSON, e.g. the page of a proxy."""


@dataclass
class Faults:
    """Knobs of the Web API; a method named `*` stands for all."""

    slow: dict[str, float] = field(default_factory=dict)
    """Method -> seconds before it is looked at."""
    off: dict[str, str] = field(default_factory=dict)
    """Method -> the error it always gives, e.g. `feature_not_enabled`."""
    stream_seconds: float = 300
    """A stream is closed by the server after so long."""
    stream_appends: int = 1_000_000
    """… and after so many appends."""
    tempo: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Method -> (calls, seconds); more than that gets a 429."""
    _refusals: dict[str, deque[Refusal]] = field(default_factory=lambda: defaultdict(deque))
    _lost: dict[str, int] = field(default_factory=dict)
    _calls: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))

    def refuse(self, method: str, refusal: Refusal, times: int = 1) -> None:
        self._refusals[method].extend([refusal] * times)

    def rate_limit(self, method: str, retry_after: str | None = "1", times: int = 1) -> None:
        self.refuse(method, Refusal(429, "ratelimited", retry_after), times)

    def lose_answers(self, method: str, times: int = 1) -> None:
        """The next calls take effect, and the connection ends before their answer comes."""
        self._lost[method] = times

    def answer_instead(self, method: str) -> Refusal | None:
        if method in self.off:
            return Refusal(error=self.off[method])
        for name in (method, "*"):
            if self._refusals[name]:
                return self._refusals[name].popleft()
        return self._too_fast(method)

    def is_lost(self, method: str) -> bool:
        left = self._lost.get(method, 0)
        self._lost[method] = max(0, left - 1)
        return left > 0

    def _too_fast(self, method: str) -> Refusal | None:
        if method not in self.tempo:
            return None
        most, seconds = self.tempo[method]
        now, calls = time.monotonic(), self._calls[method]
        while calls and calls[0] < now - seconds:
            calls.popleft()
        if len(calls) >= most:
            return Refusal(429, "ratelimited", "1")
        calls.append(now)
        return None


def refusal_body(refusal: Refusal) -> JSON:
    return {"ok": False, "error": refusal.error}
