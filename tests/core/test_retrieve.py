from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import core.answering.retrieve
from core.answering.retrieve import Retrieved, Retriever
from core.errors import EmbedderUnavailable, StoreUnavailable
from core.ports import Embedder, QueryVector, Reranker, VectorStore
from core.settings import RetrievalSettings
from core.stores.local import LocalStore
from core.types import Compare, Filter, Generation, Matrix, Passage, SearchResult, Vector
from tests.core.library import CHINESE, ENGLISH, Library, library
from tests.fakes.embedder import HashEmbedder

pytestmark = pytest.mark.anyio

SETTINGS = RetrievalSettings()


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path) as opened:
        yield opened


def retriever(
    shelf: Library,
    embedder: Embedder | None = None,
    *,
    store: VectorStore | None = None,
    settings: RetrievalSettings = SETTINGS,
    reranker: Reranker | None = None,
) -> Retriever:
    async def rerankers(_name: str) -> Reranker:
        assert reranker is not None
        return reranker

    if reranker is not None:
        settings = settings.model_copy(update={"reranker": "any"})
    return Retriever(store or shelf.store, lambda: embedder, shelf.live, settings, rerankers)


def names(found: Retrieved) -> list[str]:
    return [passage.document for passage in found.passages]


async def test_keywords_alone_find_the_passage(shelf: Library) -> None:
    await shelf.add("en", ENGLISH)
    found = await retriever(shelf).retrieve("How many days of holiday do I have?", ["en"], limit=3)
    first = found.passages[0]
    assert (first.document, first.kb, first.title) == ("leave.md", "en", "Holidays")
    assert first.vector_score is None
    assert first.keyword_score is not None
    assert not found.vectors_used
    assert found.evidence >= 0.5
    assert list(found.terms) == ["day", "holiday"]
    assert all(0 <= passage.score <= 1 for passage in found.passages)


async def test_both_legs_are_used_where_the_vectors_fit(shelf: Library) -> None:
    embedder = HashEmbedder()
    await shelf.add("en", ENGLISH, embedder)
    found = await retriever(shelf, embedder).retrieve("holiday days", ["en"], limit=3)
    assert found.vectors_used
    assert names(found)[0] == "leave.md"
    assert all(passage.vector_score is not None for passage in found.passages)


async def test_vectors_of_another_embedder_are_never_searched(shelf: Library) -> None:
    await shelf.add("en", ENGLISH, HashEmbedder(name="old"))
    found = await retriever(shelf, HashEmbedder(name="new")).retrieve("holiday days", ["en"], limit=3)
    assert not found.vectors_used
    assert names(found)[0] == "leave.md"
    assert found.passages[0].vector_score is None


async def test_mode_vector_says_when_there_are_no_vectors(shelf: Library) -> None:
    await shelf.add("en", ENGLISH)
    with pytest.raises(EmbedderUnavailable, match="keywords"):
        await retriever(shelf, HashEmbedder()).retrieve("holiday", ["en"], limit=3, mode="vector")


async def test_mode_vector_orders_by_cosine(shelf: Library) -> None:
    embedder = HashEmbedder()
    await shelf.add("en", ENGLISH, embedder)
    found = await retriever(shelf, embedder).retrieve("holiday days", ["en"], limit=6, mode="vector")
    cosines = [passage.vector_score for passage in found.passages]
    assert cosines == sorted(cosines, key=lambda score: score or 0, reverse=True)
    assert found.passages[0].score == pytest.approx(max(0.0, cosines[0] or 0))


async def test_mode_keyword_embeds_nothing(shelf: Library) -> None:
    embedder = HashEmbedder()
    await shelf.add("en", ENGLISH, embedder)
    found = await retriever(shelf, Broken(embedder)).retrieve("holiday days", ["en"], limit=3, mode="keyword")
    assert names(found)[0] == "leave.md"
    assert not found.vectors_used


