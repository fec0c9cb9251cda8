"""Documents into and out of the `pgvector` store's tables; each function is called in a transaction of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.analyzer import TERM_BYTES
from core.errors import StoreUnavailable
from core.stores.pgvector_search import CHUNK, chunk_of
from core.stores.pgvector_tables import CHUNK_BITS, LAST_CHUNK, given, kept, salted
from core.stores.writing import analysed, check, chunk_row
from core.texts import tell
from core.types import Generation, IndexedDocument

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document ready to be written but for its number; rows of chunks and entries begin with the chunk's number."""

    document: IndexedDocument
    words: int
    metadata: list[Row]
    chunks: list[Row]
    entries: list[Row]


def prepare(generation: Generation, documents: Sequence[IndexedDocument]) -> list[Prepared]:
    wanted = list({document.id: document for document in documents}.values())
    for document in wanted:
        check(generation, document)
    return [_prepared(generation, document) for document in wanted]


def _prepared(generation: Generation, document: IndexedDocument) -> Prepared:
    counts, terms = analysed(document)
    entries, start = [], 0
    for number, length in enumerate(counts):
        end = start + length * TERM_BYTES
        distinct, often = np.unique(salted(generation, terms[start:end]), return_counts=True)
        vector = document.vectors[number] if generation.dimension and document.vectors is not None else None
        entries.append((number, length, distinct.tolist(), np.minimum(often, 32_767).tolist(), vector))
        start = end
    return Prepared(
        document,
        sum(length for _, length, *_ in entries),
        [
            (kept(key), kept(value), None) if isinstance(value, str) else (kept(key), None, float(value))
            for key, value in document.metadata.items()
        ],
        [
            (number, kept(text), kept(tokens), headings, locator, kept(content_hash))
            for number, text, tokens, headings, locator, content_hash in map(
                chunk_row, range(len(document.chunks)), document.chunks
            )
        ],
        entries,
    )


async def put(connection: Any, schema: str, generation: Generation, prepared: Sequence[Prepared]) -> int:
    """Gives how many chunks the index has now."""
    index = await _index(connection, schema, generation)
    if index is None:
        raise StoreUnavailable(tell("store_no_generation"))
    await _remove(connection, schema, index, [one.document.id for one in prepared])
    sql = f"SELECT nextval('{schema}.numbers') FROM generate_series(1, $1)"  # noqa: S608 - a name of ours
    numbers = [row[0] for row in await connection.fetch(sql, len(prepared))]
    numbered = list(zip(numbers, prepared, strict=True))
    documents = [(number, index, *_document_row(one)) for number, one in numbered]
    metadata = [(number, *row) for number, one in numbered for row in one.metadata]
    chunks = [((number << CHUNK_BITS) + row[0], *row[1:]) for number, one in numbered for row in one.chunks]
    entries = [
        ((number << CHUNK_BITS) + row[0], index, number, *row[1:]) for number, one in numbered for row in one.entries
    ]
    tables = {"documents": documents, "metadata": metadata, "chunks": chunks, "entries": entries}
    for table, rows in tables.items():
        if rows:
            await connection.copy_records_to_table(table, schema_name=schema, records=rows)
    return await _count(connection, schema, index, len(documents), len(chunks), sum(one.words for one in prepared))


async def delete(connection: Any, schema: str, generation: Generation, document_ids: Sequence[str]) -> None:
    index = await _index(connection, schema, generation)
    if index is not None:
        await _remove(connection, schema, index, document_ids)


async def drop(connection: Any, schema: str, generation: Generation) -> int | None:
    """Gives the number it had."""
    index = await _index(connection, schema, generation)
    if index is None:
        return None
    of_it = f"SELECT number FROM {schema}.documents WHERE generation = $1"  # noqa: S608 - a name of ours
    for sql in (
        f"DELETE FROM {schema}.metadata WHERE document IN ({of_it})",  # noqa: S608
        f"DELETE FROM {schema}.chunks WHERE id IN (SELECT id FROM {schema}.entries WHERE generation = $1)",  # noqa: S608
        f"DELETE FROM {schema}.entries WHERE generation = $1",  # noqa: S608
        f"DELETE FROM {schema}.documents WHERE generation = $1",  # noqa: S608
        f"DELETE FROM {schema}.generations WHERE number = $1",  # noqa: S608
    ):
        await connection.execute(sql, index)
    return index


