"""SQLite with one trip to the driver's thread a statement; each trip costs more than most statements."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import aiosqlite

READ: Final = "BEGIN"
"""How a transaction begins that only reads."""


class Connection(aiosqlite.Connection):
    """Begins, executes and fetches in one go, and spares the trip that would end a transaction never begun."""

    def __init__(self, database: str, **options: Any) -> None:
        super().__init__(self._open, iter_chunk_size=64)
        self._opener: Callable[[], sqlite3.Connection] = partial(sqlite3.connect, database, **options)
        self._opened: sqlite3.Connection | None = None
        self._thread.daemon = True
        self._to_begin = ""
        self._begun = False
        """Whether there may be a transaction; it is said before the thread hears of it, so that a cancelled wait never
        leaves one open."""
        self._only_reads = False

    def _open(self) -> sqlite3.Connection:
        self._opened = self._opener()
        return self._opened

    def _close_unclaimed(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def stop(self) -> asyncio.Future[Any] | None:
        """End the thread; what it opened for somebody who has given up waiting is closed, too."""
        if self._connection is None:
            self._tx.put_nowait((None, self._close_unclaimed))
        return super().stop()

    def begin(self, statement: str) -> None:
        """Let a transaction begin together with the next statement."""
        self._to_begin = statement
        self._only_reads = statement == READ

    def cursor(self) -> Cursor:  # type: ignore[override]  # SQLAlchemy enters what it gets
        return Cursor(self)

    async def run(self, statement: str, parameters: Iterable[Any], *, many: bool) -> _Result:
        begin, self._to_begin = self._to_begin, ""
        self._begun = self._begun or bool(begin)
        work: Awaitable[_Result] = self._execute(  # type: ignore[no-untyped-call]  # the library leaves it untyped
            _run, self._conn, begin, statement, parameters, many
        )
        return await work

    async def commit(self) -> None:
        self._to_begin = ""
        if self._begun and self._only_reads:
            self._begun = False
            self._tx.put_nowait((None, self._conn.commit))  # nothing can be lost, so nobody waits
        elif self._begun:
            await super().commit()
            self._begun = False

    async def rollback(self) -> None:
        self._to_begin = ""
        if self._begun:
            await super().rollback()
            self._begun = False


class _Result:
    """What is left of a statement once it is done."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self.description = cursor.description
        self.rowcount = cursor.rowcount
        self.lastrowid = cursor.lastrowid
        self.rows: Sequence[Any] = cursor.fetchall() if cursor.description else ()


class Cursor:
    """As SQLAlchemy's adapter for aiosqlite wants one; the rows are there with the statement."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._result: _Result | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Cursor:
        return self

    async def execute(self, statement: str, parameters: Iterable[Any] = ()) -> None:
        self._result = await self._connection.run(statement, parameters, many=False)

    async def executemany(self, statement: str, parameters: Iterable[Iterable[Any]]) -> None:
        self._result = await self._connection.run(statement, parameters, many=True)

    async def fetchall(self) -> Sequence[Any]:
        return self._result.rows if self._result else ()

    async def close(self) -> None:
        return None

    @property
    def description(self) -> Any:
        return self._result.description if self._result else None

    @property
    def rowcount(self) -> int:
        return self._result.rowcount if self._result else -1

    @property
    def lastrowid(self) -> int | None:
        return self._result.lastrowid if self._result else None


def _run(connection: sqlite3.Connection, begin: str, statement: str, parameters: Any, many: bool) -> _Result:
    """Runs in the connection's thread."""
    cursor = connection.cursor()
    try:
        if begin:
            cursor.execute(begin)
        (cursor.executemany if many else cursor.execute)(statement, parameters)
        return _Result(cursor)
    finally:
        cursor.close()
