"""What only the stores `lancedb` and `milvus` do: an index of vectors, small files, Milvus Lite, and moves."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from core.doctor import examine_platform
from core.errors import ConfigError, MissingExtra, StoreUnavailable
from core.indexing.moving import Moving
from core.ports import VectorStore
from core.settings import LancedbSettings, MilvusSettings, Settings
from core.stores import lancedb as lancedb_module
from core.stores import weaviate_changes
from core.stores.lancedb import LanceStore, storage_options
from core.stores.lancedb import open_store as open_lancedb
from core.stores.lancedb_table import Table
from core.stores.local import open_store as open_local
from core.stores.milvus import open_store as open_milvus
from core.stores.milvus_writing import Writer
from core.types import Compare, IndexedDocument, Not
from tests.contracts.test_vector_store import GENERATION, OTHER, document, keyword, vector
from tests.fakes.library import opened_library
from tests.weaviate_server import free_ports

HAS_PACKAGES = all(map(find_spec, ("lancedb", "pymilvus", "milvus_lite")))
needed = pytest.mark.skipif(not HAS_PACKAGES, reason="the packages of these stores are 600 MB: make test-stores")
pytestmark = pytest.mark.anyio

WORDS = ("tea", "cake", "bread", "tide", "发票", "boat", "rope", "light")


def many(documents: int, chunks: int = 4) -> list[IndexedDocument]:
    chance = random.Random(4)
    return [
        document(
            f"d{number}",
            *(" ".join(chance.choices(WORDS, range(len(WORDS), 0, -1), k=12)) + f" {number}" for _ in range(chunks)),
            seed=chunks * number,
            name=f"{number % 3}/{number}.md",
        )
        for number in range(documents)
    ]


async def same_as_local(store: VectorStore, local: VectorStore, *, vectors: float = 1.0) -> None:
    """`vectors`: share of the nearest chunks that both must find."""
    assert await store.count(GENERATION) == await local.count(GENERATION)
    filters = (None, Compare("folder", "eq", "1"), Not(Compare("document", "in", ("0/0.md", "1/1.md"))))
    for number, wanted in enumerate(filters):
        ours, theirs = [
            await one.search(GENERATION, vector=None, tokens=["cake", "boat"], limit=10, filter=wanted)
            for one in (store, local)
        ]
        scores = [sorted(hit.keyword_score or 0 for hit in found.hits) for found in (ours, theirs)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-5)
        assert ours.document_frequency == theirs.document_frequency
        near = [
            {(hit.document_id, hit.chunk.number) for hit in found.hits}
            for found in [
                await one.search(GENERATION, vector=vector(900 + number), tokens=[], limit=20, filter=wanted)
                for one in (store, local)
            ]
        ]
        assert len(near[0] & near[1]) >= vectors * len(near[1])


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[VectorStore]:
    store = await open_local(Settings(data_dir=tmp_path / "local"))
    await store.ensure_generation(GENERATION)
    yield store
    await store.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, lancedb=LancedbSettings(index_from=1000))


# ---------------------------------------------------------------- without the packages
@pytest.mark.skipif(HAS_PACKAGES, reason="the packages are there")
@pytest.mark.parametrize("kind", ["lancedb", "milvus"])
async def test_what_is_not_installed_is_named(kind: str, settings: Settings) -> None:
    with pytest.raises(MissingExtra, match=rf"kvasir\[{kind}\]"):
        await {"lancedb": open_lancedb, "milvus": open_milvus}[kind](settings)
    (finding,) = [found async for found in examine_platform(settings, kind)]
    assert not finding.ok
    assert f"kvasir[{kind}]" in finding.says


@pytest.mark.parametrize("uri", ["ftp://host:1", "/somewhere/index", "localhost:19530"])
async def test_an_address_that_milvus_cannot_have_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="KVASIR_MILVUS__URI"):
        await open_milvus(Settings(data_dir=tmp_path, milvus=MilvusSettings(uri=uri)))


def test_what_an_object_store_is_told() -> None:
    given = LancedbSettings.model_validate(
        {"endpoint": "http://127.0.0.1:9000", "access_key_id": "key", "secret_access_key": "pass", "seconds": 5}
    )
    assert storage_options(given) == {
        "aws_access_key_id": "key",
        "aws_secret_access_key": "pass",
        "aws_endpoint": "http://127.0.0.1:9000",
        "allow_http": "true",
        "timeout": "5s",
    }
    assert "pass" not in repr(given)


@needed
@pytest.mark.parametrize("kind", ["lancedb", "milvus"])
async def test_the_doctor_makes_nothing(kind: str, tmp_path: Path) -> None:
    findings = [found async for found in examine_platform(Settings(data_dir=tmp_path), kind)]
    assert all(found.ok for found in findings)
    assert list(tmp_path.iterdir()) == []


@needed
@pytest.mark.parametrize("kind", ["lancedb", "milvus"])
async def test_a_knowledge_base_moves_there_and_back(kind: str, tmp_path: Path) -> None:
    own = Settings(data_dir=tmp_path)

    async def open_other(wanted: str) -> VectorStore:
        return await open_lancedb(own) if wanted == "lancedb" else await open_milvus(own)

    files = {f"{number % 3}/{number}.md": f"# Page {number}\n\nThe tide of {number} is high." for number in range(20)}
    async with opened_library(tmp_path / "data", others=open_other) as library:
        await library.bring("kb", files)
        moving = Moving(library.db, library.store, library.indexes, "local")
        keys = [key for key, _, _ in await library.store.documents(await library.live("kb"))]
        seen, counts, answers = [], [], []
        for store in ("local", kind, "local"):
            await moving.move("kb", store)
            live = await library.live("kb")
            counts.append(await library.store.count(live))
            seen.append(await library.store.read(live, keys))
            answers.append(await library.found("kb", "what says the tide of 3"))
        assert counts[0] == counts[1] == counts[2]
        assert answers[0] == answers[1] == answers[2]
        for one, there, back in zip(*seen, strict=True):
            assert [chunk.text for chunk in one.chunks] == [chunk.text for chunk in there.chunks]
            assert (one.chunks, one.metadata) == (back.chunks, back.metadata)
            np.testing.assert_array_equal(one.vectors, back.vectors)


# ---------------------------------------------------------------- lancedb
@needed
async def test_lancedb_gives_what_local_gives(settings: Settings, local: VectorStore) -> None:
    store = await open_lancedb(settings)
    await store.ensure_generation(GENERATION)
    for one in (store, local):
        await one.put(GENERATION, many(60))
    await same_as_local(store, local)
    await store.close()


@needed
async def test_an_index_of_vectors_is_made_and_finds_what_is_near(
    settings: Settings, local: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lancedb_module, "_SMALL_FILES", 2)
    store = await open_lancedb(settings)
    assert isinstance(store, LanceStore)
    await store.ensure_generation(GENERATION)
    documents = many(300)
    for one in (store, local):
        for first in range(0, 300, 100):
            await one.put(GENERATION, documents[first : first + 100])
    await store.close()  # what has begun is finished
    store = await open_lancedb(settings)
    await store.search(GENERATION, vector=vector(1), tokens=[], limit=5)  # whoever finds that it is missing begins it
    await store.close()
    store = await open_lancedb(settings)
    table = await store._opened(GENERATION)
    assert {column for index in await table.list_indices() for column in index.columns} == {"id", "vector"}
    await same_as_local(store, local, vectors=0.9)
    assert len((await store.search(GENERATION, vector=vector(1), tokens=[], limit=300)).hits) == 300
    for number in range(0, 300, 30):  # wherever in the index its vectors are
        one_of_them = Compare("document", "eq", f"{number % 3}/{number}.md")
        found = await store.search(GENERATION, vector=vector(1), tokens=[], limit=50, filter=one_of_them)
        assert [hit.document_id for hit in found.hits] == [f"d{number}"] * 4
    for one in (store, local):
        await one.put(GENERATION, [document("new", "tea boat", seed=5000)])
    await same_as_local(store, local, vectors=0.9)
    found = await store.search(GENERATION, vector=vector(5000), tokens=[], limit=1)
    assert [hit.document_id for hit in found.hits] == ["new"]
    await store.put(GENERATION, [document("more", *["tea"] * 1500, seed=9000)])  # much that the index does not know
    await store.close()
    store = await open_lancedb(settings)
    assert isinstance(store, LanceStore)
    indices = await (await store._opened(GENERATION)).list_indices()
    assert max(one.num_unindexed_rows or 0 for one in indices) < 100
    await store.close()


@needed
async def test_filters_that_let_too_many_pass_to_be_named(
    settings: Settings, local: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Table, "MOST_LISTED", 1)
    store = await open_lancedb(settings)
    await store.ensure_generation(GENERATION)
    for one in (store, local):
        await one.put(GENERATION, many(60))
    await same_as_local(store, local)
    await store.close()


@needed
async def test_two_writers_at_once_lose_nothing(settings: Settings) -> None:
    stores = [await open_lancedb(settings) for _ in range(2)]
    await stores[0].ensure_generation(GENERATION)

    async def write(store: VectorStore, name: str) -> None:
        for number in range(8):
            await store.put(
                GENERATION, [document(f"{name}{number}", "tea"), document(name, "tea", version=str(number))]
            )

    async with asyncio.TaskGroup() as group:
        for number, store in enumerate(stores):
            group.create_task(write(store, f"w{number}"))
    assert (await stores[0].count(GENERATION)).documents == 18
    assert len(await keyword(stores[1], "tea")) == 18
    for store in stores:
        await store.close()


@needed
async def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    settings = Settings(data_dir=tmp_path, lancedb=LancedbSettings(uri=str(tmp_path / "file" / "below")))

    async def use() -> None:
        await (await open_lancedb(settings)).ensure_generation(GENERATION)

    with pytest.raises(StoreUnavailable, match="LanceDB"):
        await use()


# ---------------------------------------------------------------- milvus
@needed
async def test_milvus_lite_keeps_its_file(tmp_path: Path, local: VectorStore) -> None:
    settings = Settings(data_dir=tmp_path)
    store = await open_milvus(settings)
    for generation in (GENERATION, OTHER):
        await store.ensure_generation(generation)
    for one in (store, local):
        await one.put(GENERATION, many(40))
    await same_as_local(store, local)
    await store.put(OTHER, await store.read(GENERATION, ["d1", "d7"]))
    await store.close()
    again = await open_milvus(settings)
    await same_as_local(again, local)
    assert sorted(key for key, *_ in await again.documents(OTHER)) == ["d1", "d7"]
    findings = [found async for found in examine_platform(settings, "milvus")]
    assert all(found.ok for found in findings), findings
    assert "2" in findings[1].says
    await again.close()


@needed
async def test_a_second_process_is_told_that_milvus_lite_is_in_use(tmp_path: Path) -> None:
    store = await open_milvus(Settings(data_dir=tmp_path))
    code = (
        "import asyncio, sys; from pathlib import Path; from core.settings import Settings;"
        "from core.stores.milvus import open_store;"
        "asyncio.run(open_store(Settings(data_dir=Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    other = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)}
    )
    said = (await asyncio.wait_for(other.communicate(), 60))[1].decode()
    assert other.returncode == 1
    assert "StoreUnavailable" in said
    assert "one at a time" in said
    await store.close()
    other = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)}
    )
    said = (await asyncio.wait_for(other.communicate(), 60))[1].decode()
    assert other.returncode == 0, said


WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from core.settings import Settings
from core.stores.milvus import open_store
from tests.contracts.test_vector_store import GENERATION, document

async def main():
    store = await open_store(Settings(data_dir=Path(sys.argv[1])))
    await store.ensure_generation(GENERATION)
    for batch in itertools.count():
        await store.put(GENERATION, [document(f"{batch}-{n}", *["tea"] * 4) for n in range(5)])
        print(batch + 1, flush=True)

asyncio.run(main())
"""


