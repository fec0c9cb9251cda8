"""What a search needs of an index, held in memory: vectors, postings, and which chunk each row is."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.stores.database import CHUNK_BITS
from core.stores.postings import Postings, index, merge

_GROWTH: Final = 1.25
DEAD_SHARE: Final = 0.25
_BATCH_BYTES: Final = 6_000_000
_LONG: Final = 2_000_000

_Block: TypeAlias = tuple[int, int, bytes, bytes, bytes]
"""Document, number of its first chunk, lengths, terms, vectors."""


class Stale(Exception):
    """The transaction looks at an older state than what is in memory; begin it again."""


@dataclass(frozen=True, slots=True)
class Resident:
    """An index at one version. The arrays may be longer than `rows`: the next version grows in them."""

    age: tuple[int, int]
    """Row of the generation and its version; both only ever grow, also when a generation is dropped and made anew."""
    dimension: int
    documents: int
    chunks: int
    """Live ones; `rows` counts the removed ones too."""
    rows: int
    ids_buffer: NDArray[np.int64]
    lengths_buffer: NDArray[np.uint32]
    matrix_buffer: NDArray[np.float32]
    segments: tuple[Postings, ...]
    alive: NDArray[np.bool_] | None = None
    """None: all rows are."""

    @property
    def ids(self) -> NDArray[np.int64]:
        """Row ids in the table of chunks."""
        return self.ids_buffer[: self.rows]

    @property
    def document_ids(self) -> NDArray[np.int64]:
        return self.ids >> CHUNK_BITS

    @property
    def lengths(self) -> NDArray[np.uint32]:
        return self.lengths_buffer[: self.rows]

    @property
    def matrix(self) -> NDArray[np.float32]:
        return self.matrix_buffer[: self.rows]

    @property
    def nbytes(self) -> int:
        buffers = self.ids_buffer.nbytes + self.lengths_buffer.nbytes + self.matrix_buffer.nbytes
        return buffers + sum(segment.nbytes for segment in self.segments)


class Residents:
    """The indexes in use, brought up to date when the file has changed, the longest unused ones given up first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[str, Resident] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def current(self, connection: sqlite3.Connection, key: str) -> Resident | None:
        """The index as the connection's transaction sees it; None where there is none. Raises Stale."""
        found = connection.execute(
            "SELECT id, version, dimension, documents, chunks FROM generations WHERE key = ?", (key,)
        ).fetchone()
        if found is None:
            self.forget(key)
            return None
        with self._lock:
            loading = self._loading[key]
        with loading:
            with self._lock:
                held = self._held.get(key)
            if held is not None and held.age > found[:2]:
                raise Stale
            if held is None or held.age < found[:2]:
                held = _updated(connection, held, *found)
            self._keep(key, held)
            return held

    def forget(self, key: str) -> None:
        with self._lock:
            self._held.pop(key, None)
            self._loading.pop(key, None)

    def _keep(self, key: str, resident: Resident) -> None:
        with self._lock:
            self._held[key] = resident
            self._held.move_to_end(key)
            total = sum(held.nbytes for held in self._held.values())
            while total > self._limit and len(self._held) > 1:
                _, oldest = self._held.popitem(last=False)
                total -= oldest.nbytes


def _updated(
    connection: sqlite3.Connection, held: Resident | None, generation: int, version: int, dimension: int, *live: int
) -> Resident:
    """The index at `version`, from what is held, what came since, and without what has gone."""
    documents, chunks = live
    if held is not None and held.age[0] != generation:
        held = None
    if held is not None:
        held = _without_removed(connection, held, generation, documents)
    if held is None:
        held = empty(dimension, chunks)
    blocks = connection.execute(
        "SELECT b.document, b.first, b.lengths, b.terms, b.vectors FROM documents d JOIN blocks b ON b.document = d.id"
        " WHERE d.generation = ? AND d.state = 1 AND d.version > ? ORDER BY d.version, d.id, b.first",
        (generation, held.age[1]),
    )
    for batch in _batches(blocks):
        held = extended(held, batch)
    return replace(held, age=(generation, version), documents=documents, chunks=chunks)


