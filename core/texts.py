"""Kvasir's own words, in English and Simplified Chinese."""

from __future__ import annotations

import locale
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
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
    # accounts
    "user_exists": ("There is already a user named «{name}».", "已有名为“{name}”的用户。"),
    "no_user": ("There is no user named «{name}».", "没有名为“{name}”的用户。"),
    "last_owner": (
        "«{name}» is the only owner left; make somebody else an owner first.",
        "“{name}”是唯一的所有者，请先指定另一位所有者。",
    ),
    "bad_user_name": (
        "A user name has 1 to 100 letters, digits or the signs . _ - @ +",
        "用户名须为 1 到 100 个字母、汉字、数字或 . _ - @ + 符号。",
    ),
    "password_short": ("The password needs at least {least} characters.", "密码至少需要 {least} 个字符。"),
    "password_long": ("The password may have at most {most} characters.", "密码最多 {most} 个字符。"),
    "password_simple": (
        "The password is too easy to guess; do not use the name, or the same few characters again and again.",
        "密码太容易被猜到：不要使用用户名，也不要反复使用同样几个字符。",
    ),
    "login_refused": (
        "The name or the password is wrong, or there were too many tries; wait a minute before the next one.",
        "用户名或密码不正确，或尝试次数过多；请等一分钟再试。",
    ),
    "login_needed": ("Log in first.", "请先登录。"),
    "not_allowed": ("You may not do this; ask an administrator.", "您没有权限执行此操作，请联系管理员。"),
    "setup_link_used": (
        "This set-up link is not valid any more; start Kvasir again to get a new one.",
        "此初始化链接已失效；请重新启动 Kvasir 以获取新链接。",
    ),
    "key_needs_scope": ("An API key needs at least one scope.", "API 密钥至少需要一个权限范围。"),
    "no_key": ("There is no API key «{id}» in use.", "没有正在使用的 API 密钥“{id}”。"),
}


def say(key: str, language: Language, **values: object) -> str:
    """The text of `key` in `language`, its `{names}` filled in."""
    english, chinese = CATALOGUE[key]
    text = chinese if language == "zh" else english
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return text


_spoken: ContextVar[Language] = ContextVar("_spoken")


@contextmanager
def speaking(language: Language) -> Iterator[None]:
    """Within it `tell` uses `language`: that of one request, command or message."""
    token = _spoken.set(language)
    try:
        yield
    finally:
        _spoken.reset(token)


def tell(key: str, **values: object) -> str:
    """`say` in the language being spoken; outside `speaking`, English."""
    return say(key, _spoken.get("en"), **values)


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