async def test_several_knowledge_bases_are_searched_as_one(shelf: Library) -> None:
    embedder = HashEmbedder()
    await shelf.add("en", ENGLISH, embedder)
    await shelf.add("zh", CHINESE)
    finder = retriever(shelf, embedder)
    english = await finder.retrieve("What does the canteen serve on Fridays?", ["en", "zh"], limit=4)
    chinese = await finder.retrieve("食堂周五供应什么？", ["en", "zh"], limit=4)
    assert (english.passages[0].kb, english.passages[0].document) == ("en", "food.md")
    assert (chinese.passages[0].kb, chinese.passages[0].document) == ("zh", "食堂.md")
    assert {passage.kb for passage in chinese.passages} == {"en", "zh"}


async def test_filters_reach_the_store(shelf: Library) -> None:
    await shelf.add("en", ENGLISH)
    only = Compare("document", "eq", "food.md")
    found = await retriever(shelf).retrieve("holiday lunch", ["en"], limit=5, filter=only)
    assert names(found) == ["food.md"]


@pytest.mark.parametrize(
    ("question", "answerable"),
    [
        ("Who founded the company?", True),
        ("When does the office open?", True),
        ("How long must a password be?", True),
        ("Who painted the ceiling of the Sistine Chapel?", False),
        ("Which enzyme splits lactose?", False),
        ("酒店每晚不得超过多少钱？", True),
        ("谁保管档案室的钥匙？", True),
        ("月球到地球的距离是多少？", False),
        ("光合作用需要哪些条件？", False),
    ],
)
async def test_evidence_tells_what_the_documents_answer(shelf: Library, question: str, answerable: bool) -> None:
    await shelf.add("both", {**ENGLISH, **CHINESE})
    found = await retriever(shelf).retrieve(question, ["both"], limit=5)
    assert (found.evidence >= 0.5) == answerable, found.signals


async def test_copies_of_a_document_do_not_weaken_the_evidence(shelf: Library) -> None:
    await shelf.add("once", CHINESE)
    await shelf.add("thrice", {f"{place}/{name}": text for place in "abc" for name, text in CHINESE.items()})
    question = "谁保管档案室的钥匙？"
    once = await retriever(shelf).retrieve(question, ["once"], limit=5)
    thrice = await retriever(shelf).retrieve(question, ["thrice"], limit=5)
    assert once.signals is not None
    assert thrice.signals is not None
    assert thrice.signals.gap > once.signals.gap / 2


async def test_without_judging_there_is_no_evidence(shelf: Library) -> None:
    embedder = HashEmbedder()
    await shelf.add("en", ENGLISH, embedder)
    embedder.embedded.clear()
    found = await retriever(shelf, embedder).retrieve("holiday", ["en"], limit=5, judged=False)
    assert found.signals is None
    assert found.evidence == 0
    assert embedder.embedded == []


@pytest.mark.parametrize("question", ["", "?!", "🙂", "the of and"])
async def test_a_question_without_words_finds_nothing_certain(shelf: Library, question: str) -> None:
    await shelf.add("en", ENGLISH)
    found = await retriever(shelf).retrieve(question, ["en"], limit=5)
    assert found.evidence < 0.5


async def test_an_empty_knowledge_base(shelf: Library) -> None:
    await shelf.add("empty", {})
    found = await retriever(shelf, HashEmbedder()).retrieve("holiday", ["empty"], limit=5)
    assert found.passages == ()
    assert found.evidence == 0


async def test_a_pasted_log_is_searched_by_its_first_words(shelf: Library) -> None:
    await shelf.add("en", ENGLISH)
    log = "holiday " + " ".join(f"line{n}" for n in range(5000))
    found = await retriever(shelf).retrieve(log, ["en"], limit=5)
    assert names(found)[0] == "leave.md"
    assert len(found.terms) <= 128


async def test_the_same_question_is_embedded_once(shelf: Library) -> None:
    embedder = Counting(HashEmbedder())
    await shelf.add("en", ENGLISH, embedder)
    finder = retriever(shelf, embedder)
    for _ in range(3):
        await finder.retrieve("holiday", ["en"], limit=2)
    assert embedder.asked == 1


async def test_a_failing_embedder_leaves_the_keywords(shelf: Library) -> None:
    embedder = HashEmbedder()
    await shelf.add("en", ENGLISH, embedder)
    found = await retriever(shelf, Broken(embedder)).retrieve("holiday days", ["en"], limit=3)
    assert names(found)[0] == "leave.md"
    assert not found.vectors_used


