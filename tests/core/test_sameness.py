"""Whether two questions are the same: nothing that tells them apart may be overlooked."""

from __future__ import annotations

from pathlib import Path

import pytest

import bench.curated
from bench.curated import Block, blocks
from core.answering.sameness import Asked, normalised, same

FILES = Path(bench.curated.__file__).parent


def are_same(one: str, other: str) -> bool:
    first, second = Asked(one), Asked(other)
    return first.is_comparable and second.is_comparable and same(first, second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How long is annual leave?", "how long is  ANNUAL leave"),
        ("How long is annual leave?", "Hi, how long is annual leave please?"),
        ("年假有多少天？", "请问 年假有多少天"),
        ("年假有多少天？", "年假 有多少天?谢谢"),
        ("Ｗｉ-Ｆｉ？", "wi-fi"),
        ("«What» is “it”…", "what is it"),
    ],
)
def test_what_makes_no_difference_is_taken_out(one: str, other: str) -> None:
    assert normalised(one) == normalised(other) != ""


@pytest.mark.parametrize(
    ("one", "other"), [("C++", "C"), ("3.5", "35"), ("-5", "5"), ("a b", "ab"), ("why", "please"), ("不能", "能")]
)
def test_what_makes_a_difference_stays(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I convert a PDF to Word?", "How do I convert Word to a PDF?"),
        ("怎么把PDF转成Word？", "怎么把Word转成PDF？"),
        ("What changed in release 4.2?", "What changed in release 2.4?"),
        ("Is it valid for contractors in Germany?", "Is it not valid for contractors in Germany?"),
        ("外包人员可以用健身房吗？", "外包人员不可以用健身房吗？"),
        ("三楼打印机坏了找谁？", "四楼打印机坏了找谁？"),
        ("How do I reset my password?", "How do I reset her password?"),
        ("Where is the printer?", "Who is the printer?"),
        ("What does E42 mean?", "What does E43 mean?"),
        ("Do I need a visa?", "Do I have a visa?"),
        ("What is my phone number?", "What is your phone number?"),
        ("你的电话是多少？", "我的电话是多少？"),
        ("When can I submit the form?", "When must I submit the form?"),
        ("年假什么时候可以休？", "年假什么时候必须休？"),
        ("When was the office opened?", "When is the office opened?"),
        ("How many days of leave per year?", "How many days of leave per month?"),
        ("How do I process an order?", "How do I order?"),
        ("怎么做蛋糕模具？", "怎么用蛋糕模具？"),
        ("When is the deadline for the tax return?", "When is the tax return?"),
        ("How do I register an employee?", "How do I register?"),
        ("谁负责数据？", "谁是数据？"),
        ("从北京到上海怎么走？", "从上海到北京怎么走？"),
        ("Where can I park my company car?", "Where can I park my car?"),
        ("每天喝多少水？", "每月喝多少水？"),
        ("?", "?"),
        ("the", "the"),
        ("x " * 500, "x " * 500),
    ],
)
def test_questions_that_are_told_apart(one: str, other: str) -> None:
    assert not are_same(one, other)


def shares(found: list[Block]) -> tuple[float, int]:
    asked = [(block.question, text) for block in found for text in block.same]
    wrong = [
        (kept, text)
        for block in found
        for text in block.other
        for kept in (block.question, *block.same)
        if are_same(kept, text)
    ]
    crossed = [
        (one.question, other.question)
        for one in found
        for other in found
        if one is not other and are_same(one.question, other.question)
    ]
    return sum(are_same(*pair) for pair in asked) / len(asked), len(wrong) + len(crossed)


@pytest.mark.parametrize("name", ["curated.txt", "curated_unseen.txt"])
@pytest.mark.parametrize("is_english", [True, False])
def test_of_other_wordings_most_are_known_and_of_near_misses_none(name: str, is_english: bool) -> None:
    found = [block for block in blocks(FILES / name) if block.question.isascii() is is_english]
    assert all(len(block.same) == len(block.other) == 3 for block in found)
    known, wrong = shares(found)
    assert wrong == 0
    assert known > 0.6
