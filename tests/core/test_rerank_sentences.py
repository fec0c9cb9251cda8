from __future__ import annotations

from collections.abc import Sequence

import pytest

from core.errors import EmbedderUnavailable
from core.rerankers.sentences import SentenceReranker, open_reranker
from core.settings import Settings
from core.types import Matrix
from tests.core.library import passage
from tests.fakes.embedder import HashEmbedder

pytestmark = pytest.mark.anyio

SHELF = [
    passage("Trains leave at nine. Tickets cost little.", document="trains.md", score=0.6),
    passage("Soup is served on Monday. Fresh fish is served on Friday.", document="food.md", score=0.55),
    *(passage(f"Note {n}.", document=f"{n}.md", score=0.5 - n / 100) for n in range(8)),
]
QUESTION = "fresh fish is served on friday"


async def test_the_passage_with_the_closest_sentence_comes_first() -> None:
    embedder = HashEmbedder()
    ranked = await SentenceReranker(lambda: embedder).rerank(QUESTION, SHELF)
    assert ranked[0].document == "food.md"
    assert {one.document for one in ranked} == {one.document for one in SHELF}
    scores = [one.rerank_score or 0.0 for one in ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize("embedder", [None, HashEmbedder(scripts=frozenset({"Han"}))])
async def test_without_fitting_vectors_the_order_stays(embedder: HashEmbedder | None) -> None:
    ranked = await SentenceReranker(lambda: embedder).rerank(QUESTION, SHELF)
    assert [one.document for one in ranked] == [one.document for one in SHELF]
    assert all(one.rerank_score is not None for one in ranked)


async def test_a_failing_embedder_leaves_the_order() -> None:
    class Failing(HashEmbedder):
        async def embed_documents(self, texts: Sequence[str]) -> Matrix:
            raise EmbedderUnavailable(f"gone with {len(texts)} texts")

    failing = Failing()
    ranked = await SentenceReranker(lambda: failing).rerank(QUESTION, SHELF)
    assert [one.document for one in ranked] == [one.document for one in SHELF]


async def test_it_opens_by_the_settings() -> None:
    reranker = await open_reranker(Settings())
    assert await reranker.rerank(QUESTION, []) == []
    await reranker.close()
