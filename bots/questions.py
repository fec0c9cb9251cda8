"""Whether something said in a channel, not to us, is a question that we might answer."""

from __future__ import annotations

import re
from typing import Final

_LONGEST: Final = 600
_SHORTEST: Final = 6
_ENGLISH: Final = re.compile(
    r"\s*(?:(?:hi|hello|hey|please|so|and|ok)[,!. ]+)?(?:what|who|whom|whose|when|where|which|why|how|is|are|was|were"
    r"|do|does|did|can|could|may|should|would|will|has|have|am)\b",
    re.IGNORECASE,
)
_CHINESE: Final = re.compile(
    "吗|呢|什么|怎么|怎样|如何|哪[里儿个些]|为什么|为何|多少|几[个天次时点]|谁|是否|能否|可否|有没有|是不是"
)


def looks_like_question(text: str) -> bool:
    """By its mark at the end of a sentence, or by how it begins (English) or what it holds (Chinese)."""
    text = text.strip()
    width = len(text) + 3 * sum("\u3400" <= char <= "\u9fff" for char in text)
    if width < _SHORTEST or len(text) > _LONGEST:
        return False
    if re.search(r"[?？](?:\s|$|[)）」』\"”])", text):
        return True
    return bool(_CHINESE.search(text)) or (bool(_ENGLISH.match(text)) and len(text.split()) > 3)
