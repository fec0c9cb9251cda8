"""Telegram's text and entities: within limits, nested by its rules, nothing pinged or linked but what is meant."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings

from bots.rendering import telegram
from bots.rendering.parts import Entity, Part, utf16_units
from core.outbound import safe_markdown
from tests.bots.markdown_texts import (
    EXFILTRATION,
    FRAMES,
    GOOD,
    LONG_MARKDOWN,
    MARKDOWN,
    PINGS,
    bare,
    in_order,
    long_answer,
    said,
    source,
)

# What Telegram's servers make links and pings of by themselves, as its library does (td/telegram/MessageEntity.cpp).
FOUND_BY_ITSELF = re.compile(
    r"(?<![\w@])@[A-Za-z0-9_]{3,32}"
    r"|\b[a-z][a-z0-9+.-]*://[^\s]+"
    r"|\b(?:[\w-]+\.)+(?:com|org|net|md|py|sh|example)\b",
    re.IGNORECASE,
)


def cut(part: Part, entity: Entity) -> str:
    units = part.text.encode("utf-16-le")
    return units[2 * entity.offset : 2 * (entity.offset + entity.length)].decode("utf-16-le")


def check(part: Part) -> None:
    """Telegram's rules."""
    assert part.text.strip()
    assert utf16_units(part.text) <= 4096
    assert len(part.entities) <= 100
    assert part.text == part.text.rstrip()
    size = utf16_units(part.text)
    for entity in part.entities:
        assert entity.length > 0
        assert 0 <= entity.offset <= entity.offset + entity.length <= size
        assert cut(part, entity).strip()  # also fails where a pair of units is torn
        assert entity.url.startswith(("https://", "http://")) == (entity.type == "text_link")
    for at, outer in enumerate(part.entities):
        for inner in part.entities[at + 1 :]:
            assert outer.offset <= inner.offset
            if inner.offset >= outer.offset + outer.length:
                continue
            assert inner.offset + inner.length <= outer.offset + outer.length, "entities overlap by halves"
            assert outer.type not in ("code", "pre")
            assert inner.type != outer.type
            if inner.type in ("code", "pre"):
                assert outer.type == "blockquote"


def leads(part: Part) -> list[str]:
    """What Telegram would make links or pings of by itself."""
    units = [False] * utf16_units(part.text)
    for entity in part.entities:
        if entity.type in ("code", "pre", "text_link"):
            units[entity.offset : entity.offset + entity.length] = [True] * entity.length
    return [
        found[0]
        for found in FOUND_BY_ITSELF.finditer(part.text)
        if not any(units[utf16_units(part.text[: found.start()]) : utf16_units(part.text[: found.end()])])
    ]


@settings(max_examples=200, derandomize=True)
@given(MARKDOWN)
def test_any_text_is_a_valid_message(text: str) -> None:
    rendered = telegram.render(text, language="en")
    for part in (*rendered.parts, telegram.preview(text, "Reading…"), telegram.plain(text)):
        check(part)
        assert not leads(part)
    assert in_order(said(text), bare("".join(part.text for part in rendered.parts)))


@settings(max_examples=15, derandomize=True)
@given(LONG_MARKDOWN)
def test_long_texts_fit_into_several_messages(text: str) -> None:
    rendered = telegram.render(text, sources=[source(1, GOOD)], notice="Quoted.", language="en")
    for part in (*rendered.parts, telegram.preview(text, "Reading…"), telegram.plain(text)):
        check(part)
    assert in_order(said(text), bare("".join(part.text for part in rendered.parts)))


@pytest.mark.parametrize("frame", FRAMES)
def test_nobody_is_pinged(frame: str) -> None:
    for ping in PINGS:
        text = frame.format(ping)
        rendered = telegram.render(text, sources=[source(1, ping, ping)], notice=ping, language="en")
        for part in (*rendered.parts, telegram.preview(text, ping), telegram.plain(text)):
            check(part)
            assert not leads(part)


