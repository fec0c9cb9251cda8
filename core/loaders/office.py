"""What the Office containers share: relationships between parts, and the title among the document's properties."""

from __future__ import annotations

import posixpath

from core.errors import DocumentError
from core.loaders.archive import Archive
from core.loaders.xmltree import attribute, local, parse_xml

_NOBODYS = frozenset(
    {"untitled", "document", "presentation", "powerpoint presentation", "slide", "title", "workbook", "book", "word"}
    | {"microsoft word", "无标题", "未命名", "文档", "演示文稿", "幻灯片", "工作簿", ""}
)
"""Titles that programs give by themselves, perhaps with a number behind."""
_PREFIXES = ("microsoft word - ", "microsoft powerpoint - ", "microsoft excel - ")
_FILES = (
    *(".doc", ".docx", ".ppt", ".pptx", ".xls", ".xlsx", ".rtf", ".odt", ".indd", ".qxd", ".tex", ".dvi", ".fm"),
    *(".pub", ".pages", ".md", ".htm", ".html", ".txt", ".ps", ".pdf"),
)


def real_title(title: str) -> str:
    """The title among a document's properties, unless a program put it there; empty then."""
    title = " ".join(title[:1000].split())[:300]
    plain = title.lower()
    if plain.rstrip("0123456789 ") in _NOBODYS or plain.startswith(_PREFIXES) or plain.endswith(_FILES):
        return ""
    return title


def core_title(archive: Archive) -> str:
    """dc:title of an Office document; empty where there is none worth having."""
    try:
        if "docProps/core.xml" not in archive:
            return ""
        root = parse_xml(archive.read("docProps/core.xml"), "OOXML")
    except DocumentError:
        return ""  # the text can be read without its properties
    return real_title(next((element.text or "" for element in root if local(element) == "title"), ""))


def relations(archive: Archive, part: str) -> dict[str, tuple[str, str]]:
    """Relationship id -> (type's last word, name of the part it points to) of a part of the container."""
    folder, file = posixpath.split(part)
    path = f"{folder}/_rels/{file}.rels"
    if path not in archive:
        return {}
    found = {}
    for relation in parse_xml(archive.read(path), "OOXML"):
        if attribute(relation, "TargetMode") == "External":
            continue
        target = attribute(relation, "Target")
        name = target.lstrip("/") if target.startswith("/") else posixpath.normpath(posixpath.join(folder, target))
        found[attribute(relation, "Id")] = (attribute(relation, "Type").rsplit("/", 1)[-1], name)
    return found
