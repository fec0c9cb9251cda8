"""How long to wait before a server is asked again."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from secrets import SystemRandom


def retry_after(value: str, otherwise: float) -> float:
    """Seconds that a `Retry-After` header asks for, which holds seconds or a date; else `otherwise`."""
    try:
        return max(0.0, float(value.strip()))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value.strip())
    except ValueError:
        return otherwise
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def pause(attempt: int, first: float) -> float:
    """Seconds after the `attempt`-th failure, from 1: twice as long each time, and spread a little."""
    return first * (1 << (attempt - 1)) * SystemRandom().uniform(0.75, 1.25)
