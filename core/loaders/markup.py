"""XML of any kind (SVG too): its texts in order, each with the name of its element, under the titles that it gives."""

from __future__ import annotations

from typing import Final
from xml.etree.ElementTree import Element

from core.loaders.options import Options
from core.loaders.outline import Outline
from core.loaders.xmltree import local, parse_xml
from core.types import Parsed

_TITLES: Final = frozenset({"title", "head", "heading", "name", "subject", "h1", "h2", "h3"})
_LEFT_OUT: Final = frozenset({"script", "style"})
_MAX_DEPTH: Final = 100
_MAX_LEVEL: Final = 6


class XmlLoader:
    def __init__(self, options: Options) -> None:
        self._limit = options.limit

    def load(self, data: bytes, name: str) -> Parsed:
        root = parse_xml(data, "XML")
        outline = Outline()
        _Walk(outline, self._limit).tell(root, 1, 0)
        title = next((_words(child) for child in root if local(child) == "title"), "")
        return Parsed(outline.sections(), title[:300])


class _Walk:
    def __init__(self, outline: Outline, limit: int) -> None:
        self._outline = outline
        self._limit = limit

    def tell(self, element: Element, level: int, depth: int) -> None:
        if self._outline.characters > self._limit or local(element) in _LEFT_OUT:
            return
        if depth > _MAX_DEPTH or _is_running_text(element):
            self._outline.paragraph(" ".join("".join(element.itertext()).split()))
            return
        titles = [child for child in element if local(child) in _TITLES and not len(child) and _words(child)]
        if titles and len(element) > 1:
            self._outline.heading(min(level, _MAX_LEVEL), _words(titles[0]))
            level += 1
        else:
            titles = []
        self._leaves([child for child in element if not len(child) and child not in titles[:1]])
        for child in element:
            if len(child):
                self.tell(child, level, depth + 1)

    def _leaves(self, leaves: list[Element]) -> None:
        """Short values that stand side by side, a line each; long ones are paragraphs."""
        lines: list[str] = []
        for leaf in leaves:
            text = _words(leaf)
            if not text or local(leaf) in _LEFT_OUT:
                continue
            if len(text) > 200 or local(leaf) in ("p", "para", "text", "tspan"):
                self._outline.paragraph("\n".join(lines))
                lines = []
                self._outline.paragraph(text)
            else:
                lines.append(f"{local(leaf)}: {text}")
        self._outline.paragraph("\n".join(lines))


def _words(element: Element) -> str:
    return " ".join((element.text or "").split())


def _is_running_text(element: Element) -> bool:
    """Whether text stands between its children: then they are words of it, not parts."""
    if not len(element):
        return True
    return bool((element.text or "").strip()) or any((child.tail or "").strip() for child in element)
