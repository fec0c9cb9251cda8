"""Texts of chunks that another system's index held, and the document they make where its original is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MOST_CHARACTERS: Final = 300_000_000
"""Of all texts of one index."""
_OVERLAP: Final = 1000
_LEAST: Final = 8


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of one chunk."""

    text: str
    source: str
    """The document it is of, as the index names it; may be empty."""


def joined(texts: Sequence[str]) -> str:
    """One text of chunks in their order; what the end of one and the beginning of the next share stands once."""
    parts: list[str] = []
    before = ""
    for text in map(str.strip, texts):
        shared = _shared(before, text)
        parts += [text[shared:]] if shared or not parts else ["\n\n", text]
        before = text
    return "".join(parts)


def _shared(before: str, after: str) -> int:
    """Length of the longest end of the one that begins the other; chance makes short ones, which do not count."""
    longest = min(len(before), len(after), _OVERLAP)
    return next((size for size in range(longest, _LEAST - 1, -1) if before.endswith(after[:size])), 0)