@needed
async def test_a_killed_process_leaves_whole_documents_in_milvus_lite(tmp_path: Path) -> None:
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(tmp_path), stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert writer.stdout is not None
    async with asyncio.timeout(60):
        while int(await writer.stdout.readline()) < 5:
            pass
    writer.send_signal(signal.SIGKILL)
    acknowledged = max([5, *map(int, (await writer.stdout.read()).split())])
    await writer.wait()
    store = await open_milvus(Settings(data_dir=tmp_path))
    found = await store.search(GENERATION, vector=vector(1), tokens=["tea"], limit=3)
    assert found.chunk_count == found.document_frequency["tea"]
    assert found.chunk_count in (20 * acknowledged, 20 * acknowledged + 20)
    await store.put(GENERATION, [document("after", "tea")])
    assert (await store.count(GENERATION)).chunks == found.chunk_count + 1
    await store.close()


@needed
async def test_what_a_killed_writer_left_in_milvus_is_hidden_and_taken_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_milvus(Settings(data_dir=tmp_path))
    await store.ensure_generation(GENERATION)
    await store.put(GENERATION, [document("d1", "tea at four")])
    finish = Writer._finish

    async def killed(*_given: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(Writer, "_finish", killed)
    with pytest.raises(RuntimeError, match="killed"):
        await store.put(GENERATION, [document("d1", "tea at five", version="2"), document("d2", "tea")])
    monkeypatch.setattr(Writer, "_finish", finish)
    assert [hit.chunk.text for hit in await keyword(store, "tea")] == ["tea at four"]
    assert [key for key, *_ in await store.documents(GENERATION)] == ["d1"]
    assert (await store.count(GENERATION)).chunks == 1
    state = await store._state(GENERATION)
    assert len(state.hidden) == 2
    monkeypatch.setattr(weaviate_changes, "ABANDONED", -1.0)  # long ago
    await store.put(GENERATION, [document("d3", "tea")])
    assert await store._call(GENERATION, lambda index: index.chunks_in(state.hidden)) == 0
    assert (await store._state(GENERATION)).hidden == ()
    assert len(await keyword(store, "tea")) == 2
    await store.close()


@needed
async def test_a_milvus_that_is_away_is_told_soon(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    settings = Settings(data_dir=tmp_path, milvus=MilvusSettings(uri=f"http://127.0.0.1:{port}", search_seconds=2))
    store = await open_milvus(settings)  # it may come
    async with asyncio.timeout(15):
        with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port}"):
            await store.search(GENERATION, vector=None, tokens=["tea"], limit=1)
    await store.close()
    findings = [found async for found in examine_platform(settings, "milvus")]
    assert not findings[0].ok
