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
_FAR: Final = 1 << 40
"""Farther apart than any two words of a passage."""
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
    space: str = ""
    """Fingerprint of the embedder whose space its vector is in; cosines of different spaces are not compared."""


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


def keyword_shares(scores: Sequence[float | None], terms: Mapping[str, float]) -> list[float]:
    """As `keyword_share`, of each."""
    most = sum(terms.values()) * _SATURATION
    if most <= 0:
        return [0.0] * len(scores)
    shares = [(score or 0.0) / most for score in scores]
    return [share if share < 1.0 else 1.0 for share in shares]


def keyword_share(score: float | None, terms: Mapping[str, float]) -> float:
    """BM25 divided by the most that the question could get."""
    return keyword_shares([score], terms)[0]


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
    legs = _legs(found, dense_weight, depth)
    ranked = sorted(range(len(found)), key=legs.__getitem__, reverse=True)
    question = _Question(terms)
    close = [found[number] for number in ranked[:_CLOSELY_READ]]
    for one, leg in zip(close, map(legs.__getitem__, ranked), strict=False):
        one.score = leg + (1 - _LEGS) * question.reading(one.hit)
    close.sort(key=_score, reverse=True)
    lowest = close[-1].score if close else 0.0
    rest = [found[number] for number in ranked[_CLOSELY_READ:]]
    for one, leg in zip(rest, map(legs.__getitem__, ranked[_CLOSELY_READ:]), strict=True):
        lowest = one.score = min(lowest, leg)
    return close + rest


def _legs(found: Sequence[Found], dense_weight: float, depth: int) -> list[float]:
    """What the two legs give each hit."""
    best = max([one.keyword for one in found], default=0.0) or 1.0
    if dense_weight <= 0:
        return [_LEGS * (one.keyword / best) for one in found]
    words, vectors = _LEGS * (1 - dense_weight), _LEGS * dense_weight
    return [
        (_LEGS if near is None else words) * (one.keyword / best) + vectors * (near or 0.0)
        for one, near in zip(found, _similarities(found, depth), strict=True)
    ]


def _cosine(one: Found) -> float:
    return one.hit.vector_score or 0.0


def _score(one: Found) -> float:
    return one.score


def _similarities(found: Sequence[Found], depth: int) -> list[float | None]:
    """As `_relative_similarities`, in each space for itself."""
    spaces = {one.space for one in found}
    if len(spaces) < 2:
        return _relative_similarities(found, depth)
    near: list[float | None] = [None] * len(found)
    for space in spaces:
        places = [place for place, one in enumerate(found) if one.space == space]
        for place, value in zip(places, _relative_similarities([found[p] for p in places], depth), strict=True):
            near[place] = value
    return near


def _relative_similarities(found: Sequence[Found], depth: int) -> list[float | None]:
    """Where each hit's cosine stands between the best and the `depth`-th one; None for one without a vector."""
    cosines = [one.hit.vector_score for one in found]
    ranked = sorted([cosine for cosine in cosines if cosine is not None], reverse=True)
    if not ranked:
        return [None] * len(found)
    high, low = ranked[0], ranked[min(depth, len(ranked)) - 1]
    spread = high - low
    if not spread:
        return [None if cosine is None else 1.0 for cosine in cosines]
    return [None if cosine is None else (cosine - low) / spread if cosine > low else 0.0 for cosine in cosines]


class _Question:
    """A question's words, numbered in order, to be looked for in passages."""

    def __init__(self, terms: Mapping[str, float]) -> None:
        self._terms = terms
        self._sought = [f" {token} " for token in terms]
        self._weights = list(terms.values())
        self._total = sum(self._weights)
        self._pairs = [min(both) for both in pairwise(self._weights)]
        """The weight of each word and the next one as neighbours."""
        self._possible = sum(self._pairs)

    def reading(self, hit: Hit) -> float:
        """How close together the question's words stand in a passage, and how many its title holds."""
        if not self._total:
            return 0.0
        title = title_tokens(hit.title, hit.chunk.headings)
        in_title = sum([weight for token, weight in self._terms.items() if token in title]) if title else 0
        if hit.keyword_score == 0:  # none of the words stands in it
            return _TITLE * in_title / self._total
        together, neighbours = self._closeness(self._places(hit.chunk.tokens))
        adjacent = neighbours / self._possible if self._possible else 0.0
        return _TOGETHER * together / self._total + _ADJACENT * adjacent + _TITLE * in_title / self._total

    def _places(self, tokens: str) -> list[tuple[int, int]]:
        """Where in a passage each of the words stands, in order: the how many-th token, and the word's number.

        Looking for the words in the text takes a third of the time of looking at every token.
        """
        text = f" {tokens} "
        found = []
        for number, sought in enumerate(self._sought):
            at = text.find(sought)
            while at >= 0:
                found.append((text.count(" ", 0, at), number))
                at = text.find(sought, at + len(sought) - 1)
        found.sort()
        return found

    def _closeness(self, hits: Sequence[tuple[int, int]]) -> tuple[float, float]:
        """The most weight of distinct words within `_WINDOW` places; and the weight of the question's neighbours that
        are neighbours here too, less the farther apart they stand.
        """
        weights = self._weights
        counts = [0] * len(weights)
        last = [-_FAR] * (len(weights) + 1)  # where each word stood last; nothing stands beside the first and the last
        nearest: dict[int, int] = {}
        best = current = 0.0
        first = 0
        for place, number in hits:
            if not counts[number]:
                current += weights[number]
            counts[number] += 1
            while hits[first][0] <= place - _WINDOW:
                gone = hits[first][1]
                counts[gone] -= 1
                if not counts[gone]:
                    current -= weights[gone]
                first += 1
            if current > best:
                best = current
            last[number] = place
            far = place - last[number - 1]
            if far < nearest.get(number - 1, _FAR):
                nearest[number - 1] = far
            far = place - last[number + 1]
            if far < nearest.get(number, _FAR):
                nearest[number] = far
        return best, sum([self._pairs[pair] / (1 + max(0, far - 1) / 2) for pair, far in nearest.items()])
