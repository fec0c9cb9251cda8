"""Telegram's rules for texts: lengths in UTF-16 units, entities, and what clients make of a plain text."""

from __future__ import annotations

import re
from typing import Any, Final

JSON = dict[str, Any]

LONGEST_TEXT: Final = 4096
LONGEST_CAPTION: Final = 1024
LONGEST_RICH: Final = 32_768
MOST_ENTITIES: Final = 100
_BLANK: Final = " \t\r\n\v\f"
_STYLES: Final = frozenset({"bold", "italic", "underline", "strikethrough", "spoiler", "code", "pre", "custom_emoji"})
_QUOTES: Final = frozenset({"blockquote", "expandable_blockquote"})
_MEANINGS: Final = frozenset({"mention", "hashtag", "cashtag", "bot_command", "url", "email", "phone_number"})
_KINDS: Final = _STYLES | _QUOTES | _MEANINGS | {"text_link", "text_mention"}
_OPAQUE: Final = frozenset({"code", "pre", "text_link", "text_mention", "url"})
"""Inside these nothing is detected."""
_DETECTED: Final = (
    ("mention", re.compile(r"(?<![\w@/.])@[A-Za-z]\w{3,31}\b", re.ASCII)),
    ("bot_command", re.compile(r"(?<![\w/<>.])/\w{1,64}(?:@[A-Za-z]\w{3,31})?\b", re.ASCII)),
    ("url", re.compile(r"(?<![\w@])(?:https?://|tg://)[^\s<>\"]+", re.IGNORECASE)),
    ("url", re.compile(r"(?<![\w@/.:])(?:[a-z0-9-]+\.)+(?:com|org|net|io|dev|ru|cn)\b(?:/[^\s<>\"]*)?", re.IGNORECASE)),
)


class Refused(Exception):
    """What the Bot API answers instead of a result."""

    def __init__(self, code: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.parameters = parameters


def bad(description: str) -> Refused:
    return Refused(400, f"Bad Request: {description}")


def units(text: str) -> int:
    """Length in UTF-16 units, as Telegram counts."""
    return len(text.encode("utf-16-le")) // 2


def part(text: str, entity: JSON) -> str:
    """The text that the entity covers."""
    raw = text.encode("utf-16-le")
    start = 2 * int(entity["offset"])
    return raw[start : start + 2 * int(entity["length"])].decode("utf-16-le")


def settled(text: str, entities: list[JSON], limit: int, *, may_be_empty: bool = False) -> tuple[str, list[JSON]]:
    """Text and entities as the server keeps them: blanks trimmed around, each entity checked; raises Refused."""
    for entity in entities:
        _check(text, entity)
    if len(entities) > MOST_ENTITIES:
        raise bad("ENTITIES_TOO_LONG")
    first = min((int(entity["offset"]) for entity in entities), default=len(text))
    lead = text[: len(text) - len(text.lstrip(_BLANK))]
    while units(lead) > first:
        lead = lead[:-1]
    trimmed = text[len(lead) :].rstrip(_BLANK)
    if not trimmed and not may_be_empty:
        raise bad("message text is empty")
    size = units(trimmed)
    if size > limit:
        raise bad("message is too long")
    kept = []
    for entity in entities:
        offset = int(entity["offset"]) - units(lead)
        length = min(int(entity["length"]), size - offset)
        if length > 0 and (entity["type"] != "text_link" or _is_link(entity["url"])):
            kept.append({**entity, "offset": offset, "length": length})
    return trimmed, sorted(kept, key=lambda entity: (entity["offset"], -entity["length"]))


def seen(text: str, entities: list[JSON]) -> list[JSON]:
    """The entities, and those that Telegram finds in the text by itself: @names, /commands and addresses."""
    taken = [(e["offset"], e["offset"] + e["length"]) for e in entities if e["type"] in _OPAQUE]
    found = list(entities)
    for kind, pattern in _DETECTED:
        for match in pattern.finditer(text):
            start = units(text[: match.start()])
            end = start + units(match[0])
            if all(end <= low or start >= high for low, high in taken):
                found.append({"type": kind, "offset": start, "length": end - start})
                taken.append((start, end))
    return sorted(found, key=lambda entity: (entity["offset"], -entity["length"]))


def _check(text: str, entity: JSON) -> None:
    kind = entity.get("type")
    if kind not in _KINDS:
        raise bad(f"can't parse entities: unknown entity type {kind!r}")
    offset, length = entity.get("offset"), entity.get("length")
    if not isinstance(offset, int) or not isinstance(length, int) or offset < 0 or length <= 0:
        raise bad("wrong entity offset or length specified")
    if offset + length > units(text):
        raise bad(f"entity beginning at UTF-16 offset {offset} ends after the end of the text")
    if kind == "text_link" and not entity.get("url"):
        raise bad("can't parse entities: text_link needs a url")
    raw = text.encode("utf-16-le")
    for place, word in ((offset, "begins"), (offset + length, "ends")):
        unit = raw[2 * place : 2 * place + 2]
        if len(unit) == 2 and 0xDC <= unit[1] <= 0xDF:
            before = len(raw[: 2 * place - 2].decode("utf-16-le").encode())
            raise bad(f"entity {word} in a middle of a UTF-16 symbol at byte offset {before}")


def _is_link(url: str) -> bool:
    return re.match(r"(?:https?://|tg://)?[\w.-]+", url, re.IGNORECASE) is not None
