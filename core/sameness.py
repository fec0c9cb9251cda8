"""Whether two questions are the same. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from core.analyzer import is_unspaced

_ENDS: Final = " \t.,;:!?\"'`*_“”‘’«»()[]{}…。，、；：？！《》「」『』（）【】¿¡~～"
_FIRST: Final = re.compile(
    r"^(?:(?:hi|hello|hey|dear|please|pls|excuse me|ok|okay|so|um)\b[\s,!.:]*"
    r"|(?:您好|你好|嗨|喂|请问一下|请问|請問|麻烦问一下)[\s，,！!。.：:]*)+",
    re.IGNORECASE,
)
_LAST: Final = re.compile(
    r"(?:[\s,.!?，。！？]*(?:\b(?:please|pls|thanks|thank you|thx|kvasir)\b|谢谢您|谢谢|謝謝|多谢))+[\s.!。！]*$",
    re.IGNORECASE,
)
_WIDE: Final = re.compile("[、。，；：？！“”‘’…《》「」『』【】（）]+")


def normalised(question: str) -> str:
    """The question without what makes no difference: case, width, blanks, marks at the ends of words, politeness."""
    text = unicodedata.normalize("NFKC", _WIDE.sub(" ", question)).strip()
    text = _LAST.sub("", _FIRST.sub("", text)) or text
    words = [word.strip(_ENDS) for word in text.casefold().split()]
    words = [word for word in words if word]
    joined = ""
    for word in words:
        between = " " if joined and not (is_unspaced(joined[-1]) or is_unspaced(word[0])) else ""
        joined += between + word
    return joined


class Asked:
    """A question as it is compared with others."""

    def __init__(self, text: str) -> None:
        self.normal = normalised(text)
