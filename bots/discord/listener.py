"""Brings what happens on Discord to the intake, and reads what happened in a gap from the history."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, TypeAlias

import discord
from discord.utils import time_snowflake, utcnow

from bots.discord import events
from bots.discord.calls import Calls, guarded
from bots.discord.events import Where
from bots.discord.heard import PRIVATE, Heard
from bots.errors import DeliveryError, Gone, Refused
from bots.platform import Intake
from core.errors import Unavailable
from core.types import ChatEvent, Command, Deleted, Mention

logger = logging.getLogger(__name__)

_LONGEST_GAP: Final = timedelta(hours=24)
_MOST_READ: Final = 500
"""Messages of one channel that are read back."""
_FIRST_LOOK: Final = timedelta(minutes=10)
"""So far back a server is read that was never heard: people ask before everything stands."""
_MOST_PRIVATE: Final = 200
"""Private chats, the latest, that are read back."""
_AT_A_TIME: Final = 4
_MOST_KNOWN: Final = 10_000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_FORUMS: Final = frozenset({15, 16})
_THREADS: Final = frozenset({10, 11, 12})


Help = Callable[[Mention, str], Awaitable[None]]
"""Says how to ask, in answer to a message."""

_Channel: TypeAlias = discord.TextChannel | discord.VoiceChannel | discord.Thread


class Listener:
    """Deals with each message at least once, in the order of its channel."""

    def __init__(self, intake: Intake, calls: Calls, heard: Heard, help: Help) -> None:
        self._intake = intake
        self._help = help
        self._calls = calls
        self._heard = heard
        self._known: dict[int, Where] = {}
        """Threads that the library does not know."""
        self._order: dict[int, asyncio.Lock] = {}
        self._reading = asyncio.Semaphore(_AT_A_TIME)

    # ------------------------------------------------------------ messages
    async def message(self, client: discord.Client, message: discord.Message) -> None:
        """A person wrote something, now or in a gap."""
        with self._heard.hearing(_scope(message), message.id):
            await self._said(client, message)

    def passed(self, message: discord.Message) -> None:
        """A message that is nothing to us."""
        with self._heard.hearing(_scope(message), message.id):
            pass

    async def edited(self, client: discord.Client, message: discord.Message) -> None:
        """A person changed what was written."""
        await self._said(client, message)

    async def _said(self, client: discord.Client, message: discord.Message) -> None:
        guild = message.guild
        server = server_of(message)
        me = client.user.id if client.user is not None else 0
        async with self._in_order(message.channel.id):
            where = await self.where(client, server, message.channel.id)
            own_role = guild.self_role if guild is not None and message.role_mentions else None
            role = own_role.id if own_role is not None else None
            mention = events.mention_of(message, where, me, role, name_of(message))
            if mention.text or mention.files:
                root = await self._root(message, where, mention)
                await self.take(replace(mention, place=events.place_of(where, root)))
            elif mention.trigger in {"mention", "dm"}:
                await self._explain(mention)

    async def _explain(self, mention: Mention) -> None:
        """Somebody called us and asked nothing, or in words that Discord does not let us read."""
        said = await self.take(Command("help", "", mention.place, mention.person))
        await self._help(mention, said)

    async def deleted(self, client: discord.Client, guild: int | None, channel: int, message: int) -> None:
        async with self._in_order(channel):
            where = await self.where(client, guild, channel)
            await self.take(Deleted(events.place_of(where, str(message)), str(message)))

    async def reacted(self, client: discord.Client, event: discord.RawReactionActionEvent) -> None:
        me = client.user.id if client.user is not None else 0
        if events.thumb_value(event.emoji) == 0 or event.user_id == me:
            return
        async with self._in_order(event.channel_id):
            thumb = events.reaction_of(event, await self.where(client, event.guild_id, event.channel_id), me)
            if thumb is not None:
                await self.take(thumb)

    async def _root(self, message: discord.Message, where: Where, mention: Mention) -> str:
        """What the conversation hangs on: our answer that was replied to, or on which the thread was opened."""
        if where.guild is None:
            return ""
        replied = message.reference.message_id if message.reference is not None else None
        if where.parent is not None:
            post = events.post_of(where.parent, where.channel)
            return await self._intake.thread_of(mention.place, post) or str(where.channel)
        if replied is None:
            return str(message.id)
        return await self.root_of(where, replied) or str(message.id)

    async def root_of(self, where: Where, message: int) -> str | None:
        """The conversation to which a message of ours in a channel belongs; None: it is not ours."""
        return await self._intake.thread_of(events.place_of(where), events.post_of(where.channel, message))

    async def where(self, client: discord.Client, guild: int | None, channel: int) -> Where:
        """A channel or thread; one that the library does not know is asked for once."""
        if guild is None:
            return Where(None, channel)
        known = client.get_channel(channel)
        if isinstance(known, discord.Thread):
            return Where(guild, channel, known.parent_id, isinstance(known.parent, discord.ForumChannel))
        if known is not None:
            return Where(guild, channel)
        if channel not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[channel] = await self._ask_where(guild, channel)
        return self._known[channel]

    async def _ask_where(self, guild: int, channel: int) -> Where:
        try:
            found: Mapping[str, Any] = await self._calls.do("GET", "/channels/{channel_id}", channel_id=channel)
            if found.get("type") not in _THREADS or not found.get("parent_id"):
                return Where(guild, channel)
            parent = await self._calls.do("GET", "/channels/{channel_id}", channel_id=int(found["parent_id"]))
            return Where(guild, channel, int(found["parent_id"]), parent.get("type") in _FORUMS)
        except DeliveryError as error:
            logger.info("a channel of Discord could not be looked up: %s", error)
            return Where(guild, channel)

    def _in_order(self, channel: int) -> asyncio.Lock:
        """What is said in one channel is dealt with one after the other."""
        if len(self._order) >= _MOST_KNOWN:
            self._order = {number: lock for number, lock in self._order.items() if lock.locked()}
        return self._order.setdefault(channel, asyncio.Lock())

    async def take(self, event: ChatEvent) -> str:
        """Give it to the intake, again and again while that cannot store it."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._intake.take(event)
            except Unavailable as error:
                logger.warning("something said on Discord could not be stored; trying again: %s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    # ------------------------------------------------------------ gaps
    def lost(self, shards: int, shard: int) -> None:
        """A new session begins, which does not replay what was said since the last one."""
        self._heard.gap([name for name in self._heard.names if shard_of(name, shards) == shard])

    async def read_back(self, client: discord.Client, guild: discord.Guild) -> None:
        """What was said on a server while we did not hear; one we are new to is heard since we joined, or a moment."""
        name = str(guild.id)
        if not self._heard.is_begun(name):
            first = utcnow() - _FIRST_LOOK
            joined = guild.me.joined_at if guild.me is not None else None
            self._heard.begin(name, time_snowflake(max(first, joined) if joined else first))
            await self._heard.keep()  # were we ended now, the next process would look no further back
        since = self._heard.since(name)
        if since is None:
            return
        channels: list[_Channel] = [*guild.text_channels, *guild.voice_channels, *guild.threads]
        news = [one for one in channels if (one.last_message_id or 0) > since and _may_read(guild, one)]
        await self._read_all(client, news, since)
        self._heard.filled(name)

    async def read_back_private(self, client: discord.Client) -> None:
        """What was written to us in private while we did not hear."""
        waiting = {name: since for name in self._heard.names if (since := self._heard.since(name)) is not None}
        private = [name for name in sorted(waiting, key=waiting.__getitem__) if name.startswith(PRIVATE)]
        for name in private[-_MOST_PRIVATE:]:
            chat = client.get_partial_messageable(int(name.removeprefix(PRIVATE)))
            await self._read_all(client, [chat], waiting[name])
            self._heard.filled(name)

    async def _read_all(self, client: discord.Client, channels: Sequence[discord.abc.Messageable], since: int) -> None:
        """Read each of them, again and again while Discord does not let us."""
        pause = _FIRST_PAUSE
        while channels:
            read = await asyncio.gather(*(self._read(client, one, since) for one in channels))
            channels = [one for one, done in zip(channels, read, strict=True) if not done]
            if channels:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _read(self, client: discord.Client, channel: discord.abc.Messageable, since: int) -> bool:
        """Deal with what was said in a channel; whether it could be read, or never can be."""
        oldest = max(since, time_snowflake(utcnow() - _LONGEST_GAP))
        after = discord.Object(oldest)
        count = 0
        try:
            async with self._reading:
                history = channel.history(limit=_MOST_READ, after=after, oldest_first=True)
                while (message := await guarded(anext(history, None))) is not None:
                    count += 1
                    if events.is_of_people(message):
                        await self.message(client, message)
        except DeliveryError as error:
            logger.info("a channel of Discord could not be read back: %s", error)
            return isinstance(error, (Gone, Refused))
        if count == _MOST_READ or oldest > since:
            logger.warning("the gap on Discord was long; only %s messages of a channel were read back", count)
        return True


def name_of(message: discord.Message) -> events.NameOf:
    """Names of those whom a message speaks of, as far as it says them itself."""
    people = {user.id: user.display_name for user in message.mentions}

    def name(kind: str, id: int) -> str:
        if kind == "@":
            return people.get(id, "")
        guild = message.guild
        found = None if guild is None else guild.get_role(id) if kind == "@&" else guild.get_channel_or_thread(id)
        return found.name if found is not None else ""

    return name


def server_of(message: discord.Message) -> int | None:
    """The id of the server it was said on, whether or not the library knows that; None: it was said in private."""
    if message.guild is not None:
        return message.guild.id
    found: int | None = getattr(message.channel, "guild_id", None)
    return found


def _scope(message: discord.Message) -> str:
    """The server it was said on, or the private chat."""
    server = server_of(message)
    return str(server) if server is not None else f"{PRIVATE}{message.channel.id}"


def shard_of(scope: str, shards: int) -> int:
    """The one over which what is said there comes; private chats do over the first."""
    return 0 if scope.startswith(PRIVATE) else (int(scope) >> 22) % shards


def _may_read(guild: discord.Guild, channel: _Channel) -> bool:
    try:
        may = channel.permissions_for(guild.me)
    except discord.ClientException:  # a thread below a channel that we do not see
        return False
    return may.view_channel and may.read_message_history
