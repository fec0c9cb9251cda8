"""An index beside the live one: it is compared, switched to, gone back from and given up, and nothing is ever lost."""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from core.db.tables import EvaluationRunRow, EvaluationSetRow, GenerationRow, now
from core.errors import Conflict, EmbedderUnavailable, NotFound
from core.indexing import generations as generations_module
from core.indexing import indexes as indexes_module
from core.indexing.generations import Generations, Index
from core.kb.knowledge import kb_row
from core.ports import ParseTask
from tests.fakes.embedder import HashEmbedder
from tests.fakes.library import Library, opened_library

pytestmark = pytest.mark.anyio

LONG = "\n\n".join(f"Paragraph {n} is about the tide table, and takes some words to say so." for n in range(6))
FILES = {f"{n}.md": f"# Paper {n}\n\nIt says {n}.\n\n{LONG}" for n in range(5)}


@pytest.fixture
async def library(tmp_path: Path, database_url: str) -> AsyncIterator[Library]:
    async with opened_library(tmp_path / "data", database_url) as library:
        await library.bring("kb", FILES)
        await library.knowledge.change("kb", chunk_size=64, chunk_overlap=0)
        yield library


@pytest.fixture
def generations(library: Library) -> Generations:
    return Generations(library.db, library.store, library.indexes)


async def states(generations: Generations) -> list[str]:
    return [index.state for index in await generations.list("kb")]


async def one(generations: Generations, state: str) -> Index:
    (found,) = [index for index in await generations.list("kb") if index.state == state]
    return found


async def test_it_waits_beside_the_live_one_and_is_compared(library: Library, generations: Generations) -> None:
    live, before = await library.live("kb"), await library.knowledge.get("kb")
    told: list[tuple[int, int]] = []
    built = await generations.build("kb", lambda done, total: told.append((done, total)))
    assert told == [(0, 5)]
    assert (await library.live("kb")).id == live.id
    assert (await library.knowledge.get("kb")).chunks == before.chunks
    ready = await one(generations, "ready")
    assert (ready.id, ready.chunk_size, ready.embedder) == (built, 64, "words")
    assert ready.counted is not None
    assert ready.live_then is not None
    assert (ready.counted.documents, ready.live_then.documents, ready.live_then.chunks) == (5, 5, before.chunks)
    assert ready.counted.chunks == ready.chunks > before.chunks
    assert ready.counted.words > 0
    assert (ready.failed, ready.behind) == ([], 0)
    assert await generations.is_level("kb", built)
    await generations.switch("kb", built)
    assert (await library.live("kb")).id == built
    assert await library.agrees("kb")
    former = await one(generations, "former")
    assert former.id == live.id
    assert former.kept_until is not None
    assert former.kept_until > now() + timedelta(days=6)


async def test_the_newest_figures_of_each_evaluation_set_stand_beside_it(
    library: Library, generations: Generations
) -> None:
    live, built = (await library.live("kb")).id, await generations.build("kb")
    async with library.db.session() as session:
        base = await kb_row(session, "kb")
        session.add(EvaluationSetRow(id="1" * 32, kb_id=base.id, name="tides"))
        await session.flush()
        for minutes, index, figures in ((3, live, {"n": 1}), (2, live, {"n": 2}), (1, built, {"n": 3}), (0, built, {})):
            at = now() - timedelta(minutes=minutes)
            session.add(EvaluationRunRow(set_id="1" * 32, generation_id=index, results=figures, created_at=at))
    found = {index.id: [(one.name, one.figures) for one in index.measured] for index in await generations.list("kb")}
    assert found == {live: [("tides", {"n": 2})], built: [("tides", {"n": 3})]}


