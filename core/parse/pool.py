"""Owns the parser processes: starts them late, keeps them warm, and replaces those that crash, hang or grow."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from core.errors import Unavailable
from core.loaders.kinds import BY_SUFFIX, suffix_of
from core.parse import wire
from core.parse.process import Answer, ParserProcess
from core.ports import ParseResult, ParseTask
from core.texts import say
from core.types import Language

if TYPE_CHECKING:
    from core.settings import IngestSettings  # pydantic costs a child more than reading a hundred files

logger = logging.getLogger(__name__)

_LIGHT_KINDS: Final = frozenset({"md", "txt", "code", "rst", "html", "csv", "tsv", "json", "jsonl", "srt", "xml"})
_LIGHT_BYTES: Final = 128 << 10
_GROUP_FILES: Final = 64
_GROUP_BYTES: Final = 1 << 20
_Group: TypeAlias = list[tuple[int, ParseTask]]
_Ready: TypeAlias = "asyncio.Queue[list[tuple[int, ParseResult]] | BaseException | None]"


class ParserPool:
    """Reads documents in at most `settings.workers` child processes; results come as they are ready."""

    def __init__(self, settings: IngestSettings, language: Language = "en") -> None:
        self._settings = settings
        self._language: Language = language
        self._places = asyncio.Semaphore(settings.workers)
        self._idle: list[ParserProcess] = []
        self._children: set[ParserProcess] = set()
        self._is_closed = False

    async def parse(self, tasks: Sequence[ParseTask]) -> AsyncGenerator[tuple[int, ParseResult], None]:
        """(index of the task, result) for every task; a hostile file costs only its own result.

        Raises Unavailable where no child process can be started.
        """
        groups = iter(_groups(tasks))
        ready: _Ready = asyncio.Queue(2)
        runners = [
            asyncio.create_task(self._run(groups, ready), name=f"parse {number}")
            for number in range(self._settings.workers)
        ]
        running = len(runners)
        try:
            while running:
                item = await ready.get()
                if item is None:
                    running -= 1
                elif isinstance(item, BaseException):
                    raise item
                else:
                    for pair in item:
                        yield pair
        finally:
            for runner in runners:
                runner.cancel()
            await asyncio.gather(*runners, return_exceptions=True)

    async def close(self) -> None:
        """End all child processes."""
        self._is_closed = True
        self._idle.clear()
        await asyncio.gather(*(child.end() for child in list(self._children)))
        self._children.clear()

    async def _run(self, groups: Iterator[_Group], ready: _Ready) -> None:
        """Take groups until there are none; the last word is None, or the error that ended it."""
        try:
            for group in groups:
                waiting = [group]
                while waiting:
                    results, again = await self._read(waiting.pop(0))
                    waiting = again + waiting
                    await ready.put(results)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is raised where the results are waited for
            await ready.put(error)
        else:
            await ready.put(None)

    async def _read(self, group: _Group) -> tuple[list[tuple[int, ParseResult]], list[_Group]]:
        """Results of a group, and what is left to be read one by one because the group's child was lost."""
        answer = await self._ask([task for _, task in group])
        results = [(group[index][0], result) for index, result in answer.results.items()]
        left = [pair for index, pair in enumerate(group) if index not in answer.results]
        if not left:
            return results, []
        if len(group) > 1:
            logger.info("a parser process was lost over a group of %s files; reading them one by one", len(group))
            return results, [[pair] for pair in left]
        return [(left[0][0], ParseResult(error=self._sentence(answer)))], []

    def _sentence(self, answer: Answer) -> str:
        settings = self._settings
        seconds = settings.ocr_timeout_seconds if answer.used_ocr else settings.timeout_seconds
        name = "OCR_TIMEOUT_SECONDS" if answer.used_ocr else "TIMEOUT_SECONDS"
        return say(answer.lost, self._language, seconds=seconds, setting=f"KVASIR_INGEST__{name}")

    async def _ask(self, tasks: Sequence[ParseTask]) -> Answer:
        async with self._places:
            child = await self._take()
            is_usable = False
            try:
                answer = await child.ask(tasks, heavy=int(len(tasks) == 1 and _is_heavy(tasks[0])))
                is_usable = not answer.lost and not child.is_tired
            finally:
                if is_usable and not self._is_closed:
                    self._idle.append(child)
                    child.rest(self._retire)
                else:
                    await self._end(child)
            return answer

    async def _take(self) -> ParserProcess:
        if self._is_closed:
            raise Unavailable("Kvasir is stopping; files are read again after the next start.")
        while self._idle:
            child = self._idle.pop()
            if child.wake():
                return child
            await self._end(child)
        self._children -= {child for child in self._children if child.has_ended}
        child = await ParserProcess.start(self._rules())
        self._children.add(child)
        return child

    def _retire(self, child: ParserProcess) -> None:
        """Called by a child that nobody has needed for a while."""
        if child in self._idle:
            self._idle.remove(child)
            child.dismiss()

    async def _end(self, child: ParserProcess) -> None:
        await child.end()
        self._children.discard(child)

    def _rules(self) -> wire.Rules:
        settings = self._settings
        return wire.Rules(
            memory_mb=settings.memory_mb,
            seconds=settings.timeout_seconds,
            ocr_seconds=settings.ocr_timeout_seconds,
            ocr=settings.ocr == "auto",
            characters=settings.max_characters,
            file_mb=settings.max_file_mb,
            language=self._language,
            parent=os.getpid(),
        )


def _groups(tasks: Sequence[ParseTask]) -> Iterator[_Group]:
    """Neighbours in one request where they are small and of kinds that are read in a moment; others alone."""
    group: _Group = []
    size = 0
    for index, task in enumerate(tasks):
        bytes_here = _size(task)
        if bytes_here > _LIGHT_BYTES or _is_heavy(task):
            yield [(index, task)]
            continue
        if group and (len(group) >= _GROUP_FILES or size + bytes_here > _GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append((index, task))
        size += bytes_here
    if group:
        yield group


def _is_heavy(task: ParseTask) -> bool:
    return BY_SUFFIX.get(suffix_of(task.name), "txt") not in _LIGHT_KINDS


def _size(task: ParseTask) -> int:
    if isinstance(task.source, bytes):
        return len(task.source)
    try:
        return os.stat(task.source).st_size  # noqa: PTH116  # the hot path
    except OSError:
        return 0
