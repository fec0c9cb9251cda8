"""Kvasir's own words, in English and Simplified Chinese."""

from __future__ import annotations

import locale
import os
from typing import Final

from core.types import Language

CATALOGUE: Final[dict[str, tuple[str, str]]] = {
    # key: (English, 简体中文)
    "no_kb": (
        "There is no knowledge base named «{name}». «kvasir kb list» shows those there are.",
        "没有名为“{name}”的知识库。用 “kvasir kb list” 查看现有的知识库。",
    ),
    "keyword_only": (
        "Search works by keywords alone until the embedding model is there: {reason}",
        "嵌入模型就绪之前只能按关键词搜索：{reason}",
    ),
}


def say(key: str, language: Language, **values: object) -> str:
    """The text of `key` in `language`, its `{names}` filled in."""
    english, chinese = CATALOGUE[key]
    text = chinese if language == "zh" else english
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def system_language() -> Language:
    """The language of this machine's user."""
    name = (
        os.environ.get("LC_ALL")
        or os.environ.get("LC_MESSAGES")
        or os.environ.get("LANG")
        or locale.getlocale()[0]
        or ""
    )
    return "zh" if name.lower().startswith("zh") else "en"


def text_language(text: str) -> Language:
    """The language a text is written in: `zh` where at least a fifth of its letters are Han characters."""
    letters = [char for char in text if char.isalpha()]
    han = sum("\u4e00" <= char <= "\u9fff" or "\u3400" <= char <= "\u4dbf" for char in letters)
    return "zh" if letters and han * 5 >= len(letters) else "en"
