"""The `local` store: one SQLite file, searched exactly with numpy; needs no server, and several processes may use it.

Text, vectors and tokens of a document are written in one commit. A search works in memory, on an index that follows the
file: a version number per generation tells when another thread or process has changed it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from asyncio import Future
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, suppress
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.errors import KvasirError
from core.ports import QueryVector
from core.settings import Settings
from core.stores.asked import asked_vector
from core.stores.counting import counted
from core.stores.database import CHUNK_BITS, Connections, connect, meaning, prepare, reading, writing
from core.stores.filters import condition
from core.stores.postings import bm25
from core.stores.resident import Resident, Residents, Stale
from core.stores.writing import delete, drop, headings_of, locator_of, put, sweep
from core.types import Chunk, Filter, Generation, Hit, IndexedDocument, SearchResult, StoreCount, Vector

logger = logging.getLogger(__name__)

FILE: Final = "index.db"
_READERS: Final = 4
_CHUNK_COLUMNS: Final = "c.text, c.tokens, c.content_hash, c.headings, c.locator"
_KNOWN_CHARACTERS: Final = 16_000_000
_FEW: Final = 2_000
"""Chunks, as a rule of at most a quarter of these characters together."""
_NUMBER: Final = (1 << CHUNK_BITS) - 1
_LITTLE: Final = 1_000_000
"""Numbers in a matrix that costs less to be gone through than another thread to be woken."""

_Row: TypeAlias = tuple[str, str, str, Chunk]

P = ParamSpec("P")
T = TypeVar("T")


async def open_store(settings: Settings) -> LocalStore:
    """The store in `{data_dir}/index.db`, made where it is missing. Raises ConfigError or StoreUnavailable."""
    store = LocalStore(settings.data_dir / FILE, cache_mb=settings.store.cache_mb)
    await store.open()
    return store


class LocalStore:
    def __init__(self, path: Path, *, cache_mb: int) -> None:
        self._path = path
        self._connections = Connections(path)
        self._residents = Residents(cache_mb << 20)
        self._known = _Known()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="kvasir-store-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="kvasir-store-write")

    async def open(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, copy_context().run, prepare, self._path)
        except BaseException:
            await self.close()
            raise
        self._writer.submit(self._clean_up)

    async def close(self) -> None:
        """What has begun is finished first."""

        def shut() -> None:
            self._writer.shutdown()
            self._readers.shutdown()
            self._connections.close()

        await asyncio.to_thread(shut)

    async def ensure_generation(self, generation: Generation) -> None:
        await self._write(_ensure, generation)

    async def drop_generation(self, generation: Generation) -> None:
        await self._write(drop, generation)
        self._residents.forget(generation.id)

    async def put(self, generation: Generation, documents: Sequence[IndexedDocument]) -> None:
        await self._write(put, generation, documents)

    async def delete(self, generation: Generation, document_ids: Sequence[str]) -> None:
        await self._write(delete, generation, document_ids)

    async def search(
        self,
        generation: Generation,
        *,
        vector: QueryVector,
        tokens: Sequence[str],
        limit: int,
        filter: Filter | None = None,
    ) -> SearchResult:
        ahead = None
        if isinstance(vector, Future) and not vector.done():
            ahead = await self._read(self._ahead, generation, tokens, limit, filter)
        near = await asked_vector(generation, vector)
        chosen = None
        if ahead is not None and ahead.index.matrix.size <= _LITTLE:
            chosen = _chosen(ahead, near, limit)
            if rows := self._known.held(chosen.ids):
                return _result(chosen, rows)
        return await self._read(self._search, generation, near, tokens, limit, filter, ahead, chosen)

    async def chunks(self, generation: Generation, document_id: str) -> Sequence[Chunk]:
        return await self._read(_chunks, generation, document_id)

    async def read(self, generation: Generation, document_ids: Sequence[str]) -> Sequence[IndexedDocument]:
        return await self._read(_whole, generation, document_ids)

    async def documents(self, generation: Generation) -> Sequence[tuple[str, str, int]]:
        return await self._read(_documents, generation)

    async def count(self, generation: Generation) -> StoreCount:
        return await self._read(_count, generation)

    async def backup(self, path: Path) -> None:
        """Write a consistent copy of the whole store to `path`, while it is in use."""
        await self._read(_backup, path)

    async def _read(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **_: P.kwargs) -> T:
        return await self._run(self._readers, work, *args)

    async def _write(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **_: P.kwargs) -> T:
        return await self._run(self._writer, work, *args)

    async def _run(self, executor: Executor, work: Callable[..., T], *args: Any) -> T:
        def ask() -> T:
            with meaning(self._path):
                return work(self._connections.get(), *args)

        return await asyncio.get_running_loop().run_in_executor(executor, copy_context().run, ask)

    def _clean_up(self) -> None:
        """Take out what a killed process left behind; a start does not wait for it."""
        try:
            with meaning(self._path):
                sweep(self._connections.get())
        except KvasirError as error:
            logger.warning("nothing cleaned up: %s", error)

    def _search(
        self,
        connection: sqlite3.Connection,
        generation: Generation,
        vector: Vector | None,
        tokens: Sequence[str],
        limit: int,
        filter: Filter | None,
        ahead: _ByWords | None,
        chosen: _Chosen | None,
    ) -> SearchResult:
        """`ahead` and `chosen`: what was found already, if the index is still the same."""
        while True:
            try:
                with reading(connection):
                    index = self._residents.current(connection, generation.id)
                    if index is None:
                        return SearchResult((), 0, dict.fromkeys(tokens, 0))
                    if ahead is None or ahead.index is not index:
                        ahead, chosen = _by_words(connection, generation, index, tokens, limit, filter), None
                    chosen = chosen or _chosen(ahead, vector, limit)
                    return _result(chosen, self._known.read(connection, chosen.ids))
            except Stale:  # another thread has just seen a newer state, so a new transaction does too
                continue

    def _ahead(
        self,
        connection: sqlite3.Connection,
        generation: Generation,
        tokens: Sequence[str],
        limit: int,
        filter: Filter | None,
    ) -> _ByWords | None:
        """What can be found before the vector is there; its texts are known then."""
        with suppress(Stale), reading(connection):
            index = self._residents.current(connection, generation.id)
            if index is not None:
                found = _by_words(connection, generation, index, tokens, limit, filter)
                self._known.read(connection, index.ids[found.best].tolist())
                self._known.read_few(connection, index)
                return found
        return None


@dataclass(frozen=True, slots=True)
class _ByWords:
    """What the words of a question find in one version of an index."""

    index: Resident
    eligible: NDArray[np.bool_] | None
    """The rows that may be found; None: all."""
    scores: NDArray[np.float32]
    frequencies: dict[str, int]
    best: NDArray[np.int64]


def _by_words(
    connection: sqlite3.Connection,
    generation: Generation,
    index: Resident,
    tokens: Sequence[str],
    limit: int,
    filter: Filter | None,
) -> _ByWords:
    eligible = _eligible(connection, generation, index, filter)
    scores, frequencies = bm25(index.segments, tokens, index.lengths, index.alive)
    return _ByWords(index, eligible, scores, frequencies, _best(scores, eligible, limit, above=0.0))


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The best of both legs."""

    words: _ByWords
    ids: list[int]
    vector_scores: Sequence[float | None]
    keyword_scores: Sequence[float | None]


