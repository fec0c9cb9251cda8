"""A parser without child processes, for tests of what comes after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from core.errors import DocumentError
from core.loaders import load
from core.ports import ParseResult, ParseTask
from core.splitters.counting import token_counter
from core.splitters.structural import StructuralSplitter


class InProcessParser:
    async def parse(self, tasks: Sequence[ParseTask]) -> AsyncIterator[tuple[int, ParseResult]]:
        for index, task in enumerate(tasks):
            yield index, self._one(task)

    def _one(self, task: ParseTask) -> ParseResult:
        try:
            data = task.source if isinstance(task.source, bytes) else Path(task.source).read_bytes()
            parsed = load(data, task.name, ocr=False, limit=1_000_000)
        except (DocumentError, OSError) as error:
            return ParseResult(error=str(error))
        splitter = StructuralSplitter(task.splitter, token_counter(task.splitter.vocabulary))
        return ParseResult(parsed.title, tuple(splitter.split(parsed, task.name)), parsed.metadata, parsed.notes)

    async def close(self) -> None:
        pass
