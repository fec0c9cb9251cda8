"""What people do with our messages, buttons and commands, and what they are told in answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal

import discord
from discord import app_commands

from bots.discord import commands, controls, events
from bots.discord.calls import Calls
from bots.discord.events import Where
from bots.discord.listener import Listener
from bots.errors import DeliveryError
from bots.rendering.parts import Part
from core.texts import speaking, tell
from core.types import JSON, Command, Language, Mention, Press, Thumb

logger = logging.getLogger(__name__)

_EPHEMERAL: Final = 1 << 6
_SUPPRESS_EMBEDS: Final = 1 << 2
_MESSAGE, _LATER, _NOTHING, _WINDOW = 4, 5, 6, 9
"""Kinds of answers to an interaction."""
_IN_TIME: Final = 1.8
"""Seconds after which an answer that is not there yet is announced; Discord wants one within three."""
_MOST_PARTS: Final = 5
_DONE: Final = "✅"

Share = Callable[[discord.Interaction[Any], str], Awaitable[str]]
"""Shows an answer with this id to the channel; gives a sentence where it cannot."""
Shown = Callable[[str], Sequence[Part]]
"""Renders a sentence or a list of ours."""


class Desk:
    """Every interaction is answered once, within Discord's three seconds."""

    def __init__(self, listener: Listener, calls: Calls, shown: Shown, share: Share) -> None:
        self.listener = listener
        self._calls = calls
        self._shown = shown
        self._share = share
        self.waiting: set[str] = set()
        """Tokens of questions whose interaction has no answer yet."""

    async def add_commands(self, tree: app_commands.CommandTree[Any]) -> None:
        await tree.set_translator(commands.Chinese())
        commands.add(tree, self)

    # ------------------------------------------------------------ questions
    async def ask(self, interaction: discord.Interaction[Any], mention: Mention) -> None:
        """A question whose answer the asker alone sees; its first message answers the interaction."""
        self.waiting.add(interaction.token)
        try:
            if said := await self.listener.take(mention):
                await self.tell(interaction, said)
                return
            await asyncio.sleep(_IN_TIME)
            if interaction.token in self.waiting:
                await self._respond(interaction, _LATER, {"flags": _EPHEMERAL})
        finally:
            self.waiting.discard(interaction.token)

    def question(self, interaction: discord.Interaction[Any], text: str, **more: Any) -> Mention:
        """Its conversation is the asker's own in this channel."""
        where = where_of(interaction)
        place = events.place_of(where, f"@{interaction.user.id}")
        return Mention(
            place=place,
            message_id=str(interaction.id),
            person=events.person_of(interaction.user),
            text=text,
            trigger="command",
            alone=True,
            said_at=interaction.created_at,
            extra={
                "channel": str(where.channel),
                "interaction": str(interaction.id),
                "token": interaction.token,
                "user": str(interaction.user.id),
            },
            **more,
        )

    # ------------------------------------------------------------ commands
    async def command(self, interaction: discord.Interaction[Any], name: str, arguments: str = "") -> None:
        where = where_of(interaction)
        channel = interaction.channel
        named = "" if where.guild is None else getattr(getattr(channel, "parent", None) or channel, "name", "") or ""
        command = Command(
            name,
            commands.ids_in(name, arguments),
            events.place_of(where),
            events.person_of(interaction.user),
            may_manage=may_manage(interaction),
            alone=True,
            channel_name=named,
        )
        with speaking(language_of(interaction)):
            await self.tell(interaction, await self.listener.take(command))

    async def kb_names(self, interaction: discord.Interaction[Any], typed: str) -> Sequence[str]:
        """Knowledge bases that this person may ask here, whose name has in it what was typed last."""
        where = where_of(interaction)
        person = events.person_of(interaction.user)
        command = Command("kb", "", events.place_of(where), person, alone=True)
        lines = (await self.listener.take(command)).splitlines()
        names = [line.removeprefix("- ").removesuffix(" ✓") for line in lines if line.startswith("- ")]
        return [name for name in names if typed.strip().lower() in name.lower()]

    async def keep(self, interaction: discord.Interaction[Any], message: discord.Message) -> None:
        """Keep what a helper wrote as an answer."""
        where = where_of(interaction)
        root = str(where.channel) if where.parent is not None else str(message.id)
        replied = message.reference.message_id if message.reference is not None else None
        place = events.place_of(where, root)
        if replied is not None and where.parent is None:
            place = events.place_of(where, await self.listener.root_of(where, replied) or str(replied))
        press = Press(
            "keep",
            place,
            events.post_of(where.channel, message.id),
            events.person_of(interaction.user),
            may_manage=may_manage(interaction),
            text=message.content,
        )
        with speaking(language_of(interaction)):
            await self.tell(interaction, await self.listener.take(press))

    # ------------------------------------------------------------ buttons
    async def pressed(self, interaction: discord.Interaction[Any], control: str, about: str) -> None:
        with speaking(language_of(interaction)):
            match control:
                case "up":
                    await self.tell(interaction, await self.listener.take(self._thumb(interaction, 1, about)))
                case "down":
                    await self._down(interaction, about)
                case "share":
                    await self._respond(interaction, _NOTHING)
                    said = await self._share(interaction, about)
                    if said:
                        await self._more(interaction, said)
                case "stop" | "again" | "human" | "resolved":
                    await self._press(interaction, control, about)

    async def _down(self, interaction: discord.Interaction[Any], about: str) -> None:
        """The vote counts at once; the reason may follow."""
        await self.listener.take(self._thumb(interaction, -1, about))
        rated = controls.Rated(answer_id=about) if about else controls.Rated(post=post_of(interaction))
        await self._respond(interaction, _WINDOW, controls.why(rated))

    async def submitted(self, interaction: discord.Interaction[Any]) -> None:
        """The window with the reason came back."""
        found = controls.reason_of(dict(interaction.data or {}))
        if found is None:
            return
        rated, reason = found
        place = events.place_of(where_of(interaction))
        person = events.person_of(interaction.user)
        thumb = Thumb(rated.answer_id, person, -1, reason, place=place, post=rated.post)
        with speaking(language_of(interaction)):
            await self.tell(interaction, await self.listener.take(thumb))

    def _thumb(self, interaction: discord.Interaction[Any], value: Literal[-1, 1], about: str) -> Thumb:
        place = events.place_of(where_of(interaction))
        post = "" if about else post_of(interaction)
        return Thumb(about, events.person_of(interaction.user), value, place=place, post=post)

    async def _press(
        self, interaction: discord.Interaction[Any], control: Literal["stop", "again", "human", "resolved"], about: str
    ) -> None:
        await self._respond(interaction, _NOTHING)
        press = Press(
            control,
            events.place_of(where_of(interaction)),
            about or post_of(interaction),
            events.person_of(interaction.user),
            may_manage=may_manage(interaction),
        )
        said = await self.listener.take(press)
        if said:
            await self._more(interaction, said)
        if control == "resolved" and said == tell("human_resolved"):
            await self._mark(interaction)

    async def _mark(self, interaction: discord.Interaction[Any]) -> None:
        """Let everybody see that it is solved."""
        path = "/channels/{channel_id}/messages/{message_id}/reactions/{emoji}/@me"
        message = interaction.message.id if interaction.message is not None else 0
        try:
            await self._calls.do("PUT", path, channel_id=interaction.channel_id, message_id=message, emoji=_DONE)
        except DeliveryError as error:
            logger.info("a call for help could not be marked as solved: %s", error)

    # ------------------------------------------------------------ what is said
    async def tell(self, interaction: discord.Interaction[Any], text: str) -> None:
        """Say something to that person alone, as the first answer."""
        if not text and interaction.message is not None:
            await self._respond(interaction, _NOTHING)
            return
        first, *rest = self._shown(text or _DONE)[:_MOST_PARTS]
        if await self._respond(interaction, _MESSAGE, _private(first)):
            for part in rest:
                await self._send_more(interaction, part)

    async def _more(self, interaction: discord.Interaction[Any], text: str) -> None:
        """Say something to that person alone, after the first answer."""
        for part in self._shown(text)[:_MOST_PARTS]:
            await self._send_more(interaction, part)

    async def _send_more(self, interaction: discord.Interaction[Any], part: Part) -> None:
        try:
            await self._calls.do(
                "POST",
                "/webhooks/{webhook_id}/{webhook_token}",
                _private(part),
                webhook_id=interaction.application_id,
                webhook_token=interaction.token,
            )
        except DeliveryError as error:
            logger.info("something could not be said on Discord: %s", error)

    async def _respond(self, interaction: discord.Interaction[Any], kind: int, data: JSON | None = None) -> bool:
        """The first answer to an interaction; whether it arrived."""
        body: JSON = {"type": kind, **({"data": data} if data is not None else {})}
        try:
            await self._calls.do(
                "POST",
                "/interactions/{webhook_id}/{webhook_token}/callback",
                body,
                webhook_id=interaction.id,
                webhook_token=interaction.token,
            )
            return True
        except DeliveryError as error:
            logger.info("an interaction on Discord could not be answered: %s", error)
            return False


