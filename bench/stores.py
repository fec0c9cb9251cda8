"""A store against `local` on the same documents: same answers, and how fast.

`.venv-stores/bin/python -P -m bench.stores KIND FOLDER…` (`make test-stores` makes that environment) with `lancedb`,
`milvus`, or any other kind whose packages are there; each folder with `docs/` and `questions.jsonl`, as `kvasir eval`
reads them. Needs the embedder of the settings.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.common import quantile
from core import registry
from core import settings as settings_module
from core.analyzer import query_tokens
from core.answering.retrieve import LiveKb, Retriever
from core.app import Kvasir
from core.embedders.builtin import open_embedder
from core.ports import Embedder, VectorStore
from core.settings import RetrievalSettings
from core.stores.local import open_store as open_local
from core.types import Generation, IndexedDocument, SearchMode

QUESTIONS = 250
GROUP = 128
"""Documents put at once, as an ingestion does."""


@dataclass(frozen=True)
class Set:
    name: str
    generation: Generation
    documents: Sequence[IndexedDocument]
    questions: Sequence[tuple[str, str]]
    """With the document that answers."""


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit("python -m bench.stores KIND FOLDER…")
    kind, folders = sys.argv[1], [Path(given) for given in sys.argv[2:]]
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as own:
        for folder in folders:
            data = Path(own) / folder.name
            subprocess.run(
                [Path(sys.executable).with_name("kvasir"), "ingest", str(folder / "docs"), "--kb", "kb", "--json"],
                env=dict(os.environ, KVASIR_DATA_DIR=str(data), KVASIR_LOG__LEVEL="ERROR"),
                stdout=subprocess.DEVNULL, check=True,
            )  # fmt: skip
            asyncio.run(compare(kind, folder, data))


async def compare(kind: str, folder: Path, data: Path) -> None:
    settings = settings_module.load(data_dir=data)
    async with Kvasir.open(settings) as kvasir:
        generation = (await kvasir.knowledge.live(["kb"]))[0].generation
    local = await open_local(settings)
    store: VectorStore = await registry.load("kvasir.stores", kind)(settings)
    embedder = await open_embedder(settings)
    try:
        ids = [document for document, _, _ in await local.documents(generation)]
        lines = (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
        asked = [(one["question"], one["document"]) for one in map(json.loads, lines)][:QUESTIONS]
        one = Set(folder.name, generation, await local.read(generation, ids), asked)
        chunks = sum(len(document.chunks) for document in one.documents)
        print(f"{one.name}: {len(ids)} documents, {chunks} chunks, {len(asked)} questions; {kind}")
        await store.ensure_generation(generation)
        started = time.perf_counter()
        for first in range(0, len(one.documents), GROUP):
            await store.put(generation, one.documents[first : first + GROUP])
        print(f"  put: {chunks / (time.perf_counter() - started):.0f} chunks/s")
        assert await store.count(generation) == await local.count(generation)
        modes: tuple[SearchMode, ...] = ("keyword", "vector", "hybrid")
        for mode in modes:
            await same(local, store, embedder, one, mode)
        await speed(local, store, embedder, one)
    finally:
        await embedder.close()
        await store.close()
        await local.close()


async def same(local: VectorStore, store: VectorStore, embedder: Embedder, one: Set, mode: SearchMode) -> None:
    """Top 10 and top 1 of the whole search, question by question, and how often the right document is there."""

    async def live(_names: Sequence[str]) -> list[LiveKb]:
        return [LiveKb("kb", one.generation)]

    both = [Retriever(each, lambda: embedder, live, RetrievalSettings()) for each in (local, store)]
    overlap: list[float] = []
    first = 0
    right = [[0, 0], [0, 0]]
    for question, document in one.questions:
        found = [(await each.retrieve(question, ["kb"], limit=10, mode=mode)).passages for each in both]
        keys = [[(passage.document_id, passage.chunk) for passage in passages] for passages in found]
        overlap.append(len(set(keys[0]) & set(keys[1])) / max(1, len(keys[0])))
        first += keys[0][:1] == keys[1][:1]
        for number, passages in enumerate(found):
            right[number][0] += bool(passages) and passages[0].document == document
            right[number][1] += document in [passage.document for passage in passages[:5]]
    count = len(one.questions)
    recalls = " / ".join(f"{at1 / count:.3f} {at5 / count:.3f}" for at1, at5 in right)
    print(f"  {mode}: top 10 overlap {sum(overlap) / count:.3f}, top 1 equal {first / count:.3f};"
          f" recall@1 and @5, local / this one: {recalls}")  # fmt: skip


async def speed(local: VectorStore, store: VectorStore, embedder: Embedder, one: Set) -> None:
    """Both legs of a search, through the port; vectors are made beforehand."""
    asked = [(query_tokens(text), await embedder.embed_query(text)) for text, _ in one.questions]
    depth = RetrievalSettings().candidates
    times: tuple[list[float], list[float]] = ([], [])
    for tokens, vector in asked:
        for each, found in zip((local, store), times, strict=True):
            started = time.perf_counter()
            await each.search(one.generation, vector=vector, tokens=tokens, limit=depth)
            found.append(time.perf_counter() - started)
    for name, found in zip(("local", "this one"), times, strict=True):
        print(f"  {name}: p50 {quantile(found, 0.5) * 1000:.1f} ms, p99 {quantile(found, 0.99) * 1000:.1f} ms")


if __name__ == "__main__":
    main()
