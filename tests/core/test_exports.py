"""A knowledge base takes along what people made of it; a backup takes everything but the key of secrets."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from core.app import Kvasir, restore
from core.db.tables import ConnectionRow, DocumentVersionRow, OutboxRow
from core.indexing.ingest import Incoming
from core.quality.curated import Written
from core.quality.evaluate import Line
from core.settings import Settings, load
from core.sources.register import NewSource
from core.upkeep import archive, exports
from core.vault import KEY_FILE
from core.work.jobs import run_job
from tests.databases import copy_data
from tests.fakes.embedder import HashEmbedder

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("parser_here")]

SETTINGS: dict[str, Any] = {
    "description": "Of tides.", "instructions": "Be brief.", "private": True, "top_k": 3, "mode": "keyword",
    "min_evidence": 0.25, "max_documents": 99, "chunk_size": 64, "chunk_overlap": 0, "engine": "extractive",
}  # fmt: skip
FILES = {f"{n}.md": f"# Paper {n}\n\nIt speaks of tide {n}.\n\n## More\n\nAnd of number {n * 7}." for n in range(5)}


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Kvasir]:
    async with Kvasir.open(settings, embedder=HashEmbedder()) as kvasir:
        yield kvasir


async def bring(kvasir: Kvasir, files: dict[str, str]) -> None:
    async def incoming() -> AsyncIterator[Incoming]:
        for name, text in files.items():
            yield Incoming(name, text.encode)

    ticket = await kvasir.ingest.submit("kb", incoming(), claimed=True)
    await run_job(kvasir.jobs, ticket.job, kvasir.run_job)


async def furnish(kvasir: Kvasir) -> None:
    """One of everything."""
    await kvasir.knowledge.create("kb", **SETTINGS)
    await bring(kvasir, FILES)
    first = await kvasir.knowledge.find_document("kb", "1.md")
    seen = (await kvasir.knowledge.chunks(first.id))[0]
    job = await kvasir.chunks.edit(first.id, 0, seen.content_hash, "It speaks of herring.", by="user:1")
    await run_job(kvasir.jobs, job, kvasir.run_job)
    await kvasir.bulk.change("kb", "disable", [(await kvasir.knowledge.find_document("kb", "4.md")).id])
    await kvasir.curated.add("kb", Written("What is a tide?", "The sea.", ("Tide?",), (first.id,)), "user:1")
    made = await kvasir.evaluations.create("kb", "tides")
    await kvasir.evaluations.add(made.id, Line("What does paper 2 speak of?", ("tide 2",), "2.md"))
    settings = {"url": "https://example.org/papers.git"}
    await kvasir.sources.create(NewSource("kb", "papers", "git", settings, token="hunter2"))


async def looks(kvasir: Kvasir, kb: str) -> dict[str, Any]:
    """What must be the same in both places."""
    found = await kvasir.knowledge.get(kb)
    rows, _ = await kvasir.knowledge.documents(kb, limit=100)
    texts = {}
    for row in rows:
        name = "curated" if row.source == "curated" else row.name
        texts[name] = (row.status, [chunk.text for chunk in await kvasir.knowledge.chunks(row.id)])
    curated, _ = await kvasir.curated.list([kb])
    sets, _ = await kvasir.evaluations.sets(kb)
    sources, _ = await kvasir.sources.list(kbs=[kb])
    return {
        "settings": {field: getattr(found, field) for field in SETTINGS},
        "documents": texts,
        "curated": [(c.question, c.paraphrases, c.text, c.state, [r.name for r in c.rests_on], bool(c.document_id))
                    for c in curated],
        "sets": [(s.name, await kvasir.evaluations.lines(s.id)) for s in sets],
        "sources": [(s.name, s.kind, dict(s.settings)) for s in sources],
    }  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a furnished Kvasir (`first`) and its knowledge base in one file, and what it looked like."""
    folder = tmp_path_factory.mktemp("made")

    async def make() -> dict[str, Any]:
        async with opened(load(data_dir=folder / "first")) as kvasir:
            await furnish(kvasir)
            assert await exports.export_kb(kvasir, "kb", folder / "kb.zip") == len(FILES) + 1
            return await looks(kvasir, "kb")

    return folder, asyncio.run(make())


