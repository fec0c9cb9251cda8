"""What happens in the world, and the events that tell of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from core.types import JSON
from tests.fakes.discord_server import payloads
from tests.fakes.discord_server.gateway import (
    DIRECT_MESSAGES,
    DIRECT_REACTIONS,
    GUILD_MESSAGES,
    GUILD_REACTIONS,
    GUILDS,
    Gateway,
    Session,
)
from tests.fakes.discord_server.world import Channel, Flag, Interaction, Message, User, World


class Teller:
    """Changes the world and tells the gateway's clients."""

    def __init__(self, world: World, gateway: Gateway) -> None:
        self.world = world
        self._gateway = gateway
        self._changed = asyncio.Event()
        gateway.noticed = self.touch
        self.portal_content = False
        """Whether message content is switched on for the bot, as the REST API sees it."""
        self.typed: list[tuple[int, float]] = []
        """(channel, moment) of every «is typing»."""

    @property
    def gateway_url(self) -> str:
        return self._gateway.url

    @property
    def max_concurrency(self) -> int:
        return self._gateway.max_concurrency

    async def until(self, condition: Callable[[], object], within: float = 10.0) -> None:
        """Wait for something to become true, so many seconds at most; raises TimeoutError."""
        async with asyncio.timeout(within):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def touch(self) -> None:
        """Something changed: let those who wait look again."""
        self._changed.set()

    def said(self, message: Message) -> None:
        self.world.keep(message)
        if message.seen_only_by is None:
            self._tell_message("MESSAGE_CREATE", message)
        self.touch()

    def changed(self, message: Message) -> None:
        self.world.change(message)
        if message.seen_only_by is None:
            self._tell_message("MESSAGE_UPDATE", message)
        self.touch()

    def deleted(self, message: Message) -> None:
        message.deleted = True
        if message.seen_only_by is None:
            self._tell("MESSAGE_DELETE", message.channel, {"id": str(message.id)}, GUILD_MESSAGES, DIRECT_MESSAGES)
        self.touch()

    def reacted(self, message: Message, emoji: str, user: User) -> None:
        who = message.reactions.setdefault(emoji, [])
        if user.id not in who:
            who.append(user.id)
            self._tell_reaction("MESSAGE_REACTION_ADD", message, emoji, user)

    def unreacted(self, message: Message, emoji: str, user: User) -> None:
        who = message.reactions.get(emoji, [])
        if user.id in who:
            who.remove(user.id)
            self._tell_reaction("MESSAGE_REACTION_REMOVE", message, emoji, user)

    def open_thread(self, parent: Channel, name: str, owner: User, message: Message | None = None) -> Channel:
        thread = self.world.add_thread(parent, name, owner, message.id if message else None)
        if message is not None:
            message.thread = thread
            message.flags |= Flag.HAS_THREAD
        payload = payloads.thread(thread, self.world) | {"newly_created": True}
        self._tell("THREAD_CREATE", thread, payload, GUILDS, 0)
        if message is not None:
            self._tell_message("MESSAGE_UPDATE", message)
        self.touch()
        return thread

    def channel_changed(self, channel: Channel) -> None:
        event = "THREAD_UPDATE" if channel.parent is not None else "CHANNEL_UPDATE"
        self._tell(event, channel, payloads.channel(channel, self.world), GUILDS, 0)
        self.touch()

    def happened(self, interaction: Interaction) -> None:
        self.world.interactions[interaction.token] = interaction
        payload = payloads.interaction(interaction, self.world)
        guild = interaction.channel.guild
        self._gateway.tell("INTERACTION_CREATE", payload, 0, guild.id if guild else None)

    def _tell_message(self, event: str, message: Message) -> None:
        def payload(session: Session) -> JSON:
            return payloads.event(message, self.world, content=session.reads_content)

        guild = message.channel.guild
        if guild is None:
            self._gateway.tell(event, payload, DIRECT_MESSAGES, None)
        else:
            self._gateway.tell(event, payload, GUILD_MESSAGES, guild.id)

    def _tell_reaction(self, event: str, message: Message, emoji: str, user: User) -> None:
        payload: JSON = {
            "user_id": str(user.id),
            "message_id": str(message.id),
            "message_author_id": str(message.author.id),
            "emoji": {"id": None, "name": emoji},
            "burst": False,
            "type": 0,
        }
        if message.channel.guild is not None and event.endswith("ADD"):
            payload["member"] = payloads.member(user)
        self._tell(event, message.channel, payload, GUILD_REACTIONS, DIRECT_REACTIONS)
        self.touch()

    def _tell(self, event: str, channel: Channel, payload: JSON, of_guilds: int, of_people: int) -> None:
        """An event of a channel; it carries the channel's id unless it is about the channel itself."""
        if channel.guild is None:
            self._gateway.tell(event, {"channel_id": str(channel.id), **payload}, of_people, None)
        else:
            where = {"channel_id": str(channel.id), "guild_id": str(channel.guild.id)}
            self._gateway.tell(event, {**where, **payload}, of_guilds, channel.guild.id)
