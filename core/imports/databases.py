"""Reads an SQLite file that somebody else made: tables only, read-only, with limits of size and time."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from core.errors import UserError
from core.texts import tell

_SECONDS: Final = 120.0
_LONGEST: Final = 64 << 20
_ALLOWED: Final = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ})
_STEPS: Final = 100_000


class Reader:
    """An open file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def columns(self, table: str) -> frozenset[str]:
        """Of a table; empty where there is none of that name, or only a view."""
        found = self._connection.execute("SELECT type FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        if found is None or found[0] != "table":
            return frozenset()
        self._connection.set_authorizer(None)
        try:
            rows = self._connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
        finally:
            self._connection.set_authorizer(_authorize)
        return frozenset(str(row[0]) for row in rows)

    def rows(self, table: str, columns: Sequence[str], order: str = "") -> Iterator[tuple[Any, ...]]:
        """Those of its columns; a column that is not there is None. Nothing where there is no such table."""
        there = self.columns(table)
        if not there:
            return
        wanted = ", ".join(f'"{name}"' if name in there else "NULL" for name in columns)
        ordered = f' ORDER BY "{order}"' if order in there else ""
        yield from self._connection.execute(f'SELECT {wanted} FROM "{table}"{ordered}')  # noqa: S608 - names of ours


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """Raises UserError where it is no SQLite file, is damaged, or takes too long."""
    try:
        with closing(_opened(path)) as connection:
            yield Reader(connection)
    except sqlite3.Error as error:
        raise UserError(tell("import_damaged", file=path.name, reason=error)) from error


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=5.0)
    try:
        for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        until = time.monotonic() + _SECONDS
        connection.set_progress_handler(lambda: int(time.monotonic() > until), _STEPS)
        connection.set_authorizer(_authorize)
    except BaseException:
        connection.close()
        raise
    return connection


def _authorize(action: int, *_what: object) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY
