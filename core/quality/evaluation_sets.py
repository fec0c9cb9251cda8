"""Sets of questions with known answers, by which a knowledge base is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.session import Database
from core.db.tables import EvaluationQuestionRow, EvaluationSetRow, KnowledgeBaseRow, new_id, now
from core.errors import Conflict, NotFound, UserError
from core.kb.knowledge import kb_row
from core.quality.evaluate import Line
from core.texts import tell
from core.work.jobs import Job, Jobs

KIND: Final = "evaluation"
"""Of the jobs that run a set."""
MOST_QUESTIONS: Final = 5000
LONGEST_QUESTION: Final = 4000
MOST_ANSWERS: Final = 20
LONGEST_ANSWER: Final = 500
_LONGEST_NAME: Final = 100


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


class EvaluationSets:
    """The sets of all knowledge bases, and their questions."""

    def __init__(self, db: Database, jobs: Jobs) -> None:
        self._db = db
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
            return await evaluation_set(session, set_id)

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
                (await set_row(session, set_id)).name = name
        except IntegrityError as error:
            raise Conflict(tell("eval_set_exists", name=name)) from error
        return await self.get(set_id)

    async def delete(self, set_id: str) -> None:
        """With its questions and runs; one that is under way is stopped."""
        async with self._db.session() as session:
            await session.delete(await set_row(session, set_id))
        for job in await self.active(set_id):
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
            await set_row(session, set_id)
            total = await session.scalar(select(func.count()).select_from(EvaluationQuestionRow).where(where)) or 0
            query = select(EvaluationQuestionRow).where(where).order_by(*_IN_ORDER).limit(limit).offset(offset)
            return [_expected(row) for row in await session.scalars(query)], total

    async def add(self, set_id: str, line: Line) -> Expected:
        """Raises Conflict where the set has the question, UserError where it cannot be one or the set is full."""
        line = _checked(line)
        async with self._db.session() as session:
            await set_row(session, set_id, lock=True)
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
            await set_row(session, set_id, lock=True)
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
            await set_row(session, set_id, lock=True)
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
        return [Line(one.question, one.answers, one.document) for one in await self.expected(set_id)]

    async def expected(self, set_id: str) -> Sequence[Expected]:
        """All questions in order."""
        found, _ = await self.questions(set_id, limit=MOST_QUESTIONS)
        return found

    async def active(self, set_id: str) -> Sequence[Job]:
        """Jobs that run a set or will do so."""
        return [job for job in await self._jobs.active(KIND) if job.payload.get("target") == set_id]


# ---------------------------------------------------------------- shared with the runs
async def evaluation_set(session: AsyncSession, set_id: str) -> EvaluationSet:
    """Raises NotFound."""
    row = (await session.execute(_sets(EvaluationSetRow.id == set_id))).one_or_none()
    if row is None:
        raise NotFound(tell("no_eval_set"))
    return _set(row)


async def set_row(session: AsyncSession, set_id: str, *, lock: bool = False) -> EvaluationSetRow:
    """Raises NotFound."""
    query = select(EvaluationSetRow).where(EvaluationSetRow.id == set_id)
    row = await session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(tell("no_eval_set"))
    return row


# ---------------------------------------------------------------- rows
_IN_ORDER: Final = (EvaluationQuestionRow.created_at, EvaluationQuestionRow.id)
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


async def _question_row(session: AsyncSession, set_id: str, question_id: str) -> EvaluationQuestionRow:
    row = await session.scalar(select(EvaluationQuestionRow).filter_by(id=question_id, set_id=set_id))
    if row is None:
        raise NotFound(tell("no_eval_question"))
    return row


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
