"""A parser without child processes, for tests of what comes after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from core.errors import DocumentError
from core.loaders import load
from core.ports import ParseResult, ParseTask
from core.settings import IngestSettings
from core.splitters.counting import token_counter
from core.splitters.structural import StructuralSplitter
from core.types import Language


class InProcessParser:
    """Takes what `ParserPool` takes, and stands in its place where processes are not what is tested."""

    def __init__(self, settings: IngestSettings | None = None, language: Language = "en") -> None:
        self._limit = settings.max_characters if settings else 1_000_000
        self._language: Language = language

    async def parse(self, tasks: Sequence[ParseTask]) -> AsyncIterator[tuple[int, ParseResult]]:
        for index, task in enumerate(tasks):
            yield index, self._one(task)

    def _one(self, task: ParseTask) -> ParseResult:
        try:
            data = task.source if isinstance(task.source, bytes) else Path(task.source).read_bytes()
            parsed = load(data, task.name, ocr=False, limit=self._limit, language=self._language)
        except (DocumentError, OSError) as error:
            return ParseResult(error=str(error))
        splitter = StructuralSplitter(task.splitter, token_counter(task.splitter.vocabulary))
        return ParseResult(parsed.title, tuple(splitter.split(parsed, task.name)), parsed.metadata, parsed.notes)

    async def close(self) -> None:
        pass
