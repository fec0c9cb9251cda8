"""Discord's Markdown: within 2000 units, nobody pinged, every fence closed."""

from __future__ import annotations

import re
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from rich.cells import cell_len

from bots.rendering import discord
from bots.rendering.parts import Part, utf16_units
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

CODE = re.compile(r"```.*?```|``.*?``|(?<!\\)`[^`]*`", re.DOTALL)


def pings(text: str) -> list[str]:
    """What Discord would make a mention of, even if it folded characters as it is not known to."""
    return re.findall(r"@(?:everyone|here)|<[@#][!&]?\d|<@", normalize("NFKC", text).casefold())


def check(part: Part) -> None:
    assert 0 < utf16_units(part.text) <= 2000
    assert part.text.strip()
    assert part.text.count("```") % 2 == 0
    assert not pings(part.text)
    assert not part.entities
    part.text.encode()


@settings(max_examples=150, derandomize=True)
@given(MARKDOWN)
def test_any_text_is_a_valid_message(text: str) -> None:
    rendered = discord.render(text, language="en")
    for part in (*rendered.parts, discord.preview(text, "Reading…"), discord.plain(text)):
        check(part)
    assert in_order(bare(said(text)), bare("".join(part.text for part in rendered.parts)))


@settings(max_examples=20, derandomize=True)
@given(LONG_MARKDOWN)
def test_long_texts_fit_into_several_messages(text: str) -> None:
    rendered = discord.render(text, sources=[source(1, GOOD)], notice="Quoted.", language="en")
    for part in (*rendered.parts, discord.preview(text, "Reading…"), discord.plain(text)):
        check(part)
    assert in_order(said(text), bare("".join(part.text for part in rendered.parts)))


@pytest.mark.parametrize("frame", FRAMES)
def test_nobody_is_pinged(frame: str) -> None:
    for ping in PINGS:
        text = frame.format(ping)
        for part in discord.render(text, sources=[source(1, ping, ping)], notice=ping, language="en").parts:
            check(part)
        check(discord.preview(text, ping))
        check(discord.plain(text))


def test_nobody_is_pinged_by_an_address() -> None:
    text = "[a](https://docs.example.org/@everyone?<@123>)"
    (part,) = discord.render(text, sources=[source(1, "https://docs.example.org/@here")], language="en").parts
    check(part)


def test_links_lead_only_to_sources() -> None:
    for shape in EXFILTRATION:
        text = safe_markdown(shape, {GOOD})
        for part in discord.render(text, language="en").parts:
            assert not re.search(r"\]\((?!<https://docs\.example\.org)", re.sub(r"\\.", "x", CODE.sub("", part.text)))
            assert "evil.example/" not in CODE.sub("", part.text)


def test_an_answer_of_100000_characters_arrives_whole() -> None:
    text = long_answer()
    rendered = discord.render(text, sources=[source(1)], notice="Quoted.", language="zh")
    for part in rendered.parts:
        check(part)
    assert in_order(said(text), bare("".join(part.text for part in rendered.parts)))
    assert rendered.parts[-1].text.endswith("*Quoted.*")


def test_code_that_is_cut_keeps_its_language() -> None:
    parts = discord.render("```python\n" + "value = 1\n" * 500 + "```", language="en").parts
    assert len(parts) == 3
    assert all(part.text.startswith("```python\nvalue") and part.text.endswith("\n```") for part in parts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# One\n\n### Three\n\n#### Four", "# One\n\n### Three\n\n**Four**"),
        ("![plan](https://docs.example.org/a.png)", "[plan](<https://docs.example.org/a.png>)"),
        (f"see <{GOOD}> or [the page]({GOOD})", f"see <{GOOD}> or [the page](<{GOOD}>)"),
        ("1. Run:\n   ```sh\n   ls\n   ```\n2. Done", "1. Run:\n```sh\nls\n```\n2. Done"),
        ("- ```\n  ls\n  ```", "-\n```\nls\n```"),
        ("+ a\n  + b", "- a\n  - b"),
        ("> a\n>\n> > b\n> - c", "> a\n>\n> b\n> - c"),
        ("a ||b|| \\*c\\* <t:1> -# d\n-# e", "a \\|\\|b\\|\\| \\*c\\* \\<t:1> -# d\n\\-# e"),
        ("````\n```\ncode\n```\n````", "```\n`\u200b`\u200b`\ncode\n`\u200b`\u200b`\n```"),
        ("``a`b``", "`` a`b ``"),
        ("```a b\ncode\n```", "```a\ncode\n```"),
        ("```<x>\ncode\n```", "```\ncode\n```"),
        ("**注意：**请看**“这里”**吧", "**注意**：请看“**这里**”吧"),
        ("a\n\n***\n\nb", "a\n\n──────────\n\nb"),
        ("5 * 3, snake_case, C#, &lt;b&gt;", "5 * 3, snake_case, C#, \\<b>"),
        ("", "…"),
    ],
)
def test_what_is_written(text: str, expected: str) -> None:
    (part,) = discord.render(text, language="en").parts
    assert part.text == expected


def test_tables_are_aligned_also_where_letters_are_wide() -> None:
    text = f"| day | 人数 | note |\n|---|---|---|\n| Monday | 十二 | **x** |\n| 二 | 3 | [y]({GOOD}) |"
    (part,) = discord.render(text, language="en").parts
    fence, *lines, end = part.text.splitlines()
    assert (fence, end) == ("```", "```")
    assert lines[0] == "day    │ 人数 │ note"
    assert lines[2] == "Monday │ 十二 │ x"
    assert lines[3].endswith(f"│ y ({GOOD})")
    assert len({cell_len(re.split("[│┼]", line)[0]) for line in lines}) == 1


def test_one_long_cell_does_not_widen_every_row() -> None:
    text = f"| a | b |\n|---|---|\n| {'x' * 500} | y |\n" + "| z | w |\n" * 20
    (part,) = discord.render(text, language="en").parts
    assert len(part.text) < 2000


def test_sources_stand_on_the_last_part() -> None:
    sources = [source(1, GOOD), source(2)]
    *_, last = discord.render("28 days [1]. " * 300, sources=sources, notice="Quoted.", language="en").parts
    assert (
        f"[1] [Leave](<{GOOD}>) — page 2, Days\n[2] Leave — handbook/leave.md, page 2, Days\n\n*Quoted.*" in last.text
    )


def test_a_preview_shows_the_end() -> None:
    part = discord.preview("Begin. " + "A sentence. " * 1000 + "\n\n```py\n" + "x = 1\n" * 3, "Reading…")
    check(part)
    assert part.text.startswith("…\n\n")
    assert part.text.endswith("```py\nx = 1\nx = 1\nx = 1\n```\n\n*Reading…*")
    assert len(part.text) > 1000
