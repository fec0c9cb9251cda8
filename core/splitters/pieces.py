"""Cuts sections into pieces: paragraphs, sentences, table rows, lines of code, and runs of words as a last resort."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from core.sentences import starts
from core.splitters.counting import LONE, TokenCounter
from core.types import Section

LONGEST_TOKEN = 16
"""A token is never taken for more characters than this: to BERT a word of a million letters is one unknown token."""

_PARAGRAPH_END = re.compile(r"\n[ \t\r]*\n\s*")
_TABLE_RULE = re.compile(r"(?=.*-)[\s|:+=-]+")
_ATOM = re.compile(rf"[{LONE}]\s*|[^\s{LONE}]+\s*|\s+")
_PAUSE = re.compile(r"(?:[,;:)|](?=\s)|[，；：、）\n])\s*")

Span = tuple[int, int]


class Piece(NamedTuple):
    """A stretch of one section that goes into a chunk as a whole."""

    section: int
    start: int
    end: int
    tokens: int
    """Those of `lead` included."""
    loose: bool = False
    """May be cut further to fill a chunk; others are cut only where they are longer than a chunk."""
    lead: str = ""
    """Line to put before it: a table's header row, or the heading of a small section that joined its neighbours."""


def measure(count: TokenCounter, text: str, *, enough: int | None = None) -> int:
    """The tokens of a text, for cutting it, and never fewer than a sixteenth of its characters.

    Any number above `enough` serves as well as the right one where that is above it too.
    """
    floor = len(text) // LONGEST_TOKEN
    if enough is not None and floor > enough:
        return floor
    return max(count(text), floor)


class Cutter:
    """Cuts the sections of one group; each piece begins where the one before it ends, so that no character is lost."""

    def __init__(self, sections: Sequence[Section], count: TokenCounter, size: int) -> None:
        self._sections = sections
        self._count = count
        self._size = size
        self._sentences: dict[tuple[int, int], list[Piece]] = {}

    def coarse(self) -> list[Piece]:
        """All sections in paragraphs, tables and blocks of code."""
        pieces = []
        for index, section in enumerate(self._sections):
            if section.kind == "text":
                pieces += self._paragraphs(index, section.text)
            else:
                pieces.append(Piece(index, 0, len(section.text), self._measure(section.text)))
        return pieces

    def _paragraphs(self, section: int, text: str) -> list[Piece]:
        """Each as long as its sentences together, which are measured now, since nearly all of them are asked for."""
        breaks = [0, *(match.end() for match in _PARAGRAPH_END.finditer(text))]
        # A paragraph begins a sentence, also after space that no sentence came before.
        begins = sorted({*starts(text), *(place for place in breaks if place < len(text))})
        ends = [*begins[1:], len(text)]
        texts = [text[start:end] for start, end in zip(begins, ends, strict=True)]
        sizes = map(max, self._count.each(texts), [len(one) // LONGEST_TOKEN for one in texts])
        sentences = [Piece(section, *each) for each in zip(begins, ends, sizes, strict=True)]
        pieces = []
        first = 0
        for start, end in _spans(breaks, len(text)):
            last = bisect_left(begins, end, first)
            inside = self._sentences[section, start] = sentences[first:last]
            pieces.append(Piece(section, start, end, sum([piece.tokens for piece in inside]), True))
            first = last
        return pieces

    def finer(self, piece: Piece) -> list[Piece]:
        """The piece cut one step finer; a piece that is not `loose` is cut into pieces that fit."""
        section = self._sections[piece.section]
        if section.kind != "text" and piece.tokens > self._size:
            return self._blocks(piece, _header_end(section) if section.kind == "table" else 0)
        if piece.loose:
            return self.sentences(piece)
        return self._runs(piece.section, piece.start, piece.end)

    def sentences(self, piece: Piece) -> list[Piece]:
        """Those of a whole paragraph."""
        return self._sentences[piece.section, piece.start]

    def is_prose(self, piece: Piece) -> bool:
        return self._sections[piece.section].kind == "text" and not piece.lead

    def _measure(self, text: str) -> int:
        return measure(self._count, text)

    def _blocks(self, piece: Piece, header_end: int) -> list[Piece]:
        """As many whole lines as fit, with the table's header row before each but the first."""
        text = self._sections[piece.section].text
        header = text[:header_end].rstrip()
        lead_tokens = self._measure(header)
        if lead_tokens > self._size // 3:
            header, lead_tokens = "", 0
        pieces: list[Piece] = []
        start, used, lead = piece.start, 0, ""
        for line_start, line_end in _lines(text, piece.start, piece.end):
            tokens = self._measure(text[line_start:line_end])
            if start < line_start and used + tokens > self._size:
                pieces.append(Piece(piece.section, start, line_start, used, lead=lead))
                start, used, lead = line_start, lead_tokens, header
            if used + tokens > self._size:
                pieces += self._runs(piece.section, start, line_end)
                start, used, lead = line_end, lead_tokens, header
            else:
                used += tokens
        if start < piece.end:
            pieces.append(Piece(piece.section, start, piece.end, used, lead=lead))
        return pieces

    def _runs(self, section: int, start: int, end: int) -> list[Piece]:
        """As many clauses as fit; a clause that does not fit is cut between words."""
        text = self._sections[section].text
        pieces: list[Piece] = []
        used = 0
        for first, _, tokens in self._clauses(text, start, end):
            if used and used + tokens > self._size:
                pieces.append(Piece(section, start, first, used))
                start, used = first, 0
            used += tokens
        if start < end:
            pieces.append(Piece(section, start, end, used))
        return pieces

    def _clauses(self, text: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(start, end, tokens) of clauses, and of words where a clause does not fit."""
        ends = [match.end() for match in _PAUSE.finditer(text, start, end)]
        for first, last in _spans([start, *(stop for stop in ends if stop < end)], end):
            tokens = self._measure(text[first:last])
            if tokens <= self._size:
                yield first, last, tokens
                continue
            yield from self._words(text, first, last)

    def _words(self, text: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(start, end, tokens) of words and lone characters, with the space behind them.

        A word longer than a chunk is cut, and each part fills a chunk: parts of a word count otherwise than the whole.
        """
        for match in _ATOM.finditer(text, start, end):
            first, last = match.span()
            tokens = self._measure(match.group())
            if tokens <= self._size:
                yield first, last, tokens
                continue
            width = (last - first) // 2
            while first < last:
                while width > 1 and self._measure(text[first : first + width]) > self._size:
                    width //= 2
                yield first, min(first + width, last), self._size
                first += width


def _spans(starts: Sequence[int], end: int) -> Iterable[Span]:
    return zip(starts, [*starts[1:], end], strict=True)


def _lines(text: str, start: int, end: int) -> Iterator[Span]:
    while start < end:
        found = text.find("\n", start, end)
        stop = end if found < 0 else found + 1
        yield start, stop
        start = stop


def _header_end(section: Section) -> int:
    """Where the header row ends, the rule below it included."""
    lines = list(_lines(section.text, 0, len(section.text)))[:2]
    if len(lines) == 2 and _TABLE_RULE.fullmatch(section.text[slice(*lines[1])]):
        return lines[1][1]
    return lines[0][1]
