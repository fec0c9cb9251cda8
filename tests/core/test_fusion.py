from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.analyzer import query_tokens
from core.answering.fusion import Found, by_similarity, fuse, idf, keyword_share, known_share, title_tokens
from core.types import Hit
from tests.core.library import chunk


def found(
    name: str, text: str = "", *, keyword: float = 0.0, cosine: float | None = None, title: str = "", kb: str = "kb"
) -> Found:
    return Found(kb, Hit(name, name, title, chunk(title, text), cosine, keyword), keyword)


def names(ranked: list[Found]) -> list[str]:
    return [one.hit.document for one in ranked]


def terms(question: str) -> dict[str, float]:
    return dict.fromkeys(query_tokens(question), 2.0)


def test_both_legs_count_by_their_weight() -> None:
    hits = [found("words", keyword=0.8, cosine=0.1), found("meaning", keyword=0.0, cosine=0.9)]
    assert names(fuse(hits, {}, 0.2, 100)) == ["words", "meaning"]
    assert names(fuse(hits, {}, 0.8, 100)) == ["meaning", "words"]


def test_without_dense_weight_vectors_do_not_count() -> None:
    hits = [found("near", keyword=0.1, cosine=0.99), found("said", keyword=0.2, cosine=0.0)]
    assert names(fuse(hits, {}, 0.0, 100)) == ["said", "near"]


def test_words_that_stand_together_come_first() -> None:
    asked = terms("lunch break length")
    hits = [
        found("apart", "lunch " + "x " * 60 + "break " + "x " * 60 + "length", keyword=0.5),
        found("together", "the length of the lunch break " + "x " * 120, keyword=0.5),
    ]
    assert names(fuse(hits, asked, 0.0, 100)) == ["together", "apart"]


def test_a_title_that_is_asked_for_comes_first() -> None:
    hits = [
        found("body", "holiday rules and more", keyword=0.5),
        found("title", "rules and more of it", title="Holiday", keyword=0.5),
    ]
    assert names(fuse(hits, terms("holiday"), 0.0, 100))[0] == "title"


def test_cosines_of_different_spaces_are_not_compared() -> None:
    """One embedder finds everything near, the other nothing; the best of each is still the best of each."""
    near = [found("near best", cosine=0.95), found("near worst", cosine=0.9)]
    far = [found("far best", cosine=0.3), found("far worst", cosine=0.1)]
    for one in near:
        one.space = "near"
    for one in far:
        one.space = "far"
    ranked = fuse([*near, *far], {}, 0.5, 2)
    assert sorted(names(ranked)[:2]) == ["far best", "near best"]


def test_a_hit_without_vector_is_ranked_by_its_words() -> None:
    hits = [found("old index", keyword=0.9), found("new index", keyword=0.1, cosine=0.9), found("x", cosine=0.1)]
    assert names(fuse(hits, {}, 0.4, 100))[0] == "old index"


def test_similarity_is_measured_between_the_best_and_the_depth_th() -> None:
    hits = [found("a", cosine=0.9), found("b", cosine=0.8), found("c", cosine=0.1)]
    scores = {one.hit.document: one.score for one in fuse(hits, {}, 1.0, 2)}
    assert scores["a"] > 0
    assert scores["b"] == scores["c"] == 0


def test_nothing_found() -> None:
    assert fuse([], {}, 0.4, 100) == []
    assert by_similarity([]) == []


def test_by_similarity_is_the_cosine() -> None:
    ranked = by_similarity([found("a", cosine=0.2), found("b", cosine=0.7), found("none"), found("c", cosine=-0.3)])
    assert [(one.hit.document, one.score) for one in ranked] == [("b", 0.7), ("a", 0.2), ("c", 0.0)]


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1),
            st.none() | st.floats(-1, 1),
            st.text(alphabet="ab cd", max_size=20),
            st.text("ab ", max_size=5),
        ),
        max_size=40,
    ),
    st.floats(0, 1),
)
def test_scores_fall_and_stay_within_bounds(rows: list[tuple[float, float | None, str, str]], weight: float) -> None:
    hits = [
        found(str(number), text, keyword=keyword, cosine=cosine, title=title)
        for number, (keyword, cosine, text, title) in enumerate(rows)
    ]
    ranked = fuse(hits, {"a": 1.0, "b": 2.0, "ab": 0.0}, weight, 10)
    assert sorted(names(ranked)) == sorted(names(hits))
    scores = [one.score for one in ranked]
    assert all(-1e-9 <= score <= 1 + 1e-9 for score in scores)
    assert scores == sorted(scores, reverse=True)


def test_keyword_share_is_the_part_of_what_could_be_had() -> None:
    assert keyword_share(2.2 * 3, {"a": 1.0, "b": 2.0}) == pytest.approx(1.0)
    assert keyword_share(None, {"a": 1.0}) == 0.0
    assert keyword_share(5.0, {}) == 0.0


def test_idf_falls_with_frequency() -> None:
    assert idf(0, 100) > idf(1, 100) > idf(50, 100) > idf(100, 100) > 0


def test_known_share() -> None:
    assert known_share(frozenset({"Latin"}), "Hello 世界!") == pytest.approx(5 / 7)
    assert known_share(frozenset({"*"}), "世界") == 1.0
    assert known_share(frozenset({"Latin"}), "42") == 0.0


def test_title_tokens() -> None:
    assert title_tokens("Travel desk", ("Rules", "出差")) == {"travel", "desk", "rule", "出", "差", "出差"}


def test_fusing_two_hundred_hits_is_quick() -> None:
    asked = terms("how long may the lunch break last on fridays in the canteen")
    text = "on fridays the lunch break in the canteen may last longer than on other days of the week " * 8
    hits = [found(str(n), text, keyword=n / 200, cosine=n / 400) for n in range(200)]
    started = time.process_time()
    for _ in range(10):
        fuse(hits, asked, 0.4, 100)
    assert (time.process_time() - started) / 10 < 0.02  # about a millisecond on a quiet machine
