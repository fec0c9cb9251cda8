"""What only the `pgvector` store does, on a real PostgreSQL: HNSW, lost connections, and the way there and back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest
from pydantic import SecretStr

from core.doctor import examine_platform
from core.errors import ConfigError, KvasirError, StoreUnavailable
from core.indexing import moving as moving_module
from core.indexing.moving import Moving
from core.ports import VectorStore
from core.settings import PgvectorSettings, Settings, load
from core.stores import pgvector as pgvector_module
from core.stores.local import open_store as open_local
from core.stores.pgvector import PgvectorStore, open_store
from core.types import Compare, IndexedDocument
from tests.contracts.test_vector_store import GENERATION, OTHER, document, vector
from tests.databases import Postgres
from tests.fakes.library import opened_library

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

WORDS = ("tea", "cake", "bread", "tide", "发票", "boat", "rope", "light")


@pytest.fixture
async def settings(postgres: Postgres, tmp_path: Path) -> AsyncIterator[Settings]:
    async with postgres.database(migrated=False) as url:
        pgvector = PgvectorSettings(url=SecretStr(url), hnsw_from=100, connections=4)
        yield Settings(data_dir=tmp_path, pgvector=pgvector)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[PgvectorStore]:
    store = await open_store(settings)
    for generation in (GENERATION, OTHER):
        await store.ensure_generation(generation)
    yield store
    await store.close()


def many(documents: int) -> list[IndexedDocument]:
    chance = random.Random(4)
    return [
        document(
            f"d{number}",
            *(" ".join(chance.choices(WORDS, range(len(WORDS), 0, -1), k=12)) + f" {number}" for _ in range(4)),
            seed=4 * number,
            name=f"{number % 3}/{number}.md",
        )
        for number in range(documents)
    ]


async def ask(settings: Settings, sql: str) -> list[Any]:
    url = settings.pgvector.url
    assert url is not None
    connection = await asyncpg.connect(url.get_secret_value().replace("+asyncpg", ""))
    try:
        return [row[0] for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def indexes(settings: Settings) -> list[str]:
    """HNSW indexes that are complete."""
    return await ask(
        settings,
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE i.indisvalid AND c.relname LIKE 'hnsw%'",
    )


async def indexed(settings: Settings) -> None:
    async with asyncio.timeout(20):
        while True not in await ask(settings, "SELECT indexed FROM kvasir_index.generations"):
            await asyncio.sleep(0.02)


async def test_it_finds_and_scores_as_local_does(store: PgvectorStore, tmp_path: Path) -> None:
    local = await open_local(Settings(data_dir=tmp_path))
    both: Sequence[VectorStore] = (store, local)
    try:
        for one in both:
            await one.ensure_generation(OTHER)
            await one.put(OTHER, many(24))
            await one.put(OTHER, [document("d3", "tea and nothing else", version="2")])
            await one.delete(OTHER, ["d5"])
        for tokens, only in (
            (["tea", "发票", "none"], None),
            (["light"], Compare("folder", "eq", "1")),
            ([], None),
            (["boat", "rope", "cake"], Compare("document", "ne", "1/1.md")),
        ):
            asked = [await one.search(OTHER, vector=vector(9), tokens=tokens, limit=100, filter=only) for one in both]
            assert asked[0].chunk_count == asked[1].chunk_count
            assert asked[0].document_frequency == asked[1].document_frequency
            found = [{(hit.document_id, hit.chunk.number): hit for hit in one.hits} for one in asked]
            assert found[0].keys() == found[1].keys()
            for key, hit in found[0].items():
                other = found[1][key]
                assert (hit.document, hit.title, hit.chunk) == (other.document, other.title, other.chunk)
                assert hit.vector_score == pytest.approx(other.vector_score, abs=2e-3)
                assert (hit.keyword_score is None) == (other.keyword_score is None)
                assert (hit.keyword_score or 0) == pytest.approx(other.keyword_score or 0, rel=1e-4)
    finally:
        await local.close()


async def test_a_large_index_is_searched_by_hnsw(
    store: PgvectorStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = many(40)
    await store.put(OTHER, documents[:2])
    await store.put(GENERATION, documents[:20])
    assert await indexes(settings) == []
    await store.put(GENERATION, documents[20:])
    await indexed(settings)
    assert len(await indexes(settings)) == 1
    for way in ("enable_seqscan", "enable_sort"):  # which PostgreSQL prefers for so few
        monkeypatch.setitem(pgvector_module._SESSION, way, "off")
    searching = await open_store(settings)
    for number in (0, 77, 159):
        found = await searching.search(GENERATION, vector=vector(number), tokens=["tea"], limit=5)
        expected = sorted(range(160), key=lambda one: -float(vector(one) @ vector(number)))[:5]
        nearest = sorted(found.hits, key=lambda hit: -(hit.vector_score or 0))[:5]
        assert [4 * int(hit.document_id[1:]) + hit.chunk.number for hit in nearest] == expected
    within = await searching.search(
        GENERATION, vector=vector(0), tokens=[], limit=5, filter=Compare("document", "eq", "1/1.md")
    )
    assert [hit.document for hit in within.hits] == ["1/1.md"] * 4
    await store.put(GENERATION, [document("new", "A lighthouse.", seed=500)])
    found = await searching.search(GENERATION, vector=vector(500), tokens=[], limit=1)
    assert [hit.document_id for hit in found.hits] == ["new"]
    await searching.close()  # only then PostgreSQL counts for certain
    async with asyncio.timeout(20):
        while await ask(settings, "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname LIKE 'hnsw%'") == [0]:
            await asyncio.sleep(0.05)
    await store.drop_generation(GENERATION)
    assert await indexes(settings) == []
    assert (await store.count(OTHER)).chunks == 8


async def test_an_index_that_was_not_finished_is_made_anew(store: PgvectorStore, settings: Settings) -> None:
    (number,) = await ask(settings, f"SELECT number FROM kvasir_index.generations WHERE key = '{GENERATION.id}'")
    await ask(settings, f"CREATE INDEX hnsw_{number} ON kvasir_index.entries (length)")
    await store.put(GENERATION, many(30))
    await indexed(settings)
    (kind,) = await ask(settings, f"SELECT indexdef FROM pg_indexes WHERE indexname = 'hnsw_{number}'")
    assert "hnsw" in kind.split("USING")[1]


async def test_lost_connections_are_made_again(store: PgvectorStore, settings: Settings) -> None:
    await store.put(GENERATION, many(2))
    everybody = (
        "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity"
        " WHERE application_name = 'kvasir' AND datname = current_database()"
    )
    assert await ask(settings, everybody)
    await store.put(GENERATION, [document("d9", "Tea.")])
    await ask(settings, everybody)
    assert (await store.count(GENERATION)).documents == 3


async def test_several_processes_make_the_tables_once(settings: Settings) -> None:
    stores = await asyncio.gather(*(open_store(settings) for _ in range(4)))
    await stores[0].ensure_generation(GENERATION)
    await stores[1].put(GENERATION, many(1))
    assert (await stores[2].count(GENERATION)).documents == 1
    for store in stores:
        await store.close()


async def test_writers_of_one_index_take_turns(store: PgvectorStore) -> None:
    documents = many(12)
    await asyncio.gather(*(store.put(GENERATION, documents[start : start + 6]) for start in (0, 3, 6, 0)))
    found = await store.search(GENERATION, vector=None, tokens=["tea"], limit=1)
    assert ((await store.count(GENERATION)).chunks, found.chunk_count) == (48, 48)


async def test_what_cannot_be_used_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="KVASIR_PGVECTOR__URL"):
        await open_store(load(data_dir=tmp_path, database={"url": "sqlite+aiosqlite:///kvasir.db"}))
    url = "postgresql://ann:secret@127.0.0.1:1/kvasir"
    away = Settings(data_dir=tmp_path, pgvector=PgvectorSettings(url=SecretStr(url)))
    with pytest.raises(StoreUnavailable) as raised:
        await open_store(away)
    assert "127.0.0.1" in str(raised.value)
    assert "secret" not in str(raised.value)
    findings = [finding async for finding in examine_platform(away, "pgvector")]
    assert [finding.ok for finding in findings] == [False]


async def test_the_doctor_looks_without_touching(settings: Settings) -> None:
    findings = [finding async for finding in examine_platform(settings, "pgvector")]
    assert [finding.ok for finding in findings] == [True, True, True]
    assert await ask(settings, "SELECT 1 FROM pg_namespace WHERE nspname = 'kvasir_index'") == []


async def test_a_knowledge_base_moves_there_and_back(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving_module, "_GRACE_SECONDS", 0)

    async def open_other(_kind: str) -> VectorStore:
        return await open_store(settings)

    files = {
        f"{n}.md": f"# Paper {n}\n\n" + "\n\n".join(f"Tide {n}, {i}: 发票\x00." * 20 for i in range(6))
        for n in range(6)
    }
    async with opened_library(tmp_path / "data", others=open_other) as library:
        await library.bring("kb", files)
        moving = Moving(library.db, library.store, library.indexes, "local")
        first = await library.live("kb")
        keys = [key for key, _, _ in await library.store.documents(first)]
        seen, counts, answers = [], [], []
        for kind in ("local", "pgvector", "local"):
            await moving.move("kb", kind)
            live = await library.live("kb")
            counts.append(await library.store.count(live))
            seen.append(await library.store.read(live, keys))
            answers.append(await library.found("kb", "what says the tide of 3"))
        assert counts[0] == counts[1] == counts[2]
        assert answers[0] == answers[1] == answers[2]
        for one, there, back in zip(*seen, strict=True):
            assert [chunk.text for chunk in one.chunks] == [chunk.text for chunk in there.chunks]
            assert (one.chunks, one.metadata, one.terms) == (back.chunks, back.metadata, back.terms)
            np.testing.assert_array_equal(one.vectors, there.vectors)
            np.testing.assert_array_equal(one.vectors, back.vectors)
        with pytest.raises(KvasirError):
            await library.store.put(first, [])
