"""One thread with one SQLite connection, to which a whole transaction goes in one trip."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final

from core.db.direct import Result, Step, Translated

_MOST_TOGETHER: Final = 64
_CLOSING_SECONDS: Final = 40.0
"""Longer than the wait for a lock."""


@dataclass(frozen=True, slots=True)
class _Transaction:
    """What somebody waits for."""

    work: Sequence[tuple[Translated, tuple[Any, ...]]]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Sequence[Result]]

    def tell(self, outcome: Sequence[Result] | Exception) -> None:
        """In the loop's own thread."""
        if self.done.done():
            return
        if isinstance(outcome, Exception):
            self.done.set_exception(outcome)
        else:
            self.done.set_result(outcome)


class SqliteThread:
    """Runs transactions one after the other. Those that wait at the same time are committed together.

    Each is done as a whole or not at all, and hears of no error but its own. One whose caller is cancelled before it
    begins is left out. The thread begins with the first one, and after `close` again with the next.
    """

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection], begin: str) -> None:
        self._name = name
        self._connect = connect
        self._begin = begin
        self._thread: threading.Thread | None = None
        self._queue: SimpleQueue[_Transaction | None] = SimpleQueue()

    async def run(self, steps: Sequence[Step]) -> Sequence[Result]:
        """Raises sqlite3.Error; nothing was changed then."""
        loop = asyncio.get_running_loop()
        transaction = _Transaction([step.bound() for step in steps], loop, loop.create_future())
        if self._thread is None:
            self._queue = SimpleQueue()
            self._thread = threading.Thread(target=self._serve, args=(self._queue,), name=self._name, daemon=True)
            self._thread.start()
        self._queue.put(transaction)
        return await transaction.done

    async def close(self) -> None:
        """Let what was asked for come to its end, and close the connection."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(thread.join, _CLOSING_SECONDS)

    # ------------------------------------------------------------ in the thread
    def _serve(self, queue: SimpleQueue[_Transaction | None]) -> None:
        connection = _Connection(self._connect, self._begin)
        while together := _next(queue):
            told: dict[asyncio.AbstractEventLoop, list[tuple[_Transaction, Sequence[Result] | Exception]]] = {}
            for transaction, outcome in connection.run(together):
                told.setdefault(transaction.loop, []).append((transaction, outcome))
            for loop, outcomes in told.items():
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(_tell, outcomes)
        connection.close()


class _Connection:
    """Opened when it is needed, and anew after it failed."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], begin: str) -> None:
        self._connect = connect
        self._begin = begin
        self._open: sqlite3.Connection | None = None

    def run(self, together: Sequence[_Transaction]) -> Sequence[tuple[_Transaction, Sequence[Result] | Exception]]:
        """What became of each; those that nobody waits for any more are left out."""
        try:
            if self._open is None:
                self._open = self._connect()
            cursor = self._open.cursor()
            cursor.execute(self._begin)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            self.close()
            return [(transaction, error) for transaction in together]
        together = [transaction for transaction in together if not transaction.done.cancelled()]
        try:
            found = [(one, [statement.run(cursor, values) for statement, values in one.work]) for one in together]
            cursor.execute("COMMIT")
            return found
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            self._undo(error)
            if len(together) == 1:
                return [(together[0], error)]
        return [outcome for one in together for outcome in self.run([one])]

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _undo(self, error: Exception) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._open is not None and self._open.in_transaction:
                self._open.execute("ROLLBACK")
        if not isinstance(error, sqlite3.IntegrityError):
            self.close()  # it may be the file's fault


def _next(queue: SimpleQueue[_Transaction | None]) -> Sequence[_Transaction]:
    """All that waits, once there is something; empty at the end."""
    found: list[_Transaction] = []
    transaction = queue.get()
    while transaction is not None:
        found.append(transaction)
        if len(found) == _MOST_TOGETHER:
            return found
        try:
            transaction = queue.get_nowait()
        except Empty:
            return found
    if found:
        queue.put(None)  # the end comes after these
    return found


def _tell(outcomes: Sequence[tuple[_Transaction, Sequence[Result] | Exception]]) -> None:
    for transaction, outcome in outcomes:
        transaction.tell(outcome)
