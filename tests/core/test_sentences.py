from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.sentences import sentences


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    "text",
    [
        ["Dr. Smith met J. R. Tolkien.", "They talked."],
        ["It costs 3.14 euros.", "Version 3.11 is out."],
        ['He said "Hi there."', "Then he left."],
        ["See Fig. 3 and No. 5.", "It is there."],
        ["Use tools, e.g. a hammer, i.e. force.", "Done!"],
        ["He moved to the U.S. Congress voted.", "It passed."],
        ["She moved to the U.S.", "The law changed."],
        ["Visit example.com today.", "Or write to a.b@example.com."],
        ["Really?", "Yes!", "Fine..."],
        ["他说：“你好。”", "然后走了……", "真的吗？！", "是的；", "好。"],
        ["发布了3.11版。", "很好！"],
        ["Kvasir 很好。", "It works."],
        ["（见下文。）", "然后继续。"],
    ],
    ids=lambda parts: parts[0],
)
def test_ends(text: list[str]) -> None:
    joined = "".join(part if ord(part[-1]) > 255 else part + " " for part in text).strip()
    assert split(joined) == text


def test_lines_end_where_they_were_broken_on_purpose() -> None:
    text = (
        "# Title\nA sentence that was wrapped by an editor because it is too long\nto stand in one line.\n"
        "- one\n- two\n| a | b |\n| c | d |\n1. Open the lid.\n2. Close it.\n\nLast"
    )
    assert split(text) == [
        "# Title",
        "A sentence that was wrapped by an editor because it is too long\nto stand in one line.",
        "- one",
        "- two",
        "| a | b |",
        "| c | d |",
        "1. Open the lid.",
        "2. Close it.",
        "Last",
    ]


@given(st.text(alphabet='aA1.!? \n。！；…”")-#|中文', max_size=120))
def test_nothing_but_white_space_is_left_out(text: str) -> None:
    spans = sentences(text)
    assert all(start < end for start, end in spans)
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)


@pytest.mark.parametrize("piece", ["a", "。", "a.\n", "a. ", "!”", "”", " \n", "#\n", ". ", "1.", "\n- ", "(", "Mr. "])
def test_hostile_text_takes_linear_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    started = time.process_time()
    sentences(text)
    assert time.process_time() - started < 1
