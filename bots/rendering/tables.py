"""A table as lines of equal-width text, for places that have no tables. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len

from bots.rendering.blocks import HARD_BREAK, Runs

_WIDEST: Final = 40
"""Cells to which a column is filled up; what is longer stands out, so that one long cell does not widen every row."""


def aligned(rows: Sequence[Sequence[Runs]]) -> list[str]:
    """The rows, their columns under each other also where letters are two cells wide; a line under the first."""
    texts = [[_text(cell) for cell in row] for row in rows]
    columns = max((len(row) for row in texts), default=0)
    widths = [
        min(_WIDEST, max((cell_len(row[column]) for row in texts if column < len(row)), default=0))
        for column in range(columns)
    ]
    lines = [_line(row, widths) for row in texts]
    return [lines[0], "─┼─".join("─" * width for width in widths), *lines[1:]] if lines else []


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    filled = (text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=False))
    return " │ ".join(filled).rstrip()


def _text(cell: Runs) -> str:
    """The words, with the address behind those of a link."""
    said: list[str] = []
    for at, run in enumerate(cell):
        said.append(run.text)
        ends = at + 1 == len(cell) or cell[at + 1].url != run.url
        if run.url and ends and run.text != run.url:
            said.append(f" ({run.url})")
    return " ".join("".join(said).replace(HARD_BREAK, " ").split())
