"""How often one person may do something: a bucket each that fills again with time."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from core.errors import KvasirError
from core.work.limits import Limits

logger = logging.getLogger(__name__)

_MOST_PEOPLE: Final = 10_000


class Rate:
    """Allows `per_minute` a minute and person, all at once if they like.

    Where others serve the web, too, what is let in here is also counted in the database, under `name`.
    """

    def __init__(self, limits: Limits, name: str, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._limits = limits
        self._name = name
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def take(self, person: str) -> float:
        """0 when it is allowed now, else the seconds until it is. Without the database this process counts alone."""
        wait = self._take(person)
        if wait or not self._limits.web_is_shared():
            return wait
        try:
            if await self._limits.count(f"web/{self._name}/{person}", self.per_minute):
                return 0.0
        except KvasirError as error:
            logger.info("it is not known how much other processes let in: %s", error)
            return 0.0
        left, at = self._buckets.get(person, (0.0, self._clock()))
        self._buckets[person] = (left + 1, at)
        return self._limits.room()

    def _take(self, person: str) -> float:
        at = self._clock()
        left, since = self._buckets.pop(person, (float(self.per_minute), at))
        left = min(self.per_minute, left + (at - since) * self.per_minute / 60)
        wait = 0.0 if left >= 1 else (1 - left) * 60 / self.per_minute
        self._buckets[person] = (left if wait else left - 1, at)
        if len(self._buckets) > _MOST_PEOPLE:
            self._buckets.popitem(last=False)
        return wait
