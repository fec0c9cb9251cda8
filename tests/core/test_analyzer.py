from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.analyzer import FUNCTION_WORDS, query_tokens, query_units, script_shares, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Runners were running", ["the", "runner", "were", "run"]),
        ("Café NAÏVE Straße", ["cafe", "naiv", "strass"]),
        ("ＦＵＬＬ ｗｉｄｔｈ １２３", ["full", "width", "123"]),
        ("C++ and C# on .NET", ["cplusplus", "c", "and", "csharp", "c", "on", "dotnet", "net"]),
        ("Python 3.11", ["python", "3", "11", "311"]),
        ("1,200,000 people", ["1200000", "peopl"]),
        ("getUserName", ["get", "user", "name", "getusernam"]),
        ("snake_case_word", ["snake", "case", "word", "snakecaseword"]),
        ("a.b@example.com", ["exampl", "com", "abexamplecom"]),
        ("Tesla's O'Neill", ["tesla", "neill", "oneil"]),
        ("COVID-19, 1939-1945", ["covid", "19", "covid19", "1939", "1945"]),
        ("U.S. law", ["us", "law"]),
        ("中文检索", ["中", "文", "检", "索", "中文", "文检", "检索"]),
        ("用Python写", ["用", "python", "写"]),
        ("テスト", ["テ", "ス", "ト", "テス", "スト"]),
        ("", []),
        ("…—！？", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_the_same_word_in_another_shape_meets() -> None:
    for one, other in [("e-mail", "email"), ("Ｋvasir", "kvasir"), ("don’t", "don't"), ("résumé", "resume")]:
        assert set(tokens(one)) & set(tokens(other)), (one, other)


@given(st.text(max_size=300))
def test_tokens_hold_letters_and_digits_only(text: str) -> None:
    assert all(token.isalnum() and token == token.lower() and len(token) <= 48 for token in tokens(text))


@given(st.text(max_size=200))
def test_a_question_s_tokens_are_tokens_of_its_text(text: str) -> None:
    found = query_tokens(text)
    assert len(found) == len(set(found))
    assert bool(found) == bool(tokens(text))


@given(st.text(alphabet="abc AB.-_'+#1,中文é", max_size=60))
def test_the_cache_changes_nothing(text: str) -> None:
    assert tokens(text) == tokens(text)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("How many vacation days do I get?", ["vacat", "day", "get"]),
        ("什么是月代？", ["月", "代", "月代"]),
        ("能给我介绍一下什么是BCPL么？", ["bcpl"]),
        ("在线支付的目的是什么", ["线", "支", "付", "在线", "线支", "支付", "目", "的", "目的"]),
        ("what is it?", ["what", "is", "it"]),
        ("他是谁", ["他", "是", "谁", "他是", "是谁"]),
        ("vacation vacation", ["vacat"]),
    ],
)
def test_words_that_only_ask_are_left_out(question: str, expected: list[str]) -> None:
    assert query_tokens(question) == expected


def test_units_are_words_and_characters() -> None:
    assert query_units("Did Khan ride in the 1600s?") == [("khan",), ("ride",), ("1600", "1600s")]
    assert query_units("祭遵的状况") == [("祭遵",), ("祭遵",), ("状况",), ("状况",)]
    assert query_units("what is it") == [("what",), ("is",), ("it",)]
    assert query_units("?") == []


def test_function_words_are_tokens() -> None:
    assert {"the", "how", "dont", "在"} <= FUNCTION_WORDS
    assert "vacation" not in FUNCTION_WORDS


def test_script_shares() -> None:
    assert script_shares("Hello 世界 12") == pytest.approx({"Latin": 5 / 7, "Han": 2 / 7})
    assert script_shares("１２ !") == {}
    assert script_shares("Привет") == {"Cyrillic": 1.0}
    assert script_shares("ひカ") == {"Hiragana": 0.5, "Katakana": 0.5}


HOSTILE = {
    "letters": "a" * 20_000,
    "joined": "a-" * 10_000,
    "capitals": "Aa" * 10_000,
    "han": "中" * 20_000,
    "mixed": "中a" * 10_000,
    "points": "." * 20_000,
    "numbers": "1,234" * 4_000,
    "commas": "1," * 10_000,
    "quotes": "a'" * 10_000,
    "plus": "a++" * 7_000,
    "marks": "e" + "\u0301" * 20_000,
    "expanding": "ﷺ" * 1_100,
    "asking": "什么" * 10_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_takes_linear_time(name: str) -> None:
    text = HOSTILE[name]
    started = time.process_time()
    tokens(text)
    query_tokens(text)
    query_units(text)
    assert time.process_time() - started < 0.5  # what takes the square takes seconds


@settings(max_examples=5)
@given(st.lists(st.text(alphabet="running walked ", min_size=5), min_size=20, max_size=40))
def test_threads_may_analyse_at_once(texts: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(tokens, texts)) == [tokens(text) for text in texts]