async def test_what_comes_and_goes_meanwhile_is_neither_lost_nor_kept(
    library: Library, generations: Generations
) -> None:
    first = await library.live("kb")
    built = await generations.build("kb")
    await library.bring("kb", {"new.md": "# New\n\nIt came late.", "0.md": "# Paper 0\n\nIt says more."})
    await library.knowledge.delete_document((await library.knowledge.find_document("kb", "4.md")).id)
    assert (await one(generations, "ready")).behind == 2
    assert not await generations.is_level("kb", built)
    await generations.switch("kb", built)
    texts = await library.texts("kb")
    assert set(texts) == {"new.md", "0.md", "1.md", "2.md", "3.md"}
    assert texts["0.md"] == "It says more."
    await library.bring("kb", {"later.md": "# Later\n\nIt came after the switch."})
    await library.knowledge.delete_document((await library.knowledge.find_document("kb", "new.md")).id)
    assert (await one(generations, "former")).behind == 1
    await generations.switch("kb", await generations.former("kb"))
    assert (await library.live("kb")).id == first.id
    texts = await library.texts("kb")
    assert set(texts) == {"later.md", "0.md", "1.md", "2.md", "3.md"}
    assert texts["0.md"] == "It says more."
    assert await library.agrees("kb")
    assert await states(generations) == ["live", "former"]


async def test_what_is_brought_in_in_the_middle_of_a_switch_is_there(
    library: Library, generations: Generations, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = await generations.build("kb")
    bring_level = library.indexes.bring_level
    times: list[int] = []

    async def late(*args: object, **how: object) -> object:
        found = await bring_level(*args, **how)  # type: ignore[arg-type]  # as it was called
        times.append(1)
        if len(times) == 1:
            await library.bring("kb", {"late.md": "# Late\n\nIt came at the last moment."})
        return found

    monkeypatch.setattr(library.indexes, "bring_level", late)
    await generations.switch("kb", built)
    assert len(times) == 2
    assert "late.md" in await library.texts("kb")
    assert await library.agrees("kb")


async def test_one_waits_and_one_is_kept(library: Library, generations: Generations) -> None:
    first = await library.live("kb")
    second = await generations.build("kb")
    assert await generations.build("kb") == second  # nothing else was set meanwhile
    await library.knowledge.change("kb", chunk_size=80)
    third = await generations.build("kb")
    assert third != second
    assert await states(generations) == ["live", "ready"]
    await generations.switch("kb", third)
    await library.knowledge.change("kb", chunk_size=96)
    fourth = await generations.build("kb")
    await generations.switch("kb", fourth)
    assert [index.id for index in await generations.list("kb")] == [fourth, third]
    assert (await library.store.count(first)).documents == 0
    await library.indexes.reindex("kb")
    assert await states(generations) == ["live"]


async def test_it_can_be_given_up_but_not_the_live_one(library: Library, generations: Generations) -> None:
    built = await generations.build("kb")
    generation = await generations.find("kb", built)
    live = await library.live("kb")
    with pytest.raises(Conflict):
        await generations.discard("kb", live.id)
    await generations.discard("kb", built)
    assert (await library.store.count(generation)).documents == 0
    for gone in (built, "0" * 32):
        for act in (generations.discard, generations.switch, generations.find):
            with pytest.raises(NotFound):
                await act("kb", gone)
    with pytest.raises(Conflict):
        await generations.switch("kb", live.id)
    await library.knowledge.create("other")
    with pytest.raises(NotFound):
        await generations.switch("other", live.id)
    for absent in (generations.former, generations.waiting):
        with pytest.raises(NotFound):
            await absent("kb")


async def test_one_given_up_while_it_is_built_does_not_come_back(library: Library, generations: Generations) -> None:
    async def give_up(_tasks: Sequence[ParseTask]) -> None:
        await generations.discard("kb", (await one(generations, "building")).id)

    library.parser.before = give_up
    held = await library.texts("kb")
    with pytest.raises(Exception, match=r"gone|no such index"):
        await generations.build("kb")
    assert await states(generations) == ["live"]
    assert await library.texts("kb") == held


@pytest.mark.usefixtures("small_groups")
async def test_it_goes_on_where_it_was_stopped(library: Library, generations: Generations) -> None:
    library.parser.read.clear()

    async def killed(_tasks: Sequence[ParseTask]) -> None:
        if len(library.parser.read) == 4:
            raise KeyboardInterrupt

    library.parser.before = killed
    with pytest.raises(KeyboardInterrupt):
        await generations.build("kb")
    assert await states(generations) == ["live", "building"]
    library.parser.before = None
    await generations.build("kb")
    assert sorted(library.parser.read) == sorted(FILES)
    assert await states(generations) == ["live", "ready"]


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes_module, "_GROUP", 2)


