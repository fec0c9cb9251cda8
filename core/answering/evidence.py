"""How well the passages found bear out an answer: the rule that decides between answering and refusing.

Pure functions. Everything is measured against the weight of the question itself, never against the best hit, so that a
number means the same in a knowledge base of five documents and in one of five thousand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from core.analyzer import FUNCTION_WORDS, is_unspaced, query_units, tokens

_BACKGROUND: Final = 200
"""Imagined chunks that stand beside the real ones, so that a small knowledge base has a notion of rare words too."""
_RARE: Final = 0.005
_MAX_UNITS: Final = 256
_NAMING: Final = re.compile(r"(?<=\S[ (\"'“‘])[A-Z][\w'’.-]{0,60}|\d[\d.,]{0,20}|[《“「\"][^》”」\"]{1,60}[》”」\"]")
"""Names, numbers and titles in a question; a capital at its very beginning says nothing."""
_NOTHING: Final[frozenset[str]] = frozenset()


_WINDOW: Final = 30
_WINDOW_UNSPACED: Final = 60
"""Tokens of a sentence or two; an unspaced script has two tokens a character."""


_CROWD_BEGINS: Final = 250
_CROWD_ENDS: Final = 1000
"""Chunks between which more and more of a question is met by chance; measured, it stays as it is beyond."""

# Fitted by logistic regression on questions that documents answer and others that they do not, in English and Chinese:
# encyclopaedic ones in knowledge bases of 5, 20, 100 and all documents, and those on the sample documents; each kind
# counts alike. The constants put 0.5 where 3 or 4 % of the answerable ones are refused in the largest knowledge bases.
# `python -m bench.gate FOLDER… --fit` measures the rules and fits them anew.
_WITH_VECTORS: Final[Mapping[str, float]] = {
    "": -5.6,
    "keyword": 3.2,
    "ahead": 1.9,
    "gap": 2.2,
    "coverage": 2.7,
    "together": 2.7,
    "missing": -1.7,
    "title": 1.4,
    "names": -3.9,
    "closest": 9.6,
    "crowd": -1.7,
}
_SPACED: Final[Mapping[str, float]] = {
    "": -3.3,
    "keyword": 7.1,
    "ahead": 3.0,
    "gap": 3.8,
    "coverage": 3.2,
    "together": 3.3,
    "missing": -1.5,
    "title": 2.2,
    "names": -4.3,
    "crowd": -1.3,
}
_UNSPACED: Final[Mapping[str, float]] = {
    "": -3.9,
    "ahead": 3.8,
    "gap": 3.2,
    "together": 7.9,
    "title": 2.9,
    "names": -6.3,
    "crowd": -2.4,
}
"""Without vectors: pairs of characters are met by chance more often than words, and a title tells more."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the question: any of its tokens shows that a text speaks of it."""

    tokens: tuple[str, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the rule looks at in a passage."""

    tokens: Sequence[str]
    """Search tokens of title, headings and text."""
    title: frozenset[str]
    """Those of the title and headings."""
    names: Sequence[frozenset[str]] = ()
    """Those of the title and of the last heading, each for itself."""


@dataclass(frozen=True, slots=True)
class Signals:
    """What is known of the passages, each 0..1."""

    keyword: float
    """BM25 of the best passage as a share of the most the question could get."""
    ahead: float
    """How far it stands above the second document's."""
    gap: float
    """How far it stands above the third document's."""
    coverage: float
    """Share of the question's weight in the passage that has most of it."""
    together: float
    """The same within a sentence or two, title included."""
    missing: float
    """Weight of the longest stretch of the question that this passage lacks."""
    title: float
    """Share of a passage's title or heading that the question names, cubed: half a name names another thing."""
    names: float
    """Weight of the question's names and numbers that the passage with most of them lacks."""
    closest: float
    """Cosine between the question and the closest sentence; 0 where there are no vectors."""
    crowd: float
    """How large the knowledge base is: the more it holds, the more of a question is met by chance."""
    spaced: bool
    """Whether most of the question is written in a script with spaces."""


def measure(
    question: str,
    candidates: Sequence[Candidate],
    *,
    frequency: Mapping[str, int],
    chunks: int,
    keyword: Sequence[float],
    closest: float,
) -> Signals:
    """`candidates` are the first passages, best first; `keyword` the keyword shares of the best three documents
    that do not say the same.
    """
    units = _weighted_units(question, frequency, chunks)
    total = sum(unit.weight for unit in units)
    says_nothing = all(FUNCTION_WORDS.issuperset(unit.tokens) for unit in units)
    if not candidates or not total or says_nothing:
        return Signals(0, 0, 0, 0, 0, 1, 0, 1, closest, 1, spaced=True)
    spaced = 2 * sum(map(_is_spaced, units)) >= len(units)
    present = [[not unit_tokens.isdisjoint(unit.tokens) for unit in units] for unit_tokens in map(_set, candidates)]
    covered = [sum(unit.weight for unit, there in zip(units, row, strict=True) if there) for row in present]
    fullest = present[covered.index(max(covered))]
    width = _WINDOW if spaced else _WINDOW_UNSPACED
    asked = frozenset(tokens(question))
    best = [*keyword, 0.0, 0.0, 0.0]
    return Signals(
        keyword=best[0],
        ahead=best[0] - best[1],
        gap=best[0] - best[2],
        coverage=max(covered) / total,
        together=max(_together(units, candidate, width) for candidate in candidates) / total,
        missing=_longest_missing(units, fullest) / total,
        title=max(_named(name, asked) for candidate in candidates for name in (*candidate.names, _NOTHING)) ** 3,
        names=_names_missing(question, units, present) / total,
        closest=closest,
        crowd=min(1.0, max(0.0, math.log((chunks + 1) / _CROWD_BEGINS) / math.log(_CROWD_ENDS / _CROWD_BEGINS))),
        spaced=spaced,
    )


def judge(signals: Signals, known: float) -> float:
    """Evidence 0..1; `known` is the share of the question in scripts that the embedder knows."""
    if signals.spaced:
        score = known * _sum(_WITH_VECTORS, signals) + (1 - known) * _sum(_SPACED, signals)
    else:
        score = _sum(_UNSPACED, signals)
    return 1 / (1 + math.exp(-score))


def _sum(weights: Mapping[str, float], signals: Signals) -> float:
    return weights[""] + sum(weight * float(getattr(signals, name)) for name, weight in weights.items() if name)


def _set(candidate: Candidate) -> frozenset[str]:
    return frozenset(candidate.tokens)


def _is_spaced(unit: Unit) -> bool:
    return unit.tokens[0].isascii() or not is_unspaced(unit.tokens[0])


def _token_weight(frequency: int, chunks: int) -> float:
    """How much it says that a token was met: its idf, tempered by the background."""
    seen = frequency + _BACKGROUND * _RARE
    return math.log(1 + (chunks + _BACKGROUND - seen) / (seen + 0.5))


def _weighted_units(question: str, frequency: Mapping[str, int], chunks: int) -> list[Unit]:
    return [
        Unit(found, min(_token_weight(frequency.get(token, 0), chunks) for token in found))
        for found in query_units(question)[:_MAX_UNITS]
    ]


def _longest_missing(units: Sequence[Unit], present: Sequence[bool]) -> float:
    longest = current = 0.0
    for unit, there in zip(units, present, strict=True):
        current = 0.0 if there else current + unit.weight
        longest = max(longest, current)
    return longest


def _names_missing(question: str, units: Sequence[Unit], present: Sequence[Sequence[bool]]) -> float:
    naming = {
        token for found in _NAMING.findall(question) for token in tokens(found) if len(token) > 1 or token.isdigit()
    }
    special = [number for number, unit in enumerate(units) if not naming.isdisjoint(unit.tokens)]
    return min(sum(units[number].weight for number in special if not row[number]) for row in present)


def _named(name: frozenset[str], asked: frozenset[str]) -> float:
    """Share of a title or heading that the question names."""
    telling = {token for token in name if len(token) > 1 and token not in FUNCTION_WORDS} or name
    return len(telling & asked) / len(telling) if telling else 0.0


def _together(units: Sequence[Unit], candidate: Candidate, width: int) -> float:
    """Weight of what stands in the title or within the best `width` consecutive tokens."""
    in_title = sum(unit.weight for unit in units if not candidate.title.isdisjoint(unit.tokens))
    others = [unit for unit in units if candidate.title.isdisjoint(unit.tokens)]
    return in_title + _best_window(others, candidate.tokens, width)


def _best_window(units: Sequence[Unit], tokens: Sequence[str], width: int) -> float:
    of_token: dict[str, list[int]] = {}
    for number, unit in enumerate(units):
        for token in unit.tokens:
            of_token.setdefault(token, []).append(number)
    hits = [(place, number) for place, token in enumerate(tokens) if token in of_token for number in of_token[token]]
    counts = [0] * len(units)
    best = current = 0.0
    first = 0
    for place, number in hits:
        if not counts[number]:
            current += units[number].weight
        counts[number] += 1
        while hits[first][0] <= place - width:
            gone = hits[first][1]
            counts[gone] -= 1
            if not counts[gone]:
                current -= units[gone].weight
            first += 1
        best = max(best, current)
    return best
