"""What one process of several does for all: hold a platform's one connection, or a part of it, by a lease."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from core.errors import KvasirError
from core.work.leases import LEASE, Leases

logger = logging.getLogger(__name__)

RENEW_SECONDS: Final = LEASE.total_seconds() / 4
TRY_SECONDS: Final = LEASE.total_seconds() / 10
"""Between two looks whether a lease can be had."""
_SURE_SECONDS: Final = LEASE.total_seconds() * 5 / 6
"""So long after it was last renewed a lease is surely ours; then nobody else has begun yet."""
_AGAIN_SECONDS: Final = 1.0
_LAST_WORDS: Final = 2.0


class Held:
    """A lease that this process took. It is nobody's business but ours until `is_sure` ends."""

    def __init__(self, leases: Leases, name: str, holder: str, fence: int, since: float) -> None:
        self._leases = leases
        self.name = name
        self._holder = holder
        self.fence = fence
        self._renewed = since

    @property
    def is_sure(self) -> bool:
        return time.monotonic() - self._renewed < _SURE_SECONDS

    async def keep(self) -> None:
        """Renew it as long as it can be; returns when it is lost, or no longer sure to be ours."""
        while self.is_sure:
            gone = time.monotonic() - self._renewed > RENEW_SECONDS
            await asyncio.sleep(_AGAIN_SECONDS if gone else RENEW_SECONDS)
            begun = time.monotonic()
            try:
                async with asyncio.timeout(self._renewed + _SURE_SECONDS - begun):
                    if not await self._leases.renew(self.name, self._holder, self.fence):
                        return
                self._renewed = begun
            except (KvasirError, TimeoutError) as error:
                logger.info("the lease %s could not be renewed: %s", self.name, error)

    async def give_back(self) -> None:
        """Let others have it at once."""
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._leases.give_back(self.name, self._holder, self.fence)
        except (KvasirError, TimeoutError) as error:
            logger.info("the lease %s could not be given back: %s", self.name, error)


async def taken(leases: Leases, name: str, holder: str) -> Held | None:
    """The lease, where it can be had now; None also where the database is away."""
    begun = time.monotonic()
    try:
        fence = await leases.take(name, holder)
    except KvasirError as error:
        logger.info("the lease %s could not be asked for: %s", name, error)
        return None
    return Held(leases, name, holder, fence, begun) if fence is not None else None


async def while_held(
    leases: Leases, name: str, holder: str, work: Callable[[], Awaitable[None]], say: Callable[[bool], None]
) -> None:
    """Do `work` whenever the lease is ours, until cancelled, and `say` whenever that changes.

    What it raises is raised; where the lease is lost it is cancelled, and stands by.
    """
    while True:
        held = await taken(leases, name, holder)
        if held is None:
            say(False)
            await asyncio.sleep(TRY_SECONDS)
            continue
        say(True)
        try:
            if await _work(held, work):
                return
            logger.info("the lease %s went to another process", name)
        finally:
            await asyncio.shield(held.give_back())


async def _work(held: Held, work: Callable[[], Awaitable[None]]) -> bool:
    """Whether the work came to its end; False: the lease did."""
    doing = asyncio.ensure_future(work())
    keeping = asyncio.create_task(held.keep(), name=f"lease-{held.name}")
    try:
        await asyncio.wait({doing, keeping}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
            return True
        return False
    finally:
        for task in (doing, keeping):
            task.cancel()
        await asyncio.gather(doing, keeping, return_exceptions=True)
