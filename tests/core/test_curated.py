"""Curated answers: given when their question comes, marked when a document changes, and not given when they expired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update

from core.answering.conversation import Conversations
from core.app import Kvasir
from core.db.session import Database
from core.db.tables import CuratedRow, DocumentRow, KnowledgeBaseRow, now
from core.errors import Conflict, NotFound, UserError
from core.indexing.ingest import Incoming
from core.quality import curated
from core.quality.curated import CuratedAnswer, Rewritten, Written
from core.settings import load
from core.types import Compare, Finished, Question, Sources
from core.work.jobs import run_job
from tests.fakes.house import House, furnished

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("parser_here")]

QUESTION, TEXT = "How many days of annual leave do I get?", "**Thirty** days since May. Ask *Ann*."
OTHERS = ("How much paid vacation am I entitled to?",)


# ---------------------------------------------------------------- on a fake search, both databases
@pytest.fixture
async def house(db: Database, tmp_path: Path) -> House:
    return await furnished(db, tmp_path)


async def put(house: House, kb: str = "handbook", **values: Any) -> CuratedRow:
    async with house.db.session() as session:
        base = await session.scalar(KnowledgeBaseRow.__table__.select().where(KnowledgeBaseRow.name == kb))
        row = CuratedRow(**{"kb_id": base, "question": QUESTION, "paraphrases": list(OTHERS), "text": TEXT, **values})
        session.add(row)
    return row


async def test_it_is_given_word_for_word_and_cites_itself_and_what_it_rests_on(house: House) -> None:
    async with house.db.session() as session:
        kb_id = await session.scalar(KnowledgeBaseRow.__table__.select().where(KnowledgeBaseRow.name == "handbook"))
        session.add(DocumentRow(id="d" * 32, kb_id=kb_id, name="leave.md", title="Leave", content_hash="h", meta={}))
    row = await put(house, rests_on=[["d" * 32, "h"], ["e" * 32, "gone"]])
    sources, _, finished = await house.ask("how many days of annual leave do i get")
    assert isinstance(sources, Sources)
    assert isinstance(finished, Finished)
    assert [source.passage.title for source in sources.sources] == ["Curated answer", "Leave"]
    assert (finished.text, finished.answered, finished.engine) == (TEXT, True, "curated")
    assert [source.passage.document for source in finished.sources] == [f"curated/{row.id}.md", "leave.md"]
    assert "written by a person" in finished.notice
    assert house.engine.asked == []
    assert house.search.asked == []
    kept = await house.row()
    assert (kept.curated_id, kept.text, kept.answered, kept.prompt) == (row.id, TEXT, True, [])
    assert all(passage["cited"] for passage in kept.passages)
    async with house.db.read() as session:
        found = await session.get(CuratedRow, row.id)
    assert found is not None
    assert (found.used, found.updated_at) == (1, row.updated_at)


@pytest.mark.parametrize("text", [*OTHERS, "How many annual leave days do I have?", QUESTION.upper()])
async def test_its_paraphrases_and_other_wordings_get_it_too(house: House, text: str) -> None:
    await put(house)
    assert (await house.finished(text)).text == TEXT


@pytest.mark.parametrize("text", ["How many days of sick leave do I get?", "How do I apply for annual leave?"])
async def test_near_misses_do_not(house: House, text: str) -> None:
    await put(house)
    assert (await house.finished(text)).engine == "fake"


async def test_it_belongs_to_its_own_knowledge_base_and_to_whole_bases(house: House) -> None:
    await put(house, "manual")
    assert (await house.finished(QUESTION)).engine == "fake"
    assert (await house.finished(QUESTION, kbs=("handbook", "manual"))).engine == "curated"
    assert (await house.finished(QUESTION, kbs=("manual",), filter=Compare("document", "eq", "a"))).engine == "fake"


async def test_it_is_given_where_the_engine_is_gone(house: House) -> None:
    await put(house)
    assert (await house.finished(QUESTION, engine="gone")).text == TEXT


async def test_a_follow_up_gets_it_by_what_it_means(house: House) -> None:
    await put(house, question="Who approves annual leave?", paraphrases=[])
    conversation = await house.conversations.start("terminal", "ann")
    await house.finished("Who gets annual leave?", conversation_id=conversation.id)
    house.engine.text = "Who approves annual leave?"  # the rewriting
    assert (await house.finished("Who approves it?", conversation_id=conversation.id)).text == TEXT
    assert await Conversations(house.db).exchanges(conversation.id, "ann")


@pytest.mark.parametrize(
    ("values", "is_given"),
    [
        ({"state": "review"}, True),
        ({"state": "off"}, False),
        ({"state": "expired"}, False),
        ({"expires_at": now() - timedelta(minutes=1)}, False),
        ({"expires_at": now() + timedelta(hours=1)}, True),
    ],
)
async def test_only_what_holds_is_given(house: House, values: dict[str, Any], is_given: bool) -> None:
    await put(house, **values)
    finished = await house.finished(QUESTION)
    assert (finished.engine == "curated") is is_given
    assert ("has changed since" in finished.notice) is (values.get("state") == "review")


async def test_two_answers_to_one_question_in_other_words_give_none(house: House) -> None:
    await put(house, question="Where is the printer located?", paraphrases=[])
    await put(house, question="Where can I find the printer?", paraphrases=[])
    assert (await house.finished("Where is the printer?")).engine == "fake"
    assert (await house.finished("Where can I find the printer?")).engine == "curated"


async def test_a_change_is_seen_by_the_next_question_and_a_base_without_any_is_not_asked_twice(house: House) -> None:
    statements: list[str] = []

    @event.listens_for(house.db.engine.sync_engine, "before_cursor_execute")
    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    row = await put(house)
    await house.finished(QUESTION)
    statements.clear()
    await house.finished("Where is the yard?")
    await house.finished(QUESTION)
    assert not [statement for statement in statements if "curated_answers.text" in statement]
    async with house.db.session() as session:
        await session.execute(update(CuratedRow).values(text="Now 31."))
    assert (await house.finished(QUESTION)).text == "Now 31."
    async with house.db.session() as session:
        await session.delete(await session.merge(row))
    assert (await house.finished(QUESTION)).engine == "fake"


# ---------------------------------------------------------------- with documents
@pytest.fixture
async def any_kvasir(database_url: str, tmp_path: Path) -> AsyncIterator[Kvasir]:
    """The same on SQLite and on PostgreSQL."""
    settings = load(data_dir=tmp_path, embedder={"kind": "none"}, database={"url": database_url})
    async with Kvasir.open(settings) as opened:
        await opened.knowledge.create("handbook")
        yield opened


@pytest.fixture
async def kvasir(tmp_path: Path) -> AsyncIterator[Kvasir]:
    async with Kvasir.open(load(data_dir=tmp_path, embedder={"kind": "none"})) as opened:
        await opened.knowledge.create("handbook")
        yield opened


async def bring(kvasir: Kvasir, name: str, text: str, kb: str = "handbook") -> str:
    async def files() -> AsyncIterator[Incoming]:
        yield Incoming(name, text.encode)

    ticket = await kvasir.ingest.submit(kb, files(), claimed=True)
    await run_job(kvasir.jobs, ticket.job, kvasir.run_job)
    return (await kvasir.knowledge.find_document(kb, name)).id


async def asked(kvasir: Kvasir, text: str = QUESTION) -> Finished:
    *_, last = [event async for event in kvasir.answers.answer(Question(text, ("handbook",), "ann"))]
    assert isinstance(last, Finished)
    return last


async def add(kvasir: Kvasir, *documents: str, **values: object) -> CuratedAnswer:
    given = Written(**{"question": QUESTION, "text": TEXT, "rests_on": documents, **values})  # type: ignore[arg-type]  # fields of it
    return await kvasir.curated.add("handbook", given, "rita")


async def test_it_is_a_document_of_its_base_as_long_as_it_is_on(kvasir: Kvasir) -> None:
    made = await add(kvasir, paraphrases=("May I go on holiday?", QUESTION.lower(), " "))
    assert made.paraphrases == ("May I go on holiday?",)
    names = [item.name for item in (await kvasir.knowledge.documents("handbook"))[0]]
    assert names == [f"curated/{made.id}.md"]
    (found,) = (await kvasir.retriever.retrieve("Thirty days since May", ["handbook"], limit=3)).passages
    assert "Thirty" in found.text
    off = await kvasir.curated.change(made.id, Rewritten(is_on=False), "rita")
    assert (off.state, off.document_id, (await kvasir.knowledge.documents("handbook"))[1]) == ("off", None, 0)
    assert (await asked(kvasir)).engine != "curated"
    await kvasir.curated.change(made.id, Rewritten(is_on=True, text="31 days."), "rita")
    assert (await asked(kvasir)).text == "31 days."
    await kvasir.curated.delete(made.id)
    assert (await kvasir.knowledge.documents("handbook"))[1] == 0
    with pytest.raises(NotFound):
        await kvasir.curated.get(made.id)


async def test_what_cannot_be_written_is_replaced(kvasir: Kvasir) -> None:
    made = await add(kvasir, question="What is \udcff?", text="It \x00is \ud800.")
    assert (made.question, made.text) == ("What is ??", "It is ?.")


async def test_a_changed_document_marks_it_until_somebody_looks(any_kvasir: Kvasir) -> None:
    kvasir = any_kvasir
    leave = await bring(kvasir, "leave.md", "# Leave\n\nAnnual leave is 28 days.")
    other = await bring(kvasir, "parking.md", "# Parking\n\nPark in the yard.")
    made = await add(kvasir, leave, other)
    await bring(kvasir, "unrelated.md", "# Canteen\n\nFish.")
    assert (await kvasir.curated.get(made.id)).state == "active"
    await bring(kvasir, "leave.md", "# Leave\n\nAnnual leave is 31 days.")
    marked = await kvasir.curated.get(made.id)
    assert (marked.state, marked.reason) == ("review", "«leave.md» has changed since it was written.")
    assert [(one.name, one.state) for one in marked.rests_on] == [("leave.md", "changed"), ("parking.md", "same")]
    answer = await asked(kvasir)
    assert (answer.text, "has changed since" in answer.notice) == (TEXT, True)
    await kvasir.knowledge.delete_document(other)
    marked = await kvasir.curated.get(made.id)
    assert marked.reason.splitlines()[-1] == "«parking.md» was deleted."
    looked = await kvasir.curated.change(made.id, Rewritten(text="31 days."), "rita")
    assert (looked.state, looked.reason, len(looked.rests_on)) == ("active", "", 1)
    assert "has changed" not in (await asked(kvasir)).notice


async def test_the_check_ends_what_expired_and_finds_what_was_overlooked(kvasir: Kvasir) -> None:
    leave = await bring(kvasir, "leave.md", "# Leave\n\nAnnual leave is 28 days.")
    one = await add(kvasir, leave)
    two = await add(kvasir, question="Where do I park?", expires_at=now() + timedelta(hours=1))
    job = await kvasir.jobs.add("curated", {"target": "", "settings": {}, "run": ""}, claimed=True)
    assert await curated.run(kvasir, job) == "Curated answers: 0 expired, 0 marked for review."
    async with kvasir.db.session() as session:
        await session.execute(update(DocumentRow).where(DocumentRow.id == leave).values(live_hash="f" * 64))
        await session.execute(
            update(CuratedRow).where(CuratedRow.id == two.id).values(expires_at=now() - timedelta(minutes=1))
        )
    later = await asked(kvasir, "Where do I park?")
    assert (later.engine, "Thirty" in later.text) != ("curated", True)
    assert not any("Thirty" in source.passage.text for source in later.sources)
    await run_job(kvasir.jobs, job, kvasir.run_job)
    assert [(await kvasir.curated.get(found.id)).state for found in (one, two)] == ["review", "expired"]
    assert (await kvasir.curated.get(two.id)).document_id is None
    assert await kvasir.curated.check() == (0, 0)
    again = await kvasir.curated.change(two.id, Rewritten(is_on=True), "rita")
    assert (again.state, again.expires_at) == ("active", None)


async def test_the_check_writes_the_document_of_one_that_was_half_done(kvasir: Kvasir) -> None:
    made = await add(kvasir)
    async with kvasir.db.session() as session:
        await session.execute(update(CuratedRow).values(document_id=None, updated_at=now() - timedelta(hours=1)))
    assert (await asked(kvasir)).engine == "curated"
    assert await kvasir.curated.check() == (0, 0)
    assert (await kvasir.curated.get(made.id)).document_id == made.document_id
    assert (await kvasir.knowledge.documents("handbook"))[1] == 1


async def test_one_whose_document_was_deleted_is_off(kvasir: Kvasir) -> None:
    made = await add(kvasir)
    assert made.document_id
    await kvasir.knowledge.delete_document(made.document_id)
    found = await kvasir.curated.get(made.id)
    assert (found.state, found.document_id) == ("off", None)
    assert "library" in found.reason


@pytest.mark.parametrize(
    "values",
    [
        {"question": " ?"},
        {"text": " \u200b"},
        {"text": "x" * 20_001},
        {"question": "x" * 1001},
        {"paraphrases": tuple(f"way {n}" for n in range(51))},
        {"expires_at": now() - timedelta(days=1)},
    ],
)
async def test_what_cannot_be_kept_is_refused(kvasir: Kvasir, values: dict[str, object]) -> None:
    with pytest.raises(UserError):
        await add(kvasir, **values)
    assert await kvasir.curated.list(["handbook"]) == ([], 0)


async def test_a_question_has_one_answer(kvasir: Kvasir) -> None:
    await add(kvasir)
    with pytest.raises(Conflict, match="annual leave"):
        await add(kvasir, question="Something else?", paraphrases=(QUESTION.upper(),))
    first = await curated.keep(kvasir, "handbook", QUESTION, "Said in the thread.", "Bob")
    assert (await asked(kvasir)).text == "Said in the thread."
    assert (await kvasir.curated.list(["handbook"]))[1] == 1
    assert await curated.keep(kvasir, "handbook", "A new one?", "Yes.", "Bob") != first


async def test_only_documents_of_its_own_base_are_rested_on(kvasir: Kvasir) -> None:
    await kvasir.knowledge.create("secret", private=True)
    secret = await bring(kvasir, "plan.md", "# Plan\n\nA merger.", "secret")
    made = await add(kvasir, secret)
    assert made.rests_on == ()
    more = await add(kvasir, made.document_id or "", question="Who is Ann?")
    assert more.rests_on == ()


async def test_lists_are_narrowed_down(any_kvasir: Kvasir) -> None:
    kvasir = any_kvasir
    await kvasir.knowledge.create("other")
    await add(kvasir, paraphrases=("年假有多少天？",))
    two = await add(kvasir, question="Where do I park?")
    await kvasir.curated.change(two.id, Rewritten(is_on=False), "rita")
    assert [item.id for item in (await kvasir.curated.list(["handbook"], state="off"))[0]] == [two.id]
    assert (await kvasir.curated.list(["handbook"], text="PARK"))[1] == 1
    assert (await kvasir.curated.list(["other"]))[1] == 0
    assert (await kvasir.curated.list(["handbook"], limit=1, offset=1))[1] == 2
