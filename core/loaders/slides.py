"""PPTX: the slides in their order, each with its title, text, tables and speaker's notes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element

from core.loaders.archive import Archive
from core.loaders.office import core_title, relations
from core.loaders.options import Options
from core.loaders.outline import Outline
from core.loaders.xmltree import attribute, local, parse_xml
from core.types import Locator, Parsed

_MAIN: Final = "ppt/presentation.xml"
_TITLES: Final = frozenset({"title", "ctrTitle"})
_MARGINAL: Final = frozenset({"dt", "ftr", "sldNum", "hdr", "sldImg"})


class SlidesLoader:
    def __init__(self, options: Options) -> None:
        self._limit = options.limit

    def load(self, data: bytes, name: str) -> Parsed:
        archive = Archive(data, "PPTX")
        outline = Outline()
        opening = ""
        for number, part in enumerate(_slides(archive), 1):
            if outline.characters > self._limit:
                break
            outline.at(Locator("slide", "", number, number))
            title = _slide(archive, part, outline)
            opening = opening or title
        return Parsed(outline.sections(), core_title(archive) or opening)


def _slides(archive: Archive) -> list[str]:
    targets = relations(archive, _MAIN)
    root = parse_xml(archive.read(_MAIN), "PPTX")
    found = []
    for element in root.iter():
        if local(element) == "sldId":
            keys = [value for key, value in element.attrib.items() if key.endswith("}id")]
            kind, part = targets.get(keys[0], ("", "")) if keys else ("", "")
            if kind == "slide" and part in archive:
                found.append(part)
    return found


def _slide(archive: Archive, part: str, outline: Outline) -> str:
    root = parse_xml(archive.read(part), "PPTX")
    if attribute(root, "show") == "0":
        return ""
    shapes = list(_shapes(root))
    title = next((_plain(shape) for shape, role in shapes if role in _TITLES and _plain(shape)), "")
    outline.heading(1, title)
    for shape, role in shapes:
        if role not in _TITLES and role not in _MARGINAL:
            _tell(shape, outline)
    for kind, target in relations(archive, part).values():
        if kind == "notesSlide" and target in archive:
            for shape, role in _shapes(parse_xml(archive.read(target), "PPTX")):
                if role == "body":
                    _tell(shape, outline)
    return title


def _shapes(root: Element) -> Iterator[tuple[Element, str]]:
    """Shapes and frames in drawing order, groups opened, each with its role as a placeholder."""
    waiting = [root]
    while waiting:
        element = waiting.pop()
        tag = local(element)
        if tag in ("sp", "graphicFrame"):
            place = next((part for part in element.iter() if local(part) == "ph"), None)
            yield element, (attribute(place, "type") or "body") if place is not None else ""
        elif tag != "Fallback":
            waiting.extend(reversed(element))


def _tell(shape: Element, outline: Outline) -> None:
    table = next((part for part in shape.iter() if local(part) == "tbl"), None)
    if table is not None:
        rows = [row for row in table if local(row) == "tr"]
        outline.table([[_plain(cell) for cell in row if local(cell) == "tc"] for row in rows])
        return
    paragraphs = [text for text in _paragraphs(shape) if text]
    for text in paragraphs:
        if len(paragraphs) > 1:
            outline.item(text)
        else:
            outline.paragraph(text)


def _plain(shape: Element) -> str:
    return " ".join(text for text in _paragraphs(shape) if text)


def _paragraphs(shape: Element) -> Iterator[str]:
    for paragraph in shape.iter():
        if local(paragraph) == "p":
            words = []
            for part in paragraph.iter():
                if local(part) == "t":
                    words.append(part.text or "")
                elif local(part) == "br":
                    words.append(" ")
            yield " ".join("".join(words).split())
