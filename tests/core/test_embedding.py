"""Several embedders at once: each index is built and searched with its own, and a change of the default waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from core.app import Kvasir
from core.cli.documents import bring_in
from core.errors import Conflict, EmbedderUnavailable
from core.inference import embedding, models, tending
from core.settings import load
from tests.fakes.embedder import HashEmbedder
from tests.fakes.embedding_server import EmbeddingServer, embedding_server

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("parser_here")]
TEXT = "Annual leave is 28 days a year. The office opens at seven."


@pytest.fixture
async def server() -> AsyncIterator[EmbeddingServer]:
    async with embedding_server() as running:
        running.embedder = HashEmbedder(32, "theirs")
        yield running


@asynccontextmanager
async def house(folder: Path, own: HashEmbedder | None, **given: Any) -> AsyncIterator[Kvasir]:
    given.setdefault("embedder", {"kind": "none", "cache": False})
    async with Kvasir.open(load(data_dir=folder / "data", **given), embedder=own or "if_ready") as kvasir:
        yield kvasir


async def put(kvasir: Kvasir, kb: str, folder: Path) -> None:
    (folder / f"{kb}.md").write_text(f"# {kb}\n\n{TEXT}\n")
    await bring_in(kvasir, kb, [str(folder / f"{kb}.md")], show=False)


async def add(kvasir: Kvasir, server: EmbeddingServer, name: str = "theirs") -> None:
    values = {"base_url": server.base_url, "model": "hash-32", "cache": False}
    await kvasir.models.add("embedder", name, "openai", values)


async def searched(kvasir: Kvasir, *kbs: str) -> dict[str, float | None]:
    """The similarity of the best passage of each knowledge base."""
    found = await kvasir.retriever.retrieve("How long is annual leave?", kbs, limit=10)
    return {passage.kb: passage.vector_score for passage in found.passages}


async def test_each_knowledge_base_has_its_own(tmp_path: Path, server: EmbeddingServer) -> None:
    own = HashEmbedder(64, "own")
    async with house(tmp_path, own) as kvasir:
        await add(kvasir, server)
        for kb in ("ours", "theirs", "none"):
            await kvasir.knowledge.create(kb)
        await kvasir.knowledge.change("theirs", embedder="theirs")
        await kvasir.knowledge.change("none", embedder="")
        for kb in ("ours", "theirs", "none"):
            await put(kvasir, kb, tmp_path)
        live = {one.name: one.generation.dimension for one in await kvasir.knowledge.live(["ours", "theirs", "none"])}
        assert live == {"ours": 64, "theirs": 32, "none": 0}
        for _ in range(2):  # the second time it is known beforehand whose vectors are needed
            scores = await searched(kvasir, "ours", "theirs", "none")
            assert scores["none"] is None
            assert (scores["ours"] or 0) > 0.3
            assert (scores["theirs"] or 0) > 0.3


async def test_a_question_goes_only_to_the_embedders_that_are_needed(tmp_path: Path, server: EmbeddingServer) -> None:
    async with house(tmp_path, HashEmbedder(64, "own")) as kvasir:
        await add(kvasir, server)
        await kvasir.knowledge.create("ours")
        await put(kvasir, "ours", tmp_path)
        server.requests.clear()
        assert (await searched(kvasir, "ours"))["ours"]
        assert server.requests == []


async def test_a_change_of_the_default_leaves_indexes_until_they_are_built_anew(
    tmp_path: Path, server: EmbeddingServer
) -> None:
    async with house(tmp_path, HashEmbedder(64, "own")) as kvasir:
        await kvasir.knowledge.create("ours")
        await put(kvasir, "ours", tmp_path)
        await add(kvasir, server)
        await tending.use(kvasir, "embedder", "theirs")
        assert kvasir.embedder_state.ready
        current = kvasir.embedder.current()
        assert current is not None
        assert current.info.name == "hash-32"
        assert (await searched(kvasir, "ours"))["ours"]
        assert [one.generation.dimension for one in await kvasir.knowledge.live(["ours"])] == [64]
        await kvasir.indexes.reindex("ours")
        assert [one.generation.dimension for one in await kvasir.knowledge.live(["ours"])] == [32]
        assert (await searched(kvasir, "ours"))["ours"]


async def test_what_has_made_an_index_is_not_forgotten(tmp_path: Path, server: EmbeddingServer) -> None:
    async with house(tmp_path, HashEmbedder(64, "own")) as kvasir:
        await add(kvasir, server)
        await tending.use(kvasir, "embedder", "theirs")
        await kvasir.knowledge.create("sagas")
        await put(kvasir, "sagas", tmp_path)
        await kvasir.models.use_none("embedder")
        assert (await tending.look_at(kvasir, "embedder", "theirs")).indexes == ["sagas"]
        with pytest.raises(Conflict, match="sagas"):
            await tending.remove(kvasir, "embedder", "theirs")
        await kvasir.indexes.reindex("sagas")
        await tending.remove(kvasir, "embedder", "theirs")


async def test_a_process_that_serves_opens_by_itself_what_was_added_elsewhere(
    tmp_path: Path, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "WATCH_SECONDS", 0.02)
    settings = load(data_dir=tmp_path / "data", embedder={"kind": "none"})
    async with Kvasir.open(settings, embedder="background") as serving, house(tmp_path, None) as other:
        await add(other, server)
        await other.models.add("engine", "poet", "scripted")
        await other.models.use("embedder", "theirs")
        async with asyncio.timeout(10):
            while serving.embedder.current() is None or serving.engines.pool.peek("poet") is None:
                await asyncio.sleep(0.01)
        assert serving.embedder_state.ready
        await other.models.use_none("embedder")
        await other.models.remove("theirs")
        async with asyncio.timeout(10):
            while serving.embedder.current() is not None:
                await asyncio.sleep(0.01)


async def test_another_process_opens_what_an_index_needs(tmp_path: Path, server: EmbeddingServer) -> None:
    async with house(tmp_path, None) as kvasir:
        await add(kvasir, server)
        await kvasir.knowledge.create("theirs")
        await kvasir.knowledge.change("theirs", embedder="theirs")
        await put(kvasir, "theirs", tmp_path)
    async with house(tmp_path, None) as kvasir:
        assert (await searched(kvasir, "theirs"))["theirs"]


async def test_without_its_embedder_an_index_is_searched_by_words_and_takes_nothing_in(
    tmp_path: Path, server: EmbeddingServer
) -> None:
    async with house(tmp_path, None) as kvasir:
        await add(kvasir, server)
        await kvasir.knowledge.create("theirs")
        await kvasir.knowledge.change("theirs", embedder="theirs")
        await put(kvasir, "theirs", tmp_path)
        await tending.unload(kvasir, "embedder", "theirs")
        assert await searched(kvasir, "theirs") == {"theirs": None}
        with pytest.raises(EmbedderUnavailable):
            await kvasir.indexes.target("theirs")
        assert [one.generation.dimension for one in await kvasir.knowledge.live(["theirs"])] == [32]


async def test_what_a_failing_server_cost_comes_back_with_it(tmp_path: Path, server: EmbeddingServer) -> None:
    server.mode = "wrong_key"
    async with house(tmp_path, None) as kvasir:
        await add(kvasir, server)
        tried = await tending.test(kvasir, "embedder", "theirs")
        assert not tried.ok
        assert "refuses the key" in tried.error
        assert kvasir.embedder.pool.standing(kvasir.models.find("embedder", "theirs")).state == "failed"
        server.mode = "ok"
        kvasir.embedder.pool.begin("theirs")
        assert (await tending.test(kvasir, "embedder", "theirs")).details["dimension"] == 32


async def test_the_house_embedder_may_be_a_server(tmp_path: Path, server: EmbeddingServer) -> None:
    embedder = {"kind": "openai", "base_url": server.base_url, "model": "hash-32"}
    async with house(tmp_path, None, embedder=embedder) as kvasir:
        assert kvasir.embedder_state.ready, kvasir.embedder_state.reason
        await kvasir.knowledge.create("theirs")
        await put(kvasir, "theirs", tmp_path)
        assert (await searched(kvasir, "theirs"))["theirs"]
        shown = await tending.look_at(kvasir, "embedder", "openai")
        assert (shown.standing.state, shown.dimension, shown.runs) == ("ready", 32, "hash-32")


async def test_what_is_set_for_the_next_index_holds_up_no_document(tmp_path: Path, server: EmbeddingServer) -> None:
    async with house(tmp_path, HashEmbedder(64, "own")) as kvasir:
        await put(kvasir, "kb", tmp_path)
        await kvasir.models.add("embedder", "away", "openai", {"base_url": "http://127.0.0.1:9/v1", "model": "m"})
        await kvasir.knowledge.change("kb", embedder="away")
        (tmp_path / "kb.md").write_text("# Later\n\nIt came in although the next embedder is away.\n")
        (outcome,) = await bring_in(kvasir, "kb", [str(tmp_path / "kb.md")], show=False)
        assert (outcome.status, outcome.reason) == ("indexed", None)


async def test_an_index_of_an_embedder_not_yet_opened_is_as_it_is_set(tmp_path: Path, server: EmbeddingServer) -> None:
    async with house(tmp_path, HashEmbedder(64, "own")) as kvasir:
        await add(kvasir, server)
        await kvasir.knowledge.create("kb", embedder="theirs")
        await put(kvasir, "kb", tmp_path)
    async with house(tmp_path, HashEmbedder(64, "own")) as kvasir:
        assert not await kvasir.indexes.needs_reindex("kb")
        await kvasir.knowledge.change("kb", embedder=None)
        assert await kvasir.indexes.needs_reindex("kb")


async def test_the_house_embedder_is_asked_for_again(
    tmp_path: Path, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is down when Kvasir starts; what came in meanwhile gets its vectors."""
    monkeypatch.setattr(models, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(embedding, "_RETRY_SECONDS", 0.01)
    server.mode = "wrong_key"
    given = {"kind": "openai", "base_url": server.base_url, "model": "hash-32", "api_key": "sk-0005"}
    async with Kvasir.open(load(data_dir=tmp_path / "data", embedder=given), embedder="background") as kvasir:
        assert kvasir.embedder_state.reason
        await put(kvasir, "sagas", tmp_path)
        assert await searched(kvasir, "sagas") == {"sagas": None}
        server.mode = "ok"
        async with asyncio.timeout(10):
            while not kvasir.embedder_state.ready or not await kvasir.jobs.list(state="queued"):
                await asyncio.sleep(0.01)
        lines = [line.text for line in tending.log_of(kvasir, "embedder", "openai")]
        assert any("refuses the key" in line for line in lines)
        assert "sk-0005" not in "".join(lines)
        [job] = await kvasir.jobs.list(state="queued")
        assert (job.kind, job.payload["kb"]) == ("reindex", "sagas")
