"""reStructuredText: headings by their underlines, literal blocks and tables as they are; directives are never run."""

from __future__ import annotations

import re
from typing import Final, Literal

from core.loaders.decoding import decode
from core.loaders.options import Options
from core.types import Locator, Parsed, Section

_MARKS: Final = frozenset("=-`:'\"~^_*+#<>.")
_ROLE = re.compile(r":[A-Za-z][\w.:-]{0,40}:`([^`<]{1,300}?)(?:\s{0,3}<[^`>]{0,300}>)?`")
_DIRECTIVE = re.compile(r" {0,60}\.\. ([\w:-]{1,60})::")
_CODE: Final = frozenset({"code", "code-block", "sourcecode", "parsed-literal", "highlight", "math", "doctest"})
_DROPPED: Final = frozenset(
    {"toctree", "contents", "index", "include", "raw", "image", "meta", "automodule", "autoclass"}
)


class RstLoader:
    def __init__(self, options: Options) -> None:
        self._options = options

    def load(self, data: bytes, name: str) -> Parsed:
        text, notes = decode(data)
        reader = _Reader(text.expandtabs(8).split("\n"))
        reader.read()
        return Parsed(tuple(reader.sections), reader.title, notes=notes)


class _Reader:
    def __init__(self, lines: list[str]) -> None:
        self.sections: list[Section] = []
        self.title = ""
        self._lines = lines
        self._start = 0
        """First line that is not yet in a section."""
        self._path: list[tuple[int, str]] = []
        self._styles: list[tuple[str, bool]] = []
        """(mark, with a line above) of each level of heading, in the order they were met."""
        self._bare: int | None = None

    def read(self) -> None:
        at = 0
        while at < len(self._lines):
            at = self._heading(at) or self._block(at) or at + 1
        self._take(at, "text")
        self._close(0)

    def _heading(self, at: int) -> int:
        """The line after a heading that begins here, its upper line included; 0 where none does."""
        lines = self._lines
        line = lines[at]
        if _is_rule(line) and at + 2 < len(lines) and lines[at + 1].strip() and lines[at + 2].rstrip() == line.rstrip():
            return self._open(at, lines[at + 1].strip(), (line[0], True), at + 3)
        if (
            line[:1].strip()
            and at + 1 < len(lines)
            and _is_rule(lines[at + 1])
            and not _is_rule(line)
            and (at == 0 or not lines[at - 1].strip() or at == self._start)
            and len(lines[at + 1].rstrip()) >= min(len(line.rstrip()), 4)
            and len(line) <= 300
        ):
            return self._open(at, line.strip(), (lines[at + 1][0], False), at + 2)
        return 0

    def _open(self, at: int, text: str, style: tuple[str, bool], after: int) -> int:
        self._take(at, "text")
        self._start = after
        if style not in self._styles:
            self._styles.append(style)
        level = self._styles.index(style) + 1
        text = _plain(text)
        self._close(level)
        if not self.title and level == 1:
            self.title = text
        self._path.append((level, text))
        self._bare = at
        return after

    def _block(self, at: int) -> int:
        """The line after a literal block, table or directive that begins here; 0 where none does."""
        line = self._lines[at]
        if line.startswith(("+--", "+==")) or (line.startswith("==") and "= =" in line):
            return self._table(at)
        match = _DIRECTIVE.match(line)
        if match is None and not (line.rstrip().endswith("::") and not line.lstrip().startswith("..")):
            return 0
        end = self._indented(at + 1, len(line) - len(line.lstrip()))
        name = match[1].lower() if match else ""
        if match is not None and name not in _CODE and name not in _DROPPED:
            return 0
        if match is None:
            self._take(at + 1, "text")
        else:
            self._take(at, "text")
        if name in _DROPPED:
            self._start = end
        else:
            self._take(end, "code")
        return end

    def _indented(self, at: int, indent: int) -> int:
        while at < len(self._lines):
            line = self._lines[at]
            if line.strip() and len(line) - len(line.lstrip()) <= indent:
                break
            at += 1
        return at

    def _table(self, at: int) -> int:
        end = at + 1
        while end < len(self._lines) and self._lines[end].strip():
            end += 1
        self._take(at, "text")
        self._take(end, "table")
        return end

    def _close(self, level: int) -> None:
        if self._bare is not None and self._path and self._path[-1][0] >= level:
            self._put(self._path[-1][1], "text", self._bare, self._bare)
        while self._path and self._path[-1][0] >= level:
            self._path.pop()

    def _take(self, end: int, kind: Literal["text", "table", "code"]) -> None:
        first, last = self._start, end
        self._start = end
        while first < last and not self._lines[first].strip():
            first += 1
        while first < last and not self._lines[last - 1].strip():
            last -= 1
        if first < last:
            text = "\n".join(line.rstrip() for line in self._lines[first:last])
            self._put(_plain(text) if kind == "text" else text, kind, first, last - 1)

    def _put(self, text: str, kind: Literal["text", "table", "code"], first: int, last: int) -> None:
        headings = tuple(part for _, part in self._path)
        self.sections.append(Section(text, kind, headings, Locator("lines", "", first + 1, last + 1)))
        self._bare = None


def _is_rule(line: str) -> bool:
    line = line.rstrip()
    return len(line) >= 2 and line[0] in _MARKS and not line.strip(line[0])


def _plain(text: str) -> str:
    """The text without its roles: «:ref:`Set-up <install>`» reads «Set-up»."""
    text = _ROLE.sub(r"\1", text) if "`" in text else text
    return text.replace("``", "`")
