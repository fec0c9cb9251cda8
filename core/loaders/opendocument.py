"""ODT and ODP: text, headings, lists and tables of an OpenDocument file."""

from __future__ import annotations

from typing import Final
from xml.etree.ElementTree import Element

from core.errors import DocumentError
from core.loaders.archive import Archive
from core.loaders.office import real_title
from core.loaders.options import Options, problem
from core.loaders.outline import Outline
from core.loaders.xmltree import attribute, local, parse_xml
from core.types import Locator, Parsed

_MAX_DEPTH: Final = 30
_LEFT_OUT: Final = frozenset({"tracked-changes", "annotation", "note-citation", "bookmark", "forms", "sequence-decls"})
_BOXES: Final = frozenset(
    {"section", "text-box", "frame", "index-body", "g", "table-of-content", "notes", "custom-shape"}
)


class OpenDocumentLoader:
    def __init__(self, options: Options) -> None:
        self._limit = options.limit

    def load(self, data: bytes, name: str) -> Parsed:
        archive = Archive(data, "ODF")
        if "META-INF/manifest.xml" in archive and b"encryption-data" in archive.read("META-INF/manifest.xml"):
            raise problem("encrypted")
        root = parse_xml(archive.read("content.xml"), "ODF")
        body = next((element for element in root if local(element) == "body"), None)
        if body is None:
            raise problem("damaged", kind="ODF")
        walk = _Walk(self._limit)
        for kind in body:
            walk.blocks(kind, 0)
        title = _title(archive) or walk.title or (walk.tops[0] if len(walk.tops) == 1 else "")
        return Parsed(walk.outline.sections(), title)


def _title(archive: Archive) -> str:
    if "meta.xml" not in archive:
        return ""
    try:
        root = parse_xml(archive.read("meta.xml"), "ODF")
    except DocumentError:
        return ""  # the text can be read without its properties
    return real_title(next((element.text or "" for element in root.iter() if local(element) == "title"), ""))


class _Walk:
    def __init__(self, limit: int) -> None:
        self.outline = Outline()
        self.title = ""
        self.tops: list[str] = []
        self._limit = limit
        self._slide = 0

    def blocks(self, parent: Element, depth: int, *, in_list: bool = False) -> None:
        if depth > _MAX_DEPTH:
            raise problem("nested")
        for child in parent:
            if self.outline.characters > self._limit:
                return
            tag = local(child)
            if tag == "h":
                self._heading(child)
            elif tag == "p":
                self._paragraph(child, in_list=in_list)
            elif tag in ("list", "list-item", "list-header"):
                self.blocks(child, depth + 1, in_list=True)
            elif tag == "table":
                self.outline.table(_rows(child))
            elif tag == "page":
                self._slide += 1
                self.outline.at(Locator("slide", "", self._slide, self._slide))
                self.blocks(child, depth + 1)
            elif tag in _BOXES:
                self.blocks(child, depth + 1)

    def _heading(self, element: Element) -> None:
        level = attribute(element, "outline-level")
        text = _text(element)
        number = int(level) if level.isdecimal() and 0 < int(level) < 10 else 1
        if number == 1:
            self.tops.append(" ".join(text.split())[:300])
        self.outline.heading(number, text)

    def _paragraph(self, element: Element, *, in_list: bool) -> None:
        text = _text(element)
        if attribute(element, "style-name") == "Title" and not self.title:
            self.title = " ".join(text.split())[:300]
            self.outline.heading(0, text)
        elif in_list:
            self.outline.item(text)
        else:
            self.outline.paragraph(text)


def _rows(table: Element) -> list[list[str]]:
    """Its cells; repeated ones once, since a file of a few bytes may repeat them a million times."""
    rows = [row for row in table.iter() if local(row) == "table-row"]
    return [[_text(cell) for cell in row if local(cell) in ("table-cell", "covered-table-cell")] for row in rows]


def _text(element: Element) -> str:
    parts: list[str] = []
    waiting: list[Element | str] = [element]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            parts.append(item)
            continue
        tag = local(item)
        if tag == "line-break":
            parts.append("\n")
        elif tag == "tab":
            parts.append("\t")
        elif tag == "s":
            count = attribute(item, "c")
            parts.append(" " * (min(int(count), 100) if count.isdecimal() else 1))
        elif tag not in _LEFT_OUT:
            parts.append(item.text or "")
            for child in reversed(item):
                if child.tail:
                    waiting.append(child.tail)
                waiting.append(child)
            if tag == "p" and item is not element:
                parts.append(" ")
    return "".join(parts).strip()
