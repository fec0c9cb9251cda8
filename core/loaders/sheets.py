"""XLSX, XLS, XLSB and ODS: the visible sheets, row by row, by calamine."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

from core.loaders.archive import Archive
from core.loaders.office import core_title
from core.loaders.options import Options, problem, sentence
from core.loaders.rows import RowReader
from core.types import Parsed, Section

MAX_CELLS: Final = 20_000_000
"""Cells between the first and the last used one of a sheet, empty ones included."""


class SheetsLoader:
    def __init__(self, options: Options) -> None:
        self._limit = options.limit

    def load(self, data: bytes, name: str) -> Parsed:
        import python_calamine as calamine  # imported late: a native library that only tables need

        title = ""
        if data.startswith(b"PK"):
            archive = Archive(data, "XLSX")
            archive.verify()
            title = core_title(archive)
        try:
            with calamine.CalamineWorkbook.from_filelike(io.BytesIO(data)) as book:
                return self._read(book, title)
        except calamine.PasswordError as error:
            raise problem("encrypted") from error
        except (calamine.CalamineError, OSError, ValueError) as error:
            raise problem("damaged", kind="XLSX") from error

    def _read(self, book: Any, title: str) -> Parsed:
        sections: list[Section] = []
        notes: dict[str, str] = {}
        hidden: list[str] = []
        left = self._limit
        for index, sheet in enumerate(book.sheets_metadata):
            if not str(sheet.visible).endswith("Visible"):
                hidden.append(sheet.name)
                continue
            if not str(sheet.typ).endswith("WorkSheet") or left <= 0:
                continue
            reader = RowReader("sheet", sheet.name, left)
            reader.read(_rows(book.get_sheet_by_index(index)))
            left -= reader.characters
            sections += reader.sections
            notes |= reader.notes
        if hidden:
            notes["hidden"] = sentence("note_hidden", names=", ".join(hidden[:10]))
        return Parsed(tuple(sections), title, notes=tuple(notes.values()))


def _rows(sheet: Any) -> Iterator[tuple[int, Sequence[str]]]:
    if sheet.start is None:
        return
    if sheet.height * sheet.width > MAX_CELLS:
        raise problem("cells", name=sheet.name)
    first = sheet.start[0] + 1
    for number, row in enumerate(sheet.to_python(skip_empty_area=True), first):
        yield number, [_text(value) for value in row]


def _text(value: object) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.10g}"
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "minutes")
    return str(value)
