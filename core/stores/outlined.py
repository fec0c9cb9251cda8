"""Search of an index whose words are held in memory (`outline.py`) while its texts and vectors lie elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from core.stores.database import CHUNK_BITS
from core.stores.outline import Found, Outline
from core.types import Chunk, Filter, Hit, SearchResult, Vector

_KEPT_BYTES: Final = 32 << 20
_MORE: Final = 4


@dataclass(frozen=True, slots=True)
class Wanted:
    vector: Vector | None
    tokens: Sequence[str]
    limit: int
    filter: Filter | None


@dataclass(frozen=True, slots=True)
class Within:
    """The documents that may be found: these, or all but these."""

    numbers: Sequence[int]
    is_excluded: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A chunk as it lies there; it never changes, since each edition of a document has ids of its own."""

    chunk: Chunk
    vector: Vector | None

    @property
    def size(self) -> int:
        return len(self.chunk.text) + len(self.chunk.tokens) + (0 if self.vector is None else self.vector.nbytes)


class Rows(Protocol):
    """The rows of one version of an index."""

    MOST_LISTED: int
    """Documents that a condition can name."""
    MOST_FOUND: int
    """Rows that it can give at once."""

    async def nearest(self, vector: Vector, limit: int, within: Within | None) -> Sequence[int]:
        """Row ids of the nearest chunks."""

    async def rows(self, ids: Sequence[int], *, vectors: bool) -> Mapping[int, Row]:
        """Those of them that are there."""


class Kept:
    """Rows that were found lately, of all indexes of a store."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int], Row] = {}
        self._size = 0

    async def read(self, key: str, rows: Rows, ids: Sequence[int], *, vectors: bool) -> dict[int, Row]:
        known = {one: self._rows.get((key, one)) for one in ids}
        held = {one: row for one, row in known.items() if row and not (vectors and row.vector is None)}
        missing = [one for one in ids if one not in held]
        if missing:
            found = await rows.rows(missing, vectors=vectors)
            self._size += sum(row.size for row in found.values())
            if self._size > _KEPT_BYTES:
                self._rows.clear()
                self._size = sum(row.size for row in found.values())
            self._rows.update({(key, one): row for one, row in found.items()})
            held.update(found)
        return held


async def search(outline: Outline, key: str, rows: Rows, kept: Kept, wanted: Wanted) -> SearchResult | None:
    """None where rows have gone meanwhile."""
    found = await asyncio.to_thread(outline.look, wanted.tokens, wanted.limit, wanted.filter)
    nearest: Sequence[int] = ()
    if wanted.vector is not None and wanted.limit > 0 and outline.heads and found.eligible != frozenset():
        nearest = await _nearest(outline, rows, wanted.vector, wanted.limit, found)
    ids = sorted({*found.best, *nearest})
    held = await kept.read(key, rows, ids, vectors=wanted.vector is not None)
    if len(held) < len(ids):
        return None
    scores = await asyncio.to_thread(outline.scores, found, ids) if ids and found.frequencies else {}
    hits = [_hit(outline, row, held[row], wanted.vector, scores.get(row)) for row in ids]
    return SearchResult(tuple(hits), outline.resident.chunks, found.frequencies)


async def _nearest(outline: Outline, rows: Rows, vector: Vector, limit: int, found: Found) -> Sequence[int]:
    """Of the documents that the outline has and the filter lets pass; others may come in meanwhile."""
    eligible = found.eligible if found.eligible is not None else outline.heads.keys()
    within, asked = None, limit
    others = len(outline.heads) - len(eligible)
    if others and len(eligible) <= rows.MOST_LISTED:
        within = Within(sorted(eligible), False)
    elif others and others <= rows.MOST_LISTED:
        within = Within(sorted(outline.heads.keys() - eligible), True)
    elif others:  # too many to be named: more than is wanted, and then those that pass
        asked = 2 * limit * len(outline.heads) // len(eligible)
    while True:
        asked = min(asked, rows.MOST_FOUND)
        ids = await rows.nearest(vector, asked, within)
        known = [row for row in ids if row >> CHUNK_BITS in eligible]
        if len(known) >= limit or len(ids) < asked or asked == rows.MOST_FOUND:
            return known[:limit]
        asked *= _MORE


def _hit(outline: Outline, id: int, row: Row, vector: Vector | None, score: float | None) -> Hit:
    head = outline.heads[id >> CHUNK_BITS]
    similarity = None if vector is None or row.vector is None else float(np.vecdot(row.vector, vector))
    return Hit(head.key, head.name, head.title, row.chunk, similarity, score)
