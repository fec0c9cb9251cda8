"""Reranks passages by the sentence that is closest to the question, with the embedder that is there anyway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from core.answering.fusion import known_share
from core.answering.quoting import scored_sentences
from core.errors import EmbedderUnavailable
from core.ports import Embedder
from core.settings import Settings
from core.types import Passage

logger = logging.getLogger(__name__)

_READ: Final = 5
"""Passages that are read; measured, more of them gain nothing."""
_SENTENCES: Final = 30
_SECONDS: Final = 3.0
_CLOSENESS: Final = 0.4
"""Part of the score that comes from the closest sentence; the rest is the passage's own."""


def _no_embedder() -> Embedder | None:
    return None


async def open_reranker(
    settings: Settings,  # noqa: ARG001 - every reranker is opened so
    *,
    embedder: Callable[[], Embedder | None] = _no_embedder,
    **_: object,
) -> SentenceReranker:
    return SentenceReranker(embedder)


class SentenceReranker:
    """Leaves the order as it is where the embedder is not there or does not know the question's script."""

    def __init__(self, embedder: Callable[[], Embedder | None]) -> None:
        self._embedder = embedder

    async def rerank(self, query: str, passages: Sequence[Passage]) -> Sequence[Passage]:
        closeness = await self._closeness(query, passages[:_READ])
        read = [
            replace(passage, rerank_score=(1 - _CLOSENESS) * passage.score + _CLOSENESS * closeness.get(index, 0.0))
            for index, passage in enumerate(passages[:_READ])
        ]
        if closeness:
            read.sort(key=lambda passage: passage.rerank_score or 0.0, reverse=True)
        lowest = min((passage.rerank_score or 0.0 for passage in read), default=0.0)
        return [*read, *(replace(one, rerank_score=min(lowest, one.score)) for one in passages[_READ:])]

    async def close(self) -> None:
        return None

    async def _closeness(self, query: str, passages: Sequence[Passage]) -> dict[int, float]:
        """By index of the passage: the highest similarity of one of its sentences; empty without vectors."""
        embedder = self._embedder()
        known = known_share(embedder.info.scripts, query) if embedder else 0.0
        if embedder is None or not known:
            return {}
        found = (await asyncio.to_thread(scored_sentences, query, passages, {}))[:_SENTENCES]
        try:
            async with asyncio.timeout(_SECONDS):
                vector = await embedder.embed_query(query)
                rows = await embedder.embed_documents([sentence.text for sentence in found])
        except (EmbedderUnavailable, TimeoutError) as error:
            logger.warning("the passages keep their order, their sentences could not be embedded: %s", error or "slow")
            return {}
        closest: dict[int, float] = {}
        for sentence, cosine in zip(found, (rows @ vector).tolist(), strict=True):
            closest[sentence.passage] = max(closest.get(sentence.passage, 0.0), known * cosine)
        return closest