async def test_all_that_people_made_of_it_goes_along(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, database_url: str
) -> None:
    file, before = made[0] / "kb.zip", made[1]
    assert before["documents"]["1.md"][1][0] == "It speaks of herring."
    assert before["documents"]["4.md"] == ("disabled", [])
    with zipfile.ZipFile(file) as parts:
        assert b"hunter2" not in b"".join(parts.read(name) for name in parts.namelist())
        assert "secrets" not in parts.read("manifest.json").decode()
    async with opened(load(data_dir=tmp_path / "second", database={"url": database_url})) as kvasir:
        for name in ("kb", "again"):
            await exports.import_kb(kvasir, file, name)
            assert await looks(kvasir, name) == before
        (source,), _ = await kvasir.sources.list(kbs=["kb"])
        assert not source.has_secret
        await kvasir.knowledge.delete("kb")
        assert await looks(kvasir, "again") == before


async def test_what_cannot_be_used_here_is_left_out_and_told(tmp_path: Path) -> None:
    file, other = tmp_path / "kb.zip", tmp_path / "other.zip"
    async with opened(load(data_dir=tmp_path / "first")) as kvasir:
        await kvasir.knowledge.create("kb")
        await bring(kvasir, FILES)
        await exports.export_kb(kvasir, "kb", file)
        with zipfile.ZipFile(file) as source, zipfile.ZipFile(other, "w") as target:
            for name in source.namelist():
                data = source.read(name)
                if name == "manifest.json":
                    manifest = json.loads(data)
                    manifest["kb"] |= {"engine": "elsewhere", "embedder": "elsewhere", "unknown": 1}
                    manifest["sources"] = [{"name": "etc", "kind": "folder", "settings": {"path": "/etc"}}]
                    data = json.dumps(manifest).encode()
                target.writestr(name, data)
        _, outcomes = await exports.import_kb(kvasir, other, "copy")
        copy = await kvasir.knowledge.get("copy")
        assert (copy.engine, copy.wanted_embedder, copy.documents) == (None, None, len(FILES))
        assert [outcome.name for outcome in outcomes if outcome.status == "failed"] == ["etc"]
        assert (await kvasir.sources.list(kbs=["copy"]))[1] == 0


# ---------------------------------------------------------------- backups
@pytest.mark.parametrize("key_goes_along", [True, False])
async def test_a_backup_brings_it_all_back_but_the_key_of_secrets(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, key_goes_along: bool
) -> None:
    file = tmp_path / "all.zip"
    copy_data(made[0] / "first", tmp_path / "first")
    first, second = load(data_dir=tmp_path / "first"), load(data_dir=tmp_path / "second")
    async with opened(first) as kvasir:
        await bring(kvasir, {"0.md": "# Paper 0\n\nIt says more."})
        async with kvasir.db.session() as session:
            session.add(ConnectionRow(platform="slack", secrets=kvasir.vault.encrypt('{"token": "xoxb"}')))
            session.add(OutboxRow(platform="slack", channel="C1", text="Waits to be posted."))
        before = await looks(kvasir, "kb")
        await archive.backup(kvasir, file)
        key = (first.data_dir / KEY_FILE).read_bytes()
    with zipfile.ZipFile(file) as parts:
        assert key.strip() not in b"".join(parts.read(name) for name in parts.namelist())
    if key_goes_along:
        second.data_dir.mkdir()
        (second.data_dir / KEY_FILE).write_bytes(key)
    restored = await restore(second, file)
    assert restored.secrets_lost == (0 if key_goes_along else 2)
    async with opened(second) as kvasir:
        assert await looks(kvasir, "kb") == before
        async with kvasir.db.read() as session:
            connection = await session.get(ConnectionRow, "slack")
            version = await session.scalar(select(DocumentVersionRow.content_hash))
            assert await session.scalar(select(OutboxRow)) is None
        assert connection is not None
        if key_goes_along:
            assert kvasir.vault.decrypt(connection.secrets) == '{"token": "xoxb"}'
        else:
            assert connection.secrets == ""
        (source,), _ = await kvasir.sources.list(kbs=["kb"])
        assert source.has_secret is key_goes_along
        document = await kvasir.knowledge.find_document("kb", "0.md")
        assert [one.content_hash for one in await kvasir.versions.list(document.id)] == [version]
        assert (await kvasir.versions.original(document.id, 1)).read_bytes() == FILES["0.md"].encode()
