"""Ingestion of files (read, split, embed, store, switch live) against the bare embedder loop over the same chunks."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.common import ratio, write_corpus
from core import settings as settings_module
from core.app import Kvasir
from core.cli.documents import bring_in
from core.embedders.builtin import open_embedder
from core.embedders.cache import CachedEmbedder
from core.ports import Embedder
from core.settings import EmbedderSettings
from core.types import Matrix, Vector

ROUNDS = 3
DOCUMENTS = 40


def main() -> None:
    asyncio.run(measure())


async def measure() -> None:
    logging.disable(logging.WARNING)
    whole: list[float] = []
    bare: list[float] = []
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder, "corpus")
            write_corpus(corpus, DOCUMENTS, 6000, seed=number)
            ours, texts = await kvasir_seconds(Path(folder, "data"), corpus)
            whole.append(len(texts) / ours)
            bare.append(len(texts) / await bare_seconds(Path(folder, "bare"), texts))
    print(f"Kvasir {sorted(whole)[ROUNDS // 2]:.1f} chunks/s, bare embedder {sorted(bare)[ROUNDS // 2]:.1f} chunks/s")
    print(f"Kvasir against the bare loop: {ratio(whole, bare)} (bar: ≥ 0.95)")


def model_settings(data: Path) -> settings_module.Settings:
    model = os.environ.get("KVASIR_TEST_MODEL_DIR")
    chosen = EmbedderSettings(model_dir=Path(model) if model else None)
    return settings_module.load(data_dir=data, embedder=chosen)


class Recorded:
    """An embedder that keeps what it was asked to embed."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self.info = inner.info
        self.texts: list[str] = []

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        self.texts += texts
        return await self._inner.embed_documents(texts)

    async def embed_query(self, text: str) -> Vector:
        return await self._inner.embed_query(text)

    async def close(self) -> None:
        await self._inner.close()


async def kvasir_seconds(data: Path, corpus: Path) -> tuple[float, list[str]]:
    """Both sides are warm when the clock starts: here one document has gone all the way, there a few texts."""
    settings = model_settings(data)
    embedder = Recorded(await open_embedder(settings))
    cached = CachedEmbedder(embedder, data / "embeddings.db")
    try:
        async with Kvasir.open(settings, embedder=cached) as kvasir:
            await bring_in(kvasir, "warm", [str(write_corpus(data / "warm", 1, 6000, seed=99)[0])], show=False)
            embedder.texts.clear()
            started = time.perf_counter()
            await bring_in(kvasir, "kb", [str(corpus)], show=False)
            return time.perf_counter() - started, embedder.texts
    finally:
        await cached.close()


async def bare_seconds(data: Path, texts: list[str]) -> float:
    embedder = await open_embedder(model_settings(data))
    try:
        await embedder.embed_documents(texts[:8])
        started = time.perf_counter()
        await embedder.embed_documents(texts)
        return time.perf_counter() - started
    finally:
        await embedder.close()
