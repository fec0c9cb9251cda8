"""Telegram as a chat platform: listens to it, and knows what it takes to answer there."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiogram.methods import (
    DeleteWebhook,
    GetChat,
    GetFile,
    GetMe,
    SetMyCommands,
)
from aiogram.types import BotCommand

from bots.errors import DeliveryError, Refused
from bots.inbox import Inbox
from bots.leasing import while_held
from bots.memory import Memory
from bots.platform import Intake
from bots.telegram import events
from bots.telegram.client import Client
from bots.telegram.events import QUOTED, QUOTED_BY, Me
from bots.telegram.lost import Lost
from bots.telegram.managers import Managers
from bots.telegram.polling import Take, persistently, poll
from bots.telegram.surface import TelegramSurface
from bots.telegram.voice import Voice
from bots.telegram.webhook import listen
from core.errors import ConfigError, KvasirError, NotFound, TooLarge, Unavailable
from core.texts import say, speaking, tell
from core.types import ChatEvent, ChatFile, Command, Language, Mention, Place, Press, Said, Thumb

if TYPE_CHECKING:
    from core.app import Kvasir

logger = logging.getLogger(__name__)

_REMEMBERED: Final = 10_000
_COMMANDS: Final = ("ask", "kb", "status", "help", "stop", "keep")
_LANGUAGES: Final[tuple[tuple[Language, str | None], ...]] = (("en", None), ("zh", "zh"))


class Telegram:
    """The port `Messenger`."""

    name = events.NAME

    def __init__(self, kvasir: Kvasir) -> None:
        """Raises ConfigError where the settings cannot be used."""
        self._kvasir = kvasir
        self._settings = kvasir.settings
        if self._settings.telegram.webhook and not self._settings.web.public_url:
            raise ConfigError(tell("telegram_no_public_url"))
        self._client = Client(kvasir.settings.telegram)
        self._memory = Memory(kvasir.db, kvasir.vault, self.name)
        self._managers = Managers(self._client)
        self._voice = Voice(self._client)
        self._me = Me(self._client.bot.id, "")
        self._inbox = Inbox(kvasir.db)
        self._lost = Lost(self._client, self._inbox, self._me.id)
        self._threads: OrderedDict[tuple[int, int], str] = OrderedDict()
        """Of messages seen lately, by chat and number: a reply to one belongs to the same conversation."""
        self._listening = False
        self._standing_by = False
        """Another process asks for updates."""
        self._seen: OrderedDict[int, None] = OrderedDict()
        """Updates that were dealt with."""

    # ------------------------------------------------------------ the port
    @property
    def connected(self) -> bool:
        return self._listening and self._client.reached

    @property
    def standing_by(self) -> bool:
        return self._standing_by and self._client.reached

    @property
    def spread(self) -> bool:
        return self._settings.telegram.webhook

    async def run(self, intake: Intake) -> None:
        refused: Refused | None = None
        async with self._client.connected(), asyncio.TaskGroup() as errands:
            try:
                await self._introduce()
                take = partial(self._take, intake, errands)
                if self._settings.telegram.webhook:
                    self._listening = True
                    await listen(self._client, self._settings, self._memory, take)
                else:
                    asking = partial(self._ask, take)
                    lease = f"{self.name}/{self._me.id}"
                    await while_held(self._kvasir.leases, lease, self._kvasir.presence.id, asking, self._asks)
            except Refused as error:  # out of the group as it is, not as a group of errors
                refused = error
            finally:
                self._listening = self._standing_by = False
        if refused is not None:
            raise refused

    async def _ask(self, take: Take) -> None:
        await self._leave_webhook()
        await poll(self._client, events.UPDATES, take)

    def _asks(self, is_ours: bool) -> None:
        """Telegram lets one process ask for updates; the others answer and post, and one of them follows it."""
        if self._standing_by != (not is_ours):
            logger.info("this process %s", "asks for updates" if is_ours else "stands by; another asks for updates")
        self._listening, self._standing_by = is_ours, not is_ours

    def surface(self, mention: Mention) -> TelegramSurface:
        return TelegramSurface(self._client, self._lost, mention)

    async def history(self, mention: Mention, limit: int) -> Sequence[Said]:  # noqa: ARG002  there is one at most
        """The message that was replied to; no bot can read more."""
        quoted = mention.extra.get(QUOTED)
        return [Said(quoted, mention.extra.get(QUOTED_BY, ""))] if quoted else ()

    async def download(self, mention: Mention, file: ChatFile, most: int) -> bytes:  # noqa: ARG002  files need no place
        try:
            found = await self._client.call(GetFile(file_id=file.id))
            if not found.file_path:
                raise NotFound(tell("file_not_sent", name=file.name))
            return await self._client.read(found.file_path, most)
        except Refused as error:
            if "too big" in str(error):
                raise TooLarge(tell("telegram_file_too_big", name=file.name)) from error
            raise NotFound(tell("file_not_sent", name=file.name)) from error
        except TooLarge as error:
            raise TooLarge(tell("file_too_large", name=file.name, limit=most // 1_000_000)) from error
        except DeliveryError as error:
            raise Unavailable(tell("file_not_sent", name=file.name)) from error

    async def call(self, place: Place, post: str, text: str, people: Sequence[str]) -> None:
        await self._voice.call(place, post, text, people)

    async def post(self, place: Place, text: str) -> None:
        await self._voice.post(place, text)

    async def called(self, place: Place) -> str:
        if not place.channel.lstrip("-").isdecimal():
            return ""
        chat = await self._client.call(GetChat(chat_id=int(place.channel)))
        return chat.title or (f"@{chat.username}" if chat.username else chat.full_name)

    # ------------------------------------------------------------ at the start
    async def _introduce(self) -> None:
        """Who we are, what our server can, and the menu of commands."""
        me = await persistently(self._client, GetMe())
        self._me = Me(me.id, me.username or "")
        logger.info("on Telegram as @%s", self._me.username)
        if not me.can_read_all_group_messages:
            logger.info("privacy mode is on: in groups only mentions, replies and commands arrive")
        for language, code in _LANGUAGES:
            menu = [BotCommand(command=name, description=say(f"telegram_menu_{name}", language)) for name in _COMMANDS]
            try:
                await self._client.call(SetMyCommands(commands=menu, language_code=code))
            except DeliveryError as error:
                logger.warning("the menu of commands could not be set: %s", error)

    async def _leave_webhook(self) -> None:
        """A bot that is called gives no updates; whether the token is good, asking for them tells."""
        try:
            await persistently(self._client, DeleteWebhook())
        except Refused as error:
            logger.warning("the webhook could not be taken back: %s", error)

    # ------------------------------------------------------------ what comes
    async def _take(self, intake: Intake, errands: asyncio.TaskGroup, update: Mapping[str, Any]) -> None:
        """Deal with an update. Raises Unavailable where it could not be kept; it must come again then."""
        number = int(update["update_id"])
        if number in self._seen:
            return
        allowed = self._settings.telegram.allowed
        if allowed and events.ids_of(update).isdisjoint(allowed):
            logger.debug("an update of somebody who is not in telegram.allowed was passed over")
            return
        language = self._settings.language
        try:
            with speaking(events.language_of(update) if language == "auto" else language):
                await self._translated(intake, errands, update)
        except Unavailable:
            raise
        except Exception:  # one update that we do not understand must not stop all others
            logger.exception("update %s of Telegram was passed over", number)
        _remember(self._seen, number, None)

    async def _translated(self, intake: Intake, errands: asyncio.TaskGroup, update: Mapping[str, Any]) -> None:
        match update:
            case {"message": message} | {"guest_message": message}:
                await self._said(intake, errands, message, edited=False)
            case {"edited_message": message}:
                await self._said(intake, errands, message, edited=True)
            case {"callback_query": query}:
                event = events.pressed(query)
                if isinstance(event, Thumb):
                    event = replace(event, reason=tell(f"reason_{event.reason}") if event.reason else "")
                    self._later(errands, self._voice.thank(query, event, await intake.take(event)))
                else:
                    self._later(errands, self._pressed(intake, query, event))
            case {"message_reaction": reaction}:
                thumb = events.reacted(reaction)
                if thumb is not None:
                    await intake.take(thumb)
            case {"stopped_message_generation": generation}:
                self._later(errands, intake.take(events.stopped(generation)))

    async def _said(
        self, intake: Intake, errands: asyncio.TaskGroup, message: Mapping[str, Any], *, edited: bool
    ) -> None:
        thread = await self._thread(intake, message)
        event = events.said(message, self._me, thread=thread, edited=edited)
        if event is None:
            if events.is_unreadable(message) and not edited:
                self._later(errands, self._voice.say(message, tell("telegram_unreadable")))
            return
        if not isinstance(event, Mention):
            self._later(errands, self._about_us(intake, event, message))
            return
        key = (message["chat"]["id"], message["message_id"])
        _remember(self._threads, key, event.place.thread)
        sentence = await intake.take(event)
        if sentence:
            self._later(errands, self._voice.say(message, sentence))

    async def _thread(self, intake: Intake, message: Mapping[str, Any]) -> str:
        """The conversation of what a message answers; empty where it answers nothing that is known."""
        chat = message["chat"]["id"]
        if (post := events.replied_post(message, self._me)) is not None:
            found = await intake.thread_of(events.place_of(chat), post)
            if found is not None:
                return found
        replied = (message.get("reply_to_message") or {}).get("message_id", 0)
        if (chat, replied) not in self._threads and replied:
            asked = await self._inbox.of(events.place_of(chat), str(replied))  # of another process, or before a restart
            return asked.mention.place.thread if asked is not None else ""
        return self._threads.get((chat, replied), "")

    def _later(self, errands: asyncio.TaskGroup, errand: Coroutine[Any, Any, object]) -> None:
        """Do it beside what comes next; it is not worth stopping for."""
        errands.create_task(_logged(errand))

    async def _about_us(self, intake: Intake, event: ChatEvent, message: Mapping[str, Any]) -> None:
        if isinstance(event, Command | Press) and not event.may_manage:
            event = replace(event, may_manage=await self._manages(event))
        sentence = await intake.take(event)
        if sentence:
            await self._voice.say(message, sentence)

    async def _pressed(self, intake: Intake, query: Mapping[str, Any], event: Press | None) -> None:
        sentence = ""
        if event is not None:
            if not event.may_manage and event.place.channel != events.GUESTS:
                event = replace(event, may_manage=await self._manages(event))
            sentence = await intake.take(event)
        await self._voice.toast(query, sentence)

    async def _manages(self, event: Command | Press) -> bool:
        user = int(event.person.key.rpartition(":")[2])
        return await self._managers.is_manager(int(event.place.channel), user)


async def _logged(errand: Coroutine[Any, Any, object]) -> None:
    try:
        await errand
    except (DeliveryError, KvasirError) as error:
        logger.info("not said on Telegram: %s", error)
    except Exception:
        logger.exception("something could not be said on Telegram")


def _remember(known: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    """The newest entries of many."""
    known[key] = value
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
