"""JSON and JSON Lines: each record a line of `key: value`, under the path of keys that leads to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from core.loaders.decoding import decode
from core.loaders.options import Options, problem
from core.loaders.outline import Outline
from core.types import Locator, Parsed, Section

_Value: TypeAlias = "dict[str, _Value] | list[_Value] | str | int | float | bool | None"

_MAX_DEPTH: Final = 40
_MAX_PATH: Final = 6
_LONG_TEXT: Final = 200
"""Characters from which a value is a paragraph of its own."""


class JsonLoader:
    def __init__(self, options: Options) -> None:
        self._limit = options.limit

    def load(self, data: bytes, name: str) -> Parsed:
        text, notes = decode(data)
        value = _value(text)
        outline = Outline()
        _Walk(outline, self._limit).tell(value, 1)
        title = value.get("title") if isinstance(value, dict) else None
        return Parsed(outline.sections(), title[:300] if isinstance(title, str) else "", notes=notes)


class JsonLinesLoader:
    def __init__(self, options: Options) -> None:
        self._limit = options.limit

    def load(self, data: bytes, name: str) -> Parsed:
        text, notes = decode(data)
        sections: list[Section] = []
        left = self._limit
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            record = "; ".join(_pairs(_value(line, number), 0))
            if record:
                sections.append(Section(record, "code", (), Locator("lines", "", number, number)))
            left -= len(record)
            if left < 0:
                break
        return Parsed(tuple(_joined(sections)), notes=notes)


def _value(text: str, line: int = 0) -> _Value:
    try:
        value: _Value = json.loads(text, parse_int=_number, parse_float=_number)
    except RecursionError as error:
        raise problem("nested") from error
    except ValueError as error:
        raise problem("damaged", kind=f"JSON (line {line})" if line else "JSON") from error
    return value


def _number(digits: str) -> str:
    """Numbers stay as they are written."""
    return digits


def _joined(sections: Sequence[Section]) -> Iterator[Section]:
    """Records of neighbouring lines in one section of many lines, which is cut between lines only."""
    lines: list[str] = []
    first = last = 0
    for section in sections:
        number = section.locator.first or 0
        if lines and (number != last + 1 or len(lines) >= 500):
            yield Section("\n".join(lines), "code", (), Locator("lines", "", first, last))
            lines = []
        first = first if lines else number
        lines.append(section.text)
        last = number
    if lines:
        yield Section("\n".join(lines), "code", (), Locator("lines", "", first, last))


class _Walk:
    def __init__(self, outline: Outline, limit: int) -> None:
        self._outline = outline
        self._limit = limit

    def tell(self, value: _Value, level: int) -> None:
        if self._outline.characters > self._limit:
            return
        if isinstance(value, dict):
            self._tell_object(value, level)
        elif isinstance(value, list):
            for item in value:
                self._outline.leave(level)
                if isinstance(item, dict) and any(_is_deep(part) for part in item.values()) and level < _MAX_PATH:
                    self._outline.heading(level, _name(item))
                    self.tell(item, level + 1)
                else:
                    self._outline.paragraph("; ".join(_pairs(item, 0)))
        else:
            self._outline.paragraph(_plain(value))

    def _tell_object(self, value: dict[str, _Value], level: int) -> None:
        """First what stands in it, then, under their names, the objects and lists of objects in it."""
        flat = {key: part for key, part in value.items() if not _is_deep(part)}
        lines = []
        for key, part in flat.items():
            text = ", ".join(_pairs(part, 0))
            if len(text) > _LONG_TEXT:
                self._outline.paragraph(f"{key}: {text}")
            elif text:
                lines.append(f"{key}: {text}")
        self._outline.paragraph("\n".join(lines))
        for key, part in value.items():
            if key in flat:
                continue
            if level < _MAX_PATH:
                self._outline.heading(level, key)
                self.tell(part, level + 1)
            else:
                self._outline.paragraph(f"{key}: {'; '.join(_pairs(part, 0))}")


def _is_deep(value: _Value) -> bool:
    if isinstance(value, dict):
        return bool(value)
    return isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value)


def _name(item: dict[str, _Value]) -> str:
    """What a record calls itself, to stand as the heading over it."""
    for key in ("title", "name", "question", "id", "key"):
        value = item.get(key)
        if isinstance(value, str) and 0 < len(value) <= 120:
            return value
    return ""


def _pairs(value: _Value, depth: int) -> Iterator[str]:
    """`path.to.key: value` for everything in it."""
    if depth > _MAX_DEPTH:
        raise problem("nested")
    if isinstance(value, dict):
        for key, part in value.items():
            inner = list(_pairs(part, depth + 1))
            if isinstance(part, dict):
                yield from (f"{key}.{pair}" for pair in inner)
            elif inner:
                yield f"{key}: {', '.join(inner)}"
    elif isinstance(value, list):
        for part in value:
            text = "; ".join(_pairs(part, depth + 1))
            if text:
                yield text
    elif (text := _plain(value)) != "":
        yield text


def _plain(value: _Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip()
