"""Ingestion of files (read, split, embed, store, switch live) against the bare embedder loop over the same chunks."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from pathlib import Path

from bench.common import ratio, write_corpus
from core import settings as settings_module
from core.app import Kvasir
from core.cli.documents import bring_in
from core.embedders.builtin import open_embedder
from core.settings import EmbedderSettings

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


async def kvasir_seconds(data: Path, corpus: Path) -> tuple[float, list[str]]:
    async with Kvasir.open(model_settings(data), embedder="wait") as kvasir:
        started = time.perf_counter()
        await bring_in(kvasir, "kb", [str(corpus)], show=False)
        took = time.perf_counter() - started
        documents, _ = await kvasir.knowledge.documents("kb", limit=1000)
        texts = []
        for document in documents:
            for chunk in await kvasir.knowledge.chunks(document.id):
                texts.append("\n".join((document.title, *chunk.headings, chunk.text)))
    return took, texts


async def bare_seconds(data: Path, texts: list[str]) -> float:
    embedder = await open_embedder(model_settings(data))
    try:
        await embedder.embed_documents(texts[:8])
        started = time.perf_counter()
        await embedder.embed_documents(texts)
        return time.perf_counter() - started
    finally:
        await embedder.close()
