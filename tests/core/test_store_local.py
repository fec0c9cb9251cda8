"""What the `local` store promises beyond its port: its file, its memory, and what it says when something is wrong."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import ConfigError, KvasirError, StoreUnavailable
from core.settings import Settings
from core.stores import database, local, writing
from core.stores.local import FILE, LocalStore, open_store
from core.types import IndexedDocument, SearchResult, Vector
from tests.contracts.test_vector_store import GENERATION, OTHER, document, keyword, texts, vector
from tests.processes import run

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    store = await open_store(Settings(data_dir=tmp_path))
    await store.ensure_generation(GENERATION)
    yield store
    await store.close()


def rows(path: Path, table: str) -> int:
    connection = sqlite3.connect(path / FILE)
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    finally:
        connection.close()


async def test_the_file_is_for_its_owner_alone(store: LocalStore, tmp_path: Path) -> None:
    await store.put(GENERATION, [document("d1", "tea")])
    assert {path.stat().st_mode & 0o077 for path in tmp_path.glob(f"{FILE}*")} == {0}


async def test_it_comes_back_after_a_restart(store: LocalStore, tmp_path: Path) -> None:
    await store.put(GENERATION, [document("d1", "tea", "cake"), document("d2", "bread")])
    before = await store.count(GENERATION)
    await store.close()
    again = await open_store(Settings(data_dir=tmp_path))
    await again.ensure_generation(GENERATION)
    assert await again.count(GENERATION) == before
    assert texts(await keyword(again, "cake")) == ["cake"]
    await again.close()


async def test_nothing_is_left_of_what_is_replaced_deleted_or_dropped(store: LocalStore, tmp_path: Path) -> None:
    await store.ensure_generation(OTHER)
    for version in ("1", "2"):
        metadata = {"year": 2025}
        await store.put(GENERATION, [document("d1", "tea", "cake", version=version, metadata=metadata)])
        await store.put(OTHER, [document("d2", *["tea"] * 2100, version=version, metadata=metadata)])
    assert (rows(tmp_path, "documents"), rows(tmp_path, "chunks")) == (2, 2102)
    await store.delete(OTHER, ["d2"])
    await store.drop_generation(GENERATION)
    for table in ("documents", "chunks", "blocks", "metadata"):
        assert rows(tmp_path, table) == 0, table
    assert rows(tmp_path, "generations") == 1


async def test_what_a_killed_process_left_half_written_is_never_seen_and_taken_out(
    store: LocalStore, tmp_path: Path
) -> None:
    await store.put(GENERATION, [document("d1", "tea")])
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute(
        "INSERT INTO documents (id, generation, key, name, title, content_hash, chunks, state, version, since)"
        " SELECT id + 100, generation, 'half', 'half.md', '', 'h', 9, 0, 0, strftime('%s') - 4000 FROM documents"
    )
    connection.execute("INSERT INTO chunks VALUES (?, 'tea', 'tea', '', '', 'h')", (101 << database.CHUNK_BITS,))
    connection.commit()
    connection.close()
    assert len(await keyword(store, "tea")) == 1
    assert (await store.count(GENERATION)).chunks == 1
    again = await open_store(Settings(data_dir=tmp_path))
    await again.close()
    assert (rows(tmp_path, "documents"), rows(tmp_path, "chunks")) == (1, 1)


async def test_a_long_document_that_fails_half_way_leaves_the_old_one(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(GENERATION, [document("d1", "tea")])
    written: list[int] = []
    write = writing._write

    def breaking(connection: sqlite3.Connection, row: int, stretch: writing._Stretch) -> None:
        if len(written) == 2:
            raise sqlite3.OperationalError("database or disk is full")
        written.append(row)
        write(connection, row, stretch)

    monkeypatch.setattr(writing, "_write", breaking)
    with pytest.raises(StoreUnavailable):
        await store.put(GENERATION, [document("d1", *["cake"] * 5100, version="2")])
    monkeypatch.undo()
    assert texts(await keyword(store, "tea cake")) == ["tea"]
    await store.put(GENERATION, [document("d2", "bread")])
    assert rows(tmp_path, "chunks") == 2


async def test_more_than_is_written_at_once_comes_as_it_is_when_it_is_little(store: LocalStore, tmp_path: Path) -> None:
    pages = [f"tea {'cake ' * (number % 5)}no{number}" for number in range(2100)]
    documents = [document("d1", *pages[:1900]), document("d2", *pages[1900:]), document("d3", *pages)]
    await store.ensure_generation(OTHER)
    for one in documents:
        await store.put(OTHER, [one])
    await store.put(GENERATION, documents)
    assert (await store.count(GENERATION)) == (await store.count(OTHER))
    together, alone = [await store.read(one, ["d1", "d2", "d3"]) for one in (GENERATION, OTHER)]
    for one, other in zip(together, alone, strict=True):
        assert (one.chunks, one.terms) == (other.chunks, other.terms)
        assert one.vectors is not None
        assert other.vectors is not None
        assert np.array_equal(one.vectors, other.vectors)
    assert texts(await keyword(store, "2000")) == ["tea no2000"] * 2


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "put", "delete", "search"]), st.integers(0, 12), st.integers(0, 6)),
    min_size=1,
    max_size=30,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(steps=STEPS)
def test_an_index_brought_up_to_date_equals_one_read_anew(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    async def play() -> None:
        folder = tmp_path_factory.mktemp("store")
        store, reader = await open_store(Settings(data_dir=folder)), await open_store(Settings(data_dir=folder))
        await store.ensure_generation(GENERATION)
        for step, (what, which, size) in enumerate(steps):
            if what == "put":
                pages = [f"tea {'cake ' * (which + number)}" for number in range(size)]
                await store.put(GENERATION, [document(f"d{which}", *pages, seed=step, version=str(step))])
            elif what == "delete":
                await store.delete(GENERATION, [f"d{which}", f"d{size}"])
            else:
                await _search(reader)
        fresh = await open_store(Settings(data_dir=folder))
        assert await _search(reader) == await _search(fresh)
        for opened in (store, reader, fresh):
            await opened.close()

    async def _search(store: LocalStore) -> tuple[object, ...]:
        found = await store.search(GENERATION, vector=vector(3), tokens=["tea", "cake"], limit=500)
        scores = {
            (hit.document_id, hit.chunk.number): (round(hit.vector_score or 0, 5), round(hit.keyword_score or 0, 4))
            for hit in found.hits
        }
        return scores, found.chunk_count, dict(found.document_frequency)

    asyncio.run(play())


async def test_indexes_beyond_the_memory_allowed_are_given_up_and_read_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / FILE, cache_mb=0)
    await store.open()
    for generation in (GENERATION, OTHER):
        await store.ensure_generation(generation)
        await store.put(generation, [document("d1", f"tea of {generation.kb_id}")])
    for _ in range(3):
        for generation in (GENERATION, OTHER):
            assert len(await keyword(store, "tea", generation)) == 1
            assert len(store._residents._held) == 1
    await store.close()


async def test_a_backup_is_one_whole_file(store: LocalStore, tmp_path: Path) -> None:
    await store.put(GENERATION, [document(f"d{number}", "tea", "cake") for number in range(50)])
    (tmp_path / "backup").mkdir()
    copy = tmp_path / "backup" / FILE
    await asyncio.gather(
        store.backup(copy), *(store.put(GENERATION, [document(f"more{number}", "tea")]) for number in range(5))
    )
    assert [path.name for path in copy.parent.iterdir()] == [FILE]
    restored = await open_store(Settings(data_dir=copy.parent))
    count = await restored.count(GENERATION)
    assert count.documents >= 50
    assert count.chunks == 50 + count.documents
    await restored.close()


# ---------------------------------------------------------------- what can go wrong
@pytest.mark.parametrize("damage", ["header", "text file", "foreign database", "newer"])
async def test_a_file_that_cannot_be_used_is_named_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    store = await open_store(Settings(data_dir=tmp_path))
    await store.ensure_generation(GENERATION)
    await store.put(GENERATION, [document("d1", "tea")])
    await store.close()
    path = tmp_path / FILE
    if damage == "header":
        path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])
    elif damage == "text file":
        path.write_text("my notes, not a database\n" * 100)
    else:
        path.unlink() if damage == "foreign database" else None
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE mine (x)" if damage == "foreign database" else "PRAGMA user_version = 99")
        connection.commit()
        connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=FILE):
        await open_store(Settings(data_dir=tmp_path))
    if damage != "foreign database":  # SQLite notes the journal mode in the header
        assert path.read_bytes() == before


async def test_flipped_bits_inside_are_reported_not_hidden(tmp_path: Path) -> None:
    store = await open_store(Settings(data_dir=tmp_path))
    await store.ensure_generation(GENERATION)
    await store.put(GENERATION, [document(f"d{number}", "tea " * 300) for number in range(100)])
    await store.close()
    path = tmp_path / FILE
    data = bytearray(path.read_bytes())
    for page in range(2, len(data) // 8192):
        data[page * 8192 : page * 8192 + 64] = bytes(64)
    path.write_bytes(data)

    async def look() -> None:
        again = await open_store(Settings(data_dir=tmp_path))
        try:
            await again.count(GENERATION)
            await keyword(again, "tea")
        finally:
            await again.close()

    with pytest.raises(KvasirError, match=FILE):
        await look()


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailable, match="file"):
        await open_store(Settings(data_dir=tmp_path / "file" / "data"))


async def test_another_process_that_holds_the_file_is_waited_for_and_then_named(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(GENERATION, [document("d1", "tea")])
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    waiting = asyncio.create_task(store.put(GENERATION, [document("d2", "tea")]))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    assert len(await keyword(store, "tea")) == 1
    other.execute("ROLLBACK")
    await waiting
    assert len(await keyword(store, "tea")) == 2
    await store.close()

    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    impatient = await open_store(Settings(data_dir=tmp_path))
    await asyncio.sleep(0.1)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await impatient.put(GENERATION, [document("d3", "tea")])
    other.execute("ROLLBACK")
    other.close()
    await impatient.put(GENERATION, [document("d3", "tea")])
    assert len(await keyword(impatient, "tea")) == 3
    await impatient.close()


FULL_DISK = """
import asyncio, resource, signal, sys
from pathlib import Path
from core.errors import StoreUnavailable
from core.settings import Settings
from core.stores.local import open_store
from tests.contracts.test_vector_store import GENERATION, document, keyword

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = await open_store(Settings(data_dir=Path(sys.argv[1])))
    await store.ensure_generation(GENERATION)
    await store.put(GENERATION, [document("before", "tea")])
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    stored = 1
    try:
        for number in range(200):
            await store.put(GENERATION, [document(f"d{number}", *["tea " * 500] * 20)])
            stored += 1
    except StoreUnavailable as error:
        print(error)
    assert 1 <= stored < 200
    assert (await store.count(GENERATION)).documents == stored
    assert len((await store.search(GENERATION, vector=None, tokens=["tea"], limit=9)).hits) > 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.put(GENERATION, [document("after", "tea")])
    assert (await store.count(GENERATION)).documents == stored + 1
    await store.close()
    print("recovered")

