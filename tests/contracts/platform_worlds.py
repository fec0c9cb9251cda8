"""Each place where people talk to Kvasir, behind one face: the real client library, our server, our adapter."""

from __future__ import annotations

import asyncio
import io
import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any, ClassVar, Final, Literal, cast

from pydantic import SecretStr
from rich.console import Console

from admin.chat.platform import WebPlatform
from bots.discord.platform import DiscordPlatform
from bots.handler import ChatHandler
from bots.inbox import Inbox, LeaseLost
from bots.intake import Intake
from bots.platform import Messenger
from bots.slack import socket as slack_socket
from bots.slack.platform import Slack
from bots.telegram.platform import Telegram
from bots.telegram.surface import IN_GROUP
from bots.terminal.platform import TerminalPlatform
from core.app import Kvasir
from core.types import Mention, Person, Place
from core.vault import Vault
from tests.bots import discord_world, slack_world
from tests.bots.conftest import Front
from tests.fakes import telegram as telegram_fakes
from tests.fakes.discord_server import TOKEN, DiscordServer
from tests.fakes.discord_server.limits import length
from tests.fakes.discord_server.server import Fault
from tests.fakes.slack import SlackServer
from tests.fakes.slack.faults import Refusal

_FENCED: Final = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SLACK_CALLS: Final = re.compile(r"<[!@#]|(?<!\w)@(?:here|channel|everyone)\b")
_ADDRESS: Final = re.compile(r"https?://\S+")

Thumb = Literal[-1, 1]


@dataclass(frozen=True)
class Shown:
    """A message of ours as everybody sees it."""

    id: Any
    text: str
    size: int
    """As the platform counts."""
    code: str = ""
    """What stands in it as code."""
    buttons: frozenset[str] = frozenset()
    """Of rate, again, stop."""
    called: Sequence[str] = ()
    """Who was notified by it."""
    fetched: Sequence[str] = ()
    """Addresses that the platform may open for a preview."""
    ours: Any = None


class AnswerWorld(ABC):
    """Somewhere a question can be asked."""

    name: ClassVar[str]
    longest: ClassVar[int]
    """Of one message, as the platform counts."""

    def __init__(self, front: Front) -> None:
        self.front = front

    shortened: ClassVar[Mapping[str, Any]] = {}
    """Pauses and time limits of the adapter, as a test wants them."""

    def server(self) -> Any:
        """The other side, as `async with`, where there is one."""
        return nullcontext()

    @abstractmethod
    def process(self) -> Any:
        """A process of ours from its start to its stop, as `async with`."""

    @abstractmethod
    async def ask(self, text: str) -> Any:
        """Ask; gives the question, at once."""

    @abstractmethod
    async def answered(self, asked: Any) -> Sequence[Shown]:
        """All messages of the answer, when it stands and all is quiet."""


# ---------------------------------------------------------------- the terminal and the web page
@dataclass
class _Screen:
    front: Front

    async def new_conversation(self) -> str:
        return (await self.front.house.conversations.start("terminal", "terminal:operator")).id

    async def kbs(self) -> Sequence[str]:
        return list(self.front.knowledge.there)


async def _no_lines() -> None:
    """Nobody types."""


class TerminalWorld(AnswerWorld):
    name, longest = "terminal", 1_000_000

    @asynccontextmanager
    async def process(self) -> AsyncIterator[None]:
        self._tasks: list[asyncio.Task[None]] = []
        yield
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def ask(self, text: str) -> Any:
        file = io.StringIO()
        console = Console(file=file, width=100, height=24, highlight=False, emoji=False, markup=False)
        platform = TerminalPlatform(console, _no_lines, _Screen(self.front), kb="handbook", language="en")
        work = asyncio.create_task(self._answer(platform, text))
        self._tasks.append(work)
        return work, platform, file

    async def _answer(self, platform: TerminalPlatform, text: str) -> None:
        await ChatHandler(self.front.kvasir).on_mention(platform, await platform.mention(text))

    async def answered(self, asked: Any) -> Sequence[Shown]:
        work, platform, file = asked
        async with asyncio.timeout(20):
            await work
        text = file.getvalue() or platform.last.failure
        return [Shown("", text, len(text), code=text)]


