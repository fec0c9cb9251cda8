"""Former versions of a document are kept up to a number, given out, and put back; their bytes go when they go."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from core.db.tables import JobRow, now
from core.errors import Conflict, NotFound, TooLarge
from tests.fakes.library import Library, incoming, opened_library

pytestmark = pytest.mark.anyio

TEA = [f"# Tea\n\nTea is at {hour} o'clock." for hour in ("four", "five", "six", "seven", "eight", "nine")]


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with opened_library(tmp_path / "data") as library:
        yield library


@pytest.fixture
async def any_library(tmp_path: Path, database_url: str) -> AsyncIterator[Library]:
    """The same with its database on SQLite and on PostgreSQL."""
    async with opened_library(tmp_path / "data", database_url) as library:
        yield library


async def _put(library: Library, *texts: str, by: str = "ada") -> str:
    """These texts, one after the other, in the same document; gives its id."""
    await library.knowledge.get_or_create("kb")
    for text in texts:
        ticket = await library.ingest.submit("kb", incoming({"tea.md": text}), claimed=True, by=by)
        await library.do(ticket.job)
    return (await library.knowledge.find_document("kb", "tea.md")).id


async def _numbers(library: Library, document: str) -> list[int]:
    return [version.number for version in await library.versions.list(document)]


async def test_the_newest_former_versions_are_kept_with_who_put_them_in(any_library: Library) -> None:
    document = await _put(any_library, *TEA)
    assert await _numbers(any_library, document) == [5, 4, 3]
    assert {version.by for version in await any_library.versions.list(document)} == {"ada"}
    assert (await any_library.versions.original(document, 5)).read_bytes().decode() == TEA[4]
    with pytest.raises(NotFound):
        await any_library.versions.original(document, 2)
    listed = await any_library.documents.get(document)
    assert (listed.versions, listed.by) == (3, "ada")


async def test_a_version_is_restored_and_what_was_there_becomes_one(any_library: Library) -> None:
    document = await _put(any_library, *TEA[:3])
    await any_library.do(await any_library.versions.restore(document, 1, by="bo", claimed=True))
    assert (await any_library.texts("kb"))["tea.md"] == "Tea is at four o'clock."
    assert await any_library.agrees("kb")
    kept = {version.number: version.by for version in await any_library.versions.list(document)}
    assert kept == {3: "ada", 2: "ada"}
    assert (await any_library.documents.get(document)).by == "bo"
    assert (await any_library.versions.original(document, 3)).read_bytes().decode() == TEA[2]


async def test_bytes_that_never_were_searched_are_no_version(library: Library) -> None:
    document = await _put(library, TEA[0])
    await library.submit("kb", {"tea.md": TEA[1]})
    await library.submit("kb", {"tea.md": TEA[2]})
    await library.work_off()
    versions = await library.versions.list(document)
    assert len(versions) == 1
    assert (await library.versions.original(document, versions[0].number)).read_bytes().decode() == TEA[0]


async def test_the_version_before_a_bad_one_is_put_back(library: Library) -> None:
    document = await _put(library, TEA[0], "")
    assert (await library.documents.get(document)).info.status == "failed"
    await library.do(await library.versions.restore(document, 1, by="ada", claimed=True))
    listed = await library.documents.get(document)
    assert (listed.info.status, listed.info.reason, listed.versions) == ("indexed", None, 0)
    assert (await library.texts("kb"))["tea.md"] == "Tea is at four o'clock."


async def test_bytes_of_versions_outlive_the_clean_up_and_go_with_them(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = await _put(library, *TEA)
    in_two_days = time.time() + 2 * 86_400
    monkeypatch.setattr("core.indexing.recovery.time.time", lambda: in_two_days)
    await library.ingest.recover()
    held = [library.blobs.has(version.content_hash) for version in await library.versions.list(document)]
    assert held == [True, True, True]
    hashes = [version.content_hash for version in await library.versions.list(document)]
    await library.knowledge.delete_document(document)
    await library.ingest.recover()
    assert not any(library.blobs.has(one) for one in hashes)


@pytest.mark.parametrize("most", [0, 1])
async def test_how_many_are_kept_is_a_setting(library: Library, most: int) -> None:
    await library.knowledge.create("kb")
    ingest = library.with_limits(keep_versions=most)
    for text in TEA[:4]:
        ticket = await ingest.submit("kb", incoming({"tea.md": text}), claimed=True)
        await library.do(ticket.job)
    document = (await library.knowledge.find_document("kb", "tea.md")).id
    assert len(await library.versions.list(document)) == most


async def test_what_cannot_be_restored_says_why(library: Library) -> None:
    document = await _put(library, *TEA[:2])
    with pytest.raises(NotFound):
        await library.versions.restore(document, 9, by="ada")
    other = (await library.bring("kb", {"other.md": "# Other\n\nIt is another one."}))["other.md"]
    assert other.status == "indexed"
    with pytest.raises(NotFound):
        await library.versions.restore((await library.knowledge.find_document("kb", "other.md")).id, 1, by="ada")
    await library.bulk.change("kb", "disable", [document])
    with pytest.raises(Conflict):
        await library.versions.restore(document, 1, by="ada")


async def test_a_version_too_large_for_its_knowledge_base_is_not_restored(library: Library) -> None:
    document = await _put(library, f"{TEA[1]}\n\n<!-- {'x' * (1 << 20)} -->", TEA[0])
    await library.knowledge.change("kb", max_mb=1)
    with pytest.raises(TooLarge):
        await library.versions.restore(document, 1, by="ada")


@pytest.mark.parametrize("step", ["before", "put", "switch"])
async def test_a_restore_that_is_stopped_is_finished_by_the_next_worker(library: Library, step: str) -> None:
    document = await _put(library, *TEA[:2])
    job = await library.versions.restore(document, 1, by="ada", claimed=True)

    async def killed(*_args: object) -> None:
        raise RuntimeError("killed")

    if step != "before":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                library.store if step == "put" else library.ingest, "put" if step == "put" else "_switch", killed
            )
            with pytest.raises(RuntimeError):
                await library.ingest.run(job)
    async with library.db.session() as session:
        await session.execute(update(JobRow).where(JobRow.id == job.id).values(lease_until=now() - timedelta(1)))
    assert await library.work_off() == 1
    assert (await library.texts("kb"))["tea.md"] == "Tea is at four o'clock."
    assert await _numbers(library, document) == [2]
    assert await library.agrees("kb")
