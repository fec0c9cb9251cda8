"""Where in its document a passage stands, in both languages."""

from __future__ import annotations

import pytest

from core.texts import place_of
from core.types import Locator


@pytest.mark.parametrize(
    ("locator", "headings", "english", "chinese"),
    [
        (Locator(), (), "", ""),
        (Locator(), ("Leave", "", "Days"), "Leave › Days", "Leave › Days"),
        (Locator("page", "", 3, 3), (), "page 3", "第 3 页"),
        (Locator("page", "", 3), ("Leave",), "page 3, Leave", "第 3 页，Leave"),
        (Locator("page", "", 3, 5), (), "pages 3–5", "第 3–5 页"),
        (Locator("slide", "", 2, 2), (), "slide 2", "第 2 张幻灯片"),
        (Locator("sheet", "Q1", 2, 9), (), "sheet «Q1» rows 2–9", "工作表“Q1” 第 2–9 行"),
        (Locator("sheet", "Q1"), (), "sheet «Q1»", "工作表“Q1”"),
        (Locator("rows", "", 4, 4), (), "row 4", "第 4 行"),
        (Locator("lines", "", 1, 20), (), "lines 1–20", "第 1–20 行"),
        (Locator("cell", "", 3), (), "cell 3", "第 3 个单元格"),
        (Locator("part", "", 2), (), "part 2", "第 2 部分"),
        (Locator("part", "Preface", 2), (), "part «Preface»", "部分“Preface”"),
        (Locator("part", "Warranty", 2), ("Warranty", "Wren"), "Warranty › Wren", "Warranty › Wren"),
    ],
)
def test_a_place_in_words(locator: Locator, headings: tuple[str, ...], english: str, chinese: str) -> None:
    assert place_of(locator, headings, "en") == english
    assert place_of(locator, headings, "zh") == chinese
