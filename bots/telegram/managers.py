"""Who looks after a group, by Telegram's own word."""

from __future__ import annotations

import time
from typing import Final

from aiogram.methods import GetChatMember

from bots.errors import DeliveryError
from bots.telegram.client import Client

_KNOWN_SECONDS: Final = 60.0
_MOST: Final = 10_000
_MANAGING: Final = frozenset({"creator", "administrator"})


class Managers:
    """Asks Telegram once a minute for each person and group."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[tuple[int, int], tuple[float, bool]] = {}

    async def is_manager(self, chat: int, user: int) -> bool:
        """Whether the person is an administrator there; False where Telegram does not say."""
        if user == chat:
            return True  # a private chat, or an administrator who writes in the group's name
        at, manages = self._known.get((chat, user), (0.0, False))
        if at and at > time.monotonic() - _KNOWN_SECONDS:
            return manages
        try:
            member = await self._client.call(GetChatMember(chat_id=chat, user_id=user))
        except DeliveryError:
            return False
        if len(self._known) >= _MOST:
            self._known.clear()
        manages = member.status in _MANAGING
        self._known[chat, user] = (time.monotonic(), manages)
        return manages
