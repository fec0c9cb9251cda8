"""The bot's connection: the library's client, told where Discord is and whom to tell what happens."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import discord
import yarl
from discord import app_commands
from discord.gateway import DiscordWebSocket
from discord.http import Route

from bots.discord.buttons import ControlButton
from bots.discord.events import is_of_people
from bots.memory import Memory
from core.connections import WORKSPACE_KEY

if TYPE_CHECKING:
    from bots.discord.desk import Desk
    from core.settings import DiscordSettings

logger = logging.getLogger(__name__)

_DISCORDS_OWN: Final = "https://discord.com/api/v10"
_BETWEEN_IDENTIFIES: Final = 5.0
"""Seconds between two clients of one bot that identify in the same lane."""
_ON_SERVERS: Final = app_commands.AppInstallationType(guild=True, user=False)
"""Whoever uses our commands shares a server with us."""
_COMMANDS: Final = "commands"
_CLOSE_SECONDS: Final = 1.5
_READY_SECONDS: Final = 0.05
"""How long the library waits for more servers before it says that it is ready, for which nobody waits."""


def intents(settings: DiscordSettings) -> discord.Intents:
    """What is needed for mentions, direct messages and thumbs; none of it is privileged unless the settings ask."""
    return discord.Intents(
        guilds=True,
        guild_messages=True,
        dm_messages=True,
        guild_reactions=True,
        dm_reactions=True,
        message_content=settings.message_content,
    )


class Bot(discord.AutoShardedClient):
    """Tells the desk what happens; keeps no messages and no members of its own."""

    def __init__(self, settings: DiscordSettings, desk: Desk, memory: Memory) -> None:
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # we have no voice
        Route.BASE = settings.api_base.rstrip("/") or _DISCORDS_OWN  # the library knows one Discord in a process
        super().__init__(
            intents=intents(settings),
            allowed_mentions=discord.AllowedMentions.none(),
            proxy=settings.proxy or None,
            max_messages=None,
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            guild_ready_timeout=_READY_SECONDS,
        )
        self.desk = desk
        self._memory = memory
        self.tree = app_commands.CommandTree(self, allowed_installs=_ON_SERVERS)
        self._lanes = 1
        self._identified: dict[int, float] = {}
        self._own: set[asyncio.Task[Any]] = set()

    async def setup_hook(self) -> None:
        shards, url, limit = await self.http.get_bot_gateway()
        if limit["remaining"] < shards:
            raise ConnectionError(f"Discord allows no more connections for {limit['reset_after'] / 1000:.0f} s")
        self._lanes = max(1, limit["max_concurrency"])
        DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(url)  # where the library goes after an invalid session
        self.add_dynamic_items(ControlButton)
        await self.desk.add_commands(self.tree)
        await self._sync()

    async def _sync(self) -> None:
        """Register the commands, where they are others than the last time."""
        translator = self.tree.translator or app_commands.Translator()
        commands = [await one.get_translated_payload(self.tree, translator) for one in self.tree.get_commands()]
        digest = hashlib.sha256(json.dumps([self.application_id, commands], sort_keys=True).encode()).hexdigest()
        if await self._memory.get(_COMMANDS) == digest:
            return
        try:
            await self.tree.sync()
        except discord.HTTPException as error:
            logger.warning("the slash commands could not be registered with Discord: %s", error)
        else:
            await self._memory.put(_COMMANDS, digest)

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:  # noqa: ARG002
        """Shards of different lanes may identify at once; the library's own, which knows no lanes, always waits."""
        lane = (shard_id or 0) % self._lanes
        now = self.loop.time()
        due = max(now, self._identified.get(lane, now - _BETWEEN_IDENTIFIES) + _BETWEEN_IDENTIFIES)
        self._identified[lane] = due
        await asyncio.sleep(due - now)

    async def close_soon(self) -> None:
        """Close, also where the other side does not answer."""
        tasks = [*self._own, *self._of_the_library()]
        for task in tasks:
            task.cancel()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.close()
        except TimeoutError:
            await self.http.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _of_the_library(self) -> list[asyncio.Task[None]]:
        """Its tasks that wait two seconds for more servers after a connection, and that its `close` leaves running."""
        state = self._connection
        last = [state._ready_task] if state._ready_task is not None else []
        return [*last, *state._ready_tasks.values()]

    # ------------------------------------------------------------ what happens
    async def _on(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Deal with an event in a task that `close_soon` ends."""
        task = asyncio.create_task(work())
        self._own.add(task)
        try:
            await task
        except Exception:
            logger.exception("something that happened on Discord was not dealt with")
        finally:
            self._own.discard(task)

    async def on_shard_connect(self, shard_id: int) -> None:
        self.desk.listener.lost(self, shard_id)
        if shard_id == 0:
            await self._on(lambda: self.desk.listener.read_back_private(self))

    async def on_guild_available(self, guild: discord.Guild) -> None:
        await self._on(lambda: self._name(guild))
        await self._on(lambda: self.desk.listener.read_back(self, guild))

    async def on_guild_join(self, guild: discord.Guild) -> None:
        await self._on(lambda: self._name(guild))
        await self._on(lambda: self.desk.listener.read_back(self, guild))

    async def on_guild_remove(self, guild: discord.Guild) -> None:
        await self._on(lambda: self._memory.forget(WORKSPACE_KEY, str(guild.id)))

    async def _name(self, guild: discord.Guild) -> None:
        """Keep what people call the server."""
        if await self._memory.get(WORKSPACE_KEY, str(guild.id)) != guild.name:
            await self._memory.put(WORKSPACE_KEY, guild.name, str(guild.id))

    async def on_message(self, message: discord.Message) -> None:
        if not is_of_people(message):
            self.desk.listener.passed(message)
            return
        await self._on(lambda: self.desk.listener.message(self, message))

    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        """Discord also says so when a preview was added, or a thread opened on it."""
        if payload.message.edited_at is not None and is_of_people(payload.message):
            await self._on(lambda: self.desk.listener.edited(self, payload.message))

    async def on_raw_message_delete(self, payload: discord.RawMessageDeleteEvent) -> None:
        await self._on(
            lambda: self.desk.listener.deleted(self, payload.guild_id, payload.channel_id, payload.message_id)
        )

    async def on_raw_bulk_message_delete(self, payload: discord.RawBulkMessageDeleteEvent) -> None:
        async def each() -> None:
            for message in sorted(payload.message_ids):
                await self.desk.listener.deleted(self, payload.guild_id, payload.channel_id, message)

        await self._on(each)

    async def on_raw_reaction_add(self, payload: discord.RawReactionActionEvent) -> None:
        await self._on(lambda: self.desk.listener.reacted(self, payload))

    async def on_raw_reaction_remove(self, payload: discord.RawReactionActionEvent) -> None:
        await self._on(lambda: self.desk.listener.reacted(self, payload))

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        if interaction.type is discord.InteractionType.modal_submit:
            await self._on(lambda: self.desk.submitted(interaction))
