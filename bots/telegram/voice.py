"""What we say besides answers: replies to commands, toasts for presses, calls for help, and «what was wrong?»."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from aiogram.methods import AnswerCallbackQuery, DeleteEphemeralMessage, DeleteMessage, SendMessage
from aiogram.types import EphemeralMessageParameters, MessageEntity, ReplyParameters, User

from bots.errors import Gone, Limited, Refused
from bots.rendering import telegram
from bots.rendering.parts import Part, utf16_units
from bots.telegram.client import Client
from bots.telegram.events import GUESTS, NAME
from bots.telegram.keyboard import reasons, solved
from bots.telegram.surface import NO_PREVIEW, entities_of
from core.texts import spoken, tell
from core.types import Place, Thumb

logger = logging.getLogger(__name__)

_LONGEST_TOAST: Final = 200
_ALERT: Final = 60
"""Sentences longer than this are shown until they are read."""
_MOST_WAITS: Final = 3
_LONGEST_WAIT: Final = 120.0

Json = Mapping[str, Any]


class Voice:
    """Each call may raise a DeliveryError; nothing is lost then but the sentence."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def say(self, message: Json, markdown: str) -> None:
        """A text of ours below what somebody wrote."""
        topic = message["message_thread_id"] if message.get("is_topic_message") else None
        reply = ReplyParameters(message_id=message["message_id"], allow_sending_without_reply=True)
        for part in telegram.render(markdown, language=spoken()).parts:
            await self._send(
                SendMessage(
                    chat_id=message["chat"]["id"],
                    text=part.text,
                    entities=entities_of(part),
                    message_thread_id=topic,
                    reply_parameters=reply,
                    link_preview_options=NO_PREVIEW,
                )
            )

    async def post(self, place: Place, markdown: str) -> None:
        """A text of ours that answers nothing."""
        chat: int | str = place.channel
        if not place.channel.startswith("@"):  # else a public name
            try:
                chat = int(place.channel)
            except ValueError as error:
                raise Refused("no such chat") from error
        topic, answered = _thread(place)
        reply = ReplyParameters(message_id=answered, allow_sending_without_reply=True) if answered else None
        for part in telegram.render(markdown, language=spoken()).parts:
            await self._send(
                SendMessage(
                    chat_id=chat,
                    text=part.text,
                    entities=entities_of(part),
                    message_thread_id=topic,
                    reply_parameters=reply,
                    link_preview_options=NO_PREVIEW,
                )
            )

    async def call(self, place: Place, post: str, text: str, people: Sequence[str]) -> None:
        """`text` below one of our answers, which these people are notified of; they can say that it is solved."""
        if place.channel == GUESTS:
            raise Refused("nobody can be called where the bot is a guest")
        words, entities = _naming(people, text)
        await self._send(
            SendMessage(
                chat_id=int(place.channel),
                text=words,
                entities=entities,
                reply_parameters=ReplyParameters(message_id=int(post), allow_sending_without_reply=True),
                reply_markup=solved(post),
                link_preview_options=NO_PREVIEW,
            )
        )

    async def toast(self, query: Json, sentence: str) -> None:
        """What a press brought; without an answer the button would go on spinning."""
        words = " ".join(sentence.split())[:_LONGEST_TOAST]
        answer = AnswerCallbackQuery(callback_query_id=query["id"], text=words or None, show_alert=len(words) > _ALERT)
        try:
            await self._client.call(answer)
        except Gone as error:
            logger.info("a press was answered too late: %s", error)

    async def thank(self, query: Json, thumb: Thumb, sentence: str) -> None:
        """A toast for a thumb; whoever did not find the answer helpful is asked why, and nobody else sees that."""
        await self.toast(query, sentence)
        message = query.get("message")
        if message is None or thumb.value > 0:
            return
        if not thumb.reason:
            await self._ask_why(message["chat"]["id"], query, thumb.post)
        else:
            await self._take_back(message, query["from"]["id"])

    async def _ask_why(self, chat: int, query: Json, post: str) -> None:
        user, buttons = query["from"]["id"], reasons(post)
        if buttons is None:
            return
        alone = EphemeralMessageParameters(receiver_user_id=user, callback_query_id=query["id"])
        await self._send(
            SendMessage(
                chat_id=chat,
                text=tell("ask_reason_title"),
                reply_markup=buttons,
                ephemeral_message_parameters=None if chat == user else alone,
            )
        )

    async def _take_back(self, asked: Json, user: int) -> None:
        """The question «what was wrong?», now that it is answered."""
        chat, whisper = asked["chat"]["id"], asked.get("ephemeral_message_id")
        if whisper:
            await self._client.call(
                DeleteEphemeralMessage(chat_id=chat, receiver_user_id=user, ephemeral_message_id=whisper)
            )
        elif chat == user:
            await self._client.call(DeleteMessage(chat_id=chat, message_id=asked["message_id"]))

    async def _send(self, message: SendMessage) -> None:
        """Once; and again where Telegram only wants us to wait."""
        for _ in range(_MOST_WAITS):
            try:
                await self._client.call(message)
                return
            except Limited as error:
                if error.seconds > _LONGEST_WAIT:
                    raise
                await asyncio.sleep(error.seconds)
        await self._client.call(message)


def _thread(place: Place) -> tuple[int | None, int | None]:
    """The topic and the first message of a conversation (see `events.thread_of`)."""
    if not place.channel.startswith(("-", "@")):  # a private chat, where only topics make conversations
        return (int(place.thread) if place.thread.isdecimal() else None), None
    topic, _, number = place.thread.rpartition("/")
    return (int(topic) if topic.isdecimal() else None), (int(number) if number.isdecimal() else None)


def _naming(people: Sequence[str], text: str) -> tuple[str, list[MessageEntity]]:
    """The text behind the names of people, each of whom is notified: by @name, or by number; nobody in the text is."""
    words, entities = "", []
    for person in people:
        name = person.removeprefix(f"{NAME}:").removeprefix("@")
        if name.isdecimal():
            user = User(id=int(name), is_bot=False, first_name=name)
            entities.append(MessageEntity(type="text_mention", offset=len(words), length=len(name) + 1, user=user))
        words += f"@{name} "
    part = telegram.plain(text)
    begin = utf16_units(words)
    later = [replace(entity, offset=entity.offset + begin) for entity in part.entities]
    return words + part.text, entities + (entities_of(Part(part.text, tuple(later))) or [])
