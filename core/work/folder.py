"""One data directory for all that share a database, as long as the store `local` is a file in it."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Final

from sqlalchemy import select

from core.db.session import Database
from core.db.tables import GenerationRow
from core.errors import ConfigError, Unavailable
from core.settings import Settings
from core.texts import tell
from core.work.leases import LEASE, Leases

logger = logging.getLogger(__name__)

_NAME: Final = "index/local"
_LOCAL: Final = "local"
_BEAT: Final = LEASE.total_seconds() / 6
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class OneFolder:
    """A lease that all processes with the same directory hold together, and nobody else beside them.

    To a process with another directory all documents would be missing from the index; it would read them anew, into a
    file where the others do not look.
    """

    def __init__(self, db: Database, leases: Leases, settings: Settings) -> None:
        self._db = db
        self._leases = leases
        self._settings = settings

    async def check(self) -> None:
        """Raises ConfigError while processes run that have another directory, Unavailable."""
        if not await self._matters():
            return
        held = await self._leases.holder(_NAME)
        if held is not None and held.is_there and held.name != self._holder():
            raise _two()

    async def take(self) -> int:
        """As `check`, and keeps others out for the length of a lease; gives its fence, 0 where there is no need."""
        if not await self._matters():
            return 0
        fence = await self._leases.take(_NAME, self._holder())
        if fence is None:
            raise _two()
        return fence

    async def keep(self, fence: int) -> None:
        """Keep what was taken until cancelled. Raises ConfigError where another directory has it meanwhile."""
        gone = False
        try:
            while True:
                await asyncio.sleep(_BEAT)
                try:
                    fence = await self.take()
                    gone = False
                except Unavailable as error:
                    if not gone:
                        logger.info("it is not known whether others use another data directory: %s", error)
                    gone = True
        finally:
            if fence:
                await asyncio.shield(self._give_back(fence))

    async def _give_back(self, fence: int) -> None:
        """Where another process of this directory has taken it since, it stays taken."""
        try:
            await self._leases.give_back(_NAME, self._holder(), fence)
        except Unavailable as error:
            logger.info("the data directory stays taken for a moment: %s", error)

    async def _matters(self) -> bool:
        if self._db.is_sqlite:
            return False
        if self._settings.store.kind == _LOCAL:
            return True
        async with self._db.read() as session:
            return (
                await session.scalar(select(GenerationRow.id).where(GenerationRow.store == _LOCAL).limit(1)) is not None
            )

    def _holder(self) -> str:
        """The directory as every process of this machine knows it, in containers too."""
        try:
            machine = _BOOT.read_text().strip()
        except OSError:
            machine = socket.gethostname()
        found = self._settings.data_dir.stat()
        return f"{machine} {found.st_dev} {found.st_ino}"[:255]


def _two() -> ConfigError:
    return ConfigError(tell("another_folder", seconds=int(LEASE.total_seconds())))
