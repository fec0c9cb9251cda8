"""Documents come in, are replaced and go: whatever fails, stops or races, an index never holds half a document."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Update, select, update

from core.db.tables import DocumentRow, JobRow, KnowledgeBaseRow, now
from core.errors import KvasirError, TooLarge, UserError
from core.indexing.ingest import Incoming, IngestEvent, clean_name
from core.kb.knowledge import kb_row
from core.ports import ParseTask
from core.types import Generation, IndexedDocument, StoreCount
from core.work import jobs as jobs_module
from core.work.jobs import run_job
from tests.fakes.library import Library, incoming, opened_library, pieces

pytestmark = pytest.mark.anyio

LEAVE = "# Leave\n\nAnnual leave is twenty-eight days."
PARKING = "# Parking\n\nVisitors park in the yard behind the mill."
OLD, NEW = "# Tea\n\nTea is at four.", "# Tea\n\nTea is at half past five now."


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with opened_library(tmp_path / "data") as library:
        yield library


@pytest.fixture
async def any_library(tmp_path: Path, database_url: str) -> AsyncIterator[Library]:
    """The same with its database on SQLite and on PostgreSQL."""
    async with opened_library(tmp_path / "data", database_url) as library:
        yield library


# ---------------------------------------------------------------- the plain way
async def test_documents_come_in_and_are_found(any_library: Library) -> None:
    ended = await any_library.bring("kb", {"leave.md": LEAVE, "yard/parking.md": PARKING})
    assert {name: (out.status, out.chunks) for name, out in ended.items()} == {
        "leave.md": ("indexed", 1),
        "yard/parking.md": ("indexed", 1),
    }
    assert await any_library.found("kb", "Where do visitors park?") == ["yard/parking.md", "leave.md"]
    assert await any_library.agrees("kb")
    rows, total = await any_library.knowledge.documents("kb")
    assert total == 2
    assert [(row.name, row.title, row.status, row.stage) for row in rows] == [
        ("leave.md", "Leave", "indexed", "live"),
        ("yard/parking.md", "Parking", "indexed", "live"),
    ]


async def test_what_is_there_already_is_not_done_again(library: Library) -> None:
    await library.bring("kb", {"leave.md": LEAVE, "parking.md": PARKING})
    library.parser.read.clear()
    ended = await library.bring("kb", {"leave.md": LEAVE, "parking.md": PARKING + " Not on Sundays."})
    assert {name: out.status for name, out in ended.items()} == {"leave.md": "unchanged", "parking.md": "indexed"}
    assert library.parser.read == ["parking.md"]


async def test_equal_bytes_are_stored_once_and_are_two_documents(library: Library) -> None:
    await library.bring("kb", {"a.md": LEAVE, "b.md": LEAVE})
    assert set(await library.texts("kb")) == {"a.md", "b.md"}
    assert library.blobs.remove_all_but([], older_than=math.inf) == 1


async def test_a_bad_document_ends_as_failed_and_the_others_go_on(library: Library) -> None:
    ended = await library.bring("kb", {"bad.pdf": b"%PDF-1.7 broken", "empty.md": b"", "leave.md": LEAVE})
    assert {name: out.status for name, out in ended.items()} == {
        "bad.pdf": "failed",
        "empty.md": "failed",
        "leave.md": "indexed",
    }
    assert all(ended[name].reason for name in ("bad.pdf", "empty.md"))
    assert set(await library.texts("kb")) == {"leave.md"}
    assert await library.agrees("kb")


async def test_every_step_of_a_document_is_told(library: Library) -> None:
    ticket = await library.submit("kb", {"leave.md": LEAVE, "bad.pdf": b"%PDF-1.7 broken"}, claimed=True)
    told: list[IngestEvent] = []

    async def watch() -> None:
        told.extend([event async for event in library.ingest.watch(ticket.job.id)])

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0.05)
    await run_job(library.jobs, ticket.job, library.work)
    await asyncio.wait_for(watcher, 5)
    assert {event.stage for event in told if event.name == "leave.md"} >= {"stored", "live"}
    last = {event.name: (event.status, event.total) for event in told}
    assert last == {"leave.md": ("indexed", 2), "bad.pdf": ("failed", 2)}
    assert told[-1].done == 2


# ---------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../x.md", "x.md"),
        ("/etc/cron.d/x.md", "etc/cron.d/x.md"),
        ("..\\..\\x.md", "x.md"),
        ("C:\\Users\\x.md", "C:/Users/x.md"),
        ("a/./b//c.md", "a/b/c.md"),
        ("x\x00\r\n.md", "x.md"),
        ("x\u202e\u200bdm.md", "xdm.md"),
        ("x\udcff.md", "x.md"),
        ("n" * 2000 + ".md", "n" * 1021 + ".md"),
    ],
)
def test_a_name_is_text_and_never_a_way_out(given: str, kept: str) -> None:
    """Protection: faults 1 and 4."""
    assert clean_name(given) == kept


@pytest.mark.parametrize("given", ["", "..", "/", "\\", "../..", "\x00", " "])
def test_a_name_that_says_nothing_is_refused(given: str) -> None:
    with pytest.raises(UserError):
        clean_name(given)


async def test_no_name_becomes_a_path(tmp_path: Path, library: Library) -> None:
    """Protection: fault 1; only the data directory is written to, under names of ours."""
    outside = tmp_path / "outside.md"
    names = ("../outside.md", "../../outside.md", str(outside), "..\\outside.md")
    for number, name in enumerate(names):
        await library.bring("kb", {name: f"{LEAVE} {number}"})
    assert list(tmp_path.rglob("*outside*")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


async def test_twins_of_a_name_are_two_documents(library: Library) -> None:
    """Protection: fault 5."""
    names = ("Tea.md", "tea.md", "caf\u00e9.md", "cafe\u0301.md", "tea.md ", "tea.md.")
    twins = {name: f"number {n}" for n, name in enumerate(names)}
    await library.bring("kb", {name: f"# Tea\n\nIt is {text}." for name, text in twins.items()})
    held = await library.texts("kb")
    assert {name: f"It is {text}." in held[name] for name, text in twins.items()} == dict.fromkeys(twins, True)


# ---------------------------------------------------------------- quotas
async def test_a_full_knowledge_base_takes_no_more_and_nothing_is_written(library: Library) -> None:
    """Protection: fault 20."""
    await library.bring("kb", {"a.md": LEAVE, "b.md": PARKING})
    for limits, files in (
        ({"max_documents": 2}, {"c.md": "# C\n\nText."}),
        ({"max_kb_mb": 1}, {"c.md": "# C\n\n" + "x" * (1 << 20)}),
    ):
        with pytest.raises(TooLarge):
            await library.with_limits(**limits).submit("kb", incoming(files))
    _, total = await library.knowledge.documents("kb")
    assert total == 2
    assert {job.state for job in await library.jobs.list()} == {"done"}
    replaced = await library.with_limits(max_documents=2).submit("kb", incoming({"a.md": "# A\n\nAnother."}))
    assert len(replaced.documents) == 1


async def test_a_file_that_is_too_large_is_refused_alone(library: Library) -> None:
    large = b"# L\n\n" + b"x" * (1 << 20)
    await library.knowledge.create("kb")
    ingest = library.with_limits(max_file_mb=1)
    ticket = await ingest.submit("kb", incoming({"large.md": large, "leave.md": LEAVE}))
    assert [out.name for out in ticket.refused] == ["large.md"]
    assert [info.name for info in ticket.documents] == ["leave.md"]
    streamed = await ingest.upload("kb", [("s.md", pieces(large[:9], large[9:])), ("p.md", pieces(PARKING.encode()))])
    assert [out.name for out in streamed.refused] == ["s.md"]
    assert [info.name for info in streamed.documents] == ["p.md"]
    assert list((library.blobs.folder / "partial").iterdir()) == []


async def test_a_file_that_cannot_be_read_is_refused_alone(library: Library, tmp_path: Path) -> None:
    await library.knowledge.create("kb")

    async def files() -> AsyncIterator[Incoming]:
        yield Incoming("gone.md", (tmp_path / "gone.md").read_bytes)
        yield Incoming("leave.md", LEAVE.encode)

    ticket = await library.ingest.submit("kb", files())
    assert [(out.name, out.status) for out in ticket.refused] == [("gone.md", "failed")]
    assert [info.name for info in ticket.documents] == ["leave.md"]


# ---------------------------------------------------------------- replacing
async def test_a_new_version_is_live_only_when_it_is_complete(any_library: Library) -> None:
    await any_library.bring("kb", {"tea.md": OLD})
    seen: list[dict[str, str]] = []

    async def look(_tasks: Sequence[ParseTask]) -> None:
        seen.append(await any_library.texts("kb"))

    any_library.parser.before = look
    await any_library.bring("kb", {"tea.md": NEW})
    assert [text["tea.md"] for text in seen] == ["Tea is at four."]
    assert (await any_library.texts("kb"))["tea.md"] == "Tea is at half past five now."
    assert await any_library.agrees("kb")


async def test_a_failed_new_version_keeps_the_old_one(library: Library) -> None:
    await library.bring("kb", {"tea.md": OLD})
    ended = await library.bring("kb", {"tea.md": b"\x00\x01\x02\x03" * 100})
    assert ended["tea.md"].status == "failed"
    assert "version before" in (ended["tea.md"].reason or "")
    assert (await library.texts("kb"))["tea.md"] == "Tea is at four."
    assert await library.found("kb", "When is tea?") == ["tea.md"]
    assert await library.agrees("kb")


async def test_one_name_raced_many_times_is_one_document_of_one_piece(any_library: Library) -> None:
    """Protection: fault 23; never a mix of two uploads."""
    await any_library.knowledge.create("kb")
    versions = [f"# Tea\n\nFirst half of {n}.\n\nSecond half of {n}." for n in range(20)]
    await asyncio.gather(*(any_library.ingest.submit("kb", incoming({"tea.md": text})) for text in versions))
    await asyncio.gather(any_library.work_off(), any_library.work_off())
    (row,), total = await any_library.knowledge.documents("kb")
    assert (total, row.status) == (1, "indexed")
    held = await any_library.texts("kb")
    (text,) = [text for text in versions if text.partition("\n\n")[2] == held["tea.md"]]
    original = await any_library.knowledge.original(row.id)
    assert (original.content_hash, original.read_bytes()) == (hashlib.sha256(text.encode()).hexdigest(), text.encode())
    assert await any_library.agrees("kb")


async def test_bytes_that_come_while_the_former_are_read_are_not_lost(library: Library) -> None:
    async def newer(_tasks: Sequence[ParseTask]) -> None:
        library.parser.before = None
        await library.submit("kb", {"tea.md": NEW})

    library.parser.before = newer
    await library.bring("kb", {"tea.md": OLD})
    await library.work_off()
    assert (await library.texts("kb"))["tea.md"] == "Tea is at half past five now."
    (row,), _ = await library.knowledge.documents("kb")
    assert row.status == "indexed"
    assert await library.agrees("kb")


# ---------------------------------------------------------------- stopped and taken up again
async def test_a_worker_that_dies_leaves_its_job_to_the_next(any_library: Library) -> None:
    """Protection: fault 81, the part that needs no process: each step of a job may be its last."""
    files = {f"{n}.md": f"# Paper {n}\n\nIt says {n}." for n in range(5)}
    ticket = await any_library.submit("kb", files, claimed=True)
    for step in ("parse", "embed", "put"):
        with pytest.raises(RuntimeError, match="killed"):
            await _killed_at(any_library, step, ticket.job.id)
        await _lease_over(any_library, ticket.job.id)
    assert await any_library.work_off() == 1
    assert set(await any_library.texts("kb")) == set(files)
    assert await any_library.agrees("kb")
    assert (await any_library.jobs.get(ticket.job.id)).state == "done"


async def test_whoever_stops_it_between_store_and_database_waits_for_both(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = await library.submit("kb", {"leave.md": LEAVE}, claimed=True)
    put = library.store.put

    async def stopped(generation: Generation, found: Sequence[IndexedDocument]) -> None:
        await put(generation, found)
        running.cancel()

    monkeypatch.setattr(library.store, "put", stopped)
    running = asyncio.create_task(library.ingest.run(ticket.job))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert list(await library.texts("kb")) == ["leave.md"]
    assert await library.agrees("kb")


async def _killed_at(library: Library, step: str, job_id: str) -> None:
    """Run the job as a process would that ends without a word at this step."""

    async def killed(*_args: object) -> None:
        raise RuntimeError("killed")

    job = await library.jobs.get(job_id)
    with pytest.MonkeyPatch.context() as patch:
        if step == "parse":
            patch.setattr(library.parser, "before", killed)
        elif step == "embed":
            patch.setattr(library.indexes, "embed", killed)
        else:
            patch.setattr(library.store, "put", killed)
        await library.ingest.run(job)


async def _lease_over(library: Library, job_id: str) -> None:
    async with library.db.session() as session:
        past = now() - timedelta(seconds=1)
        await session.execute(update(JobRow).where(JobRow.id == job_id).values(lease_until=past))


async def test_two_workers_share_the_queue(tmp_path: Path, library: Library) -> None:
    async with opened_library(tmp_path / "data") as other:
        for n in range(12):
            await library.submit("kb", {f"{n}.md": f"# Paper {n}\n\nIt says {n}."})
        shares = await asyncio.gather(library.work_off(), other.work_off())
        assert sum(shares) == 12
        assert min(shares) > 0
        assert sorted(library.parser.read + other.parser.read) == sorted(f"{n}.md" for n in range(12))
        assert len(await other.texts("kb")) == 12
        assert await other.agrees("kb")


async def test_a_second_process_reads_while_the_first_ingests(tmp_path: Path, library: Library) -> None:
    await library.bring("kb", {"leave.md": LEAVE})
    answered: list[list[str]] = []

    async with opened_library(tmp_path / "data") as other:

        async def ask(_tasks: Sequence[ParseTask]) -> None:
            answered.append(await other.found("kb", "annual leave"))

        library.parser.before = ask
        await library.bring("kb", {"parking.md": PARKING})
        assert answered == [["leave.md"]]
        assert await other.found("kb", "visitors park in the yard") == ["parking.md", "leave.md"]


async def test_a_cancelled_job_stops_and_can_be_tried_again(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_HEARTBEAT", 0.02)
    await library.bring("kb", {"tea.md": OLD})

    async def cancel(_tasks: Sequence[ParseTask]) -> None:
        await library.jobs.cancel(ticket.job.id)
        await asyncio.sleep(5)

    library.parser.before = cancel
    ticket = await library.submit("kb", {"tea.md": NEW}, claimed=True)
    await asyncio.wait_for(run_job(library.jobs, ticket.job, library.work), 4)
    assert (await library.jobs.get(ticket.job.id)).state == "cancelled"
    (out,) = await library.ingest.outcomes(ticket.job.id)
    assert out.status == "failed"
    assert (await library.texts("kb"))["tea.md"] == "Tea is at four."
    library.parser.before = None
    await library.jobs.retry(ticket.job.id)
    await library.ingest.queue_failed(ticket.job.id)
    assert await library.work_off() == 1
    assert (await library.texts("kb"))["tea.md"] == "Tea is at half past five now."


async def test_a_job_that_gives_up_says_so_at_its_documents(library: Library) -> None:
    ticket = await library.submit("kb", {"tea.md": NEW}, claimed=True)
    await library.ingest.give_up(ticket.job, "The model is gone.")
    (out,) = await library.ingest.outcomes(ticket.job.id)
    assert (out.status, out.reason) == ("failed", "The model is gone.")


# ---------------------------------------------------------------- put right afterwards
async def test_a_deletion_that_was_cut_short_is_finished(any_library: Library) -> None:
    await any_library.bring("kb", {"leave.md": LEAVE, "tea.md": OLD})
    row = await any_library.knowledge.find_document("kb", "tea.md")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(any_library.store, "delete", _refuse)
        with pytest.raises(RuntimeError):
            await any_library.knowledge.delete_document(row.id)
    assert [item.name for item in (await any_library.knowledge.documents("kb"))[0]] == ["leave.md"]
    await any_library.ingest.recover()
    assert set(await any_library.texts("kb")) == {"leave.md"}
    async with any_library.db.read() as session:
        assert list(await session.scalars(select(DocumentRow.name))) == ["leave.md"]


async def _refuse(*_args: object) -> None:
    raise RuntimeError("killed")


async def test_what_no_one_knows_is_taken_out_of_the_index(library: Library) -> None:
    await library.bring("kb", {"leave.md": LEAVE, "tea.md": OLD})
    async with library.db.session() as session:
        await session.execute(DocumentRow.__table__.delete().where(DocumentRow.name == "tea.md"))  # type: ignore[attr-defined]
    await library.ingest.recover()
    assert set(await library.texts("kb")) == {"leave.md"}
    assert await library.agrees("kb")


async def test_what_an_index_has_lost_comes_in_again(any_library: Library) -> None:
    """Also where the whole index file is gone."""
    await any_library.bring("kb", {"leave.md": LEAVE, "tea.md": OLD})
    before = await _count(any_library)
    await any_library.store.drop_generation(await any_library.live("kb"))
    await any_library.ingest.recover()
    assert await any_library.work_off() == 1
    assert await _count(any_library) == before
    assert await any_library.agrees("kb")


async def _count(library: Library) -> StoreCount:
    return await library.store.count(await library.live("kb"))


# ---------------------------------------------------------------- while another process is at it
@pytest.fixture
async def other(any_library: Library) -> AsyncIterator[Library]:
    """Another process on the same data."""
    url = any_library.db.url.render_as_string(hide_password=False)
    async with opened_library(any_library.settings.data_dir, url) as other:
        yield other


def _before_listing(library: Library, patch: pytest.MonkeyPatch, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Let something happen between what a process reads of the database and what it reads of the store."""
    listed = library.store.documents

    async def late(generation: Generation) -> Sequence[tuple[str, str, int]]:
        patch.undo()
        await meanwhile()
        return await listed(generation)

    patch.setattr(library.store, "documents", late)


