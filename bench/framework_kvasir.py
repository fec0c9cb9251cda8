"""One sample of Kvasir's own ingestion with a stub for the embedder."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

from bench.common import cpu_seconds
from core import settings as settings_module
from core.app import Kvasir
from core.cli import collect_seldom, keep_memory
from core.cli.documents import bring_in
from tests.fakes.embedder import StubEmbedder

CHUNK_SIZE, OVERLAP = 63, 18
"""Tokens of the default model; with them there are as many chunks as the peers make, and as long, within a hundredth.

The peers are asked for 250 characters that share 50; Kvasir lets neighbours share whole sentences only."""


async def measure(folder: Path, data: Path) -> None:
    logging.disable(logging.WARNING)
    settings = settings_module.load(data_dir=data)
    async with Kvasir.open(settings, embedder=stub()) as kvasir:
        for name in ("warm", "kb"):
            await kvasir.knowledge.create(name, chunk_size=CHUNK_SIZE, chunk_overlap=OVERLAP)
        first = sorted(folder.iterdir())[:5]
        await bring_in(kvasir, "warm", [str(path) for path in first], show=False)
        started = cpu_seconds()
        outcomes = await bring_in(kvasir, "kb", [str(folder)], show=False)
        used = cpu_seconds() - started
        documents, _ = await kvasir.knowledge.documents("kb", limit=1000)
        lengths = [len(chunk.text) for one in documents for chunk in await kvasir.knowledge.chunks(one.id)]
    count = sum(outcome.chunks for outcome in outcomes)
    size = sum(lengths) / count
    print(json.dumps({"chunks": count, "characters": size, "cpu_us_per_chunk": used / count * 1e6}))


def stub() -> StubEmbedder:
    """It counts tokens as the default model does, where that model is at hand (KVASIR_TEST_MODEL_DIR)."""
    embedder = StubEmbedder()
    if model := os.environ.get("KVASIR_TEST_MODEL_DIR"):
        embedder.info = replace(embedder.info, vocabulary=str(Path(model, "tokenizer.json")))
    return embedder


if __name__ == "__main__":
    collect_seldom()  # both as the command does
    keep_memory()
    asyncio.run(measure(Path(sys.argv[2]), Path(sys.argv[3])))
