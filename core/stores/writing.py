"""Documents into and out of the `local` store's file."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Final, TypeAlias, TypeVar

import numpy as np

from core.analyzer import TERM_BYTES
from core.errors import ConfigError, DocumentError, StoreUnavailable
from core.stores.database import CHUNK_BITS, writing
from core.stores.postings import analyse
from core.texts import tell
from core.types import Chunk, Generation, IndexedDocument, Locator

T = TypeVar("T")

_AT_ONCE: Final = 2500
"""Chunks after which a transaction ends; more are written bit by bit and made live in a last, short one."""
_ABANDONED_AFTER: Final = 3600
"""Seconds after which a document that is still being written was left by a process that died."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Some chunks of a document, ready to be written."""

    first: int
    columns: tuple[Sequence[str], ...]
    """Text, tokens, headings, locator and content hash of each chunk."""
    lengths: bytes
    terms: bytes
    vectors: bytes


@dataclass(frozen=True, slots=True)
class _Analysed:
    """A document with its tokens as the file keeps them."""

    document: IndexedDocument
    counts: list[int]
    """Tokens of each chunk."""
    terms: bytes

    def stretch(self, generation: Generation, first: int, last: int) -> _Stretch:
        """The chunks of these numbers, as far as there are so many."""
        document, counts, end = self.document, self.counts[first : last + 1], last + 1
        start = TERM_BYTES * sum(self.counts[:first])
        terms = self.terms[start : start + TERM_BYTES * sum(counts)]
        vectors = b""
        if generation.dimension and document.vectors is not None:
            vectors = document.vectors[first:end].astype("<f2").tobytes()
        lengths = np.array(counts, np.uint32).tobytes()
        return _Stretch(first, _columns(document.chunks[first:end]), lengths, terms, vectors)


_Group: TypeAlias = list[tuple[_Analysed, int, int, bool]]


def put(connection: sqlite3.Connection, generation: Generation, documents: Sequence[IndexedDocument]) -> None:
    wanted = list({document.id: document for document in documents}.values())
    for document in wanted:
        check(generation, document)
    parts = [_Analysed(document, *analysed(document)) for document in wanted]
    groups = list(_groups([(part, len(part.document.chunks)) for part in parts]))
    if len(groups) == 1:
        _put_at_once(connection, generation, wanted, groups[0])
    else:
        _put_bit_by_bit(connection, generation, wanted, groups)
    sweep(connection)


def delete(connection: sqlite3.Connection, generation: Generation, document_ids: Sequence[str]) -> None:
    with writing(connection):
        row = _generation_row(connection, generation)
        if row is not None:
            _remove(connection, row, document_ids)
    sweep(connection)


def drop(connection: sqlite3.Connection, generation: Generation) -> None:
    """Gone for readers at once; its rows are taken out in short transactions."""
    with writing(connection):
        row = _generation_row(connection, generation)
        if row is None:
            return
        connection.execute("UPDATE generations SET key = NULL WHERE id = ?", (row,))
        connection.execute("UPDATE documents SET state = 2 WHERE generation = ?", (row,))
    sweep(connection)


def sweep(connection: sqlite3.Connection) -> None:
    """Take out the rows of documents that were replaced, deleted, or left half-written by a process that died."""
    abandoned = int(time.time()) - _ABANDONED_AFTER
    while True:
        found = connection.execute(
            "SELECT id, chunks FROM documents WHERE state = 2 OR (state = 0 AND since < ?) LIMIT 100", (abandoned,)
        ).fetchall()
        if not found:
            break
        for group in _groups(found):
            with writing(connection):
                for document, first, last, is_end in group:
                    start = document << CHUNK_BITS
                    connection.execute("DELETE FROM chunks WHERE id BETWEEN ? AND ?", (start + first, start + last))
                    if is_end:
                        connection.execute("DELETE FROM blocks WHERE document = ?", (document,))
                        connection.execute("DELETE FROM metadata WHERE document = ?", (document,))
                        connection.execute("DELETE FROM documents WHERE id = ?", (document,))
    if connection.execute("SELECT 1 FROM generations WHERE key IS NULL LIMIT 1").fetchone():
        with writing(connection):
            connection.execute(
                "DELETE FROM generations WHERE key IS NULL AND id NOT IN (SELECT generation FROM documents)"
            )


