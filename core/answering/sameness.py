"""Whether two questions are the same. Pure functions.

A wrong answer given as a person's own is worse than none, so everything that tells two questions apart refuses: what
kind of thing is asked for (a place, a time, a way, …), numbers and names with digits, a «not», a direction («from A to
B»), and every word of one that the other lacks, unless it says next to nothing. Vectors are left out on purpose: to
the default embedder «Who is the deputy of the officer?» and «When does it close?» are nearer to the questions they
must be told from than most paraphrases are. `python -m bench.curated` measures the rule.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from core.analyzer import FUNCTION_WORDS, is_unspaced, tokens
from core.answering import asking

_ENDS: Final = " \t.,;:!?\"'`*_“”‘’«»()[]{}…。，、；：？！《》「」『』（）【】¿¡~～"
_FIRST: Final = re.compile(
    r"^(?:(?:hi|hello|hey|dear|please|pls|excuse me|ok|okay|so|um)\b[\s,!.:]*"
    r"|(?:您好|你好|嗨|喂|请问一下|请问|請問|麻烦问一下)[\s，,！!。.：:]*)+",
    re.IGNORECASE,
)
_LAST: Final = re.compile(
    r"(?<![\s,.!?，。！？])"
    r"(?:[\s,.!?，。！？]*+(?:\b(?:please|pls|thanks|thank you|thx|kvasir)\b|谢谢您|谢谢|謝謝|多谢))++[\s.!?。！？]*+$",
    re.IGNORECASE,
)
_WIDE: Final = re.compile("[、。，；：？！“”‘’…《》「」『』【】（）]+")
_LONGEST: Final = 400
"""Characters of a question that is compared beyond being equal; what is longer is a story."""


def normalised(question: str) -> str:
    """The question without what makes no difference: case, width, blanks, marks at the ends of words, politeness."""
    text = unicodedata.normalize("NFKC", _WIDE.sub(" ", question)).strip()
    text = _LAST.sub("", _FIRST.sub("", text)) or text
    words = [word.strip(_ENDS) for word in text.casefold().split()]
    joined = ""
    for word in filter(None, words):
        between = " " if joined and not (is_unspaced(joined[-1]) or is_unspaced(word[0])) else ""
        joined += between + word
    return joined


@dataclass(frozen=True)
class Asked:
    """A question as it is compared with others."""

    text: str

    @cached_property
    def normal(self) -> str:
        return normalised(self.text)

    @cached_property
    def is_comparable(self) -> bool:
        """Whether it may be the same as a question in other words."""
        return len(self.text) <= _LONGEST and bool(self.content)

    @cached_property
    def plain(self) -> str:
        text = self.normal
        for pattern, put in asking.SAYING_THE_SAME:
            text = pattern.sub(put, text)
        return text

    @cached_property
    def _is_unspaced(self) -> bool:
        return is_unspaced(self.normal)

    @cached_property
    def _kind(self) -> tuple[str, tuple[int, int]]:
        """What is asked for, and where the words stand that say so."""
        patterns = asking.CHINESE if self._is_unspaced else asking.ENGLISH
        found = [(match.start(), order, name, match.span()) for order, (name, pattern) in enumerate(patterns)
                 if (match := pattern.search(self.plain))]  # fmt: skip
        if not found:
            return "", (0, 0)
        _, _, name, span = (
            min(found, key=lambda one: one[:2]) if not self._is_unspaced else min(found, key=lambda one: one[1])
        )
        if name == "when" and self._is_unspaced and asking.DEADLINE.search(self.plain):
            name = "deadline"
        return name, span

    @property
    def kind(self) -> str:
        return asking.EQUAL_KINDS.get(self._kind[0], self._kind[0])

    @cached_property
    def content(self) -> frozenset[str]:
        """What it is about, as search tokens."""
        start, end = self._kind[1]
        name = self._kind[0]
        words = self.plain if name == "cost" else f"{self.plain[:start]} {self.plain[end:]}"
        if self._is_unspaced:
            if name in asking.LIGHT_CHINESE_FOR:
                words = asking.LIGHT_CHINESE_FOR[name].sub(" ", words)
            words = asking.LIGHT_CHINESE.sub(" ", asking.EITHER.sub(" ", words))
            return frozenset(token for token in tokens(words) if len(token) == 1 or token.isascii())
        light = asking.LIGHT | asking.LIGHT_FOR.get(name, frozenset())
        if name == "duration":
            words = asking.UNIT_ASKED.sub(" ", words, count=1)
        return frozenset(tokens(words)) - FUNCTION_WORDS - light

    @cached_property
    def marks(self) -> tuple[object, ...]:
        """What must be equal: what is asked for, numbers and names with digits, a «not», and other people."""
        text = self.plain
        if self._is_unspaced:
            denied = bool(asking.NOT_CHINESE.search(asking.EITHER.sub(" ", text)))
            numbers = [*asking.NUMBERED.findall(text), *asking.CHINESE_NUMBERS.findall(text)]
            latin = sorted(set(re.findall(r"[a-z][a-z\d+#.-]*", text)))
            return self.kind, tuple(sorted(numbers)), denied, tuple(latin)
        numbers, others = asking.NUMBERED.findall(text), set(asking.OTHERS.findall(text))
        return self.kind, tuple(sorted(numbers)), bool(asking.NOT.search(text)), tuple(sorted(others))

    @cached_property
    def sides(self) -> tuple[int, ...]:
        """Of each pair of opposites: 1 where the first is said, 2 where the second is, 3 where both are, 0: neither."""
        found = []
        for first, second in asking.OPPOSITES:
            found.append(bool(re.search(first, self.plain)) + 2 * bool(re.search(second, self.plain)))
        return tuple(found)

    @cached_property
    def directions(self) -> Mapping[str, str]:
        pattern = asking.TOWARDS_CHINESE if self._is_unspaced else asking.TOWARDS
        return dict(pattern.findall(self.plain))


def same(one: Asked, other: Asked) -> bool:
    """Whether they ask the same in other words; both must be comparable."""
    if one.marks != other.marks or one.content != other.content:
        return False
    if _are_opposed(one, other):
        return False
    for word in one.directions.keys() & other.directions.keys():
        thing, thing_there = one.directions[word], other.directions[word]
        if thing != thing_there and _is_first(thing, thing_there, one) is not _is_first(thing, thing_there, other):
            return False  # the same things, the other way round
    return True


def _are_opposed(one: Asked, other: Asked) -> bool:
    """Whether they say opposite things of who, may or must, and when."""
    if one.kind in asking.NOT_OPPOSED:
        return False
    sides = zip(one.sides, other.sides, strict=True)
    return any({here, there} == {1, 2} for here, there in sides)


def _is_first(thing: str, other: str, asked: Asked) -> bool | None:
    """Whether one thing is named before the other; None where not both are."""
    at, behind = asked.plain.find(thing), asked.plain.find(other)
    return at < behind if min(at, behind) >= 0 else None
