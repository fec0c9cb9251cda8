"""The ports of chat platforms; their plain data are in `core/types.py`. The web page meets `ChatPlatform`, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bots.rendering.parts import Part
from core.types import Capabilities, ChatEvent, ChatFile, Finished, Mention, Place, Said, Source


# ---------------------------------------------------------------- for the handler: any platform
class OpenAnswer(Protocol):
    """An answer as one platform shows it, from the first sign of life to the end."""

    async def status(self, text: str) -> None:
        """Say what is being done, e.g. «Searching…»; a platform may show it or not."""

    async def sources(self, sources: Sequence[Source], standalone_question: str) -> None:
        """The passages the answer may cite, before its text comes."""

    async def append(self, text: str) -> None:
        """The next piece of CommonMark."""

    async def finish(self, finished: Finished) -> None:
        """The whole answer; offers the rating."""

    async def fail(self, sentence: str) -> None:
        """It came to nothing, and why."""


class ChatPlatform(Protocol):
    """Where an answer can be shown; holds no rule of ours."""

    name: str
    capabilities: Capabilities

    async def open_answer(self, mention: Mention) -> OpenAnswer:
        """A first sign of life where the question was asked."""


# ---------------------------------------------------------------- platforms made of messages: Slack, Discord, Telegram
class Intake(Protocol):
    """Where a platform brings what people do."""

    async def take(self, event: ChatEvent) -> str:
        """Deal with it; a sentence for that person alone, where there is one to say.

        A mention is stored when this returns, and only then may the platform be told that it arrived; its answer comes
        by itself. The same event may come many times. Raises Unavailable where it could not be stored.
        """

    async def thread_of(self, place: Place, post: str) -> str | None:
        """The thread (as in `Place`) to which a message of ours belongs; None: not ours."""


class Messenger(Protocol):
    """One connection to a chat platform. Given by the entry point's `open(kvasir)`, or None without its tokens."""

    name: str

    @property
    def connected(self) -> bool:
        """Whether what people do reaches us now, as far as is known."""

    @property
    def standing_by(self) -> bool:
        """Whether another process is connected in our place; messages are posted all the same."""

    @property
    def spread(self) -> bool:
        """Whether what happens in one channel may come to any of several processes."""

    async def run(self, intake: Intake) -> None:
        """Listen until cancelled. Raises Refused when the platform will not have us (a revoked token)."""

    def surface(self, mention: Mention) -> Surface:
        """Where the answer to this mention is shown."""

    async def history(self, mention: Mention, limit: int) -> Sequence[Said]:
        """What was said in the thread before the mention, oldest first; empty where that cannot be read."""

    async def download(self, mention: Mention, file: ChatFile, most: int) -> bytes:
        """The bytes of a file sent with the mention. Raises TooLarge beyond `most` bytes, Unavailable, or NotFound."""

    async def call(self, place: Place, post: str, text: str, people: Sequence[str]) -> None:
        """Write `text` below one of our messages, calling these people by name (`ChannelSettings.helpers`)."""

    async def post(self, place: Place, text: str) -> None:
        """Write CommonMark as a message of our own, in a thread where the place names one. Raises a DeliveryError.

        Without a workspace: in the only one there is.
        """

    async def called(self, place: Place) -> str:
        """What people call the channel, e.g. `#help`; empty where it has no name. Raises a DeliveryError."""


@dataclass(frozen=True, slots=True)
class Controls:
    """What stands under a message of ours to be pressed."""

    stop: bool = False
    rate: bool = False
    again: bool = False
    human: bool = False
    share: bool = False
    """The answer was for one person; offer to show it to the channel."""
    answer_id: str = ""


class Surface(Protocol):
    """The messages of one answer in one place.

    Every call may raise Limited, Unreachable, Gone, or Refused (see `bots/errors.py`), and has a timeout of its own.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def tempo(self) -> str:
        """Answers with the same value share one budget of edits, e.g. `C123`."""

    @property
    def repeatable(self) -> bool:
        """Whether `send` with a key that was sent before gives the message that is there, instead of a second one."""

    def preview(self, text: str, status: str) -> Part:
        """A text that still arrives (or none yet) and what is being done, in one message."""

    def whole(self, finished: Finished) -> Sequence[Part]:
        """The answer with its sources and notice; at least one part."""

    def plain(self, text: str) -> Part:
        """A sentence of ours."""

    async def working(self, part: Part) -> None:
        """Show, without a message, that work goes on: «is typing», a status, a draft; lasts `working_seconds`."""

    async def send(self, part: Part, controls: Controls, key: str) -> str:
        """A new message in answer to the mention; gives its id."""

    async def edit(self, post: str, part: Part, controls: Controls) -> None:
        """Replace a message of ours; no error when nothing changes."""

    async def delete(self, post: str) -> None:
        """Take a message of ours back; no error when it is not there."""

    async def find(self, known: Sequence[str]) -> str | None:
        """A message of ours in answer to this mention that is not among `known`: sent just before we were killed."""

    async def stream(self, status: str) -> Stream | None:
        """The platform's own way to show a text that grows; None where it has none here."""


class Stream(Protocol):
    """A message that grows by itself. Every call may also raise Gone: the platform has ended it."""

    post: str
    """Id of the message."""

    async def status(self, text: str) -> None: ...

    async def append(self, text: str) -> None:
        """The next characters; what was appended cannot be changed."""

    async def close(self, rest: str, finished: Finished, controls: Controls) -> None:
        """The last characters, the sources, and the controls."""
