"""A chat platform made of messages, with the faults that real ones have."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bots.errors import Gone, Unreachable
from bots.platform import Controls, Intake, Stream
from bots.rendering.parts import Part
from core.errors import NotFound
from core.types import Capabilities, ChatFile, Finished, Mention, Person, Place, Said

ANN = Person("fake:W:ann", "Ann", member=True)
BOB = Person("fake:W:bob", "Bob", member=True)
PLACE = Place("fake", "W", "C", "T")


@dataclass
class Message:
    """As people on the platform see it."""

    id: str
    answers: str
    """Id of the message it answers."""
    text: str
    controls: Controls
    history: list[str] = field(default_factory=list)


@dataclass
class FakeMessenger:
    name: str = "fake"
    capabilities: Capabilities = field(default_factory=lambda: Capabilities(1000, "edit", 0.0))
    repeatable: bool = False
    can_find: bool = True
    streams: bool = False
    messages: dict[str, Message] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    faults: list[Exception | None] = field(default_factory=list)
    """What the next calls meet; None: nothing."""
    lost: list[str] = field(default_factory=list)
    """Calls of this name do what they should, and then fail once."""
    signs: list[str] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    calls: list[tuple[str, Sequence[str]]] = field(default_factory=list)

    posted: list[tuple[Place, str]] = field(default_factory=list)
    connected: bool = True
    standing_by: bool = False
    spread: bool = False

    async def run(self, intake: Intake) -> None:
        await asyncio.Event().wait()

    def surface(self, mention: Mention) -> FakeSurface:
        return FakeSurface(self, mention)

    async def history(self, mention: Mention, limit: int) -> Sequence[Said]:
        return self.said[-limit:]

    async def download(self, mention: Mention, file: ChatFile, most: int) -> bytes:
        if file.id not in self.files:
            raise NotFound(f"«{file.name}» is gone.")
        return self.files[file.id]

    async def call(self, place: Place, post: str, text: str, people: Sequence[str]) -> None:
        await self.meet("call")
        self.calls.append((text, people))

    async def called(self, place: Place) -> str:
        await self.meet("called")
        return f"#{place.channel.lower()}"

    async def post(self, place: Place, text: str) -> None:
        await self.meet("post")
        self.posted.append((place, text))

    def answers(self, message_id: str) -> list[str]:
        """What people see as the answer to a message, top down."""
        return [message.text for message in self.messages.values() if message.answers == message_id]

    async def meet(self, call: str) -> None:
        await asyncio.sleep(0)
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise fault


@dataclass
class FakeSurface:
    platform: FakeMessenger
    mention: Mention
    tempo: str = "C"

    @property
    def capabilities(self) -> Capabilities:
        return self.platform.capabilities

    @property
    def repeatable(self) -> bool:
        return self.platform.repeatable

    def preview(self, text: str, status: str) -> Part:
        return Part(f"{text}… {status}".strip()[-self.capabilities.max_length :])

    def whole(self, finished: Finished) -> Sequence[Part]:
        size = self.capabilities.max_length
        text = finished.text + (f"\n({finished.notice})" if finished.notice else "")
        return [Part(text[at : at + size]) for at in range(0, len(text), size)]

    def plain(self, text: str) -> Part:
        return Part(text)

    async def working(self, part: Part) -> None:
        await self.platform.meet("working")
        self.platform.signs.append(part.text)

    async def send(self, part: Part, controls: Controls, key: str) -> str:
        await self.platform.meet("send")
        if self.repeatable and key in self.platform.keys:
            return self.platform.keys[key]
        number = f"p{next(self.platform.numbers)}"
        self.platform.messages[number] = Message(number, self.mention.message_id, part.text, controls, [part.text])
        self.platform.keys[key] = number
        self._lose("send")
        return number

    async def edit(self, post: str, part: Part, controls: Controls) -> None:
        await self.platform.meet("edit")
        if post not in self.platform.messages:
            raise Gone(post)
        message = self.platform.messages[post]
        message.text, message.controls = part.text, controls
        message.history.append(part.text)
        self._lose("edit")

    async def delete(self, post: str) -> None:
        await self.platform.meet("delete")
        self.platform.messages.pop(post, None)

    async def find(self, known: Sequence[str]) -> str | None:
        if not self.platform.can_find:
            return None
        mine = [m.id for m in self.platform.messages.values() if m.answers == self.mention.message_id]
        return next((post for post in mine if post not in known), None)

    async def stream(self, status: str) -> Stream | None:
        if not self.platform.streams:
            return None
        post = await self.send(Part(""), Controls(), f"stream-{self.mention.message_id}")
        return FakeStream(self, post)

    def _lose(self, call: str) -> None:
        if call in self.platform.lost:
            self.platform.lost.remove(call)
            raise Unreachable("the connection broke after it was done")


@dataclass
class FakeStream:
    surface: FakeSurface
    post: str

    async def status(self, text: str) -> None:
        await self.surface.platform.meet("status")
        self.surface.platform.signs.append(text)

    async def append(self, text: str) -> None:
        await self.surface.platform.meet("append")
        message = self.surface.platform.messages[self.post]
        message.text += text
        message.history.append(message.text)

    async def close(self, rest: str, finished: Finished, controls: Controls) -> None:
        await self.append(rest)
        self.surface.platform.messages[self.post].controls = controls
