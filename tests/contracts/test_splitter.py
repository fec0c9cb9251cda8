"""What every splitter must do: subclass `SplitterContract` and say how to open yours."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from core.ports import Splitter, SplitterSpec
from core.splitters.counting import TokenCounter, token_counter
from core.splitters.structural import StructuralSplitter
from core.types import Chunk, Locator, Parsed, Section

WORDS = [
    "Tea",
    "is",
    "served",
    "at",
    "four.",
    "Why?",
    "No.",
    "5",
    "e.g.",
    "每天",
    "下午四点，",
    "供应茶点。",
    "「好！」",
    "x" * 90,
    "\n",
]
SENTENCES = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)
TEXTS = st.one_of(
    SENTENCES,
    st.lists(SENTENCES, max_size=4).map("\n\n".join),
    st.lists(st.sampled_from(["茶", "。", "，", "水", "。\n"]), max_size=200).map("".join),
    st.text(max_size=80),
    st.text("ab \n|", max_size=300),
)
HEADINGS = st.lists(
    st.sampled_from(["Travel", "Meals", "差旅", "A long heading of a good many words"]), max_size=3
).map(tuple)
LOCATORS = st.one_of(
    st.just(Locator()),
    st.integers(1, 9).map(lambda page: Locator("page", first=page, last=page)),
    st.sampled_from(["May", "June"]).map(lambda sheet: Locator("sheet", sheet, 1, 40)),
)
SECTIONS = st.builds(
    Section,
    text=TEXTS,
    kind=st.sampled_from(["text", "text", "text", "table", "code"]),
    headings=HEADINGS,
    locator=LOCATORS,
)
DOCUMENTS = st.builds(
    Parsed, sections=st.lists(SECTIONS, max_size=8).map(tuple), title=st.sampled_from(["", "Handbook", "手册"])
)


def words(text: str) -> str:
    return re.sub(r"\s", "", text)


class SplitterContract:
    """`opened` makes a splitter from a spec and the counter it must obey."""

    @pytest.fixture
    def opened(self) -> Callable[[SplitterSpec, TokenCounter], Splitter]:
        raise NotImplementedError

    @pytest.fixture
    def count(self) -> TokenCounter:
        return token_counter("")

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
    @given(document=DOCUMENTS, size=st.integers(16, 120), share=st.floats(0, 1), enhanced=st.booleans())
    def test_no_chunk_is_too_long_and_none_is_empty(
        self,
        opened: Callable[[SplitterSpec, TokenCounter], Splitter],
        count: TokenCounter,
        document: Parsed,
        size: int,
        share: float,
        enhanced: bool,
    ) -> None:
        spec = SplitterSpec(chunk_size=size, chunk_overlap=int(size * share), title_enhance=enhanced)
        chunks = list(opened(spec, count).split(document, "handbook.md"))
        assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
        assert all(count(chunk.text) <= size and chunk.text.strip() for chunk in chunks)
        assert all(chunk.text in chunk.embed_text for chunk in chunks)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
    @given(document=DOCUMENTS, size=st.integers(16, 120), overlap=st.sampled_from([0, 10]))
    @example(document=Parsed((Section("\n \n " + "x" * 90),)), size=16, overlap=0)
    def test_no_character_is_lost(
        self,
        opened: Callable[[SplitterSpec, TokenCounter], Splitter],
        count: TokenCounter,
        document: Parsed,
        size: int,
        overlap: int,
    ) -> None:
        """All text is in the chunks, in order; only an overlap, a heading or a header row may come between."""
        spec = SplitterSpec(chunk_size=size, chunk_overlap=overlap, title_enhance=False)
        rest = "".join(words(chunk.text) for chunk in opened(spec, count).split(document, "handbook.md"))
        expected = "".join(words(section.text) for section in document.sections)
        assert _is_inside(expected, rest)
        if overlap == 0 and all(section.kind == "text" and not section.headings for section in document.sections):
            assert rest == expected

    def test_the_same_document_gives_the_same_chunks(
        self, opened: Callable[[SplitterSpec, TokenCounter], Splitter], count: TokenCounter
    ) -> None:
        document = Parsed((Section("Tea is served at four. " * 200, headings=("Meals",)),), title="Handbook")
        spec = SplitterSpec(chunk_size=64, chunk_overlap=16, title_enhance=True)
        first = list(opened(spec, count).split(document, "handbook.md"))
        assert first == list(opened(spec, count).split(document, "handbook.md"))
        assert len({chunk.content_hash for chunk in first}) == len({chunk.embed_text for chunk in first})

    def test_the_hash_is_of_what_is_embedded(
        self, opened: Callable[[SplitterSpec, TokenCounter], Splitter], count: TokenCounter
    ) -> None:
        def only(title: str, enhanced: bool) -> Chunk:
            spec = SplitterSpec(chunk_size=64, chunk_overlap=0, title_enhance=enhanced)
            (chunk,) = opened(spec, count).split(Parsed((Section("Tea is served at four."),), title=title), "a.md")
            return chunk

        assert only("Handbook", True).content_hash != only("Manual", True).content_hash
        assert only("Handbook", False).content_hash == only("Manual", False).content_hash

    @pytest.mark.parametrize("unit", ["a", "a ", ". ", "\n\n", "|-", "「", ",", "茶", "。", " \n"])
    @pytest.mark.parametrize("kind", ["text", "table", "code"])
    def test_hostile_text_takes_linear_time(
        self, opened: Callable[[SplitterSpec, TokenCounter], Splitter], count: TokenCounter, unit: str, kind: str
    ) -> None:
        """20 kB of any one thing; quadratic work would take seconds."""
        section = Section(unit * (20_000 // len(unit)), kind=kind)  # type: ignore[arg-type] # one of the three
        spec = SplitterSpec(chunk_size=220, chunk_overlap=40, title_enhance=True)
        started = time.process_time()
        list(opened(spec, count).split(Parsed((section,)), "hostile.txt"))
        assert time.process_time() - started < 0.5


def _is_inside(expected: str, text: str) -> bool:
    """Whether all characters of `expected` stand in `text` in this order."""
    characters = iter(text)
    return all(character in characters for character in expected)


class TestStructuralSplitter(SplitterContract):
    @pytest.fixture
    def opened(self) -> Callable[[SplitterSpec, TokenCounter], Splitter]:
        return StructuralSplitter
