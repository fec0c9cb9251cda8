"""The web page as a chat platform: a question comes in one request, and its answer streams back in the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, Protocol

from admin.html import to_html
from admin.schemas import SourceOut
from admin.stream import event
from core.errors import KvasirError
from core.texts import place_of, spoken, tell
from core.types import Capabilities, Finished, Language, Mention, Source

logger = logging.getLogger(__name__)

_WAITING_EVENTS: Final = 64
"""An engine that is faster than the line waits."""
_STOP_SECONDS: Final = 10.0


class WebAnswer:
    """An answer on its way to one browser, as server-sent events."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING_EVENTS)

    async def status(self, text: str) -> None:
        await self._put("status", {"text": text})

    async def sources(self, sources: Sequence[Source], standalone_question: str) -> None:
        shown = [source_out(source, self._language).model_dump() for source in sources]
        await self._put("sources", {"sources": shown, "standalone_question": standalone_question})

    async def append(self, text: str) -> None:
        await self._put("delta", {"text": text})

    async def finish(self, finished: Finished) -> None:
        data = {
            "answer_id": finished.answer_id,
            "text": finished.text,
            "html": await asyncio.to_thread(to_html, finished.text),
            "answered": finished.answered,
            "sources": [source_out(source, self._language).model_dump() for source in finished.sources],
            "notice": finished.notice,
            "timings_ms": dict(finished.timings_ms),
        }
        await self._put("finished", data)

    async def fail(self, sentence: str) -> None:
        await self._put("error", {"detail": sentence})

    async def _put(self, name: str, data: Any) -> None:
        await self.events.put(event(name, data))


class Handler(Protocol):
    """What answers mentions, the same for all platforms."""

    async def on_mention(self, platform: WebPlatform, mention: Mention) -> None: ...


class WebPlatform:
    """The `ChatPlatform` port over HTTP."""

    name = "web"
    capabilities = Capabilities(max_length=1_000_000, streaming="native", edit_interval=0)

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._open: dict[str, WebAnswer] = {}

    async def open_answer(self, mention: Mention) -> WebAnswer:
        return self._open[mention.message_id]

    async def ask(self, mention: Mention) -> AsyncGenerator[bytes]:
        """The answer's events; closing the generator stops whatever is behind it."""
        answer = self._open[mention.message_id] = WebAnswer(mention.language or spoken())
        work = asyncio.create_task(self._answer(mention, answer), name=f"answer-{mention.message_id}")
        try:
            while (piece := await answer.events.get()) is not None:
                yield piece
        finally:
            work.cancel()
            await asyncio.wait({work}, timeout=_STOP_SECONDS)
            del self._open[mention.message_id]

    async def _answer(self, mention: Mention, answer: WebAnswer) -> None:
        try:
            await self._handler.on_mention(self, mention)
        except KvasirError as error:
            await answer.fail(str(error))
        except Exception:
            logger.exception("question %s came to nothing", mention.message_id)
            await answer.fail(tell("internal_error", id=mention.message_id))
        await answer.events.put(None)


def source_out(source: Source, language: Language) -> SourceOut:
    passage = source.passage
    return SourceOut(
        n=source.n,
        kb=passage.kb,
        document_id=passage.document_id,
        document=passage.document,
        title=passage.title,
        chunk=passage.chunk,
        locator=place_of(passage.locator, (), language),
        headings=passage.headings,
        score=passage.score,
        text=passage.text,
    )
