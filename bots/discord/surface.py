"""The messages of one answer: where it is asked in public or in a direct message, Discord's ordinary messages."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from bots.discord import controls as shown
from bots.discord.calls import NO_REPLIES, THREAD_EXISTS, Calls, Refusal
from bots.discord.events import post_of, split_post
from bots.errors import DeliveryError, Gone, Limited, Unreachable
from bots.platform import Controls, Stream
from bots.rendering import discord as dialect
from bots.rendering.parts import Part
from core.outbound import visible
from core.texts import text_language
from core.types import JSON, Capabilities, Finished, Mention

logger = logging.getLogger(__name__)

MESSAGES: Final = "/channels/{channel_id}/messages"
MESSAGE: Final = "/channels/{channel_id}/messages/{message_id}"
CAPABILITIES: Final = Capabilities(max_length=2000, streaming="edit", edit_interval=1.2, edit_growth=1.1)
SUPPRESS_EMBEDS: Final = 1 << 2
NOBODY: Final[JSON] = {"parse": []}
"""Whom a message of ours may notify."""
_LONGEST_NONCE: Final = 25
_LONGEST_NAME: Final = 90
_TRIED_AGAIN: Final = 300.0
"""Seconds after which a channel may have threads again."""
_ARCHIVED: Final = 50083
_KEPT_OPEN: Final = 60
"""Minutes without a message after which Discord tidies a thread away; a server has a thousand open ones at most."""


class Rendering:
    """What all surfaces of Discord render alike."""

    capabilities = CAPABILITIES

    def preview(self, text: str, status: str) -> Part:
        return dialect.preview(text, status)

    def whole(self, finished: Finished) -> Sequence[Part]:
        return rendered(finished)

    def plain(self, text: str) -> Part:
        return dialect.plain(text)

    async def stream(self, status: str) -> Stream | None:  # noqa: ARG002 - Discord has none
        return None


class Threadless:
    """Channels where no thread could be opened a while ago: the right is missing, or a server has too many."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def add(self, channel: str) -> None:
        now = time.monotonic()
        self._until = {known: until for known, until in self._until.items() if until > now}
        self._until[channel] = now + _TRIED_AGAIN

    def __contains__(self, channel: str) -> bool:
        return self._until.get(channel, 0.0) > time.monotonic()


class ChannelSurface(Rendering):
    """An answer in a channel, in a thread of its own where that is wanted and allowed, or in a private chat."""

    repeatable = True

    def __init__(self, mention: Mention, calls: Calls, *, threads: bool, threadless: Threadless) -> None:
        self._mention = mention
        self._calls = calls
        self._threadless = threadless
        self._channel = mention.extra.get("channel") or mention.place.thread or mention.place.channel
        """Where the question is."""
        own = threads and bool(mention.place.workspace) and self._channel == mention.place.channel
        self._opens = own and mention.place.thread == mention.message_id
        """It opens a thread, whose id is the question's."""
        self._target = "" if self._opens and self._channel not in threadless else self._channel
        self.tempo = self._target or mention.message_id

    async def working(self, part: Part) -> None:  # noqa: ARG002 - Discord shows no words while we type
        await self._calls.do("POST", "/channels/{channel_id}/typing", channel_id=self._target or self._channel)

    async def send(self, part: Part, controls: Controls, key: str) -> str:
        target = await self._where()
        body = _public(part, controls) | {"nonce": _nonce(key), "enforce_nonce": True}
        reply: JSON = {"message_reference": {"message_id": self._mention.message_id, "fail_if_not_exists": False}}
        try:
            whole = body | reply if target == self._channel else body
            message = await self._calls.do("POST", MESSAGES, whole, channel_id=target)
        except Refusal as error:
            if error.code != NO_REPLIES:
                raise
            message = await self._calls.do("POST", MESSAGES, body, channel_id=target)
        post = post_of(int(target), int(message["id"]))
        if message["content"] != part.text.strip():  # sent before under this key, with other words
            await self.edit(post, part, controls)
        return post

    async def edit(self, post: str, part: Part, controls: Controls) -> None:
        channel, message = split_post(post)
        self._target = channel
        try:
            await self._calls.do("PATCH", MESSAGE, _public(part, controls), channel_id=channel, message_id=message)
        except Refusal as error:
            if error.code != _ARCHIVED:
                raise
            await self._calls.do("PATCH", "/channels/{channel_id}", {"archived": False}, channel_id=channel)
            await self._calls.do("PATCH", MESSAGE, _public(part, controls), channel_id=channel, message_id=message)

    async def delete(self, post: str) -> None:
        channel, message = split_post(post)
        with suppress(Gone):
            await self._calls.do("DELETE", MESSAGE, channel_id=channel, message_id=message)

    async def find(self, known: Sequence[str]) -> str | None:
        if known:
            self._target = split_post(known[-1])[0]
        me = str(await self._calls.own_id())
        for channel in dict.fromkeys([self._mention.message_id if self._opens else self._channel, self._channel]):
            for message in reversed(await self._after(channel)):
                post = post_of(int(channel), int(message["id"]))
                if message["author"]["id"] == me and post not in known and self._answers(channel, message):
                    self._target = channel
                    return post
        return None

    async def _after(self, channel: str) -> Sequence[JSON]:
        """Messages of a channel since the question, newest first."""
        try:
            found: Sequence[JSON] = await self._calls.do(
                "GET", MESSAGES, channel_id=channel, after=self._mention.message_id, limit=100
            )
        except (Limited, Unreachable):
            raise
        except DeliveryError:
            return ()  # there is no thread yet
        return found

    def _answers(self, channel: str, message: JSON) -> bool:
        """Whether a message of ours answers this question: as a reply, or in the question's own thread as none."""
        reference = (message.get("message_reference") or {}).get("message_id")
        return reference == (None if channel != self._channel else self._mention.message_id)

    async def _where(self) -> str:
        """The channel or thread the answer goes to."""
        if not self._target:
            self._target = await self._thread()
        return self._target

    async def _thread(self) -> str:
        """The question's own thread; where there can be none, its channel."""
        question = self._mention.message_id
        body: JSON = {"name": _name(self._mention.text), "auto_archive_duration": _KEPT_OPEN}
        try:
            await self._calls.do("POST", f"{MESSAGE}/threads", body, channel_id=self._channel, message_id=question)
        except Refusal as error:
            if error.code != THREAD_EXISTS:
                logger.info("no thread can be opened here; answering in the channel: %s", error)
                self._threadless.add(self._channel)
                return self._channel
        return question


def rendered(finished: Finished) -> Sequence[Part]:
    """A whole answer as messages."""
    language = text_language(finished.text)
    return dialect.render(finished.text, sources=finished.sources, notice=finished.notice, language=language).parts


def _public(part: Part, controls: Controls) -> JSON:
    """A message that says by itself which answer it is."""
    return body_of(part, replace(controls, answer_id=""))


def body_of(part: Part, controls: Controls, **more: Any) -> JSON:
    """A message as it is sent, with what else belongs to it."""
    return {
        "content": part.text,
        "flags": SUPPRESS_EMBEDS,
        "allowed_mentions": NOBODY,
        "components": shown.rows(controls),
        **more,
    }


def _nonce(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:_LONGEST_NONCE]


def _name(text: str) -> str:
    """A thread's name: how the question begins."""
    words = " ".join(visible(text).split())
    return (words[: _LONGEST_NAME - 1] + "…" if len(words) > _LONGEST_NAME else words) or "Kvasir"
