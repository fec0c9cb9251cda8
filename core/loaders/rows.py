"""Rows of a table file as lines that stand for themselves: `Product: Lamp; Price: 12; In stock: yes`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from core.loaders.options import sentence
from core.types import Locator, Section

MAX_COLUMNS: Final = 500
MAX_CELL: Final = 10_000
_BLOCK_ROWS: Final = 1000
_BLOCK_CHARACTERS: Final = 100_000
_SEARCHED: Final = 10
"""Rows among which the header is looked for: titles often stand above it."""


class RowReader:
    """Give it rows with their numbers, and take sections of neighbouring rows."""

    def __init__(self, kind: Literal["rows", "sheet"], label: str, limit: int) -> None:
        self.sections: list[Section] = []
        self.notes: dict[str, str] = {}
        self.characters = 0
        self._kind: Literal["rows", "sheet"] = kind
        self._label, self._limit = label, limit
        self._header: list[str] | None = None
        self._lines: list[str] = []
        self._first = self._last = 0
        self._size = 0

    def read(self, rows: Iterable[tuple[int, Sequence[str]]]) -> None:
        """Take rows until the limit of characters is reached."""
        waiting: list[tuple[int, list[str]]] = []
        is_open = True
        for number, row in rows:
            cells = self._bounded(row)
            if not any(cells):
                continue
            if is_open:
                waiting.append((number, cells))
                is_open = len(waiting) < _SEARCHED
                if not is_open:
                    self._begin(waiting)
                continue
            self._put(number, cells)
            if self.characters > self._limit:
                break
        if is_open:
            self._begin(waiting)
        self._flush()

    def _begin(self, rows: list[tuple[int, list[str]]]) -> None:
        """Find the header among the first rows, and take these."""
        at = next((index for index, (_, cells) in enumerate(rows) if sum(map(bool, cells)) > 1), None)
        if at is not None and at + 1 < len(rows) and _is_header(rows[at][1], rows[at + 1][1]):
            self._header = rows[at][1]
        for index, (number, cells) in enumerate(rows):
            if index == at and self._header is not None:
                self._flush()
                continue
            self._put(number, cells, with_header=at is not None and index > at)

    def _put(self, number: int, cells: list[str], *, with_header: bool = True) -> None:
        header = self._header if with_header else None
        line = _line(cells, header)
        if self._lines and (
            number != self._last + 1 or len(self._lines) >= _BLOCK_ROWS or self._size > _BLOCK_CHARACTERS
        ):
            self._flush()
        if not self._lines:
            self._first = number
        self._lines.append(line)
        self._last = number
        self._size += len(line)
        self.characters += len(line)

    def _flush(self) -> None:
        """Sections are kept like code: cut between lines only, so that each row stays whole and keeps its number."""
        if self._lines:
            headings = (self._label,) if self._label else ()
            where = Locator(self._kind, self._label, self._first, self._last)
            self.sections.append(Section("\n".join(self._lines), "code", headings, where))
        self._lines, self._size = [], 0

    def _bounded(self, row: Sequence[str]) -> list[str]:
        if len(row) > MAX_COLUMNS:
            self.notes["columns"] = sentence("note_columns", count=MAX_COLUMNS)
        cells = []
        for cell in row[:MAX_COLUMNS]:
            if len(cell) > MAX_CELL:
                self.notes["cells"] = sentence("note_cells", count=f"{MAX_CELL:,}")
            cells.append(" ".join(cell[:MAX_CELL].split()))
        return cells


def _is_header(cells: Sequence[str], following: Sequence[str]) -> bool:
    """Names, each another, no numbers, and about as many as the next row has cells."""
    names = [cell for cell in cells if cell]
    return (
        len(set(names)) == len(names)
        and all(len(name) <= 80 and not _is_number(name) for name in names)
        and sum(map(bool, following)) <= len(names) + 1
    )


def _is_number(text: str) -> bool:
    return any(char.isdigit() for char in text) and not any(char.isalpha() for char in text)


def _line(cells: Sequence[str], header: Sequence[str] | None) -> str:
    if header is None:
        return " | ".join(cell for cell in cells if cell)
    named = []
    for index, cell in enumerate(cells):
        if cell:
            name = header[index] if index < len(header) else ""
            named.append(f"{name}: {cell}" if name else cell)
    return "; ".join(named)
