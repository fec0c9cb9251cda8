"""Which sentences of the passages found answer a question best, without a language model.

Pure functions. A sentence scores by the question's words in it (those of its title stand for it too), by how near its
vector is to the question's, by its passage, and by holding what the question asks for: a number, a date, a name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from core.analyzer import query_tokens, tokens
from core.answering.fusion import title_tokens
from core.sentences import sentences
from core.types import Passage

_DENSE, _LEXICAL, _COVERED, _PASSAGE, _KIND, _ASKS = 6.0, 4.0, 8.0, 4.0, 2.0, -2.0
_LENGTH_WEIGHT: Final = 0.4
"""b of BM25 over sentences."""
_ALIKE: Final = 0.8
_MAX_SENTENCES: Final = 400

Kind = Literal["", "number", "date", "name", "reason"]


@dataclass(slots=True)
class Sentence:
    """A sentence of a passage on its way through the choice."""

    passage: int
    """Index among the passages."""
    start: int
    end: int
    text: str
    tokens: frozenset[str]
    score: float
    """Without its vector."""


def scored_sentences(question: str, passages: Sequence[Passage], terms: Mapping[str, float]) -> list[Sentence]:
    """All sentences of the passages, each once, best first; `terms` are the question's tokens with their weight."""
    weights = terms or dict.fromkeys(query_tokens(question), 1.0)
    spans = list(_spans(passages))[:_MAX_SENTENCES]
    counted = [(index, start, end, text, Counter(tokens(text))) for index, start, end, text in spans]
    counted = [one for one in counted if one[-1]]
    usual = sum(one[-1].total() for one in counted) / len(counted) if counted else 1.0
    kind = kind_of(question)
    found: dict[frozenset[str], Sentence] = {}
    for index, start, end, text, counts in counted:
        title = title_tokens(passages[index].title, passages[index].headings)
        score = _words(counts, title, weights, usual) + _PASSAGE * passages[index].score
        score += _KIND * holds(kind, text, question) + (_ASKS if text.endswith(("?", "？")) else 0.0)
        key = frozenset(counts)
        if key not in found or found[key].score < score:
            found[key] = Sentence(index, start, end, text, key, score)
    return sorted(found.values(), key=lambda one: one.score, reverse=True)


def choose(ranked: Sequence[Sentence], cosines: Mapping[int, float], known: float, count: int) -> list[Sentence]:
    """The best `count` sentences that do not say the same; `cosines` by index in `ranked`, where there are any."""
    if cosines:
        pool = [(ranked[index].score + _DENSE * known * cosine, ranked[index]) for index, cosine in cosines.items()]
        pool.sort(key=lambda one: one[0], reverse=True)
        ranked = [sentence for _, sentence in pool]
    chosen: list[Sentence] = []
    for sentence in ranked:
        if len(chosen) == count:
            break
        if not any(_are_alike(sentence.tokens, other.tokens) for other in chosen):
            chosen.append(sentence)
    return chosen


def _spans(passages: Sequence[Passage]) -> list[tuple[int, int, int, str]]:
    return [
        (index, start, end, passage.text[start:end])
        for index, passage in enumerate(passages)
        for start, end in sentences(passage.text)
    ]


def _words(counts: Counter[str], title: frozenset[str], weights: Mapping[str, float], usual: float) -> float:
    total = sum(weights.values())
    if not total:
        return 0.0
    length = 1.2 * (1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * counts.total() / usual)
    lexical = sum(weights[token] * count / (count + length) for token, count in counts.items() if token in weights)
    covered = sum(weight for token, weight in weights.items() if token in counts or token in title)
    return (_LEXICAL * lexical + _COVERED * covered) / total


def _are_alike(one: frozenset[str], other: frozenset[str]) -> bool:
    return len(one & other) >= _ALIKE * min(len(one), len(other))


# ---------------------------------------------------------------- what kind of thing is asked for
_ASKS_NUMBER: Final = re.compile(
    r"\bhow (?:many|much|long|old|far|tall|often|large|big|high|fast|deep|wide|heavy)\b"
    r"|\b(?:what|which) (?:percent|percentage|number|population|length|amount|age|price|cost)\b"
    r"|多少|几|多[长長高大远遠久深宽寬重]|百分之"
)
_ASKS_DATE: Final = re.compile(
    r"\bwhen\b|\b(?:what|which) (?:[a-z]{1,20} )?(?:year|date|day|month|century|decade|time)s?\b"
    r"|哪一?[年天月日]|何时|何時|什么时[候间]|什麼時[候間]|时间|時間|年份|日期|何年|哪个(?:世纪|年代)"
)
_ASKS_NAME: Final = re.compile(
    r"\bwho(?:m|se)?\b|\bwhere\b"
    r"|\b(?:what|which) (?:[a-z]{1,20} )?"
    r"(?:person|city|country|state|place|town|region|continent|county|river|island)\b"
    r"|谁|誰|哪位|何人|什么人|哪里|哪裡|哪儿|何处|何地|什么地方|在哪"
)
_ASKS_REASON: Final = re.compile(r"\bwhy\b|为什么|為什麼|为何|為何|原因|何故")
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*|[零一二三四五六七八九十百千万萬亿億两兩]+(?=[\u4e00-\u9fff])")
_NUMBER_WORDS: Final = re.compile(
    r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundred|thousand"
    r"|million|billion|half|third|quarter|first|second|dozen|several|once|twice)\b"
)
_DATE: Final = re.compile(
    r"\b\d{3,4}\b|\d{1,4}[年月]|世纪|世紀|\bcentury\b"
    r"|\b(?:January|February|March|April|May|June|July|August|September|October|November|December)\b"
    r"|\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b|[周週]一|星期|\b\d{1,2}(?::\d\d| ?[ap]\.?m\b)"
)
_NAME: Final = re.compile(r"(?<=[\w,;:] )[A-Z][\w'’-]{0,40}")
_REASON: Final = re.compile(
    r"\b(?:because|due to|since|therefore|so that|in order to|as a result|reason|caused?|leads? to|led to)\b"
    r"|因为|因為|由于|由於|因此|所以|为了|為了|原因|导致|導致"
)


def kind_of(question: str) -> Kind:
    """What kind of thing the question asks for, where its words tell."""
    asked = question.lower()
    kinds: tuple[tuple[Kind, re.Pattern[str]], ...] = (
        ("number", _ASKS_NUMBER),
        ("date", _ASKS_DATE),
        ("name", _ASKS_NAME),
        ("reason", _ASKS_REASON),
    )
    return next((kind for kind, pattern in kinds if pattern.search(asked)), "")


def holds(kind: Kind, text: str, question: str) -> bool:
    """Whether a sentence holds a thing of that kind which the question does not hold itself."""
    if kind == "number":
        return _says_new(_NUMBER, text, question) or _says_new(_NUMBER_WORDS, text.lower(), question.lower())
    if kind == "date":
        return _says_new(_DATE, text, question)
    if kind == "name":
        return _says_new(_NAME, text, question)
    return kind == "reason" and _REASON.search(text.lower()) is not None


def _says_new(pattern: re.Pattern[str], text: str, question: str) -> bool:
    return any(found not in question for found in pattern.findall(text))
