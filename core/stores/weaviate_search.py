"""Searches a Weaviate server: the server chooses by keywords and by vectors, side by side, and we give the scores.

Scores are computed here from the chunks' own tokens and vectors, exactly as the `local` store does it: the server's
BM25 counts what is being replaced too, and leaves out a constant, and its vectors are rounded.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from core.analyzer import TERM_BYTES, term, terms
from core.stores.weaviate_changes import State
from core.stores.weaviate_index import Index
from core.stores.weaviate_schema import VECTOR
from core.stores.writing import headings_of, locator_of
from core.types import Chunk, Hit, SearchResult, Vector

if TYPE_CHECKING:
    from weaviate.collections.classes.filters import _Filters

_K1, _B = 1.2, 0.75
_PAUSE: Final = 0.01
_KEPT_BYTES: Final = 32 << 20
_REMEMBERED: Final = 20_000
"""Tokens whose frequencies are kept for one state of an index."""


@dataclass(slots=True)
class Statistics:
    """What BM25 needs to know of all chunks, while an index stays as it is."""

    content: frozenset[str]
    chunks: int
    tokens: int
    frequencies: dict[str, int] = field(default_factory=dict)

    def holds(self, state: State) -> bool:
        return bool(state.content) and state.content <= self.content


@dataclass(frozen=True, slots=True)
class Known:
    """A chunk that was found lately; it never changes, since each edition of a document has ids of its own."""

    document_id: str
    document: str
    title: str
    chunk: Chunk
    edition: str
    vector: Vector | None
    terms: bytes
    """`analyzer.terms` of its tokens."""

    @property
    def size(self) -> int:
        return (
            len(self.chunk.text)
            + len(self.chunk.tokens)
            + len(self.terms)
            + (0 if self.vector is None else self.vector.nbytes)
        )


@dataclass(slots=True)
class Memory:
    """What the last searches knew of an index."""

    state: State | None = None
    statistics: Statistics | None = None
    known: dict[str, Known] = field(default_factory=dict)
    size: int = 0

    def keep(self, found: Mapping[str, Known]) -> None:
        self.size += sum(one.size for one in found.values())
        if self.size > _KEPT_BYTES:
            self.known.clear()
            self.size = sum(one.size for one in found.values())
        self.known.update(found)


@dataclass(frozen=True, slots=True)
class Wanted:
    vector: Vector | None
    tokens: tuple[str, ...]
    """Distinct ones."""
    limit: int
    filter: _Filters | None


async def search(index: Index, memory: Memory, wanted: Wanted) -> SearchResult:
    """Of one state of the index: where another one has come meanwhile, it is searched again."""
    asked = [token for token in wanted.tokens if _is_plain(token)]
    while True:
        if memory.state is None:
            memory.state = await index.state()
        state = memory.state
        known = memory.statistics if memory.statistics and memory.statistics.holds(state) else None
        missing = asked if known is None else [token for token in asked if token not in known.frequencies]
        totals, frequencies, by_words, by_vector = await asyncio.gather(
            _totals(index, state, known), index.frequencies(missing, state), _by_words(index, state, asked, wanted),
            _by_vector(index, state, wanted),
        )  # fmt: skip
        ids = list(dict.fromkeys([*by_words, *by_vector]))
        hits = await _chunks(index, memory, ids, vectors=wanted.vector is not None)
        memory.state = after = await index.state()
        measured = known is None or bool(missing)
        is_whole = len(hits) == len(ids)
        if hidden := frozenset(state.hidden):  # of a server that was killed, objects may be found that filters miss
            hits = [hit for hit in hits if hit.edition not in hidden]
        if is_whole and _is_same(state, after, hits, measured=measured):
            statistics = known or Statistics(state.content, *totals)
            if len(statistics.frequencies) > _REMEMBERED:
                statistics.frequencies = {
                    token: statistics.frequencies[token] for token in asked if token not in missing
                }
            statistics.frequencies.update(frequencies)
            memory.statistics = statistics
            return _result(wanted, asked, statistics, hits)
        await asyncio.sleep(_PAUSE)


async def _totals(index: Index, state: State, known: Statistics | None) -> tuple[int, int]:
    return (known.chunks, known.tokens) if known else await index.totals(state.visible(None))


async def _by_words(index: Index, state: State, asked: Sequence[str], wanted: Wanted) -> Sequence[str]:
    if not asked or wanted.limit <= 0:
        return ()
    return await index.by_words(" ".join(asked), wanted.limit, state.visible(wanted.filter))


async def _by_vector(index: Index, state: State, wanted: Wanted) -> Sequence[str]:
    if wanted.vector is None or wanted.limit <= 0:
        return ()
    return await index.by_vector(wanted.vector, wanted.limit, state.visible(wanted.filter))


async def _chunks(index: Index, memory: Memory, ids: Sequence[str], *, vectors: bool) -> list[Known]:
    """Fewer than were asked for where some are gone meanwhile."""
    held = {key: memory.known[key] for key in ids if key in memory.known}
    missing = [key for key in ids if key not in held or (vectors and held[key].vector is None)]
    if missing:
        found = {str(one.uuid): _known(one) for one in await index.objects(missing, vectors=vectors)}
        memory.keep(found)
        held |= found
    return [held[key] for key in ids if key in held]


def _is_same(before: State, after: State, hits: Sequence[Known], *, measured: bool) -> bool:
    """Whether what was found holds in both: nothing new counts, and nothing that does not count was found."""
    if before == after:
        return True
    if measured or not after.content <= before.content or not after.content:
        return False
    hidden = set(after.hidden)
    return not any(hit.edition in hidden for hit in hits)


def _result(wanted: Wanted, asked: Sequence[str], statistics: Statistics, hits: Sequence[Known]) -> SearchResult:
    average = (statistics.tokens / statistics.chunks if statistics.chunks else 1.0) or 1.0
    near = None if wanted.vector is None else [hit.vector for hit in hits if hit.vector is not None]
    similarities: list[float | None] = [None] * len(hits)
    if near and wanted.vector is not None:
        similarities = np.vecdot(np.stack(near), wanted.vector.astype(np.float32)).tolist()
    words: list[float | None] = [None] * len(hits)
    if hits and wanted.tokens:
        weights = {token: _idf(statistics.frequencies[token], statistics.chunks) for token in asked}
        words = _bm25([hit.terms for hit in hits], weights, average).tolist()
    found = tuple(
        Hit(hit.document_id, hit.document, hit.title, hit.chunk, similarity, score)
        for hit, similarity, score in zip(hits, similarities, words, strict=True)
    )
    frequencies = {token: statistics.frequencies.get(token, 0) for token in wanted.tokens}
    return SearchResult(found, statistics.chunks, frequencies)


def chunk_of(found: Mapping[str, Any]) -> Chunk:
    return Chunk(
        int(found["number"]),
        str(found["text"]),
        str(found["tokens"]),
        str(found["content_hash"]),
        headings_of(str(found.get("headings") or "")),
        locator_of(str(found.get("locator") or "")),
    )


def _known(one: Any) -> Known:
    found = one.properties
    vector = one.vector.get(VECTOR) if isinstance(one.vector, dict) else None
    own = None if vector is None else np.asarray(vector, np.float32)
    chunk = chunk_of(found)
    return Known(found["document"], found["name"], found["title"], chunk, found["edition"], own, terms(chunk.tokens))


def _idf(frequency: int, chunks: int) -> float:
    return math.log(1 + (max(chunks, frequency) - frequency + 0.5) / (frequency + 0.5))


def _bm25(hits: Sequence[bytes], weights: Mapping[str, float], average: float) -> NDArray[np.float64]:
    """Scores of chunks that have these terms, all at once: a question in Chinese has dozens of tokens."""
    lengths = np.array([len(one) // TERM_BYTES for one in hits])
    every = np.frombuffer(b"".join(hits), np.uint64)
    owners = np.repeat(np.arange(len(hits)), lengths)
    base = _K1 * (1 - _B + _B * lengths / average)
    scores = np.zeros(len(hits))
    for token, weight in weights.items():
        places = np.flatnonzero(every == np.frombuffer(term(token), np.uint64))
        counts = np.bincount(owners[places], minlength=len(hits))
        scores += weight * counts * (_K1 + 1) / (counts + base)
    return scores


def _is_plain(token: str) -> bool:
    """False for what no analyzer makes: it stands nowhere."""
    return token.split() == [token] and "\x00" not in token and token.isprintable()
