"""Finds a message of ours whose number we never heard: it was sent just before we were killed, or its receipt was lost.

No bot can read a chat. But a change of a message's buttons is refused where it is not ours, and else gives the message
with what it answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiogram.methods import EditMessageReplyMarkup
from aiogram.types import Message

from bots.errors import Gone
from bots.inbox import Inbox
from bots.telegram.client import Client
from bots.telegram.events import place_of
from bots.telegram.keyboard import marked, solved

_SUPERGROUPS: Final = -1_000_000_000_000
"""Above it, numbers of messages are shared by many chats, so most of them are of another."""
_TRIED: Final = 100
_TRIED_SHARED: Final = 20
_MOST_MISSES: Final = 5
"""So many numbers without a message are the end of a supergroup's chat."""
_KEPT: Final = 20_000


class Lost:
    def __init__(self, client: Client, inbox: Inbox, me: int) -> None:
        self._client = client
        self._inbox = inbox
        self._me = me
        self._others: set[tuple[int, int]] = set()
        """(chat, number) of messages that others wrote."""

    async def find(self, chat: int, question: int, known: Sequence[str]) -> str | None:
        """The number of our message that answers the question and is not known. Raises DeliveryError."""
        begin = max([question, *(int(post) for post in known)]) + 1
        shared, misses = chat > _SUPERGROUPS, 0
        for number in range(begin, begin + (_TRIED_SHARED if shared else _TRIED)):
            if (chat, number) in self._others or await self._inbox.posted(place_of(chat), str(number)):
                misses = 0
                continue
            try:
                message = await self._client.call(
                    EditMessageReplyMarkup(chat_id=chat, message_id=number, reply_markup=marked(question))
                )
            except Gone as error:
                misses = misses + 1 if "not found" in str(error) else 0
                if misses == 0:
                    self._remember(chat, number)
                elif misses >= _MOST_MISSES and not shared:
                    return None
                continue
            misses = 0
            if isinstance(message, Message) and await self._answers(message, question):
                return str(number)
        return None

    async def _answers(self, message: Message, question: int) -> bool:
        """Whether it answers the question; if not, its buttons are as they were."""
        replied = message.reply_to_message
        if replied is not None and replied.message_id == question:
            return True
        is_call = replied is not None and replied.from_user is not None and replied.from_user.id == self._me
        buttons = solved(str(replied.message_id)) if replied is not None and is_call else None
        await self._client.call(
            EditMessageReplyMarkup(chat_id=message.chat.id, message_id=message.message_id, reply_markup=buttons)
        )
        return False

    def _remember(self, chat: int, number: int) -> None:
        if len(self._others) >= _KEPT:
            self._others.clear()
        self._others.add((chat, number))
