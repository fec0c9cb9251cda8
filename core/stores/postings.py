"""BM25 over numpy arrays: exact scores, exact document frequencies, in microseconds per query word.

SQLite's FTS5 gives words that most chunks share no weight, tells no document frequencies, and takes thirty to eighty
times as long to rank (`bench/search.py`). The file keeps each chunk's tokens as hashes; sorting them makes the index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.analyzer import TERM_BYTES, terms
from core.analyzer import term as hashed

K1: Final = 1.2
B: Final = 0.75

MAX_ROWS: Final = 1 << 24
"""Chunks of one index at most; the other 40 bits of a key tell terms apart."""

_MAX_COUNT: Final = 65_535

U64 = NDArray[np.uint64]
Lengths = NDArray[np.uint32]
Scores = NDArray[np.float32]
Alive = NDArray[np.bool_] | None
"""Which rows count; None: all."""

_ROW: Final = np.uint64(MAX_ROWS - 1)
_TERM: Final = ~_ROW


@dataclass(frozen=True, slots=True)
class Postings:
    """For each term the rows it stands in, and how often; made once and never changed."""

    terms: U64
    """Distinct, ascending."""
    starts: NDArray[np.int64]
    """One more than terms: where each one's rows begin."""
    rows: NDArray[np.uint32]
    counts: NDArray[np.uint16]

    @property
    def nbytes(self) -> int:
        return self.terms.nbytes + self.starts.nbytes + self.rows.nbytes + self.counts.nbytes

    def find(self, term: np.uint64) -> slice:
        place = int(np.searchsorted(self.terms, term))
        if place == len(self.terms) or self.terms[place] != term:
            return slice(0, 0)
        return slice(int(self.starts[place]), int(self.starts[place + 1]))


def analyse(tokens: Sequence[str]) -> tuple[bytes, bytes]:
    """What the file keeps of chunks' tokens (each a string with spaces between): how many each has, and all of them."""
    found = [terms(text) for text in tokens]  # chunk by chunk, so that other threads get their turn in between
    return np.array([len(one) // TERM_BYTES for one in found], np.uint32).tobytes(), b"".join(found)


def index(first_row: int, lengths: Lengths, terms: bytes) -> Postings:
    """Postings of analysed chunks, which take the rows from `first_row` on."""
    if first_row + len(lengths) > MAX_ROWS:
        raise OverflowError(f"more than {MAX_ROWS} chunks in one index")
    rows = np.repeat(np.arange(first_row, first_row + len(lengths), dtype=np.uint64), lengths)
    return _postings((np.frombuffer(terms, "<u8") & _TERM) | rows)


def merge(one: Postings, other: Postings) -> Postings:
    return _postings(np.concatenate([_keys(one), _keys(other)]))


def bm25(
    segments: Sequence[Postings], tokens: Sequence[str], lengths: Lengths, alive: Alive
) -> tuple[Scores, dict[str, int]]:
    """The score of every row, and each token's number of rows."""
    total = len(lengths) if alive is None else int(np.count_nonzero(alive))
    scores = np.zeros(len(lengths), np.float32)
    frequencies = dict.fromkeys(tokens, 0)
    if total == 0:
        return scores, frequencies
    average = max(float(np.mean(lengths if alive is None else lengths[alive])), 1.0)
    norms = (K1 * (1 - B) + (K1 * B / average) * lengths).astype(np.float32)
    for token in frequencies:
        term = np.uint64(int.from_bytes(hashed(token), "little")) & _TERM
        found = [(segment, segment.find(term)) for segment in segments]
        frequency = sum(_frequency(segment.rows[where], alive) for segment, where in found)
        frequencies[token] = frequency
        if frequency == 0:
            continue
        weight = np.float32((K1 + 1) * idf(total, frequency))
        for segment, where in found:
            rows = segment.rows[where]
            counts = segment.counts[where].astype(np.float32)
            scores[rows] += weight * counts / (counts + norms[rows])
    return scores, frequencies


def idf(total: int, frequency: int) -> float:
    """Above zero, also for a token that stands in every chunk."""
    return math.log1p((total - frequency + 0.5) / (frequency + 0.5))


def _frequency(rows: NDArray[np.uint32], alive: Alive) -> int:
    return len(rows) if alive is None else int(np.count_nonzero(alive[rows]))


def _postings(keys: U64) -> Postings:
    """From keys (term above, row below), one for each time a term stands in a row. Sorting them is all the work."""
    keys.sort()
    firsts = _changes(keys)
    counts = np.minimum(np.diff(np.append(firsts, len(keys))), _MAX_COUNT).astype(np.uint16)
    keys = keys[firsts]
    terms = keys & _TERM
    starts = _changes(terms)
    return Postings(
        terms=terms[starts],
        starts=np.append(starts, len(terms)),
        rows=(keys & _ROW).astype(np.uint32),
        counts=counts,
    )


def _keys(postings: Postings) -> U64:
    return np.repeat(np.repeat(postings.terms, np.diff(postings.starts)) | postings.rows, postings.counts)


def _changes(values: U64) -> NDArray[np.int64]:
    """Where a value differs from the one before it."""
    if not len(values):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