def _chosen(words: _ByWords, vector: Vector | None, limit: int) -> _Chosen:
    index, rows = words.index, words.best
    similarities = None if vector is None else _similarities(index, vector)
    if similarities is not None:
        rows = np.concatenate([rows, _best(similarities, words.eligible, limit)])
    rows = np.unique(rows)
    ids = index.ids[rows].tolist()
    vector_scores = [None] * len(ids) if similarities is None else similarities[rows].tolist()
    keyword_scores = words.scores[rows].tolist() if words.frequencies else [None] * len(ids)
    return _Chosen(words, ids, vector_scores, keyword_scores)


def _result(chosen: _Chosen, rows: Sequence[_Row]) -> SearchResult:
    both = zip(rows, chosen.vector_scores, chosen.keyword_scores, strict=True)
    hits = tuple([Hit(*row, near, score) for row, near, score in both])
    return SearchResult(hits, chosen.words.index.chunks, chosen.words.frequencies)


class _Known(dict[int, _Row]):
    """Chunks that were found lately, by row id, each with its document's id, name and title; a row never changes."""

    def __init__(self) -> None:
        super().__init__()
        self._characters = 0
        self._whole: dict[int, int] = {}
        """Of the indexes that are known whole, the version that is, by the row of the generation."""

    def held(self, ids: Sequence[int]) -> list[_Row] | None:
        """None where one of them is not known."""
        found = [self.get(row) for row in ids]
        rows = [row for row in found if row is not None]
        return rows if len(rows) == len(found) else None

    def read(self, connection: sqlite3.Connection, ids: Sequence[int]) -> list[_Row]:
        held = [self.get(row) for row in ids]
        missing = [row for row, known in zip(ids, held, strict=True) if known is None]
        if not missing:
            return [row for row in held if row is not None]
        marks = ", ".join("?" * len(missing))
        found = connection.execute(
            f"SELECT d.key, d.name, d.title, c.id, {_CHUNK_COLUMNS} FROM chunks c"  # noqa: S608 - columns and marks only
            f" JOIN documents d ON d.id = c.id >> {CHUNK_BITS} WHERE c.id IN ({marks})",
            missing,
        )
        new = {chunk[0]: (key, name, title, _chunk(*chunk)) for key, name, title, *chunk in found}
        self._keep(new)
        return [known or new[row] for row, known in zip(ids, held, strict=True)]

    def read_few(self, connection: sqlite3.Connection, index: Resident) -> None:
        """Read all of an index that has few, so that a search need not go back to the file for what vectors find.

        Only while there is much room: many such indexes would push each other out, and be read again and again.
        """
        generation, version = index.age
        if index.rows > _FEW or self._whole.get(generation) == version or self._characters > _KNOWN_CHARACTERS // 2:
            return
        self.read(connection, (index.ids if index.alive is None else index.ids[index.alive]).tolist())
        self._whole[generation] = version

    def _keep(self, new: dict[int, _Row]) -> None:
        self._characters += sum(len(chunk.text) + len(chunk.tokens) for *_, chunk in new.values())
        if self._characters > _KNOWN_CHARACTERS:
            self.clear()
            self._whole.clear()
            self._characters = 0
        self.update(new)