@pytest.mark.parametrize("embedder", [None, HashEmbedder()], ids=["words", "vectors"])
async def test_a_store_that_hangs_is_not_waited_for(
    shelf: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedder: HashEmbedder | None
) -> None:
    monkeypatch.setattr(core.answering.retrieve, "_STORE_SECONDS", 0.05)
    await shelf.add("en", ENGLISH, embedder)
    hanging = Hanging(tmp_path / "none.db", cache_mb=16)
    with pytest.raises(StoreUnavailable, match="try again"):
        await retriever(shelf, embedder, store=hanging).retrieve("holiday", ["en"], limit=3)


async def test_a_hanging_embedder_is_not_waited_for(shelf: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.answering.retrieve, "_EMBED_SECONDS", 0.05)
    embedder = HashEmbedder()
    await shelf.add("en", ENGLISH, embedder)
    found = await retriever(shelf, Slow(embedder)).retrieve("holiday days", ["en"], limit=3)
    assert names(found)[0] == "leave.md"


async def test_words_are_looked_for_while_the_question_is_embedded(shelf: Library) -> None:
    embedder = HashEmbedder()
    await shelf.add("en", ENGLISH, embedder)
    store = Telling(shelf.store)
    found = await retriever(shelf, After(embedder, store.asked), store=store).retrieve("days", ["en"], limit=3)
    assert found.vectors_used


async def test_the_reranker_has_the_last_word(shelf: Library) -> None:
    await shelf.add("en", ENGLISH)
    found = await retriever(shelf, reranker=Reversing()).retrieve("holiday days and lunch", ["en"], limit=2)
    plain = await retriever(shelf).retrieve("holiday days and lunch", ["en"], limit=2)
    assert names(found) == names(plain)[::-1]
    assert found.evidence == plain.evidence


async def test_a_failing_reranker_leaves_the_order(shelf: Library) -> None:
    await shelf.add("en", ENGLISH)
    found = await retriever(shelf, reranker=Failing()).retrieve("holiday days", ["en"], limit=2)
    assert names(found)[0] == "leave.md"


async def test_the_weight_of_the_settings_goes_before_the_model_s(shelf: Library) -> None:
    embedder = HashEmbedder()
    await shelf.add("en", ENGLISH, embedder)
    by_words = retriever(shelf, embedder, settings=RetrievalSettings(dense_weight=0.0))
    by_meaning = retriever(shelf, embedder, settings=RetrievalSettings(dense_weight=1.0))
    one = await by_words.retrieve("holiday", ["en"], limit=6)
    other = await by_meaning.retrieve("holiday", ["en"], limit=6)
    assert [passage.score for passage in one.passages] != [passage.score for passage in other.passages]


async def test_what_comes_with_the_question_goes_before_the_settings(shelf: Library) -> None:
    embedder = HashEmbedder()
    await shelf.add("en", ENGLISH, embedder)
    finder = retriever(shelf, embedder, settings=RetrievalSettings(dense_weight=0.0), reranker=Reversing())
    plain = await finder.retrieve("holiday days and lunch", ["en"], limit=2, reranker="")
    assert plain.dense_weight == 0.0
    assert names(plain) == names(await finder.retrieve("holiday days and lunch", ["en"], limit=2))[::-1]
    weighed = await finder.retrieve("holiday days and lunch", ["en"], limit=2, reranker="", dense_weight=1.0)
    assert weighed.dense_weight == 1.0
    assert [one.score for one in weighed.passages] != [one.score for one in plain.passages]


async def test_another_index_is_searched_in_the_place_of_the_live_one(shelf: Library) -> None:
    await shelf.add("en", ENGLISH)
    other = await shelf.add("other", {"food.md": ENGLISH["food.md"]})
    found = await retriever(shelf).retrieve("holiday lunch", ["en"], limit=5, generation=other.generation)
    assert (names(found), found.passages[0].kb) == (["food.md"], "en")


async def test_an_unknown_knowledge_base_leaves_nothing_running(shelf: Library) -> None:
    embedder = Slow(HashEmbedder())
    before = asyncio.all_tasks()
    with pytest.raises(KeyError):
        await retriever(shelf, embedder).retrieve("holiday", ["none"], limit=3)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


