"""An answer as text for a terminal. Pure."""

from __future__ import annotations

import io
from typing import Final

from rich.console import Console
from rich.markdown import Markdown
from rich.padding import Padding
from rich.text import Text

from core.outbound import visible
from core.texts import place_of, say
from core.types import Finished, Language, Source

_NARROWEST: Final = 20
_SNIPPET: Final = 160
"""Characters shown of a passage."""


def rendered(finished: Finished, language: Language, *, width: int, color: bool = False) -> str:
    """The whole answer: text, notice, and its numbered sources with their place; no line wider than `width` cells."""
    console, written = _console(width, color)
    console.print(Markdown(visible(finished.text), hyperlinks=False))
    if finished.notice:
        console.print()
        console.print(Text(visible(finished.notice), style="dim italic"))
    if finished.sources:
        console.print()
        console.print(Text(say("word_sources", language), style="bold"))
        for source in finished.sources:
            console.print(_source(source, language))
            console.print(Padding(Text(snippet(source.passage.text), style="dim"), (0, 0, 0, 4)))
    return _trimmed(written.getvalue(), color)


def tail(text: str, *, width: int, height: int) -> str:
    """The end of a text that is still arriving, as much as fits."""
    console, written = _console(width, color=False)
    console.print(Text(visible(text)))
    return "\n".join(_trimmed(written.getvalue(), color=False).splitlines()[-height:])


def source_line(source: Source, language: Language) -> str:
    """`[1] Leave — handbook/leave.md, page 2, Annual leave`."""
    passage = source.passage
    place = place_of(passage.locator, passage.headings, language)
    where = ("，" if language == "zh" else ", ").join(part for part in (passage.document, place) if part)
    title = f"{passage.title} — " if passage.title and passage.title != passage.document else ""
    return f"[{source.n}] " + " ".join(visible(f"{title}{where}").split())


def snippet(text: str, limit: int = _SNIPPET) -> str:
    """The beginning of a passage on one line."""
    line = " ".join(visible(text).split())
    if len(line) <= limit:
        return line
    head = line[: limit - 1]
    blank = head.rfind(" ")
    return (head[:blank] if blank > limit // 2 else head) + "…"


def _source(source: Source, language: Language) -> Text:
    return Text(source_line(source, language), style="cyan")


def _console(width: int, color: bool) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    console = Console(
        file=written,
        width=max(width, _NARROWEST),
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        _environ={},
    )
    return console, written


def _trimmed(text: str, color: bool) -> str:
    """Without the blanks rich fills lines up with."""
    lines = text.strip("\n").rstrip().splitlines()
    return "\n".join(line if color else line.rstrip() for line in lines)