def test_links_lead_only_to_sources() -> None:
    for shape in EXFILTRATION:
        for part in telegram.render(safe_markdown(shape, {GOOD}), language="en").parts:
            check(part)
            assert not leads(part)
            assert all(entity.url.startswith(GOOD) for entity in part.entities if entity.url)


def test_an_answer_of_100000_characters_arrives_whole() -> None:
    text = long_answer()
    rendered = telegram.render(text, sources=[source(1)], notice="Quoted.", language="zh")
    assert all(utf16_units(part.text) <= 4096 and len(part.entities) <= 100 for part in rendered.parts)
    check(rendered.parts[0])
    assert in_order(said(text), bare("".join(part.text for part in rendered.parts)))


@pytest.mark.parametrize(
    ("text", "expected", "entities"),
    [
        ("# Head", "Head", [("bold", "Head")]),
        ("😀 **b *i*** ~~s~~", "😀 b i s", [("bold", "b "), ("bold", "i"), ("italic", "i"), ("strikethrough", "s")]),
        (f"[a **b**]({GOOD})", "a b", [("text_link", "a b"), ("bold", "b")]),
        (f"[`code`]({GOOD})", "code", [("text_link", "code")]),
        ("[x](tg://user?id=1) [y](mailto:a@example.org)", "x y", []),
        ("```py\n  x = 1\n```\nend", "  x = 1\nend", [("pre", "  x = 1")]),
        ("- a\n  - b\n- [ ] c\n\n1. d", "• a\n  ◦ b\n• [ ] c\n\n1. d", []),
        ("> a\n> `b`\n\nc", "a\nb\n\nc", [("blockquote", "a\nb"), ("code", "b")]),
        ("> a\n> > b\n\n> c", "a\nb\n\nc", [("blockquote", "a\nb"), ("blockquote", "c")]),
        ("<b>raw</b> &amp; a < b", "<b>raw</b> & a < b", []),
        (
            "see leave.md or @name, not e.g. this",
            "see leave.md or @name, not e.g. this",
            [("code", "leave.md"), ("code", "@name")],
        ),
        ("**注意：**请", "注意：请", [("bold", "注意：")]),
        ("| a | 单元 |\n|---|---|\n| 1 | 2 |", "a │ 单元\n──┼─────\n1 │ 2", [("pre", "a │ 单元\n──┼─────\n1 │ 2")]),
        ("", "…", []),
    ],
)
def test_what_is_written(text: str, expected: str, entities: list[tuple[str, str]]) -> None:
    (part,) = telegram.render(text, language="en").parts
    assert part.text == expected
    assert [(entity.type, cut(part, entity)) for entity in part.entities] == entities


def test_code_that_is_cut_stays_code() -> None:
    parts = telegram.render("```python\n" + "value = 1\n" * 1000 + "```", language="en").parts
    assert len(parts) == 3
    assert all([(entity.type, entity.language) for entity in part.entities] == [("pre", "python")] for part in parts)
    assert all(part.entities[0].length == len(part.text) for part in parts)


def test_many_entities_take_several_messages() -> None:
    parts = telegram.render("**a** b\n\n" * 250, language="en").parts
    assert len(parts) == 3
    assert sum(len(part.entities) for part in parts) == 250


def test_citations_and_sources_are_links() -> None:
    sources = [source(1, GOOD), source(2)]
    (part,) = telegram.render("28 days [1][2].", sources=sources, notice="Quoted.", language="en").parts
    assert part.text == (
        "28 days [1][2].\n\nSources\n[1] Leave — page 2, Days\n[2] Leave — handbook/leave.md, page 2, Days\n\nQuoted."
    )
    links = [(cut(part, entity), entity.url) for entity in part.entities if entity.url]
    assert links == [("[1]", GOOD), ("Leave", GOOD)]
