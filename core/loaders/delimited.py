"""CSV and TSV, whatever their delimiter: bounded in every direction, and never an error for one bad row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from core.loaders.decoding import clean, decode
from core.loaders.options import Options, sentence
from core.loaders.rows import MAX_CELL, RowReader
from core.types import Parsed

MAX_LINE: Final = 1_000_000
MAX_FIELD: Final = 1_000_000
_DELIMITERS: Final = ",;\t|"
_SAMPLE_LINES: Final = 20
_MAX_CELL_LINES: Final = 100
"""Lines of a very long cell above which it is taken for many rows behind a stray quotation mark."""


class DelimitedLoader:
    def __init__(self, options: Options) -> None:
        self._limit = options.limit

    def load(self, data: bytes, name: str) -> Parsed:
        text, notes = decode(data)
        text = clean(text)
        reader = RowReader("rows", "", self._limit)
        delimiter = _delimiter(text)
        before = csv.field_size_limit(MAX_FIELD)
        try:
            reader.read(_rows(text, delimiter, csv.QUOTE_MINIMAL, reader.notes))
        except csv.Error:  # a huge field, or a quote that is never closed and swallows the rest: quotes mean nothing
            reader = RowReader("rows", "", self._limit)
            if '"' in text:
                reader.notes["quotes"] = sentence("note_quotes")
            reader.read(_rows(text, delimiter, csv.QUOTE_NONE, reader.notes))
        finally:
            csv.field_size_limit(before)
        return Parsed(tuple(reader.sections), notes=notes + tuple(reader.notes.values()))


def _rows(
    text: str, delimiter: str, quoting: Literal[0, 3], notes: dict[str, str]
) -> Iterator[tuple[int, Sequence[str]]]:
    rows = csv.reader(_lines(text, notes), delimiter=delimiter, quoting=quoting)
    for number, row in enumerate(rows, 1):
        if max(map(len, row), default=0) > MAX_CELL and any(cell.count("\n") > _MAX_CELL_LINES for cell in row):
            raise csv.Error("a quotation mark is never closed")
        yield number, row


def _lines(text: str, notes: dict[str, str]) -> Iterator[str]:
    """Lines with their ends, each cut at MAX_LINE with a note; the text itself is not copied."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end + 1
        if end - start > MAX_LINE:
            notes["lines"] = sentence("note_lines", count=f"{MAX_LINE:,}")
        yield text[start : min(end, start + MAX_LINE)]
        start = end


def _delimiter(text: str) -> str:
    """The delimiter that cuts the first lines into the same number of fields, and the most of these."""
    lines = text[:50_000].split("\n")[:_SAMPLE_LINES]
    lines = [line for line in (lines[:-1] if len(lines) > 1 else lines) if line.strip()]
    best, best_score = ",", 0.0
    for delimiter in _DELIMITERS:
        counts = [_outside_quotes(line).count(delimiter) for line in lines]
        most = max(set(counts), key=counts.count, default=0)
        score = most and counts.count(most) / len(counts) + min(most, 100) / 1000
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _outside_quotes(line: str) -> str:
    return "".join(line.split('"')[::2])
