"""The `weaviate` store against `local` on the same documents: same answers? And what it costs against the bare client.

`python -m bench.weaviate FOLDER…`: each with `docs/` and `questions.jsonl`, as `kvasir eval` reads them. Needs a
server: `weaviate` on PATH, or KVASIR_TEST_WEAVIATE_URL; and the embedder of the settings.
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
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from weaviate import WeaviateAsyncClient
from weaviate.classes.query import HybridFusion

from bench.common import cpu_seconds, quantile, ratio
from bench.stores import GROUP, QUESTIONS, Set, same
from core import settings as settings_module
from core.app import Kvasir
from core.embedders.builtin import open_embedder
from core.ports import Embedder, VectorStore
from core.settings import RetrievalSettings, Settings, WeaviateSettings
from core.stores.local import open_store as open_local
from core.stores.weaviate import open_store
from core.stores.weaviate_index import CHUNK, Index
from core.stores.weaviate_schema import VECTOR, chunks_name, document_key
from core.stores.weaviate_server import Server
from core.stores.weaviate_writing import Coming, chunk_objects
from core.types import Generation, IndexedDocument, Vector
from tests.weaviate_server import any_server, empty, why_none

PAIRS = 200
ROUNDS = 21
PAUSE = 0.3
"""Seconds in which a server ends what it does by itself for an index that is new, or gone."""


def main() -> None:
    folders = [Path(given) for given in sys.argv[1:]]
    if not folders:
        sys.exit("python -m bench.weaviate FOLDER…")
    if why := why_none():
        sys.exit(why)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as own, any_server(Path(own) / "server") as weaviate:
        for folder in folders:
            data = Path(own) / folder.name
            subprocess.run(
                [Path(sys.executable).with_name("kvasir"), "ingest", str(folder / "docs"), "--kb", "kb", "--json"],
                env=dict(os.environ, KVASIR_DATA_DIR=str(data), KVASIR_LOG__LEVEL="ERROR"),
                stdout=subprocess.DEVNULL, check=True,
            )  # fmt: skip
            asyncio.run(compare(folder, data, weaviate))


async def compare(folder: Path, data: Path, weaviate: WeaviateSettings) -> None:
    settings = settings_module.load(data_dir=data).model_copy(update={"weaviate": weaviate})
    async with Kvasir.open(settings) as kvasir:
        generation = (await kvasir.knowledge.live(["kb"]))[0].generation
    local = await open_local(settings)
    store = await open_store(settings)
    embedder = await open_embedder(settings)
    try:
        ids = [document for document, _, _ in await local.documents(generation)]
        lines = (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
        asked = [(one["question"], one["document"]) for one in map(json.loads, lines)][:QUESTIONS]
        one = Set(folder.name, generation, await local.read(generation, ids), asked)
        chunks = sum(len(document.chunks) for document in one.documents)
        server = Server(weaviate)
        version = await server.version()
        await server.close()
        print(f"{one.name}: {len(ids)} documents, {chunks} chunks, {len(asked)} questions; weaviate {version}")
        await ingestion(store, one, settings)
        assert await store.count(generation) == await local.count(generation)
        for mode in ("keyword", "hybrid"):
            await same(local, store, embedder, one, mode)
        await speed(store, embedder, one, settings)
    finally:
        await embedder.close()
        await store.close()
        await local.close()
        await empty(weaviate, collections=True)


async def ingestion(store: VectorStore, one: Set, settings: Settings) -> None:
    """Time of `put` against the bare `insert_many` of the same objects; in turns, each into an empty index.

    And their CPU time, on a busy machine the steadier measure: the server's with it where it is our child.
    """
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    cpu: dict[str, list[float]] = {"ours": [], "bare": []}
    for number in range(ROUNDS):
        for side in ("ours", "bare") if number % 2 else ("bare", "ours"):
            own = Generation(
                uuid.uuid4().hex, one.generation.kb_id, one.generation.fingerprint, one.generation.dimension
            )
            await store.ensure_generation(own)
            await asyncio.sleep(PAUSE)
            started, used = time.perf_counter(), cpu_seconds()
            if side == "ours":
                for first in range(0, len(one.documents), GROUP):
                    await store.put(own, one.documents[first : first + GROUP])
            else:
                await _insert(settings.weaviate, own, one.documents)
            times[side].append(time.perf_counter() - started)
            cpu[side].append(cpu_seconds() - used)
            await store.drop_generation(own)
    await store.ensure_generation(one.generation)
    await store.put(one.generation, one.documents)
    chunks = sum(len(document.chunks) for document in one.documents)
    print(f"  ingestion: {chunks / min(times['ours']):.0f} chunks/s; bare insert_many's time / ours:"
          f" {ratio(times['bare'], times['ours'])}; CPU: {ratio(cpu['bare'], cpu['ours'])}")  # fmt: skip


async def _insert(weaviate: WeaviateSettings, generation: Generation, documents: Sequence[IndexedDocument]) -> None:
    server = Server(weaviate)

    async def insert(client: WeaviateAsyncClient) -> None:
        index = Index(client, weaviate, generation)
        every = [
            Coming(document, document_key(document.id), uuid.uuid4().hex, uuid.uuid4().hex) for document in documents
        ]
        objects = [found for one in every for found in chunk_objects(generation, one)]
        for first in range(0, len(objects), 200):
            assert not (await index.insert_chunks(objects[first : first + 200])).errors

    await server.call(insert, 600)
    await server.close()


async def speed(store: VectorStore, embedder: Embedder, one: Set, settings: Settings) -> None:
    """A hybrid search through the port against one hybrid call of the bare client; vectors are made beforehand."""
    from core.analyzer import query_tokens

    server = Server(settings.weaviate)
    asked = [(query_tokens(text), await embedder.embed_query(text)) for text, _ in one.questions[:PAIRS]]
    depth = RetrievalSettings().candidates
    times: dict[str, list[float]] = {name: [] for name in ("first", "again", "bare 10", f"bare {depth}")}
    name_there = chunks_name(settings.weaviate, one.generation)

    async def bare(client: WeaviateAsyncClient, tokens: Sequence[str], vector: Vector, limit: int) -> None:
        tenant = client.collections.use(name_there).with_tenant(one.generation.id)
        await tenant.query.hybrid(
            " ".join(tokens), vector=vector.tolist(), target_vector=VECTOR, alpha=0.4, limit=limit,
            query_properties=["tokens"], fusion_type=HybridFusion.RELATIVE_SCORE, return_properties=list(CHUNK),
        )  # fmt: skip

    for tokens, vector in asked:
        for name, found in times.items():
            started = time.perf_counter()
            if name.startswith("bare"):
                limit = int(name.split()[1])
                await server.call(partial(bare, tokens=tokens, vector=vector, limit=limit), 30)
            else:
                await store.search(one.generation, vector=vector, tokens=tokens, limit=depth)
            found.append(time.perf_counter() - started)
    await server.close()
    for name, found in times.items():
        print(f"  {name}: p50 {quantile(found, 0.5) * 1000:.1f} ms, p99 {quantile(found, 0.99) * 1000:.1f} ms")
    base = quantile(times[f"bare {depth}"], 0.5)
    print(f"  through Kvasir / bare call of {depth}: {quantile(times['again'], 0.5) / base:.2f} with known words,"
          f" {quantile(times['first'], 0.5) / base:.2f} when asked first")  # fmt: skip


if __name__ == "__main__":
    main()