class WebWorld(AnswerWorld):
    name, longest = "web", 1_000_000

    @asynccontextmanager
    async def process(self) -> AsyncIterator[None]:
        self._platform = WebPlatform(ChatHandler(self.front.kvasir))
        self._tasks: list[asyncio.Task[Any]] = []
        yield
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def ask(self, text: str) -> Any:
        person = Person("web:ann", "Ann")
        conversation = await self.front.house.conversations.start("web", person.key)
        mention = Mention(Place("web"), conversation.id, person, text, conversation_id=conversation.id)
        work = asyncio.create_task(self._events(mention))
        self._tasks.append(work)
        return work

    async def _events(self, mention: Mention) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        events = self._platform.ask(mention)
        try:
            async for piece in events:
                name, data = piece.decode().removeprefix("event: ").split("\ndata: ", 1)
                found.append((name, json.loads(data)))
        finally:
            await events.aclose()
        return found

    async def answered(self, asked: Any) -> Sequence[Shown]:
        async with asyncio.timeout(20):
            events = await asked
        name, last = events[-1]
        if name == "error":
            return [Shown("", last["detail"], 0)]
        names = "\n".join(source["document"] for source in last["sources"])
        page = _Page()
        page.feed(last["html"])
        text = f"{''.join(page.text)}\n{names}"
        return [Shown("", text, len(text), "".join(page.code), called=page.alive, fetched=page.fetched)]


