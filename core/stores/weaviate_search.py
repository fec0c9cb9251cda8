"""Searches a Weaviate server: the server chooses by keywords and by vectors, side by side, and we give the scores.

Scores are computed here from the chunks' own tokens and vectors, exactly as the `local` store does it: the server's
BM25 counts what is being replaced too, and leaves out a constant, and its vectors are rounded.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from core.errors import ConfigError
from core.stores.weaviate_changes import State
from core.stores.weaviate_index import Index
from core.stores.weaviate_schema import VECTOR
from core.stores.writing import headings_of, locator_of
from core.texts import tell
from core.types import Chunk, Generation, Hit, SearchResult, Vector

if TYPE_CHECKING:
    from weaviate.collections.classes.filters import _Filters

_K1, _B = 1.2, 0.75
_PAUSE: Final = 0.01
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


@dataclass(slots=True)
class Memory:
    """What the last search knew of an index."""

    state: State | None = None
    statistics: Statistics | None = None


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
        hits = [*by_words, *by_vector]
        memory.state = after = await index.state()
        measured = known is None or bool(missing)
        if _is_same(state, after, hits, measured=measured):
            statistics = known or Statistics(state.content, *totals)
            if len(statistics.frequencies) > _REMEMBERED:
                statistics.frequencies.clear()
                frequencies |= await index.frequencies([one for one in asked if one not in frequencies], state)
            statistics.frequencies.update(frequencies)
            memory.statistics = statistics
            return _result(wanted, asked, statistics, hits)
        await asyncio.sleep(_PAUSE)


async def _totals(index: Index, state: State, known: Statistics | None) -> tuple[int, int]:
    return (known.chunks, known.tokens) if known else await index.totals(state.visible(None))


async def _by_words(index: Index, state: State, asked: Sequence[str], wanted: Wanted) -> Sequence[Any]:
    if not asked or wanted.limit <= 0:
        return ()
    visible = state.visible(wanted.filter)
    return await index.by_words(" ".join(asked), wanted.limit, visible, vectors=wanted.vector is not None)


async def _by_vector(index: Index, state: State, wanted: Wanted) -> Sequence[Any]:
    if wanted.vector is None or wanted.limit <= 0:
        return ()
    return await index.by_vector(wanted.vector, wanted.limit, state.visible(wanted.filter))


def _is_same(before: State, after: State, hits: Sequence[Any], *, measured: bool) -> bool:
    """Whether what was found holds in both: nothing new counts, and nothing that does not count was found."""
    if before == after:
        return True
    if measured or not after.content <= before.content or not after.content:
        return False
    hidden = set(after.hidden)
    return not any(hit.properties["edition"] in hidden for hit in hits)


def _result(wanted: Wanted, asked: Sequence[str], statistics: Statistics, hits: Sequence[Any]) -> SearchResult:
    terms = {token: _idf(statistics.frequencies[token], statistics.chunks) for token in asked}
    average = statistics.tokens / statistics.chunks if statistics.chunks else 1.0
    found: dict[str, Hit] = {}
    for one in hits:
        key = str(one.uuid)
        if key not in found:
            words = _bm25(str(one.properties["tokens"]), terms, average or 1.0) if wanted.tokens else None
            found[key] = _hit(one, _similarity(one, wanted.vector), words)
    frequencies = {token: statistics.frequencies.get(token, 0) for token in wanted.tokens}
    return SearchResult(tuple(found.values()), statistics.chunks, frequencies)


def vector_for(generation: Generation, vector: Vector | None) -> Vector | None:
    """The vector, where the index has any. Raises ConfigError."""
    if vector is None or generation.dimension == 0:
        return None
    if vector.shape != (generation.dimension,):
        raise ConfigError(tell("store_wrong_vectors", expected=generation.dimension, found=vector.shape))
    return vector


def chunk_of(found: Mapping[str, Any]) -> Chunk:
    return Chunk(
        int(found["number"]),
        str(found["text"]),
        str(found["tokens"]),
        str(found["content_hash"]),
        headings_of(str(found.get("headings") or "")),
        locator_of(str(found.get("locator") or "")),
    )


def _hit(one: Any, similarity: float | None, words: float | None) -> Hit:
    found = one.properties
    return Hit(found["document"], found["name"], found["title"], chunk_of(found), similarity, words)


def _similarity(one: Any, vector: Vector | None) -> float | None:
    if vector is None:
        return None
    own = np.asarray(one.vector[VECTOR], np.float32)
    return float(own @ vector)


def _idf(frequency: int, chunks: int) -> float:
    return math.log(1 + (max(chunks, frequency) - frequency + 0.5) / (frequency + 0.5))


def _bm25(tokens: str, terms: Mapping[str, float], average: float) -> float:
    words = tokens.split(" ")
    counts = Counter(word for word in words if word in terms)
    length = _K1 * (1 - _B + _B * len(words) / average)
    return sum(terms[word] * count * (_K1 + 1) / (count + length) for word, count in counts.items())


def _is_plain(token: str) -> bool:
    """False for what no analyzer makes: it stands nowhere."""
    return token.split() == [token] and "\x00" not in token and token.isprintable()
