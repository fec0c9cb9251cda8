"""Packs pieces into chunks of nearly equal size, with an overlap of whole sentences."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from core.splitters.pieces import Cutter, Piece
from core.types import Locator, Section

_COUNTED = ("lines", "rows", "sheet")
"""Locators that number the lines of a section, where it has as many lines as numbers."""
_LINE_END = re.compile("\n")
_UNFINISHED_IF_NOT = (".", "!", "?", "。", "！", "？", ":", "：", "…", '"', "”", "|", "```")


def pack(cutter: Cutter, size: int, overlap: int) -> Iterator[list[Piece]]:
    """The pieces of one chunk after the other, none with more than `size` tokens."""
    waiting = cutter.coarse()
    waiting.reverse()
    left = sum(piece.tokens for piece in waiting)
    wanted = even_size(left, size, overlap)
    current: list[Piece] = []
    used = 0
    is_new = False
    while waiting:
        piece = waiting.pop()
        if used + piece.tokens <= wanted or (not current and piece.tokens <= size):
            current.append(piece)
            used += piece.tokens
            left -= piece.tokens
            is_new = True
        elif piece.tokens > size or (piece.loose and used < wanted // 2):
            parts = cutter.finer(piece)
            left += sum(part.tokens for part in parts) - piece.tokens
            waiting.extend(reversed(parts))
        elif is_new:
            yield current
            current = _tail(cutter, current, overlap)
            used = sum(part.tokens for part in current)
            wanted = even_size(used + left, size, overlap)
            is_new = False
            waiting.append(piece)
        else:
            used -= current.pop(0).tokens
            waiting.append(piece)
    if is_new:
        yield current


def render(sections: Sequence[Section], pieces: Sequence[Piece]) -> tuple[str, Locator]:
    """The text of a chunk made of these pieces, and where it stands."""
    text = ""
    locator: Locator | None = None
    for number, start, end, lead in _joined(pieces):
        section = sections[number]
        part = section.text[start:end]
        part = part.strip() if section.kind == "text" else part.strip("\r\n").rstrip()
        if not part:
            continue
        if lead:
            part = f"{lead}\n{part}"
        text = f"{text}{_gap(text)}{part}" if text else part
        where = _place(section, start, end)
        locator = where if locator is None else _span(locator, where)
    return text, locator or Locator()


def even_size(total: int, size: int, overlap: int) -> int:
    """The size at which the last chunk is about as long as the others."""
    if total <= size:
        return size
    slack = size // 12  # pieces seldom fill a chunk to the brim
    chunks = -(-(total - overlap) // (size - slack - overlap))
    return min(size, -(-(total + (chunks - 1) * overlap) // chunks) + slack)


def _tail(cutter: Cutter, pieces: list[Piece], overlap: int) -> list[Piece]:
    """The last whole sentences of a chunk that has more than these, `overlap` tokens at most."""
    if sum(piece.tokens for piece in pieces) <= overlap:
        return []
    tail: list[Piece] = []
    waiting = list(pieces)
    while waiting:
        piece = waiting.pop()
        if not cutter.is_prose(piece):
            break
        if piece.tokens <= overlap:
            tail.insert(0, piece)
            overlap -= piece.tokens
        elif piece.loose:
            waiting = cutter.sentences(piece)
        else:
            break
    return tail


def _joined(pieces: Sequence[Piece]) -> list[tuple[int, int, int, str]]:
    """(section, start, end, lead), neighbours in one section as one; a header row is not repeated inside a chunk."""
    joined: list[tuple[int, int, int, str]] = []
    at = -1
    for section, start, end, _, _, lead in pieces:
        if joined and section == joined[-1][0] and start == at:
            joined[-1] = (section, joined[-1][1], end, joined[-1][3])
        else:
            joined.append((section, start, end, lead))
        at = end
    return joined


def _gap(text: str) -> str:
    """A blank line, or one line end where a page broke a sentence."""
    return "\n\n" if text.endswith(_UNFINISHED_IF_NOT) else "\n"


class Lines:
    """Tells where stretches of one section stand."""

    def __init__(self, section: Section) -> None:
        self._place = section.locator.first, section.locator.last
        first = _first_line(section)
        self._first = first or 0
        self._ends = [] if first is None else [match.start() for match in _LINE_END.finditer(section.text)]

    def between(self, start: int, stop: int) -> tuple[int | None, int | None]:
        """The numbers of the locator of what begins and ends there, without white space around it."""
        if not self._ends:
            return self._place
        return self._first + bisect_left(self._ends, start), self._first + bisect_left(self._ends, stop)


def _first_line(section: Section) -> int | None:
    """Its number; None where the locator does not number lines."""
    where = section.locator
    if where.kind not in _COUNTED or where.first is None or where.last is None:
        return None
    return where.first if _line_ends(section.text) == where.last - where.first else None


def _place(section: Section, start: int, end: int) -> Locator:
    where = section.locator
    text = section.text
    number = _first_line(section)
    if number is None or (start == 0 and end == len(text)):
        return where
    while text[start] in "\r\n":
        start += 1
    first = number + text.count("\n", 0, start)
    return Locator(where.kind, where.label, first, first + text[start:end].rstrip().count("\n"))


@lru_cache(maxsize=4)
def _line_ends(text: str) -> int:
    """Asked once for each chunk of a section."""
    return text.rstrip("\n").count("\n")


def _span(one: Locator, other: Locator) -> Locator:
    if (one.kind, one.label) != (other.kind, other.label):
        return one
    numbers = [number for number in (one.first, one.last, other.first, other.last) if number is not None]
    if not numbers:
        return one
    last = max(numbers)
    return replace(one, first=min(numbers), last=last if last > min(numbers) or one.last is not None else None)
