"""How many questions a person, and a channel, asked in the last minute."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Final, Literal

from core.errors import KvasirError
from core.types import Mention
from core.work.limits import Limits

logger = logging.getLogger(__name__)

_MINUTE: Final = 60.0
_MANY: Final = 10_000


class Quota:
    """Counts in this process; where others run the platform, too, what is let in here is counted in the database."""

    def __init__(self, limits: Limits, platform: str) -> None:
        self._limits = limits
        self._platform = platform
        self._asked: dict[str, deque[float]] = {}
        self._told: dict[str, float] = {}

    def full(self, mention: Mention, person: int, channel: int) -> Literal["", "person", "channel"]:
        """Whose quota is used up; a quota of 0 never is."""
        if person and len(self._recent(mention.person.key)) >= person:
            return "person"
        if channel and len(self._recent(_channel(mention))) >= channel:
            return "channel"
        return ""

    async def full_in_all(self, mention: Mention, person: int, channel: int) -> Literal["", "person", "channel"]:
        """As `full`, by what all processes let in; it counts where there is room. Without the database there is."""
        if not (person or channel) or not self._limits.are_shared(self._platform):
            return ""
        try:
            if person and not await self._limits.count(mention.person.key, person):
                return "person"
            if channel and not await self._limits.count(_channel(mention), channel):
                return "channel"
        except KvasirError as error:
            logger.info("it is not known how much was asked of other processes: %s", error)
        return ""

    def count(self, mention: Mention) -> None:
        now = time.monotonic()
        self._recent(mention.person.key).append(now)
        self._recent(_channel(mention)).append(now)

    def may_tell(self, mention: Mention) -> bool:
        """Whether the person was not told within the last minute; they are told now."""
        now, key = time.monotonic(), mention.person.key
        if now - self._told.get(key, -_MINUTE) < _MINUTE:
            return False
        self._told[key] = now
        return True

    def _recent(self, key: str) -> deque[float]:
        since = time.monotonic() - _MINUTE
        if len(self._asked) > _MANY:
            self._asked = {name: times for name, times in self._asked.items() if times and times[-1] > since}
            self._told = {name: at for name, at in self._told.items() if at > since}
        times = self._asked.setdefault(key, deque())
        while times and times[0] < since:
            times.popleft()
        return times


def _channel(mention: Mention) -> str:
    place = mention.place
    return f"{place.platform}/{place.workspace}/{place.channel}"
