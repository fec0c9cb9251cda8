"""A knowledge base is moved from store to store: as it is, while it is used, and killed wherever one likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from core.db.tables import EvaluationRunRow, EvaluationSetRow, GenerationRow
from core.errors import Conflict, KvasirError, NotFound, StoreUnavailable, UserError
from core.indexing import moving as moving_module
from core.indexing.moving import Moved, Moving, settle
from core.indexing.storage import Stores
from core.kb.knowledge import kb_row
from core.ports import VectorStore
from core.stores.local import LocalStore
from core.types import Generation, IndexedDocument
from tests.fakes.embedder import HashEmbedder
from tests.fakes.library import Library, opened_library

pytestmark = pytest.mark.anyio

FILES = {
    f"{n}.md": f"# Paper {n}\n\nIt says {n}.\n\n" + "\n\n".join(f"Tide {n}{i}." * 30 for i in range(3))
    for n in range(9)
}


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


async def open_other(folder: Path, kind: str) -> VectorStore:
    if kind != "other":
        raise UserError(f"no store {kind}")
    store = LocalStore(folder / "other.db", cache_mb=16)
    await store.open()
    return store


@asynccontextmanager
async def opened(folder: Path, url: str) -> AsyncIterator[Library]:
    async with opened_library(folder / "data", url, others=partial(open_other, folder)) as library:
        yield library


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving_module, "_GRACE_SECONDS", 0)
    monkeypatch.setattr(moving_module, "_PAUSE", 0.01)


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with opened(tmp_path, "") as library:
        await library.bring("kb", FILES)
        yield library


@pytest.fixture
async def any_library(tmp_path: Path, database_url: str) -> AsyncIterator[Library]:
    """On SQLite and on PostgreSQL."""
    async with opened(tmp_path, database_url) as library:
        await library.bring("kb", FILES)
        yield library


def moving(library: Library) -> Moving:
    return Moving(library.db, library.store, library.indexes, "local")


async def stores(library: Library) -> list[tuple[str | None, str]]:
    """Store and state of every index there is."""
    async with library.db.read() as session:
        rows = await session.scalars(select(GenerationRow))
        return sorted((row.store or "", row.state) for row in rows)


async def held(library: Library, generation: Generation) -> Sequence[IndexedDocument]:
    keys = [key for key, _, _ in await library.store.documents(generation)]
    return await library.store.read(generation, keys)


async def test_it_moves_as_it_is_and_back(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("nothing is embedded anew")

    first = await library.live("kb")
    count, documents = await library.store.count(first), await held(library, first)
    answers = await library.retriever.retrieve("what says 7", ["kb"], limit=5)
    embed = HashEmbedder.embed_documents
    monkeypatch.setattr(HashEmbedder, "embed_documents", never)
    told: list[tuple[int, int]] = []
    assert await moving(library).move("kb", "other", lambda *numbers: told.append(numbers)) == Moved(
        "kb", "other", 9, count.chunks, True
    )
    assert told[-1] == (9, 9)
    there = await library.live("kb")
    assert there.store == "other"
    assert await library.store.count(there) == count
    assert (await library.store.count(first)).documents == 0
    for one, other in zip(documents, await held(library, there), strict=True):
        assert replace(one, vectors=None) == replace(other, vectors=None)
        np.testing.assert_array_equal(one.vectors, other.vectors)
    assert await stores(library) == [("other", "live")]
    await moving(library).move("kb", "local")
    assert await library.store.count(await library.live("kb")) == count
    assert await stores(library) == [("local", "live")]
    monkeypatch.setattr(HashEmbedder, "embed_documents", embed)
    assert (await library.retriever.retrieve("what says 7", ["kb"], limit=5)).passages == answers.passages


async def test_what_comes_next_stays_where_it_was_moved_to(library: Library) -> None:
    await moving(library).move("kb", "other")
    await library.bring("kb", {"new.md": "Nobody has read this."})
    await library.knowledge.change("kb", chunk_size=64, chunk_overlap=0)
    await library.indexes.reindex("kb")
    assert (await library.live("kb")).store == "other"
    assert (await library.found("kb", "nobody has read"))[0] == "new.md"
    await library.ingest.recover()
    assert await library.agrees("kb")


async def test_figures_of_evaluations_go_along(library: Library) -> None:
    live = await library.live("kb")
    async with library.db.session() as session:
        base = await kb_row(session, "kb")
        one = EvaluationSetRow(kb_id=base.id, name="set")
        session.add(one)
        await session.flush()
        session.add(EvaluationRunRow(set_id=one.id, generation_id=live.id, settings={}))
    await moving(library).move("kb", "other")
    async with library.db.read() as session:
        assert await session.scalar(select(EvaluationRunRow.generation_id)) == (await library.live("kb")).id


@pytest.mark.parametrize(
    ("step", "after"),
    [
        ("ensure_generation", 0),
        ("read", 1),
        ("put", 0),
        ("put", 1),
        ("count", 1),
        ("search", 2),
        ("drop_generation", 0),
    ],
)
async def test_killed_anywhere_it_goes_on(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: int
) -> None:
    monkeypatch.setattr(moving_module, "_DOCUMENTS_AT_ONCE", 4)
    count = await library.store.count(await library.live("kb"))
    original, calls = getattr(library.store, step), 0

    async def killing(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Killed
        return await original(*args, **named)

    monkeypatch.setattr(library.store, step, killing)
    with pytest.raises(Killed):
        await moving(library).move("kb", "other")
    async with opened(tmp_path, "") as again:
        assert "7.md" in await again.found("kb", "what says 7")
        await again.ingest.recover()
        put, copied = again.store.put, 0

        async def counting(generation: Generation, documents: Sequence[IndexedDocument]) -> None:
            nonlocal copied
            copied += len(documents)
            await put(generation, documents)

        monkeypatch.setattr(again.store, "put", counting)
        await moving(again).move("kb", "other")
        assert copied == {("ensure_generation", 0): 9, ("read", 1): 5, ("put", 0): 9, ("put", 1): 5}.get(
            (step, after), 0
        )
        assert await again.store.count(await again.live("kb")) == count
        assert await stores(again) == [("other", "live")]


async def test_it_answers_and_changes_while_it_moves(any_library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library = any_library
    monkeypatch.setattr(moving_module, "_DOCUMENTS_AT_ONCE", 1)
    monkeypatch.setattr(moving_module, "_GRACE_SECONDS", 0.2)
    rows, _ = await library.knowledge.documents("kb")
    done = asyncio.Event()
    asked = 0

    async def ask() -> None:
        nonlocal asked
        while not done.is_set():
            assert "7.md" in await library.found("kb", "what says 7")
            asked += 1
            await asyncio.sleep(0.02)

    async def change() -> None:
        await library.bring("kb", {"0.md": "Another paper, of nothing.", "new.md": "Nobody has read this."})
        await library.knowledge.delete_document(next(row.id for row in rows if row.name == "3.md"))
        await library.bring("kb", {"8.md": "The last paper was changed."})

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(ask())
        changing = group.create_task(change())
        for kind in ("other", "local", "other"):
            assert (await moving(library).move("kb", kind)).is_moved
        await changing
        done.set()
    assert asked
    assert await library.agrees("kb")
    texts = await library.texts("kb")
    assert texts.keys() == (FILES.keys() - {"3.md"}) | {"new.md"}
    assert texts["8.md"] == "The last paper was changed."
    assert await stores(library) == [("other", "live")]


async def test_a_copy_that_differs_is_given_up(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    live = await library.live("kb")
    put = library.store.put
    spoilings = {
        "chunk": lambda one: replace(one, chunks=(one.chunks[0]._replace(content_hash="x"), *one.chunks[1:])),
        "tokens": lambda one: replace(one, terms=b"", chunks=tuple(chunk._replace(tokens="x") for chunk in one.chunks)),
        "vectors": lambda one: replace(one, vectors=-one.vectors),
        "metadata": lambda one: replace(one, metadata={"lost": 1}),
    }
    for spoil in spoilings.values():

        async def spoiling(generation: Generation, documents: Sequence[IndexedDocument], spoil: Any = spoil) -> None:
            await put(generation, [spoil(one) for one in documents])

        monkeypatch.setattr(library.store, "put", spoiling)
        with pytest.raises(KvasirError, match="other"):
            await moving(library).move("kb", "other")
        assert await library.live("kb") == live
        assert await stores(library) == [("", "live")]
    monkeypatch.setattr(library.store, "put", put)
    assert (await moving(library).move("kb", "other")).is_moved


async def test_an_index_that_was_built_anew_meanwhile_is_the_one_that_moves(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = library.store.count

    async def late(generation: Generation) -> Any:
        monkeypatch.setattr(library.store, "count", count)
        await library.knowledge.change("kb", chunk_size=64, chunk_overlap=0)
        await library.indexes.reindex("kb")
        return await count(generation)

    monkeypatch.setattr(library.store, "count", late)
    await moving(library).move("kb", "other")
    assert await stores(library) == [("other", "live")]
    assert not await library.indexes.needs_reindex("kb")
    assert await library.agrees("kb")


async def test_what_does_not_come_to_rest_stays(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving_module, "_REST_SECONDS", 0.05)
    live = await library.live("kb")
    rows, _ = await library.knowledge.documents("kb")
    (lost,) = await library.store.read(live, [rows[0].id])
    await library.store.put(live, [replace(lost, content_hash="newer than the database knows")])
    with pytest.raises(Conflict):
        await moving(library).move("kb", "other")
    assert await library.live("kb") == live
    await library.store.put(live, [lost])
    assert (await moving(library).move("kb", "other")).is_moved


async def test_where_it_is_nothing_moves_and_what_was_begun_is_given_up(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        async def killed(*_: object) -> None:
            raise Killed

        patch.setattr(library.store, "put", killed)
        with pytest.raises(Killed):
            await moving(library).move("kb", "other")
    assert await stores(library) == [("", "live"), ("other", "moving")]
    assert await moving(library).move("kb", "local") == Moved("kb", "local", 0, 0, False)
    await library.ingest.recover()
    assert await stores(library) == [("", "live")]
    await library.knowledge.create("empty")
    assert await moving(library).move("empty", "other") == Moved("empty", "", 0, 0, False)
    with pytest.raises(NotFound):
        await moving(library).move("none", "other")


async def test_a_store_that_is_gone_holds_up_only_what_is_in_it(library: Library, tmp_path: Path) -> None:
    await library.bring("second", {"a.md": "Tea is at four."})
    await moving(library).move("second", "other")

    async def gone(kind: str) -> VectorStore:
        raise UserError(f"{kind} is gone")

    async with opened_library(tmp_path / "data", others=gone) as without:
        await without.ingest.recover()
        assert await without.found("kb", "what says 7")
        with pytest.raises(StoreUnavailable, match="other is gone"):
            await without.found("second", "tea")
        assert isinstance(without.store, Stores)
        with pytest.raises(UserError):
            await without.store.usable("other")


async def test_other_settings_later_leave_an_index_where_it_is(library: Library) -> None:
    await settle(library.db, "local")
    await settle(library.db, "other")
    assert await stores(library) == [("local", "live")]
