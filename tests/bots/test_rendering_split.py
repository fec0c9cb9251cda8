"""Splitting: whole blocks within the limit, balanced, and nothing lost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bots.rendering.blocks import Block, Run, as_written, blocks_of
from bots.rendering.commonmark import Signs, alone, code, fenced, write
from bots.rendering.parts import utf16_units
from bots.rendering.split import split
from tests.bots.markdown_texts import GOOD, MARKDOWN, bare, in_order, said

SIGNS = Signs(
    escaped=lambda text: text,
    link=lambda written, _, url: f"[{written}]({url})",
    code=code,
    fenced=fenced,
    heading=lambda level: "#" * level,
    table=lambda rows: [" | ".join("".join(run.text for run in cell) for cell in row) for row in rows],
)


def cost(block: Block) -> int:
    return utf16_units(alone(block, SIGNS))


def parts(markdown: str, limit: int) -> list[str]:
    return [write(part, SIGNS) for part in split(blocks_of(markdown), limit, cost)]


@settings(max_examples=150, derandomize=True)
@given(MARKDOWN, st.integers(120, 400))
def test_every_part_fits_and_no_word_is_lost(markdown: str, limit: int) -> None:
    written = parts(markdown, limit)
    assert all(utf16_units(part) <= limit for part in written)
    found = "".join(said_of(part) for part in split(blocks_of(markdown), limit, cost))
    assert in_order(said(markdown), found)


def said_of(part: Sequence[Block]) -> str:
    words: list[str] = []
    for block in part:
        words += [run.text for run in block.runs] + list(block.lines)
        words += [run.text for row in block.rows for cell in row for run in cell]
    return bare("".join(words))


def test_code_is_cut_between_lines_and_opened_again() -> None:
    lines = [f"line {number}" for number in range(60)]
    written = parts("```python\n" + "\n".join(lines) + "\n```", 200)
    assert len(written) > 2
    assert all(part.startswith("```python\n") and part.endswith("\n```") for part in written)
    assert [line for part in written for line in part.splitlines()[1:-1]] == lines


def test_code_in_a_list_goes_on_outside_it() -> None:
    first, *rest = parts("1. Run:\n   ```sh\n" + "   echo one\n" * 40 + "   ```\n2. Done", 200)
    assert first.startswith("1. Run:\n   ```sh\n   echo one")
    assert all(part.startswith("```sh\necho one") for part in rest)
    assert rest[-1].endswith("echo one\n```\n\n2. Done")


def test_a_fence_inside_code_closes_nothing() -> None:
    for part in parts("`````md\n" + "```\ninner\n```\n" * 40 + "`````", 200):
        (block,) = blocks_of(part)
        assert block.kind == "code"


def test_a_table_repeats_its_head() -> None:
    written = parts("| day | number |\n|---|---|\n" + "| Monday | 12 |\n" * 40, 200)
    assert len(written) > 2
    assert all(part.startswith("day | number\n") for part in written)
    assert sum(part.count("Monday") for part in written) == 40


def test_a_row_longer_than_a_part_becomes_text() -> None:
    written = parts(f"| a | b |\n|---|---|\n| {'x' * 300} | y |\n| c | d |", 200)
    assert in_order("ab" + "x" * 300 + "ycd", "".join(written))


def test_text_is_cut_after_a_sentence() -> None:
    written = parts("One sentence stands here. " * 40, 200)
    assert all(part.endswith(".") for part in written)


@pytest.mark.parametrize("whole", [f"[a link of some words]({GOOD})", "`code of some words`"])
def test_links_and_code_stay_whole(whole: str) -> None:
    for length in range(60, 200, 7):
        written = parts("w " * (length // 2) + whole + " and so on" * 20, 200)
        assert sum(whole in part for part in written) == 1


def test_code_in_a_line_longer_than_a_part_is_cut() -> None:
    written = parts("`" + "x" * 500 + "`", 200)
    assert "".join(part.strip("`") for part in written) == "x" * 500


def test_a_heading_stays_with_what_follows() -> None:
    first, second = parts("text " * 30 + "\n\n## Head\n\n" + "word " * 20, 200)
    assert "Head" not in first
    assert second.startswith("## Head\n\nword")


def test_signs_and_their_marks_stay_together() -> None:
    family = "👨\u200d👩\u200d👧"
    for part in parts(family * 100, 120):
        assert part == family * (len(part) // len(family))
    assert all(len(part) % 2 == 0 for part in parts("🇩🇪" * 200, 121))


def test_what_is_nested_too_deep_is_shown_as_it_is_written() -> None:
    deep = "> " * 60 + "word"
    assert said(deep) == bare(deep)


@pytest.mark.parametrize("sign", ["[", "`", "a\n", "|a|b|\n|-|-|\n", "> ", "- ", "```\n", "<", "@a", "a.", " ", "-|"])
def test_hostile_text_is_dealt_with_in_linear_time(sign: str) -> None:
    text = f"x{sign * (150_000 // len(sign))}y"  # were it quadratic, this would take minutes
    for blocks in (blocks_of(text), as_written(text)):
        found = "".join(said_of(part) for part in split(blocks, 2000, cost))
        assert found.startswith("x")
        assert found.endswith("y")


def test_styles_go_on_after_a_cut() -> None:
    cut = split((Block("text", (Run("word " * 100, bold=True),)),), 200, cost)
    assert len(cut) > 2
    assert all(run.bold for part in cut for block in part for run in block.runs)
