"""Sets of questions with known answers, and what became of them each time they were asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Row, Select, and_, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.session import Database
from core.db.tables import (
    EvaluationQuestionRow,
    EvaluationRunRow,
    EvaluationSetRow,
    GenerationRow,
    JobRow,
    KnowledgeBaseRow,
    new_id,
    now,
)
from core.errors import Conflict, NotFound, UserError
from core.evaluate import Line, Outcome, Progress, measured, summed_up
from core.jobs import Job, Jobs
from core.knowledge import Knowledge, generation_of, kb_row
from core.texts import tell
from core.types import AnswerOptions, AnswerPlan, Generation

if TYPE_CHECKING:
    from core.answer import Answers
    from core.app import Kvasir

KIND: Final = "evaluation"
MOST_QUESTIONS: Final = 5000
LONGEST_QUESTION: Final = 4000
MOST_ANSWERS: Final = 20
LONGEST_ANSWER: Final = 500
_LONGEST_SAID: Final = 2000
_LONGEST_NAME: Final = 100
_TELL_SECONDS: Final = 0.5
"""Between two words about how far it is."""


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    id: str
    kb: str
    name: str
    questions: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Expected:
    """A question of a set, and what a right answer to it is."""

    id: str
    question: str
    answers: tuple[str, ...]
    """Texts one of which a right answer contains; empty: any will do."""
    document: str
    """Name of the document it is to be found in; empty: it has no answer here."""
    created_at: datetime


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
    """The answer, at most 2000 characters of it."""
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


class Evaluations:
    """Evaluation sets of knowledge bases."""

    def __init__(self, db: Database, answers: Answers, knowledge: Knowledge, jobs: Jobs) -> None:
        self._db = db
        self._answers = answers
        self._knowledge = knowledge
        self._jobs = jobs

    # ------------------------------------------------------------ sets
    async def sets(self, kb: str, *, limit: int = 50, offset: int = 0) -> tuple[Sequence[EvaluationSet], int]:
        """A page of the sets of a knowledge base by name, and how many there are. Raises NotFound."""
        async with self._db.read() as session:
            base = await kb_row(session, kb)
            total = await session.scalar(select(func.count()).where(EvaluationSetRow.kb_id == base.id)) or 0
            query = _sets(EvaluationSetRow.kb_id == base.id).order_by(EvaluationSetRow.name)
            return [_set(row) for row in await session.execute(query.limit(limit).offset(offset))], total

    async def every(self) -> Sequence[EvaluationSet]:
        """Those of all knowledge bases, by knowledge base and name."""
        async with self._db.read() as session:
            query = _sets(KnowledgeBaseRow.expires_at.is_(None)).order_by(KnowledgeBaseRow.name, EvaluationSetRow.name)
            return [_set(row) for row in await session.execute(query)]

    async def get(self, set_id: str) -> EvaluationSet:
        """Raises NotFound."""
        async with self._db.read() as session:
            return await _get(session, EvaluationSetRow.id == set_id)

    async def named(self, kb: str, name: str, *, create: bool = False) -> EvaluationSet:
        """Raises NotFound with the names there are; with `create`, it is made instead."""
        found, _ = await self.sets(kb, limit=1000)
        for one in found:
            if one.name == name:
                return one
        if create:
            return await self.create(kb, name)
        there = ", ".join(f"«{one.name}»" for one in found)
        raise NotFound(
            tell("no_eval_set_named", kb=kb, name=name, there=there) if found else tell("no_eval_sets", kb=kb)
        )

    async def create(self, kb: str, name: str) -> EvaluationSet:
        """Raises UserError for a bad name, Conflict where there is one of that name, NotFound."""
        row = EvaluationSetRow(name=_checked_name(name))
        try:
            async with self._db.session() as session:
                row.kb_id = (await kb_row(session, kb)).id
                session.add(row)
        except IntegrityError as error:
            raise Conflict(tell("eval_set_exists", name=row.name)) from error
        return await self.get(row.id)

    async def rename(self, set_id: str, name: str) -> EvaluationSet:
        """Raises as `create`."""
        name = _checked_name(name)
        try:
            async with self._db.session() as session:
                (await _set_row(session, set_id)).name = name
        except IntegrityError as error:
            raise Conflict(tell("eval_set_exists", name=name)) from error
        return await self.get(set_id)

    async def delete(self, set_id: str) -> None:
        """With its questions and runs; one that is under way is stopped."""
        async with self._db.session() as session:
            await session.delete(await _set_row(session, set_id))
        for job in await self._active(set_id):
            await self._jobs.cancel(job.id)

    # ------------------------------------------------------------ questions
    async def questions(
        self, set_id: str, *, text: str | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[Sequence[Expected], int]:
        """A page of them in the order they came, and how many there are; `text` stands in question or document."""
        where: ColumnElement[bool] = EvaluationQuestionRow.set_id == set_id
        if text:
            where &= EvaluationQuestionRow.question.icontains(text, autoescape=True) | (
                EvaluationQuestionRow.document.icontains(text, autoescape=True)
            )
        async with self._db.read() as session:
            await _set_row(session, set_id)
            total = await session.scalar(select(func.count()).select_from(EvaluationQuestionRow).where(where)) or 0
            query = select(EvaluationQuestionRow).where(where).order_by(*_IN_ORDER).limit(limit).offset(offset)
            return [_expected(row) for row in await session.scalars(query)], total

    async def add(self, set_id: str, line: Line) -> Expected:
        """Raises Conflict where the set has the question, UserError where it cannot be one or the set is full."""
        line = _checked(line)
        async with self._db.session() as session:
            await _set_row(session, set_id, lock=True)
            await _no_double(session, set_id, line.question)
            if await _count(session, set_id) >= MOST_QUESTIONS:
                raise UserError(tell("eval_set_full", most=MOST_QUESTIONS))
            row = _row_of(set_id, line, now())
            session.add(row)
        return _expected(row)

    async def change(self, set_id: str, question_id: str, line: Line) -> Expected:
        """Raises as `add`, and NotFound."""
        line = _checked(line)
        async with self._db.session() as session:
            await _set_row(session, set_id, lock=True)
            row = await _question_row(session, set_id, question_id)
            if row.question != line.question:
                await _no_double(session, set_id, line.question)
            row.question, row.answers, row.document = line.question, list(line.answers), line.document
        return _expected(row)

    async def remove(self, set_id: str, question_id: str) -> None:
        """Raises NotFound. Runs keep what became of it."""
        async with self._db.session() as session:
            await session.delete(await _question_row(session, set_id, question_id))

    async def bring_in(self, set_id: str, lines: Sequence[Line]) -> tuple[int, int]:
        """Take in the lines of a file; gives how many are new, and how many changed what was known of a question.

        Raises UserError, and then takes none, where one cannot be used or there would be too many.
        """
        wanted = {line.question: line for line in map(_checked, lines)}
        added = changed = 0
        async with self._db.session() as session:
            await _set_row(session, set_id, lock=True)
            there = {
                row.question: row
                for row in await session.scalars(
                    select(EvaluationQuestionRow).where(EvaluationQuestionRow.set_id == set_id)
                )
            }
            if len(there.keys() | wanted.keys()) > MOST_QUESTIONS:
                raise UserError(tell("eval_set_full", most=MOST_QUESTIONS))
            begun = now()
            for number, (question, line) in enumerate(wanted.items()):
                row = there.get(question)
                if row is None:
                    session.add(_row_of(set_id, line, begun + timedelta(microseconds=number)))
                    added += 1
                elif (tuple(row.answers), row.document) != (line.answers, line.document):
                    row.answers, row.document = list(line.answers), line.document
                    changed += 1
        return added, changed

    async def lines(self, set_id: str) -> Sequence[Line]:
        """All of them, as a file has them."""
        return [Line(one.question, one.answers, one.document) for one in await self._all(set_id)]

    async def _all(self, set_id: str) -> Sequence[Expected]:
        found, _ = await self.questions(set_id, limit=MOST_QUESTIONS)
        return found

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
        questions = await self._all(set_id)
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
        if await self._active(set_id):
            raise Conflict(tell("eval_already"))
        async with self._db.session() as session:
            found = await _get(session, EvaluationSetRow.id == set_id)
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
            await _set_row(session, set_id)
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
        for job in await self._active(set_id):
            if job.id == job_id:
                await self._jobs.cancel(job.id)

    async def _active(self, set_id: str) -> Sequence[Job]:
        """Jobs that run a set or will do so."""
        return [job for job in await self._jobs.active(KIND) if job.payload.get("target") == set_id]

    async def _write(self, set_id: str, job: Job | None, values: Mapping[str, Any]) -> Run:
        async with self._db.session() as session:
            row = None
            if job is not None:
                row = await session.scalar(select(EvaluationRunRow).where(EvaluationRunRow.job_id == job.id))
            if row is None:
                await _set_row(session, set_id)  # it may have been deleted meanwhile
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
_IN_ORDER: Final = (EvaluationQuestionRow.created_at, EvaluationQuestionRow.id)
_NEWEST: Final = (EvaluationRunRow.created_at.desc(), EvaluationRunRow.id)
_HAS_QUESTIONS: Final = (
    select(func.count()).where(EvaluationQuestionRow.set_id == EvaluationSetRow.id).scalar_subquery()
)


def _sets(where: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    return (
        select(
            EvaluationSetRow.id,
            KnowledgeBaseRow.name.label("kb"),
            EvaluationSetRow.name,
            _HAS_QUESTIONS.label("questions"),
            EvaluationSetRow.created_at,
        )
        .join(KnowledgeBaseRow, KnowledgeBaseRow.id == EvaluationSetRow.kb_id)
        .where(where)
    )


def _set(row: Row[*tuple[Any, ...]]) -> EvaluationSet:
    return EvaluationSet(*row)


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


async def _get(session: AsyncSession, where: ColumnElement[bool]) -> EvaluationSet:
    row = (await session.execute(_sets(where))).one_or_none()
    if row is None:
        raise NotFound(tell("no_eval_set"))
    return _set(row)


async def _set_row(session: AsyncSession, set_id: str, *, lock: bool = False) -> EvaluationSetRow:
    query = select(EvaluationSetRow).where(EvaluationSetRow.id == set_id)
    row = await session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(tell("no_eval_set"))
    return row


async def _question_row(session: AsyncSession, set_id: str, question_id: str) -> EvaluationQuestionRow:
    row = await session.scalar(select(EvaluationQuestionRow).filter_by(id=question_id, set_id=set_id))
    if row is None:
        raise NotFound(tell("no_eval_question"))
    return row


async def _generation(session: AsyncSession, kb: str, generation_id: str) -> Generation:
    base = await kb_row(session, kb)
    row = await session.scalar(select(GenerationRow).filter_by(id=generation_id, kb_id=base.id))
    if row is None or row.state == "retired":
        raise NotFound(tell("no_generation"))
    return generation_of(row)


async def _no_double(session: AsyncSession, set_id: str, question: str) -> None:
    there = select(EvaluationQuestionRow.id).filter_by(set_id=set_id, question=question).limit(1)
    if await session.scalar(there) is not None:
        raise Conflict(tell("eval_question_exists"))


async def _count(session: AsyncSession, set_id: str) -> int:
    return await session.scalar(select(func.count()).where(EvaluationQuestionRow.set_id == set_id)) or 0


def _row_of(set_id: str, line: Line, at: datetime) -> EvaluationQuestionRow:
    return EvaluationQuestionRow(
        id=new_id(),
        set_id=set_id,
        question=line.question,
        answers=list(line.answers),
        document=line.document,
        created_at=at,
    )


def _expected(row: EvaluationQuestionRow) -> Expected:
    return Expected(row.id, row.question, tuple(row.answers), row.document, row.created_at)


# ---------------------------------------------------------------- values
def _checked_name(name: str) -> str:
    name = " ".join(name.split())
    if not 1 <= len(name) <= _LONGEST_NAME:
        raise UserError(tell("eval_set_name"))
    return name


def _checked(line: Line) -> Line:
    question = line.question.strip()
    answers = tuple(dict.fromkeys(text for answer in line.answers if (text := answer.strip())))
    too_long = len(question) > LONGEST_QUESTION or len(line.document) > 1024
    if too_long or len(answers) > MOST_ANSWERS or any(len(answer) > LONGEST_ANSWER for answer in answers):
        raise UserError(tell("eval_question_long", most=LONGEST_QUESTION, answers=MOST_ANSWERS, length=LONGEST_ANSWER))
    if not question:
        raise UserError(tell("question_empty"))
    return Line(question, answers, line.document)


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
