"""What every renderer does alike: reads the text, links its citations, adds sources and notice, and splits. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bots.rendering.blocks import Block, Run, Runs, as_written, blocks_of, clean, joined, safe_url
from bots.rendering.parts import Part, Rendered
from bots.rendering.split import split
from core.texts import place_of, say
from core.types import Language, Source

_CITATION: Final = re.compile(r"[\[【]\s{0,3}\^?\d{1,3}(?:\s{0,3}[,，、;；–-]\s{0,3}\^?\d{1,3}){0,30}\s{0,3}[\]】]")
_NUMBER: Final = re.compile(r"\d{1,3}")
_LONGEST_TITLE: Final = 160
_LEAST_SHOWN: Final = 8
"""A preview shows one part in so many of the room at least, however much its markup takes."""
_FENCE: Final = re.compile(
    r"^ {0,12}(?:(?:[-*+]|\d{1,9}[.)]) {1,4})?(`{3,99}(?=[^`\n]{0,200}$)|~{3,99}(?=[^~\n]{0,200}$)).*", re.MULTILINE
)
CUT: Final = "…"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one place writes blocks."""

    limit: int
    """The most that a part may have, in the unit of `cost`."""
    write: Callable[[Sequence[Block]], Part]
    cost: Callable[[Block], int]
    """What a block takes of a part at most, line ends before it included."""
    safe: Callable[[Runs], Runs] = lambda runs: runs
    """The runs with what this place would make a ping or a link of made harmless."""


def composed(
    text: str, dialect: Dialect, sources: Sequence[Source] = (), notice: str = "", language: Language = "en"
) -> Rendered:
    """The whole answer."""
    urls = {source.n: url for source in sources if (url := safe_url(source.passage.document))}
    blocks = [_made_safe(_with_citations(block, urls), dialect) for block in blocks_of(text)]
    parts = split(blocks, dialect.limit, dialect.cost)
    footer = [_made_safe(block, dialect) for block in _footer(sources, notice, language)]
    if footer and parts and sum(map(dialect.cost, (*parts[-1], *footer))) <= dialect.limit:
        parts[-1] = [*parts[-1], *footer]
    else:
        parts += split(footer, dialect.limit, dialect.cost)
    written = [part for part in map(dialect.write, parts) if part.text.strip()]
    return Rendered(tuple(written) or (Part(CUT),))


def previewed(text: str, status: str, dialect: Dialect) -> Part:
    """The end of a text that is still arriving, and under it what is being done, in one part."""
    below = [_made_safe(Block("text", (Run(said, italic=True),)), dialect) for said in _lines(status)]
    more = Block("text", (Run(CUT),))
    room = dialect.limit - sum(map(dialect.cost, (more, *below)))
    most = room
    while True:
        tail, cut = _tail(text, most)
        blocks = [_made_safe(block, dialect) for block in blocks_of(tail)]
        parts = split(blocks, room, dialect.cost)
        if len(parts) <= 1 or most < room // _LEAST_SHOWN:
            break
        most = most * 2 // 3
    shown = parts[-1] if parts else []
    part = dialect.write([*([more] if cut or len(parts) > 1 else []), *shown, *below])
    return part if part.text.strip() else Part(CUT)


def plainly(text: str, dialect: Dialect) -> Part:
    """The text as it is written, markup and all, as one part; cut where it is too long."""
    blocks = [_made_safe(block, dialect) for block in as_written(text)]
    more = Block("text", (Run(CUT),), apart=False)
    parts = split(blocks, dialect.limit - dialect.cost(more), dialect.cost)
    part = dialect.write([*parts[0], more] if len(parts) > 1 else [*parts[0]]) if parts else Part("")
    return part if part.text.strip() else Part(CUT)


def _made_safe(block: Block, dialect: Dialect) -> Block:
    rows = tuple(tuple(dialect.safe(cell) for cell in row) for row in block.rows)
    lines = block.lines
    if lines:
        safe = "".join(run.text for run in dialect.safe((Run("\n".join(lines), code=True),)))
        lines = tuple(safe.split("\n"))
    return replace(block, runs=dialect.safe(block.runs), rows=rows, lines=lines)


def _tail(text: str, most: int) -> tuple[str, bool]:
    """The end of the text, from the beginning of a line where there is one; code that goes on there begins anew."""
    if len(text) <= most:
        return text, False
    begin = text.find("\n", len(text) - most, len(text) - most // 2) + 1 or len(text) - most
    opening = mark = ""
    for found in _FENCE.finditer(text):
        if found.start() >= begin and not opening:
            break
        if not opening:
            mark, opening = found[1], found[0][found.start(1) - found.start() :]
        elif found[1].startswith(mark) and not found[0].strip().strip(mark[0]):
            if found.start() >= begin:  # without what stood before, it closes at the margin only
                return f"{opening}\n{text[begin : found.start()]}{mark}{text[found.end() :]}", True
            opening = ""
    return (f"{opening}\n{text[begin:]}" if opening else text[begin:]), True


# ---------------------------------------------------------------- sources
def _with_citations(block: Block, urls: Mapping[int, str]) -> Block:
    """`[1]` as a link to its source, where that has an address."""
    if not urls:
        return block
    rows = tuple(tuple(_linked(cell, urls) for cell in row) for row in block.rows)
    return replace(block, runs=_linked(block.runs, urls), rows=rows)


def _linked(runs: Runs, urls: Mapping[int, str]) -> Runs:
    made: list[Run] = []
    for run in runs:
        if run.code or run.url:
            made.append(run)
            continue
        at = 0
        for found in _CITATION.finditer(run.text):
            made.append(run.saying(run.text[at : found.start()]))
            made += _citation(run, found[0], urls)
            at = found.end()
        made.append(run.saying(run.text[at:]))
    return joined(made)


def _citation(run: Run, cited: str, urls: Mapping[int, str]) -> list[Run]:
    numbers = list(_NUMBER.finditer(cited))
    if len(numbers) == 1:
        return [run.saying(cited, url=urls.get(int(numbers[0][0]), ""))]
    made: list[Run] = []
    at = 0
    for number in numbers:
        made.append(run.saying(cited[at : number.start()]))
        made.append(run.saying(number[0], url=urls.get(int(number[0]), "")))
        at = number.end()
    return [*made, run.saying(cited[at:])]


def _footer(sources: Sequence[Source], notice: str, language: Language) -> list[Block]:
    made: list[Block] = []
    if sources:
        made.append(Block("text", (Run(say("word_sources", language), bold=True),)))
        made += [Block("text", _source(source, language), apart=False) for source in sources]
    return made + [Block("text", (Run(said, italic=True),)) for said in _lines(notice)]


def _source(source: Source, language: Language) -> Runs:
    """`[1] Leave — handbook/leave.md, page 2, Annual leave`; a title leads to its document's address, if it has one."""
    passage = source.passage
    url = safe_url(passage.document)
    document, title = _short(passage.document), _short(passage.title)
    place = _short(place_of(passage.locator, passage.headings, language))
    if url:
        rest = f" — {place}" if place else ""
        return joined((Run(f"[{source.n}] "), Run(title or _short(url), url=url), Run(rest)))
    where = ("，" if language == "zh" else ", ").join(part for part in (document, place) if part)
    return (Run(f"[{source.n}] " + (f"{title} — " if title and title != document else "") + where),)


def _short(text: str) -> str:
    line = " ".join(clean(text).split())
    return line if len(line) <= _LONGEST_TITLE else line[: _LONGEST_TITLE - 1] + CUT


def _lines(text: str) -> list[str]:
    line = " ".join(clean(text).split())
    return [line] if line else []
