"""Knowledge bases and their documents: names, sizes, counts, and what deleting takes along."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.db.tables import now
from core.errors import Conflict, NotFound, UserError
from core.kb.knowledge import checked_kb_name
from tests.fakes.library import Library, incoming, opened_library

pytestmark = pytest.mark.anyio

FILES: dict[str, str | bytes] = {
    "a.md": "# A\n\nOf tea.",
    "b/100%.md": "# B\n\nOf bread.",
    "b/c_d.md": "# C\n\nOf cheese.",
    "bad.pdf": b"%PDF-1.7 broken",
}


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with opened_library(tmp_path / "data") as library:
        yield library


@pytest.fixture
async def any_library(tmp_path: Path, database_url: str) -> AsyncIterator[Library]:
    """The same with its database on SQLite and on PostgreSQL."""
    async with opened_library(tmp_path / "data", database_url) as library:
        yield library


# ---------------------------------------------------------------- names
PATHS = [
    "",
    " ",
    "..",
    ".",
    "..\\\\kb",
    "/abs",
    "a/b",
    "a\\b",
    "../a",
    "a..b",
    "a\x00b",
    "a\nb",
    "-",
    "a/",
    "~",
    "a\u202eb",
    "n" * 101,
]


def test_a_name_that_could_be_a_path_is_refused() -> None:
    """Protection: fault 2."""
    for name in PATHS:
        with pytest.raises(UserError):
            checked_kb_name(name)


@given(st.text(max_size=120))
def test_a_name_is_refused_or_harmless(name: str) -> None:
    try:
        kept = checked_kb_name(name)
    except UserError:
        return
    assert 1 <= len(kept) <= 100
    assert not set(kept) & set("/\\\x00\r\n")
    assert ".." not in kept
    assert checked_kb_name(kept) == kept


def test_one_name_has_one_form() -> None:
    assert checked_kb_name(" cafe\u0301 ") == "caf\u00e9"
    assert checked_kb_name("员工手册 2.1") == "员工手册 2.1"


# ---------------------------------------------------------------- knowledge bases
async def test_a_knowledge_base_is_made_once(library: Library) -> None:
    made = await library.knowledge.create("kb", description="About us", private=True, chunk_size=100, chunk_overlap=10)
    assert (made.name, made.description, made.private, made.chunk_size, made.chunk_overlap) == (
        "kb", "About us", True, 100, 10,
    )  # fmt: skip
    assert (made.documents, made.chunks, made.vectors) == (0, 0, False)
    with pytest.raises(Conflict):
        await library.knowledge.create("kb")
    assert [kb.name for kb in await library.knowledge.list()] == ["kb"]


async def test_raced_by_many_it_is_still_one(any_library: Library) -> None:
    made = await asyncio.gather(*(any_library.knowledge.get_or_create("kb") for _ in range(20)))
    assert len({kb.id for kb in made}) == 1


@pytest.mark.parametrize(("size", "overlap"), [(31, 0), (9000, 0), (100, 51), (100, -1)])
async def test_sizes_that_make_no_sense_are_refused(library: Library, size: int, overlap: int) -> None:
    with pytest.raises(UserError):
        await library.knowledge.create("kb", chunk_size=size, chunk_overlap=overlap)
    assert await library.knowledge.list() == []
    await library.knowledge.create("kb")
    with pytest.raises(UserError):
        await library.knowledge.change("kb", chunk_size=size, chunk_overlap=overlap)
    assert (await library.knowledge.get("kb")).chunk_size == library.settings.splitter.chunk_size


async def test_only_settings_can_be_changed(library: Library) -> None:
    await library.knowledge.create("kb")
    assert (await library.knowledge.change("kb", description="New", top_k=3)).top_k == 3
    with pytest.raises(UserError, match="live_generation_id"):
        await library.knowledge.change("kb", live_generation_id="x")


async def test_one_that_is_not_there_is_named_with_those_that_are(library: Library) -> None:
    with pytest.raises(NotFound, match="no knowledge base yet"):
        await library.knowledge.get("kb")
    await library.knowledge.create("tea")
    with pytest.raises(NotFound, match="tea"):
        await library.knowledge.get("kb")
    assert await library.knowledge.live(["tea"]) == []
    with pytest.raises(NotFound):
        await library.knowledge.live(["tea", "kb"])


async def test_deleting_takes_documents_and_index_along(any_library: Library) -> None:
    await any_library.bring("kb", FILES)
    await any_library.bring("other", {"a.md": "# A\n\nOf tea."})
    live = await any_library.live("kb")
    await any_library.knowledge.delete("kb")
    assert [kb.name for kb in await any_library.knowledge.list()] == ["other"]
    assert (await any_library.store.count(live)).documents == 0
    assert await any_library.found("other", "tea") == ["a.md"]
    await any_library.bring("kb", {"a.md": "# A\n\nAgain."})
    assert set(await any_library.texts("kb")) == {"a.md"}


# ---------------------------------------------------------------- documents
async def test_documents_are_paged_and_narrowed_down(any_library: Library) -> None:
    await any_library.bring("kb", FILES)

    async def names(**how: object) -> tuple[list[str], int]:
        rows, total = await any_library.knowledge.documents("kb", **how)  # type: ignore[arg-type]  # passed through
        return [row.name for row in rows], total

    assert await names() == (sorted(FILES), 4)
    assert await names(limit=2, offset=1) == (sorted(FILES)[1:3], 4)
    assert await names(status="failed") == (["bad.pdf"], 1)
    assert await names(text="B/") == (["b/100%.md", "b/c_d.md"], 2)
    assert await names(text="%") == (["b/100%.md"], 1)
    assert await names(text="c_") == (["b/c_d.md"], 1)
    kb = await any_library.knowledge.get("kb")
    assert (kb.documents, kb.chunks, kb.vectors, kb.embedder) == (3, 3, True, "words")


async def test_a_document_shows_its_chunks_and_gives_its_original(library: Library) -> None:
    await library.bring("kb", FILES)
    document = await library.knowledge.find_document("kb", "a.md")
    assert (await library.knowledge.document(document.id)).name == "a.md"
    assert [chunk.text for chunk in await library.knowledge.chunks(document.id)] == ["Of tea."]
    original = await library.knowledge.original(document.id)
    assert original.read_bytes().decode() == FILES["a.md"]
    library.blobs.remove_all_but([], older_than=math.inf)
    with pytest.raises(NotFound, match="original"):
        await library.knowledge.original(document.id)


async def test_a_deleted_document_is_gone_everywhere(library: Library) -> None:
    await library.bring("kb", FILES)
    document = await library.knowledge.find_document("kb", "a.md")
    await library.knowledge.delete_document(document.id)
    with pytest.raises(NotFound):
        await library.knowledge.find_document("kb", "a.md")
    for look in (library.knowledge.document, library.knowledge.chunks, library.knowledge.delete_document):
        with pytest.raises(NotFound):
            await look(document.id)
    assert "a.md" not in await library.texts("kb")
    assert await library.agrees("kb")


# ---------------------------------------------------------------- people of chat platforms
async def test_people_are_let_in_by_name_or_as_members_of_a_workspace(any_library: Library) -> None:
    grants = any_library.grants
    for name in ("hr", "other"):
        await any_library.knowledge.create(name, private=True)
    await grants.allow("hr", "slack:T1:U9")
    await grants.allow("hr", "slack:T1:U9")
    await grants.allow("hr", "discord:G1:*")
    assert await grants.allowed("hr") == ["discord:G1:*", "slack:T1:U9"]
    assert await grants.is_granted("hr", "slack:T1:U9")
    assert await grants.is_granted("hr", "discord:G1:5", member=True)
    assert not await grants.is_granted("hr", "discord:G1:5")  # a guest from elsewhere is none of the workspace
    for person in ("slack:T1:U8", "slack:T2:U9", "discord:G2:5", "discord:G1", "slack:T1:*", "user:1", ""):
        assert not await grants.is_granted("hr", person, member=True), person
    assert not await grants.is_granted("other", "slack:T1:U9", member=True)
    assert not await grants.is_granted("absent", "slack:T1:U9", member=True)
    await grants.disallow("hr", "slack:T1:U9")
    assert not await grants.is_granted("hr", "slack:T1:U9", member=True)
    with pytest.raises(NotFound, match="slack:T1:U9"):
        await grants.disallow("hr", "slack:T1:U9")


async def test_who_was_let_in_goes_with_the_knowledge_base(any_library: Library) -> None:
    for _ in range(2):
        await any_library.knowledge.create("hr", private=True)
        assert await any_library.grants.allowed("hr") == []
        await any_library.grants.allow("hr", "slack:T1:U9")
        await any_library.knowledge.delete("hr")


NOBODY = [
    "",
    "*",
    "*:*:*",
    "slack:*:U9",
    "slack:T1",
    "slack:T1:",
    "slack:T1:U9 x",
    "slack:T1:U*",
    "user:1:2",
    "a:b:c:d",
]


async def test_what_is_nobody_s_key_is_refused(library: Library) -> None:
    await library.knowledge.create("hr", private=True)
    for person in NOBODY:
        with pytest.raises(UserError):
            await library.grants.allow("hr", person)


# ---------------------------------------------------------------- files of one conversation
async def test_what_is_there_for_a_while_is_found_by_its_name_alone(any_library: Library) -> None:
    knowledge, temporary = any_library.knowledge, any_library.temporary
    await knowledge.create("lasting")
    await temporary.ensure("thread-1", now() + timedelta(hours=1))
    await any_library.ingest.submit("thread-1", incoming({"a.md": "# A\n\nOf tea."}))
    await any_library.work_off()
    assert await any_library.found("thread-1", "tea") == ["a.md"]
    assert [kb.name for kb in await knowledge.list()] == [kb.name for kb in await knowledge.names()] == ["lasting"]
    assert [kb.name for kb in await knowledge.list(temporary=True)] == ["lasting", "thread-1"]
    with pytest.raises(NotFound, match="lasting"):
        await knowledge.get("thread-1")
    assert (await knowledge.get("thread-1", temporary=True)).private
    with pytest.raises(Conflict):
        await knowledge.create("thread-1")
    with pytest.raises(Conflict):
        await temporary.ensure("lasting", now())
    assert (await knowledge.get("lasting")).expires_at is None


async def test_what_is_over_goes_with_all_it_held(any_library: Library) -> None:
    knowledge, temporary = any_library.knowledge, any_library.temporary
    await knowledge.create("lasting")
    for name in ("thread-1", "thread-2", "thread-3"):
        await temporary.ensure(name, now() + timedelta(hours=1))
    await any_library.ingest.submit("thread-1", incoming({"a.md": "# A\n\nOf tea."}))
    await any_library.work_off()
    live = await any_library.live("thread-1")
    assert await temporary.delete_expired() == 0
    for name in ("thread-1", "thread-2", "thread-3"):
        await temporary.ensure(name, now() - timedelta(seconds=1))
    assert not await temporary.has("thread-1")
    await temporary.ensure("thread-3", now() + timedelta(hours=1))  # something more was sent there
    assert sorted(await asyncio.gather(temporary.delete_expired(), temporary.delete_expired())) in ([0, 2], [1, 1])
    assert (await any_library.store.count(live)).documents == 0
    assert [kb.name for kb in await knowledge.list(temporary=True)] == ["lasting", "thread-3"]
    assert await temporary.has("thread-3")
