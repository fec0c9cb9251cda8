"""A person's changes to chunks find them again, however the document is cut; and nothing else is lost by them."""

from __future__ import annotations

import pytest

from core.kb.overrides import Override, apply, index_hash, shared_start
from core.ports import ParseResult, SplitterSpec
from core.splitters.counting import token_counter
from core.splitters.structural import StructuralSplitter
from core.types import Chunk, Parsed, Section

SENTENCES = [
    f"Sentence {word} tells of the {thing} and where it is kept."
    for word, thing in (
        ("one", "harbour key"), ("two", "tide table"), ("three", "red lantern"), ("four", "spare oar"),
        ("five", "brass bell"), ("six", "sea chart"), ("seven", "ship's log"), ("eight", "long rope"),
    )
]  # fmt: skip
CHINESE = [
    "港口的钥匙放在值班室的抽屉里。",
    "潮汐表挂在船长房间的墙上。",
    "红色的灯笼收在仓库二楼。",
    "备用的桨靠在东边的门后面。",
]


def read(text: str, size: int, overlap: int = 0) -> ParseResult:
    splitter = StructuralSplitter(SplitterSpec(size, overlap, True), token_counter(""))
    chunks = splitter.split(Parsed((Section(text, headings=("Stores",)),), title="Harbour"), "a.md")
    return ParseResult("Harbour", tuple(chunks), terms=b"as read")


def texts(result: ParseResult) -> list[str]:
    return [chunk.text for chunk in result.chunks]


def override(action: str, original: str, text: str = "", place: int | None = None, key: str = "k") -> Override:
    return Override(key, action, original, text, place)  # type: ignore[arg-type]  # as the database has it


def test_without_changes_nothing_is_touched() -> None:
    result = read(" ".join(SENTENCES), 40)
    assert apply(result, []).result is result
    assert index_hash("a" * 64, []) == "a" * 64
    assert index_hash("a" * 64, [override("disable", "x")]) != index_hash("a" * 64, [override("delete", "x")])


def test_an_edited_chunk_is_searched_and_embedded_like_any_other() -> None:
    result = read(" ".join(SENTENCES), 40)
    new = "The key hangs on the hook."
    changed = apply(result, [override("edit", result.chunks[1].text, new)])
    assert changed.places == {"k": 1}
    chunk = changed.result.chunks[1]
    same = read(new, 40).chunks[0]
    assert (chunk.text, chunk.tokens, chunk.embed_text, chunk.content_hash) == (
        new, same.tokens, same.embed_text, same.content_hash,
    )  # fmt: skip
    assert chunk.headings == ("Stores",)
    assert changed.result.terms == b""
    others = [one for one in changed.result.chunks if one.number != 1]
    assert others == [one for one in result.chunks if one.number != 1]


def test_chunks_are_disabled_deleted_and_added_and_counted_anew() -> None:
    result = read(" ".join(SENTENCES), 40)
    first, second, third, *_ = texts(result)
    changes = [
        override("disable", first, key="off"),
        override("add", second, "Added behind the second.", key="new"),
        override("add", "", "Added at the end.", key="end"),
        override("delete", third, key="gone"),
    ]
    changed = apply(result, changes)
    found = texts(changed.result)
    assert found[:2] == [second, "Added behind the second."]
    assert found[-1] == "Added at the end."
    assert third not in found
    assert [chunk.number for chunk in changed.result.chunks] == list(range(len(found)))
    assert changed.places == {"off": 0, "new": 1, "end": len(found) - 1, "gone": 2}


def test_of_equal_chunks_the_nearest_is_meant() -> None:
    chunks = tuple(Chunk(n, text, "", "") for n, text in enumerate(["Same.", "Other.", "Same."]))
    changed = apply(ParseResult("", chunks), [override("edit", "Same.", "New.", place=2)])
    assert texts(changed.result) == ["Same.", "Other.", "New."]


@pytest.mark.parametrize("parts", [SENTENCES, CHINESE])
@pytest.mark.parametrize("size", [20, 400])
@pytest.mark.parametrize("action", ["edit", "disable"])
def test_a_changed_chunk_is_found_when_the_document_is_cut_otherwise(parts: list[str], size: int, action: str) -> None:
    """Its text is gone from everywhere, the new one stands once, and what is around it stays."""
    joint = "" if parts is CHINESE else " "
    whole = joint.join(parts)
    original = joint.join(parts[1:3])
    new = "It all moved to the new hall." if action == "edit" else ""
    changed = apply(read(whole, size), [override(action, original, new)])
    assert changed.places["k"] is not None
    left = " ".join(texts(changed.result))
    for part in parts[1:3]:
        assert part not in left
    for part in (parts[0], *parts[3:]):
        assert part in left
    assert left.count("new hall") == (action == "edit")


def test_what_overlaps_goes_with_it_when_the_document_is_cut_otherwise() -> None:
    changed = apply(read(" ".join(SENTENCES), 45, 18), [override("disable", " ".join(SENTENCES[2:4]))])
    left = " ".join(texts(changed.result))
    assert SENTENCES[2] not in left
    assert SENTENCES[3] not in left
    assert SENTENCES[1] in left
    assert SENTENCES[4] in left


def test_a_text_that_repeats_is_changed_in_one_place() -> None:
    chunks = (f"Before it. {SENTENCES[0]}", "Something else stands here.", f"Behind it. {SENTENCES[0]} And more of it.")
    result = ParseResult("", tuple(Chunk(n, text, "", "") for n, text in enumerate(chunks)))
    changed = apply(result, [override("edit", SENTENCES[0], "It says something new.", place=2)])
    assert texts(changed.result) == [chunks[0], chunks[1], "Behind it. It says something new. And more of it."]


def test_a_change_of_a_text_that_is_gone_is_left_out_and_told() -> None:
    result = read(" ".join(SENTENCES[4:]), 40)
    changed = apply(
        result, [override("edit", " ".join(SENTENCES[:2]), "New."), override("add", "Gone.", "Kept.", key="n")]
    )
    assert changed.places == {"k": None, "n": len(result.chunks)}
    assert texts(changed.result) == [*texts(result), "Kept."]


def test_every_chunk_may_be_left_out() -> None:
    result = read("Only this.", 40)
    changed = apply(result, [override("delete", "Only this.")])
    assert changed.result.chunks == ()
    again = apply(result, [override("delete", "Only this."), override("add", "", "But this.", key="n")])
    assert texts(again.result) == ["But this."]


def test_a_document_that_could_not_be_read_is_left_as_it_is() -> None:
    failed = ParseResult(error="It is broken.")
    assert apply(failed, [override("disable", "x")]).result is failed


@pytest.mark.parametrize(
    ("before", "text", "shared"),
    [
        ("One. Two.", "Two. Three.", 4),
        ("One. Two.", "Three. Four.", 0),
        ("", "One.", 0),
        ("Same.", "Same.", 5),
        ("One. Two two. Two two.", "Two two. Two two. Three.", 17),
    ],
)
def test_what_two_neighbours_share_is_known(before: str, text: str, shared: int) -> None:
    assert shared_start(before, text) == shared
