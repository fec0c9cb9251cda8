"""Everything in one file and back: counts, hashes and search results are the same, and nothing is ever left half."""

from __future__ import annotations

import asyncio
import json
import shutil
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select

from core.app import Kvasir, restore
from core.db.tables import GenerationRow, KnowledgeBaseRow
from core.errors import Conflict, KvasirError, StorageFull, UserError
from core.identity import accounts as accounts_module
from core.identity.passwords import Passwords
from core.indexing.ingest import Incoming
from core.settings import Settings, WeaviateSettings, load
from core.types import Role
from core.upkeep import archive, exports
from core.work.jobs import run_job
from tests.databases import Postgres, copy_data
from tests.fakes.embedder import HashEmbedder
from tests.weaviate_server import empty

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("parser_here")]

FILES = {f"papers/{n}.md": f"# Paper {n}\n\nIt speaks of tide {n} and of number {n * 7}." for n in range(12)}
QUESTIONS = ("tide 3", "number 28", "paper", "what does it speak of")
ODD = "one\u2028two\u0085three\x0bfour"
"""Line ends that JSON leaves as they are."""


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Kvasir]:
    async with Kvasir.open(settings, embedder=HashEmbedder()) as kvasir:
        yield kvasir


async def furnish(kvasir: Kvasir) -> None:
    await kvasir.knowledge.create("kb", description=ODD, private=True, chunk_size=100, chunk_overlap=10)

    async def incoming() -> AsyncIterator[Incoming]:
        for name, text in FILES.items():
            yield Incoming(name, text.encode)

    ticket = await kvasir.ingest.submit("kb", incoming(), claimed=True)
    await run_job(kvasir.jobs, ticket.job, kvasir.run_job)
    await kvasir.accounts.create("ann", "a long enough secret", Role.OWNER)


async def looks(kvasir: Kvasir) -> dict[str, Any]:
    """What must be the same before and after."""
    kb = await kvasir.knowledge.get("kb")
    (live,) = await kvasir.knowledge.live(["kb"])
    rows, _ = await kvasir.knowledge.documents("kb", limit=100)
    found = [await kvasir.retriever.retrieve(question, ["kb"], limit=10) for question in QUESTIONS]
    return {
        "kb": (kb.description, kb.private, kb.chunk_size, kb.documents, kb.chunks, kb.created_at),
        "index": await kvasir.store.count(live.generation),
        "documents": [(row.id, row.name, row.title, row.status, row.chunks, row.updated_at) for row in rows],
        "originals": [(await kvasir.knowledge.original(row.id)).read_bytes() for row in rows],
        "top 10": [[(p.document, p.chunk, round(p.score, 9)) for p in result.passages] for result in found],
        "people": [(user.name, user.role) for user in await kvasir.accounts.list()],
    }


@pytest.fixture(scope="module", autouse=True)
def _cheap_passwords() -> Iterator[None]:
    cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts_module, "Passwords", lambda: Passwords(cheap))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a furnished Kvasir (`first`) and its backup, and what it looked like."""
    folder = tmp_path_factory.mktemp("made")

    async def make() -> dict[str, Any]:
        async with opened(load(data_dir=folder / "first")) as kvasir:
            await furnish(kvasir)
            assert await archive.backup(kvasir, folder / "kvasir.zip") == len(FILES)
            assert (folder / "kvasir.zip").stat().st_mode & 0o077 == 0  # password hashes and all documents are in it
            assert (folder / "first").stat().st_mode & 0o077 == 0
            return await looks(kvasir)

    return folder, asyncio.run(make())


@pytest.fixture
def backed_up(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A backup, its Kvasir beside it in `first`, and what that looked like."""
    folder, before = made
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    copy_data(folder / "first", tmp_path / "first")
    return tmp_path / "kvasir.zip", before


def on(folder: Path, url: str) -> Settings:
    return load(data_dir=folder, database={"url": url})


# ---------------------------------------------------------------- everything
async def test_a_backup_comes_back_the_same_on_any_database(
    backed_up: tuple[Path, dict[str, Any]], tmp_path: Path, empty_database_url: str
) -> None:
    """Protection: fault 95; a backup of SQLite comes back on PostgreSQL too."""
    file, before = backed_up
    settings = on(tmp_path / "second", empty_database_url)
    assert await restore(settings, file) == archive.Restored(len(FILES), 0, 0)
    async with opened(settings) as kvasir:
        assert before["kb"][3] == len(FILES)
        assert await looks(kvasir) == before
        await kvasir.ingest.recover()
        assert await kvasir.jobs.claim() is None
        await kvasir.accounts.login("ann", "a long enough secret", address="127.0.0.1")


