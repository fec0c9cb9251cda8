"""What the Office containers share: relationships between parts, and the title among the document's properties."""

from __future__ import annotations

import posixpath
import re

from core.errors import DocumentError
from core.loaders.archive import Archive
from core.loaders.xmltree import attribute, local, parse_xml

_RUBBISH = re.compile(
    r"(?:untitled|document|presentation|powerpoint|powerpoint presentation|slide|title|workbook|microsoft word|word"
    r"|book|无标题|未命名|文档|演示文稿|幻灯片)?\s{0,3}\d{0,4}|microsoft (?:word|powerpoint|excel) - .{0,300}"
    r"|.{0,300}\.(?:docx?|pptx?|xlsx?|rtf|odt|indd|qxd|tex|dvi|fm|pub|pages|md|html?|txt|ps)",
    re.IGNORECASE | re.DOTALL,
)


def real_title(title: str) -> str:
    """The title among a document's properties, unless a program put it there; empty then."""
    title = " ".join(title.split())[:300]
    return "" if _RUBBISH.fullmatch(title) else title


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
