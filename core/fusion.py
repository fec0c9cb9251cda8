"""One ranking out of what the legs of a search found: relative scores, then how the words stand together.

Pure functions. Keyword scores are taken as shares of the question's own weight, so that those of several knowledge
bases can be compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

from core.analyzer import script_shares, tokens
from core.types import Hit

_CLOSELY_READ: Final = 20
"""Hits whose words are looked at; what stands behind them seldom comes first."""
_WINDOW: Final = 15
_LEGS: Final = 0.6
"""Part of the score that comes from the two legs; the rest comes from close reading."""
_TOGETHER, _ADJACENT, _TITLE = 0.5, 0.2, 0.3
"""Parts of close reading."""
_SATURATION: Final = 2.2
"""k1 + 1 of BM25: what a token can add is its idf times this."""


@dataclass(slots=True)
class Found:
    """A hit on its way through the ranking."""

    kb: str
    hit: Hit
    keyword: float
    """BM25 as a share of the most that this question could get, 0..1."""
    score: float = 0.0


@lru_cache(maxsize=4096)
def title_tokens(title: str, headings: tuple[str, ...] = ()) -> frozenset[str]:
    """Search tokens of a passage's title and headings."""
    return frozenset(tokens(" ".join((title, *headings))))


def known_share(scripts: frozenset[str], text: str) -> float:
    """Share of the text's letters in these scripts, those that an embedder knows; `*` stands for all."""
    if "*" in scripts:
        return 1.0
    return sum(share for script, share in script_shares(text).items() if script in scripts)


def idf(frequency: int, chunks: int) -> float:
    return math.log(1 + (chunks - frequency + 0.5) / (frequency + 0.5))


def keyword_share(score: float | None, terms: Mapping[str, float]) -> float:
    """BM25 divided by the most that the question could get."""
    most = sum(terms.values()) * _SATURATION
    return min(1.0, (score or 0.0) / most) if most > 0 else 0.0


def bm25_share(found: Sequence[str], terms: Mapping[str, float], usual: float) -> float:
    """The same from a passage's tokens, where `usual` is the length that counts as neither long nor short."""
    counts = Counter(token for token in found if token in terms)
    length = 1.2 * (0.25 + 0.75 * len(found) / usual) if usual else 1.2
    return keyword_share(
        sum(terms[token] * count * _SATURATION / (count + length) for token, count in counts.items()), terms
    )


def by_similarity(found: Sequence[Found]) -> list[Found]:
    """Those that have a vector, the most similar first; their cosine is the score."""
    ranked = sorted((one for one in found if one.hit.vector_score is not None), key=_cosine, reverse=True)
    for one in ranked:
        one.score = min(1.0, max(0.0, _cosine(one)))
    return ranked


def fuse(found: Sequence[Found], terms: Mapping[str, float], dense_weight: float, depth: int) -> list[Found]:
    """Best first, with `score` 0..1. `terms` are the question's tokens in order with their idf.

    `depth` is how many hits the vector leg was asked for: the similarity of the last of them counts as none. A hit
    without a vector, in a knowledge base that has none, is ranked by its words alone.
    """
    best = max((one.keyword for one in found), default=0.0) or 1.0
    similarity = _relative_similarities(found, depth) if dense_weight > 0 else {}

    def legs(one: Found) -> float:
        lexical, near = one.keyword / best, similarity.get(id(one))
        return _LEGS * (lexical if near is None else (1 - dense_weight) * lexical + dense_weight * near)

    ranked = sorted(found, key=legs, reverse=True)
    close, rest = ranked[:_CLOSELY_READ], ranked[_CLOSELY_READ:]
    pairs = list(dict.fromkeys(pairwise(terms)))
    for one in close:
        one.score = legs(one) + (1 - _LEGS) * _reading(one.hit, terms, pairs)
    close.sort(key=lambda one: one.score, reverse=True)
    lowest = close[-1].score if close else 0.0
    for one in rest:
        lowest = one.score = min(lowest, legs(one))
    return [*close, *rest]


def _cosine(one: Found) -> float:
    return one.hit.vector_score or 0.0


def _relative_similarities(found: Sequence[Found], depth: int) -> dict[int, float]:
    """By identity of the hit: where its cosine stands between the best and the `depth`-th one."""
    cosines = {id(one): one.hit.vector_score for one in found if one.hit.vector_score is not None}
    if not cosines:
        return {}
    ranked = sorted(cosines.values(), reverse=True)
    high, low = ranked[0], ranked[min(depth, len(ranked)) - 1]
    spread = high - low
    return {key: max(0.0, (value - low) / spread) if spread else 1.0 for key, value in cosines.items()}


def _reading(hit: Hit, terms: Mapping[str, float], pairs: Sequence[tuple[str, str]]) -> float:
    """How close together the question's words stand in a passage, and how many its title holds."""
    total = sum(terms.values())
    if not total:
        return 0.0
    title = title_tokens(hit.title, hit.chunk.headings)
    in_title = sum(weight for token, weight in terms.items() if token in title)
    hits = [(place, token) for place, token in enumerate(hit.chunk.tokens.split()) if token in terms]
    possible = sum(min(terms[one], terms[other]) for one, other in pairs)
    adjacent = _adjacency(hits, terms, pairs) / possible if possible else 0.0
    return _TOGETHER * _window(hits, terms) / total + _ADJACENT * adjacent + _TITLE * in_title / total


def _window(hits: Sequence[tuple[int, str]], terms: Mapping[str, float]) -> float:
    """The most weight of distinct tokens within `_WINDOW` places."""
    counts = dict.fromkeys(terms, 0)
    best = current = 0.0
    first = 0
    for place, token in hits:
        if not counts[token]:
            current += terms[token]
        counts[token] += 1
        while hits[first][0] <= place - _WINDOW:
            gone = hits[first][1]
            counts[gone] -= 1
            if not counts[gone]:
                current -= terms[gone]
            first += 1
        best = max(best, current)
    return best


def _adjacency(hits: Sequence[tuple[int, str]], terms: Mapping[str, float], pairs: Sequence[tuple[str, str]]) -> float:
    """Weight of the question's neighbours that are neighbours here too, less the farther apart they stand."""
    partners: dict[str, list[tuple[int, str]]] = {}
    for number, (one, other) in enumerate(pairs):
        partners.setdefault(one, []).append((number, other))
        partners.setdefault(other, []).append((number, one))
    nearest: dict[int, int] = {}
    last: dict[str, int] = {}
    for place, token in hits:
        for number, other in partners.get(token, ()):
            if other in last:
                nearest[number] = min(nearest.get(number, place), place - last[other])
        last[token] = place
    found = 0.0
    for number, distance in nearest.items():
        one, other = pairs[number]
        found += min(terms[one], terms[other]) / (1 + max(0, distance - 1) / 2)
    return found
