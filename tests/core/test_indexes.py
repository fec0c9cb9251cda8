"""An index is built beside the live one and takes over in one step; vectors of two models never meet."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
from sqlalchemy import func, select

from core.app import Kvasir
from core.db.tables import GenerationRow
from core.errors import KvasirError
from core.indexing import indexes as indexes_module
from core.ports import ParseTask
from core.settings import load
from core.types import Generation
from tests.fakes.embedder import HashEmbedder
from tests.fakes.library import Library, opened_library

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("parser_here")]

LONG = "\n\n".join(
    f"Paragraph {n} is about the tide table and takes some words to say so, every time." for n in range(20)
)
FILES = {f"{n}.md": f"# Paper {n}\n\nIt says {n}.\n\n{LONG}" for n in range(6)}


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with opened_library(tmp_path / "data") as library:
        yield library


@pytest.fixture
async def any_library(tmp_path: Path, database_url: str) -> AsyncIterator[Library]:
    """The same with its database on SQLite and on PostgreSQL."""
    async with opened_library(tmp_path / "data", database_url) as library:
        yield library


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two documents at a time, so that there is something between the first and the last."""
    monkeypatch.setattr(indexes_module, "_GROUP", 2)


async def _generations(library: Library) -> int:
    async with library.db.read() as session:
        return await session.scalar(select(func.count()).select_from(GenerationRow)) or 0


@pytest.mark.usefixtures("small_groups")
async def test_a_new_size_of_chunks_is_built_beside_the_live_index(any_library: Library) -> None:
    await any_library.bring("kb", FILES)
    before = await any_library.knowledge.get("kb")
    live = await any_library.live("kb")
    answers: list[tuple[str, list[str], int]] = []

    async def ask(_tasks: Sequence[ParseTask]) -> None:
        found = await any_library.found("kb", "tide table")
        answers.append(
            ((await any_library.live("kb")).id, sorted(found), (await any_library.knowledge.get("kb")).chunks)
        )

    any_library.parser.before = ask
    await any_library.knowledge.change("kb", chunk_size=64, chunk_overlap=0)
    assert await any_library.indexes.needs_reindex("kb")
    told: list[tuple[int, int]] = []
    await any_library.indexes.reindex("kb", lambda done, total: told.append((done, total)))
    assert answers == [(live.id, answers[0][1], before.chunks)] * 3
    assert answers[0][1]
    assert told == [(0, 6), (2, 6), (4, 6)]
    after = await any_library.knowledge.get("kb")
    assert after.chunks > before.chunks
    assert (await any_library.live("kb")).id != live.id
    assert await any_library.agrees("kb")
    assert not await any_library.indexes.needs_reindex("kb")
    assert await _generations(any_library) == 1
    assert (await any_library.store.count(live)).documents == 0


@pytest.mark.usefixtures("small_groups")
async def test_a_reindex_that_was_killed_goes_on(any_library: Library) -> None:
    await any_library.bring("kb", FILES)
    held = await any_library.texts("kb")
    await any_library.knowledge.change("kb", chunk_size=64, chunk_overlap=0)
    any_library.parser.read.clear()

    async def killed(_tasks: Sequence[ParseTask]) -> None:
        if len(any_library.parser.read) == 4:
            raise asyncio.CancelledError

    any_library.parser.before = killed
    with pytest.raises(asyncio.CancelledError):
        await any_library.indexes.reindex("kb")
    assert await any_library.texts("kb") == held
    any_library.parser.before = None
    await any_library.indexes.reindex("kb")
    assert sorted(any_library.parser.read) == sorted(FILES)
    assert await any_library.agrees("kb")
    assert await _generations(any_library) == 1


@pytest.mark.usefixtures("small_groups")
async def test_what_changes_meanwhile_is_in_the_new_index(any_library: Library) -> None:
    await any_library.bring("kb", FILES)

    async def change(_tasks: Sequence[ParseTask]) -> None:
        any_library.parser.before = None
        await any_library.bring("kb", {"new.md": "# New\n\nIt came late.", "0.md": "# Paper 0\n\nIt says more."})
        gone = await any_library.knowledge.find_document("kb", "5.md")
        await any_library.knowledge.delete_document(gone.id)

    any_library.parser.before = change
    await any_library.knowledge.change("kb", chunk_size=64, chunk_overlap=0)
    await any_library.indexes.reindex("kb")
    texts = await any_library.texts("kb")
    assert set(texts) == {"new.md", "0.md", "1.md", "2.md", "3.md", "4.md"}
    assert texts["0.md"] == "It says more."
    assert await any_library.agrees("kb")


