"""The fast way for prose in plain ASCII, which most English text is: every word is looked at once, and what it says
(its tokens for the embedder and for the search, whether a sentence may end with it) is remembered for the next time.

`read` and `pack` give what `pieces.Cutter`, `packing.pack` and `analyzer.token_text` give for such a text, to the
character; anything else is left to those.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from operator import sub
from typing import Final, TypeAlias

from core.analyzer import ascii_word_text, term_hasher, terms
from core.sentences import LINE_END, can_end, ends_at_line, ends_at_word
from core.splitters.counting import TokenCounter
from core.splitters.packing import even_size
from core.splitters.pieces import LONGEST_TOKEN

_ODD: Final = "\t\r\x0b\x0c\x1c\x1d\x1e\x1f"
"""White space that is neither a blank nor a line's end."""
_SURE: Final = re.compile("[eE](?=[NEL])")
_UNSURE: Final = re.compile("[eElLO](?:(?<=[lLO])|(?=[oO]))")
"""Ends of sentences, and what may be one, in the string of the words' sorts (`core.sentences.can_end`)."""
_KEPT: Final = 40_000
_LONGEST_KEPT: Final = 24
_TOKENS: Final = 32
_ALL_TOKENS: Final = (1 << _TOKENS) - 1

_BLANK: Final = 1 << _TOKENS
"""An empty word: what stands between two blanks or line ends."""
_LONGEST: Final = _TOKENS + LONGEST_TOKEN.bit_length() - 1

_MARKS: Final = ",;:.!?)"
_DIGITS: Final = "0123456789"
_NAME: Final = re.compile("[A-Z]?[a-z]{2,20}")
_NUMBER: Final = range(5, 21)
"""Digits of a long number; a name, such a number and perhaps marks are a word as `item471147.`"""

_Word: TypeAlias = tuple[int, str, str, bytes]
"""Its width with the blank behind it, and in the 32 bits below that its tokens as the embedder counts; its sort; and
its search tokens with a space before each, and their terms."""
_Numbered: TypeAlias = tuple[Callable[[str], int], str, str, bytes, str, blake2b]
"""What words of a name and a long number have in common: what counts the embedder's tokens by the digits; their sort;
token and terms of the name alone; and the name as the word's own token has it, with the hasher of its term."""
_NOTHING: Final = term_hasher("")


class Words(dict[str, _Word]):
    """What is known of words, filled as they are asked for, and emptied before it grows without end."""

    def __init__(self, count: TokenCounter) -> None:
        super().__init__()
        self._count = count
        self._names: dict[tuple[str, str], _Numbered] = {}
        """By name, and the marks at the word's end."""

    def __missing__(self, word: str) -> _Word:
        core = word.rstrip(_MARKS)
        name = core.rstrip(_DIGITS)
        number = core[len(name) :]
        if len(number) in _NUMBER and (like := self._like(name, word[len(core) :])):
            count, sort, stem, stem_term, start, named = like
            digits = number.encode()
            alone, whole = _NOTHING.copy(), named.copy()
            alone.update(digits)
            whole.update(digits)
            size = ((len(word) + 1) << _TOKENS) + count(number)
            # too many to be kept
            return size, sort, f"{stem} {number} {start}{number}", stem_term + alone.digest() + whole.digest()
        tokens = ascii_word_text(word)
        size = ((len(word) + 1) << _TOKENS) + self._count.word(word)
        found = (size, can_end(word), tokens, terms(tokens))
        if len(word) <= _LONGEST_KEPT:
            if len(self) >= _KEPT:
                self.clear()
            self[word] = found
        return found

    def _like(self, name: str, end: str) -> _Numbered | None:
        """None where this is no name, or the marks behind it are too many."""
        key = (name, end)
        if like := self._names.get(key):
            return like
        if not _NAME.fullmatch(name) or len(end) > _LONGEST_KEPT:
            return None
        stem = ascii_word_text(name)
        start = name.lower()
        sort = can_end(f"{name}00000{end}")
        like = self._count.numbered(name, end), sort, stem, terms(stem), start, term_hasher(start)
        if len(self._names) >= _KEPT:
            self._names.clear()
        self._names[key] = like
        return like


@dataclass(frozen=True, slots=True)
class Prose:
    """A text as sentences, each with the white space behind it."""

    begins: Sequence[int]
    """Where each sentence starts, and at last the text's length."""
    words: Sequence[int]
    """The same, counted in words."""
    sizes: Sequence[int]
    """Tokens of each sentence, as the embedder counts."""
    paragraphs: Sequence[int]
    """The sentence behind each paragraph."""
    tokens: Sequence[str]
    """Search tokens of each word, with a space before each."""
    terms: Sequence[bytes]
    """The same as `analyzer.terms`."""


