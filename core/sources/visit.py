"""Going to other people's servers as a guest: one request at a time to a host, with pauses, and within a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from core import egress
from core.errors import BadStatus, TooLarge
from core.settings import SourcesSettings
from core.sources.robots import Robots, allow_all
from core.texts import tell

_TIMEOUT: Final = 60.0
_ROBOTS_BYTES: Final = 512 << 10
_LONGEST_DELAY: Final = 10.0
_KNOWN_HOSTS: Final = 1000
_TOO_MUCH: Final = (429, 503)
_BREATH: Final = 20.0
"""Seconds that a host is left alone which says that it has too much to do."""


@dataclass(slots=True)
class _Host:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    free_at: float = 0.0


class Manners:
    """Shared by all visits of this process, so that two of them never hurry one host."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}

    def host(self, name: str) -> _Host:
        if len(self._hosts) > _KNOWN_HOSTS:
            idle = [key for key, host in self._hosts.items() if not host.lock.locked()]
            for key in idle:
                del self._hosts[key]
        return self._hosts.setdefault(name, _Host())


class Visit:
    """The requests of one synchronisation."""

    def __init__(self, manners: Manners, settings: SourcesSettings) -> None:
        self._manners = manners
        self._settings = settings
        self._left = settings.max_mb << 20
        self._robots: dict[str, Robots] = {}
        self.private_hosts: frozenset[str] = frozenset(host.lower() for host in settings.private_hosts)

    async def fetch(self, url: str, max_bytes: int, known: Mapping[str, str] | None = None) -> egress.Fetched:
        """As `egress.fetch`, in its turn. Raises TooLarge also where this visit has had its fill."""
        if self._left <= 0:
            raise TooLarge(tell("sync_had_its_fill", most=self._settings.max_mb))
        origin = _origin(url)
        host = self._manners.host(egress.parse(url).host)
        async with host.lock:
            await asyncio.sleep(host.free_at - time.monotonic())
            try:
                found = await egress.fetch(
                    url,
                    max_bytes=max_bytes,
                    timeout=_TIMEOUT,
                    private_hosts=self.private_hosts,
                    if_changed=((known or {}).get("etag", ""), (known or {}).get("modified", "")),
                )
            except BadStatus as error:
                if error.status in _TOO_MUCH:
                    host.free_at = time.monotonic() + _BREATH
                raise
            finally:
                host.free_at = max(host.free_at, time.monotonic() + self._delay(origin))
        self._left -= len(found.data)
        return found

    @property
    def left(self) -> int:
        """Bytes that this visit may still fetch."""
        return max(self._left, 0)

    async def robots(self, url: str) -> Robots:
        """What the host asks of programs, read once. Raises Unavailable where it cannot be known: then keep out."""
        origin = _origin(url)
        if origin not in self._robots:
            try:
                found = await self.fetch(f"{origin}/robots.txt", _ROBOTS_BYTES)
            except BadStatus as error:
                if not 400 <= error.status < 500 or error.status in _TOO_MUCH:
                    raise
                self._robots[origin] = allow_all()
            else:
                self._robots[origin] = Robots.parse(found.data.decode("utf-8", "replace"))
        return self._robots[origin]

    def _delay(self, origin: str) -> float:
        asked = self._robots[origin].delay if origin in self._robots else 0.0
        return max(self._settings.delay_seconds, min(asked, _LONGEST_DELAY))


def _origin(url: str) -> str:
    parsed = egress.parse(url)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"