class Wrapping:
    def __init__(self, inner: HashEmbedder) -> None:
        self.inner = inner
        self.info = inner.info

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return await self.inner.embed_documents(texts)

    async def embed_query(self, text: str) -> Vector:
        return await self.inner.embed_query(text)

    async def close(self) -> None:
        return None


class Counting(Wrapping):
    asked = 0

    async def embed_query(self, text: str) -> Vector:
        self.asked += 1
        return await super().embed_query(text)


class Broken(Wrapping):
    async def embed_query(self, text: str) -> Vector:
        raise EmbedderUnavailable(f"no vector for {text!r}")


class Slow(Wrapping):
    async def embed_query(self, text: str) -> Vector:
        await asyncio.sleep(30)
        return await super().embed_query(text)


class After(Wrapping):
    """Its vectors come when something has begun."""

    def __init__(self, inner: HashEmbedder, begun: asyncio.Event) -> None:
        super().__init__(inner)
        self.begun = begun

    async def embed_query(self, text: str) -> Vector:
        await self.begun.wait()
        return await super().embed_query(text)


class Telling(LocalStore):
    """The same store; it tells when it is searched."""

    def __init__(self, other: LocalStore) -> None:
        self.__dict__.update(other.__dict__)
        self.asked = asyncio.Event()

    async def search(
        self,
        generation: Generation,
        *,
        vector: QueryVector,
        tokens: Sequence[str],
        limit: int,
        filter: Filter | None = None,
    ) -> SearchResult:
        self.asked.set()
        return await super().search(generation, vector=vector, tokens=tokens, limit=limit, filter=filter)


class Hanging(LocalStore):
    async def search(
        self,
        generation: Generation,
        *,
        vector: QueryVector,
        tokens: Sequence[str],
        limit: int,
        filter: Filter | None = None,
    ) -> SearchResult:
        await asyncio.sleep(30)
        return await super().search(generation, vector=vector, tokens=tokens, limit=limit, filter=filter)


class Reversing:
    async def rerank(self, query: str, passages: Sequence[Passage]) -> Sequence[Passage]:
        best = [replace(passage, rerank_score=0.5) for passage in passages]
        return [*reversed(best[:2]), *best[2:]] if query else best

    async def close(self) -> None:
        return None


class Failing(Reversing):
    async def rerank(self, query: str, passages: Sequence[Passage]) -> Sequence[Passage]:
        raise EmbedderUnavailable(f"gone with {query!r} and {len(passages)} passages")


async def test_what_is_near_everything_is_no_evidence(shelf: Library) -> None:
    """An embedder whose cosines are all high: only what stands above its usual one counts."""
    plain, crowded = HashEmbedder(), HashEmbedder()
    crowded.info = replace(crowded.info, background=0.1)
    await shelf.add("en", ENGLISH, plain)
    question = "How many days of holiday do I have?"
    usual, less = [await retriever(shelf, one).retrieve(question, ["en"], limit=3) for one in (plain, crowded)]
    assert usual.signals is not None
    assert less.signals is not None
    assert less.signals.closest == pytest.approx((usual.signals.closest - 0.1) / 0.9, abs=1e-6)
    assert less.evidence < usual.evidence
    assert [one.score for one in less.passages] == [one.score for one in usual.passages]


async def test_the_question_is_embedded_once_in_each_space(shelf: Library) -> None:
    one, other = Counting(HashEmbedder(64, "one")), Counting(HashEmbedder(32, "other"))
    for kb, embedder in (("a", one), ("b", one), ("c", other)):
        await shelf.add(kb, ENGLISH, embedder)

    async def maker(fingerprint: str) -> Embedder | None:
        return other if fingerprint == other.info.fingerprint else None

    asked = Retriever(shelf.store, lambda: one, shelf.live, SETTINGS, None, maker)
    found = await asked.retrieve("How many days of holiday?", ["a", "b", "c"], limit=12, judged=False)
    assert (one.asked, other.asked) == (1, 1)
    assert {passage.kb for passage in found.passages if passage.vector_score} == {"a", "b", "c"}
    await asked.retrieve("Who has the keys?", ["c"], limit=3, judged=False)
    assert (one.asked, other.asked) == (1, 2)  # by now it is known whose space «c» is in