asyncio.run(main())
"""


async def test_a_full_disk_is_said_and_got_over(tmp_path: Path) -> None:
    """The child may not write files beyond 400 kB for a while; reads go on, and so do writes once it may again."""
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = await asyncio.to_thread(run, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, lines
    assert FILE in lines[0]
    assert lines[-1] == "recovered"


async def test_a_file_that_may_not_be_written_is_still_read(store: LocalStore, tmp_path: Path) -> None:
    await store.put(GENERATION, [document("d1", "tea")])
    await store._write(lambda connection: connection.execute("PRAGMA query_only = ON"))
    with pytest.raises(StoreUnavailable, match="read-only"):
        await store.put(GENERATION, [document("d2", "tea")])
    assert len(await keyword(store, "tea")) == 1


async def test_vectors_are_kept_in_half_precision(store: LocalStore, tmp_path: Path) -> None:
    given = document("d1", "tea")
    assert given.vectors is not None
    await store.put(GENERATION, [IndexedDocument("d1", "d1", "", "h", given.chunks, given.vectors)])
    connection = sqlite3.connect(tmp_path / FILE)
    (stored,) = connection.execute("SELECT vectors FROM blocks").fetchone()
    connection.close()
    assert np.allclose(np.frombuffer(stored, "<f2"), given.vectors[0], atol=1e-3)


async def test_a_small_index_is_read_whole_while_the_vector_is_made(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then what the vector finds need not be read from the file, unless there is little room for what was read."""
    many = [document(f"d{number}", f"tea number{number}", seed=number) for number in range(60)]
    await store.put(GENERATION, [*many, document("gone", "tea once")])
    await store.delete(GENERATION, ["gone"])
    genuine, read = store._search, list[int]()

    def noted(*given: Any) -> SearchResult:
        read.append(1)
        return genuine(*given)

    async def ask(number: int) -> list[str]:
        coming: asyncio.Future[Vector | None] = asyncio.get_running_loop().create_future()
        search = asyncio.create_task(store.search(GENERATION, vector=coming, tokens=["number1"], limit=5))
        await asyncio.sleep(0.05)
        coming.set_result(vector(number))
        return [hit.chunk.text for hit in (await search).hits]

    monkeypatch.setattr(store, "_search", noted)
    assert "tea number40" in await ask(40)
    assert not read
    await store.put(GENERATION, [document("d50", "cake", seed=50)])
    assert "cake" in await ask(50)
    assert not read
    monkeypatch.setattr(local, "_KNOWN_CHARACTERS", 2 * store._known._characters - 2)
    await store.put(GENERATION, [document("d50", "pie", seed=50)])
    assert "pie" in await ask(50)
    assert read
