"""Collects what a loader meets on its way through a document into sections under their headings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from core.types import Locator, Section

MAX_HEADING: Final = 300
"""Characters of a heading; what is longer was a paragraph in a heading's style."""


class Outline:
    """Tell it headings, paragraphs, tables and code in reading order, and take `sections()` at the end."""

    def __init__(self, locator: Locator | None = None, headings: Sequence[str] = ()) -> None:
        self._base = tuple(headings)
        self._path: list[tuple[int, str]] = []
        self._paragraphs: list[str] = []
        self._sections: list[Section] = []
        self._bare: Locator | None = None
        """Where the last heading stands, while nothing stands under it."""
        self._in_list = False
        self._locator = locator or Locator()
        self.characters = 0
        """How much text it has taken."""

    def at(self, locator: Locator) -> None:
        """What follows stands there."""
        if locator != self._locator:
            self._flush()
            self._locator = locator

    def heading(self, level: int, text: str) -> None:
        text = " ".join(text.split())
        if not text:
            return
        if len(text) > MAX_HEADING:
            self.paragraph(text)
            return
        self._flush()
        self._close(level)
        self._path.append((level, text))
        self._bare = self._locator
        self.characters += len(text)

    def lengthen(self, text: str) -> None:
        """The heading just told goes on in another line."""
        if self._bare and self._path:
            level, before = self._path[-1]
            self._path[-1] = level, f"{before} {text}"[:MAX_HEADING]

    def leave(self, level: int) -> None:
        """What follows is no longer under the headings of `level` and below."""
        if self._path and self._path[-1][0] >= level:
            self._flush()
            self._close(level)

    def paragraph(self, text: str) -> None:
        text = text.strip()
        if text:
            self._paragraphs.append(text)
            self._in_list = False
            self.characters += len(text)

    def item(self, text: str) -> None:
        """An item of a list; neighbours stay in one paragraph, a line each."""
        text = text.strip()
        if not text:
            return
        if self._in_list and self._paragraphs:
            self._paragraphs[-1] += f"\n- {text}"
        else:
            self._paragraphs.append(f"- {text}")
        self._in_list = True
        self.characters += len(text)

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """A table, its first row the header, kept as Markdown."""
        text = table_text(rows)
        if text:
            self._add(text, "table")

    def code(self, text: str) -> None:
        text = text.strip("\n")
        if text.strip():
            self._add(text, "code")

    def sections(self) -> tuple[Section, ...]:
        self._flush()
        self._close(0)
        return tuple(self._sections)

    @property
    def headings(self) -> tuple[str, ...]:
        return self._base + tuple(text for _, text in self._path)

    def _add(self, text: str, kind: Literal["text", "table", "code"]) -> None:
        self._flush()
        self._put(text, kind)
        self.characters += len(text)

    def _put(self, text: str, kind: Literal["text", "table", "code"], locator: Locator | None = None) -> None:
        self._sections.append(Section(text, kind, self.headings, locator or self._locator))
        self._bare = None

    def _flush(self) -> None:
        if self._paragraphs:
            self._put("\n\n".join(self._paragraphs), "text")
            self._paragraphs = []
            self._in_list = False

    def _close(self, level: int) -> None:
        """Leave the headings that one of `level` ends; a heading with nothing under it is text itself."""
        if self._bare and self._path and self._path[-1][0] >= level:
            self._put(self._path[-1][1], "text", self._bare)
        self._bare = None
        while self._path and self._path[-1][0] >= level:
            self._path.pop()


def table_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table, the first as its header; empty where no cell has text."""
    lines = [[_cell(cell) for cell in row] for row in rows]
    lines = [line for line in lines if any(line)]
    width = max(map(len, lines), default=0)
    if not width:
        return ""
    if width == 1:
        return "\n".join(line[0] for line in lines)
    drawn = [f"| {' | '.join(line + [''] * (width - len(line)))} |" for line in lines]
    drawn.insert(1, "|" + " --- |" * width)
    return "\n".join(drawn)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
