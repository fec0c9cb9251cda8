"""What people change in chunks is searched at once, and stays through re-reading, re-upload and re-index."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from core.db.tables import ChunkOverrideRow, JobRow, now
from core.errors import Conflict, NotFound, UserError
from core.indexing.chunks import LONGEST, ShownChunk
from core.ports import ParseTask
from tests.databases import copy_data
from tests.fakes.library import Library, opened_library

pytestmark = pytest.mark.anyio

PARTS = [f"# Part {word}\n\nThe {word} lantern hangs in {word} hall, and nobody may move it." for word in
         ("first", "second", "third", "fourth")]  # fmt: skip
LAMPS = "\n\n".join(PARTS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled data directory, to be copied."""
    folder = tmp_path_factory.mktemp("made")

    async def make() -> None:
        async with _filled(folder):
            pass

    asyncio.run(make())
    return folder / "data"


@pytest.fixture
async def library(made: Path, tmp_path: Path) -> AsyncIterator[Library]:
    copy_data(made, tmp_path / "data")
    async with opened_library(tmp_path / "data") as library:
        yield library


@pytest.fixture
async def any_library(tmp_path: Path, database_url: str) -> AsyncIterator[Library]:
    """The same with its database on SQLite and on PostgreSQL."""
    async with _filled(tmp_path, database_url) as library:
        yield library


@asynccontextmanager
async def _filled(folder: Path, url: str = "") -> AsyncIterator[Library]:
    async with opened_library(folder / "data", url) as library:
        await library.knowledge.create("kb", chunk_size=32, chunk_overlap=0)
        await library.bring("kb", {"lamps.md": LAMPS, "other.md": "# Tea\n\nTea is at four."})
        yield library


async def _id(library: Library, name: str = "lamps.md") -> str:
    return (await library.knowledge.find_document("kb", name)).id


async def _shown(library: Library, name: str = "lamps.md") -> Sequence[ShownChunk]:
    return (await library.chunks.page(await _id(library, name))).items


async def _edit(library: Library, number: int, text: str) -> None:
    chunk = next(one for one in await _shown(library) if one.number == number)
    await library.do(await library.chunks.edit(await _id(library), number, chunk.content_hash, text, by="ada"))


async def _remove(library: Library, number: int, *, for_good: bool = False) -> None:
    chunk = next(one for one in await _shown(library) if one.number == number)
    document = await _id(library)
    await library.do(await library.chunks.remove(document, number, chunk.content_hash, for_good=for_good, by="ada"))


async def _text(library: Library) -> str:
    return (await library.texts("kb"))["lamps.md"]


async def test_chunks_are_shown_in_order_and_by_pages(library: Library) -> None:
    page = await library.chunks.page(await _id(library), limit=3)
    assert (page.total, page.chunk_size) == (4, 32)
    assert [one.number for one in page.items] == [0, 1, 2]
    assert [one.headings for one in page.items][:2] == [("Part first",), ("Part second",)]
    assert all(10 < one.tokens <= 32 and one.override is None for one in page.items)
    rest = await library.chunks.page(await _id(library), limit=3, offset=3)
    assert [one.number for one in rest.items] == [3]


async def test_what_chunks_share_is_marked_also_where_a_page_begins(library: Library) -> None:
    words = " ".join(f"Sentence {n} is about the tide." for n in range(20))
    await library.knowledge.change("kb", chunk_overlap=12)
    await library.indexes.reindex("kb")
    await library.bring("kb", {"tide.md": words})
    document = await _id(library, "tide.md")
    shown = (await library.chunks.page(document)).items
    assert shown[0].overlap == 0
    assert all(before.text.endswith(one.text[: one.overlap]) and one.overlap > 10 for before, one in pairwise(shown))
    assert (await library.chunks.page(document, offset=2)).items == shown[2:]


async def test_an_edited_chunk_is_found_at_once_and_in_every_later_index(any_library: Library) -> None:
    await _edit(any_library, 1, "The second lantern was sold to the Danish captain.")
    assert await any_library.found("kb", "Danish captain sold", limit=1) == ["lamps.md"]
    shown = await _shown(any_library)
    assert [(one.text, one.override.action if one.override else "") for one in shown][1] == (
        "The second lantern was sold to the Danish captain.", "edit",
    )  # fmt: skip
    assert shown[1].override is not None
    assert (shown[1].override.by, shown[1].override.applied) == ("ada", True)
    await any_library.knowledge.change("kb", chunk_size=200)
    await any_library.indexes.reindex("kb")
    assert "Danish captain" in await _text(any_library)
    assert "second hall" not in await _text(any_library)
    assert "first hall" in await _text(any_library)
    await any_library.bring("kb", {"lamps.md": f"{LAMPS}\n\n# Part fifth\n\nThe fifth one is new."})
    assert "Danish captain" in await _text(any_library)
    assert "fifth one" in await _text(any_library)
    assert "second hall" not in await _text(any_library)
    assert await any_library.agrees("kb")


async def test_editing_again_changes_the_change_and_the_old_text_takes_it_back(library: Library) -> None:
    original = (await _shown(library))[0].text
    await _edit(library, 0, "Something new.")
    await _edit(library, 0, "Something newer.")
    (change,) = await library.chunks.overrides(await _id(library))
    assert (change.original, change.text) == (original, "Something newer.")
    await _edit(library, 0, original)
    assert await library.chunks.overrides(await _id(library)) == []
    assert original in await _text(library)


async def test_a_disabled_chunk_keeps_its_place_and_a_deleted_one_does_not(any_library: Library) -> None:
    await _remove(any_library, 2)
    await _remove(any_library, 0, for_good=True)
    text = await _text(any_library)
    assert "third hall" not in text
    assert "first hall" not in text
    shown = await _shown(any_library)
    assert [one.number for one in shown] == [0, None, 1]
    assert "third hall" in shown[1].text
    assert shown[1].override is not None
    await any_library.do(await any_library.chunks.undo(await _id(any_library), shown[1].override.id))
    assert "third hall" in await _text(any_library)
    assert [one.action for one in await any_library.chunks.overrides(await _id(any_library))] == ["delete"]


async def test_an_edited_chunk_can_be_disabled_and_comes_back_as_it_was_read(library: Library) -> None:
    await _edit(library, 1, "The second one is gone.")
    await _remove(library, 1)
    (change,) = await library.chunks.overrides(await _id(library))
    assert change.action == "disable"
    assert "second hall" in change.original
    await library.do(await library.chunks.undo(await _id(library), change.id))
    assert "second hall" in await _text(library)


async def test_a_chunk_is_added_behind_another_or_at_the_end_and_taken_away(library: Library) -> None:
    document = await _id(library)
    first = (await _shown(library))[0]
    await library.do(await library.chunks.add(document, 0, first.content_hash, "Oil is in the cellar.", by="ada"))
    await library.do(await library.chunks.add(document, None, "", "The end of it.", by="ada"))
    shown = await _shown(library)
    assert [one.text for one in shown][1] == "Oil is in the cellar."
    assert shown[1].headings == ("Part first",)
    assert shown[-1].text == "The end of it."
    await _edit(library, 1, "Oil is in the attic.")
    assert (await _shown(library))[1].text == "Oil is in the attic."
    await _remove(library, 1)
    assert [one.text for one in await library.chunks.overrides(document)] == ["The end of it."]


async def test_a_change_whose_text_is_gone_is_told_and_comes_back_with_it(any_library: Library) -> None:
    await _edit(any_library, 1, "The second lantern was sold.")
    await any_library.bring("kb", {"lamps.md": "\n\n".join([PARTS[0], *PARTS[2:]])})
    (change,) = await any_library.chunks.overrides(await _id(any_library))
    assert not change.applied
    assert "sold" not in await _text(any_library)
    assert (await any_library.documents.get(await _id(any_library))).changes_lost == 1
    await any_library.bring("kb", {"lamps.md": LAMPS})
    (change,) = await any_library.chunks.overrides(await _id(any_library))
    assert change.applied
    assert "sold" in await _text(any_library)


async def test_a_whole_document_may_be_left_out(library: Library) -> None:
    document = await _id(library, "other.md")
    (only,) = (await library.chunks.page(document)).items
    await library.do(await library.chunks.remove(document, 0, only.content_hash, for_good=False, by="ada"))
    (left,) = (await library.chunks.page(document)).items
    assert left.number is None
    assert await library.agrees("kb")
    await library.indexes.reindex("kb")
    assert await library.agrees("kb")


async def test_nobody_changes_what_they_have_not_seen(library: Library) -> None:
    document = await _id(library)
    seen = (await _shown(library))[1].content_hash
    await _edit(library, 1, "Another text.")
    with pytest.raises(Conflict):
        await library.chunks.edit(document, 1, seen, "Mine.", by="eve")
    with pytest.raises(NotFound):
        await library.chunks.edit(document, 99, seen, "Mine.", by="eve")
    (change,) = await library.chunks.overrides(document)
    with pytest.raises(NotFound):
        await library.chunks.undo(await _id(library, "other.md"), change.id)


