"""One parser process as its parent sees it: asked, waited for with a limit, and ended for sure."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import core
from core.errors import Unavailable
from core.parse import wire
from core.ports import ParseResult, ParseTask
from core.types import Chunk

logger = logging.getLogger(__name__)

_PROGRAM: Final = "import sys; sys.path.insert(0, sys.argv[1]); from core.parse.child import main; main()"
"""Not a file run as a script, nor `-m`: a folder named `core` where the user happens to stand is never imported."""
_ROOT: Final = str(Path(core.__file__).resolve().parent.parent)
_INHERITED: Final = ("PATH", "LD_LIBRARY_PATH", "TZ")
"""Environment variables that children get; no secret of ours or of the user's is among them."""

_MEMORY: Final = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 20),
}
"""How glibc keeps what is freed: to get it from the system anew for each frame costs a fifteenth of reading."""
_GROUP_SECONDS: Final = 30
_START_SECONDS: Final = 60
_END_SECONDS: Final = 10
_IDLE_SECONDS: Final = 60
_LIFE: Final = 50_000
_HEAVY_LIFE: Final = 200
"""Files that a process reads before it is replaced; fewer of the kinds that native libraries parse."""
_SLACK: Final = 8 << 20
"""Characters that a request may bring beyond what its files may hold."""


@dataclass(slots=True)
class Answer:
    """What came back for a request."""

    results: dict[int, ParseResult] = field(default_factory=dict)
    lost: str = ""
    """Key of the sentence that says why the process was lost; empty when all went well."""
    used_ocr: bool = False


class ParserProcess:
    def __init__(self, process: asyncio.subprocess.Process, rules: wire.Rules) -> None:
        self._process = process
        self._rules = rules
        self._files = self._heavy_files = 0
        self._wants_rest = False
        self._alarm: asyncio.TimerHandle | None = None

    @classmethod
    async def start(cls, rules: wire.Rules) -> ParserProcess:
        """A process that is ready and confined. Raises Unavailable."""
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "HOME": "/nonexistent", **_MEMORY}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-B", "-X", "utf8", "-c", _PROGRAM, _ROOT),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if logger.isEnabledFor(logging.DEBUG) else asyncio.subprocess.DEVNULL,
            cwd="/",
            env=environment,
            start_new_session=True,
            limit=2 * wire.FRAME_TARGET,
        )
        child = cls(process, rules)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await child._send(wire.rules_message(rules))
                isolation = (await child._receive()).events[0][1]
        except (TimeoutError, OSError, EOFError, wire.Nonsense) as error:
            await child.end()
            raise Unavailable("The process that reads files does not start; «kvasir doctor» says more.") from error
        except BaseException:
            await child.end()
            raise
        logger.debug("parser process %s is ready; its network is shut by a %s", process.pid, isolation)
        return child

    @property
    def is_tired(self) -> bool:
        """Whether it should be replaced before its next request."""
        return self._wants_rest or self._files > _LIFE or self._heavy_files > _HEAVY_LIFE or self.has_ended

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    async def ask(self, tasks: Sequence[ParseTask], heavy: int) -> Answer:
        """The results of all tasks, or of those that were ready when the process was lost."""
        self._files += len(tasks)
        self._heavy_files += heavy
        seconds = self._rules.seconds if len(tasks) == 1 else min(self._rules.seconds, _GROUP_SECONDS)
        conversation = _Conversation(self._rules, len(tasks))
        answer = conversation.answer
        try:
            async with asyncio.timeout(seconds) as patience:
                await self._send(wire.request_message(tasks))
                while not conversation.is_over:
                    conversation.take(await self._receive())
                    if answer.used_ocr and not conversation.is_patient:
                        conversation.is_patient = True
                        patience.reschedule(asyncio.get_running_loop().time() + self._rules.ocr_seconds)
        except TimeoutError:
            answer.lost = "document_slow"
        except (OSError, EOFError):
            answer.lost = "document_slow" if await self._code() == -signal.SIGXCPU else "document_crashed"
        except wire.Nonsense:
            logger.warning("a parser process sent nonsense and is ended")
            answer.lost = "document_crashed"
            answer.results.clear()
        self._wants_rest = conversation.wants_rest
        return answer

    def rest(self, retire: Callable[[ParserProcess], None]) -> None:
        """Nothing to do for now; after a minute of it, `retire` is called."""
        self._alarm = asyncio.get_running_loop().call_later(_IDLE_SECONDS, retire, self)

    def wake(self) -> bool:
        """There is work again; False where the process has ended meanwhile."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        return not self.has_ended

    def dismiss(self) -> None:
        """Let it end by itself: it does when its input is closed."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def end(self) -> None:
        """Kill it and all it may have started, and wait until it is gone."""
        self.wake()
        process = self._process
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        self.dismiss()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._drain()), _END_SECONDS)

    async def _drain(self) -> None:
        """Read the pipe to its end, so that nothing is left open behind us."""
        process = self._process
        with contextlib.suppress(OSError):
            while process.stdout is not None and await process.stdout.read(wire.FRAME_TARGET):
                pass
        await process.wait()

    async def _code(self) -> int:
        try:
            return await asyncio.wait_for(self._process.wait(), _END_SECONDS)
        except TimeoutError:
            return 0

    async def _send(self, message: bytes) -> None:
        if self._process.stdin is None:
            raise EOFError
        self._process.stdin.write(message)
        await self._process.stdin.drain()

    async def _receive(self) -> wire.Frame:
        stream = self._process.stdout
        if stream is None:
            raise EOFError
        long, text_long, terms_long = wire.HEAD.unpack(await stream.readexactly(wire.HEAD.size))
        if long + text_long + terms_long > wire.MAX_FRAME:
            raise wire.Nonsense("a frame that long")
        body, text = await stream.readexactly(long), await stream.readexactly(text_long)
        return wire.Frame(body, text, await stream.readexactly(terms_long))


