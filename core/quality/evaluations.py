"""What became of the questions of evaluation sets each time they were asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Row, Select, and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.session import Database
from core.db.tables import (
    EvaluationRunRow,
    EvaluationSetRow,
    GenerationRow,
    JobRow,
    KnowledgeBaseRow,
    new_id,
    now,
)
from core.errors import Conflict, NotFound, UserError
from core.kb.knowledge import Knowledge, generation_of, kb_row
from core.quality.evaluate import Line, Outcome, Progress, measured, summed_up
from core.quality.evaluation_sets import KIND, EvaluationSets, Expected, evaluation_set, set_row
from core.texts import tell
from core.types import AnswerOptions, AnswerPlan, Generation
from core.work.jobs import Job, Jobs

if TYPE_CHECKING:
    from core.answer import Answers
    from core.app import Kvasir

_LONGEST_SAID: Final = 600
_TELL_SECONDS: Final = 0.5
"""Between two words about how far it is."""


@dataclass(frozen=True, slots=True)
class Run:
    """One time a set was asked."""

    id: str
    set_id: str
    kb: str
    state: str
    """queued, running, done, failed, or cancelled."""
    error: str | None
    done: int
    total: int
    """How far it is, while it runs."""
    figures: Mapping[str, float]
    """Those of `kvasir eval`, and `problems`, the number of questions that have one; empty until it is done."""
    settings: Mapping[str, Any]
    """`options`: what was chosen for it; `plan`: how was searched and answered; `model`: what wrote the answers."""
    generation_id: str | None
    """The index it was asked of."""
    live: bool
    """Whether that is the one that people are answered from."""
    job_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of one question."""

    id: str
    question: str
    answers: tuple[str, ...]
    document: str
    rank: int
    """Place of its document among the passages, from 1; 0 where it is not among the first ten."""
    problem: str
    """As `evaluate.Problem`."""
    answered: bool
    text: str
    """The answer, its beginning where it is long."""
    milliseconds: float
    before: str | None = None
    """Its problem in the run before; None where it was not asked then."""
    rank_before: int | None = None

    @property
    def change(self) -> str:
        """better, worse, same, or new."""
        if self.before is None or self.rank_before is None:
            return "new"
        was = (bool(self.before), self.rank_before or 99)
        now = (bool(self.problem), self.rank or 99)
        return "same" if was == now else "better" if now < was else "worse"