def _groups(found: Iterable[tuple[T, int]]) -> Iterator[list[tuple[T, int, int, bool]]]:
    """(document, first chunk, last chunk, whether these are its last) in transactions of about `_AT_ONCE` chunks."""
    group: list[tuple[T, int, int, bool]] = []
    size = 0
    for document, chunks in found:
        for first in range(0, max(chunks, 1), _AT_ONCE):
            last = first + _AT_ONCE - 1
            group.append((document, first, last, last + 1 >= chunks))
            size += min(chunks - first, _AT_ONCE)
            if size >= _AT_ONCE:
                yield group
                group, size = [], 0
    if group:
        yield group


def check(generation: Generation, document: IndexedDocument) -> None:
    if len(document.chunks) >= 1 << CHUNK_BITS:
        raise DocumentError(tell("store_bad_document", name=document.name, reason=f"{len(document.chunks)} chunks"))
    texts = [document.id, document.name, document.title, *[chunk.text for chunk in document.chunks]]
    if not all(map(str.isascii, texts)):
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as error:
            raise DocumentError(tell("store_bad_document", name=ascii(document.name), reason=error.reason)) from error
    vectors = document.vectors
    if generation.dimension == 0:
        return
    expected = (len(document.chunks), generation.dimension)
    found = None if vectors is None else vectors.shape
    if found != expected:
        raise ConfigError(tell("store_wrong_vectors", expected=expected, found=found))
    if vectors is not None and not np.isfinite(vectors).all():
        raise DocumentError(tell("store_bad_document", name=document.name, reason="NaN"))


def _put_at_once(
    connection: sqlite3.Connection, generation: Generation, documents: Sequence[IndexedDocument], group: _Group
) -> None:
    with writing(connection):
        row = _expected_row(connection, generation)
        version = _remove(connection, row, [document.id for document in documents])
        for part, first, last, _ in group:  # one by one, in memory that is used again: so it takes a tenth less
            written = _insert(connection, row, part.document, state=1, version=version)
            _write(connection, written, part.stretch(generation, first, last))
        _count(connection, row, len(documents), sum(len(document.chunks) for document in documents))


def _put_bit_by_bit(
    connection: sqlite3.Connection,
    generation: Generation,
    documents: Sequence[IndexedDocument],
    groups: Sequence[_Group],
) -> None:
    rows: dict[str, int] = {}
    try:
        for group in groups:
            begun: dict[str, int] = {}
            with writing(connection):
                row = _expected_row(connection, generation)
                for part, first, last, _ in group:
                    key = part.document.id
                    if first == 0:
                        begun[key] = _insert(connection, row, part.document, state=0, version=0)
                    _write(connection, begun.get(key) or rows[key], part.stretch(generation, first, last))
            rows |= begun
        with writing(connection):
            row = _expected_row(connection, generation)
            version = _remove(connection, row, [document.id for document in documents])
            connection.executemany(
                "UPDATE documents SET state = 1, version = ? WHERE id = ?",
                [(version, written) for written in rows.values()],
            )
            _count(connection, row, len(documents), sum(len(document.chunks) for document in documents))
    except BaseException:
        _abandon(connection, [*rows.values()])
        raise


def _abandon(connection: sqlite3.Connection, rows: Sequence[int]) -> None:
    """Let the next sweep take the rows out; where even this cannot be written, an hour does."""
    try:
        with writing(connection):
            connection.executemany(
                "UPDATE documents SET state = 2 WHERE id = ? AND state = 0", [(row,) for row in rows]
            )
    except sqlite3.Error:
        return


def analysed(document: IndexedDocument) -> tuple[list[int], bytes]:
    """How many tokens each chunk has, and the terms of all; those that come with the document, where they fit."""
    counts = [chunk.tokens.count(" ") + 1 if chunk.tokens else 0 for chunk in document.chunks]
    if sum(counts) * TERM_BYTES == len(document.terms):
        return counts, document.terms
    lengths, terms = analyse([chunk.tokens for chunk in document.chunks])
    return np.frombuffer(lengths, np.uint32).tolist(), terms


