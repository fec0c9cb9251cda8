"""What a loader is told besides the bytes, and the sentences it says when it cannot read them."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from core.errors import DocumentError
from core.texts import say
from core.types import Language

LANGUAGE: ContextVar[Language] = ContextVar("LANGUAGE", default="en")
"""Language of the sentences below; `core.loaders.load` sets it."""


def nothing() -> None:
    """What is called where nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a file is to be read."""

    ocr: bool = False
    """Read pictures and pages without a text layer, where the `[ocr]` extra is installed."""
    limit: int = 20_000_000
    """Characters to take at most; a loader may stop early once it has as many."""
    ocr_seconds: float = 900
    """Time for reading pictures; what has not been read by then is left out with a note."""
    ocr_begins: Callable[[], None] = nothing
    """Called once before the first picture is read, since that takes minutes rather than seconds."""


def problem(key: str, **values: object) -> DocumentError:
    """The error `document_<key>` of `core/texts.py`, to be raised."""
    return DocumentError(sentence(f"document_{key}", **values))


def sentence(key: str, **values: object) -> str:
    return say(key, LANGUAGE.get(), **values)