def read(text: str, count: TokenCounter, words: Words) -> Prose | None:
    """None where the text needs the closer look of `Cutter`."""
    if text[:1].isspace() or text[-1:].isspace() or any(map(text.__contains__, _ODD)) or not count.is_sum(text):
        return None
    sizes, sorts, tokens, hashes = zip(*map(words.__getitem__, text.replace("\n", " ").split(" ")), strict=True)
    sums = [0, *accumulate(sizes)]
    found, paragraphs = _begins(text, "".join(sorts), sums)
    firsts = sorted({0, *found, *paragraphs})
    firsts.append(len(sizes))
    at = [sums[first] for first in firsts]
    at[-1] -= _BLANK  # no blank behind the last word
    lengths = [max(one & _ALL_TOKENS, one >> _LONGEST) for one in map(sub, at[1:], at)]
    begins = [one >> _TOKENS for one in at]
    stops = [bisect_left(firsts, word) for word in (*paragraphs, len(sizes))]
    return Prose(begins, firsts, lengths, stops, tokens, hashes)


def _begins(text: str, sorts: str, sums: Sequence[int]) -> tuple[list[int], list[int]]:
    """The words that begin sentences, and those that begin paragraphs but for the first."""
    found = [match.end() for match in _SURE.finditer(sorts)]
    unsure = [match.start() for match in _UNSURE.finditer(sorts)]
    if "\n" not in text:
        return found + _looked_at(text, unsure, sums), []
    lines, paragraphs, beside = _lines(text, sums)
    known = {*lines, *paragraphs}
    if not beside.isdisjoint(found):
        unsure += [word - 1 for word in found if word in beside and word not in known]
        found = [word for word in found if word not in beside]
    unsure = [word for word in unsure if not (word + 2 in known and sums[word + 2] - sums[word + 1] == _BLANK)]
    return found + lines + _looked_at(text, unsure, sums), paragraphs


def _looked_at(text: str, words: Iterable[int], sums: Sequence[int]) -> list[int]:
    """The words that begin a sentence because one of these ends one."""
    found = []
    for word in words:
        start, behind = sums[word] >> _TOKENS, sums[word + 1] >> _TOKENS
        if ends_at_word(text, start, behind - 1):
            while behind < len(text) and text[behind] in " \n":
                behind += 1
            if behind < len(text):
                found.append(_word_at(sums, behind))
    return found


def _word_at(sums: Sequence[int], offset: int) -> int:
    """The first word that starts there or behind."""
    return bisect_left(sums, offset << _TOKENS)


def _lines(text: str, sums: Sequence[int]) -> tuple[list[int], list[int], set[int]]:
    """The words that begin sentences on new lines, those that begin paragraphs, and those of which it must be looked at
    whether they begin one too: the first of other lines, and the second of all."""
    found: list[int] = []
    paragraphs: list[int] = []
    beside: set[int] = set()
    line = 0
    for match in LINE_END.finditer(text):
        start, behind = match.span()
        word = _word_at(sums, behind)
        if behind - start > 1 and match.group().count("\n") > 1:
            paragraphs.append(word)
        elif ends_at_line(text, line, match):
            found.append(word)
        beside.add(word)
        beside.add(word + 1)
        line = behind
    return found, paragraphs, beside


def pack(prose: Prose, size: int, overlap: int) -> Iterator[tuple[int, int]] | None:
    """The first sentence of each chunk and the one behind its last; None where a sentence is longer than a chunk."""
    return None if max(prose.sizes) > size else _packed(prose, size, overlap)


def _packed(prose: Prose, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """As `packing.pack`: paragraphs while they fit, else sentences; a chunk begins with the last ones before it."""
    sums = [0, *accumulate(prose.sizes)]
    total, behind_last = sums[-1], len(prose.sizes)
    paragraphs = iter(prose.paragraphs)
    paragraph = next(paragraphs)
    pieces: list[int] = []
    """The first sentence of each piece of the chunk that is being filled."""
    at = used = 0
    is_whole, is_new = True, False
    wanted = even_size(total, size, overlap)
    while at < behind_last:
        stop = paragraph if is_whole else at + 1
        tokens = sums[stop] - sums[at]
        if used + tokens <= wanted or (not pieces and tokens <= size):
            pieces.append(at)
            used += tokens
            at = stop
            is_new = True
            if at == paragraph:
                paragraph = next(paragraphs, behind_last)
                is_whole = True
        elif is_whole and (tokens > size or used < wanted // 2):
            is_whole = False
        elif is_new:
            yield pieces[0], at
            pieces = _tail(pieces, at, sums, overlap)
            used = sums[at] - sums[pieces[0]] if pieces else 0
            wanted = even_size(used + total - sums[at], size, overlap)
            is_new = False
        else:
            gone = pieces.pop(0)
            used -= sums[pieces[0] if pieces else at] - sums[gone]
    if is_new:
        yield pieces[0], at


def _tail(pieces: Sequence[int], at: int, sums: Sequence[int], overlap: int) -> list[int]:
    """The last sentences before `at` that an overlap has room for, in the pieces they came in; not all of them."""
    least = sums[at] - overlap
    if sums[pieces[0]] >= least:
        return []
    first = bisect_left(sums, least, pieces[0], at)
    whole = bisect_left(pieces, first)
    return [*range(first, pieces[whole] if whole < len(pieces) else at), *pieces[whole:]]
