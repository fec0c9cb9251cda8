"""The bot's connection: the library's client, told where Discord is and whom to tell what happens."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import discord
import yarl
from discord import app_commands
from discord.gateway import DiscordWebSocket
from discord.http import Route
from discord.shard import Shard

from bots.discord.buttons import ControlButton
from bots.discord.events import is_of_people
from bots.discord.listener import shard_of
from bots.memory import Memory
from core.chats.connections import WORKSPACE_KEY

if TYPE_CHECKING:
    from bots.discord.desk import Desk
    from core.settings import DiscordSettings
    from core.work.limits import Limits

logger = logging.getLogger(__name__)

_DISCORDS_OWN: Final = "https://discord.com/api/v10"
_BETWEEN_IDENTIFIES: Final = 5.0
"""Seconds between two clients of one bot that identify in the same lane."""
_ON_SERVERS: Final = app_commands.AppInstallationType(guild=True, user=False)
"""Whoever uses our commands shares a server with us."""
_COMMANDS: Final = "commands"
_ROLE: Final = "role"
_OPEN_SECONDS: Final = 60.0
_SETTLE_SECONDS: Final = 1.0
_GOES_ON: Final = 4000
"""Code of a connection's end after which Discord keeps the session for a while."""
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


@dataclass(frozen=True, slots=True)
class Session:
    """What it takes to go on where a shard's last connection ended."""

    id: str
    sequence: int
    url: str


async def _nothing(*_: object) -> None:
    return None


_opening: ContextVar[list[DiscordWebSocket]] = ContextVar("_opening")