def _private(part: Part) -> JSON:
    return {"content": part.text, "flags": _EPHEMERAL | _SUPPRESS_EMBEDS, "allowed_mentions": {"parse": []}}


def where_of(interaction: discord.Interaction[Any]) -> Where:
    """Where it happened, as the interaction itself says."""
    channel = interaction.channel
    if isinstance(channel, discord.Thread):
        is_post = isinstance(channel.parent, discord.ForumChannel)
        return Where(interaction.guild_id, channel.id, channel.parent_id, is_post)
    return Where(interaction.guild_id, channel.id if channel is not None else 0)


def post_of(interaction: discord.Interaction[Any]) -> str:
    """The message of ours on which something was pressed."""
    message = interaction.message
    if message is None:
        return ""
    if message.flags.ephemeral:
        return f"{events.PRIVATE_POST}{message.id}"
    return events.post_of(message.channel.id, message.id)


def may_manage(interaction: discord.Interaction[Any]) -> bool:
    """Whether Discord lets the person look after this channel; in private everybody may."""
    if interaction.guild_id is None:
        return True
    may = interaction.permissions
    return may.manage_channels or may.manage_guild or may.administrator


def language_of(interaction: discord.Interaction[Any]) -> Language:
    """In which that person reads Discord."""
    return "zh" if str(interaction.locale).startswith("zh") else "en"
