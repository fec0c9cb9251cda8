"""What a renderer gives: the messages of one answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

EntityType: TypeAlias = Literal["bold", "italic", "strikethrough", "code", "pre", "text_link", "blockquote"]


@dataclass(frozen=True, slots=True)
class Entity:
    """A stretch of a text with a meaning, as Telegram takes it; offset and length in UTF-16 units."""

    type: EntityType
    offset: int
    length: int
    url: str = ""
    """Of a `text_link`."""
    language: str = ""
    """Of a `pre`, where it is known."""


@dataclass(frozen=True, slots=True)
class Part:
    """One message: what goes to the platform as it is."""

    text: str
    entities: tuple[Entity, ...] = ()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A whole answer; sources and notice stand at its end."""

    parts: tuple[Part, ...]
    """At least one, none of them empty."""


def utf16_units(text: str) -> int:
    """Length as Discord and Telegram count it."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2
