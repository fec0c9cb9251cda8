"""Markdown: headings (ATX and setext), fences, tables and front matter, by a line parser that keeps line numbers."""

from __future__ import annotations

import re
from typing import Literal

from core.loaders.decoding import decode
from core.loaders.frontmatter import front_matter
from core.loaders.options import Options
from core.types import Locator, Parsed, Section

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+|$)")
_RULE = frozenset("|:- \t")
_LINK = re.compile(r"!?\[([^\[\]]{0,300})\]\([^()\s]{0,1000}\)")
_STARTS = frozenset("#`~=-|: <\t")
"""What a line that is more than running text may start with."""


class MarkdownLoader:
    def __init__(self, options: Options) -> None:
        del options  # Markdown has nothing to choose

    def load(self, data: bytes, name: str) -> Parsed:
        text, notes = decode(data)
        title, metadata, skipped = front_matter(text)
        sections, first = parse(text, skipped)
        return Parsed(sections, title or first, metadata, notes)


def parse(text: str, skipped: int = 0) -> tuple[tuple[Section, ...], str]:
    """Its sections, and its first heading of level 1; the first `skipped` lines are left out."""
    reader = _Reader(text.split("\n"), skipped)
    reader.read()
    return tuple(reader.sections), reader.title


class _Reader:
    def __init__(self, lines: list[str], start: int) -> None:
        self.sections: list[Section] = []
        self.title = ""
        self._lines = lines
        self._start = start
        """First line of the text that is not yet in a section."""
        self._path: list[tuple[int, str]] = []
        self._headings: tuple[str, ...] = ()
        self._bare: int | None = None
        """Line of a heading that has nothing under it so far."""

    def read(self) -> None:
        lines = self._lines
        at, end = self._start, len(lines)
        while at < end:
            line = lines[at]
            at = self._special(at, line) if line and line[0] in _STARTS else at + 1
        self._take_text(end)
        self._close(0)

    def _special(self, at: int, line: str) -> int:
        """Handle a line that may be more than running text; the number of the next line to look at."""
        stripped = line.lstrip(" ")
        indent = len(line) - len(stripped)
        start = stripped[:1]
        if indent > 3 or not start:
            return at + 1
        if start == "#":
            return self._atx(at, line)
        if start in "`~" and stripped.startswith(("```", "~~~")):
            return self._fence(at, stripped)
        if start == "<" and stripped.startswith("<!--"):
            return self._comment(at)
        if start in "=-" and self._has_text_before(at) and not stripped.strip("=" if start == "=" else "-").strip():
            return self._setext(at, 1 if start == "=" else 2)
        if start in "|:-" and self._is_rule_of_table(at, line):
            return self._table(at)
        return at + 1

    def _has_text_before(self, at: int) -> bool:
        if at <= self._start:
            return False
        before = self._lines[at - 1]
        return bool(before.strip()) and not before.startswith(("    ", "\t", ">", "- ", "* "))

    def _atx(self, at: int, line: str) -> int:
        match = _ATX.match(line)
        if match is None:
            return at + 1
        text = line[match.end() :].strip()
        bare = text.rstrip("#")
        if bare != text and (not bare or bare[-1] in " \t"):
            text = bare.rstrip()
        self._take_text(at)
        self._heading(len(match[1]), text, at)
        return at + 1

    def _setext(self, at: int, level: int) -> int:
        first = at - 1
        while first > self._start and self._lines[first - 1].strip():
            first -= 1
        text = " ".join(line.strip() for line in self._lines[first:at])
        if len(text) > 300:
            return at + 1
        self._take_text(first)
        self._heading(level, text, at)
        return at + 1

    def _heading(self, level: int, text: str, at: int) -> None:
        text = _plain(text)
        self._start = at + 1
        if not text:
            return
        self._close(level)
        if level == 1 and not self.title:
            self.title = text
        self._path.append((level, text))
        self._headings = tuple(part for _, part in self._path)
        self._bare = at

    def _close(self, level: int) -> None:
        """Leave the headings that one of `level` ends; a heading with nothing under it is text itself."""
        if self._bare is not None and self._path and self._path[-1][0] >= level:
            self._put(self._path[-1][1], "text", self._bare, self._bare)
        while self._path and self._path[-1][0] >= level:
            self._path.pop()

    def _fence(self, at: int, stripped: str) -> int:
        match = _FENCE.match(stripped)
        if match is None or (match[1][0] == "`" and "`" in stripped[match.end() :]):
            return at + 1
        fence = match[1]
        self._take_text(at)
        end = at + 1
        while end < len(self._lines):
            line = self._lines[end].strip()
            end += 1
            if line.startswith(fence) and not line.strip(fence[0]):
                break
        self._take(end, "code")
        return end

    def _comment(self, at: int) -> int:
        """Comments are for nobody's eyes."""
        end = at
        while end < len(self._lines) and "-->" not in self._lines[end]:
            end += 1
        if end == len(self._lines) or self._lines[end].split("-->", 1)[1].strip():
            return at + 1
        self._take_text(at)
        self._start = end + 1
        return end + 1

    def _is_rule_of_table(self, at: int, line: str) -> bool:
        return (
            at > self._start
            and "-" in line
            and _RULE.issuperset(line)
            and "|" in self._lines[at - 1]
            and ("|" in line or ":" in line)
        )

    def _table(self, at: int) -> int:
        self._take_text(at - 1)
        end = at + 1
        while end < len(self._lines) and "|" in self._lines[end]:
            end += 1
        self._take(end, "table")
        return end

    def _take_text(self, end: int) -> None:
        if self._start < end:
            self._take(end, "text")

    def _take(self, end: int, kind: Literal["text", "table", "code"]) -> None:
        """Make a section of the lines from `_start` to `end`, without empty ones around it."""
        lines, first, last = self._lines, self._start, end
        self._start = end
        while first < last and not lines[first].strip():
            first += 1
        while first < last and not lines[last - 1].strip():
            last -= 1
        if first < last:
            self._put("\n".join(lines[first:last]), kind, first, last - 1)

    def _put(self, text: str, kind: Literal["text", "table", "code"], first: int, last: int) -> None:
        self.sections.append(Section(text, kind, self._headings, Locator("lines", "", first + 1, last + 1)))
        self._bare = None


def _plain(heading: str) -> str:
    """A heading without its emphasis, code marks and link targets."""
    if "[" in heading:
        heading = _LINK.sub(r"\1", heading)
    if "`" in heading or "*" in heading:
        heading = heading.replace("`", "").replace("**", "").replace("__", "").strip("*")
    return " ".join(heading.split())
