"""The SQLite file of the `local` store: its tables, its connections, and what its errors mean to a person."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from core.db.wal import use_wal
from core.errors import ConfigError, KvasirError, StoreUnavailable, UserError
from core.texts import tell

BUSY_SECONDS: Final = 30
CHUNK_BITS: Final = 20
"""A chunk's row id is its document's row id shifted by so many bits, plus its number."""

_FORMAT: Final = 1
_PAGE_SIZE: Final = 16384  # many chunks a page: the fewer pages, the less it costs to write them
_SCHEMA: Final = """
CREATE TABLE generations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT UNIQUE,              -- Generation.id; NULL once it is dropped
    kb TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    dimension INTEGER NOT NULL,
    version INTEGER NOT NULL,     -- grows with every change, so that other processes notice
    documents INTEGER NOT NULL,   -- live ones
    chunks INTEGER NOT NULL
);
CREATE TABLE documents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    generation INTEGER NOT NULL,
    key TEXT NOT NULL,            -- IndexedDocument.id
    name TEXT NOT NULL,
    title TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    chunks INTEGER NOT NULL,
    state INTEGER NOT NULL,       -- 0 being written, 1 live, 2 to be removed
    version INTEGER NOT NULL,     -- that of the generation from which on it is live
    since INTEGER NOT NULL        -- Unix time of its being written
);
CREATE UNIQUE INDEX live_documents ON documents (generation, key) WHERE state = 1;
CREATE INDEX live_rows ON documents (generation, version) WHERE state = 1;
CREATE INDEX other_rows ON documents (state, since) WHERE state <> 1;
CREATE TABLE metadata (
    document INTEGER NOT NULL,
    key TEXT NOT NULL,
    value,                        -- text or a number
    PRIMARY KEY (document, key)
) WITHOUT ROWID;
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL,
    tokens TEXT NOT NULL,
    headings TEXT NOT NULL,       -- JSON, or nothing
    locator TEXT NOT NULL,        -- JSON, or nothing
    content_hash TEXT NOT NULL
);
CREATE TABLE blocks (             -- what a search reads, in stretches of one document's chunks
    document INTEGER NOT NULL,
    first INTEGER NOT NULL,       -- number of the stretch's first chunk
    lengths BLOB NOT NULL,        -- per chunk: number of tokens, u32
    terms BLOB NOT NULL,          -- per chunk: its tokens as 64-bit hashes
    vectors BLOB NOT NULL,        -- per chunk: its vector in half precision; nothing in a generation of dimension 0
    PRIMARY KEY (document, first)
);
"""


_PRAGMAS: Final = (
    "synchronous = NORMAL",
    "secure_delete = FAST",
    "cache_size = -8000",
    "wal_autocheckpoint = 2000",
    "journal_size_limit = 67108864",
)


class Connections:
    """One connection for each thread that asks, all to one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own = threading.local()
        self._lock = threading.Lock()
        self._all: list[sqlite3.Connection] = []

    def get(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = connect(self.path)
            self._own.connection = found
            with self._lock:
                self._all.append(found)
        return found

    def close(self) -> None:
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()


def prepare(path: Path) -> None:
    """Create the file and its tables where there are none; one that cannot be used is left as it is.

    Raises ConfigError or StoreUnavailable.
    """
    with meaning(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists() or path.stat().st_size == 0
        if is_new:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = connect(path)
        try:
            if is_new:
                connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
            use_wal(connection, BUSY_SECONDS)
            with writing(connection):
                _create(connection, path)
        finally:
            connection.close()


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:  # a damaged file
        connection.close()
        raise
    return connection


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that writes; waits for other writers first, so that it never fails half-way for them."""
    connection.execute("BEGIN IMMEDIATE")
    with _ended(connection):
        yield


@contextmanager
def reading(connection: sqlite3.Connection) -> Iterator[None]:
    """One unchanging view of the file."""
    connection.execute("BEGIN")
    with _ended(connection):
        yield


@contextmanager
def _ended(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # A full disk may have ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def meaning(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into Kvasir's."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(error, path) from error
    except (UnicodeEncodeError, OverflowError) as error:
        raise UserError(tell("store_bad_value")) from error
    except OSError as error:
        raise StoreUnavailable(tell("store_io", path=path, reason=error.strerror or error)) from error


def _create(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > _FORMAT:
        raise ConfigError(tell("store_newer", path=path))
    if found == _FORMAT:
        connection.execute("SELECT count(*) FROM generations").fetchone()
        return
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise ConfigError(tell("store_foreign", path=path))
    for statement in _SCHEMA.split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {_FORMAT}")


def _explained(error: sqlite3.Error, path: Path) -> KvasirError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return ConfigError(tell("store_damaged", path=path))
    if code == sqlite3.SQLITE_FULL:
        return StoreUnavailable(tell("store_full", path=path))
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return StoreUnavailable(tell("store_read_only", path=path))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreUnavailable(tell("store_busy", path=path, seconds=BUSY_SECONDS))
    return StoreUnavailable(tell("store_io", path=path, reason=error))
