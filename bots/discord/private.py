"""The messages of an answer that the asker alone sees: an interaction's, or a private chat's when that is too old."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from bots.discord.calls import ALREADY_ANSWERED, Calls, Refusal
from bots.discord.events import PRIVATE_POST, post_of, split_post
from bots.discord.surface import MESSAGE, MESSAGES, Rendering, body_of
from bots.errors import Gone
from bots.platform import Controls
from bots.rendering.parts import Part
from core.types import JSON, Mention

logger = logging.getLogger(__name__)

_ANSWER_WITH_MESSAGE: Final = 4
_EPHEMERAL: Final = 1 << 6
_SUPPRESS_EMBEDS: Final = 1 << 2
_HOOK: Final = "/webhooks/{webhook_id}/{webhook_token}"


class PrivateSurface(Rendering):
    """Discord takes messages for an interaction for fifteen minutes; what comes later goes to the asker in private."""

    repeatable = False

    def __init__(self, mention: Mention, calls: Calls, opened: Callable[[str], None]) -> None:
        self._mention = mention
        self._calls = calls
        self._opened = opened
        """Told the token when its interaction is answered."""
        self._token = mention.extra["token"]
        self._mine: set[str] = set()
        """Messages of this answer that we know of."""
        self._settled = False
        """The interaction has its answer, or can have none any more."""
        self.tempo = mention.message_id

    async def working(self, part: Part) -> None:
        """Nothing: the first message is there at once."""

    async def send(self, part: Part, controls: Controls, key: str) -> str:  # noqa: ARG002 - interactions know no keys
        body = body_of(part, controls, flags=_EPHEMERAL | _SUPPRESS_EMBEDS)
        try:
            message = await self._first(body) or await self._next(body)
        except Gone:
            return await self._in_private(part, controls)
        post = f"{PRIVATE_POST}{message['id']}"
        self._mine.add(post)
        return post

    async def _first(self, body: JSON) -> JSON | None:
        """The message that answers the interaction; None where it has its answer already."""
        if self._mine or self._settled:
            return None
        try:
            answer = await self._calls.do(
                "POST",
                "/interactions/{webhook_id}/{webhook_token}/callback",
                {"type": _ANSWER_WITH_MESSAGE, "data": body},
                webhook_id=self._mention.extra["interaction"],
                webhook_token=self._token,
                with_response="true",
            )
        except Refusal as error:
            if error.code != ALREADY_ANSWERED:
                raise
            self._settled = True
            return None
        except Gone:  # the interaction itself lives for three seconds only, what answers it for longer
            self._settled = True
            return None
        self._opened(self._token)
        message: JSON = answer["resource"]["message"]
        return message

    async def _next(self, body: JSON) -> JSON:
        """The message that was only announced, or else a further one."""
        original: JSON = await self._hook("GET", "/messages/@original")
        if f"{PRIVATE_POST}{original['id']}" not in self._mine:
            changed: JSON = await self._hook("PATCH", "/messages/@original", {**body, "flags": _SUPPRESS_EMBEDS})
            return changed
        sent: JSON = await self._hook("POST", "", body)
        return sent

    async def _in_private(self, part: Part, controls: Controls) -> str:
        self._opened(self._token)
        chat = await self._calls.do("POST", "/users/@me/channels", {"recipient_id": self._mention.extra["user"]})
        message = await self._calls.do("POST", MESSAGES, body_of(part, controls), channel_id=chat["id"])
        return post_of(int(chat["id"]), int(message["id"]))

    async def edit(self, post: str, part: Part, controls: Controls) -> None:
        self._mine.add(post)
        body = body_of(part, controls)
        channel, message = split_post(post)
        if post.startswith(PRIVATE_POST):
            await self._hook("PATCH", f"/messages/{message}", body)
        else:
            await self._calls.do("PATCH", MESSAGE, body, channel_id=channel, message_id=message)

    async def delete(self, post: str) -> None:
        channel, message = split_post(post)
        with suppress(Gone):
            if post.startswith(PRIVATE_POST):
                await self._hook("DELETE", f"/messages/{message}")
            else:
                await self._calls.do("DELETE", MESSAGE, channel_id=channel, message_id=message)

    async def find(self, known: Sequence[str]) -> str | None:
        """The first message may be there; Discord does not tell of further ones."""
        self._mine.update(known)
        try:
            original = await self._hook("GET", "/messages/@original")
        except Gone:
            return None
        post = f"{PRIVATE_POST}{original['id']}"
        if post in known:
            return None
        self._mine.add(post)
        return post

    async def _hook(self, method: str, path: str, body: JSON | None = None) -> JSON:
        answer: JSON = await self._calls.do(
            method, _HOOK + path, body, webhook_id=await self._calls.application_id(), webhook_token=self._token
        )
        return answer
