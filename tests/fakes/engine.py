"""An engine that says what a test wants it to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field

from core.errors import EngineUnavailable
from core.ports import EngineInfo
from core.types import Ended, Prompt, Queued, Sampling


async def text_of(stream: AsyncIterator[str | Queued]) -> str:
    """What an engine says, without where it waited."""
    return "".join([piece async for piece in stream if isinstance(piece, str)])


@dataclass
class FakeEngine:
    """Streams `text` (or what it makes of the prompt) in pieces of `size`; keeps what it was asked."""

    text: str | Callable[[Prompt], str] = "Annual leave is 28 days a year [1]."
    size: int = 4
    pause: float = 0.0
    fail_after: int | None = None
    """Pieces after which it breaks down."""
    is_language_model: bool = True
    context_size: int = 8192
    is_scripted: bool = False
    asked: list[tuple[Prompt, Sampling]] = field(default_factory=list)
    running: int = 0
    """Streams that are open now."""
    most_running: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the first stream begins."""
    ended: Ended | None = None
    """What it tells of the end of every answer."""
    ended_early: int = 0
    """Streams that were closed before their end."""
    places: asyncio.Queue[int] | None = None
    """Where each stream waits, as it is put here; 0: it waits no more."""

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("fake", "fake-1", self.is_language_model, self.context_size, self.is_scripted)

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[str | Queued, None]:
        self.asked.append((prompt, sampling))
        text = self.text if isinstance(self.text, str) else self.text(prompt)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.begun.set()
        complete = False
        try:
            while self.places is not None:
                place = await self.places.get()
                yield Queued(place)
                if not place:
                    break
            for number, start in enumerate(range(0, len(text), self.size)):
                if number == self.fail_after:
                    raise EngineUnavailable("The fake engine broke down.")
                await asyncio.sleep(self.pause)
                yield text[start : start + self.size]
            if self.fail_after is not None and self.fail_after * self.size >= len(text):
                raise EngineUnavailable("The fake engine broke down.")
            if self.ended is not None and prompt.on_end is not None:
                prompt.on_end(self.ended)
            complete = True
        finally:
            self.running -= 1
            self.ended_early += not complete

    def count_tokens(self, text: str) -> int:
        return len(text) // 3 + 1

    async def health(self) -> str:
        return ""

    async def close(self) -> None:
        return None
