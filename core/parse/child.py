"""The life of a parser process: read a request, answer it, and wait for the next until the pipe is closed."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import logging
import os
from typing import Any, BinaryIO, Final

from core.errors import DocumentError
from core.loaders import load
from core.parse import wire
from core.parse.confine import allow_cpu, confine, resident_mb
from core.ports import ParseTask, SplitterSpec
from core.splitters.counting import token_counter
from core.splitters.structural import StructuralSplitter
from core.texts import say

logger = logging.getLogger(__name__)

_COLLECTED_AFTER: Final = 20_000
"""Objects made before garbage is looked for; a small document makes a thousand."""
_PIPE_BYTES: Final = 512 << 10
"""Room for a few frames, so that neither side waits for the other after each half of one."""
_RESTING_SHARE: Final = 0.4
"""Share of its memory limit above which a child asks to be replaced."""


def main() -> None:
    """Serve on standard input and output; what libraries print goes nowhere."""
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    with contextlib.suppress(OSError):  # more than the system lets us have; it works as well, with more waits
        for pipe in (source, sink):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    greeting = wire.read_message(source)
    if greeting is None:
        return
    rules = wire.Rules(**greeting[0])
    isolation = confine(rules.memory_mb, rules.parent)
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER)
    _Child(rules, sink).serve(source, isolation)


class _Child:
    def __init__(self, rules: wire.Rules, sink: BinaryIO) -> None:
        self._rules = rules
        self._sink = sink
        self._events: list[list[Any]] = []
        self._texts: list[str] = []
        self._terms: list[bytes] = []
        self._size = 0
        self._is_tired = False

    def serve(self, source: BinaryIO, isolation: str) -> None:
        self._events.append(["ready", isolation])
        self._flush()
        while (request := wire.read_message(source)) is not None:
            for index, task in enumerate(wire.tasks_of(*request)):
                self._answer(index, task)
            tired = self._is_tired or resident_mb() > _RESTING_SHARE * self._rules.memory_mb
            self._events.append(["end", tired])
            self._flush()

    def _answer(self, index: int, task: ParseTask) -> None:
        allow_cpu(self._rules.seconds)
        try:
            error = self._parse(index, task)
        except DocumentError as known:
            error = str(known)
        except MemoryError:
            self._is_tired = True
            error = self._say("document_memory", megabytes=self._rules.memory_mb)
        except RecursionError:
            error = self._say("document_nested")
        except Exception:  # the outermost loop of this process: no file may end it
            logger.exception("could not read a file")
            error = self._say("document_crashed")
        if error:
            self._events.append([index, "done", "", {}, [], error])

    def _parse(self, index: int, task: ParseTask) -> str:
        parsed = load(
            task.source if isinstance(task.source, bytes) else self._bytes(task.source),
            task.name,
            ocr=self._rules.ocr,
            limit=self._rules.characters,
            language=self._rules.language,
            ocr_seconds=0.8 * self._rules.ocr_seconds,
            ocr_begins=functools.partial(self._ocr_begins, index),
        )
        for run in _splitter(task.splitter).runs(parsed, task.name):
            place = (run.headings, run.prefix, run.place.kind, run.place.label)
            numbers: list[int] = []
            first = len(self._terms)
            for piece in run.pieces:
                self._size += wire.chunk_parts(piece, numbers, self._texts, self._terms)
                if self._size > wire.FRAME_TARGET:
                    self._events.append([index, "chunks", sum(map(len, self._terms[first:])), *place, numbers])
                    self._flush()
                    numbers, first = [], 0
            if numbers:
                self._events.append([index, "chunks", sum(map(len, self._terms[first:])), *place, numbers])
        self._events.append([index, "done", parsed.title, parsed.metadata, parsed.notes, ""])
        return ""

    def _bytes(self, path: str) -> bytes:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = os.fstat(file).st_size
                if size > self._rules.file_mb << 20:
                    raise DocumentError(self._say("document_too_large", megabytes=self._rules.file_mb))
                data = os.read(file, size)
                while len(data) < size and (more := os.read(file, size - len(data))):
                    data += more
                return data
            finally:
                os.close(file)
        except OSError as error:
            raise DocumentError(self._say("document_gone")) from error

    def _ocr_begins(self, index: int) -> None:
        """Tell the parent to be patient, and take the time ourselves."""
        self._events.append([index, "ocr"])
        self._flush()
        allow_cpu(self._rules.ocr_seconds * (os.cpu_count() or 1))

    def _say(self, key: str, **values: object) -> str:
        return say(key, self._rules.language, **values)

    def _flush(self) -> None:
        self._sink.write(wire.pack(self._events, self._texts, self._terms))
        self._sink.flush()
        self._events, self._texts, self._terms, self._size = [], [], [], 0


@functools.lru_cache(maxsize=16)
def _splitter(spec: SplitterSpec) -> StructuralSplitter:
    return StructuralSplitter(spec, token_counter(spec.vocabulary))
