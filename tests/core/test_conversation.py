"""Conversations are their owner's alone, and keep what was said."""

from __future__ import annotations

import pytest

from core.answering.conversation import Conversations, note_question, passage_json, source_from, title_from
from core.db.session import Database
from core.db.tables import AnswerRow, RatingRow
from core.errors import NotFound, UserError
from core.types import Locator, Passage, Place

pytestmark = pytest.mark.anyio

ANN, BOB = "user:ann", "user:bob"
PASSAGE = Passage(
    "kb", "d1", "leave.md", "Leave", 3, "28 days", ("A", "B"), Locator("page", "", 2, 3), 0.9, 0.8, 4.0, 0.7
)


async def answered(db: Database, conversation: str | None, question: str, person: str = ANN, **values: object) -> str:
    passages = [passage_json(PASSAGE, 1, cited=True), passage_json(PASSAGE, 2, cited=False)]
    row = AnswerRow(
        **{
            "conversation_id": conversation,
            "person": person,
            "platform": "web",
            "kbs": ["kb"],
            "question": question,
            "standalone_question": question,
            "text": "28 days [1].",
            "answered": True,
            "engine": "fake",
            "passages": passages,
            **values,
        }
    )
    async with db.session() as session:
        session.add(row)
    if conversation:
        await db.run(note_question(conversation, question))
    return row.id


@pytest.fixture
def conversations(db: Database) -> Conversations:
    return Conversations(db)


async def test_equal_places_share_one_conversation(conversations: Conversations) -> None:
    place = Place("slack", "T1", "C1", "171.5")
    first = await conversations.open(place, ANN)
    again = await conversations.open(place, BOB)
    assert first.id == again.id
    assert first.place == place
    others = [Place("slack", "T1", "C1", ""), Place("slack", "T2", "C1", "171.5"), Place("web", "T1", "C1", "171.5")]
    ids = {(await conversations.open(other, ANN)).id for other in others}
    assert len(ids) == 3
    assert first.id not in ids


async def test_named_conversations_are_each_their_own(db: Database, conversations: Conversations) -> None:
    one = await conversations.start("web", ANN, kb="handbook")
    two = await conversations.start("web", ANN)
    assert one.id != two.id
    assert one.kb == "handbook"
    assert await conversations.list(ANN) == []  # nothing was asked yet
    await answered(db, two.id, "How long is annual leave?")
    await answered(db, one.id, "And in Berlin?")
    assert [found.title for found in await conversations.list(ANN)] == ["And in Berlin?", "How long is annual leave?"]


async def test_another_s_conversation_is_not_found(db: Database, conversations: Conversations) -> None:
    mine = await conversations.start("web", ANN)
    answer = await answered(db, mine.id, "How long?")
    assert await conversations.list(BOB) == []
    with pytest.raises(NotFound):
        await conversations.get(mine.id, BOB)
    with pytest.raises(NotFound):
        await conversations.exchanges(mine.id, BOB)
    with pytest.raises(NotFound):
        await conversations.markdown(mine.id, BOB)
    with pytest.raises(NotFound):
        await conversations.rename(mine.id, BOB, "mine now")
    with pytest.raises(NotFound):
        await conversations.choose_kb(mine.id, BOB, "kb")
    with pytest.raises(NotFound):
        await conversations.delete(mine.id, BOB)
    with pytest.raises(NotFound):
        await conversations.swap_state(answer, BOB, "replaced")
    assert (await conversations.get(mine.id, ANN)).title == "How long?"


async def test_renaming_choosing_and_deleting(db: Database, conversations: Conversations) -> None:
    mine = await conversations.start("web", ANN)
    answer = await answered(db, mine.id, "How long?")
    async with db.session() as session:
        session.add(RatingRow(answer_id=answer, person=BOB, value=1))
    assert (await conversations.rename(mine.id, ANN, "  Leave\n questions ")).title == "Leave questions"
    assert (await conversations.choose_kb(mine.id, ANN, "handbook")).kb == "handbook"
    assert (await conversations.choose_kb(mine.id, ANN, None)).kb is None
    for bad in ("", "  ", "x" * 201):
        with pytest.raises(UserError):
            await conversations.rename(mine.id, ANN, bad)
    await conversations.delete(mine.id, ANN)
    with pytest.raises(NotFound):
        await conversations.get(mine.id, ANN)
    async with db.read() as session:
        assert await session.get(AnswerRow, answer) is None


