"""Documents are found, counted and changed many at a time; whatever races with it, an index holds what it should."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event, update

from core.db.tables import DocumentRow
from core.errors import TooLarge, UserError
from core.indexing.bulk import CURATED, Change
from core.indexing.ingest import Incoming
from core.kb.documents import Listed, Wanted
from core.ports import ParseTask
from tests.fakes.library import Library, incoming, opened_library

pytestmark = pytest.mark.anyio

FILES: dict[str, str | bytes] = {
    "tea.md": "# Tea\n\nTea is at four.",
    "copies/tea.md": "# Tea\n\nTea is at four.",
    "yard/parking.txt": "Visitors park in the yard behind the mill, and nowhere else.",
    "bad.pdf": b"%PDF-1.7 broken",
}


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with opened_library(tmp_path / "data") as library:
        await library.bring("kb", FILES)
        yield library


@pytest.fixture
async def any_library(tmp_path: Path, database_url: str) -> AsyncIterator[Library]:
    """The same with its database on SQLite and on PostgreSQL."""
    async with opened_library(tmp_path / "data", database_url) as library:
        await library.bring("kb", FILES)
        yield library


async def _names(library: Library, kb: str = "kb", **wanted: object) -> list[str]:
    items, _ = await library.documents.page(kb, Wanted(**wanted))  # type: ignore[arg-type]  # fields of Wanted
    return [item.info.name for item in items]


async def _one(library: Library, name: str, kb: str = "kb") -> Listed:
    return await library.documents.get((await library.knowledge.find_document(kb, name)).id)


async def _change(library: Library, change: Change, *names: str, into: str = "") -> int:
    ids = [(await library.knowledge.find_document("kb", name)).id for name in names]
    return (await library.bulk.change("kb", change, ids, into=into)).done


# ---------------------------------------------------------------- looking
async def test_a_list_is_narrowed_down_and_sorted(any_library: Library) -> None:
    library = any_library
    assert await _names(library) == ["bad.pdf", "copies/tea.md", "tea.md", "yard/parking.txt"]
    assert await _names(library, status="failed") == ["bad.pdf"]
    assert await _names(library, text="TEA") == ["copies/tea.md", "tea.md"]
    assert await _names(library, kind="text/plain") == ["yard/parking.txt"]
    assert await _names(library, source="upload", duplicates=True) == ["copies/tea.md", "tea.md"]
    assert await _names(library, source="web") == []
    items, total = await library.documents.page("kb", Wanted(), sort="size", descending=True, limit=1, offset=1)
    assert (total, [item.info.name for item in items]) == (4, ["copies/tea.md"])
    assert [item.copies for item in (await library.documents.page("kb", Wanted()))[0]] == [0, 1, 1, 0]


async def test_a_percent_sign_is_only_a_percent_sign(library: Library) -> None:
    assert await _names(library, text="%") == []


async def test_what_there_is_is_counted_against_its_limits(any_library: Library) -> None:
    await any_library.knowledge.change("kb", max_documents=9, max_mb=2)
    async with any_library.db.session() as session:
        await session.execute(
            update(DocumentRow).where(DocumentRow.name == "tea.md").values(source="https://example.org/tea")
        )
    found = await any_library.documents.summary("kb")
    assert (found.documents, found.max_documents, found.max_bytes, found.duplicates) == (4, 9, 2 << 20, 2)
    assert found.bytes == sum(len(content) for content in FILES.values())
    assert {count.value: count.documents for count in found.statuses} == {"indexed": 3, "failed": 1}
    assert {count.value: count.documents for count in found.sources} == {"upload": 3, "web": 1}
    assert {count.value: count.documents for count in found.kinds}["text/markdown"] == 2


async def test_a_page_costs_the_same_whatever_is_on_it(library: Library) -> None:
    """Protection: no statement for each document."""
    await library.bring("kb", {f"{n}.md": f"# Paper {n}\n\nIt says {n}." for n in range(40)})
    seen: list[object] = []
    event.listen(library.db.engine.sync_engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    await library.documents.page("kb", Wanted(), limit=1)
    few = len(seen)
    seen.clear()
    await library.documents.page("kb", Wanted(), limit=40)
    assert len(seen) == few


# ---------------------------------------------------------------- changing
async def test_failed_documents_are_tried_again(any_library: Library) -> None:
    changed = await any_library.bulk.change("kb", "retry", Wanted())
    assert changed.done == 1
    assert sorted(one.name for one in changed.left_out) == ["copies/tea.md", "tea.md", "yard/parking.txt"]
    assert all(one.reason for one in changed.left_out)
    assert (await _one(any_library, "bad.pdf")).info.status == "queued"
    assert await any_library.work_off() == 1
    assert (await _one(any_library, "bad.pdf")).info.status == "failed"


async def test_documents_are_read_again_and_searched_meanwhile(library: Library) -> None:
    library.parser.read.clear()
    assert await _change(library, "reread", "tea.md") == 1
    assert "tea.md" in await library.found("kb", "tea at four")
    assert await _change(library, "reread", "tea.md") == 0
    await library.work_off()
    assert library.parser.read == ["tea.md"]
    assert (await _one(library, "tea.md")).info.status == "indexed"


async def test_a_disabled_document_is_not_searched_until_it_is_enabled(any_library: Library) -> None:
    library = any_library
    await _change(library, "disable", "yard/parking.txt")
    assert "yard/parking.txt" not in await library.found("kb", "visitors park in the yard")
    assert await library.agrees("kb")
    await library.ingest.reconcile("kb")
    await library.indexes.reindex("kb")
    assert await library.work_off() == 0
    assert "yard/parking.txt" not in await library.found("kb", "visitors park in the yard")
    ended = await library.bring("kb", {"yard/parking.txt": "Visitors park on the roof since May."})
    assert ended["yard/parking.txt"].status == "unchanged"
    assert (await _one(library, "yard/parking.txt")).info.status == "disabled"
    await _change(library, "enable", "yard/parking.txt")
    await library.work_off()
    assert "Visitors park on the roof since May." in (await library.texts("kb"))["yard/parking.txt"]


async def test_many_are_deleted_at_once(any_library: Library) -> None:
    changed = await any_library.bulk.change("kb", "delete", Wanted(text="tea"))
    assert changed.done == 2
    assert await _names(any_library) == ["bad.pdf", "yard/parking.txt"]
    assert set(await any_library.texts("kb")) == {"yard/parking.txt"}


async def test_documents_move_with_what_people_changed_in_them(any_library: Library) -> None:
    library = any_library
    await library.bring("new", {"copies/tea.md": "# Tea\n\nAnother tea."})
    document = await _one(library, "tea.md")
    (chunk,) = (await library.chunks.page(document.info.id)).items
    await library.do(await library.chunks.edit(document.info.id, 0, chunk.content_hash, "Tea is cold.", by="ada"))
    ids = [(await _one(library, name)).info.id for name in ("tea.md", "copies/tea.md")]
    changed = await library.bulk.change("kb", "move", ids, into="new")
    assert (changed.done, [one.name for one in changed.left_out]) == (1, ["copies/tea.md"])
    assert "tea.md" not in await library.texts("kb")
    await library.work_off()
    assert (await library.texts("new"))["tea.md"] == "Tea is cold."
    assert await library.agrees("kb")
    assert await library.agrees("new")


async def test_a_move_needs_room_and_another_place(library: Library) -> None:
    await library.knowledge.create("new")
    await library.knowledge.change("new", max_documents=1)
    with pytest.raises(TooLarge):
        await library.bulk.change("kb", "move", Wanted(), into="new")
    with pytest.raises(UserError):
        await library.bulk.change("kb", "move", Wanted(), into="kb")
    assert len(await _names(library)) == 4


async def test_what_is_of_another_knowledge_base_is_not_touched(library: Library) -> None:
    """Protection: ids of documents that the caller was not let to."""
    await library.bring("secret", {"plan.md": "# Plan\n\nThe plan is secret."})
    other = (await _one(library, "plan.md", "secret")).info.id
    for change in ("delete", "disable", "reread", "cancel"):
        assert (await library.bulk.change("kb", change, [other])).done == 0
    assert (await library.bulk.change("kb", "move", [other], into="secret")).done == 0
    assert await library.texts("secret") == {"plan.md": "The plan is secret."}


async def test_documents_of_curated_answers_stay_where_they_are(library: Library) -> None:
    await library.knowledge.create("other")
    await library.ingest.submit("kb", _curated())
    await library.work_off()
    document = await _one(library, "curated/1.md")
    for change in ("disable", "move"):
        changed = await library.bulk.change("kb", change, [document.info.id], into="other")
        assert changed.done == 0


async def _curated() -> AsyncIterator[Incoming]:
    async for file in incoming({"curated/1.md": "# Why\n\nBecause."}):
        yield replace(file, source=CURATED)


# ---------------------------------------------------------------- cancelling
async def test_what_waits_is_cancelled_and_what_was_searched_stays(any_library: Library) -> None:
    library = any_library
    await library.submit("kb", {"tea.md": "# Tea\n\nTea is at nine.", "new.md": "# New\n\nIt is new."})
    assert await _change(library, "cancel", "tea.md", "new.md", "bad.pdf") == 2
    await library.work_off()
    tea, new = await _one(library, "tea.md"), await _one(library, "new.md")
    assert (tea.info.status, tea.info.reason, tea.versions) == ("indexed", None, 0)
    assert (new.info.status, bool(new.info.reason), new.is_live) == ("failed", True, False)
    assert (await library.texts("kb"))["tea.md"] == "Tea is at four."
    assert await _change(library, "retry", "new.md") == 1
    await library.work_off()
    assert (await library.texts("kb"))["new.md"] == "It is new."


@pytest.mark.parametrize("change", ["cancel", "delete", "disable", "move"])
async def test_what_is_changed_while_it_is_read_leaves_nothing_behind(any_library: Library, change: Change) -> None:
    """Protection: the job that reads it may neither bring it back nor leave it in the index."""
    library = any_library
    await library.knowledge.create("other")

    async def meanwhile(_tasks: Sequence[ParseTask]) -> None:
        library.parser.before = None
        assert await _change(library, change, "new.md", into="other") == 1

    library.parser.before = meanwhile
    await library.bring("kb", {"new.md": "# New\n\nIt is quite new.", "also.md": "# Also\n\nThis too."})
    assert set(await library.texts("kb")) == {"tea.md", "copies/tea.md", "yard/parking.txt", "also.md"}
    await library.work_off()
    assert await library.agrees("kb")
    assert ("new.md" in await _names(library, "other")) == (change == "move")
    assert ("new.md" in await _names(library)) == (change in ("cancel", "disable"))
