from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import core.engines.extractive
from core.analyzer import query_tokens
from core.engines.extractive import ExtractiveEngine, as_text, open_engine, shortened
from core.errors import EmbedderUnavailable
from core.ports import Embedder
from core.settings import Settings
from core.types import Matrix, Passage, Prompt, Sampling
from tests.core.library import ENGLISH, passage
from tests.fakes.embedder import HashEmbedder

pytestmark = pytest.mark.anyio

SHELF = tuple(passage(text, title=title, document=name) for name, (title, text) in ENGLISH.items())


def prompt(question: str, passages: Sequence[Passage] = SHELF) -> Prompt:
    return Prompt((), question, tuple(passages), terms=dict.fromkeys(query_tokens(question), 1.0))


async def quoted(question: str, passages: Sequence[Passage] = SHELF, **options: object) -> str:
    engine = ExtractiveEngine(2, **options)  # type: ignore[arg-type] # an embedder or nothing
    return "".join([piece async for piece in engine.stream(prompt(question, passages), Sampling())])


async def test_two_sentences_are_quoted_each_with_its_source() -> None:
    answer = await quoted("How many days of holiday do I have?")
    number = [one.document for one in SHELF].index("leave.md") + 1
    assert f"**Everyone has 28 days of holiday a year.** [{number}]" in answer or answer.count(f"[{number}]") == 1
    assert "**Everyone has 28 days of holiday a year.**" in answer
    assert answer.count("**") == 2


async def test_sentences_of_one_passage_keep_their_order() -> None:
    text = (
        "The fire was in May. Nobody was hurt by the fire in the archive. Rain came later. "
        "The archive fire cost 900 euros."
    )
    answer = await quoted("What did the archive fire cost?", [passage(text)])
    assert answer == ("> Nobody was hurt by the fire in the archive. … **The archive fire cost 900 euros.** [1]")


async def test_neighbours_are_quoted_without_a_gap() -> None:
    answer = await quoted("lunch fish", [passage("The canteen serves lunch. Fish is for lunch. Trains go.")])
    assert "…" not in answer


async def test_passages_are_quoted_apart() -> None:
    answer = await quoted("fish", [passage("Fish on Friday is baked."), passage("Our fish comes from Bergen.")])
    assert answer.count("\n\n") == 1
    assert "[1]" in answer
    assert "[2]" in answer


async def test_no_passages_no_answer() -> None:
    assert await quoted("fish", []) == ""


async def test_the_embedder_helps_where_it_knows_the_script() -> None:
    embedder = HashEmbedder(scripts=frozenset({"Latin"}))
    await quoted("How many days of holiday do I have?", embedder=lambda: embedder)
    assert embedder.embedded
    embedder.embedded.clear()
    await quoted("年假有几天？", embedder=lambda: embedder)
    assert embedder.embedded == []


@pytest.mark.parametrize("failure", ["raises", "hangs"])
async def test_without_vectors_words_decide(failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.engines.extractive, "_EMBED_SECONDS", 0.05)

    class Failing(HashEmbedder):
        async def embed_documents(self, texts: Sequence[str]) -> Matrix:
            if failure == "raises":
                raise EmbedderUnavailable("gone")
            await asyncio.sleep(30)
            return await super().embed_documents(texts)

    failing: Embedder = Failing()
    assert "28 days" in await quoted("How many days of holiday do I have?", embedder=lambda: failing)


async def test_the_engine_opens_by_the_settings() -> None:
    engine = await open_engine(Settings())
    assert engine.info.name == "extractive"
    assert not engine.info.is_language_model
    assert await engine.health() == ""
    assert engine.count_tokens("some words") > 0
    await engine.close()


HOSTILE = [
    "[click](https://evil.example/?q=secret)",
    "![pixel](https://evil.example/x.png)",
    "<img src=x onerror=alert(1)>",
    "<https://evil.example>",
    "https://evil.example/path and www.evil.example",
    "[ref]: https://evil.example",
    "# Heading",
    "- item * other _emphasis_ __strong__ ~~gone~~ `code`",
    "1. one",
    "2) two",
    "> quote",
    "| a | b |",
    "&lt;script&gt; &amp; &#60;",
    "@everyone <@U123> <!channel>",
    "a\\*b",
    "***",
    "---",
    "+ plus",
    "=== ",
    "```python",
    "$x$",
    "line one\nline two",
]


def shown(markdown: str) -> str:
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)
    assert html.count("<") == 2, html
    assert html.startswith("<p>")
    return unescape(html.removeprefix("<p>").strip().removesuffix("</p>"))


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_document_is_shown_as_it_is(text: str) -> None:
    assert shown(as_text(text)) == text.strip()


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40))
def test_any_printable_text_is_shown_as_it_is(text: str) -> None:
    assert shown(as_text(text)) == text


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_documents_quote_harmlessly(text: str) -> None:
    answer = await quoted("evil words", [passage(f"Evil words: {text}. And more evil words.")])
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(answer)
    assert "<a" not in html
    assert "<img" not in html
    assert "<h" not in html
    assert "<li" not in html


def test_a_sentence_loses_the_marks_of_its_markup() -> None:
    assert shortened("## A heading", {}) == "A heading"
    assert shortened("- an item\n  goes on", {}) == "an item goes on"
    assert shortened("| Ada | 23 |  |", {}) == "Ada · 23"
    assert shortened("bidi \u202eevil\u202c and \x00null", {}).isprintable()


def test_a_text_without_full_stops_is_cut_around_what_is_asked() -> None:
    text = "word " * 500 + "needle " + "word " * 500
    cut = shortened(text, {"needle": 1.0})
    assert "needle" in cut
    assert len(cut) < 750
    assert cut.startswith("…")
    assert cut.endswith("…")


@pytest.mark.parametrize("piece", ["a", "://", "www.", "- ", "# ", "1. ", "|", "\\", " ", "\u202e"])
def test_hostile_text_takes_linear_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    started = time.process_time()
    as_text(text)
    shortened(text, {"needle": 1.0})
    assert time.process_time() - started < 1
