"""How often a place may be written to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from core.work.limits import Limits

_LONGEST_INTERVAL: Final = 30.0
_IDLE: Final = 600.0


class Tempo:
    """One budget of edits, shared by all answers that use it. Times are the event loop's, in seconds.

    No library: those on PyPI limit rates, but know neither «the platform says wait» nor «this one must not wait».
    """

    def __init__(
        self,
        interval: float,
        growth: float = 1.0,
        *,
        name: str = "",
        limits: Limits | None = None,
        spread: bool = False,
    ) -> None:
        """`limits` shares it with other processes under `name`; `spread`: they write to the same places."""
        self._name = name
        self._limits = limits
        self._spread = spread
        self._interval = interval
        self._growth = growth
        self._next = 0.0
        self._frozen = 0.0
        self._slots = 0.0
        """When the next of those who wait for the end of a freeze may send."""
        self.used = 0.0

    def wait(self, edits: int) -> float:
        """How long an answer that was edited so many times must wait for its next one; each wait is a bit longer."""
        now = asyncio.get_running_loop().time()
        longer = min(self._interval * (self._growth**edits - 1), _LONGEST_INTERVAL) if edits else 0.0
        return max(self._next + longer, self._frozen, now) - now

    async def turn(self) -> float:
        """How long to wait for those who write there from other processes; the turn is taken with that."""
        if self._limits is None or not self._spread or not self._limits.are_shared(self._name.partition("/")[0]):
            return 0.0
        return await self._limits.turn(self._name, self._interval)

    def frozen(self) -> float:
        """How long nothing at all may be sent."""
        elsewhere = self._limits.frozen(self._name) if self._limits is not None else 0.0
        return max(elsewhere, self._frozen - asyncio.get_running_loop().time())

    def slot(self) -> float:
        """How long to wait with what must be sent, while nothing may be: those who wait come one after the other."""
        left = self.frozen()
        if not left:
            return 0.0
        now = asyncio.get_running_loop().time()
        mine = max(self._slots, now + left)
        self._slots = mine + self._interval
        return mine - now

    def took(self) -> None:
        """Something was sent."""
        self.used = asyncio.get_running_loop().time()
        self._next = max(self.used, self._next) + self._interval

    def freeze(self, seconds: float) -> None:
        self.used = asyncio.get_running_loop().time()
        self._frozen = max(self._frozen, self.used + seconds)
        if self._limits is not None:
            self._limits.freeze(self._name, seconds)


class Tempos:
    """The budgets of one platform by name; those long unused are forgotten."""

    def __init__(self, platform: str = "", limits: Limits | None = None, *, spread: bool = False) -> None:
        self._platform = platform
        self._limits = limits
        self._spread = spread
        self._tempos: dict[str, Tempo] = {}

    def of(self, name: str, interval: float, growth: float = 1.0) -> Tempo:
        tempo = self._tempos.get(name)
        if tempo is None:
            self._forget()
            shared = f"{self._platform}/{name}"
            tempo = Tempo(interval, growth, name=shared, limits=self._limits, spread=self._spread)
            self._tempos[name] = tempo
        return tempo

    def _forget(self) -> None:
        if len(self._tempos) % 1000 == 999:
            since = asyncio.get_running_loop().time() - _IDLE
            self._tempos = {name: tempo for name, tempo in self._tempos.items() if tempo.used > since}
