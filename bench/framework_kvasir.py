"""One sample of Kvasir's own ingestion with a stub for the embedder."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
from pathlib import Path

from bench.common import cpu_seconds
from core import settings as settings_module
from core.app import Kvasir
from core.cli.documents import bring_in
from tests.fakes.embedder import StubEmbedder


async def measure(folder: Path) -> None:
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as data:
        settings = settings_module.load(data_dir=Path(data))
        async with Kvasir.open(settings, embedder=StubEmbedder()) as kvasir:
            # 60 tokens with 12 in common are about the 250 characters with 50 in common of the peers.
            for name in ("warm", "kb"):
                await kvasir.knowledge.create(name, chunk_size=60, chunk_overlap=12)
            first = sorted(folder.iterdir())[:5]
            await bring_in(kvasir, "warm", [str(path) for path in first], show=False)
            started = cpu_seconds()
            outcomes = await bring_in(kvasir, "kb", [str(folder)], show=False)
            used = cpu_seconds() - started
    count = sum(outcome.chunks for outcome in outcomes)
    print(json.dumps({"chunks": count, "cpu_us_per_chunk": used / count * 1e6}))


if __name__ == "__main__":
    asyncio.run(measure(Path(sys.argv[2])))
