from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.analyzer import query_tokens
from core.answering.quoting import Kind, choose, holds, kind_of, scored_sentences
from tests.core.library import CHINESE, ENGLISH, passage


def texts(question: str, *passages: tuple[str, str, float]) -> list[str]:
    found = scored_sentences(
        question,
        [passage(text, title=title, score=score) for title, text, score in passages],
        dict.fromkeys(query_tokens(question), 1.0),
    )
    return [sentence.text for sentence in found]


@pytest.mark.parametrize(
    ("question", "best"),
    [
        ("How many days of holiday do I have?", "Everyone has 28 days of holiday a year."),
        ("When did the company move?", "It moved to Bergen in 2005 after a fire."),
        ("Who keeps the keys of the archive?", "Dr. Lind keeps the keys of the archive in room 12."),
        ("酒店每晚不得超过多少钱？", "酒店每晚不得超过八百元。"),
        ("谁保管档案室的钥匙？", "林博士在十二号房间保管档案室的钥匙。"),
    ],
)
def test_the_sentence_that_answers_comes_first(question: str, best: str) -> None:
    shelf = [(title, text, 0.5) for title, text in (*ENGLISH.values(), *CHINESE.values())]
    assert texts(question, *shelf)[0] == best


def test_a_title_stands_for_each_of_its_sentences() -> None:
    found = texts(
        "Heron battery life",
        ("Heron", "The battery lasts ten days.", 0.5),
        ("Wren", "The battery lasts two days.", 0.5),
    )
    assert found[0] == "The battery lasts ten days."


def test_a_better_passage_speaks_louder() -> None:
    assert texts("fish", ("", "Fish on Monday.", 0.2), ("", "Fish on Friday.", 0.9))[0] == "Fish on Friday."


def test_a_question_in_the_text_is_not_an_answer() -> None:
    assert texts("opening hours", ("", "What are the opening hours? The opening hours are 7 to 9.", 0.5)) == [
        "The opening hours are 7 to 9.",
        "What are the opening hours?",
    ]


def test_overlapping_passages_give_a_sentence_once() -> None:
    found = texts("fish", ("", "Soup today. Fish on Friday.", 0.5), ("", "Fish on Friday. Meat after.", 0.4))
    assert found.count("Fish on Friday.") == 1


def test_near_copies_are_not_chosen_twice() -> None:
    text = "Fish is served on Friday at noon. Fish is served on Friday noon! The cook likes fish soup."
    ranked = scored_sentences("fish", [passage(text)], {})
    assert sum("Friday" in sentence.text for sentence in choose(ranked, {}, 0.0, 2)) == 1


def test_vectors_decide_between_equals() -> None:
    ranked = scored_sentences("meal", [passage("Lunch is at noon. Trains leave at nine.")], {})
    near = {index: 0.9 if "Lunch" in sentence.text else 0.1 for index, sentence in enumerate(ranked)}
    assert choose(ranked, near, 1.0, 1)[0].text == "Lunch is at noon."
    assert choose(ranked, {index: 1 - value for index, value in near.items()}, 1.0, 1)[0].text != "Lunch is at noon."


def test_nothing_to_quote() -> None:
    assert scored_sentences("fish", [], {}) == []
    assert scored_sentences("fish", [passage("… — !")], {}) == []
    assert choose([], {}, 0.0, 2) == []


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("How many are there?", "number"),
        ("What percentage is paid?", "number"),
        ("价格是多少？", "number"),
        ("When was it built?", "date"),
        ("In which year did it open?", "date"),
        ("它是什么时候建成的？", "date"),
        ("Who wrote it?", "name"),
        ("Where is it?", "name"),
        ("谁写的？", "name"),
        ("Why did it fail?", "reason"),
        ("为什么失败？", "reason"),
        ("Describe the plan", ""),
    ],
)
def test_what_is_asked_for(question: str, kind: Kind) -> None:
    assert kind_of(question) == kind


@pytest.mark.parametrize(
    ("kind", "text", "question", "expected"),
    [
        ("number", "It has 12 rooms.", "How many rooms?", True),
        ("number", "It has twelve rooms.", "How many rooms?", True),
        ("number", "In 1998 it had rooms.", "How many rooms in 1998?", False),
        ("date", "Opened in May 2005.", "When?", True),
        ("date", "二〇〇五年5月开业。", "何时？", True),
        ("date", "It has rooms.", "When?", False),
        ("name", "It was Ada.", "Who was it?", True),
        ("name", "Ada it was.", "Who was it?", False),
        ("reason", "It failed because of rain.", "Why?", True),
        ("reason", "It failed.", "Why?", False),
        ("", "Anything 12.", "Describe", False),
    ],
)
def test_what_a_sentence_holds(kind: Kind, text: str, question: str, expected: bool) -> None:
    assert holds(kind, text, question) is expected


@given(st.text(max_size=60), st.lists(st.text(alphabet="ab. 中。\n|?", max_size=60), max_size=4), st.integers(1, 4))
def test_any_text_can_be_quoted(question: str, bodies: list[str], count: int) -> None:
    passages = [passage(text) for text in bodies]
    ranked = scored_sentences(question, passages, {})
    for sentence in choose(ranked, {}, 0.0, count):
        assert passages[sentence.passage].text[sentence.start : sentence.end] == sentence.text
    assert len(choose(ranked, {}, 0.0, count)) <= count


@pytest.mark.parametrize("piece", ["一二三", "A a, ", "1,2", "what is the ", "1:", "aaaa "])
def test_hostile_text_takes_linear_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    started = time.process_time()
    for kind in ("number", "date", "name", "reason"):
        holds(kind, text, "x")
    kind_of(text)
    assert time.process_time() - started < 1