class _Socket(DiscordWebSocket):
    """Closes itself where its opening comes to nothing: the library would leave it, and the thread that minds it."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        if (made := _opening.get(None)) is not None:
            made.append(self)

    @classmethod
    async def from_client(cls, client: discord.Client, **more: Any) -> DiscordWebSocket:  # type: ignore[override]
        made: list[DiscordWebSocket] = []
        _opening.set(made)
        try:
            return await super().from_client(client, **more)
        except BaseException:
            for one in made:
                await one.close(_GOES_ON)
            raise


class Bot(discord.AutoShardedClient):
    """Tells the desk what happens; keeps no messages and no members of its own."""

    def __init__(self, settings: DiscordSettings, desk: Desk, memory: Memory, limits: Limits) -> None:
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
        self._limits = limits
        self._lanes = 1
        self.shards_wanted = 1
        """As many as Discord would have."""
        self.launched = asyncio.Event()
        """Shards can be opened."""
        self._hearing: set[int] = set()
        self._own: set[asyncio.Task[Any]] = set()

    async def setup_hook(self) -> None:
        self.shards_wanted, url, limit = await self.http.get_bot_gateway()
        self._lanes = max(1, limit["max_concurrency"])
        DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(url)  # where the library goes after an invalid session
        discord.shard.DiscordWebSocket = _Socket  # type: ignore[misc]  # and by what
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
        """Shards of different lanes may identify at once, of all processes together one in five seconds in a lane.

        Raises ConnectionError where Discord lets us identify no more today: else it would take our token.
        """
        limit = (await self.http.get_bot_gateway())[2]
        if limit["remaining"] < 1:
            raise ConnectionError(f"Discord allows no more connections for {limit['reset_after'] / 1000:.0f} s")
        lane = f"discord/{self.application_id}/identify/{(shard_id or 0) % self._lanes}"
        await asyncio.sleep(await self._limits.turn(lane, _BETWEEN_IDENTIFIES))

    # ------------------------------------------------------------ shards
    async def launch_shards(self) -> None:
        """The library would open all of them; ours come one by one, as their leases are had (`shards.py`)."""
        self.launched.set()

    @property
    def shards_in_all(self) -> int:
        """Of all processes together."""
        return self.shard_count or 1

    @property
    def asks(self) -> str:
        """What a session was begun for, in short: with any other it cannot be gone on."""
        return f"{self.application_id}/{self.intents.value}/{self.shards_in_all}"

    def is_of(self, scope: str, number: int) -> bool:
        """Whether a server or private chat (as in `heard.py`) belongs to a shard."""
        return shard_of(scope, self.shards_in_all) == number

    def hears(self, number: int) -> bool:
        shard = self.shards.get(number)
        return shard is not None and not shard.is_closed() and number in self._hearing

    async def open_shard(self, number: int, session: Session | None) -> None:
        """Connect a shard: go on with a session, or begin one. The library keeps it connected from then on."""
        state = self._connection
        state.shard_count, state.shard_ids = self.shards_in_all, range(self.shards_in_all)
        more: dict[str, Any] = {"gateway": DiscordWebSocket.DEFAULT_GATEWAY}
        if session is not None:
            more = {"gateway": yarl.URL(session.url), "session": session.id, "sequence": session.sequence}
        opened = _Socket.from_client(self, shard_id=number, resume=session is not None, **more)
        socket = await asyncio.wait_for(opened, _OPEN_SECONDS)
        shard = self._parts[number] = Shard(socket, self, self._events.put_nowait)
        shard.launch()

    def session(self, number: int) -> Session | None:
        """That of a shard, and how far it was read."""
        socket = self._parts[number].ws if number in self._parts else None
        if socket is None or socket.session_id is None or socket.sequence is None or number not in self._hearing:
            return None
        return Session(socket.session_id, socket.sequence, str(socket.gateway))

    async def settled(self, number: int) -> bool:
        """Whether all that came over a shard up to now is dealt with, and nothing is left to be read back."""
        ready = self._connection._ready_tasks.get(number)
        if ready is not None and not ready.done():
            return False
        if any(guild.unavailable and guild.shard_id == number for guild in self.guilds):
            return False
        for _ in range(3):  # what was parsed just now is on its way to us
            await asyncio.sleep(0)
        tasks = set(self._own)
        return not tasks or not (await asyncio.wait(tasks, timeout=_SETTLE_SECONDS))[1]

    async def restore(self, number: int, memory: Memory) -> None:
        """Know the servers of a shard, as far as they are kept: who goes on with a session is not told of them."""
        roles = await memory.all(_ROLE)
        for guild, name in (await memory.all(WORKSPACE_KEY)).items():
            if guild.isdecimal() and self.is_of(guild, number) and self.get_guild(int(guild)) is None:
                known: Any = [{"id": guild, "name": "@everyone"}]
                if roles.get(guild):
                    known.append({"id": roles[guild], "name": "", "tags": {"bot_id": str(self._connection.self_id)}})
                about: Any = {"id": guild, "name": name, "unavailable": False, "roles": known}
                self._connection._add_guild_from_data(about)

    def stop_reading(self, number: int) -> None:
        """What comes from now on is for whoever takes the shard over."""
        if number in self._parts:
            self._parts[number]._cancel_task()

    async def leave_shard(self, number: int) -> None:
        """Be no longer connected, so that another process can go on with the session."""
        shard = self._parts.pop(number, None)
        self._hearing.discard(number)
        if shard is None:
            return
        shard._cancel_task()
        # What the library may still have in hand for it comes to nothing.
        shard.reidentify = shard.reconnect = _nothing  # type: ignore[method-assign,assignment]
        shard.launch = lambda: self._connection.loop.create_task(shard.ws.close(_GOES_ON))  # type: ignore[method-assign,assignment]
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await shard.ws.close(_GOES_ON)
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            logger.info("shard %s of Discord did not close: %s", number, type(error).__name__)
        for guild in [one for one in self.guilds if one.shard_id == number]:
            self._connection._remove_guild(guild)

    @property
    def _parts(self) -> dict[int, Shard]:
        found: dict[int, Shard] = self._AutoShardedClient__shards  # type: ignore[attr-defined]  # its own name for them
        return found

    @property
    def _events(self) -> asyncio.PriorityQueue[Any]:
        found: asyncio.PriorityQueue[Any] = self._AutoShardedClient__queue  # type: ignore[attr-defined]  # likewise
        return found

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

    async def on_shard_resumed(self, shard_id: int) -> None:
        self._hearing.add(shard_id)

    async def on_shard_disconnect(self, shard_id: int) -> None:
        self._hearing.discard(shard_id)

    async def on_shard_connect(self, shard_id: int) -> None:
        self._hearing.add(shard_id)
        self.desk.listener.lost(self.shards_in_all, shard_id)
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
        await self._on(lambda: self._memory.forget(_ROLE, str(guild.id)))

    async def _name(self, guild: discord.Guild) -> None:
        """Keep what people call the server, and which role there is ours alone."""
        own = str(guild.self_role.id) if guild.self_role is not None else ""
        for key, value in ((WORKSPACE_KEY, guild.name), (_ROLE, own)):
            if await self._memory.get(key, str(guild.id)) != value:
                await self._memory.put(key, value, str(guild.id))

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
