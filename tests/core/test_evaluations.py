"""Evaluation sets: kept, brought in and out, run on an index, and compared with the run before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select

from core.answer import Answers
from core.answering.curated_match import CuratedMatch
from core.app import Kvasir
from core.db.tables import AnswerRow, EvaluationQuestionRow, EvaluationRunRow
from core.engines.extractive import ExtractiveEngine
from core.errors import Conflict, EngineUnavailable, NotFound, UserError
from core.ports import Engine
from core.quality import evaluation_sets as module
from core.quality.evaluate import Line, parsed, written
from core.quality.evaluations import Asked, Evaluations
from core.settings import load
from core.types import AnswerOptions
from core.work.jobs import run_job
from tests.fakes.embedder import HashEmbedder
from tests.fakes.library import Library, opened_library

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("parser_here")]

FILES = {
    "leave.md": "# Leave\n\nEvery employee has 28 days of annual leave.",
    "canteen.md": "# Canteen\n\nThe canteen serves fish on Fridays.",
    "办公室.md": "# 办公室\n\n林博士在十二号房间保管档案室的钥匙。",
}
LEAVE = Line("How many days of annual leave does an employee have?", ("28 days",), "leave.md")
FISH = Line("When does the canteen serve fish?", ("Fridays",), "canteen.md")
KEYS = Line("谁保管档案室的钥匙？", ("林博士",), "办公室.md")
NOWHERE = Line("Which enzyme splits lactose on Fridays?", (), "")


class Place:
    """A library whose questions are answered, and its evaluation sets."""

    def __init__(self, library: Library) -> None:
        self.library = library

        self.failures = 0
        """So often the engine cannot be had."""

        async def engines(_name: str) -> Engine:
            if self.failures:
                self.failures -= 1
                raise EngineUnavailable("The engine is away.")
            return ExtractiveEngine(2)

        match = CuratedMatch(library.db)
        self.answers = Answers(library.db, library.retriever, engines, library.settings, match)
        self.sets = Evaluations(library.db, self.answers, library.knowledge, library.jobs)

    async def made(self, *lines: Line) -> str:
        """Id of a new set with these questions."""
        found = await self.sets.create("kb", "Everyday")
        for line in lines:
            await self.sets.add(found.id, line)
        return found.id


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with opened_library(tmp_path / "data", keywords_only=True) as library, furnished(library) as made:
        yield made


@pytest.fixture
async def any_place(tmp_path: Path, database_url: str) -> AsyncIterator[Place]:
    """On SQLite and on PostgreSQL."""
    data = tmp_path / "data"
    async with opened_library(data, database_url, keywords_only=True) as library, furnished(library) as made:
        yield made


@asynccontextmanager
async def furnished(library: Library) -> AsyncIterator[Place]:
    await library.bring("kb", FILES)
    made = Place(library)
    yield made
    await made.answers.close()


async def test_sets_are_made_renamed_listed_and_deleted(any_place: Place) -> None:
    sets = any_place.sets
    made = await sets.create("kb", "  Every  day ")
    assert (made.kb, made.name, made.questions) == ("kb", "Every day", 0)
    with pytest.raises(Conflict, match="Every day"):
        await sets.create("kb", "Every day")
    other = await sets.create("kb", "Another")
    with pytest.raises(Conflict):
        await sets.rename(other.id, "Every day")
    assert (await sets.rename(other.id, "Rare")).name == "Rare"
    await sets.add(made.id, LEAVE)
    found, total = await sets.sets("kb")
    assert ([(one.name, one.questions) for one in found], total) == ([("Every day", 1), ("Rare", 0)], 2)
    found, total = await sets.sets("kb", limit=1, offset=1)
    assert ([one.name for one in found], total) == (["Rare"], 2)
    assert (await sets.named("kb", "Rare")).id == other.id
    with pytest.raises(NotFound, match="«Every day», «Rare»"):
        await sets.named("kb", "nonesuch")
    for name in ("", " ", "x" * 101):
        with pytest.raises(UserError):
            await sets.create("kb", name)
    with pytest.raises(NotFound):
        await sets.create("nonesuch", "name")
    await sets.delete(made.id)
    with pytest.raises(NotFound):
        await sets.get(made.id)


async def test_questions_are_kept_once(any_place: Place) -> None:
    sets, set_id = any_place.sets, await any_place.made(LEAVE)
    kept = await sets.add(
        set_id, Line(" When does the canteen serve fish? ", (" Fridays ", "", "Fridays"), "canteen.md")
    )
    assert (kept.question, kept.answers) == (FISH.question, ("Fridays",))
    with pytest.raises(Conflict):
        await sets.add(set_id, FISH)
    with pytest.raises(Conflict):
        await sets.change(set_id, kept.id, LEAVE)
    changed = await sets.change(set_id, kept.id, replace(FISH, answers=()))
    assert changed.answers == ()
    found, total = await sets.questions(set_id, text="CANTEEN")
    assert ([one.id for one in found], total) == ([kept.id], 1)
    await sets.remove(set_id, kept.id)
    with pytest.raises(NotFound):
        await sets.remove(set_id, kept.id)
    assert await sets.lines(set_id) == [LEAVE]
    for line in (Line(" ", (), ""), Line("x" * 4001, (), ""), Line("x", ("y",) * 1 + ("z" * 501,), "")):
        with pytest.raises(UserError):
            await sets.add(set_id, line)


async def test_a_question_of_another_set_is_not_found(place: Place) -> None:
    set_id = await place.made(LEAVE)
    other = await place.sets.create("kb", "Other")
    (question,), _ = await place.sets.questions(set_id)
    with pytest.raises(NotFound):
        await place.sets.change(other.id, question.id, FISH)
    with pytest.raises(NotFound):
        await place.sets.remove(other.id, question.id)


async def test_a_file_comes_in_and_goes_out_the_same(any_place: Place) -> None:
    set_id = await any_place.made(LEAVE)
    lines = [replace(LEAVE, answers=("28 days", "28天")), FISH, KEYS, replace(NOWHERE, question="A\u2028line?\x0b")]
    assert await any_place.sets.bring_in(set_id, parsed(written(lines), "set.jsonl")) == (3, 1)
    kept = await any_place.sets.lines(set_id)
    assert kept == [*lines[:3], replace(NOWHERE, question="A\u2028line?")]
    assert await any_place.sets.bring_in(set_id, parsed(written(kept), "set.jsonl")) == (0, 0)


async def test_a_file_with_too_much_changes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    set_id = await place.made(LEAVE)
    monkeypatch.setattr(module, "MOST_QUESTIONS", 2)
    with pytest.raises(UserError, match="at most 2"):
        await place.sets.bring_in(set_id, [FISH, KEYS])
    assert await place.sets.lines(set_id) == [LEAVE]
    await place.sets.add(set_id, FISH)
    with pytest.raises(UserError, match="at most 2"):
        await place.sets.add(set_id, KEYS)


async def test_a_set_is_measured_and_nothing_else_is_recorded(any_place: Place) -> None:
    set_id = await any_place.made(
        LEAVE, FISH, KEYS, NOWHERE, Line("How long is annual leave?", ("40 days",), "leave.md")
    )
    steps: list[tuple[int, int]] = []

    async def told(done: int, total: int) -> None:
        steps.append((done, total))

    run = await any_place.sets.measure("kb", set_id, on_progress=told)
    assert run.state == "done"
    assert {key: run.figures[key] for key in ("n", "recall@1", "answer_contains", "refused", "problems")} == {
        "n": 5, "recall@1": 1.0, "answer_contains": 0.75, "refused": 0.2, "problems": 1,
    }  # fmt: skip
    assert (steps[0], steps[-1]) == ((0, 5), (5, 5))
    assert run.generation_id == (await any_place.library.live("kb")).id
    assert run.live
    assert run.settings["plan"]["top_k"] == 5
    _, outcomes = await any_place.sets.run(run.id)
    assert [(one.problem, one.rank, one.answered) for one in outcomes] == [
        ("", 1, True), ("", 1, True), ("", 1, True), ("", 0, False), ("words", 1, True),
    ]  # fmt: skip
    assert "28 days" in outcomes[0].text
    assert {one.change for one in outcomes} == {"new"}
    async with any_place.library.db.read() as session:
        assert await session.scalar(select(func.count()).select_from(AnswerRow)) == 0


async def test_runs_are_compared_with_the_one_before(any_place: Place) -> None:
    set_id = await any_place.made(LEAVE, NOWHERE)
    await any_place.sets.measure("kb", set_id)
    await any_place.sets.add(set_id, FISH)
    run = await any_place.sets.measure("kb", set_id, options=AnswerOptions(min_evidence=1.0))
    assert run.settings["options"] == {"min_evidence": 1.0}
    _, outcomes = await any_place.sets.run(run.id)
    assert [(one.problem, one.before, one.change) for one in outcomes] == [
        ("refused", "", "worse"), ("", "", "same"), ("refused", None, "new"),
    ]  # fmt: skip
    again = await any_place.sets.measure("kb", set_id, options=AnswerOptions(min_evidence=0.0))
    _, outcomes = await any_place.sets.run(again.id)
    assert [one.change for one in outcomes] == ["better", "worse", "better"]
    runs, total = await any_place.sets.runs(set_id, limit=2)
    assert ([one.id for one in runs], total) == ([again.id, run.id], 3)
    await any_place.sets.delete_run(again.id)
    assert (await any_place.sets.runs(set_id))[1] == 2
    with pytest.raises(NotFound):
        await any_place.sets.run(again.id)


async def test_an_engine_may_fail_once_a_question(place: Place) -> None:
    set_id = await place.made(LEAVE)
    place.failures = 1
    assert (await place.sets.measure("kb", set_id)).figures["problems"] == 0
    place.failures = 2
    with pytest.raises(EngineUnavailable):
        await place.sets.measure("kb", set_id)
    assert (await place.sets.runs(set_id))[1] == 1


async def test_a_knowledge_base_s_own_settings_are_measured(place: Place) -> None:
    set_id = await place.made(LEAVE)
    await place.library.knowledge.change("kb", min_evidence=1.0, mode="keyword")
    run = await place.sets.measure("kb", set_id)
    assert run.figures["refused"] == 1.0
    assert run.settings["plan"]["mode"] == "keyword"


async def test_another_index_can_be_measured_before_it_is_live(place: Place) -> None:
    library, set_id = place.library, await place.made(LEAVE, FISH)
    live = await library.live("kb")
    other = replace(live, id="0" * 32)
    await library.store.ensure_generation(other)  # and nothing in it
    run = await place.sets.measure("kb", set_id, generation=other)
    assert (run.figures["recall@10"], run.generation_id, run.live) == (0.0, other.id, False)
    _, outcomes = await place.sets.run(run.id)
    assert [one.problem for one in outcomes] == ["missed", "missed"]


async def test_what_cannot_be_run(place: Place) -> None:
    set_id = await place.made()
    with pytest.raises(UserError, match="no questions"):
        await place.sets.measure("kb", set_id)
    with pytest.raises(UserError, match="no questions"):
        await place.sets.start(set_id)
    await place.sets.add(set_id, LEAVE)
    await place.library.knowledge.create("other")
    with pytest.raises(NotFound):
        await place.sets.measure("other", set_id)
    with pytest.raises(NotFound):
        await place.sets.start(set_id, generation_id="0" * 32)


async def test_a_run_waits_its_turn_and_can_be_called_off(place: Place) -> None:
    set_id = await place.made(LEAVE)
    run = await place.sets.start(set_id, options=AnswerOptions(top_k=3))
    assert (run.state, run.figures) == ("queued", {})
    with pytest.raises(Conflict):
        await place.sets.start(set_id)
    assert run.job_id is not None
    job = await place.library.jobs.get(run.job_id)
    assert (job.kind, job.payload["kb"], job.payload["target"]) == ("evaluation", "kb", set_id)
    await place.sets.delete_run(run.id)
    assert (await place.library.jobs.get(run.job_id)).state == "cancelled"


async def test_a_set_takes_its_questions_and_runs_along(any_place: Place) -> None:
    set_id = await any_place.made(LEAVE)
    await any_place.sets.measure("kb", set_id)
    run = await any_place.sets.start(set_id)
    await any_place.library.knowledge.delete("kb")
    async with any_place.library.db.read() as session:
        for table in (EvaluationQuestionRow, EvaluationRunRow):
            assert await session.scalar(select(func.count()).select_from(table)) == 0
    assert run.job_id is not None


async def test_the_job_runs_the_set(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path, embedder={"kind": "none"})
    async with Kvasir.open(settings, embedder=HashEmbedder()) as kvasir:
        await kvasir.knowledge.create("kb")
        made = await kvasir.evaluations.create("kb", "Everyday")
        await kvasir.evaluations.add(made.id, NOWHERE)
        run = await kvasir.evaluations.start(made.id, options=AnswerOptions(top_k=3))
        job = await kvasir.jobs.claim()
        assert job is not None
        await run_job(kvasir.jobs, job, kvasir.run_job)
        done, outcomes = await kvasir.evaluations.run(run.id)
        assert (done.state, done.settings["plan"]["top_k"], len(outcomes)) == ("done", 3, 1)
        ended = await kvasir.jobs.get(job.id)
        assert (ended.state, ended.progress["result"][:12]) == ("done", "1 questions:")
        assert (await kvasir.evaluations.runs(made.id))[1] == 1
        scheduled = await kvasir.jobs.add("evaluation", {"target": made.id, "settings": {}, "run": ""})
        await run_job(kvasir.jobs, scheduled, kvasir.run_job)
        assert (await kvasir.evaluations.runs(made.id))[1] == 2


def test_how_a_question_changed() -> None:
    asked = Asked("1", "q", (), "d.md", 3, "", answered=True, text="", milliseconds=1.0)
    assert replace(asked, before="", rank_before=3).change == "same"
    assert replace(asked, before="", rank_before=5).change == "better"
    assert replace(asked, before="", rank_before=1).change == "worse"
    assert replace(asked, before="missed", rank_before=1).change == "better"
    assert replace(asked, problem="words", before="missed", rank_before=0).change == "better"
    assert replace(asked, problem="words", rank=0, before="", rank_before=9).change == "worse"
