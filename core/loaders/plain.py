"""Plain text and source code: their lines as they are, so that a passage can say where it stands."""

from __future__ import annotations

from typing import Literal

from core.loaders.decoding import decode
from core.loaders.options import Options
from core.types import Locator, Parsed, Section


class TextLoader:
    def __init__(self, options: Options) -> None:
        self._options = options

    def load(self, data: bytes, name: str) -> Parsed:
        text, notes = decode(data)
        return Parsed(by_lines(text, "text"), notes=notes)


class CodeLoader:
    """Source code and settings files (TOML, YAML, INI), which nobody has to be able to parse."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def load(self, data: bytes, name: str) -> Parsed:
        text, notes = decode(data)
        return Parsed(by_lines(text, "code"), notes=notes)


def by_lines(text: str, kind: Literal["text", "code"]) -> tuple[Section, ...]:
    """The whole text as one section, without empty lines around it."""
    body = text.rstrip()
    start = len(body) - len(body.lstrip("\n"))
    first = 1 + start
    if not body:
        return ()
    body = body[start:]
    return (Section(body, kind, (), Locator("lines", "", first, first + body.count("\n"))),)
