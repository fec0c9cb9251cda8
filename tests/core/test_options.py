"""What was chosen with a question, for its channel, for its knowledge bases and in the settings; and trials of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from core.answering.retrieve import Retrieved
from core.db.session import Database
from core.db.tables import AnswerRow, CuratedRow, KnowledgeBaseRow, now
from core.errors import EngineUnavailable
from core.settings import load
from core.types import AnswerOptions, Considered, Delta, Ended, Finished, Passage, Question, Sources
from tests.fakes.engine import FakeEngine
from tests.fakes.house import LEAVE, PARKING, House, furnished

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(db: Database, tmp_path: Path) -> House:
    """On SQLite and on PostgreSQL."""
    return await furnished(db, tmp_path)


async def put(house: House, kb: str = "handbook", **values: Any) -> None:
    async with house.db.session() as session:
        await session.execute(update(KnowledgeBaseRow).where(KnowledgeBaseRow.name == kb).values(**values))


async def system(house: House) -> str:
    return house.engine.asked[-1][0].turns[0].text


async def test_without_anything_the_settings_hold(house: House) -> None:
    assert (await house.finished()).answered
    assert house.search.asked[-1][2] == 5
    assert house.search.how["mode"] == "hybrid"
    assert (house.search.how["dense_weight"], house.search.how["reranker"]) == (None, "")


async def test_a_knowledge_base_goes_before_the_settings(house: House) -> None:
    await put(
        house, top_k=3, mode="keyword", dense_weight=0.7, reranker="sentences", min_evidence=0.95, instructions="Rhyme."
    )
    assert not (await house.finished()).answered, "the evidence is 0.9"
    assert house.search.asked[-1][2] == 3
    assert house.search.how["mode"] == "keyword"
    assert (house.search.how["dense_weight"], house.search.how["reranker"]) == (0.7, "sentences")
    await put(house, min_evidence=0.9, engine="gone")
    assert (await house.finished(engine="fake")).answered
    assert await system(house) == "Rhyme."


async def test_its_answer_preset_goes_to_the_engine_with_what_a_program_asks_for(house: House) -> None:
    await put(house, sampling=["temperature=0.2", "top_p=0.9!", "stop+=END"])
    await house.finished()
    drawn = house.engine.asked[-1][1]
    assert (drawn.temperature, drawn.top_p, drawn.stop) == (0.2, 0.9, ("END",))
    await house.finished(options=AnswerOptions(samplers={"temperature": 1.0, "top_p": 0.1, "max_tokens": 50}))
    drawn = house.engine.asked[-1][1]
    assert (drawn.temperature, drawn.top_p, drawn.max_tokens) == (1.0, 0.9, 50)


async def test_its_engine_is_asked(house: House) -> None:
    await put(house, engine="gone")
    with pytest.raises(Exception, match="gone"):
        await house.finished()


async def test_the_channel_goes_before_the_knowledge_base(house: House) -> None:
    await put(house, engine="gone", instructions="Rhyme.")
    await house.finished(engine="fake", instructions="Whisper.")
    assert await system(house) == "Whisper."
    await house.finished(engine="fake", instructions=" \n")
    assert await system(house) == "Rhyme."


async def test_what_comes_with_the_question_goes_before_all(house: House) -> None:
    await put(house, top_k=3, mode="keyword", dense_weight=0.7, reranker="sentences", min_evidence=0.95, engine="gone")
    options = AnswerOptions(
        top_k=2, mode="vector", dense_weight=0.0, reranker="", min_evidence=0.0, engine="fake", instructions="Sing."
    )
    assert (await house.finished(engine="gone", instructions="Whisper.", options=options)).answered
    assert house.search.asked[-1][2] == 2
    assert house.search.how["mode"] == "vector"
    assert (house.search.how["dense_weight"], house.search.how["reranker"]) == (0.0, "")
    assert await system(house) == "Sing."


async def test_zero_is_a_value(house: House) -> None:
    house.search.found = Retrieved((PARKING,), 0.0, {}, True)
    await put(house, min_evidence=0.0, dense_weight=0.0)
    assert (await house.finished()).answered
    assert house.search.how["dense_weight"] == 0.0


async def test_several_take_the_most_passages_and_the_strictest_threshold(house: House) -> None:
    await put(house, min_evidence=0.1)
    assert (await house.finished(kbs=("handbook",))).answered
    house.search.found = Retrieved((LEAVE,), 0.3, {}, True)
    assert (await house.finished(kbs=("handbook",))).answered
    assert not (await house.finished(kbs=("handbook", "manual"))).answered, "the other one has that of the settings"
    assert house.search.asked[-1][2] == 9


async def test_several_agree_or_the_settings_hold(house: House) -> None:
    both: dict[str, Any] = {"kbs": ("handbook", "manual")}
    await put(house, mode="keyword", instructions="Rhyme.")
    await house.finished(**both)
    assert house.search.how["mode"] == "keyword", "the other one says nothing"
    await put(house, "manual", mode="vector", instructions="Rhyme.")
    await house.finished(**both)
    assert house.search.how["mode"] == "hybrid"
    assert await system(house) == "Rhyme."


async def test_files_of_a_conversation_have_no_say(house: House) -> None:
    await put(house, min_evidence=0.0, top_k=2)
    await put(house, "manual", expires_at=now() + timedelta(hours=1), mode="keyword")
    house.search.found = Retrieved((LEAVE,), 0.1, {}, True)
    assert (await house.finished(kbs=("handbook", "manual"))).answered
    assert (house.search.asked[-1][2], house.search.how["mode"]) == (2, "hybrid")
    await house.finished(kbs=("manual",))
    assert house.search.how["mode"] == "keyword"


# ---------------------------------------------------------------- trials
def passages(count: int) -> tuple[Passage, ...]:
    return tuple(
        Passage("handbook", f"d{n}", f"{n}.md", "", 0, f"Text {n}.", (), LEAVE.locator, 1 - n / 100)
        for n in range(count)
    )


async def rows(house: House) -> int:
    await house.answers.close()
    async with house.db.read() as session:
        return await session.scalar(select(func.count()).select_from(AnswerRow)) or 0


async def test_a_trial_tells_what_the_engine_reads_and_leaves_nothing(house: House) -> None:
    house.search.found = Retrieved(passages(20), 0.8, {"leave": 2.0}, True, dense_weight=0.4)
    conversation = await house.conversations.start("terminal", "ann")
    considered, sources, *deltas, finished = await house.ask(
        trial=True, conversation_id=conversation.id, options=AnswerOptions(top_k=3, min_evidence=0.6)
    )
    assert isinstance(considered, Considered)
    assert house.search.asked[-1][2] == 20
    assert len(considered.passages) == 20
    assert (considered.plan.top_k, considered.plan.min_evidence, considered.plan.engine) == (3, 0.6, "extractive")
    assert (considered.evidence, considered.dense_weight, considered.terms) == (0.8, 0.4, {"leave": 2.0})
    assert considered.prompt == house.engine.asked[-1][0], "what is shown is what was sent"
    assert considered.tokens == tuple(house.engine.count_tokens(turn.text) for turn in considered.prompt.turns)
    assert isinstance(sources, Sources)
    assert len(sources.sources) == 3
    assert all(isinstance(delta, Delta) for delta in deltas)
    assert isinstance(finished, Finished)
    assert await rows(house) == 0
    assert (await house.conversations.get(conversation.id, "ann")).title == ""


async def test_a_refused_trial_shows_what_would_have_been_read(house: House) -> None:
    house.search.found = Retrieved((LEAVE,), 0.2, {}, True)
    considered, _, finished = await house.ask(trial=True)
    assert isinstance(considered, Considered)
    assert considered.prompt is not None
    assert house.engine.asked == []
    assert isinstance(finished, Finished)
    assert not finished.answered
    assert await rows(house) == 0


async def test_a_trial_that_is_left_leaves_nothing(house: House) -> None:
    events = house.answers.answer(Question("How long is annual leave?", ("handbook",), "ann", trial=True))
    assert isinstance(await anext(events), Considered)
    await events.aclose()
    assert await rows(house) == 0
    assert house.engine.asked == []


async def test_a_candidate_list_shorter_than_what_is_shown_is_not_widened(tmp_path: Path, db: Database) -> None:
    house = await furnished(db, tmp_path)
    house.answers._settings = load(data_dir=tmp_path, retrieval={"candidates": 10})
    await house.ask(trial=True)
    assert house.search.asked[-1][2] == 10


async def test_a_trial_of_a_curated_answer_does_not_count_as_its_use(house: House) -> None:
    async with house.db.session() as session:
        base = await session.scalar(select(KnowledgeBaseRow).where(KnowledgeBaseRow.name == "handbook"))
        assert base is not None
        session.add(CuratedRow(kb_id=base.id, question="How long is annual leave?", text="Ask Ann."))
    considered, *_, finished = await house.ask(trial=True)
    assert isinstance(considered, Considered)
    assert considered.curated
    assert considered.passages == (LEAVE, PARKING)
    assert isinstance(finished, Finished)
    assert finished.text == "Ask Ann."
    assert await rows(house) == 0
    async with house.db.read() as session:
        assert await session.scalar(select(CuratedRow.used)) == 0


# ---------------------------------------------------------------- engines in turn
async def test_the_next_in_turn_answers_where_one_cannot_be_had(house: House) -> None:
    await put(house, engine="gone", fallbacks=["gone", "fake"])
    finished = await house.finished()
    assert (finished.text, finished.engine) == ("Annual leave is 28 days [1].", "fake")
    assert finished.notice == "«gone» was not available; «fake» answered."
    row = await house.row()
    assert (row.engine, row.notice, row.state) == ("fake", finished.notice, "complete")


async def test_the_next_in_turn_answers_where_one_breaks_before_its_first_word(house: House) -> None:
    broken = FakeEngine(fail_after=0)
    backup = FakeEngine("It is 28 days [1].", is_language_model=False)
    house.engines = {"main": broken, "backup": backup}
    await put(house, engine="main", fallbacks=["gone", "backup"])
    events = await house.ask()
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.text == "It is 28 days [1]."
    assert "quoted from your documents" in finished.notice
    assert [type(event) for event in events].count(Sources) == 1
    assert (len(broken.asked), len(backup.asked)) == (1, 1)
    assert backup.asked[0][0].turns == (), "one that quotes reads no prompt"
    assert (await house.row()).prompt == []


async def test_nobody_follows_on_words_that_were_said(house: House) -> None:
    broken, backup = FakeEngine(fail_after=1), FakeEngine()
    house.engines = {"main": broken, "backup": backup}
    await put(house, engine="main", fallbacks=["backup"])
    with pytest.raises(EngineUnavailable, match="broke down"):
        await house.ask()
    assert backup.asked == []
    assert (await house.row()).state == "failed"


async def test_where_all_fail_the_first_says_why(house: House) -> None:
    house.engines = {"main": FakeEngine(fail_after=0)}
    await put(house, engine="main", fallbacks=["gone"])
    with pytest.raises(EngineUnavailable, match="broke down"):
        await house.ask()
    await put(house, engine="gone", fallbacks=["main"])
    with pytest.raises(EngineUnavailable, match="«gone» is not there"):
        await house.ask()


async def test_the_settings_fallbacks_hold_where_a_knowledge_base_has_none_of_its_own(
    tmp_path: Path, house: House
) -> None:
    house.answers._settings = load(data_dir=tmp_path, answer={"fallbacks": ["fake"]})
    house.answers._house = lambda: house.answers._settings
    await put(house, engine="gone")
    assert (await house.finished()).engine == "fake"
    await put(house, fallbacks=[])
    with pytest.raises(EngineUnavailable, match="gone"):
        await house.ask()


async def test_an_engine_that_is_tried_out_has_no_stand_in(house: House) -> None:
    await put(house, fallbacks=["fake"])
    with pytest.raises(EngineUnavailable, match="gone"):
        await house.ask(options=AnswerOptions(engine="gone"), trial=True)


async def test_what_the_server_counted_is_recorded(house: House) -> None:
    house.engine.ended = Ended("length", 17, 9)
    finished = await house.finished()
    assert finished.notice == "The answer was cut at its longest length."
    row = await house.row()
    assert (row.prompt_tokens, row.answer_tokens) == (17, 9)
    house.engine.ended = Ended("stop")
    assert (await house.finished()).notice == ""
    row = await house.row()
    assert row.answer_tokens == house.engine.count_tokens(row.text)
