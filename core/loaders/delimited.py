"""CSV and TSV, whatever their delimiter: bounded in every direction, and never an error for one bad row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from core.loaders.decoding import clean, decode
from core.loaders.options import Options, sentence
from core.loaders.rows import RowReader
from core.types import Parsed

MAX_LINE: Final = 4_000_000
MAX_FIELD: Final = 1_000_000
_DELIMITERS: Final = ",;\t|"
_SAMPLE_LINES: Final = 20


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
            reader.read(_rows(text, delimiter, csv.QUOTE_MINIMAL))
        except csv.Error:  # a quote that is never closed swallows the rest: then quotes mean nothing here
            reader = RowReader("rows", "", self._limit)
            reader.notes["cells"] = sentence("note_quotes")
            reader.read(_rows(text, delimiter, csv.QUOTE_NONE))
        finally:
            csv.field_size_limit(before)
        if len(text) > MAX_LINE and any(len(line) >= MAX_LINE for line in _lines(text)):
            reader.notes["line"] = sentence("note_cells", count=f"{MAX_LINE:,}")
        return Parsed(tuple(reader.sections), notes=notes + tuple(reader.notes.values()))


def _rows(text: str, delimiter: str, quoting: Literal[0, 3]) -> Iterator[tuple[int, Sequence[str]]]:
    rows = csv.reader(_lines(text), delimiter=delimiter, quoting=quoting)
    number = 0
    while True:
        number += 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:
            if quoting == csv.QUOTE_MINIMAL:
                raise
            continue
        yield number, row


def _lines(text: str) -> Iterator[str]:
    """Lines with their ends, each cut at MAX_LINE; the text itself is not copied."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end + 1
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