class Evaluations(EvaluationSets):
    """The same with their runs."""

    def __init__(self, db: Database, answers: Answers, knowledge: Knowledge, jobs: Jobs) -> None:
        super().__init__(db, jobs)
        self._answers = answers
        self._knowledge = knowledge

    # ------------------------------------------------------------ runs
    async def measure(
        self,
        kb: str,
        set_id: str,
        *,
        generation: Generation | None = None,
        options: AnswerOptions | None = None,
        on_progress: Progress | None = None,
        job: Job | None = None,
    ) -> Run:
        """Ask every question of a set, and keep what became of it as a run; nothing else is recorded.

        `generation`: of this index of the knowledge base; None: of the live one. `options` go before what is set for
        the knowledge base. `job`: for which it is done.

        Raises NotFound where the knowledge base has no such set, UserError where that is empty, Unavailable where a
        part that answers need is down.
        """
        found = await self.get(set_id)
        if found.kb != kb:
            raise NotFound(tell("no_eval_set"))
        questions = await self.expected(set_id)
        if not questions:
            raise UserError(tell("eval_set_empty"))
        chosen = replace(options or AnswerOptions(), generation=generation)
        searched = (
            generation.id if generation else next((one.generation.id for one in await self._knowledge.live([kb])), None)
        )
        lines = [Line(one.question, one.answers, one.document) for one in questions]
        outcomes = [one async for one in measured(self._answers, lines, kb, chosen, _seldom(on_progress))]
        row = {
            "generation_id": searched,
            "settings": {"options": _said(chosen), "plan": _said(outcomes[0].plan)},
            "results": _figures(lines, outcomes),
            "outcomes": [_kept(question, outcome) for question, outcome in zip(questions, outcomes, strict=True)],
        }
        return await self._write(set_id, job, row)

    async def start(
        self, set_id: str, *, generation_id: str | None = None, options: AnswerOptions | None = None
    ) -> Run:
        """Queue a run. Raises UserError where the set is empty, Conflict where it runs already, NotFound."""
        if await self.active(set_id):
            raise Conflict(tell("eval_already"))
        async with self._db.session() as session:
            found = await evaluation_set(session, set_id)
            if not found.questions:
                raise UserError(tell("eval_set_empty"))
            if generation_id is not None:
                await _generation(session, found.kb, generation_id)
            settings = {"options": _said(options or AnswerOptions()), "generation_id": generation_id}
            payload = {"kb": found.kb, "name": found.name, "target": set_id, "settings": settings, "run": ""}
            job = self._jobs.new_row(KIND, payload)
            session.add(job)
            row = EvaluationRunRow(set_id=set_id, job_id=job.id, generation_id=generation_id, settings=settings)
            session.add(row)
        self._jobs.wake()
        run, _ = await self.run(row.id)
        return run

    async def runs(self, set_id: str, *, limit: int = 50, offset: int = 0) -> tuple[Sequence[Run], int]:
        """A page of the runs of a set, the newest first, and how many there are."""
        async with self._db.read() as session:
            await set_row(session, set_id)
            total = await session.scalar(select(func.count()).where(EvaluationRunRow.set_id == set_id)) or 0
            query = _runs(EvaluationRunRow.set_id == set_id).order_by(*_NEWEST).limit(limit).offset(offset)
            return [_run(row) for row in await session.execute(query)], total

    async def run(self, run_id: str) -> tuple[Run, Sequence[Asked]]:
        """It, and what became of each question, beside the last finished run before it. Raises NotFound."""
        async with self._db.read() as session:
            found = (await session.execute(_runs(EvaluationRunRow.id == run_id))).one_or_none()
            if found is None:
                raise NotFound(tell("no_eval_run"))
            run = _run(found)
            outcomes = await _outcomes(session, run.id)
            before = {one.id: one for one in await _before(session, run)} if outcomes else {}
        return run, [
            replace(one, before=was.problem, rank_before=was.rank) if (was := before.get(one.id)) else one
            for one in outcomes
        ]

    async def kb_of_run(self, run_id: str) -> str:
        """The knowledge base whose set was run. Raises NotFound."""
        query = (
            select(KnowledgeBaseRow.name)
            .join(EvaluationSetRow, EvaluationSetRow.kb_id == KnowledgeBaseRow.id)
            .join(EvaluationRunRow, EvaluationRunRow.set_id == EvaluationSetRow.id)
            .where(EvaluationRunRow.id == run_id)
        )
        async with self._db.read() as session:
            name = await session.scalar(query)
        if name is None:
            raise NotFound(tell("no_eval_run"))
        return name

    async def delete_run(self, run_id: str) -> None:
        """Forget it; one that is under way is stopped. Raises NotFound."""
        async with self._db.session() as session:
            row = await session.get(EvaluationRunRow, run_id)
            if row is None:
                raise NotFound(tell("no_eval_run"))
            set_id, job_id = row.set_id, row.job_id
            await session.delete(row)
        for job in await self.active(set_id):
            if job.id == job_id:
                await self._jobs.cancel(job.id)

    async def _write(self, set_id: str, job: Job | None, values: Mapping[str, Any]) -> Run:
        async with self._db.session() as session:
            row = None
            if job is not None:
                row = await session.scalar(select(EvaluationRunRow).where(EvaluationRunRow.job_id == job.id))
            if row is None:
                await set_row(session, set_id)  # it may have been deleted meanwhile
                row = EvaluationRunRow(id=new_id(), set_id=set_id, job_id=job.id if job else None, created_at=now())
                session.add(row)
            for name, value in values.items():
                setattr(row, name, value)
            run_id = row.id
        run, _ = await self.run(run_id)
        return run

    async def generation(self, kb: str, generation_id: str) -> Generation:
        """Raises NotFound where the knowledge base has no such index."""
        async with self._db.read() as session:
            return await _generation(session, kb, generation_id)


async def run(kvasir: Kvasir, job: Job) -> str:
    """Do a job of kind `evaluation`, whose target is a set; gives what came of it in one sentence."""
    settings = dict(job.payload.get("settings") or {})
    evaluations = kvasir.evaluations
    found = await evaluations.get(str(job.payload.get("target", "")))
    wanted = settings.get("generation_id")
    generation = await evaluations.generation(found.kb, wanted) if wanted else None

    async def told(done: int, total: int) -> None:
        await kvasir.jobs.progress(job, done=done, total=total)

    made = await evaluations.measure(
        found.kb,
        found.id,
        generation=generation,
        options=AnswerOptions(**dict(settings.get("options") or {})),
        on_progress=told,
        job=job,
    )
    figures = made.figures
    return tell(
        "eval_result",
        n=int(figures["n"]),
        first=round(100 * figures["recall@1"]),
        five=round(100 * figures["recall@5"]),
        problems=int(figures["problems"]),
    )


