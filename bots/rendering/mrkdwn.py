"""CommonMark as Slack's mrkdwn, for what takes no `markdown` block: ephemeral texts, sections, notifications. Pure.

Only `&`, `<` and `>` can be escaped there; a backtick of the text becomes one that looks alike, so that code ends where
it should, and other signs stand as they are.
Source: docs.slack.dev/messaging/formatting-message-text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bots.rendering.addresses import without_addresses
from bots.rendering.blocks import Runs, blocks_of
from bots.rendering.commonmark import Signs, alone, write
from bots.rendering.compose import CUT, Dialect, composed, plainly, previewed
from bots.rendering.parts import Part, Rendered, utf16_units
from bots.rendering.slack import disarmed
from bots.rendering.tables import aligned
from core.types import Language, Source

_LIMIT: Final = 3000
"""Characters of a section, the smallest place; `text` takes more."""
_NOTIFICATION: Final = 200
_BACKTICK: Final = "ˋ"
_BULLETS: Final = frozenset("-*+")


def render(text: str, *, sources: Sequence[Source] = (), notice: str = "", language: Language) -> Rendered:
    """The answer for `text` or mrkdwn sections."""
    return composed(text, _MRKDWN, sources, notice, language)


def preview(text: str, status: str = "") -> Part:
    """The end of a text that is still arriving, and what is being done."""
    return previewed(text, status, _MRKDWN)


def plain(text: str) -> Part:
    """The text without any markup."""
    return plainly(text, _MRKDWN)


def notification(text: str) -> str:
    """The beginning of a text on one line, for `text` beside blocks; never empty."""
    said: list[str] = []
    for block in blocks_of(text[: 10 * _NOTIFICATION]):
        said += ["".join(run.text for run in block.runs), *block.lines]
        said += ["".join(run.text for run in cell) for row in block.rows for cell in row]
    line = " ".join(" ".join(said).split())
    short = line if len(line) <= _NOTIFICATION else line[: _NOTIFICATION - 1] + CUT
    return _escape(disarmed(short)) or CUT


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("`", _BACKTICK)


def _code(text: str) -> str:
    return f"`{_escape(text)}`"


def _fenced(lines: Sequence[str], language: str) -> list[str]:  # noqa: ARG001  # mrkdwn has no languages
    return ["```", *map(_escape, lines), "```"]


def _link(written: str, label: str, url: str) -> str:  # noqa: ARG001  # a label has no styles
    return f"<{_escape(url)}|{_escape(' '.join(label.split()))}>"


def _safe(runs: Runs) -> Runs:
    return tuple(run.saying(disarmed(run.text)) for run in without_addresses(runs, files=True))


_SIGNS: Final = Signs(
    escaped=_escape,
    link=_link,
    code=_code,
    fenced=_fenced,
    heading=lambda level: "",  # noqa: ARG005  # bold, whatever its level
    table=lambda rows: _fenced(aligned(rows), ""),
    rule="──────────",
    marker=lambda marker: "•" if marker in _BULLETS else marker,
    bold="*",
    italic="_",
    struck="~",
    simple=True,
    backslashes=False,
)
_MRKDWN: Final = Dialect(
    limit=_LIMIT,
    write=lambda blocks: Part(write(blocks, _SIGNS)),
    cost=lambda block: utf16_units(alone(block, _SIGNS)),
    safe=_safe,
)
