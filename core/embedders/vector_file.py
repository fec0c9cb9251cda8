"""Vectors by key in a SQLite file that several processes may share, and that may be lost at any time.

A batch is one row: its keys, then its vectors in fp16. Which key stands where is kept in memory, sorted; a tree of keys
in the file would cost more than all the rest, since each batch would touch a page of it for every key.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.types import Matrix

logger = logging.getLogger(__name__)

KEY_BYTES: Final = 16
_BLOCK_ROWS: Final = 1 << 10
_BUSY_SECONDS: Final = 5.0
_REST_SECONDS: Final = 60.0
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NONSENSE: Final = (TypeError, ValueError, IndexError, OverflowError)
"""What our reading raises when flipped bits changed the size or type of a value."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS blocks (
    id INTEGER PRIMARY KEY, embedder TEXT NOT NULL, keys BLOB NOT NULL, vectors BLOB NOT NULL
)
"""

Numbers: TypeAlias = NDArray[np.int64]


class VectorFile:
    """The vectors of one embedder; used by one thread, and opened when it is first needed.

    No method raises for what is wrong with the file: a damaged one is moved aside and made anew, a full disk costs only
    the keeping.
    """

    def __init__(self, path: Path, embedder: str, dimension: int, max_bytes: int) -> None:
        self._path = path
        self._embedder = embedder
        self._dimension = dimension
        self._max_bytes = max_bytes
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._index = _Index()
        self._seen = 0
        self._failing = False
        self._rest_until = 0.0

    def fill(self, keys: Sequence[bytes], rows: Matrix) -> list[int]:
        """Write what is kept into the rows; the numbers of the keys that are not."""
        filled = np.zeros(len(keys), np.bool_)
        with self._forgiving():
            connection = self._open()
            self._refresh(connection)
            wanted = np.frombuffer(b"".join(keys), "<u8").reshape(-1, 2)
            places = self._index.find(wanted[:, 0])
            blocks = places // _BLOCK_ROWS
            for block in np.unique(blocks[places >= 0]).tolist():
                numbers = np.flatnonzero(blocks == block)
                good = self._fill_from(connection, block, places[numbers] % _BLOCK_ROWS, wanted[numbers], numbers, rows)
                filled[numbers] = good
        return np.flatnonzero(~filled).tolist()

    def add(self, keys: Sequence[bytes], halves: NDArray[np.float16]) -> None:
        """Keep the rows, in one step; the oldest go when there are too many."""
        if time.monotonic() < self._rest_until:
            return
        with self._forgiving():
            connection = self._open()
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for start in range(0, len(keys), _BLOCK_ROWS):
                    end = start + _BLOCK_ROWS
                    connection.execute(
                        "INSERT INTO blocks (embedder, keys, vectors) VALUES (?, ?, ?)",
                        (self._embedder, b"".join(keys[start:end]), halves[start:end].tobytes()),
                    )
                self._make_room(connection)
            if self._failing:
                self._failing = False
                logger.info("embeddings are kept again in %s", self._path)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _refresh(self, connection: sqlite3.Connection) -> None:
        """Learn the keys that came since, from us or from other processes; writers commit in the order of their ids."""
        if len(self._index) > self._max_bytes // (2 * self._dimension):
            self._forget()  # it holds many that were thrown out since
        news = connection.execute(
            "SELECT id, keys FROM blocks WHERE id > ? AND embedder = ? ORDER BY id", (self._seen, self._embedder)
        )
        for block, keys in news:
            first = np.frombuffer(keys, "<u8")[::2]
            self._index.add(first, np.arange(len(first), dtype=np.int64) + block * _BLOCK_ROWS)
            self._seen = block

    def _fill_from(
        self,
        connection: sqlite3.Connection,
        block: int,
        places: Numbers,
        wanted: NDArray[np.uint64],
        numbers: Numbers,
        rows: Matrix,
    ) -> NDArray[np.bool_]:
        """Write what one block holds into the rows; which of the wanted keys it holds unharmed."""
        found = connection.execute("SELECT keys, vectors FROM blocks WHERE id = ?", (block,)).fetchone()
        if found is None or len(found[1]) * KEY_BYTES != len(found[0]) * 2 * self._dimension:
            self._forget()
            return np.zeros(len(numbers), np.bool_)
        keys = np.frombuffer(found[0], "<u8").reshape(-1, 2)
        vectors = np.frombuffer(found[1], np.float16).reshape(len(keys), -1)[places].astype(np.float32)
        sound = np.abs(np.einsum("ij,ij->i", vectors, vectors) - 1) < 0.01
        if not sound.all():
            connection.execute("DELETE FROM blocks WHERE id = ?", (block,))
            self._forget()
        good: NDArray[np.bool_] = sound & (keys[places] == wanted).all(axis=1)
        rows[numbers[good]] = vectors[good]
        return good

    def _make_room(self, connection: sqlite3.Connection) -> None:
        [page_bytes] = connection.execute("PRAGMA page_size").fetchone()
        while True:
            [pages] = connection.execute("PRAGMA page_count").fetchone()
            [free] = connection.execute("PRAGMA freelist_count").fetchone()
            if (pages - free) * page_bytes <= self._max_bytes:
                return
            oldest = "DELETE FROM blocks WHERE id = (SELECT min(id) FROM blocks) AND id < (SELECT max(id) FROM blocks)"
            if not connection.execute(oldest).rowcount:
                return

    def _forget(self) -> None:
        """Learn all keys anew, at the next look."""
        self._index = _Index()
        self._seen = 0

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                self._inode = self._path.stat().st_ino
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute(_SCHEMA)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            self._forget()
        return self._connection

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        """Go on without the file when it fails, with one warning until it works again."""
        try:
            yield
        except _NONSENSE as error:
            self.close()
            self._move_aside(error)
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                logger.debug("the cache of embeddings is busy: %s", error)
                return
            self.close()
            if code in _DAMAGED:
                self._move_aside(error)
                return
            self._rest_until = time.monotonic() + _REST_SECONDS
            if not self._failing:
                self._failing = True
                logger.warning("embeddings are not kept, since %s cannot be used: %s", self._path, error)

    def _move_aside(self, reason: Exception) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged")
        logger.warning("%s is damaged (%s); it is moved to %s and made anew", self._path, reason, aside)
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:  # else another process was quicker
                self._path.rename(aside)
                for ending in ("-wal", "-shm"):
                    self._path.with_name(self._path.name + ending).unlink(missing_ok=True)


class _Index:
    """Where each key stands, by its first eight bytes: sorted runs, merged as they grow alike."""

    def __init__(self) -> None:
        self._runs: list[tuple[NDArray[np.uint64], Numbers]] = []

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._runs)

    def add(self, keys: NDArray[np.uint64], places: Numbers) -> None:
        run = _ordered(keys, places)
        while self._runs and len(self._runs[-1][0]) <= 2 * len(run[0]):
            last = self._runs.pop()
            run = _ordered(np.concatenate((last[0], run[0])), np.concatenate((last[1], run[1])))
        self._runs.append(run)

    def find(self, keys: NDArray[np.uint64]) -> Numbers:
        """The place of each key, -1 where there is none."""
        found = np.full(len(keys), -1, np.int64)
        for known, places in self._runs:
            spots = np.searchsorted(known, keys)
            spots[spots == len(known)] = 0
            hits = known[spots] == keys
            found[hits] = places[spots[hits]]
        return found


def _ordered(keys: NDArray[np.uint64], places: Numbers) -> tuple[NDArray[np.uint64], Numbers]:
    order = np.argsort(keys, kind="stable")  # which merges two sorted runs in one pass
    return keys[order], places[order]