async def test_what_comes_just_before_the_switch_is_in_the_new_index(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    await library.bring("kb", FILES)
    go_live = library.indexes.go_live
    asked: list[str] = []

    async def late(kb: str, generation: Generation, unreadable: Mapping[str, str]) -> bool:
        asked.append(kb)
        if len(asked) == 1:
            await library.bring("kb", {"late.md": "# Late\n\nIt came at the last moment."})
        return await go_live(kb, generation, unreadable)

    monkeypatch.setattr(library.indexes, "go_live", late)
    await library.knowledge.change("kb", chunk_size=64, chunk_overlap=0)
    await library.indexes.reindex("kb")
    assert len(asked) == 2
    assert "late.md" in await library.texts("kb")
    assert await library.agrees("kb")


async def test_an_index_of_keywords_gets_vectors_when_the_model_comes(tmp_path: Path) -> None:
    async with opened_library(tmp_path / "data", keywords_only=True) as library:
        await library.bring("kb", FILES)
        assert not (await library.knowledge.get("kb")).vectors
        assert (await library.found("kb", "tide table"))[0] in FILES
        assert not await library.indexes.needs_vectors("kb")
        library.embedder = HashEmbedder()
        assert await library.indexes.needs_vectors("kb")
        await library.bring("kb", {"late.md": "# Late\n\nIt came before the vectors."})
        assert not (await library.knowledge.get("kb")).vectors
        await library.indexes.reindex("kb")
        assert (await library.knowledge.get("kb")).vectors
        assert (await library.retriever.retrieve("tide table", ["kb"], limit=5)).vectors_used
        assert await library.agrees("kb")


async def test_kvasir_queues_that_reindex_once(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path / "data")
    async with opened_library(settings.data_dir, keywords_only=True) as library:
        await library.bring("kb", FILES)
        await library.knowledge.create("empty")
    async with Kvasir.open(settings, embedder=HashEmbedder()) as kvasir:
        await kvasir.add_vectors()
        await kvasir.add_vectors()
        jobs = await kvasir.jobs.list()
        assert [job.payload["kb"] for job in jobs if job.kind == "reindex"] == ["kb"]


async def test_vectors_of_two_models_never_meet(any_library: Library) -> None:
    """Protection: fault 94; another model finds by keywords until there is an index of its own."""
    await any_library.bring("kb", FILES)
    held = await any_library.texts("kb")
    other = HashEmbedder(name="other")
    any_library.embedder = other
    found = await any_library.retriever.retrieve("tide table", ["kb"], limit=5)
    assert found.passages
    assert not found.vectors_used
    ended = await any_library.bring("kb", {"new.md": "# New\n\nIt came late."})
    assert ended["new.md"].status == "failed"
    assert other.embedded == []
    assert await any_library.texts("kb") == held
    await any_library.indexes.reindex("kb")
    assert (await any_library.retriever.retrieve("tide table", ["kb"], limit=5)).vectors_used
    assert (await any_library.bring("kb", {"new.md": "# New\n\nIt came late."}))["new.md"].status == "indexed"
    assert (await any_library.live("kb")).embedder == other.info.fingerprint
    assert await any_library.agrees("kb")


async def test_another_number_of_dimensions_is_another_index(library: Library) -> None:
    await library.bring("kb", FILES)
    library.embedder = HashEmbedder(dimension=32, name="small")
    await library.indexes.reindex("kb")
    assert (await library.live("kb")).dimension == 32
    assert await library.found("kb", "It says 3.")


async def test_an_empty_knowledge_base_follows_the_settings_at_once(library: Library) -> None:
    await library.knowledge.create("kb")
    first, _ = await library.indexes.target("kb")
    await library.knowledge.change("kb", chunk_size=64, chunk_overlap=0)
    second, spec = await library.indexes.target("kb")
    assert (first.id != second.id, spec.chunk_size) == (True, 64)
    library.embedder = HashEmbedder(name="other")
    assert (await library.bring("kb", FILES))["0.md"].status == "indexed"
    await library.indexes.drop_retired()
    assert await _generations(library) == 1


async def test_a_document_that_cannot_be_read_again_keeps_the_index_before(library: Library) -> None:
    await library.bring("kb", FILES)
    held = await library.texts("kb")
    gone = await library.knowledge.original((await library.knowledge.find_document("kb", "2.md")).id)
    kept = [hashlib.sha256(text.encode()).hexdigest() for text in FILES.values()]
    library.blobs.remove_all_but(set(kept) - {gone.content_hash}, older_than=math.inf)
    await library.knowledge.change("kb", chunk_size=64, chunk_overlap=0)
    with pytest.raises(KvasirError, match=r"2\.md"):
        await library.indexes.reindex("kb")
    assert await library.texts("kb") == held


async def test_a_knowledge_base_deleted_meanwhile_leaves_no_index(library: Library) -> None:
    await library.bring("kb", FILES)
    live = await library.live("kb")

    async def delete(_tasks: Sequence[ParseTask]) -> None:
        await library.knowledge.delete("kb")

    library.parser.before = delete
    await library.knowledge.change("kb", chunk_size=64, chunk_overlap=0)
    with pytest.raises(KvasirError):
        await library.indexes.reindex("kb")
    assert (await library.store.count(live)).documents == 0
    assert await _generations(library) == 0
