"""What can be set for a knowledge base, and which values each may have; None stands for what the settings say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

from core.answering import sampling
from core.errors import UserError
from core.texts import tell
from core.types import SearchMode

LONGEST_DESCRIPTION: Final = 2000
LONGEST_INSTRUCTIONS: Final = 20_000
_NUMBERS: Final = {
    "top_k": (1, 50),
    "dense_weight": (0, 1),
    "min_evidence": (0, 1),
    "max_documents": (1, 10_000_000),
    "max_mb": (1, 10_000_000),
}
"""Field → its lowest and highest value; None is one too."""
_FRACTIONS: Final = ("dense_weight", "min_evidence")
_TEXTS: Final = {"description": LONGEST_DESCRIPTION, "instructions": LONGEST_INSTRUCTIONS}
_SWITCHES: Final = ("private", "title_enhance")
SIZES: Final = ("chunk_size", "chunk_overlap")
PARTS: Final = {"engine": "engine", "embedder": "embedder", "reranker": "reranker"}
"""Field → the kind of part that it names."""
FIELDS: Final = (*_TEXTS, *_SWITCHES, *SIZES, "mode", *_NUMBERS, *PARTS, "fallbacks", "sampling")
MOST_FALLBACKS: Final = 5
OF_INDEX: Final = frozenset({*SIZES, "title_enhance", "embedder"})
"""Those that hold for an index from its next re-index on."""


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same in their normal form. Raises UserError with the first one that cannot be so."""
    if unknown := sorted(values.keys() - set(FIELDS)):
        raise UserError(tell("no_kb_setting", names=", ".join(unknown)))
    return {field: _checked(field, value) for field, value in values.items()}


def check_sizes(chunk_size: int, chunk_overlap: int) -> None:
    """Raises UserError."""
    if not 32 <= chunk_size <= 8192:
        raise UserError(tell("bad_chunk_size"))
    if not 0 <= chunk_overlap <= chunk_size // 2:
        raise UserError(tell("bad_chunk_overlap"))


def _checked(field: str, value: Any) -> Any:
    if field in _NUMBERS:
        return _number(field, value)
    if field in _TEXTS:
        return _text(field, value)
    if field in _SWITCHES:
        fits = isinstance(value, bool)
    elif field in SIZES:
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif field == "fallbacks":
        return _names(field, value)
    elif field == "sampling":
        return _rules(value)
    elif field == "mode":
        fits = value is None or value in get_args(SearchMode)
    else:
        fits = value is None or (isinstance(value, str) and len(value) <= 64)
    if not fits:
        raise UserError(tell("bad_kb_setting", name=field))
    return value


def _names(field: str, value: Any) -> list[str] | None:
    """The names of engines, each once."""
    if value is None:
        return None
    fits = isinstance(value, (list, tuple)) and all(isinstance(one, str) and 0 < len(one) <= 64 for one in value)
    if not fits or len(value) > MOST_FALLBACKS:
        raise UserError(tell("bad_kb_setting", name=field))
    return list(dict.fromkeys(value))


def _rules(value: Any) -> list[str] | None:
    """An answer preset; an empty one is none."""
    if value is not None and not (isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)):
        raise UserError(tell("bad_kb_setting", name="sampling"))
    return sampling.normal(value) or None if value else None


def _number(field: str, value: Any) -> float | None:
    lowest, highest = _NUMBERS[field]
    if value is None:
        return None
    number: float | None = value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if number is None or not lowest <= number <= highest or (field not in _FRACTIONS and number != int(number)):
        raise UserError(tell("bad_kb_number", name=field, lowest=lowest, highest=highest))
    return number if field in _FRACTIONS else int(number)


def _text(field: str, value: Any) -> str | None:
    if value is None and field == "instructions":
        return None
    if not isinstance(value, str):
        raise UserError(tell("bad_kb_setting", name=field))
    if len(value) > _TEXTS[field]:
        raise UserError(tell("kb_text_too_long", name=field, most=_TEXTS[field]))
    return value.strip() or (None if field == "instructions" else "")