def chunk_row(number: int, chunk: Chunk) -> tuple[int, str, str, str, str, str]:
    return (
        number,
        chunk.text,
        chunk.tokens,
        _headings_json(chunk.headings),
        _locator_json(chunk.locator),
        chunk.content_hash,
    )


def _columns(chunks: Sequence[Chunk]) -> tuple[Sequence[str], ...]:
    """Of all that `chunk_row` says but the number; none where there is no chunk."""
    if not chunks:
        return ()
    _, texts, tokens, hashes, headings, locators, _ = zip(*chunks, strict=True)
    return texts, tokens, [*map(_headings_json, headings)], [*map(_locator_json, locators)], hashes


def _insert(
    connection: sqlite3.Connection, generation: int, document: IndexedDocument, *, state: int, version: int
) -> int:
    row = connection.execute(
        "INSERT INTO documents (generation, key, name, title, content_hash, chunks, state, version, since)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            generation,
            document.id,
            document.name,
            document.title,
            document.content_hash,
            len(document.chunks),
            state,
            version,
            int(time.time()),
        ),
    ).lastrowid
    assert row is not None  # noqa: S101 - an INSERT always has one
    if document.metadata:
        connection.executemany(
            "INSERT INTO metadata (document, key, value) VALUES (?, ?, ?)",
            [(row, key, value) for key, value in document.metadata.items()],
        )
    return row


def _write(connection: sqlite3.Connection, document: int, stretch: _Stretch) -> None:
    if not stretch.columns:
        return
    connection.executemany(
        "INSERT INTO chunks (id, text, tokens, headings, locator, content_hash) VALUES (?, ?, ?, ?, ?, ?)",
        zip(count((document << CHUNK_BITS) + stretch.first), *stretch.columns, strict=False),
    )
    connection.execute(
        "INSERT INTO blocks (document, first, lengths, terms, vectors) VALUES (?, ?, ?, ?, ?)",
        (document, stretch.first, stretch.lengths, stretch.terms, stretch.vectors),
    )


def _remove(connection: sqlite3.Connection, generation: int, document_ids: Sequence[str]) -> int:
    """Take the documents out of sight, and give the generation its next version."""
    removed = [
        chunks
        for key in document_ids
        for (chunks,) in connection.execute(
            "UPDATE documents SET state = 2 WHERE generation = ? AND key = ? AND state = 1 RETURNING chunks",
            (generation, key),
        ).fetchall()
    ]
    _count(connection, generation, -len(removed), -sum(removed))
    version: int = connection.execute(
        "UPDATE generations SET version = version + 1 WHERE id = ? RETURNING version", (generation,)
    ).fetchone()[0]
    return version


def _count(connection: sqlite3.Connection, generation: int, documents: int, chunks: int) -> None:
    connection.execute(
        "UPDATE generations SET documents = documents + ?, chunks = chunks + ? WHERE id = ?",
        (documents, chunks, generation),
    )


def _expected_row(connection: sqlite3.Connection, generation: Generation) -> int:
    row = _generation_row(connection, generation)
    if row is None:
        raise StoreUnavailable(tell("store_no_generation"))
    return row


def _generation_row(connection: sqlite3.Connection, generation: Generation) -> int | None:
    found = connection.execute("SELECT id FROM generations WHERE key = ?", (generation.id,)).fetchone()
    return found[0] if found else None


@lru_cache(maxsize=1024)
def _headings_json(headings: tuple[str, ...]) -> str:
    return json.dumps(headings, ensure_ascii=False) if headings else ""


def _locator_json(locator: Locator) -> str:
    if not locator.kind:
        return ""
    label = json.dumps(locator.label, ensure_ascii=False) if locator.label else '""'
    first = "null" if locator.first is None else locator.first
    last = "null" if locator.last is None else locator.last
    return f'["{locator.kind}", {label}, {first}, {last}]'


@lru_cache(maxsize=4096)
def headings_of(stored: str) -> tuple[str, ...]:
    return tuple(json.loads(stored)) if stored else ()


@lru_cache(maxsize=4096)
def locator_of(stored: str) -> Locator:
    return Locator(*json.loads(stored)) if stored else Locator()
