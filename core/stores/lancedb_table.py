"""The table of an index in LanceDB: one row for each edition of a document, and one for each of its chunks.

A document and all its chunks, and the end of the edition before, are one commit on one table (`merge_insert`), which is
all that LanceDB can do in one step; so both kinds of rows are in the same table. Row ids of documents are negative.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from core.analyzer import TERM_BYTES
from core.stores.database import CHUNK_BITS
from core.stores.outline import Head, Words, drawn, head_json, head_of
from core.stores.outlined import Row, Within
from core.stores.writing import analysed, check, chunk_row, headings_of, locator_of
from core.types import Chunk, Generation, IndexedDocument, Vector

_CHUNK: Final = ("id", "text", "tokens", "headings", "locator", "content_hash")
_LISTED: Final = 256
_PARTS: Final = 20
"""Of an index of vectors, at least: where a filter leaves too few in them, all are looked at."""
LAST_CHUNK: Final = (1 << CHUNK_BITS) - 1


def name_of(generation: Generation) -> str:
    return f"index_{generation.id}"


def schema_of(generation: Generation, born: str = "") -> Any:
    import pyarrow as pa

    columns = [
        ("id", pa.int64()),
        ("number", pa.int64()),
        ("document", pa.string()),  # digest of its id
        ("head", pa.string()),  # of a document: JSON
        *((name, pa.string()) for name in _CHUNK[1:]),
        ("terms", pa.large_binary()),
    ]
    if generation.dimension:
        columns.append(("vector", pa.list_(pa.float16(), generation.dimension)))
    return pa.schema(columns, metadata={"born": born, "kb": generation.kb_id, "fingerprint": generation.fingerprint})


def digest(document_id: str) -> str:
    """Stands for the document's id in conditions, whatever characters that has. Raises UnicodeEncodeError."""
    return hashlib.blake2b(document_id.encode(), digest_size=16).hexdigest()


def prepared(generation: Generation, documents: Sequence[IndexedDocument]) -> tuple[Any, list[int], list[str]]:
    """A table of Arrow with all rows, the numbers of the editions, and the digests. Raises as `check` does."""
    import pyarrow as pa

    for document in documents:
        check(generation, document)
    numbers = [drawn() for _ in documents]
    digests = [digest(document.id) for document in documents]
    rows: dict[str, list[Any]] = {name: [] for name in ("id", "number", "document", "head", *_CHUNK[1:], "terms")}
    for document, number, key in zip(documents, numbers, digests, strict=True):
        for row in _rows(document, number, key):
            for column, value in zip(rows.values(), row, strict=True):
                column.append(value)
    schema = schema_of(generation)
    columns = [pa.array(values, schema.field(name).type) for name, values in rows.items()]
    if generation.dimension:
        columns.append(_vectors(generation.dimension, documents, schema.field("vector").type))
    return pa.Table.from_arrays(columns, schema=schema), numbers, digests


def _rows(document: IndexedDocument, number: int, key: str) -> Iterable[tuple[Any, ...]]:
    yield -number, number, key, head_json(document), *[None] * 6
    counts, terms = analysed(document)
    start = 0
    for place, length in enumerate(counts):
        end = start + length * TERM_BYTES
        _, *texts = chunk_row(place, document.chunks[place])
        yield (number << CHUNK_BITS) + place, number, key, None, *texts, terms[start:end]
        start = end


def _vectors(dimension: int, documents: Sequence[IndexedDocument], kind: Any) -> Any:
    """Those of the chunks; none for the row before them, which is the document's."""
    import pyarrow as pa

    parts = []
    for document in documents:
        vectors = document.vectors if document.vectors is not None else np.zeros((0, dimension), np.float32)
        parts += [np.zeros((1, dimension), np.float16), vectors.astype(np.float16)]
    is_document = np.concatenate([np.arange(1 + len(document.chunks)) == 0 for document in documents])
    flat = pa.array(np.concatenate(parts).ravel(), pa.float16())
    return pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=pa.array(is_document))