class _Conversation:
    """Puts the events of one request together, believing none of them."""

    def __init__(self, rules: wire.Rules, tasks: int) -> None:
        self.answer = Answer()
        self.is_over = False
        self.is_patient = False
        self.wants_rest = False
        self._tasks = tasks
        self._ocr = rules.ocr
        self._chunks: dict[int, list[Chunk]] = {}
        self._terms: dict[int, list[bytes]] = {}
        self._left = 4 * rules.characters + _SLACK
        """Characters of text that it may still send; a chunk's neighbours share some, and so do its tokens."""

    def take(self, frame: wire.Frame) -> None:
        """Raises Nonsense."""
        for event in frame.events:
            if event[0] == "end":
                self.is_over, self.wants_rest = True, event[1] is True
                return
            index, kind = event[0], event[1]
            if type(index) is not int or not 0 <= index < self._tasks or index in self.answer.results:
                raise wire.Nonsense("no such task")
            if kind == "chunks" and len(event) == 8:
                self._take_chunks(index, event[3:], frame)
                self._terms.setdefault(index, []).append(frame.terms(event[2]))
            elif kind == "done" and len(event) == 6:
                self._take_result(index, event[2:])
            elif kind == "ocr" and self._ocr:
                self.answer.used_ocr = True
            else:
                raise wire.Nonsense("no such event")

    def _take_chunks(self, index: int, values: list[Any], frame: wire.Frame) -> None:
        chunks = self._chunks.setdefault(index, [])
        fresh = frame.chunks(values, len(chunks))
        self._left -= sum([len(chunk.text) for chunk in fresh]) + 16 * len(fresh)
        if self._left < 0:
            raise wire.Nonsense("too much text")
        chunks += fresh

    def _take_result(self, index: int, values: list[Any]) -> None:
        title, metadata, notes, error = values
        self.answer.results[index] = ParseResult(
            title=wire.text_of(title),
            chunks=() if error else tuple(self._chunks.pop(index, ())),
            metadata=wire.metadata_of(metadata),
            notes=wire.texts_of(notes),
            error=wire.text_of(error),
            terms=b"".join(self._terms.pop(index, ())),
        )