async def test_history_holds_what_counts_in_order(db: Database, conversations: Conversations) -> None:
    mine = await conversations.start("web", ANN)
    for number in range(5):
        await answered(db, mine.id, f"question {number}")
    await answered(db, mine.id, "failed", state="failed")
    await answered(db, mine.id, "replaced", state="replaced")
    await answered(db, mine.id, "stopped", state="stopped")
    turns = await conversations.turns(mine.id, 3)
    assert [turn.question for turn in turns] == ["question 3", "question 4", "stopped"]
    assert turns[0].sources == ("leave.md",)


async def test_exchanges_show_sources_and_the_reader_s_own_rating(db: Database, conversations: Conversations) -> None:
    mine = await conversations.start("web", ANN)
    first = await answered(db, mine.id, "one")
    await answered(db, mine.id, "gone", state="replaced")
    await answered(db, mine.id, "two", state="failed", error="It broke.", text="", passages=[])
    async with db.session() as session:
        session.add(RatingRow(answer_id=first, person=BOB, value=-1, reason="not mine"))
    one, two = await conversations.exchanges(mine.id, ANN)
    assert one.rating is None
    assert [(source.n, source.passage) for source in one.sources] == [(1, PASSAGE)]
    assert (two.state, two.error, two.sources) == ("failed", "It broke.", ())
    async with db.session() as session:
        session.add(RatingRow(answer_id=first, person=ANN, value=-1, reason="too short"))
    rating = (await conversations.exchanges(mine.id, ANN))[0].rating
    assert rating is not None
    assert (rating.value, rating.reason) == (-1, "too short")


async def test_a_replaced_answer_can_come_back(db: Database, conversations: Conversations) -> None:
    mine = await conversations.start("web", ANN)
    answer = await answered(db, mine.id, "How long?", state="stopped")
    assert await conversations.swap_state(answer, ANN, "replaced") == ("How long?", "stopped")
    assert await conversations.turns(mine.id, 5) == []
    assert await conversations.swap_state(answer, ANN, "stopped") == ("How long?", "replaced")
    with pytest.raises(NotFound):
        await conversations.swap_state("0" * 32, ANN, "replaced")


async def test_export_to_markdown(db: Database, conversations: Conversations) -> None:
    mine = await conversations.start("web", ANN)
    await answered(db, mine.id, "How *long*\n# is leave?", notice="Quoted.")
    await answered(db, mine.id, "And?", state="failed", error="It broke.", text="", passages=[])
    text = await conversations.markdown(mine.id, ANN)
    assert text.startswith(
        "# How \\*long\\* \\# is leave?\n\n## How \\*long\\* \\# is leave?\n\n28 days [1].\n\n*Quoted.*"
    )
    assert "**Sources**\n\n- [1] Leave — leave.md — pages 2–3, A › B\n" in text
    assert "*It broke.*" in text
    assert "**来源**" in await conversations.markdown(mine.id, ANN, "zh")


async def test_titles_are_short_and_of_one_line() -> None:
    assert title_from("How long?") == "How long?"
    assert title_from("a\u202e\x00b\n c") == "a b c"
    long = title_from("How many days of annual leave does a part-time employee in Halifax have when she starts in May?")
    assert long == "How many days of annual leave does a part-time employee in…"
    assert len(title_from("年" * 300)) == 60
    assert title_from("\x00") == "…"


async def test_a_kept_passage_is_the_passage() -> None:
    assert source_from(passage_json(PASSAGE, 4, cited=True)).passage == PASSAGE
