"""Threads that embed: one text a call, and what is nearly done goes first."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeAlias

import numpy as np

from core.errors import EmbedderUnavailable
from core.types import Matrix, Vector

logger = logging.getLogger(__name__)

Prepare: TypeAlias = Callable[[str], Any]
"""What is to be done with the interpreter: from a text to what the model takes."""
Encode: TypeAlias = Callable[[Any], Vector]
"""The rest, most of it without the interpreter."""
_HANDING_OVER: Final = 0.0003
"""Seconds. A thread begins after a tenth of a millisecond, when it gets the interpreter."""


class _Call:
    """The texts of one caller, and the rows done so far; its lane's lock guards it."""

    def __init__(self, texts: Sequence[str], dimension: int) -> None:
        self.future: Future[Matrix] = Future()
        self.begun = threading.Event()
        self.texts = texts
        self.rows = np.empty((len(texts), dimension), np.float32)
        self.left = sum(map(len, texts))
        # The longest first, so that the threads end together.
        self._waiting = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        self._missing = len(texts)

    @property
    def waiting(self) -> bool:
        return bool(self._waiting) and not self.future.done()

    def take(self) -> int:
        number = self._waiting.pop()
        self.left -= len(self.texts[number])
        return number

    def put(self, number: int, row: Vector) -> bool:
        """Keep one row; True when it was the last."""
        self.rows[number] = row
        self._missing -= 1
        return not self._missing

    def settle(self, result: Matrix | BaseException) -> None:
        """Give the caller what it waits for, unless it has something already or went away."""
        if self.future.done() or not self.future.set_running_or_notify_cancel():
            return
        if isinstance(result, BaseException):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class Lane:
    """A few threads over one queue.

    The call with the least text left goes first, so that the sentences of an answer never wait for a file.
    """

    def __init__(self, name: str, prepare: Prepare, encode: Encode, dimension: int, *, threads: int) -> None:
        self._prepare = prepare
        self._encode = encode
        self._dimension = dimension
        self._changed = threading.Condition()
        self._calls: list[_Call] = []
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def embed(self, texts: Sequence[str]) -> Matrix:
        """One row a text. Raises EmbedderUnavailable when the model fails or the lane is closed.

        For one text the caller's thread stands still until an idle lane has begun, a moment that both would lose
        otherwise while they take the interpreter from each other.
        """
        if not texts:
            return np.empty((0, self._dimension), np.float32)
        call = _Call(texts, self._dimension)
        with self._changed:
            if self._closed:
                raise _closed()
            is_idle = not self._calls
            self._calls.append(call)
            self._changed.notify(len(texts))
        if is_idle and len(texts) == 1:
            call.begun.wait(_HANDING_OVER)
        return await asyncio.wrap_future(call.future)

    def close(self) -> None:
        """Fail what waits, and come back when the threads have ended."""
        with self._changed:
            self._closed = True
            for call in self._calls:
                call.settle(_closed())
            self._calls.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while taken := self._take():
            call, number = taken
            try:
                prepared = self._prepare(call.texts[number])
                call.begun.set()
                row = self._encode(prepared)
            except Exception as error:  # outermost loop of the thread; the caller gets it, whatever the runtime raised
                logger.exception("embedding a text failed")
                self._settle(call, _failed(error))
                continue
            with self._changed:
                last = call.put(number, row)
            if last:
                self._settle(call, halved(call.rows))

    def _take(self) -> tuple[_Call, int] | None:
        with self._changed:
            while True:
                self._calls = [call for call in self._calls if call.waiting]
                if self._calls:
                    call = min(self._calls, key=lambda one: one.left)
                    return call, call.take()
                if self._closed:
                    return None
                self._changed.wait()

    def _settle(self, call: _Call, result: Matrix | BaseException) -> None:
        with self._changed:
            call.settle(result)


def halved(rows: Matrix) -> Matrix:
    """The rows at the precision that is kept (fp16), so that fresh and cached vectors are equal to the bit."""
    return rows.astype(np.float16).astype(np.float32)


def _failed(error: Exception) -> EmbedderUnavailable:
    reason = EmbedderUnavailable(f"The embedding model failed ({type(error).__name__}): see the log, and try again.")
    reason.__cause__ = error
    return reason


def _closed() -> EmbedderUnavailable:
    return EmbedderUnavailable("The embedder is closed; start Kvasir again.")
