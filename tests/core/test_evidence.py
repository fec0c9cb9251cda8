from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.analyzer import query_tokens, tokens
from core.answering.evidence import Candidate, Signals, judge, measure
from core.answering.fusion import title_tokens


def candidate(text: str, title: str = "") -> Candidate:
    return Candidate(
        tokens=tokens(title) + tokens(text), title=title_tokens(title), names=(title_tokens(title), frozenset())
    )


def signals(
    question: str,
    *texts: str,
    title: str = "",
    chunks: int = 100,
    frequency: dict[str, int] | None = None,
    keyword: tuple[float, ...] = (0.4, 0.2, 0.1),
    closest: float = 0.0,
) -> Signals:
    known = {token: 1 for text in (title, *texts) for token in tokens(text)}
    return measure(
        question,
        [candidate(text, title) for text in texts],
        frequency={token: (frequency or known).get(token, 0) for token in query_tokens(question)},
        chunks=chunks,
        keyword=keyword,
        closest=closest,
    )


def test_what_stands_in_a_passage_is_covered() -> None:
    full = signals("When does the canteen open?", "The canteen opens at noon.")
    none = signals("When does the canteen open?", "Nothing of that kind.")
    assert full.coverage == full.together == 1.0
    assert full.missing == 0.0
    assert none.coverage == none.together == 0.0
    assert none.missing == 1.0


def test_words_far_apart_do_not_stand_together() -> None:
    near = signals("canteen opening", "the canteen is opening " + "x " * 80)
    far = signals("canteen opening", "the canteen " + "x " * 80 + "opening")
    assert near.together == 1.0
    assert far.together < far.coverage == 1.0


def test_a_title_stands_for_every_sentence_of_its_passage() -> None:
    far = "x " * 80
    assert signals("canteen opening", f"{far} opening", title="Canteen").together == 1.0


def test_a_name_that_no_passage_holds_speaks_against() -> None:
    right = signals("What did Ada Berg found in 1998?", "Ada Berg founded the company in 1998.")
    wrong = signals("What did Ada Berg found in 1998?", "Karl Moe founded the company in 1999.")
    assert right.names == 0.0
    assert wrong.names > 0.4
    assert judge(right, 0.0) > judge(wrong, 0.0)


def test_half_a_title_is_another_name() -> None:
    assert signals("上海轨道交通16号线有几站", "车站很多", title="上海轨道交通16号线").title == 1.0
    assert signals("上海轨道交通17号线有几站", "车站很多", title="上海轨道交通16号线").title < 0.8


def test_the_best_stands_above_the_next() -> None:
    assert signals("canteen", "canteen", keyword=(0.5, 0.4, 0.1)).gap == pytest.approx(0.4)
    assert signals("canteen", "canteen", keyword=(0.5, 0.4, 0.1)).ahead == pytest.approx(0.1)
    assert signals("canteen", "canteen", keyword=(0.5,)).gap == 0.5
    assert signals("canteen", "canteen", keyword=()).gap == 0.0


def test_scripts_are_told_apart() -> None:
    assert signals("Where is it kept?", "It is kept there").spaced
    assert not signals("钥匙放在哪里", "钥匙放在那里").spaced


@pytest.mark.parametrize("question", ["", "???", "🙂"])
def test_a_question_without_words_has_no_evidence(question: str) -> None:
    assert judge(signals(question, "Some text."), 0.0) < 0.1
    assert judge(signals("canteen"), 0.0) < 0.1


SOUND = Signals(
    keyword=0.5,
    ahead=0.3,
    gap=0.3,
    coverage=0.9,
    together=0.8,
    missing=0.1,
    title=0.5,
    names=0.0,
    closest=0.6,
    crowd=0.5,
    spaced=True,
)


WORSE = (
    replace(SOUND, keyword=0.0),
    replace(SOUND, gap=0.0),
    replace(SOUND, title=0.0),
    replace(SOUND, missing=0.9),
    replace(SOUND, names=0.9),
)


@pytest.mark.parametrize("known", [0.0, 0.3, 1.0])
def test_each_signal_pulls_its_way(known: float) -> None:
    at = judge(SOUND, known)
    assert all(judge(worse, known) < at for worse in WORSE)
    assert (judge(replace(SOUND, closest=0.0), known) < at) == (known > 0)
    assert judge(replace(SOUND, crowd=0.0), known) > at


@given(st.text(max_size=80), st.lists(st.text(max_size=80), max_size=3), st.integers(0, 5000), st.floats(0, 1))
def test_evidence_is_a_share(question: str, texts: list[str], chunks: int, known: float) -> None:
    found = signals(question, *texts, chunks=chunks, frequency={})
    assert 0 <= judge(found, known) <= 1
    for name in ("coverage", "together", "missing", "title", "names", "crowd"):
        assert -1e-9 <= getattr(found, name) <= 1 + 1e-9


@pytest.mark.parametrize("chunks", [5, 50, 500, 5000])
def test_the_rule_holds_in_a_knowledge_base_of_any_size(chunks: int) -> None:
    common = dict.fromkeys(tokens("canteen office open work"), chunks // 3)
    good = signals(
        "Which fish does the canteen serve?",
        "On Fridays the canteen serves fish.",
        title="Canteen",
        chunks=chunks,
        frequency={**common, "fish": 1, "serv": 1},
        keyword=(0.5, 0.2, 0.1),
    )
    bad = signals(
        "Who painted the ceiling of the Sistine Chapel?",
        "On Fridays the canteen serves fish.",
        title="Canteen",
        chunks=chunks,
        frequency=common,
        keyword=(0.05, 0.04, 0.03),
    )
    assert judge(good, 0.0) > 0.5 > judge(bad, 0.0)