async def test_what_was_in_another_store_comes_in_again(backed_up: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """A backup takes the settings' store along, and no other; what was switched off stays so."""
    async with opened(load(data_dir=tmp_path / "first")) as kvasir:
        await kvasir.knowledge.create("far")

        async def incoming() -> AsyncIterator[Incoming]:
            yield Incoming("tea.md", "Tea is at four.".encode)
            yield Incoming("off.md", "Tea is at five.".encode)

        ticket = await kvasir.ingest.submit("far", incoming(), claimed=True)
        await run_job(kvasir.jobs, ticket.job, kvasir.run_job)
        off = await kvasir.knowledge.find_document("far", "off.md")
        await kvasir.bulk.change("far", "disable", [off.id])
        (far,) = await kvasir.knowledge.live(["far"])
        async with kvasir.db.session() as session:
            row = await session.get(GenerationRow, far.generation.id)
            assert row is not None
            row.store = "pgvector"
        before = await looks(kvasir)
        await archive.backup(kvasir, tmp_path / "far.zip")
    settings = load(data_dir=tmp_path / "second")
    assert (await restore(settings, tmp_path / "far.zip")).waiting == 1
    async with opened(settings) as kvasir:
        assert await looks(kvasir) == before
        await kvasir.ingest.recover()
        assert await kvasir.knowledge.live(["far"]) == []
        while (job := await kvasir.jobs.claim()) is not None:
            await run_job(kvasir.jobs, job, kvasir.run_job)
        (far,) = await kvasir.knowledge.live(["far"])
        assert far.generation.store == "local"
        assert (await kvasir.store.count(far.generation)).documents == 1
        assert (await kvasir.knowledge.find_document("far", "off.md")).status == "disabled"
        assert await looks(kvasir) == before


@pytest.mark.postgres
async def test_a_backup_of_postgresql_comes_back_on_sqlite(tmp_path: Path, postgres: Postgres) -> None:
    file = tmp_path / "kvasir.zip"
    async with postgres.database(migrated=True) as url, opened(on(tmp_path / "first", url)) as kvasir:
        await furnish(kvasir)
        await archive.backup(kvasir, file)
        before = await looks(kvasir)
    second = load(data_dir=tmp_path / "second")
    await restore(second, file)
    async with opened(second) as kvasir:
        assert await looks(kvasir) == before


# ---------------------------------------------------------------- with the indexes, between stores
async def same_answers(settings: Settings, before: dict[str, Any]) -> None:
    """As they were, with no job to be done first, so nothing is embedded anew; scores but for half precision."""
    async with opened(settings) as kvasir:
        await kvasir.ingest.recover()
        assert await kvasir.jobs.claim() is None
        after = await looks(kvasir)
        assert (await kvasir.knowledge.live(["kb"]))[0].generation.store == settings.store.kind
    for question, there in zip(before.pop("top 10"), after.pop("top 10"), strict=True):
        assert {one[:2] for one in question} == {one[:2] for one in there}
        assert sorted(one[2] for one in question) == pytest.approx(sorted(one[2] for one in there), abs=2e-3)
    assert after == before


def place(folder: Path, store: str, url: str | None, weaviate: WeaviateSettings | None = None) -> Settings:
    given: dict[str, Any] = {"database": {"url": url}} if url else {}
    if weaviate:
        key = weaviate.api_key and weaviate.api_key.get_secret_value()
        given["weaviate"] = weaviate.model_dump() | {"api_key": key}
    return load(data_dir=folder, store={"kind": store}, **given)


@pytest.mark.postgres
@pytest.mark.parametrize("with_index", [True, False])
async def test_from_one_file_into_postgresql_and_back_nothing_is_embedded_anew(
    made: tuple[Path, dict[str, Any]], portable: Path, tmp_path: Path, postgres: Postgres, with_index: bool
) -> None:
    """SQLite and `local` into PostgreSQL and `pgvector`, by the portable form and by the file of `local`; and back."""
    folder, before = made
    async with postgres.database(migrated=False) as url:
        second = place(tmp_path / "second", "pgvector", url)
        told: list[tuple[int, int]] = []
        file = portable if with_index else folder / "kvasir.zip"
        await restore(second, file, lambda *numbers: told.append(numbers))
        assert told[-1] == (len(FILES), len(FILES))
        await same_answers(second, dict(before))
        async with opened(second) as kvasir:
            await archive.backup(kvasir, tmp_path / "two.zip", with_index=True)
    third = place(tmp_path / "third", "local", None)
    await restore(third, tmp_path / "two.zip")
    await same_answers(third, dict(before))


@pytest.mark.postgres
async def test_from_one_file_into_postgresql_and_weaviate_and_back(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, postgres: Postgres, weaviate_server: WeaviateSettings
) -> None:
    folder, before = made
    async with postgres.database(migrated=False) as url:
        second = place(tmp_path / "second", "weaviate", url, weaviate_server)
        await restore(second, folder / "kvasir.zip")
        await same_answers(second, dict(before))
        async with opened(second) as kvasir:
            await archive.backup(kvasir, tmp_path / "two.zip", with_index=True)
        third = place(tmp_path / "third", "local", None)
        await restore(third, tmp_path / "two.zip")
        await same_answers(third, dict(before))
        fourth = place(tmp_path / "fourth", "weaviate", None, weaviate_server)  # on the server of the second
        await restore(fourth, tmp_path / "two.zip")
        await same_answers(fourth, dict(before))
        async with opened(fourth) as kvasir:
            await kvasir.knowledge.delete("kb")
        await same_answers(second, dict(before))
    await empty(weaviate_server)


@pytest.fixture(scope="module")
def portable(made: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup with its indexes."""
    file = tmp_path_factory.mktemp("portable") / "kvasir.zip"

    async def make() -> None:
        copy = file.parent / "data"
        copy_data(made[0] / "first", copy)
        async with opened(load(data_dir=copy)) as kvasir:
            await archive.backup(kvasir, file, with_index=True)

    asyncio.run(make())
    return file


async def test_a_restore_of_indexes_that_was_stopped_can_be_run_again(
    made: tuple[Path, dict[str, Any]], portable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(data_dir=tmp_path / "second")

    async def stopped(*_args: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(archive, "_restore_rows", stopped)
        with pytest.raises(asyncio.CancelledError):
            await restore(settings, portable)
    await restore(settings, portable)
    await same_answers(settings, dict(made[1]))


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("suffix", "change"),
    [
        (".f32", cut),
        (".f32", lambda data: b"\xff" * len(data)),  # no numbers
        (".jsonl", cut),
        (".jsonl", lambda _: b'{"id": 1, "name": [], "title": "", "hash": "", "meta": {}, "chunks": []}'),
        (".jsonl", lambda _: b'{"id": "x", "name": "", "title": "", "hash": "", "meta": {"a": {}}, "chunks": []}'),
        (".jsonl", lambda _: b'{"id": "x", "name": "", "title": "", "hash": "", "meta": {}, "chunks": [[1, "a"]]}'),
        (".jsonl", lambda data: data.replace(b'"chunks": [[0,', b'"chunks": [["x",')),
        (".jsonl", lambda data: data.rpartition(b"\n")[0]),
    ],
)
async def test_a_damaged_index_is_said_and_nothing_is_left(
    portable: Path, tmp_path: Path, suffix: str, change: Callable[[bytes], bytes]
) -> None:
    damaged = tmp_path / "damaged.zip"
    with zipfile.ZipFile(portable) as source, zipfile.ZipFile(damaged, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            is_it = name.startswith("index/") and name.endswith(suffix)
            target.writestr(name, change(data) if is_it else data)
    settings = load(data_dir=tmp_path / "second")
    with pytest.raises(UserError, match="damaged"):
        await restore(settings, damaged)
    async with opened(settings) as kvasir:
        assert await kvasir.knowledge.list() == []


async def test_what_there_is_no_room_for_is_not_unpacked(
    portable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: a small file may say that it unpacks to terabytes."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StorageFull, match="has room for 0 MB"):
        await restore(load(data_dir=tmp_path / "second"), portable)


async def test_without_its_index_everything_comes_in_again(
    backed_up: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    file, before = backed_up
    bare = tmp_path / "bare.zip"
    _copy(file, bare, leave_out="store/", manifest={"store": ""})
    settings = load(data_dir=tmp_path / "second")
    await restore(settings, bare)
    async with opened(settings) as kvasir:
        assert await kvasir.knowledge.live(["kb"]) == []
        await kvasir.ingest.recover()
        while (job := await kvasir.jobs.claim()) is not None:
            await run_job(kvasir.jobs, job, kvasir.run_job)
        after = await looks(kvasir)
        assert (after["index"], after["top 10"]) == (before["index"], before["top 10"])
        async with kvasir.db.read() as session:
            assert len(list(await session.scalars(select(GenerationRow)))) == 1


def _copy(
    file: Path,
    to: Path,
    *,
    leave_out: str = "-",
    manifest: dict[str, Any] | None = None,
    parts: dict[str, bytes] | None = None,
) -> None:
    """The archive with some of it left out or changed."""
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(to, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "manifest.json":
                data = json.dumps(json.loads(data) | (manifest or {})).encode()
            if not name.startswith(leave_out):
                target.writestr(name, (parts or {}).get(name.partition("/")[0], data))


@pytest.mark.sqlite("its file, named in the address")
async def test_nothing_is_restored_over_data(backed_up: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    file, before = backed_up
    with pytest.raises(Conflict):
        await restore(load(data_dir=tmp_path / "first"), file)
    with pytest.raises(Conflict):
        await restore(on(tmp_path / "second", f"sqlite+aiosqlite:///{tmp_path / 'first' / 'kvasir.db'}"), file)
    async with opened(load(data_dir=tmp_path / "first")) as kvasir:
        assert await looks(kvasir) == before


@pytest.mark.sqlite("its file, named in the address")
async def test_an_index_that_holds_documents_is_not_overwritten(
    backed_up: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Another database, but the data directory of somebody else."""
    file, before = backed_up
    with pytest.raises(Conflict):
        await restore(on(tmp_path / "first", f"sqlite+aiosqlite:///{tmp_path / 'other.db'}"), file)
    async with opened(load(data_dir=tmp_path / "first")) as kvasir:
        assert await looks(kvasir) == before


async def test_a_place_where_kvasir_was_only_opened_is_empty(
    backed_up: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    file, before = backed_up
    settings = load(data_dir=tmp_path / "second")
    async with opened(settings):
        pass
    await restore(settings, file)
    async with opened(settings) as kvasir:
        assert await looks(kvasir) == before


async def test_a_restore_that_was_stopped_can_be_run_again(
    backed_up: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, before = backed_up
    settings = load(data_dir=tmp_path / "second")

    async def stopped(*_args: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(archive, "_restore_rows", stopped)
        with pytest.raises(asyncio.CancelledError):
            await restore(settings, file)
    assert not list(settings.data_dir.glob("index.db*"))
    await restore(settings, file)
    async with opened(settings) as kvasir:
        assert await looks(kvasir) == before


@pytest.mark.parametrize(
    ("parts", "manifest", "says"),
    [
        ({"originals": b"other bytes"}, {}, "damaged"),
        ({"tables": b'{"id": 1, "created_at": "no time"}'}, {}, "damaged"),
        ({"tables": b"no json"}, {}, "damaged"),
        ({}, {"format": 99}, "Another version"),
        ({}, {"revision": "9999"}, "Another version"),
    ],
)
async def test_a_damaged_backup_is_said_and_leaves_no_rows(
    backed_up: tuple[Path, dict[str, Any]], tmp_path: Path, parts: dict[str, bytes], manifest: dict[str, Any], says: str
) -> None:
    file, _ = backed_up
    damaged = tmp_path / "damaged.zip"
    _copy(file, damaged, manifest=manifest, parts=parts)
    settings = load(data_dir=tmp_path / "second")
    with pytest.raises(KvasirError, match=says):
        await restore(settings, damaged)
    async with opened(settings) as kvasir:
        assert await kvasir.knowledge.list() == []
        assert await kvasir.accounts.list() == []


async def test_a_cut_backup_is_said(backed_up: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    file, _ = backed_up
    cut = tmp_path / "cut.zip"
    cut.write_bytes(file.read_bytes()[:-200])
    flipped = tmp_path / "flipped.zip"
    data = bytearray(file.read_bytes())
    data[200:260] = b"\xff" * 60
    flipped.write_bytes(data)
    for broken in (cut, flipped, tmp_path / "absent.zip", tmp_path):
        with pytest.raises(UserError):
            await restore(load(data_dir=tmp_path / "second"), broken)


async def test_a_backup_is_written_whole_or_not_at_all(
    backed_up: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "there.zip").write_text("mine")
    async with opened(load(data_dir=tmp_path / "first")) as kvasir:
        with pytest.raises(Conflict):
            await archive.backup(kvasir, folder / "there.zip")
        with pytest.raises(UserError, match="could not be written"):
            await archive.backup(kvasir, folder / "absent" / "new.zip")

        def full(*_args: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(zipfile.ZipFile, "write", full)
        with pytest.raises(UserError, match="No space left"):
            await archive.backup(kvasir, folder / "new.zip")
    assert [path.name for path in folder.iterdir()] == ["there.zip"]
    assert (folder / "there.zip").read_text() == "mine"


# ---------------------------------------------------------------- one knowledge base
async def test_an_exported_knowledge_base_comes_in_elsewhere(
    backed_up: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    file, before = tmp_path / "kb.zip", backed_up[1]
    async with opened(load(data_dir=tmp_path / "first")) as kvasir:
        assert await exports.export_kb(kvasir, "kb", file) == len(FILES)
        with pytest.raises(Conflict):
            await exports.import_kb(kvasir, file, None)
        with pytest.raises(UserError, match="kb import"):
            await restore(load(data_dir=tmp_path / "third"), file)
    async with opened(load(data_dir=tmp_path / "second")) as kvasir:
        name, outcomes = await exports.import_kb(kvasir, file, None)
        assert (name, {out.status for out in outcomes}) == ("kb", {"indexed"})
        after = await looks(kvasir)
        assert after["top 10"] == before["top 10"]
        assert after["kb"][:5] == before["kb"][:5]
        renamed, _ = await exports.import_kb(kvasir, file, "again")
        assert renamed == "again"


async def test_an_import_unpacks_nothing_that_is_too_large(tmp_path: Path) -> None:
    file = tmp_path / "kb.zip"
    async with opened(load(data_dir=tmp_path / "first")) as kvasir:
        await kvasir.knowledge.create("kb")

        async def incoming() -> AsyncIterator[Incoming]:
            yield Incoming("large.txt", lambda: b"a" * ((1 << 20) + 1))
            yield Incoming("small.txt", b"A small one.".strip)

        ticket = await kvasir.ingest.submit("kb", incoming(), claimed=True)
        await run_job(kvasir.jobs, ticket.job, kvasir.run_job)
        await exports.export_kb(kvasir, "kb", file)
    async with opened(load(data_dir=tmp_path / "second", ingest={"max_file_mb": 1})) as kvasir:
        _, outcomes = await exports.import_kb(kvasir, file, None)
    assert {out.name: out.status for out in outcomes} == {"large.txt": "failed", "small.txt": "indexed"}


async def test_an_import_that_fails_leaves_no_knowledge_base(
    backed_up: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, damaged, foreign, forged = (tmp_path / f"{name}.zip" for name in ("kb", "damaged", "foreign", "forged"))
    async with opened(load(data_dir=tmp_path / "first")) as kvasir:
        await exports.export_kb(kvasir, "kb", file)
    _copy(file, damaged, parts={"originals": b"other bytes"})
    _copy(file, foreign, manifest={"kb": None})
    _copy(file, forged, manifest={"kb": {"name": "kb", "chunk_size": "many", "private": "no"}})
    async with opened(load(data_dir=tmp_path / "second")) as kvasir:
        for broken in (damaged, foreign, forged):
            with pytest.raises(KvasirError):
                await exports.import_kb(kvasir, broken, None)
        with pytest.raises(UserError, match="letters"):
            await exports.import_kb(kvasir, file, "../kb")

        async def stopped(*_args: object, **_how: object) -> None:
            raise asyncio.CancelledError

        monkeypatch.setattr(kvasir.ingest, "submit", stopped)
        with pytest.raises(asyncio.CancelledError):
            await exports.import_kb(kvasir, file, None)
        async with kvasir.db.read() as session:
            assert list(await session.scalars(select(KnowledgeBaseRow))) == []
