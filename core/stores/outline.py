"""What a process holds in memory of an index whose chunks lie elsewhere: its documents, and where each word stands.

The stores `lancedb` and `milvus` rank by words here, with the postings of `local`, and filter with its SQL: so the
scores are the same in all of them, and nothing that a person wrote ever gets into a filter of theirs. Texts and vectors
stay where they are.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.stores.database import CHUNK_BITS
from core.stores.filters import condition
from core.stores.postings import bm25
from core.stores.resident import DEAD_SHARE, Resident, empty, extended
from core.texts import tell
from core.types import Filter, IndexedDocument, Metadata

NUMBER_BITS: Final = 63 - CHUNK_BITS
"""Of an edition of a document; with its chunks' places below it, it is a row id of 63 bits."""
_HEAD_BYTES: Final = 600
_FILTERS: Final = """
CREATE TABLE documents (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE metadata (document INTEGER NOT NULL, key TEXT NOT NULL, value, PRIMARY KEY (document, key)) WITHOUT ROWID;
"""


class Restless(Exception):
    """Rows have gone while they were read."""


@dataclass(frozen=True, slots=True)
class Head:
    """One edition of a document, without its chunks."""

    number: int
    """Drawn anew for each edition; the row id of a chunk is this, shifted, and its place."""
    key: str
    name: str
    title: str
    content_hash: str
    chunks: int
    metadata: Metadata

    @property
    def ids(self) -> range:
        first = self.number << CHUNK_BITS
        return range(first, first + self.chunks)


@dataclass(frozen=True, slots=True)
class Words:
    """How many tokens each chunk of a document has, and all of them one behind the other (`postings.analyse`)."""

    number: int
    lengths: bytes
    terms: bytes


def drawn() -> int:
    """A number for an edition."""
    return secrets.randbits(NUMBER_BITS) | 1


def head_json(document: IndexedDocument) -> str:
    return json.dumps(
        [
            document.id, document.name, document.title, document.content_hash, len(document.chunks),
            dict(document.metadata),
        ],
        ensure_ascii=False,
    )  # fmt: skip


def head_of(number: int, stored: str) -> Head:
    return Head(number, *json.loads(stored))


@dataclass(frozen=True, slots=True)
class Found:
    """What words and filter give, before vectors are asked."""

    scores: NDArray[np.float32]
    frequencies: Mapping[str, int]
    best: list[int]
    """Row ids of the best by words."""
    eligible: frozenset[int] | None
    """Numbers of the documents that the filter lets pass; None: all."""


@dataclass(frozen=True, slots=True)
class Outline:
    """An index as it was at one moment; never changed."""

    version: Hashable
    heads: Mapping[int, Head]
    resident: Resident
    _filters: list[_Filters] = field(default_factory=list, compare=False, repr=False)

    @property
    def nbytes(self) -> int:
        return self.resident.nbytes + _HEAD_BYTES * len(self.heads)

    @property
    def by_key(self) -> dict[str, Head]:
        return {head.key: head for head in self.heads.values()}

    def look(self, tokens: Sequence[str], limit: int, filter: Filter | None) -> Found:
        """The best by words, of what the filter lets pass. It takes milliseconds: for a thread. Raises UserError."""
        resident = self.resident
        eligible = None if filter is None else self._passing(filter)
        scores, frequencies = bm25(resident.segments, tokens, resident.lengths, resident.alive)
        wanted = scores > 0
        if resident.alive is not None:
            wanted &= resident.alive
        if eligible is not None:
            wanted &= np.isin(resident.document_ids, np.fromiter(eligible, np.int64, len(eligible)))
        rows = np.flatnonzero(wanted)
        if len(rows) > limit:
            rows = rows[np.argpartition(scores[rows], -limit)[-limit:]] if limit > 0 else rows[:0]
        return Found(scores, frequencies, resident.ids[rows].tolist(), eligible)

    def scores(self, found: Found, ids: Sequence[int]) -> dict[int, float]:
        """By words, of these rows."""
        rows = np.flatnonzero(np.isin(self.resident.ids, np.array(ids, np.int64)))
        return dict(zip(self.resident.ids[rows].tolist(), found.scores[rows].tolist(), strict=True))

    def _passing(self, filter: Filter) -> frozenset[int]:
        try:
            sql, values = condition(filter)
            if not self._filters:
                self._filters.append(_Filters(self.heads.values()))
            return self._filters[0].passing(sql, values)
        except (UnicodeEncodeError, OverflowError, sqlite3.Error) as error:
            raise UserError(tell("store_bad_value")) from error