def empty(dimension: int, room: int) -> Resident:
    return Resident(
        age=(0, -1),
        dimension=dimension,
        documents=0,
        chunks=0,
        rows=0,
        ids_buffer=np.empty(room, np.int64),
        lengths_buffer=np.empty(room, np.uint32),
        matrix_buffer=np.empty((room, dimension), np.float32),
        segments=(),
    )


def _batches(blocks: Iterable[_Block]) -> Iterator[list[_Block]]:
    """A few megabytes at a time: arrays that fit the processor's cache are made several times as fast."""
    batch: list[_Block] = []
    size = 0
    for block in blocks:
        batch.append(block)
        size += len(block[3])
        if size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _without_removed(
    connection: sqlite3.Connection, held: Resident, generation: int, documents: int
) -> Resident | None:
    """The same index without rows of documents that are gone; None where so many are that it is better read anew."""
    (added,) = connection.execute(
        "SELECT count(*) FROM documents WHERE generation = ? AND state = 1 AND version > ?", (generation, held.age[1])
    ).fetchone()
    if held.documents + added == documents:
        return held
    live = connection.execute("SELECT id FROM documents WHERE generation = ? AND state = 1", (generation,)).fetchall()
    alive = np.isin(held.document_ids, np.array(live, np.int64).ravel())
    if np.count_nonzero(alive) < (1 - DEAD_SHARE) * held.rows:
        return None
    return replace(held, alive=alive)


def extended(held: Resident, blocks: Sequence[_Block]) -> Resident:
    lengths = [np.frombuffer(block[2], "<u4") for block in blocks]
    ids = [
        np.arange(len(own), dtype=np.int64) + ((block[0] << CHUNK_BITS) + block[1])
        for block, own in zip(blocks, lengths, strict=True)
    ]
    all_lengths = np.concatenate(lengths)
    rows = held.rows + len(all_lengths)
    matrix = _room(held.matrix_buffer, held.rows, rows)
    if held.dimension:
        at = held.rows
        for block, own in zip(blocks, lengths, strict=True):
            matrix[at : at + len(own)] = np.frombuffer(block[4], "<f2").reshape(len(own), held.dimension)
            at += len(own)
    ids_buffer = _room(held.ids_buffer, held.rows, rows)
    ids_buffer[held.rows : rows] = np.concatenate(ids)
    lengths_buffer = _room(held.lengths_buffer, held.rows, rows)
    lengths_buffer[held.rows : rows] = all_lengths
    alive = held.alive
    if alive is not None:
        alive = np.concatenate([alive, np.ones(len(all_lengths), np.bool_)])
    segment = index(held.rows, all_lengths, b"".join(block[3] for block in blocks))
    return replace(
        held,
        rows=rows,
        ids_buffer=ids_buffer,
        lengths_buffer=lengths_buffer,
        matrix_buffer=matrix,
        segments=_merged([*held.segments, segment]),
        alive=alive,
    )


def _room(buffer: NDArray[Any], used: int, wanted: int) -> NDArray[Any]:
    """The buffer, or a longer copy of it, with space for `wanted` rows."""
    if len(buffer) >= wanted:
        return buffer
    size = wanted if not used else max(wanted, int(used * _GROWTH) + 256)
    longer = np.empty((size, *buffer.shape[1:]), buffer.dtype)
    longer[:used] = buffer[:used]
    return longer


def _merged(segments: list[Postings]) -> tuple[Postings, ...]:
    """Each segment at least twice as long as the next, so that there are few, but the long ones stay as they are."""
    while len(segments) > 1 and len(segments[-2].rows) < min(_LONG, 2 * len(segments[-1].rows)):
        last = segments.pop()
        segments[-1] = merge(segments[-1], last)
    return tuple(segments)
