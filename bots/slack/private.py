"""Answers in Slack that one person alone sees: to a command, or to the shortcut under a message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import aiohttp

from bots.errors import Limited, Refused, Unreachable
from bots.platform import Controls
from bots.rendering import slack as rendering
from bots.rendering.parts import Part
from bots.slack import blocks
from bots.slack.client import TIMEOUT
from bots.slack.surface import EDIT_SECONDS, LONGEST
from core.types import JSON, Capabilities, Finished, Mention

if TYPE_CHECKING:
    from bots.slack.platform import Slack

logger = logging.getLogger(__name__)


class PrivateSurface:
    """The port `Surface`, without history, streams and changes."""

    repeatable = True
    """Such messages cannot be changed, so each is sent when it is complete."""

    def __init__(self, slack: Slack, mention: Mention) -> None:
        self._slack = slack
        self._mention = mention
        self.tempo = f"{mention.place.workspace}/private"
        self.capabilities = Capabilities(LONGEST, "post", EDIT_SECONDS)

    def preview(self, text: str, status: str) -> Part:
        return rendering.preview(text, status)

    def whole(self, finished: Finished) -> Sequence[Part]:
        return blocks.whole(finished)

    def plain(self, text: str) -> Part:
        return rendering.plain(text)

    async def working(self, part: Part) -> None:
        """Nothing: the command itself was answered at once."""

    async def send(self, part: Part, controls: Controls, key: str) -> str:
        only = Controls(rate=controls.rate, share=controls.share, answer_id=controls.answer_id)
        place, user = self._mention.place, self._mention.extra.get("user", "")
        url = self._mention.extra.get("response_url", "")
        said = blocks.message(part.text, only, plain=self._slack.is_plain(place.workspace))
        try:
            await self._slack.respond(url, {**said, "response_type": "ephemeral", "replace_original": False})
            return f"private-{key}"
        except Refused as error:  # used up, or too old
            logger.debug("no private answer by the command's address: %s", error)

        async def say(plain: bool) -> JSON:
            args = {"channel": place.channel, "user": user, **blocks.message(part.text, only, plain=plain)}
            try:
                return await self._slack.call_in(place.workspace, "chat.postEphemeral", args)
            except Refused as error:
                if str(error) not in ("not_in_channel", "user_not_in_channel", "channel_not_found"):
                    raise
            return await self._slack.call_in(place.workspace, "chat.postMessage", {**args, "channel": user})

        await self._slack.saying(place.workspace, say)
        return f"private-{key}"

    async def edit(self, post: str, part: Part, controls: Controls) -> None:
        """Nothing: what was sent is there already."""

    async def delete(self, post: str) -> None:
        """Nothing: it cannot be taken back."""

    async def find(self, known: Sequence[str]) -> None:  # noqa: ARG002  such messages stand in no history
        return None

    async def stream(self, status: str) -> None:  # noqa: ARG002  there are no private streams
        return None


async def post_response(session: aiohttp.ClientSession, url: str, said: JSON, proxy: str | None) -> None:
    """Say something by the address that came with a command or a button. Raises a DeliveryError."""
    try:
        async with asyncio.timeout(TIMEOUT), session.post(url, json=said, proxy=proxy) as response:
            if response.status == 429:
                raise Limited(2.0)
            if response.status >= 500:
                raise Unreachable(f"response_url: status {response.status}")
            if response.status != 200:
                raise Refused(f"response_url: status {response.status}")
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise Unreachable(f"response_url: {type(error).__name__}") from error
