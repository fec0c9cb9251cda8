"""kill -9 of a Weaviate server and of a client that writes to it, at random moments; then three nodes and one of them.

`python -m bench.kill_weaviate` needs `weaviate` on PATH. In the end the index must hold what `local` holds after one
clean run: the same count, the same hashes, the same ten best. `… kills` and `… nodes` do one part alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from core.errors import StoreUnavailable
from core.ports import VectorStore
from core.settings import Settings, WeaviateSettings
from core.stores.local import open_store as open_local
from core.stores.weaviate import WeaviateStore, open_store
from core.stores.weaviate_server import Server
from core.types import Chunk, Generation, Hit, IndexedDocument, Vector
from tests.weaviate_server import Node, free_ports, raft_ports, with_key

KILLS = 50
DOCUMENTS = 80
GROUP = 16
DIMENSION = 64
CHANGED = 40
GENERATION = Generation("d" * 32, "drill", "drill", DIMENSION, "drill")
WORDS = [f"word{number}" for number in range(300)]


def main() -> None:
    logging.getLogger().setLevel(
        logging.ERROR
    )  # no `logging.disable`: `Server` hears the client's new tries by its log
    if sys.argv[1:2] == ["client"]:
        asyncio.run(client(Path(sys.argv[2]), int(sys.argv[3])))
        return
    wanted = sys.argv[1:] or ["kills", "nodes"]
    with tempfile.TemporaryDirectory() as folder:
        if "kills" in wanted:
            print(asyncio.run(drill(Path(folder) / "kills", kills=KILLS)), flush=True)
        if "nodes" in wanted:
            print(asyncio.run(three_nodes(Path(folder) / "nodes")), flush=True)


# ---------------------------------------------------------------- documents
def documents(round_: int) -> list[IndexedDocument]:
    """All of them as they are in this round; some change with every one."""
    return [_document(number, _version(number, round_)) for number in range(DOCUMENTS)]


def _version(number: int, round_: int) -> int:
    changed = [one for one in range(round_ + 1) if number in random.Random(one).sample(range(DOCUMENTS), CHANGED)]
    return changed[-1] if changed else -1


def _document(number: int, version: int) -> IndexedDocument:
    chance = random.Random(f"{number} {version}")
    chunks = tuple(
        Chunk(place, text := " ".join(chance.choices(WORDS, k=40)), text, f"{number}-{version}-{place}")
        for place in range(chance.randint(1, 40))
    )
    drawn = np.random.default_rng([number, version + 1]).standard_normal((len(chunks), DIMENSION)).astype(np.float32)
    vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return IndexedDocument(f"d{number}", f"d{number}.md", f"D {number}", f"{number}-{version}", chunks, vectors)


def question(number: int) -> tuple[list[str], Vector]:
    drawn = np.random.default_rng(10_000 + number).standard_normal(DIMENSION).astype(np.float32)
    return random.Random(number).sample(WORDS, 4), drawn / np.linalg.norm(drawn)


async def same_as_local(store: VectorStore, folder: Path, wanted: Sequence[IndexedDocument]) -> str:
    local = await open_local(Settings(data_dir=folder))
    await local.ensure_generation(GENERATION)
    await local.put(GENERATION, wanted)
    expected, found = await local.count(GENERATION), await store.count(GENERATION)
    assert found == expected, f"{found} is not {expected}"
    for number in range(50):
        tokens, vector = question(number)
        exact, there = [
            (await one.search(GENERATION, vector=vector, tokens=tokens, limit=100)).hits for one in (local, store)
        ]
        for leg, score in (("words", _by_words), ("vectors", _by_vectors)):
            _check_best(f"{number} by {leg}", exact, there, score)
    await local.close()
    return f"{found.documents} documents, {found.chunks} chunks, digest and top 10 of 50 questions equal to `local`"


def _by_words(hit: Hit) -> float:
    return hit.keyword_score or 0.0


def _by_vectors(hit: Hit) -> float:
    return hit.vector_score or 0.0


def _check_best(what: str, exact: Sequence[Hit], there: Sequence[Hit], score: Callable[[Hit], float]) -> None:
    """The ten best are the same; of equal ones (`local` rounds vectors to half precision) either may be the tenth."""
    best = sorted(exact, key=score, reverse=True)[:10]
    tenth = score(sorted(there, key=score, reverse=True)[:10][-1])
    found = {hit.chunk.content_hash: score(hit) for hit in there}
    for hit in best:
        assert found.get(hit.chunk.content_hash, -1.0) > tenth - 0.002, (
            f"{what}: {hit.chunk.content_hash} is not among the best"
        )


# ---------------------------------------------------------------- one node, killed again and again
async def drill(folder: Path, *, kills: int) -> str:
    chance = random.Random(1)
    node = Node(folder / "server")
    settings = node.settings.model_copy(update={"write_seconds": 120.0})
    file = folder / "settings.json"
    inside = 0
    try:
        await asyncio.to_thread(node.start)
        await asyncio.to_thread(node.wait)
        file.write_text(settings.model_dump_json(exclude={"api_key"}), encoding="utf-8")
        whole = await _client(file, 0)
        for round_ in range(1, kills + 1):
            process = _start(file, round_)
            await _line(process)
            await asyncio.sleep(chance.uniform(0, whole))
            if round_ % 2:
                inside += process.poll() is None
                process.kill()
            else:
                node.kill()
                await asyncio.to_thread(node.start)
                await asyncio.to_thread(node.wait)
                inside += process.poll() is None
                assert await asyncio.to_thread(process.wait, 300) == 0, "the client gave up"
            await asyncio.to_thread(process.wait, 30)
            assert process.stdout is not None
            process.stdout.close()
        await _client(file, kills)
        store = await open_store(Settings(data_dir=folder, weaviate=settings))
        told = await same_as_local(store, folder, documents(kills))
        await store.close()
    finally:
        node.kill()
    return f"{kills} kills, of server and client in turn, {inside} while writing: {told}"


def _start(file: Path, round_: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.kill_weaviate", "client", str(file), str(round_)], stdout=subprocess.PIPE
    )


async def _line(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    await asyncio.to_thread(process.stdout.readline)


async def _client(file: Path, round_: int) -> float:
    """Seconds that it wrote."""
    process = _start(file, round_)
    await _line(process)
    started = time.monotonic()
    assert await asyncio.to_thread(process.wait, 300) == 0
    assert process.stdout is not None
    process.stdout.close()
    return time.monotonic() - started


async def client(file: Path, round_: int) -> None:
    """Writes all documents as they are in this round, as a job does: what fails is tried again."""
    weaviate = with_key(WeaviateSettings.model_validate(json.loads(file.read_text(encoding="utf-8"))))
    store = await open_store(Settings(data_dir=file.parent, weaviate=weaviate))
    wanted = documents(round_)
    print("ready", flush=True)
    await _again(store, wanted, ensure=True)
    await store.close()


async def _again(store: WeaviateStore, wanted: Sequence[IndexedDocument], *, ensure: bool) -> int:
    """How often it had to be tried again."""
    failures = 0
    groups = [wanted[first : first + GROUP] for first in range(0, len(wanted), GROUP)]
    while groups:
        try:
            if ensure:
                await store.ensure_generation(GENERATION)
                ensure = False
            await store.put(GENERATION, groups[0])
            groups.pop(0)
        except StoreUnavailable:
            failures += 1
            await asyncio.sleep(0.5)
    return failures


# ---------------------------------------------------------------- three nodes, one is lost
async def three_nodes(folder: Path) -> str:
    rafts, gossips = [raft_ports() for _ in range(3)], [raft_ports() for _ in range(3)]
    raft_join = ",".join(f"weaviate-{number}:{raft[0]}" for number, raft in enumerate(rafts))
    nodes = [
        Node(
            folder / f"node{number}", number, f"localhost:{gossips[0][0]}" if number else "", raft_join, 3,
            free_ports(2), gossips[number], rafts[number],
        )
        for number in range(3)
    ]  # fmt: skip
    settings = nodes[0].settings.model_copy(update={"replication_factor": 3, "search_seconds": 5.0})
    try:
        for node in nodes:
            await asyncio.to_thread(node.start)
        for node in nodes:
            await asyncio.to_thread(node.wait)
        store = await open_store(Settings(data_dir=folder, weaviate=settings))
        failures = await _again(store, documents(0), ensure=True)
        done = asyncio.Event()
        asking = asyncio.create_task(_ask(store, done))
        await asyncio.sleep(2)
        started = time.monotonic()
        writing = asyncio.create_task(_again(store, [*documents(5), *documents(9)], ensure=False))
        await asyncio.sleep(0.3)
        nodes[2].kill()
        failures += await writing
        took = time.monotonic() - started
        done.set()
        asked, refused, slowest = await asking
        told = await same_as_local(store, folder, documents(9))
        await asyncio.to_thread(nodes[2].start)
        await asyncio.to_thread(nodes[2].wait)
        back = await _caught_up(nodes[2], settings, folder)
        server = Server(settings)
        version = await server.version()
        await server.close()
        await store.close()
    finally:
        for node in nodes:
            node.kill()
    return (
        f"three nodes of weaviate {version}, one killed: {2 * DOCUMENTS} documents written in {took:.0f} s"
        f" with {failures} new tries by the job; {asked} searches meanwhile, {refused} refused in a sentence,"
        f" the slowest {slowest:.1f} s; {told}; {back:.0f} s after it is ready again the lost node holds the same"
    )


async def _ask(store: WeaviateStore, done: asyncio.Event) -> tuple[int, int, float]:
    asked = refused = 0
    slowest = 0.0
    while not done.is_set():
        tokens, vector = question(asked)
        started = time.monotonic()
        asked += 1
        try:
            await store.search(GENERATION, vector=vector, tokens=tokens, limit=10)
        except StoreUnavailable:
            refused += 1
        slowest = max(slowest, time.monotonic() - started)
        with suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), 0.1)
    return asked, refused, slowest


async def _caught_up(node: Node, settings: WeaviateSettings, folder: Path) -> float:
    """Seconds until the node itself holds everything."""
    started = time.monotonic()
    address = {"url": node.settings.url, "grpc_url": node.settings.grpc_url, "write_consistency": "ONE"}
    store = await open_store(Settings(data_dir=folder, weaviate=settings.model_copy(update=address)))
    local = await open_local(Settings(data_dir=folder))
    expected = await local.count(GENERATION)
    await local.close()
    while time.monotonic() - started < 120:
        with suppress(StoreUnavailable):
            if await store.count(GENERATION) == expected:
                break
        await asyncio.sleep(1)
    else:
        raise AssertionError("the node has not caught up")
    await store.close()
    return time.monotonic() - started


if __name__ == "__main__":
    main()
