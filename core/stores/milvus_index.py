"""One index in Milvus: two collections, one of its chunks, one of its documents and notes; each call is one method.

Nothing that a person wrote gets into a filter: these name numbers and hex digits only. Long texts lie in pieces, since
a text of Milvus ends at 65,535 bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from core.errors import DocumentError
from core.stores.database import CHUNK_BITS
from core.stores.milvus_server import Absent
from core.stores.outline import Head, Words, drawn, head_json, head_of
from core.stores.outlined import Row, Within
from core.stores.postings import analyse
from core.stores.weaviate_changes import COMING, DONE, SWEPT, Change, State
from core.stores.writing import check, chunk_row, headings_of, locator_of
from core.texts import tell
from core.types import Chunk, Generation, IndexedDocument, Vector

LAST_CHUNK: Final = (1 << CHUNK_BITS) - 1
_PIECE: Final = 16_000
_PIECES: Final = 256
_LONGEST: Final = 65_535
_PAGE: Final = 1000
_MOST: Final = 16_384
_BATCH_BYTES: Final = 4 << 20
_NOTE: Final = "note"
_ORDER: Final = {COMING: 0, DONE: 1, SWEPT: 2}
_ROW: Final = ("id", "body", "tokens", "content_hash")


def digest(document_id: str) -> str:
    """Stands for the document's id in filters. Raises UnicodeEncodeError."""
    return hashlib.blake2b(document_id.encode(), digest_size=16).hexdigest()


def prepared(generation: Generation, documents: Sequence[IndexedDocument]) -> tuple[list[dict[str, Any]], ...]:
    """Rows of the documents and rows of their chunks. Raises as `check` does."""
    for document in documents:
        check(generation, document)
    heads, chunks = [], []
    for document in documents:
        number = drawn()
        heads.append(
            {
                "id": number,
                "key": digest(document.id),
                "body": _pieces(head_json(document), document.name),
                "vector": [1.0, 0.0],
            }
        )
        chunks += [_chunk(generation, document, number, place) for place in range(len(document.chunks))]
    return heads, chunks


def _chunk(generation: Generation, document: IndexedDocument, number: int, place: int) -> dict[str, Any]:
    _, text, tokens, headings, locator, content_hash = chunk_row(place, document.chunks[place])
    has_vectors = generation.dimension and document.vectors is not None
    vector = document.vectors[place].astype(np.float32) if has_vectors and document.vectors is not None else None
    if vector is None:
        vector = np.array([1.0, 0.0], np.float32)
    return {
        "id": (number << CHUNK_BITS) + place,
        "number": number,
        "place": place,
        "body": _pieces(json.dumps([text, headings, locator], ensure_ascii=False), document.name),
        "tokens": _pieces(json.dumps(tokens, ensure_ascii=False), document.name),
        "content_hash": content_hash,
        "vector": np.pad(vector, (0, max(0, 2 - len(vector)))).tolist(),
    }


def _pieces(text: str, name: str) -> list[str]:
    found = [text[first : first + _PIECE] for first in range(0, len(text), _PIECE)]
    if len(found) > _PIECES:
        raise DocumentError(tell("store_bad_document", name=name, reason=f"{len(text)} characters in one chunk"))
    return found


