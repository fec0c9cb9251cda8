"""Rich messages of Telegram: valid blocks, the same words as the classic message, links only to the web."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiogram.types import InputRichMessage
from hypothesis import given, settings

from bots.rendering import telegram, telegram_rich
from bots.rendering.parts import Part
from bots.rendering.telegram_rich import RichPart
from tests.bots.markdown_texts import EXFILTRATION, LONG_MARKDOWN, MARKDOWN, bare, in_order, said

_LEVELS = {"heading", "paragraph", "pre", "table", "divider", "blockquote", "list"}
_STYLES = {"bold", "italic", "strikethrough", "code", "url"}


def words(node: Any) -> Iterator[str]:
    """All texts below a block, in order."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, list | tuple):
        for each in node:
            yield from words(each)
    elif isinstance(node, dict):
        for key in ("text", "blocks", "items", "cells"):
            yield from words(node.get(key, ()))


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for each in node.values():
            yield from nodes(each)
    elif isinstance(node, list | tuple):
        for each in node:
            yield from nodes(each)


def check(part: Part) -> None:
    if not isinstance(part, RichPart):
        assert part.text == "…"
        return
    told = InputRichMessage.model_validate({"blocks": part.blocks, "skip_entity_detection": True})
    assert told.blocks
    assert sum(1 for _ in nodes(part.blocks)) < 20_000
    for node in nodes(part.blocks):
        assert node.get("type", "1") in _LEVELS | _STYLES | {"1"}
        assert node.get("url", "https://").startswith(("https://", "http://"))


@settings(max_examples=100, derandomize=True)
@given(MARKDOWN)
def test_any_text_is_a_valid_rich_message(text: str) -> None:
    rich, classic = (module.render(text, language="en") for module in (telegram_rich, telegram))
    assert [part.text for part in rich.parts] == [part.text for part in classic.parts]
    for part in (*rich.parts, telegram_rich.preview(text, "Reading…")):
        check(part)
    written = "".join("".join(words(part.blocks)) for part in rich.parts if isinstance(part, RichPart))
    assert in_order(bare(said(text)), bare(written))


@settings(max_examples=10, derandomize=True)
@given(LONG_MARKDOWN)
def test_long_texts_are_cut_as_classic_ones(text: str) -> None:
    rich, classic = (module.render(text, language="en") for module in (telegram_rich, telegram))
    assert [part.text for part in rich.parts] == [part.text for part in classic.parts]
    for part in rich.parts:
        check(part)


def test_nothing_leads_where_it_may_not() -> None:
    for shape in EXFILTRATION:
        for part in telegram_rich.render(shape, language="en").parts:
            check(part)


def test_lists_and_quotes_stand_in_each_other() -> None:
    text = (
        "> 1. one\n>    - inner\n> 2. two\n\n- a\n\n1. b\n\n```py\nx = 1\n```\n\n---\n\n[site](https://example.org/a)"
    )
    (part,) = telegram_rich.render(text, language="en").parts
    assert isinstance(part, RichPart)
    quote, bullets, numbers, code, rule, paragraph = part.blocks
    (ordered,) = quote["blocks"]
    assert [item["value"] for item in ordered["items"]] == [1, 2]
    assert ordered["items"][0]["blocks"][1]["items"][0]["blocks"] == [{"type": "paragraph", "text": "inner"}]
    assert (len(bullets["items"]), len(numbers["items"])) == (1, 1)
    assert code == {"type": "pre", "text": "x = 1", "language": "py"}
    assert rule == {"type": "divider"}
    assert paragraph["text"]["url"] == "https://example.org/a"