async def read(
    connection: Any, schema: str, generation: Generation, document_ids: Sequence[str]
) -> list[IndexedDocument]:
    found = []
    for key in document_ids:
        row = await connection.fetchrow(
            "SELECT d.number, d.name, d.title, d.content_hash, d.metadata"  # noqa: S608 - names of ours
            f" FROM {schema}.documents d JOIN {schema}.generations g ON g.number = d.generation"
            " WHERE g.key = $1 AND d.key = $2",
            generation.id,
            kept(key),
        )
        if row is not None:
            number, name, title, content_hash, metadata = row
            rows = await _chunk_rows(connection, schema, number)
            vectors = [vector for *_, vector in rows] if generation.dimension else None
            found.append(
                IndexedDocument(
                    key,
                    given(name),
                    given(title),
                    given(content_hash),
                    tuple(chunk_of(*chunk) for *chunk, _ in rows),
                    np.array(vectors, np.float32).reshape(-1, generation.dimension) if vectors is not None else None,
                    json.loads(metadata),
                )
            )
    return found


async def _chunk_rows(connection: Any, schema: str, number: int) -> list[Row]:
    rows: list[Row] = await connection.fetch(
        f"SELECT {CHUNK}, e.vector FROM {schema}.chunks c JOIN {schema}.entries e ON e.id = c.id"  # noqa: S608 - ours
        f" WHERE c.id BETWEEN $1::bigint << {CHUNK_BITS} AND ($1::bigint << {CHUNK_BITS}) + {LAST_CHUNK} ORDER BY c.id",
        number,
    )
    return rows


def _document_row(one: Prepared) -> Row:
    document = one.document
    texts = (kept(document.id), kept(document.name), kept(document.title), kept(document.content_hash))
    return (*texts, len(document.chunks), one.words, json.dumps(dict(document.metadata)))


async def _index(connection: Any, schema: str, generation: Generation) -> int | None:
    """The number of the index, of which only one writes at a time from here on."""
    number: int | None = await connection.fetchval(
        f"SELECT number FROM {schema}.generations WHERE key = $1 FOR UPDATE",  # noqa: S608 - a name of ours
        generation.id,
    )
    return number


async def _remove(connection: Any, schema: str, index: int, document_ids: Sequence[str]) -> None:
    rows = await connection.fetch(
        f"DELETE FROM {schema}.documents WHERE generation = $1 AND key = ANY($2::text[])"  # noqa: S608 - ours
        " RETURNING number, chunks, words",
        index,
        [kept(key) for key in document_ids],
    )
    if not rows:
        return
    numbers = [row[0] for row in rows]
    await connection.execute(f"DELETE FROM {schema}.metadata WHERE document = ANY($1::bigint[])", numbers)  # noqa: S608
    for table in ("chunks", "entries"):
        await connection.execute(
            f"DELETE FROM {schema}.{table} c USING unnest($1::bigint[]) AS d (number) WHERE c.id BETWEEN"  # noqa: S608
            f" d.number << {CHUNK_BITS} AND (d.number << {CHUNK_BITS}) + {LAST_CHUNK}",
            numbers,
        )
    await _count(connection, schema, index, -len(rows), -sum(row[1] for row in rows), -sum(row[2] for row in rows))


async def _count(connection: Any, schema: str, index: int, documents: int, chunks: int, words: int) -> int:
    count: int = await connection.fetchval(
        f"UPDATE {schema}.generations SET documents = documents + $2, chunks = chunks + $3,"  # noqa: S608 - ours
        " words = words + $4 WHERE number = $1 RETURNING chunks",
        index, documents, chunks, words,
    )  # fmt: skip
    return count
