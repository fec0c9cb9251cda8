"""SQLite's write-ahead log, also where two processes open a new file at once."""

from __future__ import annotations

import sqlite3
import time


def use_wal(connection: sqlite3.Connection, seconds: float) -> None:
    """Turn it on for good; raises sqlite3.OperationalError when others hold the file longer than that.

    SQLite does not wait by itself here.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.05)
