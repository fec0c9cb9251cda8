"""DOCX: the body of a Word document, with its headings, lists, tables, footnotes and equations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element

from core.loaders.archive import Archive
from core.loaders.office import core_title
from core.loaders.options import Options, problem
from core.loaders.outline import Outline
from core.loaders.xmltree import attribute, local, parse_xml
from core.types import Parsed

_BODY: Final = "word/document.xml"
_HEADING_NAME = re.compile(r"(?:heading|标题|標題)\s{0,3}([1-9])", re.IGNORECASE)
_LEFT_OUT: Final = frozenset({"del", "moveFrom", "Fallback", "instrText", "pPr", "rPr", "tblPr", "sectPr", "delText"})
_MAX_DEPTH: Final = 20


class WordLoader:
    def __init__(self, options: Options) -> None:
        self._limit = options.limit

    def load(self, data: bytes, name: str) -> Parsed:
        archive = Archive(data, "DOCX")
        root = parse_xml(archive.read(_main_part(archive)), "DOCX")
        body = next((child for child in root if local(child) == "body"), None)
        if body is None:
            raise problem("damaged", kind="DOCX")
        walk = _Walk(_Styles(archive), _footnotes(archive), self._limit)
        walk.blocks(body, 0)
        title = walk.title or core_title(archive) or (walk.tops[0] if len(walk.tops) == 1 else "")
        return Parsed(walk.outline.sections(), title)


def _main_part(archive: Archive) -> str:
    if _BODY in archive:
        return _BODY
    return next((name for name in archive.names() if re.fullmatch(r"word/document\d{0,3}\.xml", name)), _BODY)


class _Walk:
    def __init__(self, styles: _Styles, footnotes: dict[str, str], limit: int) -> None:
        self.outline = Outline()
        self.title = ""
        self.tops: list[str] = []
        """Headings of level 1."""
        self._styles = styles
        self._footnotes = footnotes
        self._limit = limit

    def blocks(self, parent: Element, depth: int) -> None:
        for child in parent:
            if self.outline.characters > self._limit:
                return
            tag = local(child)
            if tag == "p":
                self._paragraph(child)
            elif tag == "tbl":
                self.outline.table([[_text(cell) for cell in _cells(row)] for row in _children(child, "tr", 0)])
            elif tag in ("sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag") and depth < _MAX_DEPTH:
                self.blocks(child, depth + 1)

    def _paragraph(self, element: Element) -> None:
        text = _text(element).strip()
        if not text:
            return
        level, is_item = self._style(element)
        if level == 0 and not self.title:
            self.title = " ".join(text.split())[:300]
        if level == 1:
            self.tops.append(" ".join(text.split())[:300])
        if level is not None:
            self.outline.heading(level, text)
        elif is_item:
            self.outline.item(text)
        else:
            self.outline.paragraph(text)
        for note in _notes(element):
            self.outline.paragraph(self._footnotes.get(note, ""))

    def _style(self, element: Element) -> tuple[int | None, bool]:
        """Level of heading (0 for the title, None for none), and whether it is an item of a list."""
        level: int | None = None
        is_item = False
        for properties in element:
            if local(properties) != "pPr":
                continue
            for setting in properties:
                tag = local(setting)
                if tag == "pStyle":
                    style = attribute(setting, "val")
                    level = self._styles.levels.get(style, level)
                    is_item = is_item or style in self._styles.lists
                elif tag == "outlineLvl":
                    level = _outline_level(attribute(setting, "val"), level)
                elif tag == "numPr":
                    is_item = True
        return level, is_item


def _outline_level(value: str, default: int | None) -> int | None:
    return int(value) + 1 if value.isdecimal() and int(value) < 9 else default


class _Styles:
    """What the document's styles say of their paragraphs."""

    def __init__(self, archive: Archive) -> None:
        self.levels: dict[str, int] = {}
        """Heading level by style id; 0 is the style of the document's title."""
        self.lists: set[str] = set()
        """Ids of the styles of lists."""
        if "word/styles.xml" not in archive:
            return
        parents: dict[str, str] = {}
        for style in parse_xml(archive.read("word/styles.xml"), "DOCX"):
            if local(style) == "style":
                self._take(style, attribute(style, "styleId"), parents)
        for key, parent in parents.items():
            if key not in self.levels and self.levels.get(parent, 0) > 0:
                self.levels[key] = self.levels[parent]

    def _take(self, style: Element, key: str, parents: dict[str, str]) -> None:
        for setting in style.iter():
            tag, value = local(setting), attribute(setting, "val")
            if tag == "name" and (level := _named_level(value)) is not None:
                self.levels[key] = level
            elif tag == "outlineLvl" and (level := _outline_level(value, None)) is not None:
                self.levels.setdefault(key, level)
            elif tag == "basedOn":
                parents[key] = value
            elif tag == "numPr" and key not in self.levels:
                self.lists.add(key)


def _named_level(name: str) -> int | None:
    if name.lower() in ("title", "标题", "標題"):
        return 0
    match = _HEADING_NAME.fullmatch(name)
    return int(match[1]) if match else None


def _footnotes(archive: Archive) -> dict[str, str]:
    found: dict[str, str] = {}
    for part, reference in (("word/footnotes.xml", "footnote"), ("word/endnotes.xml", "endnote")):
        if part in archive:
            for note in parse_xml(archive.read(part), "DOCX"):
                if not attribute(note, "type"):
                    found[f"{reference}{attribute(note, 'id')}"] = _text(note).strip()
    return found


def _notes(element: Element) -> Iterator[str]:
    for part in element.iter():
        tag = local(part)
        if tag in ("footnoteReference", "endnoteReference"):
            yield f"{tag.removesuffix('Reference')}{attribute(part, 'id')}"


def _children(parent: Element, tag: str, depth: int) -> Iterator[Element]:
    """Rows of a table or cells of a row, also those wrapped in content controls."""
    for child in parent:
        if local(child) == tag:
            yield child
        elif local(child) in ("sdt", "sdtContent", "ins", "customXml") and depth < _MAX_DEPTH:
            yield from _children(child, tag, depth + 1)


def _cells(row: Element) -> Iterator[Element]:
    return _children(row, "tc", 0)


def _text(element: Element) -> str:
    """All text in it, in order, without what was deleted; nested paragraphs end in a line break."""
    parts: list[str] = []
    waiting: list[Element | str] = [element]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            parts.append(item)
            continue
        tag = local(item)
        if tag == "t":
            parts.append(item.text or "")
        elif tag in ("br", "cr"):
            parts.append("\n")
        elif tag in ("tab", "ptab"):
            parts.append("\t")
        elif tag == "noBreakHyphen":
            parts.append("-")
        elif tag not in _LEFT_OUT:
            if tag == "p" and item is not element:
                waiting.append("\n")
            elif tag == "tc":
                waiting.append("\t")
            waiting.extend(reversed(item))
    return "".join(parts)