# ---------------------------------------------------------------- rows
_NEWEST: Final = (EvaluationRunRow.created_at.desc(), EvaluationRunRow.id)


def _runs(where: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """Without what became of each question, which is much."""
    row, job = EvaluationRunRow, JobRow
    return (
        select(
            row.id, row.set_id, KnowledgeBaseRow.name, KnowledgeBaseRow.live_generation_id, row.generation_id,
            row.job_id, row.settings, row.results, row.created_at, job.state, job.error, job.progress,
        )
        .join(EvaluationSetRow, EvaluationSetRow.id == row.set_id)
        .join(KnowledgeBaseRow, KnowledgeBaseRow.id == EvaluationSetRow.kb_id)
        .outerjoin(job, job.id == row.job_id)
        .where(where)
    )  # fmt: skip


def _run(found: Row[*tuple[Any, ...]]) -> Run:
    key, set_id, kb, live, generation_id, job_id, settings, results, created_at, state, error, progress = found
    progress = progress or {}
    return Run(
        id=key,
        set_id=set_id,
        kb=kb,
        state="done" if results else state if state and state != "done" else "failed",
        error=None if results else error,
        done=int(progress.get("done", 0)),
        total=int(progress.get("total", 0)),
        figures=results,
        settings=settings,
        generation_id=generation_id,
        live=generation_id is not None and generation_id == live,
        job_id=job_id,
        created_at=created_at,
    )


async def _outcomes(session: AsyncSession, run_id: str) -> Sequence[Asked]:
    kept = await session.scalar(select(EvaluationRunRow.outcomes).where(EvaluationRunRow.id == run_id))
    return [Asked(**{**one, "answers": tuple(one["answers"])}) for one in kept or ()]


async def _before(session: AsyncSession, run: Run) -> Sequence[Asked]:
    """What became of the questions in the last finished run before."""
    earlier = and_(EvaluationRunRow.set_id == run.set_id, EvaluationRunRow.created_at < run.created_at)
    query = select(EvaluationRunRow.id, EvaluationRunRow.results).where(earlier).order_by(*_NEWEST).limit(20)
    for run_id, results in await session.execute(query):
        if results:
            return await _outcomes(session, run_id)
    return ()


async def _generation(session: AsyncSession, kb: str, generation_id: str) -> Generation:
    base = await kb_row(session, kb)
    row = await session.scalar(select(GenerationRow).filter_by(id=generation_id, kb_id=base.id))
    if row is None or row.state == "retired":
        raise NotFound(tell("no_generation"))
    return generation_of(row)


# ---------------------------------------------------------------- values
def _said(chosen: AnswerOptions | AnswerPlan | None) -> dict[str, Any]:
    """What it says, as JSON; the index is kept by its id."""
    if chosen is None:
        return {}
    values = asdict(replace(chosen, generation=None))
    return {name: value for name, value in values.items() if value is not None}


def _figures(lines: Sequence[Line], outcomes: Sequence[Outcome]) -> dict[str, float]:
    return {**summed_up(lines, outcomes), "problems": sum(bool(outcome.problem) for outcome in outcomes)}


def _kept(expected: Expected, outcome: Outcome) -> dict[str, Any]:
    return {
        "id": expected.id,
        "question": expected.question,
        "answers": list(expected.answers),
        "document": expected.document,
        "rank": outcome.rank,
        "problem": outcome.problem,
        "answered": outcome.answered,
        "text": outcome.text[:_LONGEST_SAID],
        "milliseconds": round(outcome.milliseconds, 2),
    }


def _seldom(told: Progress | None) -> Progress | None:
    """The same, told the first and the last time, and at most twice a second in between."""
    if told is None:
        return None
    last = 0.0

    async def sometimes(done: int, total: int) -> None:
        nonlocal last
        if done in (0, total) or time.monotonic() - last >= _TELL_SECONDS:
            last = time.monotonic()
            await told(done, total)

    return sometimes
