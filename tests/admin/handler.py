"""A handler for tests of the page's own side: it says what it was asked, as slowly as it is told."""

from __future__ import annotations

import asyncio

from admin.chat.platform import WebPlatform
from core.app import Kvasir
from core.types import Finished, Locator, Mention, Passage, Source


class EchoHandler:
    def __init__(self, kvasir: Kvasir) -> None:
        self.kvasir = kvasir
        self.mentions: list[Mention] = []
        self.words: list[str] = ["Hello", " world"]
        self.pause = 0.0
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.error: Exception | None = None

    async def on_mention(self, platform: WebPlatform, mention: Mention) -> None:
        self.mentions.append(mention)
        answer = await platform.open_answer(mention)
        passage = Passage("kb", "d" * 32, "a.md", "A", 3, "the passage", ("H",), Locator("page", first=2), 0.5)
        sources = (Source(1, passage),)
        try:
            await answer.status("Searching…")
            await answer.sources(sources, mention.text)
            for word in self.words:
                await answer.append(word)
                self.started.set()
                await asyncio.sleep(self.pause)
            if self.error:
                raise self.error
            text = "".join(self.words)
            await answer.finish(Finished("a" * 32, text, True, sources, "echo", mention.text, {"total": 1.0}))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
