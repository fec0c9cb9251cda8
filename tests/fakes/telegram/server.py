"""The server a bot talks to, and the means to act as the people who talk to the bot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from aiohttp import web

from tests.fakes.telegram.faults import Fault, error
from tests.fakes.telegram.methods import Asked, Methods, Upload
from tests.fakes.telegram.people import Chat, Document, Message, Person, Press
from tests.fakes.telegram.texts import JSON, Refused, units
from tests.fakes.telegram.world import World

TOKEN: Final = "424242:the-token-of-our-tests-000000000000000"
_LARGEST: Final = 60_000_000


@dataclass
class Call:
    method: str
    asked: JSON


@dataclass
class _Planned:
    method: str
    fault: Fault
    times: int
    after: int


@dataclass
class TelegramServer:
    """`url` and `token` are what a bot is configured with; everything else is what happens around it."""

    world: World
    token: str = TOKEN
    url: str = ""
    revoked: bool = False
    """The token is worth nothing any more."""
    calls: list[Call] = field(default_factory=list)
    """Everything the bot asked for, but updates."""
    _planned: list[_Planned] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._methods = Methods(self.world)

    # ------------------------------------------------------------ people and places
    @property
    def bot(self) -> Person:
        return self.world.bot

    def person(self, name: str, username: str = "", *, language: str = "en", is_bot: bool = False) -> Person:
        person = Person(next(self.world.ids), name, username, language, is_bot)
        self.world.persons[person.id] = person
        return person

    def private(self, person: Person, *, topics: bool = False) -> Chat:
        """The chat of the person with the bot; the same one each time."""
        chat = self.world.chats.get(person.id)
        if chat is None:
            chat = self.world.chats[person.id] = Chat(person.id, "private", person.name, person, forum=topics)
        return chat

    def group(
        self,
        title: str,
        *,
        forum: bool = False,
        bot_is_admin: bool = False,
        bot_is_member: bool = True,
        kind: Literal["group", "supergroup"] = "supergroup",
    ) -> Chat:
        number = next(self.world.ids)
        chat = Chat(-1_000_000_000_000 - number if kind == "supergroup" else -number, kind, title, forum=forum)
        chat.bot_is_admin, chat.bot_is_member = bot_is_admin, bot_is_member
        self.world.chats[chat.id] = chat
        return chat

    def topic(self, chat: Chat, person: Person, name: str) -> int:
        """A new topic; gives the number to write into it."""
        opening = self.world.post(chat, person, "", [], of_topic=name)
        opening.topic = opening.id
        chat.topics[opening.id] = opening
        return opening.id

    def upgrade(self, group: Chat) -> Chat:
        """Make a supergroup of a group: it goes on under another id."""
        successor = self.group(group.title)
        group.moved_to = successor.id
        return successor

    # ------------------------------------------------------------ what people do
    def say(
        self,
        chat: Chat,
        person: Person,
        text: str = "",
        *,
        reply_to: Message | None = None,
        topic: int | None = None,
        document: Document | None = None,
        naming: Person | None = None,
        ago: float = 0,
    ) -> Message:
        """Write in the chat. `naming` puts `@name` in front, a mention by id (for people without a username)."""
        entities: list[JSON] = []
        if naming is not None:
            words = f"@{naming.name}"
            text = f"{words} {text}"
            entities.append({"type": "text_mention", "offset": 0, "length": units(words), "user": naming.json()})
        kept = self.world.keep(document) if document is not None else None
        topic = topic if topic is not None or reply_to is None else reply_to.topic
        message = self.world.post(chat, person, text, entities, ago=ago, reply_to=reply_to, topic=topic, document=kept)
        if self.world.is_for_bot(message) and chat.bot_is_member:
            self.world.mail.put("message", message.json())
        return message

    def mention(self, chat: Chat, person: Person, text: str, **more: Any) -> Message:
        """Write `@bot text`."""
        return self.say(chat, person, f"@{self.bot.username} {text}", **more)

    def speak(self, chat: Chat, person: Person) -> Message:
        """A voice message."""
        message = self.world.post(chat, person, "", [])
        voice = {"file_id": "voice", "file_unique_id": "v", "duration": 3}
        self.world.mail.put("message", {**message.json(), "voice": voice})
        return message

    def edit(self, message: Message, text: str) -> None:
        """The person changes what they wrote."""
        message.text, message.edited = text, message.date + 1
        message.entities = []
        message.versions.append(text)
        self.world.change()
        if self.world.is_for_bot(message):
            self.world.mail.put("edited_message", message.json())

    def delete(self, message: Message) -> None:
        """The message is gone; Telegram tells no bot."""
        message.deleted = True
        self.world.change()

    def press(self, message: Message, person: Person, button: str) -> Press:
        """Press the button with this label."""
        found = [b for row in message.keyboard for b in row if b["text"] == button and "callback_data" in b]
        return self.send_press(message, person, found[0]["callback_data"])

    def send_press(self, message: Message, person: Person, data: str) -> Press:
        """A press with any data, as a changed client can send it."""
        press = Press(str(next(self.world.ids)), person, message, data)
        self.world.presses[press.id] = press
        where = {"inline_message_id": message.inline_id} if message.inline_id else {"message": message.json()}
        query = {"id": press.id, "from": person.json(), "chat_instance": str(message.chat.id), "data": data}
        self.world.mail.put("callback_query", {**query, **where})
        return press

    def react(self, message: Message, person: Person, *emoji: str) -> None:
        """Set the person's reactions on a message; none takes them back."""
        before = message.reactions.get(person.id, [])
        message.reactions[person.id] = list(emoji)
        self.world.change()
        if message.chat.kind != "private" and not message.chat.bot_is_admin:
            return
        old, new = ([{"type": "emoji", "emoji": one} for one in each] for each in (before, emoji))
        self.world.mail.put(
            "message_reaction",
            {
                "chat": message.chat.json(),
                "message_id": message.id,
                "date": message.date,
                "user": person.json(),
                "old_reaction": old,
                "new_reaction": new,
            },
        )

    def summon(self, chat: Chat, person: Person, text: str) -> Message:
        """Mention the bot where it is not a member: a guest message."""
        message = self.world.post(chat, person, f"@{self.bot.username} {text}", [])
        message.guest_query_id = f"guest{next(self.world.ids)}"
        self.world.guest_queries[message.guest_query_id] = message
        self.world.mail.put("guest_message", message.json())
        return message

    def stop(self, chat: Chat) -> None:
        """Press «stop» under the draft that is shown."""
        draft = chat.draft
        assert draft is not None, "no draft is shown"
        assert draft.can_stop, "the draft has no stop button"
        where = {"message_thread_id": draft.topic} if draft.topic is not None else {}
        self.world.mail.put("stopped_message_generation", {"chat": chat.json(), "draft_id": draft.id, **where})

    # ------------------------------------------------------------ what tests see
    def replies(self, message: Message) -> list[Message]:
        """The bot's messages that answer this one and are still there."""
        return [
            m
            for m in message.chat.messages.values()
            if m.reply_to is message and m.sender is self.bot and not m.deleted
        ]

    def ephemeral(self, person: Person) -> list[Message]:
        """What only this person sees."""
        return [m for m in self.world.ephemeral.values() if m.only_for is person and not m.deleted]

    def made(self, method: str) -> list[JSON]:
        """The parameters of every call of the method."""
        return [call.asked for call in self.calls if call.method == method]

    async def until(self, holds: Callable[[], Any], seconds: float = 10) -> None:
        """Wait for what can be seen to be so; raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not holds():
                await self.world.changed.wait()

    def fail(self, method: str, fault: Fault, *, times: int = 1, after: int = 0) -> None:
        """The next `times` calls of the method (`*`: of any), after so many that go well, meet the fault."""
        self._planned.append(_Planned(method.lower(), fault, times, after))

    def heal(self) -> None:
        """No more faults."""
        self._planned.clear()

    # ------------------------------------------------------------ the wire
    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any request to the Bot API."""
        name = request.match_info["method"]
        asked = await _read(request)
        fault = self._fault(name)
        if name.lower() != "getupdates":
            self.calls.append(Call(name, dict(asked.values)))
        self.world.change()
        if fault is None:
            return await self._perform(request, name, asked)
        await asyncio.sleep(fault.wait)
        performed = await self._perform(request, name, asked) if fault.performs else None
        if fault.holds:
            await asyncio.Event().wait()
        if performed is not None and not fault.status:
            return performed
        kind = "application/json" if fault.body.startswith("{") else "text/html"
        return web.Response(status=fault.status, text=fault.body, headers=fault.headers, content_type=kind)

    async def _perform(self, request: web.Request, name: str, asked: Asked) -> web.Response:
        if self.revoked or request.match_info["token"] != self.token:
            return _plain(error(401, "Unauthorized"))
        try:
            result = await self._methods.call(name, asked)
        except Refused as refused:
            return _plain(error(refused.code, refused.description, **refused.parameters))
        return web.json_response({"ok": True, "result": result})

    def _fault(self, name: str) -> Fault | None:
        for planned in self._planned:
            if planned.method in ("*", name.lower()):
                if planned.after > 0:
                    planned.after -= 1
                    continue
                planned.times -= 1
                if planned.times == 0:
                    self._planned.remove(planned)
                return planned.fault
        return None

    async def download(self, request: web.Request) -> web.StreamResponse:
        if self.revoked or request.match_info["token"] != self.token:
            return web.Response(status=401, text="Unauthorized")
        name = request.match_info["path"].removeprefix("documents/").split(".")[0]
        document = self.world.files.get(name)
        if document is None:
            return web.Response(status=404, text="Not Found")
        fault = self._fault("download")
        if fault is not None and fault.holds:
            await asyncio.Event().wait()
        if fault is not None and fault.status:
            return web.Response(status=fault.status, text=fault.body)
        return web.Response(body=document.content)


@asynccontextmanager
async def telegram_server(
    *, username: str = "kvasir_bot", name: str = "Kvasir", token: str = TOKEN
) -> AsyncIterator[TelegramServer]:
    """A server on a free port of loopback, with one bot and nobody else yet."""
    bot = Person(int(token.split(":")[0]), name, username, is_bot=True)
    server = TelegramServer(World(bot), token)
    application = web.Application(client_max_size=_LARGEST)
    application.router.add_route("*", "/bot{token}/{method}", server.answer)
    application.router.add_get("/file/bot{token}/{path:.+}", server.download)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await server.world.mail.close()
        await runner.cleanup()


def _plain(refusal: Fault) -> web.Response:
    return web.Response(status=refusal.status, text=refusal.body, content_type="application/json")


async def _read(request: web.Request) -> Asked:
    values: dict[str, Any] = dict(request.query)
    files: dict[str, Upload] = {}
    if request.content_type == "application/json":
        values |= json.loads(await request.text() or "{}")
    elif request.method == "POST":
        for name, value in (await request.post()).items():
            if isinstance(value, web.FileField):
                files[name] = Upload(value.filename, value.file.read())
                value.file.close()
            else:
                values[name] = value
    return Asked(values, files)
