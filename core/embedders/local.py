"""Embedders whose model runs in a worker process (`core/serving`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from core.embedders.lanes import halved
from core.errors import ConfigError, EmbedderUnavailable, Unavailable
from core.inference import sections
from core.ports import EmbedderInfo, ProcessState
from core.serving.driver import Card
from core.serving.memory import weight_bytes
from core.serving.plan import plan_of
from core.serving.vectors import Vectors
from core.settings import Settings
from core.texts import tell
from core.types import Matrix, Vector

logger = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
Describe = Callable[[Card, float], EmbedderInfo]
"""What is known of an embedder, by its card and the mean cosine of texts that have nothing to do with each other."""

UNRELATED: Final = (
    "The harbour office opens at seven on weekdays.",
    "Whisk the eggs with sugar until they are pale.",
    "A prime number has exactly two divisors.",
    "打印机缺纸时会亮起黄灯。",
    "春天的时候候鸟飞回北方。",
    "Invoices are paid within thirty days.",
)
"""By these, `Describe` gets its cosine."""


async def open_local(
    adapter: str,
    settings: Settings,
    progress: Progress | None = None,
    *,
    describe: Describe | None = None,
    driver: str = "",
    memory: int | None = None,
    on_gpu: bool = False,
) -> LocalEmbedder:
    """The embedder of an adapter, its model loaded. Raises EmbedderUnavailable or ConfigError where it cannot be.

    `memory`: bytes that the model takes, where the caller knows better than its files do; `on_gpu`: of the cards'.
    """
    if not sections.is_set_up(settings, "embedder", adapter):
        raise ConfigError(tell("worker_no_model_dir", adapter=adapter))
    if memory is None:
        paths = sections.paths_of(settings, "embedder", adapter)
        memory = await asyncio.to_thread(lambda: sum(map(weight_bytes, paths)))
    plan = plan_of(settings, "embedder", adapter, driver=driver, memory=memory, on_gpu=on_gpu)
    try:
        vectors = await Vectors.open(plan, progress or (lambda _stage, _done: None))
    except Unavailable as error:
        raise EmbedderUnavailable(str(error)) from error
    try:
        found = LocalEmbedder(vectors)
        rows = await found.embed_documents(UNRELATED)
        cosines = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
        background = min(0.9, max(0.0, float(cosines.mean())))
        found.info = (describe or _as_set(settings))(vectors.card, background)
    except BaseException:
        await vectors.close()
        raise
    logger.info("embedding with %s, %s dimensions", found.info.name, found.info.dimension)
    return found


class LocalEmbedder:
    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self.info = _info(vectors.card, frozenset({"*"}), 0.5, 0.0)

    @property
    def process(self) -> ProcessState:
        return self._vectors.process

    def revive(self) -> None:
        self._vectors.revive()

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return await self._rows(texts, query=False)

    async def embed_query(self, text: str) -> Vector:
        row: Vector = (await self._rows([text], query=True))[0]
        return row

    async def close(self) -> None:
        await self._vectors.close()

    async def _rows(self, texts: Sequence[str], *, query: bool) -> Matrix:
        try:
            rows = await self._vectors.embed(texts, query=query)
        except Unavailable as error:
            raise EmbedderUnavailable(str(error)) from error
        if not np.isfinite(rows).all():
            raise EmbedderUnavailable(tell("embed_garbage", host=self.info.name))
        return halved(rows)


def _as_set(settings: Settings) -> Describe:
    """As the section of the settings says."""
    chosen = settings.embedder
    return lambda card, background: _info(card, frozenset(chosen.scripts), chosen.weight, background)


def _info(card: Card, scripts: frozenset[str], weight: float, background: float) -> EmbedderInfo:
    return EmbedderInfo(
        name=card.model,
        fingerprint=card.fingerprint,
        dimension=card.dimension,
        max_tokens=card.max_tokens,
        scripts=scripts,
        weight=weight,
        background=background,
    )
