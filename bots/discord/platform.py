"""Discord, as the port of chat platforms wants it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import discord
from yarl import URL

from bots.discord import controls, events
from bots.discord.calls import UNKNOWN_CHANNEL, Calls, Refusal, guarded
from bots.discord.client import Bot
from bots.discord.desk import Desk
from bots.discord.heard import Heard
from bots.discord.listener import Listener, name_of
from bots.discord.private import PrivateSurface
from bots.discord.shards import Shards
from bots.discord.surface import MESSAGES, ChannelSurface, Threadless, body_of, rendered
from bots.errors import DeliveryError, Refused
from bots.memory import Memory
from bots.platform import Controls, Intake, Surface
from bots.rendering import discord as dialect
from bots.rendering.parts import Part
from core.errors import NotFound, TooLarge, Unavailable
from core.texts import speaking, tell, text_language
from core.types import ChatFile, Mention, Place, Said

if TYPE_CHECKING:
    from core.app import Kvasir

logger = logging.getLogger(__name__)

_KEEP_SECONDS: Final = 10.0
_MOST_CANCELS: Final = 5
_LOOK_SECONDS = 5.0
_LONGEST_AWAY = 90.0
"""Seconds a shard may be without a connection before all begin anew."""
_DOWNLOAD_SECONDS: Final = 60.0
_FILE_HOSTS: Final = frozenset({"cdn.discordapp.com", "media.discordapp.net"})
_PIECE: Final = 1 << 16
_DEAD_TOKEN: Final = 4004
_OTHER_SHARDS: Final = frozenset({4010, 4011})
"""Codes that say that there must be more shards than there are."""
_MOST_SHARED: Final = 20
_ROLE: Final = "&"


class DiscordPlatform:
    name = events.NAME

    def __init__(self, kvasir: Kvasir) -> None:
        self._kvasir = kvasir
        self._settings = kvasir.settings.discord
        self._memory = Memory(kvasir.db, kvasir.vault, self.name)
        self._calls = Calls()
        self._heard = Heard(self._memory)
        self._threadless = Threadless()
        self._desk: Desk | None = None
        self._bot: Bot | None = None
        self._shards: Shards | None = None

    # ------------------------------------------------------------ listening
    @property
    def connected(self) -> bool:
        return self._shards is not None and self._shards.connected

    @property
    def standing_by(self) -> bool:
        return self._shards is not None and self._shards.standing_by

    @property
    def spread(self) -> bool:
        """A channel belongs to a shard, and a shard to one process."""
        return False

    async def run(self, intake: Intake) -> None:
        listener = Listener(intake, self._calls, self._heard, self._explain)
        self._desk = Desk(listener, self._calls, shown, self._share)
        bot = self._bot = Bot(self._settings, self._desk, self._memory, self._kvasir.limits)
        self._shards = Shards(
            bot, self._memory, self._heard, self._kvasir.leases, self._kvasir.presence, self._settings
        )
        keeping = asyncio.create_task(self._keep_heard(), name="discord-heard")
        try:
            await self._connect(bot, self._shards)
        except discord.LoginFailure as error:
            raise Refused(tell("discord_token_refused")) from error
        except discord.PrivilegedIntentsRequired as error:
            raise Refused(tell("discord_intent_off")) from error
        except discord.ConnectionClosed as error:
            if error.code == _DEAD_TOKEN:
                raise Refused(tell("discord_token_refused")) from error
            if error.code in _OTHER_SHARDS:
                await self._shards.forget_count()
            raise
        finally:
            keeping.cancel()
            self._calls.fall()
            await bot.close_soon()
            self._bot = self._shards = None
            await asyncio.gather(keeping, return_exceptions=True)

    async def _connect(self, bot: Bot, shards: Shards) -> None:
        token = self._settings.token
        await bot.login(token.get_secret_value() if token is not None else "")
        self._calls.stand(bot)
        connected = asyncio.create_task(bot.connect(), name="discord-connection")
        watched = asyncio.create_task(_watch(bot), name="discord-watch")
        sharing = asyncio.create_task(shards.run(), name="discord-shards")
        try:
            await asyncio.wait({connected, watched, sharing}, return_when=asyncio.FIRST_COMPLETED)
            for task in (connected, sharing):
                if task.done():
                    task.result()
            raise ConnectionError("Discord cannot be reached")
        finally:
            watched.cancel()
            sharing.cancel()
            await asyncio.gather(sharing, return_exceptions=True)
            await bot.close_soon()
            for _ in range(_MOST_CANCELS):  # the library swallows one that comes while it connects anew
                connected.cancel()
                if (await asyncio.wait({connected}, timeout=0.1))[0]:
                    break
            await asyncio.gather(watched, return_exceptions=True)
            if connected.done() and not connected.cancelled():
                connected.exception()

    async def _keep_heard(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_SECONDS)
            try:
                await self._heard.keep()
            except Exception:
                logger.exception("how far Discord was heard could not be written down")

    # ------------------------------------------------------------ answering
    def surface(self, mention: Mention) -> Surface:
        if mention.extra.get("token"):
            return PrivateSurface(mention, self._calls, self._opened)
        threads = self._settings.threads and self._may_open_threads(mention)
        return ChannelSurface(mention, self._calls, threads=threads, threadless=self._threadless)

    def _may_open_threads(self, mention: Mention) -> bool:
        """And write in them, as far as is known."""
        channel = self._bot.get_channel(int(mention.place.channel)) if self._bot and mention.place.channel else None
        if not isinstance(channel, discord.TextChannel) or channel.guild.me is None:
            return True
        may = channel.permissions_for(channel.guild.me)
        return may.create_public_threads and may.send_messages_in_threads

    def _opened(self, token: str) -> None:
        if self._desk is not None:
            self._desk.waiting.discard(token)

    async def _explain(self, mention: Mention, text: str) -> None:
        """How to ask, as a reply to whoever called us and said nothing."""
        channel = await self._kvasir.channels.get(mention.place)
        if channel.mode == "off":
            return
        surface = ChannelSurface(mention, self._calls, threads=False, threadless=self._threadless)
        try:
            for number, part in enumerate(shown(text)):
                await surface.send(part, Controls(), f"help-{mention.message_id}-{number}")
        except DeliveryError as error:
            logger.info("how to ask could not be said on Discord: %s", error)

    async def call(self, place: Place, post: str, text: str, people: Sequence[str]) -> None:
        users = [one for one in people if one.isdigit()]
        roles = [one.removeprefix(_ROLE) for one in people if one.startswith(_ROLE) and one[1:].isdigit()]
        names = " ".join([*(f"<@{one}>" for one in users), *(f"<@&{one}>" for one in roles)])
        room = dialect.plain(text).text[: 1990 - len(names)]
        body = body_of(Part(f"{names} {room}"), Controls())
        body["allowed_mentions"] = {"parse": [], "users": users[:100], "roles": roles[:100]}
        body["components"] = [controls.row(controls.button("resolved", post))]
        channel, message = events.split_post(post)
        if post.startswith(events.PRIVATE_POST):
            channel = place.channel
        else:
            body["message_reference"] = {"message_id": message, "fail_if_not_exists": False}
        await self._calls.do("POST", MESSAGES, body, channel_id=channel)

    async def post(self, place: Place, text: str) -> None:
        where = place.thread or place.channel
        reply: dict[str, Any] = {}
        for part in shown(text):
            body = body_of(part, Controls())
            try:
                await self._calls.do("POST", MESSAGES, {**body, **reply}, channel_id=where)
            except Refusal as error:
                if error.code != UNKNOWN_CHANNEL or where == place.channel:
                    raise
                # A conversation whose question has no thread of its own: a chain of replies.
                where = place.channel
                reply = {"message_reference": {"message_id": place.thread, "fail_if_not_exists": False}}
                await self._calls.do("POST", MESSAGES, {**body, **reply}, channel_id=where)

    async def called(self, place: Place) -> str:
        if not place.workspace:  # a private chat
            return ""
        known = (await self._calls.client()).get_channel(int(place.channel))
        name = getattr(known, "name", "") if known is not None else ""
        if not name:
            name = (await self._calls.do("GET", "/channels/{channel_id}", channel_id=place.channel)).get("name") or ""
        return f"#{name}" if name else ""

    async def _share(self, interaction: discord.Interaction[Any], answer_id: str) -> str:
        """Show an answer that one person alone saw to the channel; a sentence where it cannot be."""
        finished = await self._kvasir.answers.recorded(answer_id)
        if finished is None:
            return tell("not_our_message")
        used = {source.passage.kb for source in finished.sources}
        if any(kb.private and kb.name in used for kb in await self._kvasir.knowledge.names()):
            return tell("discord_not_shared_private")
        with speaking(text_language(finished.text)):
            by = dialect.plain(tell("discord_shared_by", name=interaction.user.display_name))
        channel = interaction.channel_id or 0
        try:
            for number, part in enumerate([by, *rendered(finished)][:_MOST_SHARED]):
                nonce = f"s{interaction.id}{number}"[-25:]
                body = body_of(part, Controls(), nonce=nonce, enforce_nonce=True)
                await self._calls.do("POST", MESSAGES, body, channel_id=channel)
        except DeliveryError as error:
            logger.info("an answer could not be shared on Discord: %s", error)
            return tell("discord_not_shared")
        return tell("discord_shared")

    # ------------------------------------------------------------ reading
    async def history(self, mention: Mention, limit: int) -> Sequence[Said]:
        """Of a thread or a private chat; a channel is no conversation."""
        channel = mention.extra.get("channel", "")
        if not channel or (mention.place.workspace and channel == mention.place.channel) or mention.extra.get("token"):
            return ()
        bot = await self._calls.client()
        me = await self._calls.own_id()
        found: list[discord.Message] = []
        chat = bot.get_partial_messageable(int(channel))
        before = chat.history(limit=limit, before=discord.Object(int(mention.message_id)))
        while (message := await guarded(anext(before, None))) is not None:
            found.append(message)
        if mention.place.workspace and len(found) < limit:
            found += await self._starter(bot, int(mention.place.channel), int(channel))
        said = (events.said_of(one, me, name_of(one)) for one in reversed(found))
        return [one for one in said if one is not None]

    async def _starter(self, bot: discord.Client, parent: int, thread: int) -> Sequence[discord.Message]:
        """The message a thread hangs on, which stands in the channel above."""
        try:
            return [await guarded(bot.get_partial_messageable(parent).fetch_message(thread))]
        except DeliveryError:
            return ()

    async def download(self, mention: Mention, file: ChatFile, most: int) -> bytes:  # noqa: ARG002 - the id says all
        url = URL(file.id)
        if url.host not in _FILE_HOSTS and url.origin() != URL(self._settings.api_base or "https://x.invalid").origin():
            raise NotFound(tell("file_not_sent", name=file.name))
        try:
            async with (
                asyncio.timeout(_DOWNLOAD_SECONDS),
                aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.get(url, proxy=self._settings.proxy or None, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise NotFound(tell("file_not_sent", name=file.name))
                return await _read(response, file.name, most)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(tell("file_not_sent", name=file.name)) from error


async def _watch(bot: Bot) -> None:
    """Returns when a shard was away for long: the library tries again ever more seldom, a quarter of an hour apart."""
    away: dict[int, float] = {}
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        now = asyncio.get_running_loop().time()
        away = {number: away.get(number, now) for number, shard in bot.shards.items() if shard.is_closed()}
        if any(now - since > _LONGEST_AWAY for since in away.values()):
            return


async def _read(response: aiohttp.ClientResponse, name: str, most: int) -> bytes:
    data = bytearray()
    async for piece in response.content.iter_chunked(_PIECE):
        data += piece
        if len(data) > most:
            raise TooLarge(tell("file_too_large", name=name, limit=most // 1_000_000))
    return bytes(data)


def shown(text: str) -> Sequence[Part]:
    """Words of ours, which may be a list, as messages."""
    return dialect.render(text, language=text_language(text)).parts
