"""Jupyter notebooks: Markdown cells as Markdown, code cells as code with what they printed."""

from __future__ import annotations

import json
from typing import Any, Final

from core.loaders.decoding import decode
from core.loaders.markdown import parse
from core.loaders.options import Options, problem
from core.types import Locator, Parsed, Section

_MAX_OUTPUT: Final = 2000
_MAX_OUTPUTS: Final = 20


class NotebookLoader:
    def __init__(self, options: Options) -> None:
        self._limit = options.limit

    def load(self, data: bytes, name: str) -> Parsed:
        text, notes = decode(data)
        cells, title = _cells(text)
        sections: list[Section] = []
        headings: tuple[str, ...] = ()
        left = self._limit
        for number, cell in enumerate(cells, 1):
            where = Locator("cell", "", number, number)
            source = _text(cell.get("source"))
            if cell.get("cell_type") == "markdown":
                found, first = parse(source)
                title = title or first
                for section in found:
                    path = section.headings or headings
                    sections.append(Section(section.text, section.kind, path, where))
                    headings = path
            elif source.strip():
                sections.append(Section(source + _outputs(cell), "code", headings, where))
            left -= len(source)
            if left < 0:
                break
        return Parsed(tuple(sections), title, notes=notes)


def _cells(text: str) -> tuple[list[dict[str, Any]], str]:
    try:
        notebook = json.loads(text)
    except RecursionError as error:
        raise problem("nested") from error
    except ValueError as error:
        raise problem("damaged", kind="IPYNB") from error
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise problem("damaged", kind="IPYNB")
    about = notebook.get("metadata")
    title = about.get("title") if isinstance(about, dict) else ""
    return [cell for cell in cells if isinstance(cell, dict)], title if isinstance(title, str) else ""


def _text(source: object) -> str:
    if isinstance(source, list):
        return "".join(part for part in source if isinstance(part, str))
    return source if isinstance(source, str) else ""


def _outputs(cell: dict[str, Any]) -> str:
    """What the cell printed, shortened: pictures and tracebacks are left out."""
    outputs = cell.get("outputs")
    if not isinstance(outputs, list):
        return ""
    texts = []
    for output in outputs[:_MAX_OUTPUTS]:
        if isinstance(output, dict):
            data = output.get("data")
            shown = _text(output.get("text")) or (_text(data.get("text/plain")) if isinstance(data, dict) else "")
            if shown.strip():
                texts.append(shown.strip()[:_MAX_OUTPUT])
    return "\n\n" + "\n".join(texts) if texts else ""
