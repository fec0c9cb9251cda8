"""CommonMark as Telegram's text with entities. Pure.

Telegram itself makes links and pings of `@name`, `site.com` and `leave.md` in a text; as code they stay words.
Rules: core.telegram.org/bots/api#formatting-options (no entity in code; all others nest and never overlap by halves).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from bots.rendering.addresses import without_addresses
from bots.rendering.blocks import HARD_BREAK, Block, Box, Runs
from bots.rendering.commonmark import one_word
from bots.rendering.compose import Dialect, composed, plainly, previewed
from bots.rendering.parts import Entity, EntityType, Part, Rendered, utf16_units
from bots.rendering.tables import aligned
from core.types import Language, Source

_LIMIT: Final = 4096
"""UTF-16 units of a message."""
_ENTITY_COST: Final = 41
"""So much of the limit an entity takes, which makes at most 99 of them; Telegram allows 100."""
_BULLETS: Final = "•◦▪"
_RULE: Final = "──────────"


def render(text: str, *, sources: Sequence[Source] = (), notice: str = "", language: Language) -> Rendered:
    """The answer as messages of at most 4096 UTF-16 units and 100 entities."""
    return composed(text, DIALECT, sources, notice, language)


def preview(text: str, status: str = "") -> Part:
    """The end of a text that is still arriving, and what is being done."""
    return previewed(text, status, DIALECT)


def plain(text: str) -> Part:
    """The text as it is written; the only entities keep words from being links and pings."""
    return plainly(text, DIALECT)


@dataclass
class _Page:
    """A text that is being written."""

    written: list[str] = field(default_factory=list)
    entities: list[Entity] = field(default_factory=list)
    size: int = 0

    def add(self, text: str, *types: EntityType, language: str = "") -> None:
        """Write a text, as all of these types, outermost first."""
        length = utf16_units(text)
        if text.strip():
            self.entities += [Entity(kind, self.size, length, language=language) for kind in types]
        self.written.append(text)
        self.size += length

    def span(self, kind: EntityType, begin: int, url: str = "") -> None:
        """Everything from `begin` on is of this type."""
        if self.size > begin:
            self.entities.append(Entity(kind, begin, self.size - begin, url))


def _written(blocks: Sequence[Block]) -> Part:
    page = _Page()
    begun: set[int] = set()
    before: Block | None = None
    for quote, together in groupby(blocks, key=_quote):
        quoted = list(together)
        begin = page.size
        for at, block in enumerate(quoted):
            begun |= {box.id for box in block.boxes[len(block.boxes) - block.opens :]}
            if before is not None:
                page.add("\n\n" if block.apart else "\n")
                begin = begin if at else page.size
            _write(block, [box for box in block.boxes if box.marker and box.id in begun], page)
            before = block
        if quote is not None:
            page.span("blockquote", begin)
    entities = sorted(page.entities, key=lambda entity: (entity.offset, -entity.length))
    return _without_end("".join(page.written), entities)


def _quote(block: Block) -> int | None:
    """The outermost quote it stands in; quotes do not nest."""
    return next((box.id for box in block.boxes if not box.marker), None)


def _without_end(text: str, entities: Sequence[Entity]) -> Part:
    """Without blanks at the end, which Telegram takes away too."""
    stripped = text.rstrip()
    size = utf16_units(stripped)
    kept: list[Entity] = []
    for entity in entities:
        length = min(entity.length, size - entity.offset)
        if length > 0:
            kept.append(Entity(entity.type, entity.offset, length, entity.url, entity.language))
    return Part(stripped, tuple(kept))


def _write(block: Block, items: Sequence[Box], page: _Page) -> None:
    opened = {box.id for box in block.boxes[len(block.boxes) - block.opens :]}
    indent = "\n" + _indent(items, ())
    if opened & {box.id for box in items} or block.kind not in ("code", "table"):
        page.add(_indent(items, opened))
    if block.kind == "rule":
        page.add(_RULE)
    elif block.kind in ("code", "table"):
        if any(box.id in opened for box in items):
            page.add("\n")
        lines = list(block.lines) if block.kind == "code" else aligned(block.rows)
        page.add("\n".join(lines), "pre", language=one_word(block.language))
    else:
        _write_runs(block.runs, indent, page, heading=block.kind == "heading")


def _indent(items: Sequence[Box], opened: set[int] | tuple[()]) -> str:
    written: list[str] = []
    for depth, box in enumerate(items):
        sign = _BULLETS[min(depth, len(_BULLETS) - 1)] if box.marker in ("-", "*", "+") else box.marker
        written.append(f"{sign} " if box.id in opened else " " * (len(sign) + 1))
    return "".join(written)


def _write_runs(runs: Runs, indent: str, page: _Page, *, heading: bool) -> None:
    for url, together in groupby(runs, key=lambda run: run.url):
        begin = page.size
        for run in together:
            text = run.text.replace(HARD_BREAK, "\n").replace("\n", indent)
            if run.code and not url:
                page.add(text, "code")
                continue
            types: list[EntityType] = []
            if run.bold or heading:
                types.append("bold")
            if run.italic:
                types.append("italic")
            if run.struck:
                types.append("strikethrough")
            page.add(text, *types)
        if url:
            page.span("text_link", begin, url)


def _cost(block: Block) -> int:
    page = _Page()
    _write(block, [box for box in block.boxes if box.marker], page)
    quotes = any(not box.marker for box in block.boxes)
    return max(page.size + 2, _ENTITY_COST * (len(page.entities) + quotes))


DIALECT: Final = Dialect(
    limit=_LIMIT,
    write=_written,
    cost=_cost,
    safe=lambda runs: without_addresses(runs, names=True),
)