def batches(rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Some megabytes at a time."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += 3 * sum(map(len, row["body"])) + 4 * len(row["vector"]) + 3 * sum(map(len, row.get("tokens", ())))
        if size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class Index:
    """As one client sees it."""

    def __init__(self, client: Any, prefix: str, generation: Generation) -> None:
        self._client = client
        self._generation = generation
        self._chunks = f"{prefix}_c_{generation.id}"
        self._documents = f"{prefix}_d_{generation.id}"

    # ------------------------------------------------------------ the collections
    async def ensure(self) -> None:
        """Make what is missing; the collection of documents comes last, and says that all is there."""
        if await self._client.has_collection(self._documents):
            return
        from pymilvus import AsyncMilvusClient, DataType

        chunks = AsyncMilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        documents = AsyncMilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        for schema in (chunks, documents):
            schema.add_field("id", DataType.INT64, is_primary=True)
            _add_text(schema, "body")
        for name in ("number", "place"):
            chunks.add_field(name, DataType.INT64)
        _add_text(chunks, "tokens")
        chunks.add_field("content_hash", DataType.VARCHAR, max_length=_LONGEST)
        documents.add_field("key", DataType.VARCHAR, max_length=64)
        chunks.add_field("vector", DataType.FLOAT_VECTOR, dim=max(2, self._generation.dimension))
        documents.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
        await self._create(self._chunks, chunks, "number")
        await self._create(self._documents, documents, "key")
        await self.note(Change(f"{drawn():x}", SWEPT, (), (), 0.0))

    async def _create(self, name: str, schema: Any, scalar: str) -> None:
        from pymilvus import AsyncMilvusClient

        await self._client.create_collection(name, schema=schema, consistency_level="Strong")
        for field, kind in (("vector", {"index_type": "AUTOINDEX", "metric_type": "COSINE"}), (scalar, _INVERTED)):
            params = AsyncMilvusClient.prepare_index_params()
            params.add_index(field, **kind)
            try:
                await self._client.create_index(name, params)
            except Exception as error:
                # Milvus Lite has made it by then, and cannot be asked whether.
                if "UNIMPLEMENTED" not in str(error):
                    raise
        await self._client.load_collection(name)

    async def load(self) -> None:
        """Bring it into the server's memory, where it is not. Raises Absent."""
        if not await self._client.has_collection(self._documents):
            raise Absent(self._documents)
        for name in (self._chunks, self._documents):
            await self._client.load_collection(name)

    async def drop(self) -> None:
        for name in (self._documents, self._chunks):
            if await self._client.has_collection(name):
                await self._client.drop_collection(name)

    # ------------------------------------------------------------ notes
    async def state(self) -> State:
        return _state(await self._notes())

    async def note(self, change: Change) -> None:
        """One row, so it is there or not; the furthest of a change counts."""
        body = json.dumps([change.id, change.state, change.born, change.dead, change.since])
        row = {"id": drawn(), "key": _NOTE, "body": _pieces(body, _NOTE), "vector": [1.0, 0.0]}
        await self._client.insert(self._documents, [row])

    async def forget(self, changes: Collection[str], *, all_of_them: bool) -> None:
        """Their notes; without `all_of_them`, the furthest one of each stays."""
        rows = await self._notes()
        kept = {} if all_of_them else {change.id: change.state for change in _state(rows).changes}
        gone = [
            row
            for row, (change, state, *_) in rows.items()
            if change in changes and (all_of_them or kept.get(change) != state)
        ]
        if gone:
            await self._client.delete(self._documents, filter=f"id in [{_listed(gone)}]")

    async def _notes(self) -> dict[int, list[Any]]:
        rows = await self._client.query(
            self._documents, filter=f'key == "{_NOTE}"', output_fields=["id", "body"], limit=_PAGE
        )
        return {row["id"]: json.loads("".join(row["body"])) for row in rows}

    # ------------------------------------------------------------ documents
    async def heads(self, digests: Sequence[str], hidden: Collection[str]) -> list[Head]:
        """Of the editions that count of these documents."""
        found: list[Head] = []
        for first in range(0, len(digests), _PAGE):
            listed = ", ".join(f'"{one}"' for one in digests[first : first + _PAGE])  # hex digits only
            rows = await self._client.query(
                self._documents, filter=f"key in [{listed}]", output_fields=["id", "body"], limit=_MOST
            )
            found += [head_of(row["id"], "".join(row["body"])) for row in rows if str(row["id"]) not in hidden]
        return found

    async def heads_of(self, numbers: Sequence[int]) -> list[Head]:
        found: list[Head] = []
        for first in range(0, len(numbers), _PAGE):
            listed = _listed(numbers[first : first + _PAGE])
            rows = await self._client.query(
                self._documents, filter=f"id in [{listed}]", output_fields=["id", "body"], limit=_PAGE
            )
            found += [head_of(row["id"], "".join(row["body"])) for row in rows]
        return found

    async def chunks(self, head: Head, *, vectors: bool) -> list[Row]:
        """Of a document, in order; fewer where it is going."""
        found: dict[int, Row] = {}
        for first in range(0, head.chunks, _PAGE):
            last = first + _PAGE
            rows = await self._client.query(
                self._chunks,
                filter=f"number == {head.number:d} and place >= {first:d} and place < {last:d}",
                output_fields=[*_ROW, *(["vector"] if vectors else [])],
                limit=_PAGE,
            )
            found |= self._as_rows(rows)
        return [found[row] for row in sorted(found)]

    async def words(self, heads: Sequence[Head]) -> list[Words]:
        """Of their chunks, as far as these are there."""
        found: dict[int, dict[int, str]] = {head.number: {} for head in heads}
        for group in _groups(heads):
            for first in range(0, max(head.chunks for head in group), _PAGE):
                where = f"number in [{_listed(head.number for head in group)}]"
                rows = await self._client.query(
                    self._chunks,
                    filter=f"{where} and place >= {first:d} and place < {first + _PAGE:d}",
                    output_fields=["id", "tokens"],
                    limit=_PAGE,
                )
                for row in rows:
                    found[row["id"] >> CHUNK_BITS][row["id"] & LAST_CHUNK] = json.loads("".join(row["tokens"]))
        return [_words(number, own) for number, own in found.items()]

    # ------------------------------------------------------------ search
    async def nearest(self, vector: Vector, limit: int, where: str) -> Sequence[int]:
        found = await self._client.search(
            self._chunks, data=[vector.tolist()], anns_field="vector", limit=limit, filter=where,
            output_fields=["id"], search_params={"metric_type": "COSINE", "params": {}},
        )  # fmt: skip
        return [int(one["id"]) for one in found[0]]

    async def rows(self, ids: Sequence[int], *, vectors: bool) -> Mapping[int, Row]:
        found: dict[int, Row] = {}
        for first in range(0, len(ids), _PAGE):
            rows = await self._client.query(
                self._chunks,
                filter=f"id in [{_listed(ids[first : first + _PAGE])}]",
                output_fields=[*_ROW, *(["vector"] if vectors else [])],
                limit=_PAGE,
            )
            found |= self._as_rows(rows)
        return found

    def _as_rows(self, rows: Sequence[Mapping[str, Any]]) -> dict[int, Row]:
        found = {}
        for row in rows:
            text, headings, locator = json.loads("".join(row["body"]))
            tokens = json.loads("".join(row["tokens"]))
            key = int(row["id"])
            chunk = Chunk(
                key & LAST_CHUNK, text, tokens, row["content_hash"], headings_of(headings), locator_of(locator)
            )
            vector = np.array(row["vector"], np.float32)[: self._generation.dimension] if "vector" in row else None
            found[key] = Row(chunk, vector)
        return found

    # ------------------------------------------------------------ writing
    async def insert(self, rows: Sequence[dict[str, Any]], *, documents: bool = False, again: bool = False) -> None:
        """`again`: some of them may be there already."""
        name = self._documents if documents else self._chunks
        await (self._client.upsert if again else self._client.insert)(name, list(rows))

    async def chunks_in(self, numbers: Sequence[str]) -> int:
        rows = await self._client.query(
            self._chunks, filter=f"number in [{_listed(map(int, numbers))}]", output_fields=["count(*)"]
        )
        return int(rows[0]["count(*)"])

    async def remove(self, numbers: Sequence[str]) -> None:
        """Documents and their chunks."""
        for first in range(0, len(numbers), _PAGE):
            listed = _listed(map(int, numbers[first : first + _PAGE]))
            await self._client.delete(self._chunks, filter=f"number in [{listed}]")
            await self._client.delete(self._documents, filter=f"id in [{listed}]")

    # ------------------------------------------------------------ everything, with the client that can walk
    def every_head(self, hidden: Collection[str]) -> Callable[[Any], list[Head]]:
        def walk(client: Any) -> list[Head]:
            rows = _walk(client, self._documents, f'key != "{_NOTE}"', ["id", "body"])
            return [head_of(row["id"], "".join(row["body"])) for row in rows if str(row["id"]) not in hidden]

        return walk

    def numbers(self, hidden: Collection[str]) -> Callable[[Any], set[int]]:
        def walk(client: Any) -> set[int]:
            rows = _walk(client, self._documents, f'key != "{_NOTE}"', ["id"])
            return {row["id"] for row in rows if str(row["id"]) not in hidden}

        return walk

    def every_word(self, numbers: Collection[int]) -> Callable[[Any], list[Words]]:
        def walk(client: Any) -> list[Words]:
            own: dict[int, dict[int, str]] = {number: {} for number in numbers}
            for row in _walk(client, self._chunks, "place >= 0", ["id", "tokens"]):
                number, place = row["id"] >> CHUNK_BITS, row["id"] & LAST_CHUNK
                if number in own:
                    own[number][place] = json.loads("".join(row["tokens"]))
            return [_words(number, found) for number, found in own.items()]

        return walk

    def hashes(self) -> Callable[[Any], list[tuple[int, str]]]:
        def walk(client: Any) -> list[tuple[int, str]]:
            rows = _walk(client, self._chunks, "place >= 0", ["id", "content_hash"])
            return [(row["id"], row["content_hash"]) for row in rows]

        return walk


_INVERTED: Final = {"index_type": "INVERTED"}


def _add_text(schema: Any, name: str) -> None:
    from pymilvus import DataType

    schema.add_field(name, DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=_PIECES, max_length=_LONGEST)


def _walk(client: Any, collection: str, where: str, fields: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    pages = client.query_iterator(collection, batch_size=_PAGE, filter=where, output_fields=list(fields))
    try:
        while page := pages.next():
            yield from page
    finally:
        pages.close()


def _words(number: int, tokens: Mapping[int, str]) -> Words:
    return Words(number, *analyse([tokens[place] for place in sorted(tokens)]))


def _groups(heads: Sequence[Head]) -> Iterator[list[Head]]:
    """Of so many chunks that one answer holds them; a document with more is alone."""
    group: list[Head] = []
    for head in heads:
        if group and sum(one.chunks for one in group) + head.chunks > _PAGE:
            yield group
            group = []
        group.append(head)
    if group:
        yield group


def _state(notes: Mapping[int, Sequence[Any]]) -> State:
    furthest: dict[str, Change] = {}
    for change, state, born, dead, since in notes.values():
        known = furthest.get(change)
        if known is None or _ORDER[state] > _ORDER[known.state]:
            furthest[change] = Change(change, state, tuple(born), tuple(dead), since)
    return State(frozenset(furthest.values()))


def where_of(hidden: Sequence[str], within: Within | None) -> str:
    """A filter for chunks: of documents that count, and may be found."""
    parts = []
    if hidden:
        parts.append(f"number not in [{_listed(map(int, hidden))}]")
    if within is not None:
        parts.append(f"number {'not in' if within.is_excluded else 'in'} [{_listed(within.numbers)}]")
    return " and ".join(parts)


def _listed(numbers: Any) -> str:
    return ", ".join(f"{number:d}" for number in numbers)