def _eligible(
    connection: sqlite3.Connection, generation: Generation, index: Resident, filter: Filter | None
) -> NDArray[np.bool_] | None:
    """The rows that may be found; None: all."""
    if filter is None:
        return index.alive
    sql, values = condition(filter)
    found = connection.execute(
        "SELECT d.id FROM documents d JOIN generations g ON g.id = d.generation"  # noqa: S608 - `sql` is ours, see there
        f" WHERE g.key = ? AND d.state = 1 AND ({sql})",
        (generation.id, *values),
    ).fetchall()
    return np.isin(index.document_ids, np.array(found, np.int64).ravel())


def _similarities(index: Resident, vector: Vector) -> NDArray[np.float32]:
    # Row by row rather than by `@`, which wakes BLAS's own threads for a few microseconds' work and waits for them.
    similarities: NDArray[np.float32] = np.vecdot(index.matrix, vector)
    return similarities


def _best(
    scores: NDArray[np.float32], eligible: NDArray[np.bool_] | None, limit: int, *, above: float | None = None
) -> NDArray[np.int64]:
    """Rows of the `limit` highest scores among the eligible ones."""
    wanted = eligible
    if above is not None:
        wanted = scores > above if eligible is None else (scores > above) & eligible
    rows = np.arange(len(scores)) if wanted is None else np.flatnonzero(wanted)
    if len(rows) <= limit:
        return rows
    return rows[np.argpartition(scores[rows], -limit)[-limit:]] if limit > 0 else rows[:0]


