"""One chat platform in this process: what it should be by its connection, and the task that makes it so."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

from bots.errors import DeliveryError, Refused
from bots.inbox import Inbox
from bots.intake import Intake
from bots.naming import learn_names
from bots.platform import Messenger
from bots.posting import deliver
from core import registry
from core.chats.reports import Report
from core.db.tables import now
from core.errors import KvasirError, Unavailable

if TYPE_CHECKING:
    from bots.handler import ChatHandler
    from core.app import Kvasir

logger = logging.getLogger(__name__)

_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
_GRACE: Final = 6.0
"""Seconds for answers to come to their end when we are told to stop; the rest is answered after the next start."""


class Running:
    """Owns the platform's messenger, its intake and their tasks, while `follow` runs."""

    def __init__(self, kvasir: Kvasir, handler: ChatHandler, inbox: Inbox, name: str) -> None:
        self.name = name
        self.intake: Intake | None = None
        """None while the platform is off."""
        self.taken_over = asyncio.Event()
        """What an earlier process left is in good hands, or the platform is off."""
        self.mail = asyncio.Event()
        """There may be messages to post."""
        self._kvasir = kvasir
        self._handler = handler
        self._inbox = inbox
        self._messenger: Messenger | None = None
        self._stamp = ""
        self._changed = asyncio.Event()
        self._state: Literal["", "connecting", "refused", "stopped"] = ""
        self._shown = ""
        self._since = now()
        self._heard_at: datetime | None = None
        self._error = ""
        self._error_at: datetime | None = None

    def become(self, stamp: str) -> None:
        """Begin anew where the connection is another than before."""
        if stamp != self._stamp:
            self._stamp = stamp
            self._changed.set()

    def report(self, process: str) -> Report | None:
        """What there is to say; None where the platform never was on here."""
        if not self._state:
            return None
        shown: Literal["connecting", "connected", "standby", "refused", "stopped"] = self._state
        if self._state == "connecting" and self._messenger is not None:
            if self._messenger.connected:
                shown = "connected"
            elif self._messenger.standing_by:
                shown = "standby"
        if shown != self._shown:
            self._shown, self._since = shown, now()
        return Report(process, shown, self._since, now(), self._last_heard(), self._error, self._error_at)

    def _last_heard(self) -> datetime | None:
        """When something came from the platform, also before it was begun anew."""
        if self.intake is not None and self.intake.heard_at is not None:
            self._heard_at = self.intake.heard_at
        return self._heard_at

    # ------------------------------------------------------------ life
    async def follow(self, *, everything: bool) -> None:
        """Run the platform as its connection says, and again whenever that changes, until cancelled.

        `everything`: whatever is leased was so to processes that have ended.
        """
        wait = _FIRST_WAIT
        while True:
            self._changed.clear()
            try:
                begun = await self._begun(everything=everything)
            except Unavailable as error:
                self._wrong(str(error))
                logger.warning("%s waits: %s", self.name, error)
                await self._until_changed(wait)
                wait = min(wait * 2, _LONGEST_WAIT)
                continue
            wait, everything = _FIRST_WAIT, False
            self.taken_over.set()
            if begun is None:
                await self._changed.wait()
            else:
                await self._live(*begun)

    async def _begun(self, *, everything: bool) -> tuple[Messenger, Intake] | None:
        """The platform, ready to listen; None where it is off or cannot be. Raises Unavailable."""
        try:
            self._stamp, settings_now = await self._kvasir.connections.stamped(self.name)
            settings = settings_now()
            kvasir = self._kvasir.with_settings(settings) if settings is not None else None
            # In a thread: to import a client library takes seconds, in which everything else goes on.
            messenger: Messenger | None = None
            if kvasir is not None:
                open_platform = registry.load("kvasir.platforms", self.name)
                messenger = await asyncio.to_thread(open_platform, kvasir)
        except Unavailable:
            raise
        except (KvasirError, ImportError) as error:
            self._state = "refused"
            self._wrong(str(error))
            logger.error("%s cannot be used as it is set up: %s", self.name, error)
            return None
        except Exception as error:  # the others go on
            self._state = "refused"
            self._wrong(type(error).__name__)
            logger.exception("%s could not be opened", self.name)
            return None
        if messenger is None or kvasir is None:
            self._state = "stopped" if self._state else ""
            return None
        intake = Intake(kvasir, self._handler, messenger, self._inbox)
        intake.heard_at = self._heard_at  # there may be channels whose names were not learned yet
        await intake.take_over(everything=everything)
        return messenger, intake

    async def _live(self, messenger: Messenger, intake: Intake) -> None:
        """Until the connection changes, or this is cancelled."""
        self._messenger, self.intake = messenger, intake
        tasks = [
            asyncio.create_task(self._keep_running(messenger, intake), name=f"platform-{self.name}"),
            asyncio.create_task(deliver(self._kvasir.outbox, messenger, self.mail), name=f"outbox-{self.name}"),
            asyncio.create_task(learn_names(self._kvasir.places, messenger, intake), name=f"names-{self.name}"),
        ]
        try:
            await self._changed.wait()
            logger.info("the connection to %s was changed", self.name)
        finally:
            self._last_heard()
            self.intake = None
            await intake.close(_GRACE)  # before the platform goes, so that what is nearly said can be said to its end
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._messenger = None
            self._state = "stopped"

    async def _keep_running(self, messenger: Messenger, intake: Intake) -> None:
        """Start it again when it fails; not when it is refused, which only another connection can change."""
        wait = _FIRST_WAIT
        loop = asyncio.get_running_loop()
        self._state, self._shown = "connecting", ""  # it is told anew, also where nobody saw that it was away
        self._error, self._error_at = "", None
        while True:
            begun = loop.time()
            try:
                await messenger.run(intake)
                return
            except Refused as error:
                self._state = "refused"
                self._wrong(str(error))
                logger.error("%s will not have us, and is left until its connection changes: %s", self.name, error)
                return
            except Exception as error:
                wait = _FIRST_WAIT if loop.time() - begun > _LONGEST_WAIT else wait
                # What we did not foresee may have anything in its text, such as an address with a token.
                self._wrong(str(error) if isinstance(error, DeliveryError | KvasirError) else type(error).__name__)
                logger.exception("%s stopped; it is started again in %.0f s", self.name, wait)
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    def _wrong(self, reason: str) -> None:
        self._error, self._error_at = reason, now()

    async def _until_changed(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