async def test_what_cannot_be_read_any_more_is_told_and_lost_only_when_said_so(
    library: Library, generations: Generations
) -> None:
    gone = hashlib.sha256(FILES["2.md"].encode()).hexdigest()
    kept = {hashlib.sha256(text.encode()).hexdigest() for text in FILES.values()} - {gone}
    library.blobs.remove_all_but(kept, older_than=math.inf)
    built = await generations.build("kb")
    ready = await one(generations, "ready")
    assert [name for name, _ in ready.failed] == ["2.md"]
    assert (ready.documents, ready.behind) == (4, 1)
    with pytest.raises(Conflict, match=r"2\.md"):
        await generations.switch("kb", built)
    assert len(await library.texts("kb")) == 5
    await generations.switch("kb", built, give_up=True)
    assert set(await library.texts("kb")) == set(FILES) - {"2.md"}
    lost = await library.knowledge.find_document("kb", "2.md")
    assert (lost.status, lost.chunks) == ("failed", 0)
    assert lost.reason
    await library.ingest.reconcile("kb")
    assert await library.agrees("kb")
    await generations.switch("kb", await generations.former("kb"))
    assert set(await library.texts("kb")) == set(FILES)
    back = await library.knowledge.find_document("kb", "2.md")
    assert (back.status, back.reason) == ("indexed", None)
    assert back.chunks > 0
    assert await library.agrees("kb")


async def test_a_former_one_of_another_embedder_that_is_away_is_not_filled_with_nonsense(
    library: Library, generations: Generations
) -> None:
    library.embedder = HashEmbedder(dimension=32, name="small")
    await generations.switch("kb", await generations.build("kb"))
    former = await generations.former("kb")
    await library.bring("kb", {"new.md": "# New\n\nIt came late."})
    with pytest.raises(EmbedderUnavailable):
        await generations.switch("kb", former)
    assert (await library.live("kb")).dimension == 32
    library.embedder = HashEmbedder()
    await generations.switch("kb", former)
    assert "new.md" in await library.texts("kb")
    assert (await library.live("kb")).dimension != 32


async def test_a_former_one_is_kept_for_some_days(library: Library, generations: Generations) -> None:
    first = await library.live("kb")
    await generations.switch("kb", await generations.build("kb"))
    assert await generations.drop_old() == 0
    async with library.db.session() as session:
        await session.execute(
            update(GenerationRow)
            .where(GenerationRow.state == "former")
            .values(switched_at=now() - generations_module.KEPT - timedelta(minutes=1))
        )
    assert await generations.drop_old() == 1
    assert await states(generations) == ["live"]
    assert (await library.store.count(first)).documents == 0


async def test_a_deletion_that_was_killed_is_finished_in_every_index(
    library: Library, generations: Generations, monkeypatch: pytest.MonkeyPatch
) -> None:
    await generations.switch("kb", await generations.build("kb"))
    document = await library.knowledge.find_document("kb", "3.md")

    async def killed(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(library.store, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            await library.knowledge.delete_document(document.id)
    await library.ingest.reconcile("kb")
    async with library.db.read() as session:
        rows = list(await session.scalars(select(GenerationRow.id)))
    assert len(rows) == 2
    for row in rows:
        held = await library.store.documents(await generations.find("kb", row))
        assert document.id not in {key for key, _, _ in held}
