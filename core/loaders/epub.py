"""EPUB: the chapters of the spine in order, each read like a web page."""

from __future__ import annotations

import posixpath
from typing import Final
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from core.loaders.archive import Archive
from core.loaders.decoding import decode
from core.loaders.html_page import read_html
from core.loaders.options import Options, problem
from core.loaders.outline import Outline
from core.loaders.xmltree import attribute, local, parse_xml
from core.types import Locator, Metadata, Parsed, Section

_CONTAINER: Final = "META-INF/container.xml"
_ENCRYPTION: Final = "META-INF/encryption.xml"
_PAGES: Final = ("application/xhtml+xml", "text/html")
_FONT_METHODS: Final = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
"""Fonts are often scrambled so; the text is not."""


class EpubLoader:
    def __init__(self, options: Options) -> None:
        self._limit = options.limit

    def load(self, data: bytes, name: str) -> Parsed:
        archive = Archive(data, "EPUB")
        _refuse_encrypted(archive)
        package = _package(archive)
        root = parse_xml(archive.read(package), "EPUB")
        title, metadata = _about(root)
        sections: list[Section] = []
        left = self._limit
        for number, part in enumerate(_spine(root, posixpath.dirname(package)), 1):
            if left <= 0:
                break
            if part in archive:
                outline = Outline(Locator("part", posixpath.basename(part), number, number))
                text, _ = decode(archive.read(part))
                chapter = read_html(text, outline, limit=left)
                left -= outline.characters
                label = next((one.headings[0] for one in outline.sections() if one.headings), chapter)
                sections += _labelled(outline.sections(), label or posixpath.basename(part), number)
        return Parsed(tuple(sections), title, metadata)


def _labelled(sections: tuple[Section, ...], label: str, number: int) -> list[Section]:
    return [Section(one.text, one.kind, one.headings, Locator("part", label[:120], number, number)) for one in sections]


def _refuse_encrypted(archive: Archive) -> None:
    if _ENCRYPTION in archive:
        for element in parse_xml(archive.read(_ENCRYPTION), "EPUB").iter():
            if local(element) == "EncryptionMethod" and attribute(element, "Algorithm") not in _FONT_METHODS:
                raise problem("encrypted")


def _package(archive: Archive) -> str:
    for element in parse_xml(archive.read(_CONTAINER), "EPUB").iter():
        if local(element) == "rootfile" and attribute(element, "full-path") in archive:
            return attribute(element, "full-path")
    raise problem("damaged", kind="EPUB")


def _about(root: Element) -> tuple[str, Metadata]:
    found: dict[str, str | int | float | bool] = {}
    for element in root.iter():
        tag, text = local(element), " ".join((element.text or "").split())
        if tag in ("title", "creator", "language", "publisher", "date") and text and tag not in found:
            found[tag] = text[:300]
    return str(found.get("title", "")), found


def _spine(root: Element, folder: str) -> list[str]:
    """Names of the chapters' files in reading order."""
    files = {}
    order = []
    for element in root.iter():
        if local(element) == "item" and attribute(element, "media-type") in _PAGES:
            if "nav" not in attribute(element, "properties").split():
                path = posixpath.normpath(posixpath.join(folder, unquote(attribute(element, "href"))))
                files[attribute(element, "id")] = path
        elif local(element) == "itemref":
            order.append(attribute(element, "idref"))
    return [files[key] for key in order if key in files]
