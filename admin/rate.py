"""How often one person may do something: a bucket each that fills again with time."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_PEOPLE = 10_000


class Rate:
    """Allows `per_minute` a minute and person, all at once if they like."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, person: str) -> float:
        """0 when it is allowed now, else the seconds until it is."""
        at = self._clock()
        left, since = self._buckets.pop(person, (float(self.per_minute), at))
        left = min(self.per_minute, left + (at - since) * self.per_minute / 60)
        wait = 0.0 if left >= 1 else (1 - left) * 60 / self.per_minute
        self._buckets[person] = (left if wait else left - 1, at)
        if len(self._buckets) > _MOST_PEOPLE:
            self._buckets.popitem(last=False)
        return wait
