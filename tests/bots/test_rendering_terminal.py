"""Answers as text: nothing too wide, nothing lost, nothing that drives the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from bots.rendering.terminal import rendered, snippet, source_line, tail
from core.types import Finished, Locator, Passage, Source


def passage(text: str = "Annual leave is 28 days. " * 30, title: str = "Leave") -> Passage:
    return Passage("kb", "d", "handbook/leave.md", title, 0, text, ("Leave", "Days"), Locator("page", "", 2, 3), 0.9)


def finished(text: str, notice: str = "", *sources: Source) -> Finished:
    return Finished("a", text, True, sources, "fake", "q", {}, notice)


def test_text_notice_and_sources_in_their_order() -> None:
    text = rendered(finished("**28 days** [1].", "Quoted.", Source(1, passage())), "en", width=60)
    lines = text.splitlines()
    assert lines[0] == "28 days [1]."
    assert "Quoted." in lines
    assert lines[lines.index("Sources") + 1] == "[1] Leave — handbook/leave.md, pages 2–3, Leave › Days"
    assert lines[-1].startswith("    ")
    assert text.endswith("…")


def test_chinese_labels_and_widths() -> None:
    answer = finished("年假为二十八天。" * 20 + "[1]", "", Source(1, passage("年假" * 300)))
    assert "来源\n[1] Leave — handbook/leave.md，第 2–3 页，Leave › Days" in rendered(answer, "zh", width=80)
    text = rendered(answer, "zh", width=40)
    assert max(cell_len(line) for line in text.splitlines()) <= 40


def test_commonmark_is_shown_and_not_spelled_out() -> None:
    text = rendered(
        finished("# Title\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\ncode()\n```\n"), "en", width=60
    )
    assert "#" not in text
    assert "|---|" not in text
    assert "• one" in text
    assert "code()" in text
    assert "\\<b> stays" not in rendered(finished("\\<b> stays"), "en", width=60)


@pytest.mark.parametrize(
    "evil", ["\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "\x07", "\x08\x08", "\u202e", "\u200b", "\r"]
)
def test_nothing_drives_the_terminal(evil: str) -> None:
    source = Source(1, passage(f"text{evil}text", f"title{evil}"))
    text = rendered(finished(f"answer{evil}answer", f"notice{evil}", source), "en", width=60)
    assert evil not in text + tail(f"a{evil}b", width=40, height=5) + source_line(source, "en") + snippet(evil)
    assert "\x1b" not in text


def test_color_only_where_it_is_wanted() -> None:
    assert "\x1b[" in rendered(finished("**bold**"), "en", width=60, color=True)
    assert "\x1b[" not in rendered(finished("**bold**"), "en", width=60)


def test_rich_markup_has_no_power() -> None:
    text = rendered(finished("see [red]x[/red] and :smile:", "[bold]n[/bold]"), "en", width=60)
    assert "[red]x[/red]" in text
    assert "[bold]n[/bold]" in text
    assert ":smile:" in text


def test_the_tail_is_the_end_that_fits() -> None:
    shown = tail("word " * 400 + "last", width=40, height=5)
    assert shown.endswith("last")
    assert len(shown.splitlines()) == 5
    assert tail("", width=40, height=5) == ""


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=300), st.integers(20, 120))
def test_no_line_is_too_wide(text: str, width: int) -> None:
    for line in tail(text, width=width, height=10).splitlines():
        assert cell_len(line) <= width
