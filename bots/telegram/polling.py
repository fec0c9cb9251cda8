"""Updates by long polling. An update is confirmed only after it was dealt with: what is not stored comes again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from aiogram.methods import TelegramMethod

from bots.errors import DeliveryError, Limited, Refused, Unreachable
from bots.telegram.client import Client, Crowded, RawUpdates
from core.errors import Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

POLL_SECONDS: Final = 30
_ANSWER_SECONDS: Final = 10
"""What a poll may take longer than it was to wait; then the connection is dead."""
_TURN_SECONDS: Final = 5.0
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0

Take = Callable[[dict[str, Any]], Awaitable[None]]
"""Deals with an update; when it returns, nothing is lost any more. Raises Unavailable where that was not possible."""


class Waits:
    """Ever longer waits, with some chance in them, until something works again."""

    def __init__(self) -> None:
        self._next = _FIRST_WAIT

    @property
    def troubled(self) -> bool:
        """Whether it had to be waited for since it last worked."""
        return self._next > _FIRST_WAIT

    async def wait(self, least: float = 0.0) -> None:
        pause = max(least, self._next * random.uniform(0.5, 1.0))  # noqa: S311  spreads retries, guards nothing
        self._next = min(self._next * 2, _LONGEST_WAIT)
        await asyncio.sleep(pause)

    def over(self) -> None:
        """It works again."""
        self._next = _FIRST_WAIT


async def persistently(client: Client, method: TelegramMethod[T]) -> T:
    """What the Bot API gives for it, however long that takes. Raises Gone or Refused."""
    waits = Waits()
    while True:
        try:
            return await client.call(method)
        except Limited as error:
            await waits.wait(error.seconds)
        except Unreachable as error:
            if not waits.troubled:
                logger.warning("Telegram cannot be reached (%s); trying on", error)
            await waits.wait()


async def poll(client: Client, allowed: Sequence[str], take: Take) -> None:
    """Hand every update to `take` until cancelled. Raises Refused when the token is not valid any more."""
    waits, crowded = Waits(), False
    offset = 0
    while True:
        asked = RawUpdates(offset=offset or None, timeout=POLL_SECONDS, allowed_updates=list(allowed))
        try:
            updates: Any = await client.call(asked, seconds=POLL_SECONDS + _ANSWER_SECONDS)
        except Refused:
            raise
        except Crowded:  # another process with our token: it takes turns with us, and no question is lost
            if not crowded:
                logger.warning("another program asks Telegram for this bot's updates, too")
            crowded = True
            await waits.wait(_TURN_SECONDS)
            waits.over()
            continue
        except DeliveryError as error:
            if not waits.troubled:
                logger.warning("Telegram gives no updates (%s); trying on", error)
            await waits.wait(error.seconds if isinstance(error, Limited) else 0.0)
            continue
        if waits.troubled:
            logger.info("Telegram gives updates again")
            waits.over()
        await _take_all(updates, take)
        # Nothing is asked to be behind what was confirmed long ago: after a quiet week Telegram counts from anywhere.
        offset = 1 + max((update["update_id"] for update in updates), default=-1)


async def _take_all(updates: Sequence[dict[str, Any]], take: Take) -> None:
    """In the order of their ids within a chat; chats do not wait for each other."""
    by_chat: dict[int, list[dict[str, Any]]] = {}
    for update in sorted(updates, key=lambda update: update["update_id"]):
        by_chat.setdefault(chat_of(update), []).append(update)
    async with asyncio.TaskGroup() as chats:
        for of_chat in by_chat.values():
            chats.create_task(_take_in_order(of_chat, take))


async def _take_in_order(updates: Sequence[dict[str, Any]], take: Take) -> None:
    for update in updates:
        waits = Waits()
        while True:
            try:
                await take(update)
                break
            except Unavailable as error:
                if not waits.troubled:
                    logger.warning("an update of Telegram cannot be kept (%s); trying on", error)
                await waits.wait()


def chat_of(update: dict[str, Any]) -> int:
    """The chat that an update is about; 0 where it is about none."""
    for content in update.values():
        if isinstance(content, dict):
            chat = content.get("chat") or (content.get("message") or {}).get("chat")
            if isinstance(chat, dict):
                return int(chat.get("id", 0))
    return 0