def _chunk(row: int, text: str, tokens: str, content_hash: str, headings: str, locator: str) -> Chunk:
    return Chunk(row & _NUMBER, text, tokens, content_hash, headings_of(headings), locator_of(locator))


def _ensure(connection: sqlite3.Connection, generation: Generation) -> None:
    with writing(connection):
        connection.execute(
            "INSERT INTO generations (key, kb, fingerprint, dimension, version, documents, chunks)"
            " VALUES (?, ?, ?, ?, 0, 0, 0) ON CONFLICT (key) DO NOTHING",
            (generation.id, generation.kb_id, generation.fingerprint, generation.dimension),
        )


def _chunks(connection: sqlite3.Connection, generation: Generation, document_id: str) -> list[Chunk]:
    found = connection.execute(
        f"SELECT c.id, {_CHUNK_COLUMNS} FROM generations g"  # noqa: S608 - a constant
        " JOIN documents d ON d.generation = g.id AND d.state = 1 AND d.key = ?"
        f" JOIN chunks c ON c.id BETWEEN d.id << {CHUNK_BITS} AND (d.id << {CHUNK_BITS}) + {_NUMBER}"
        " WHERE g.key = ? ORDER BY c.id",
        (document_id, generation.id),
    )
    return [_chunk(*row) for row in found]


def _whole(
    connection: sqlite3.Connection, generation: Generation, document_ids: Sequence[str]
) -> list[IndexedDocument]:
    with reading(connection):
        found = [(key, _head(connection, generation, key)) for key in document_ids]
        return [_document(connection, generation, key, *head) for key, head in found if head is not None]


def _head(connection: sqlite3.Connection, generation: Generation, key: str) -> tuple[int, str, str, str] | None:
    """Row, name, title and content hash of a document."""
    head: tuple[int, str, str, str] | None = connection.execute(
        "SELECT d.id, d.name, d.title, d.content_hash FROM generations g"
        " JOIN documents d ON d.generation = g.id AND d.state = 1 AND d.key = ? WHERE g.key = ?",
        (key, generation.id),
    ).fetchone()
    return head


def _document(
    connection: sqlite3.Connection, generation: Generation, key: str, row: int, name: str, title: str, content_hash: str
) -> IndexedDocument:
    blocks = connection.execute(
        "SELECT terms, vectors FROM blocks WHERE document = ? ORDER BY first", (row,)
    ).fetchall()
    vectors = np.frombuffer(b"".join(vectors for _, vectors in blocks), "<f2").astype(np.float32)
    return IndexedDocument(
        key,
        name,
        title,
        content_hash,
        tuple(_chunks(connection, generation, key)),
        vectors.reshape(-1, generation.dimension) if generation.dimension else None,
        dict(connection.execute("SELECT key, value FROM metadata WHERE document = ?", (row,)).fetchall()),
        b"".join(terms for terms, _ in blocks),
    )


def _documents(connection: sqlite3.Connection, generation: Generation) -> list[tuple[str, str, int]]:
    return connection.execute(
        "SELECT d.key, d.content_hash, d.chunks FROM generations g"
        " JOIN documents d ON d.generation = g.id AND d.state = 1 WHERE g.key = ? ORDER BY d.key",
        (generation.id,),
    ).fetchall()


def _count(connection: sqlite3.Connection, generation: Generation) -> StoreCount:
    """Counted from the rows themselves, so that it tells what is there."""
    with reading(connection):
        listed = len(_documents(connection, generation))
        rows = connection.execute(
            "SELECT d.key, c.id, c.content_hash FROM generations g"  # noqa: S608 - constants
            " JOIN documents d ON d.generation = g.id AND d.state = 1"
            f" JOIN chunks c ON c.id BETWEEN d.id << {CHUNK_BITS} AND (d.id << {CHUNK_BITS}) + {_NUMBER}"
            " WHERE g.key = ?",
            (generation.id,),
        )
        return counted(listed, ((key, row & _NUMBER, content_hash) for key, row, content_hash in rows))


def _backup(connection: sqlite3.Connection, path: Path) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with closing(connect(partial)) as copy:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
