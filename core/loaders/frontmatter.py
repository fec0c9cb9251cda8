"""The block of metadata at the top of a Markdown file: YAML between `---`, or TOML between `+++`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from core.types import Metadata

MAX_LINES = 200
MAX_ENTRIES = 50
MAX_VALUE = 1000


def front_matter(text: str) -> tuple[str, Metadata, int]:
    """Title, metadata, and the number of lines the block takes; ("", {}, 0) where there is none."""
    if not text.startswith(("---\n", "+++\n")):
        return "", {}, 0
    lines = text.split("\n", MAX_LINES)[:MAX_LINES]
    ends = ("---", "...") if text[0] == "-" else ("+++",)
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() in ends:
            values = _values("\n".join(lines[1:number]), text[0])
            if values is None:
                break
            metadata = scalars(values)
            return str(metadata.get("title", "")).strip(), metadata, number + 1
    return "", {}, 0


def scalars(values: Mapping[object, object]) -> Metadata:
    """The plain values in it; lists of plain values are joined, everything deeper is left out."""
    found: dict[str, str | int | float | bool] = {}
    for key, value in values.items():
        plain = _scalar(value)
        if plain is None and isinstance(value, list):
            parts = [str(part) for part in map(_scalar, value[:MAX_ENTRIES]) if part is not None]
            plain = ", ".join(parts)[:MAX_VALUE] or None
        if plain is not None and isinstance(key, str) and len(found) < MAX_ENTRIES:
            found[key[:100]] = plain
    return found


def _scalar(value: object) -> str | int | float | bool | None:
    if isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else None
    if isinstance(value, str):
        return value.strip()[:MAX_VALUE]
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return None


def _values(block: str, mark: str) -> Mapping[object, object] | None:
    """None where the block is not what it looks like: then it is text."""
    if mark == "+":
        import tomllib  # imported late, as yaml below: few files have front matter

        try:
            return dict(tomllib.loads(block).items())
        except (tomllib.TOMLDecodeError, RecursionError):
            return None
    import yaml

    try:
        values = yaml.safe_load(block)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    return values if isinstance(values, dict) else None