class _Filters:
    """What filters look at, in a database in memory; it is closed when nobody looks any more."""

    def __init__(self, heads: Collection[Head]) -> None:
        self._tables = sqlite3.connect(":memory:", check_same_thread=False)
        self._tables.executescript(_FILTERS)
        documents = [(head.number, head.name) for head in heads]
        self._tables.executemany("INSERT INTO documents VALUES (?, ?)", documents)
        metadata = [(head.number, key, value) for head in heads for key, value in head.metadata.items()]
        self._tables.executemany("INSERT INTO metadata VALUES (?, ?, ?)", metadata)

    def passing(self, sql: str, values: Sequence[object]) -> frozenset[int]:
        wanted = f"SELECT d.id FROM documents d WHERE ({sql})"  # noqa: S608 - `sql` is ours, see `condition`
        return frozenset(row[0] for row in self._tables.execute(wanted, values))

    def __del__(self) -> None:
        self._tables.close()


class Index(Protocol):
    """Where the rows of an index are, in one version of it."""

    @property
    def version(self) -> Hashable: ...

    async def numbers(self) -> set[int]:
        """Of the documents that count."""

    def load(self, numbers: Collection[int] | None) -> AsyncIterator[tuple[Sequence[Head], Sequence[Words]]]:
        """These documents, or all, some at a time; the words of one that has chunks come with its head or later."""


class Outlines:
    """The outlines in use, brought up to date when they are asked for, the longest unused ones given up first."""

    def __init__(self, limit: int, seconds: float) -> None:
        """`limit` in bytes; `seconds`: that bringing one up to date may take."""
        self._limit = limit
        self._seconds = seconds
        self._held: OrderedDict[str, Outline] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}
        self._loading: dict[str, asyncio.Task[Outline]] = {}

    async def close(self) -> None:
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def forget(self, key: str) -> None:
        self._held.pop(key, None)
        self._locks.pop(key, None)

    def held(self, key: str) -> Outline | None:
        """As it was when it was last looked at."""
        return self._held.get(key)

    async def current(self, key: str, index: Index) -> Outline:
        """The outline of that index at its version; who gives up waiting leaves it to be ready for the next one.

        Raises Restless where the index does not hold still, TimeoutError, and what the index raises.
        """
        async with self._locks.setdefault(key, asyncio.Lock()):
            while loading := self._loading.get(key):
                await asyncio.wait([loading])
            held = self._held.get(key)
            if held is None or held.version != index.version:
                task = asyncio.create_task(self._load(key, held, index), name="outline")
                self._loading[key] = task
                task.add_done_callback(lambda done: self._loaded(key, done))
                held = await asyncio.shield(task)
            self._held.move_to_end(key)
            return held

    async def _load(self, key: str, held: Outline | None, index: Index) -> Outline:
        async with asyncio.timeout(self._seconds):
            outline = self._held[key] = await _updated(held, index)
        self._held.move_to_end(key)
        total = sum(one.nbytes for one in self._held.values())
        while total > self._limit and len(self._held) > 1:
            total -= self._held.popitem(last=False)[1].nbytes
        return outline

    def _loaded(self, key: str, task: asyncio.Task[Outline]) -> None:
        self._loading.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever waits for it is told; where nobody does, the next one tries again


async def _updated(held: Outline | None, index: Index) -> Outline:
    numbers = await index.numbers()
    if held is not None:
        held = await asyncio.to_thread(_without, held, numbers)
    outline = replace(held, version=index.version) if held else Outline(index.version, {}, empty(0, 0))
    missing = numbers - outline.heads.keys()
    if missing:
        async for heads, words in index.load(missing if held else None):
            outline = await asyncio.to_thread(_with, outline, heads, words)
    resident = outline.resident
    chunks = sum(head.chunks for head in outline.heads.values())
    if outline.heads.keys() != numbers or chunks != _alive(resident):
        raise Restless
    return replace(outline, resident=replace(resident, documents=len(numbers), chunks=chunks), _filters=[])


def _alive(resident: Resident) -> int:
    return resident.rows if resident.alive is None else int(np.count_nonzero(resident.alive))


def _without(held: Outline, numbers: set[int]) -> Outline | None:
    """None where so much is gone that it is better read anew."""
    if held.heads.keys() <= numbers:
        return held
    heads = {number: head for number, head in held.heads.items() if number in numbers}
    resident = held.resident
    alive = np.isin(resident.document_ids, np.fromiter(heads, np.int64, len(heads)))
    if np.count_nonzero(alive) < (1 - DEAD_SHARE) * resident.rows:
        return None
    return replace(held, heads=heads, resident=replace(resident, alive=alive))


def _with(outline: Outline, heads: Sequence[Head], words: Sequence[Words]) -> Outline:
    blocks = [(one.number, 0, one.lengths, one.terms, b"") for one in words if one.lengths]
    resident = extended(outline.resident, blocks) if blocks else outline.resident
    return replace(outline, heads={**outline.heads, **{head.number: head for head in heads}}, resident=resident)