async def test_what_another_process_brings_in_meanwhile_stays(
    any_library: Library, other: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    await any_library.bring("kb", {"leave.md": LEAVE})
    _before_listing(any_library, monkeypatch, lambda: other.bring("kb", {"parking.md": PARKING}))
    await any_library.ingest.reconcile("kb")
    assert set(await any_library.texts("kb")) == {"leave.md", "parking.md"}
    assert await any_library.agrees("kb")


async def test_what_another_process_deletes_meanwhile_does_not_come_back(
    any_library: Library, other: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    await any_library.bring("kb", {"leave.md": LEAVE, "tea.md": OLD})
    row = await any_library.knowledge.find_document("kb", "tea.md")

    async def half_deleted() -> None:
        """Out of the index, and not yet out of the database."""
        async with other.db.session() as session:
            await session.execute(update(DocumentRow).where(DocumentRow.id == row.id).values(status="deleting"))
        await other.store.delete(await other.live("kb"), [row.id])

    _before_listing(any_library, monkeypatch, half_deleted)
    await any_library.ingest.reconcile("kb")
    await any_library.work_off()
    assert [item.name for item in (await any_library.knowledge.documents("kb"))[0]] == ["leave.md"]
    assert set(await any_library.texts("kb")) == {"leave.md"}


async def test_an_index_that_is_replaced_meanwhile_has_lost_nothing(
    any_library: Library, other: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    await any_library.bring("kb", {"leave.md": LEAVE, "tea.md": OLD})
    await any_library.knowledge.change("kb", chunk_size=64, chunk_overlap=0)
    _before_listing(any_library, monkeypatch, lambda: other.indexes.reindex("kb"))
    await any_library.ingest.reconcile("kb")
    assert await any_library.agrees("kb")
    assert await any_library.jobs.claim() is None


async def test_the_first_index_is_not_made_twice(any_library: Library, other: Library) -> None:
    """Another process makes it live, with a document, while this one is about to make one of its own."""
    await other.bring("kb", {"leave.md": LEAVE})
    first = await other.live("kb")

    def live(generation_id: str | None, live_hash: Any) -> list[Update]:
        """What the other process writes when it switches."""
        return [
            update(KnowledgeBaseRow).values(live_generation_id=generation_id),
            update(DocumentRow).values(live_hash=live_hash),
        ]

    async with other.db.session() as session:
        for step in live(None, None):
            await session.execute(step)
    async with other.db.session() as session:
        await kb_row(session, "kb", lock=True)
        making = asyncio.create_task(any_library.indexes.target("kb"))
        await asyncio.wait({making}, timeout=0.2)  # it has looked, or waits
        for step in live(first.id, DocumentRow.content_hash):
            await session.execute(step)
    assert (await making)[0] == first
    assert await any_library.live("kb") == first
    assert await any_library.agrees("kb")


# ---------------------------------------------------------------- originals
async def test_originals_that_no_one_names_go_after_a_day(library: Library) -> None:
    await library.bring("kb", {"leave.md": LEAVE, "tea.md": OLD})
    kept = await library.knowledge.original((await library.knowledge.find_document("kb", "leave.md")).id)
    gone = await library.knowledge.original((await library.knowledge.find_document("kb", "tea.md")).id)
    await library.knowledge.delete_document((await library.knowledge.find_document("kb", "tea.md")).id)
    await library.ingest.recover()
    assert library.blobs.has(gone.content_hash)
    library.blobs.remove_all_but({kept.content_hash}, older_than=time.time() + 1)
    assert library.blobs.has(kept.content_hash)
    assert not library.blobs.has(gone.content_hash)


async def test_an_index_that_never_rests_is_said(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    await library.knowledge.create("kb")
    ticket = await library.submit("kb", {"tea.md": OLD}, claimed=True)

    async def never(*_args: object) -> bool:
        return False

    monkeypatch.setattr(library.ingest, "_switch", never)
    with pytest.raises(KvasirError, match="changed again and again"):
        await library.ingest.run(ticket.job)
