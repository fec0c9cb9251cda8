"""CommonMark for Slack's `markdown` block and `markdown_text`. Pure. (Places without them take `mrkdwn.py`.)

Slack reads its own `<…>` tokens in a markdown block too, so no `<` of a text stays; `&` stays where it begins no
character reference. In code, where references are not read, an invisible character parts what would be a token.
Sources: docs.slack.dev/reference/block-kit/blocks/markdown-block, docs.slack.dev/messaging/formatting-message-text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from bots.rendering.addresses import APART, parted, without_addresses
from bots.rendering.blocks import Run, Runs
from bots.rendering.commonmark import Signs, alone, code, fenced, inline, write
from bots.rendering.compose import Dialect, composed, plainly, previewed
from bots.rendering.parts import Part, Rendered, utf16_units
from core.types import Language, Source

_LIMIT: Final = 12_000
"""Characters in the markdown of one message, all blocks together."""
_PINGED: Final = ("channel", "here", "everyone", "group")
_WIDE_TOKEN: Final = re.compile("[＜﹤](?=[!！@＠﹫#＃])")
_TOKEN: Final = re.compile(r"<(?=[!@#]|[A-Za-z][A-Za-z0-9+.-]{0,20}:)")
_SPECIAL: Final = re.compile(r"\\(?=[!-/:-@\[-`{-~]|\Z)|[*_]|~(?=~)|\](?=[(\[:])|!(?=\[)|&(?=#?[A-Za-z0-9]{1,32};)")
_SIGNS_ALIKE: Final = {"&": "&amp;", "~": f"~{APART}"}


def render(text: str, *, sources: Sequence[Source] = (), notice: str = "", language: Language) -> Rendered:
    """The answer for `markdown` blocks or `markdown_text`: a part is the whole markdown of one message."""
    return composed(text, _MARKDOWN, sources, notice, language)


def preview(text: str, status: str = "") -> Part:
    """The end of a text that is still arriving, and what is being done."""
    return previewed(text, status, _MARKDOWN)


def plain(text: str) -> Part:
    """The text without any markup, for a `markdown` block."""
    return plainly(text, _MARKDOWN)


def streamed(piece: str) -> str:
    """A piece of `core.outbound`'s text for `chat.appendStream`; harmless however the text is cut into pieces."""
    apart = re.sub(r"<(?=[!@#A-Za-z]|\Z)", f"<{APART}", piece)
    return re.sub("[@＠﹫](?=[A-Za-z]|\\Z)", lambda found: f"{found[0]}{APART}", apart)


def disarmed(text: str) -> str:
    """A text with `@channel` and its like parted, in whatever letters they are written."""
    return _WIDE_TOKEN.sub(f"\\g<0>{APART}", parted(text, _PINGED))


# ---------------------------------------------------------------- Markdown
def _escape(text: str) -> str:
    written = _SPECIAL.sub(lambda found: _sign(found, text), text)
    return written.replace("`", "\\`").replace("<", "&lt;").replace(">", "&gt;")


def _sign(found: re.Match[str], text: str) -> str:
    sign, begin, end = found[0], found.start(), found.end()
    if sign in _SIGNS_ALIKE:
        return _SIGNS_ALIKE[sign]
    before, after = text[begin - 1 : begin], text[end : end + 1]
    if sign == "*" and before.isspace() and after.isspace():
        return sign
    if sign == "_" and before.isalnum() and after.isalnum():
        return sign
    return f"\\{sign}"


def _link(written: str, label: str, url: str) -> str:
    address = url.replace("&", "&amp;") if re.search(r"&#?\w+;", url) else url
    return f"<{address}>" if label == url else f"[{written}]({address})"


def _table(rows: Sequence[Sequence[Runs]]) -> list[str]:
    lines = [[" ".join(inline(cell, _SIGNS).replace("|", "\\|").split()) for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (lines[0], ["---"] * len(lines[0]), *lines[1:])]


def _safe(runs: Runs) -> Runs:
    """Addresses without links as code, and everything apart that Slack could take for its own tokens."""
    return tuple(run.saying(_in_code(run)) for run in without_addresses(runs, files=True))


def _in_code(run: Run) -> str:
    text = disarmed(run.text)
    return _TOKEN.sub(f"<{APART}", text) if run.code else text


_SIGNS: Final = Signs(
    escaped=_escape,
    link=_link,
    code=code,
    fenced=fenced,
    heading=lambda level: "#" * level,
    table=_table,
    hard_break="  \n",
)
_MARKDOWN: Final = Dialect(
    limit=_LIMIT,
    write=lambda blocks: Part(write(blocks, _SIGNS)),
    cost=lambda block: utf16_units(alone(block, _SIGNS)),
    safe=_safe,
)
