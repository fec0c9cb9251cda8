"""Rerankers whose model runs in a worker process (`core/serving`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from core.errors import ConfigError, Unavailable
from core.inference import sections
from core.ports import ProcessState
from core.serving.memory import weight_bytes
from core.serving.plan import plan_of
from core.serving.vectors import Vectors
from core.settings import Settings
from core.texts import tell
from core.types import Passage

Progress = Callable[[str, float], None]

_SECONDS: Final = 10.0
"""An answer waits for it; better the order that there is than a late one."""


async def open_local(
    adapter: str,
    settings: Settings,
    progress: Progress,
    *,
    driver: str = "",
    memory: int | None = None,
    on_gpu: bool = False,
) -> LocalReranker:
    """The reranker of an adapter, its model loaded. Raises Unavailable or ConfigError where it cannot be.

    `memory`: bytes that the model takes, where the caller knows better than its files do; `on_gpu`: of the cards'.
    """
    if not sections.is_set_up(settings, "reranker", adapter):
        raise ConfigError(tell("worker_no_model_dir", adapter=adapter))
    if memory is None:
        paths = sections.paths_of(settings, "reranker", adapter)
        memory = await asyncio.to_thread(lambda: sum(map(weight_bytes, paths)))
    plan = plan_of(settings, "reranker", adapter, driver=driver, memory=memory, on_gpu=on_gpu)
    return LocalReranker(await Vectors.open(plan, progress), adapter)


class LocalReranker:
    def __init__(self, vectors: Vectors, name: str) -> None:
        self._vectors = vectors
        self._name = name

    @property
    def process(self) -> ProcessState:
        return self._vectors.process

    def revive(self) -> None:
        self._vectors.revive()

    async def rerank(self, query: str, passages: Sequence[Passage]) -> Sequence[Passage]:
        """The passages by the model's judgement. Raises Unavailable where that cannot be had."""
        if not passages:
            return ()
        try:
            async with asyncio.timeout(_SECONDS):
                scores = await self._vectors.rerank(query, [passage.text for passage in passages])
        except TimeoutError as error:
            raise Unavailable(tell("rerank_slow", host=self._name, seconds=f"{_SECONDS:g}")) from error
        judged = [replace(passage, rerank_score=score) for passage, score in zip(passages, scores, strict=True)]
        return sorted(judged, key=lambda passage: passage.rerank_score or 0.0, reverse=True)

    async def close(self) -> None:
        await self._vectors.close()
