"""The port of a chat platform. Its plain data are in `core/types.py`; the web page implements it in `admin/chat`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from core.types import Capabilities, Finished, Mention, Source, Thumb


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
    """Translates between a platform's client library and Kvasir; holds no rule of ours."""

    name: str
    capabilities: Capabilities

    def events(self) -> AsyncIterator[Mention | Thumb]:
        """What people say to us, until the platform ends."""

    async def open_answer(self, mention: Mention) -> OpenAnswer:
        """A first sign of life where the question was asked."""