class _Page(HTMLParser):
    """What a browser would make of an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.code: list[str] = []
        self.alive: list[str] = []
        """What runs, or leads away."""
        self.fetched: list[str] = []
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._inside.append(tag)
        self.alive += [f"{tag} {name}" for name, _ in attributes if name.startswith("on") or name in ("href", "style")]
        if tag in ("script", "iframe", "form", "object", "embed"):
            self.alive.append(tag)
        self.fetched += [f"{tag} {value}" for name, value in attributes if name in ("src", "srcset", "data", "poster")]

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "pre" in self._inside:
            self.code.append(data)


# ---------------------------------------------------------------- platforms made of messages
class _Once(dict[str, float]):
    """Waits that hold for one call each."""

    def get(self, key: str, default: Any = None) -> Any:
        return self.pop(key, default)


@dataclass(eq=False)
class Process:
    """One process of ours."""

    messenger: Messenger
    intake: Intake
    running: asyncio.Task[None]

    async def stop(self, grace: float = 0.2) -> None:
        """As by SIGTERM."""
        await self.intake.close(grace)
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def kill(self) -> None:
        """As by kill -9: our database never hears of anything that happens from now on."""
        for name in ("release", "finish", "add_post"):
            setattr(self.intake._inbox, name, _dead)
        self.running.cancel()
        # At once: to leave a platform takes a while, in which an answer would go on.
        await asyncio.gather(self.running, self.intake.close(0), return_exceptions=True)


async def _dead(*_: object) -> None:
    raise LeaseLost


@dataclass
class ChatWorld(AnswerWorld):
    """A platform of which our own server plays the other side."""

    front: Front
    processes: list[Process] = field(default_factory=list)
    _doing: set[asyncio.Task[Any]] = field(default_factory=set)

    several: ClassVar[bool] = True
    """It tells several processes of the same bot at once."""
    tells_deletions: ClassVar[bool] = True
    dead_after: float = 60.0
    """Seconds of silence after which a bot takes its connection for dead; short ones a busy machine brings, too."""

    # ------------------------------------------------------------ processes
    @abstractmethod
    def kvasir(self) -> Kvasir: ...

    @abstractmethod
    def open(self, kvasir: Kvasir) -> Messenger: ...

    @abstractmethod
    async def listening(self) -> None:
        """Until all processes have their connection."""

    async def start(self) -> Process:
        kvasir = self.kvasir()
        messenger = self.open(kvasir)
        intake = Intake(kvasir, ChatHandler(kvasir), messenger, Inbox(kvasir.db))
        await intake.take_over(everything=not self.processes)
        process = Process(messenger, intake, asyncio.create_task(messenger.run(intake)))
        self.processes.append(process)
        connected = asyncio.create_task(self.listening())
        await asyncio.wait({process.running, connected}, return_when=asyncio.FIRST_COMPLETED)
        connected.cancel()
        await asyncio.gather(connected, return_exceptions=True)
        if process.running.done():
            process.running.result()
        return process

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Process]:
        process = await self.start()
        try:
            yield process
        finally:
            if process in self.processes:
                self.processes.remove(process)
                await process.stop()
            await self.rest()

    async def rest(self) -> None:
        """Let what people began to do come to its end, where it can."""
        for task in self._doing:
            task.cancel()
        await asyncio.gather(*self._doing, return_exceptions=True)

    async def kill(self, process: Process) -> None:
        self.processes.remove(process)
        await process.kill()

    async def stop_process(self, process: Process, grace: float) -> None:
        self.processes.remove(process)
        await process.stop(grace)

    def do(self, work: Any) -> None:
        """Let somebody do it, without waiting for what the bot says."""
        task = asyncio.ensure_future(work)
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)

    # ------------------------------------------------------------ people
    @abstractmethod
    def repeat(self, times: int) -> None:
        """From now on everything that happens is told so often."""

    @abstractmethod
    async def ask_backwards(self, texts: Sequence[str]) -> Sequence[Any]:
        """Several questions at once, of which the bot hears last first."""

    @abstractmethod
    def messages(self, asked: Any) -> Sequence[Any]:
        """Our messages in answer to it that everybody sees now, as the platform has them."""

    @abstractmethod
    def see(self, message: Any) -> Shown:
        """One of them as a person sees it."""

    def shown(self, asked: Any) -> Sequence[Shown]:
        return [self.see(message) for message in self.messages(asked)]

    @abstractmethod
    async def again(self, shown: Shown) -> None:
        """Press «Answer again»."""

    @abstractmethod
    async def stop(self, asked: Any) -> None:
        """Press the button that stops the answer."""

    @abstractmethod
    async def thumb(self, shown: Shown, value: Thumb) -> None:
        """Press a thumb."""

    @abstractmethod
    async def react(self, shown: Shown, value: Thumb) -> None: ...

    @abstractmethod
    async def unreact(self, shown: Shown, value: Thumb) -> None: ...

    @abstractmethod
    async def edit(self, asked: Any, text: str) -> None: ...

    @abstractmethod
    async def delete(self, asked: Any) -> None: ...

    # ------------------------------------------------------------ trouble
    @abstractmethod
    def limits(self) -> Mapping[str, Callable[[], None]]:
        """The ways in which it says «too often»."""

    @abstractmethod
    def faults(self) -> Mapping[str, Callable[[], None]]:
        """Calls that fail, are lost, or hang."""

    def faults_within(self) -> Mapping[str, Callable[[], None]]:
        """The same for the further messages of a long answer."""
        return self.faults()

    @abstractmethod
    def unmet(self) -> object:
        """What limits and faults were not met yet."""

    @abstractmethod
    def slow(self, seconds: float) -> None:
        """Take so long for every call from now on."""

    @abstractmethod
    async def go_silent(self) -> None:
        """The connection over which events come is open, and dead."""

    @abstractmethod
    def cut(self) -> None:
        """That connection is closed by the other side."""

    @abstractmethod
    def revoke(self) -> None:
        """The token is worth nothing any more."""

    # ------------------------------------------------------------ what tests see
    async def answered(self, asked: Any) -> Sequence[Shown]:
        await self.until(lambda: (found := self.messages(asked)) and "rate" in self.see(found[-1]).buttons)
        await self.quiet()
        return self.shown(asked)

    async def until_messages(self, asked: Any, count: int) -> None:
        await self.until(lambda: len(self.messages(asked)) >= count)

    async def until_said(self, asked: Any, text: str) -> None:
        """Until it stands in our first message."""
        await self.until(lambda: text in self.shown(asked)[0].text)

    async def told(self) -> None:
        """Until the bot has said that it knows of all that people did."""
        async with asyncio.timeout(20):
            await asyncio.gather(*self._doing)

    async def quiet(self) -> None:
        await self.until(lambda: not any(process.intake._working for process in self.processes))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.02)

    async def votes(self) -> list[int]:
        return [rating.value for rating in await self.front.kvasir.feedback.list()]

    async def voted(self, *values: int) -> None:
        """Until exactly these votes stand."""
        async with asyncio.timeout(10):
            while await self.votes() != list(values):
                await asyncio.sleep(0.02)


class SlackWorld(ChatWorld):
    name, longest = "slack", 12_000
    shortened: ClassVar[Mapping[str, Any]] = {
        "bots.slack.client._UNSAID_WAIT": 0.05,
        "bots.slack.client.TIMEOUT": 0.6,
        "bots.slack.socket._PING_SECONDS": 5,
        "bots.slack.surface._STOPPABLE_AFTER": 0,
    }

    @asynccontextmanager
    async def server(self) -> AsyncIterator[None]:
        async with SlackServer() as self.slack:
            self.slack.delivery.retry_pauses, self.slack.delivery.ack_seconds = (0.0, 0.2, 0.5), 1.0
            yield

    def kvasir(self) -> Kvasir:
        return slack_world.kvasir_of(self.front, self.slack)

    def open(self, kvasir: Kvasir) -> Messenger:
        vars(slack_socket)["_PING_SECONDS"] = self.dead_after / 4  # as the library counts
        return Slack(kvasir)

    async def listening(self) -> None:
        await self.slack.delivery.connected(len(self.processes))

    def repeat(self, times: int) -> None:
        self.slack.people.copies, self.slack.people.pair = times, True

    async def ask(self, text: str) -> Any:
        self.do(self.slack.people.mention(text))
        await asyncio.sleep(0)
        return self.slack.channel.messages[-1]

    async def ask_backwards(self, texts: Sequence[str]) -> Sequence[Any]:
        async with self.slack.delivery.holding() as held:
            asked = [await self.slack.people.mention(text) for text in texts]
            held.reverse()
        return asked

    def messages(self, asked: Any) -> Sequence[Any]:
        return self.slack.channel.answers(asked.ts)

    def see(self, message: Any) -> Shown:
        body = message.body
        return Shown(
            message.ts,
            body,
            len(body),
            "".join(_FENCED.findall(body)),
            frozenset(element["action_id"].removeprefix("kvasir:") for element in message.elements()),
            [call for said in (body, *message.history) for call in _SLACK_CALLS.findall(said)],
            _ADDRESS.findall(body) if message.unfurl != (False, False) else (),
            message,
        )

    async def again(self, shown: Shown) -> None:
        self.do(self.slack.people.click(shown.ours, "kvasir:again"))

    async def stop(self, asked: Any) -> None:
        await self.until(lambda: self.slack.channel.sessions.get(asked.ts) == "processing")
        self.do(self.slack.people.stop(asked))

    async def thumb(self, shown: Shown, value: Thumb) -> None:
        self.do(self.slack.people.click(shown.ours, "up:" if value > 0 else "down:"))

    async def react(self, shown: Shown, value: Thumb) -> None:
        self.do(self.slack.people.react(shown.ours, "+1" if value > 0 else "-1"))

    async def unreact(self, shown: Shown, value: Thumb) -> None:
        self.do(self.slack.people.unreact(shown.ours, "+1" if value > 0 else "-1"))

    async def edit(self, asked: Any, text: str) -> None:
        self.do(self.slack.people.edit(asked, f"<@{self.slack.workspace.bot_user}> {text}"))

    async def delete(self, asked: Any) -> None:
        self.do(self.slack.people.delete(asked))

    def limits(self) -> Mapping[str, Callable[[], None]]:
        forms = {"no wait": "0", "one second": "1", "no time": None, "a fraction": "0.05", "words": "soon"}
        ways: dict[str, Callable[[], None]] = {
            name: lambda given=given: self._limit(given, ("chat.stopStream",))  # type: ignore[misc]
            for name, given in forms.items()
        }
        by_edits = ("chat.startStream", "chat.postMessage", "chat.update")
        ways["a fraction, all but the end of streams"] = lambda: self._limit("0.05", by_edits)
        return ways

    def _limit(self, given: str | None, methods: Sequence[str]) -> None:
        for method in methods:
            self.slack.faults.rate_limit(method, given)

    def faults(self) -> Mapping[str, Callable[[], None]]:
        faults = self.slack.faults
        unwell = Refusal(503, body="<html>Bad gateway</html>")
        return {
            "unwell at first": lambda: faults.refuse("chat.startStream", unwell),
            "unwell at the end": lambda: faults.refuse("chat.stopStream", unwell, 2),
            "an error of its own": lambda: faults.refuse("chat.startStream", Refusal(error="internal_error")),
            "a lost beginning": lambda: faults.lose_answers("chat.startStream"),
            "a lost end": lambda: faults.lose_answers("chat.stopStream"),
            "a dead beginning": lambda: self._hang("chat.startStream"),
            "a dead end": lambda: self._hang("chat.stopStream"),
        }

    def faults_within(self) -> Mapping[str, Callable[[], None]]:
        faults = self.slack.faults
        unwell = Refusal(503, body="<html>Bad gateway</html>")
        send, edit = "chat.postMessage", "chat.update"
        return {
            "unwell": lambda: faults.refuse(send, unwell, 2),
            "unwell in an edit": lambda: faults.refuse(edit, unwell),
            "too often": lambda: self._limit("0.05", (send, edit)),
            "a lost message": lambda: faults.lose_answers(send),
            "a lost edit": lambda: faults.lose_answers(edit),
            "a dead message": lambda: self._hang(send),
            "a dead edit": lambda: self._hang(edit),
        }

    def _hang(self, method: str) -> None:
        self.slack.faults.slow = _Once({method: 3600.0})

    def unmet(self) -> object:
        faults = self.slack.faults
        return {
            **{method: list(left) for method, left in faults._refusals.items() if left},
            **{method: left for method, left in faults._lost.items() if left},
            **{method: wait for method, wait in faults.slow.items() if method != "*"},
        }

    def slow(self, seconds: float) -> None:
        self.slack.faults.slow = {"*": seconds}

    async def go_silent(self) -> None:
        for socket in self.slack.delivery.live:
            socket.silent = True

    def cut(self) -> None:
        for socket in self.slack.delivery.live:
            self.do(socket.cut())

    def revoke(self) -> None:
        self.slack.workspace.revoked = "token_revoked"


class DiscordWorld(ChatWorld):
    name, longest = "discord", 2000
    shortened: ClassVar[Mapping[str, Any]] = {
        "bots.discord.calls._UNSAID_WAIT": 0.05,
        "bots.discord.calls.LONGEST_WAIT": 0.5,
        "bots.discord.calls.guarded.__defaults__": (0.8,),
        "bots.discord.client._BETWEEN_IDENTIFIES": 0.0,
    }

    @asynccontextmanager
    async def server(self) -> AsyncIterator[None]:
        async with DiscordServer() as self.discord:
            yield

    def kvasir(self) -> Kvasir:
        return discord_world.kvasir_of(self.front, self.discord, token=SecretStr(TOKEN))

    def open(self, kvasir: Kvasir) -> Messenger:
        platform = DiscordPlatform(kvasir)
        stand = platform._calls.stand

        def patient(client: Any) -> None:
            client._connection.heartbeat_timeout = self.dead_after
            stand(client)

        platform._calls.stand = patient  # type: ignore[method-assign]
        return platform

    async def listening(self) -> None:
        await self.discord.until(lambda: self.discord.clients)  # one has the only shard, others would take it over

    def repeat(self, times: int) -> None:
        self.discord.gateway.repeat = times

    async def ask(self, text: str) -> Any:
        return self._ask(text)

    def _ask(self, text: str) -> Any:
        return self.discord.mention(self.discord.world.ann, self.discord.world.general, text)

    async def ask_backwards(self, texts: Sequence[str]) -> Sequence[Any]:
        with self.discord.gateway.holding():
            return [self._ask(text) for text in texts]

    def messages(self, asked: Any) -> Sequence[Any]:
        return self.discord.answers(asked)

    def see(self, message: Any) -> Shown:
        text = message.text
        ids = {one.split(":")[1] for one in message.buttons.values()}
        buttons = frozenset("rate" if one == "down" else one for one in ids)
        code = "".join(_FENCED.findall(text))
        return Shown(message.id, text, length(text), code, buttons, sorted(message.pinged), message.previews, message)

    async def again(self, shown: Shown) -> None:
        self.discord.click(self.discord.world.ann, shown.ours, "kvasir:again")

    async def stop(self, asked: Any) -> None:
        await self.until(lambda: self.shown(asked))
        self.discord.click(self.discord.world.ann, self.shown(asked)[0].ours, "kvasir:stop")

    async def thumb(self, shown: Shown, value: Thumb) -> None:
        self.discord.click(self.discord.world.ann, shown.ours, "👍" if value > 0 else "👎")

    async def react(self, shown: Shown, value: Thumb) -> None:
        self.discord.react(self.discord.world.ann, shown.ours, "👍" if value > 0 else "👎")

    async def unreact(self, shown: Shown, value: Thumb) -> None:
        self.discord.unreact(self.discord.world.ann, shown.ours, "👍" if value > 0 else "👎")

    async def edit(self, asked: Any, text: str) -> None:
        self.discord.edit(asked, f"<@{self.discord.world.bot.id}> {text}")

    async def delete(self, asked: Any) -> None:
        self.discord.delete(asked)

    def limits(self) -> Mapping[str, Callable[[], None]]:
        waits = {"no wait": 0.0, "one second": 1.0, "milliseconds": 0.05}
        ways: dict[str, Callable[[], None]] = {
            f"{form}, {method}": lambda wait=wait, method=method, path=path: self.discord.limit_next(  # type: ignore[misc]
                method, path, wait=wait
            )
            for form, wait in waits.items()
            for method, path in (("POST", "/messages$"), ("PATCH", r"/messages/\d+$"))
        }
        ways["the whole bot"] = lambda: self.discord.limit_next("POST", "/messages$", wait=0.1, all=True)
        ways["no time"] = lambda: self.discord.faults.append(
            Fault("POST", "/messages$", status=429, body={"message": "slow down", "code": 0})
        )
        return ways

    def faults(self) -> Mapping[str, Callable[[], None]]:
        discord = self.discord
        send, edit = ("POST", "/messages$"), ("PATCH", "/messages/")
        return {
            "unwell at first": lambda: discord.fail(*send),
            "unwell at the end": lambda: discord.fail(*edit, times=2),
            "a lost beginning": lambda: discord.cut(*send, applied=True),
            "a lost end": lambda: discord.cut(*edit, applied=True),
            "done, and said to have failed": lambda: discord.fail(*send, applied=True),
            "a dead beginning": lambda: discord.hang(*send),
            "a dead end": lambda: discord.hang(*edit),
        }

    def faults_within(self) -> Mapping[str, Callable[[], None]]:
        """A message of its own is complete when it is sent."""
        faults = self.faults()
        names = ("unwell at first", "a lost beginning", "done, and said to have failed", "a dead beginning")
        return {name: faults[name] for name in names}

    def unmet(self) -> object:
        return [fault for fault in self.discord.faults if fault.times]

    def slow(self, seconds: float) -> None:
        self.discord.slow = seconds

    async def go_silent(self) -> None:
        self.discord.gateway.go_silent()

    def cut(self) -> None:
        self.discord.gateway.close_all(4000)

    def revoke(self) -> None:
        self.discord.revoke_token()


class TelegramWorld(ChatWorld):
    name, longest = "telegram", 4096
    several, tells_deletions = False, False
    shortened: ClassVar[Mapping[str, Any]] = {
        "bots.telegram.client._UNSAID_WAIT": 0.05,
        "bots.telegram.client._CALL_SECONDS": 0.6,
        "bots.telegram.polling.POLL_SECONDS": 1,
        "bots.telegram.polling._ANSWER_SECONDS": 0.3,
        "bots.telegram.polling._FIRST_WAIT": 0.05,
        "bots.telegram.surface.IN_GROUP": replace(IN_GROUP, edit_interval=0.32),
    }

    @asynccontextmanager
    async def server(self) -> AsyncIterator[None]:
        async with telegram_fakes.telegram_server() as self.telegram:
            self.ann = self.telegram.person("Ann", "ann_smith")
            self.telegram.person("Bob", "bob_smith")
            self.group = self.telegram.group("Team", bot_is_admin=True)
            yield

    def kvasir(self) -> Kvasir:
        settings = self.front.house.settings
        section = type(settings.telegram)(token=SecretStr(self.telegram.token), api_base=self.telegram.url)
        changed = settings.model_copy(update={"telegram": section})
        values = {**vars(self.front.kvasir), "settings": changed, "vault": Vault(settings.data_dir)}
        return cast(Kvasir, SimpleNamespace(**values))

    def open(self, kvasir: Kvasir) -> Messenger:
        return Telegram(kvasir)

    async def listening(self) -> None:
        await self.telegram.until(lambda: self.telegram.world.mail._poll is not None)

    def repeat(self, times: int) -> None:
        self.telegram.world.mail.copies = times

    async def ask(self, text: str) -> Any:
        return self.telegram.mention(self.group, self.ann, text)

    async def ask_backwards(self, texts: Sequence[str]) -> Sequence[Any]:
        self.telegram.world.mail.backwards = True
        return [await self.ask(text) for text in texts]

    def messages(self, asked: Any) -> Sequence[Any]:
        return self.telegram.replies(asked)

    def see(self, message: Any) -> Shown:
        names = {"👎": "rate", "Answer again": "again", "Stop": "stop"}
        buttons = frozenset(names.get(one, one) for one in message.buttons)
        fetched = [address for _, address in message.links] if message.preview else []
        size = telegram_fakes.units(message.text)
        code = "\n".join(message.formatted("pre"))
        return Shown(message.id, message.text, size, code, buttons, message.pinged, fetched, message)

    async def again(self, shown: Shown) -> None:
        self.telegram.press(shown.ours, self.ann, "Answer again")

    async def stop(self, asked: Any) -> None:
        await self.until(lambda: self.shown(asked))
        self.telegram.press(self.shown(asked)[0].ours, self.ann, "Stop")

    async def thumb(self, shown: Shown, value: Thumb) -> None:
        self.telegram.press(shown.ours, self.ann, "👍" if value > 0 else "👎")

    async def react(self, shown: Shown, value: Thumb) -> None:
        self.telegram.react(shown.ours, self.ann, "👍" if value > 0 else "👎")

    async def unreact(self, shown: Shown, value: Thumb) -> None:
        self.telegram.react(shown.ours, self.ann)

    async def edit(self, asked: Any, text: str) -> None:
        self.telegram.edit(asked, f"@{self.telegram.bot.username} {text}")

    async def delete(self, asked: Any) -> None:
        self.telegram.delete(asked)

    def limits(self) -> Mapping[str, Callable[[], None]]:
        flood, send, edit = telegram_fakes.flood, "sendMessage", "editMessageText"
        return {
            "no wait": lambda: self._fail(flood(0)),
            "one second": lambda: self._fail(flood(1), edit),
            "in words alone": lambda: self._fail(flood(1, "description"), send),
            "no time": lambda: self._fail(flood(1, "bare")),
            "a proxy": lambda: self._fail(flood(1, "header")),
        }

    def _fail(self, fault: telegram_fakes.Fault, *methods: str, times: int = 1) -> None:
        for method in methods or ("sendMessage", "editMessageText"):
            self.telegram.fail(method, fault, times=times)
            self.telegram._planned.insert(0, self.telegram._planned.pop())  # before what holds for all calls

    def faults(self) -> Mapping[str, Callable[[], None]]:
        unwell, garbage = telegram_fakes.bad_gateway(), telegram_fakes.bad_json()
        lost, dead = telegram_fakes.lost(), telegram_fakes.half_open()
        return {
            "unwell at first": lambda: self._fail(unwell, "sendMessage"),
            "unwell at the end": lambda: self._fail(unwell, "editMessageText", times=2),
            "half an answer": lambda: self._fail(garbage),
            "a lost beginning": lambda: self._fail(lost, "sendMessage"),
            "a lost end": lambda: self._fail(lost, "editMessageText"),
            "a dead beginning": lambda: self._fail(dead, "sendMessage"),
            "a dead end": lambda: self._fail(dead, "editMessageText"),
        }

    def unmet(self) -> object:
        return [planned for planned in self.telegram._planned if not planned.fault.wait]

    def slow(self, seconds: float) -> None:
        self.telegram.fail("*", telegram_fakes.slow(seconds), times=1_000_000)

    async def go_silent(self) -> None:
        self.telegram.fail("getUpdates", telegram_fakes.half_open())
        await self.until(lambda: not self.telegram._planned)

    def cut(self) -> None:
        self.telegram.fail("getUpdates", telegram_fakes.bad_gateway(), times=2)

    def revoke(self) -> None:
        self.telegram.revoked = True