@pytest.mark.parametrize("text", ["", " \n", "x" * (LONGEST + 1)])
async def test_a_chunk_needs_text_and_not_too_much(library: Library, text: str) -> None:
    chunk = (await _shown(library))[0]
    with pytest.raises(UserError):
        await library.chunks.edit(await _id(library), 0, chunk.content_hash, text, by="ada")


async def test_what_cannot_be_read_cannot_be_changed(library: Library) -> None:
    chunk = (await _shown(library))[0]
    await library.bring("kb", {"lamps.md": b""})
    assert (await library.documents.get(await _id(library))).info.status == "failed"
    with pytest.raises(Conflict):
        await library.chunks.edit(await _id(library), 0, chunk.content_hash, "New.", by="ada")


# ---------------------------------------------------------------- stopped in between
@pytest.mark.parametrize("step", ["before", "parse", "put", "switch"])
async def test_a_change_that_is_stopped_is_made_by_the_next_worker(library: Library, step: str) -> None:
    """The change and the document's turn are one row's step: nothing is lost, and no half index stays."""
    chunk = (await _shown(library))[1]
    job = await library.chunks.edit(await _id(library), 1, chunk.content_hash, "It was sold.", by="ada")

    async def killed(*_args: object) -> None:
        raise RuntimeError("killed")

    if step != "before":
        with pytest.MonkeyPatch.context() as patch:
            target, name = {
                "parse": (library.parser, "before"),
                "put": (library.store, "put"),
                "switch": (library.ingest, "_switch"),
            }[step]
            patch.setattr(target, name, killed)
            with pytest.raises(RuntimeError):
                await library.ingest.run(job)
    async with library.db.session() as session:
        await session.execute(update(JobRow).where(JobRow.id == job.id).values(lease_until=now() - timedelta(1)))
    assert await library.work_off() == 1
    assert "It was sold." in await _text(library)
    assert (await library.documents.get(await _id(library))).info.status == "indexed"
    assert await library.agrees("kb")


async def test_a_change_while_the_document_is_read_is_not_lost(any_library: Library) -> None:
    """Protection: the job that reads it without the change may not call it done."""
    chunk = (await _shown(any_library))[0]

    async def meanwhile(_tasks: Sequence[ParseTask]) -> None:
        any_library.parser.before = None
        later.append(
            await any_library.chunks.edit(await _id(any_library), 0, chunk.content_hash, "It was sold.", by="ada")
        )

    later: list[object] = []
    any_library.parser.before = meanwhile
    changed = await any_library.bulk.change("kb", "reread", [await _id(any_library)], claimed=True)
    assert changed.job is not None
    await any_library.do(changed.job)
    assert (await any_library.documents.get(await _id(any_library))).info.status == "queued"
    await any_library.do(later[0])  # type: ignore[arg-type]  # the job of the edit
    assert "It was sold." in await _text(any_library)


async def test_an_index_that_missed_a_change_is_found_out(library: Library) -> None:
    """Protection: two workers may put the same document in turn; whoever comes next compares with what should be."""
    chunk = (await _shown(library))[0]
    generation = await library.live("kb")
    former = await library.store.chunks(generation, await _id(library))
    put = library.store.put

    async def stale(generation: object, documents: Sequence[object]) -> None:
        import dataclasses

        document = dataclasses.replace(documents[0], chunks=tuple(former), content_hash="0" * 64)  # type: ignore[type-var]
        await put(generation, [document])  # type: ignore[arg-type, list-item]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library.store, "put", stale)
        await library.do(await library.chunks.edit(await _id(library), 0, chunk.content_hash, "It was sold.", by="ada"))
    assert "It was sold." not in await _text(library)
    await library.ingest.reconcile("kb")
    assert await library.work_off() == 1
    assert "It was sold." in await _text(library)


async def test_changes_go_with_their_document(library: Library) -> None:
    await _edit(library, 0, "New.")
    await library.knowledge.delete_document(await _id(library))
    async with library.db.read() as session:
        assert await session.scalar(select(func.count()).select_from(ChunkOverrideRow)) == 0


async def test_documents_without_changes_cost_no_statement_each(library: Library) -> None:
    """One look for the changes of a job, however many documents it has."""
    from sqlalchemy import event

    seen: list[str] = []
    event.listen(library.db.engine.sync_engine, "before_cursor_execute", lambda *args: seen.append(str(args[2])))
    await library.bring("kb", {f"{n}.md": f"# Paper {n}\n\nIt says {n}." for n in range(30)})
    assert sum("chunk_overrides" in one for one in seen) <= 3
    assert sum("document_versions" in one for one in seen) == 0
