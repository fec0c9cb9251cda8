"""Cuts very long sections, so that whoever splits them further never has to look at megabytes at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from core.types import Section

LONGEST: Final = 60_000
_BREAKS: Final = ("\n\n", "\n", "。", ". ", " ")
_COUNTED: Final = ("lines", "rows", "sheet")


def bounded(section: Section) -> Iterator[Section]:
    """The section itself, or parts of it: at most LONGEST characters, and a table's header before each."""
    text = section.text
    if len(text) <= LONGEST:
        yield section
        return
    header = _header(section)
    counted = _is_counted(section)
    line = section.locator.first or 0
    start = len(header)
    while start < len(text):
        end = _cut(text, start)
        part = text[start:end]
        where = section.locator
        if counted:
            last = line + part.rstrip("\n").count("\n")
            where = replace(where, first=line, last=last)
            line += part.count("\n")
        if part.strip():
            body = part.strip("\n") if section.kind != "text" and not counted else part.rstrip("\n")
            yield replace(section, text=header + body, locator=where)
        start = end


def _is_counted(section: Section) -> bool:
    where = section.locator
    return (
        where.kind in _COUNTED
        and where.first is not None
        and where.last is not None
        and section.text.rstrip("\n").count("\n") == where.last - where.first
        and section.kind != "table"
    )


def _header(section: Section) -> str:
    """The first row of a table and the rule below it: they go before each part."""
    if section.kind != "table":
        return ""
    first = section.text.find("\n")
    second = section.text.find("\n", first + 1)
    rule = section.text[first + 1 : second]
    return section.text[: second + 1] if 0 < first < second < LONGEST // 4 and not rule.strip("|:- \t") else ""


def _cut(text: str, start: int) -> int:
    """Where a part that begins at `start` ends."""
    limit = start + LONGEST
    if limit >= len(text):
        return len(text)
    for mark in _BREAKS:
        at = text.rfind(mark, start + LONGEST // 2, limit)
        if at > 0:
            return at + len(mark)
    return limit
