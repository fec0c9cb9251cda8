"""CommonMark as blocks of Telegram's rich messages, with headings, lists and tables of their own. Pure.

Every part is also there as a classic message, for servers and apps that know no rich ones; both hold the same.
Source: core.telegram.org/bots/api#inputrichmessage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from bots.rendering import telegram
from bots.rendering.blocks import HARD_BREAK, Block, Run, Runs
from bots.rendering.commonmark import one_word
from bots.rendering.compose import composed, previewed
from bots.rendering.parts import Part, Rendered
from core.types import JSON, Language, Source


@dataclass(frozen=True, slots=True)
class RichPart(Part):
    blocks: tuple[JSON, ...] = ()
    """As `InputRichMessage.blocks`."""


def render(text: str, *, sources: Sequence[Source] = (), notice: str = "", language: Language) -> Rendered:
    """As `telegram.render`, in rich parts."""
    return composed(text, _DIALECT, sources, notice, language)


def preview(text: str, status: str = "") -> Part:
    """The end of a text that is still arriving, and what is being done."""
    return previewed(text, status, _DIALECT)


def _written(blocks: Sequence[Block]) -> Part:
    classic = telegram.DIALECT.write(blocks)
    return RichPart(classic.text, classic.entities, tuple(_tree(blocks)))


_DIALECT = replace(telegram.DIALECT, write=_written)


def _tree(blocks: Sequence[Block]) -> list[JSON]:
    """The blocks within the quotes and lists that they stand in."""
    made: list[JSON] = []
    for box, together in groupby(blocks, key=lambda block: block.boxes[0] if block.boxes else None):
        inside = list(together)
        if box is None:
            made += [_block(block) for block in inside]
            continue
        content = _tree([replace(block, boxes=block.boxes[1:]) for block in inside])
        if not box.marker:
            made.append({"type": "blockquote", "blocks": content})
            continue
        item: JSON = {"blocks": content}
        if (number := box.marker[:-1]).isdecimal():
            item |= {"type": "1", "value": int(number)}
        if made and made[-1]["type"] == "list" and ("value" in made[-1]["items"][0]) == ("value" in item):
            made[-1]["items"].append(item)
        else:
            made.append({"type": "list", "items": [item]})
    return made


def _block(block: Block) -> JSON:
    match block.kind:
        case "heading":
            return {"type": "heading", "text": _rich(block.runs), "size": block.level}
        case "code":
            language = one_word(block.language)
            made: JSON = {"type": "pre", "text": "\n".join(block.lines)}
            return {**made, "language": language} if language else made
        case "table":
            cells = [[_cell(cell, is_header=number == 0) for cell in row] for number, row in enumerate(block.rows)]
            return {"type": "table", "cells": cells, "is_bordered": True}
        case "rule":
            return {"type": "divider"}
    return {"type": "paragraph", "text": _rich(block.runs)}


def _cell(runs: Runs, *, is_header: bool) -> JSON:
    cell: JSON = {"align": "left", "valign": "top", "text": _rich(runs)}
    return {**cell, "is_header": True} if is_header else cell


def _rich(runs: Runs) -> Any:
    """A text of one style as it is, of many as a list."""
    texts = [_run(run) for run in runs]
    return texts[0] if len(texts) == 1 else texts


def _run(run: Run) -> Any:
    made: Any = run.text.replace(HARD_BREAK, "\n")
    for style, is_so in (
        ("code", run.code),
        ("strikethrough", run.struck),
        ("italic", run.italic),
        ("bold", run.bold),
    ):
        if is_so:
            made = {"type": style, "text": made}
    return {"type": "url", "text": made, "url": run.url} if run.url else made