class Table:
    """One version of an index's table; what is written meanwhile is not seen."""

    MOST_LISTED = _LISTED
    MOST_FOUND = 1 << 30

    def __init__(self, table: Any, version: tuple[str, int], dimension: int, *, has_index: bool) -> None:
        self._table = table
        self.version = version
        self._dimension = dimension
        self.has_index = has_index

    async def nearest(self, vector: Vector, limit: int, within: Within | None) -> Sequence[int]:
        where = "id >= 0"
        if within is not None:
            where += f" AND number {'NOT IN' if within.is_excluded else 'IN'} ({_listed(within.numbers)})"
        query = self._table.query().nearest_to(vector).distance_type("dot").where(where)
        if self.has_index:
            query = query.minimum_nprobes(_PARTS).maximum_nprobes(0)
        found = await query.select(["id", "_distance"]).limit(limit).to_arrow()
        ids: list[int] = found["id"].to_pylist()
        return ids

    async def rows(self, ids: Sequence[int], *, vectors: bool) -> Mapping[int, Row]:
        wanted = [*_CHUNK, *(["vector"] if vectors and self._dimension else [])]
        found: dict[int, Row] = {}
        for first in range(0, len(ids), _LISTED):
            page = await self._read(f"id IN ({_listed(ids[first : first + _LISTED])})", wanted)
            found |= self._as_rows(page)
        return found

    async def chunks(self, head: Head, *, vectors: bool) -> list[Row]:
        """Of a document, in order."""
        wanted = [*_CHUNK, *(["vector"] if vectors and self._dimension else [])]
        rows = self._as_rows(await self._read(f"id >= 0 AND number = {head.number:d}", wanted))
        return [rows[row] for row in sorted(rows)]

    async def heads(self, digests: Sequence[str]) -> list[Head]:
        """Of the documents with these digests."""
        found: list[Head] = []
        for first in range(0, len(digests), _LISTED):
            listed = ", ".join(f"'{one}'" for one in digests[first : first + _LISTED])
            page = await self._read(f"id < 0 AND document IN ({listed})", ["number", "head"])
            found += _as_heads(page)
        return found

    async def taken(self, numbers: Sequence[int]) -> bool:
        """Whether a document has one of these numbers."""
        count: int = await self._table.count_rows(f"id IN ({_listed([-number for number in numbers])})")
        return count > 0

    async def every_head(self) -> list[Head]:
        return _as_heads(await self._read("id < 0", ["number", "head"]))

    async def hashes(self) -> list[tuple[int, str]]:
        """(row id, content hash) of all chunks."""
        page = await self._read("id >= 0", ["id", "content_hash"])
        return list(zip(page["id"].to_pylist(), page["content_hash"].to_pylist(), strict=True))

    async def numbers(self) -> set[int]:
        return set((await self._read("id < 0", ["number"]))["number"].to_pylist())

    async def load(self, numbers: Collection[int] | None) -> AsyncIterator[tuple[Sequence[Head], Sequence[Words]]]:
        for where in _conditions(numbers):
            heads = _as_heads(await self._read(f"id < 0{where}", ["number", "head"]))
            stream = await self._table.query().where(f"id >= 0{where}").select(["id", "terms"]).to_batches()
            ids, terms = [], []
            async for batch in stream:
                ids.append(batch["id"].to_numpy())
                terms += batch["terms"].to_pylist()
            yield heads, _words(np.concatenate([np.zeros(0, np.int64), *ids]), terms)

    async def _read(self, where: str, columns: Sequence[str]) -> Any:
        return await self._table.query().where(where).select(list(columns)).to_arrow()

    def _as_rows(self, page: Any) -> dict[int, Row]:
        vectors: Sequence[Vector | None] = [None] * len(page)
        if "vector" in page.column_names:
            # A document's own row has none, and is not asked for here.
            flat = page["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            vectors = list(flat.astype(np.float32).reshape(-1, self._dimension))
        columns = [page[name].to_pylist() for name in _CHUNK]
        return {
            key: Row(
                Chunk(key & LAST_CHUNK, text, tokens, content_hash, headings_of(headings), locator_of(locator)), vector
            )
            for key, text, tokens, headings, locator, content_hash, vector in zip(*columns, vectors, strict=True)
        }


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(f"{number:d}" for number in numbers)


def _conditions(numbers: Collection[int] | None) -> Iterable[str]:
    """For documents with these numbers, in groups that a condition can name; one for all where they are many."""
    if numbers is None or len(numbers) > 4 * _LISTED:
        yield "" if numbers is None else f" AND number IN ({_listed(numbers)})"
        return
    ordered = sorted(numbers)
    for first in range(0, len(ordered), _LISTED):
        yield f" AND number IN ({_listed(ordered[first : first + _LISTED])})"


def _as_heads(page: Any) -> list[Head]:
    pairs = zip(page["number"].to_pylist(), page["head"].to_pylist(), strict=True)
    return [head_of(number, stored) for number, stored in pairs]


def _words(ids: Any, terms: list[bytes]) -> list[Words]:
    """By document, chunks in order."""
    found: list[Words] = []
    order = np.argsort(ids, kind="stable")
    numbers = ids[order] >> CHUNK_BITS
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
        own = [terms[place] for place in order[start:end].tolist()]
        lengths = np.array([len(one) // TERM_BYTES for one in own], np.uint32)
        found.append(Words(int(numbers[start]), lengths.tobytes(), b"".join(own)))
    return found
