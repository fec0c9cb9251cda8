"""CommonMark as Discord's Markdown. Pure.

Discord has no tables, three levels of headings, no quotes in quotes, and one kind of fence. What pings is parted by an
invisible character, on top of `AllowedMentions.none()`; links stand in `<…>`, so that no preview is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from bots.rendering.addresses import APART, parted, without_addresses
from bots.rendering.blocks import Runs
from bots.rendering.commonmark import Signs, alone, one_word, write
from bots.rendering.compose import Dialect, composed, plainly, previewed
from bots.rendering.parts import Part, Rendered, utf16_units
from bots.rendering.tables import aligned
from core.types import Language, Source

_LIMIT: Final = 2000
"""UTF-16 units of a message."""
_PINGED: Final = ("everyone", "here", "!", "&", *"0123456789")
_TOKEN: Final = re.compile(r"<(?=[#@]|id:|/[\w -]{1,64}:\d)")
_SPECIAL: Final = re.compile(
    r"\\(?=[!-/:-@\[-`{-~]|\Z)|[*_]|~(?=~)|(?<=~)~|\|(?=\|)|(?<=\|)\||\](?=[(\[:])|<(?=[@#:/!?&A-Za-z])"
)


def render(text: str, *, sources: Sequence[Source] = (), notice: str = "", language: Language) -> Rendered:
    """The answer as messages of at most 2000 UTF-16 units."""
    return composed(text, _DISCORD, sources, notice, language)


def preview(text: str, status: str = "") -> Part:
    """The end of a text that is still arriving, and what is being done."""
    return previewed(text, status, _DISCORD)


def plain(text: str) -> Part:
    """The text without any markup."""
    return plainly(text, _DISCORD)


def _escape(text: str) -> str:
    return _SPECIAL.sub(lambda found: _sign(found, text), text).replace("`", "\\`")


def _sign(found: re.Match[str], text: str) -> str:
    sign, before, after = found[0], text[found.start() - 1 : found.start()], text[found.end() : found.end() + 1]
    if sign == "*" and before.isspace() and after.isspace():
        return sign
    if sign == "_" and before.isalnum() and after.isalnum():
        return sign
    return f"\\{sign}"


def _link(written: str, label: str, url: str) -> str:
    address = url if parted(url, _PINGED) == url else url.replace("@", "%40")
    return f"<{address}>" if "://" in label else f"[{written}](<{address}>)"


def _code(text: str) -> str:
    text = re.sub("`(?=`)", f"`{APART}", text)
    if "`" not in text:
        return f"`{text}`"
    return f"`` {text} ``"


def _fenced(lines: Sequence[str], language: str) -> list[str]:
    return [f"```{one_word(language)}", *(re.sub("`(?=`)", f"`{APART}", line) for line in lines), "```"]


def _safe(runs: Runs) -> Runs:
    return tuple(run.saying(_TOKEN.sub(f"<{APART}", parted(run.text, _PINGED))) for run in without_addresses(runs))


_SIGNS: Final = Signs(
    escaped=_escape,
    link=_link,
    code=_code,
    fenced=_fenced,
    heading=lambda level: "#" * level if level <= 3 else "",
    table=lambda rows: _fenced(aligned(rows), ""),
    rule="──────────",
    marker=lambda marker: "-" if marker in ("+", "*") else marker.replace(")", "."),
    simple=True,
)
_DISCORD: Final = Dialect(
    limit=_LIMIT,
    write=lambda blocks: Part(write(blocks, _SIGNS)),
    cost=lambda block: utf16_units(alone(block, _SIGNS)),
    safe=_safe,
)
