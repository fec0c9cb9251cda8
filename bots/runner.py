"""The service `bots`: runs the chat platforms that have their tokens, and starts one alone again when it fails."""

from __future__ import annotations

import asyncio
import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from bots.digest import schedule
from bots.errors import Refused
from bots.inbox import BEAT_SECONDS, Inbox
from bots.intake import Intake
from bots.platform import Messenger
from core import registry

if TYPE_CHECKING:
    from bots.handler import ChatHandler
    from core.app import Kvasir

logger = logging.getLogger(__name__)

_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
_GRACE: Final = 6.0
"""Seconds for answers to come to their end when we are told to stop; the rest is answered after the next start."""
_OF_PEOPLE: Final = frozenset({"terminal"})
"""Platforms that a person starts, not this service."""
_CLEAN_EVERY: Final = 3600.0


async def serve(kvasir: Kvasir, handler: ChatHandler) -> None:
    """Run every platform whose `open(kvasir)` gives one, until cancelled."""
    names = [name for name in registry.names("kvasir.platforms") if name not in _OF_PEOPLE]
    # In threads: to import a client library takes seconds, in which everything else goes on.
    opened: list[Messenger | None] = [
        await asyncio.to_thread(registry.load("kvasir.platforms", name), kvasir) for name in names
    ]
    messengers = [messenger for messenger in opened if messenger is not None]
    if not messengers:
        logger.debug("no chat platform has its tokens")
        return
    inbox = Inbox(kvasir.db)
    digests = schedule(kvasir, messengers)
    intakes = [Intake(kvasir, handler, messenger, inbox) for messenger in messengers]
    with _lock(kvasir.settings.data_dir / "bots.lock") as lock:
        try:
            async with asyncio.TaskGroup() as group:
                for intake in intakes:  # alone on a file of our own: all leases are those of processes that ended
                    await intake.take_over(everything=lock.alone and kvasir.db.is_sqlite)
                lock.share()
                digests.start()
                for messenger, intake in zip(messengers, intakes, strict=True):
                    group.create_task(_keep_running(messenger, intake), name=f"platform-{messenger.name}")
                group.create_task(_beat(inbox, intakes), name="inbox")
                try:
                    await asyncio.Event().wait()
                finally:  # before the platforms go, so that what is nearly said can be said to its end
                    await asyncio.gather(*(intake.close(_GRACE) for intake in intakes))
        finally:
            if digests.running:
                digests.shutdown(wait=False)


async def _keep_running(messenger: Messenger, intake: Intake) -> None:
    wait = _FIRST_WAIT
    loop = asyncio.get_running_loop()
    while True:
        begun = loop.time()
        try:
            await messenger.run(intake)
            return
        except Refused as error:
            logger.error("%s will not have us, and is not tried again before the next start: %s", messenger.name, error)
            return
        except Exception:
            wait = _FIRST_WAIT if loop.time() - begun > _LONGEST_WAIT else wait
            logger.exception("%s stopped; it is started again in %.0f s", messenger.name, wait)
        await asyncio.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)


async def _beat(inbox: Inbox, intakes: list[Intake]) -> None:
    """Renew leases, and go on with questions that other processes left."""
    cleaned = asyncio.get_running_loop().time()
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        try:
            for intake in intakes:
                await intake.keep_leases()
                await intake.take_over()
            if asyncio.get_running_loop().time() - cleaned > _CLEAN_EVERY:
                await inbox.forget_old()
                cleaned = asyncio.get_running_loop().time()
        except Exception:
            logger.exception("the inbox could not be looked after; it is tried again in %.0f s", BEAT_SECONDS)


class _Lock:
    """Shared by all processes that run bots on one folder; the system takes it from a dead one."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.alone = True
            """No other process runs bots here; until `share`, none begins to."""
        except OSError:
            self.alone = False

    def share(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_SH)


@contextmanager
def _lock(file: Path) -> Iterator[_Lock]:
    with file.open("a") as opened:
        yield _Lock(opened)
