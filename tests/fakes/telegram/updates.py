"""The way of updates to the bot: long polling and webhook."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from tests.fakes.telegram.texts import JSON, Refused, bad

_ONLY_WHEN_ASKED: Final = frozenset({"chat_member", "message_reaction", "message_reaction_count"})
_MOST_AT_ONCE: Final = 100
_LONGEST_POLL: Final = 50
_TERMINATED: Final = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
_PORTS: Final = (443, 80, 88, 8443)


@dataclass
class Webhook:
    url: str
    secret: str
    most_at_once: int
    last_error: str = ""


@dataclass
class Mailbox:
    """Keeps every update until the bot confirms it; knobs make it stutter."""

    allowed: list[str] | None = None
    """What the bot asked for last; None: all but those that must be asked for."""
    pending: list[JSON] = field(default_factory=list)
    """Not confirmed, in order."""
    confirmed: int = 0
    """The highest id that the bot confirmed."""
    given: Counter[int] = field(default_factory=Counter)
    """How often each update went out."""
    dropped: list[JSON] = field(default_factory=list)
    """Never sent, since the bot had not asked for their kind."""
    copies: int = 1
    """How often each update comes."""
    backwards: bool = False
    """The newest comes first."""
    any_port: bool = True
    """False: a webhook must be https on one of Telegram's four ports."""
    retry_wait: float = 0.05
    """Seconds before a webhook that failed is tried again."""
    webhook: Webhook | None = None
    noticed: Callable[[], None] = lambda: None
    """Called when the bot confirmed something."""
    polls: int = 0
    """How often the bot asked for updates."""
    conflicts: int = 0
    """How often two asked at a time."""
    _again: list[JSON] = field(default_factory=list)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(7_000_001))
    _poll: object = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _pushing: asyncio.Task[None] | None = None

    def count_from(self, number: int) -> None:
        """The next update has this id: after a quiet week Telegram begins anywhere."""
        self._ids = itertools.count(number)

    def put(self, kind: str, content: JSON) -> JSON:
        """A new update; it is dropped where the bot does not want its kind."""
        update = {"update_id": next(self._ids), kind: content}
        wanted = kind in self.allowed if self.allowed else kind not in _ONLY_WHEN_ASKED
        (self.pending if wanted else self.dropped).append(update)
        self._wake()
        return update

    def repeat(self, update: JSON) -> None:
        """The same update once more, also when it was confirmed long ago."""
        self._again.append(update)
        self._wake()

    # ------------------------------------------------------------ polling
    async def poll(self, offset: int, limit: int, seconds: float, allowed: list[str] | None) -> list[JSON]:
        if self.webhook is not None:
            raise Refused(409, "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook")
        if allowed is not None:
            self.allowed = allowed
        self.polls += 1
        self._confirm(offset)
        mine = self._poll = object()
        self._wake()
        until = time.monotonic() + min(seconds, _LONGEST_POLL)
        try:
            while not self.pending and not self._again and (left := until - time.monotonic()) > 0:
                await _wait(self._changed, left)
                if self._poll is not mine:
                    self.conflicts += 1
                    raise Refused(409, _TERMINATED)
        finally:
            if self._poll is mine:
                self._poll = None
        return self._batch(max(1, min(limit, _MOST_AT_ONCE)))

    def _batch(self, limit: int) -> list[JSON]:
        again, self._again = self._again, []
        batch = again + [update for update in self.pending[:limit] for _ in range(self.copies)]
        self.given.update(update["update_id"] for update in batch)
        return batch[::-1] if self.backwards else batch

    def _confirm(self, offset: int) -> None:
        if offset < 0:
            self.pending = self.pending[offset:]
        elif offset > 0:
            self.confirmed = max(self.confirmed, offset - 1)
            self.pending = [update for update in self.pending if update["update_id"] >= offset]
            self.noticed()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # ------------------------------------------------------------ webhook
    async def set_webhook(self, url: str, secret: str, most_at_once: int, allowed: list[str] | None) -> None:
        if not self.any_port:
            port = int(url.rsplit(":", 1)[1].split("/")[0]) if url.count(":") > 1 else 443
            if not url.startswith("https://"):
                raise bad("bad webhook: An HTTPS URL must be provided for webhook")
            if port not in _PORTS:
                raise bad("bad webhook: Webhook can be set up only on ports 80, 88, 443 or 8443")
        await self.close()
        if allowed is not None:
            self.allowed = allowed
        self.webhook = Webhook(url, secret, most_at_once or 40) if url else None
        if self.webhook is not None:
            self._pushing = asyncio.create_task(self._push(self.webhook))
        self._poll = None
        self._wake()

    async def close(self) -> None:
        """Deliver no more."""
        if self._pushing is not None:
            self._pushing.cancel()
            await asyncio.wait([self._pushing])
            self._pushing = None

    async def _push(self, webhook: Webhook) -> None:
        """Several at a time, each until it is taken."""
        begun: set[int] = set()
        room = asyncio.Semaphore(webhook.most_at_once)
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as deliveries:
            while True:
                changed = self._changed
                again, self._again = self._again, []
                fresh = [update for update in self.pending if update["update_id"] not in begun]
                for update in (fresh[::-1] if self.backwards else fresh) + again:
                    begun.add(update["update_id"])
                    for _ in range(self.copies):
                        await room.acquire()
                        task = deliveries.create_task(self._deliver(session, webhook, update))
                        task.add_done_callback(lambda _: room.release())
                await _wait(changed, 60)

    async def _deliver(self, session: aiohttp.ClientSession, webhook: Webhook, update: JSON) -> None:
        headers = {"X-Telegram-Bot-Api-Secret-Token": webhook.secret} if webhook.secret else {}
        while True:
            self.given[update["update_id"]] += 1
            try:
                async with session.post(webhook.url, json=update, headers=headers) as response:
                    if response.status // 100 == 2:
                        break
                    webhook.last_error = f"Wrong response from the webhook: {response.status} {response.reason}"
            except (aiohttp.ClientError, TimeoutError) as error:
                webhook.last_error = f"{type(error).__name__}: {error}"
            await asyncio.sleep(self.retry_wait)
        self.confirmed = max(self.confirmed, update["update_id"])
        self.pending = [waiting for waiting in self.pending if waiting is not update]
        self.noticed()

    def webhook_info(self) -> dict[str, Any]:
        hook = self.webhook
        told: JSON = {
            "url": hook.url if hook else "",
            "has_custom_certificate": False,
            "pending_update_count": len(self.pending),
        }
        if hook is not None and hook.last_error:
            told |= {"last_error_date": int(time.time()), "last_error_message": hook.last_error}
        if self.allowed is not None:
            told["allowed_updates"] = self.allowed
        return told


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
