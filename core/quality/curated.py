"""Answers that a person wrote: given whenever one of their questions is asked, and found like any other document."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import ColumnElement, Text, cast, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.answering.sameness import normalised
from core.db.curated import CHANGED, GONE
from core.db.session import Database
from core.db.tables import AnswerRow, CuratedRow, DocumentRow, KnowledgeBaseRow, new_id, now
from core.errors import Conflict, KvasirError, NotFound, UserError
from core.indexing.ingest import Incoming, Ingest, clean_name
from core.kb.knowledge import Knowledge, kb_row
from core.outbound import visible
from core.texts import tell
from core.work.jobs import Job, Jobs, run_job

if TYPE_CHECKING:
    from core.app import Kvasir

FOLDER: Final = "curated"
STATES: Final = ("active", "review", "expired", "off")
LONGEST: Final = 20_000
LONGEST_QUESTION: Final = 1000
MOST_PARAPHRASES: Final = 50
_MOST_RESTS: Final = 50
_LONGEST_TITLE: Final = 300
_PAGE: Final = 500
_LIVING: Final = ("active", "review")
_BEING_WRITTEN: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class RestsOn:
    """A document that a curated answer rests on, and what became of it since."""

    document_id: str
    name: str
    """Empty where it is gone."""
    state: str
    """same, changed, or gone."""


@dataclass(frozen=True, slots=True)
class CuratedAnswer:
    id: str
    kb: str
    document_id: str | None
    question: str
    paraphrases: tuple[str, ...]
    text: str
    rests_on: tuple[RestsOn, ...]
    state: str
    """active, review, expired, or off."""
    reason: str
    """Why it is to be reviewed: sentences, one a line."""
    answer_id: str | None
    used: int
    created_by: str
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Written:
    """What a person gives for a new curated answer."""

    question: str
    text: str
    paraphrases: tuple[str, ...] = ()
    rests_on: tuple[str, ...] | None = None
    """Ids of documents; None: those that the answer it betters cites."""
    expires_at: datetime | None = None
    answer_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What a person changes; None leaves it as it is."""

    question: str | None = None
    text: str | None = None
    paraphrases: tuple[str, ...] | None = None
    rests_on: tuple[str, ...] | None = None
    is_expiry_set: bool = False
    """Whether `expires_at` counts, which may be None."""
    expires_at: datetime | None = None
    is_on: bool | None = None


class Curated:
    """Writes, changes and checks curated answers; `CuratedMatch` finds them when a question comes."""

    def __init__(self, db: Database, ingest: Ingest, jobs: Jobs, knowledge: Knowledge) -> None:
        self._db = db
        self._ingest = ingest
        self._jobs = jobs
        self._knowledge = knowledge

    # ------------------------------------------------------------ reading
    async def list(
        self,
        kbs: Sequence[str],
        *,
        state: str | None = None,
        text: str = "",
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[CuratedAnswer], int]:
        """A page of those of these knowledge bases, the latest changed first, and how many there are."""
        where: list[ColumnElement[bool]] = [KnowledgeBaseRow.name.in_(kbs)]
        if state:
            where.append(CuratedRow.state == state)
        if text:
            columns = (CuratedRow.question, CuratedRow.text, cast(CuratedRow.paraphrases, Text))
            where.append(or_(*(column.icontains(text, autoescape=True) for column in columns)))
        base = (KnowledgeBaseRow, KnowledgeBaseRow.id == CuratedRow.kb_id)
        count = select(func.count()).select_from(CuratedRow).join(*base).where(*where)
        query = select(CuratedRow, KnowledgeBaseRow.name).join(*base).where(*where)
        query = query.order_by(CuratedRow.updated_at.desc(), CuratedRow.id).limit(limit).offset(offset)
        async with self._db.read() as session:
            total = await session.scalar(count) or 0
            rows = [(row, kb) for row, kb in await session.execute(query)]
            return await _shown(session, rows), total

    async def get(self, id: str) -> CuratedAnswer:
        """Raises NotFound."""
        async with self._db.read() as session:
            row, kb = await _row(session, id)
            return (await _shown(session, [(row, kb)]))[0]

    # ------------------------------------------------------------ writing
    async def add(self, kb: str, given: Written, by: str) -> CuratedAnswer:
        """Give this answer from now on; it is searched too when this returns.

        Raises UserError where there is nothing to keep, Conflict where one of its questions has such an answer already,
        KvasirError with the reason where it cannot be indexed.
        """
        question, paraphrases = _questions(given.question, given.paraphrases)
        row = CuratedRow(
            id=new_id(), question=question, paraphrases=paraphrases, text=_text(given.text), state="active", used=0,
            reason="", created_by=by, expires_at=_future(given.expires_at), answer_id=given.answer_id,
            created_at=now(), updated_at=now(),
        )  # fmt: skip
        async with self._db.session() as session:
            base = await kb_row(session, kb)
            row.kb_id = base.id
            await _check_free(session, row)
            cited = await _cited(session, given.answer_id) if given.rests_on is None else ()
            wanted = cited if given.rests_on is None else given.rests_on
            row.rests_on = await _rests(session, base.id, wanted)
            session.add(row)
        try:
            await self._write_document(row, kb, by)
        except BaseException:
            async with self._db.session() as session:
                await session.delete(await session.merge(row))
            raise
        return await self.get(row.id)

    async def change(self, id: str, given: Rewritten, by: str) -> CuratedAnswer:
        """Change it; whoever does so has looked at it, so that it needs no review any more.

        Raises as `add`, and NotFound.
        """
        async with self._db.session() as session:
            row, kb = await _row(session, id)
            before = (row.question, row.paraphrases, row.text)
            row.question, row.paraphrases = _questions(
                row.question if given.question is None else given.question,
                row.paraphrases if given.paraphrases is None else given.paraphrases,
            )
            row.text = row.text if given.text is None else _text(given.text)
            if given.is_expiry_set:
                row.expires_at = _future(given.expires_at)
            elif given.is_on and row.expires_at is not None and row.expires_at <= now():
                row.expires_at = None
            await _check_free(session, row)
            wanted = [key for key, *_ in row.rests_on] if given.rests_on is None else given.rests_on
            row.rests_on = await _rests(session, row.kb_id, wanted)
            row.reason = ""
            if given.is_on is False:
                row.state = "off"
            elif given.is_on or row.state in _LIVING:
                row.state = "active"
            row.updated_at = now()
            is_written = row.document_id is not None and before == (row.question, row.paraphrases, row.text)
        if row.state != "active":
            await self._remove_document(row)
        elif not is_written:
            await self._write_document(row, kb, by)
        return await self.get(id)

    async def delete(self, id: str) -> None:
        """Raises NotFound."""
        async with self._db.session() as session:
            row, _ = await _row(session, id)
            await session.delete(row)
        await self._remove_document(row)

    async def find(self, kb: str, question: str) -> CuratedAnswer | None:
        """The one whose question, or a paraphrase of it, is this."""
        normal = normalised(question)
        async with self._db.read() as session:
            base = await kb_row(session, kb)
            rows = await session.scalars(select(CuratedRow).where(CuratedRow.kb_id == base.id))
            for row in rows:
                if normal in map(normalised, (row.question, *row.paraphrases)):
                    return (await _shown(session, [(row, kb)]))[0]
        return None

    # ------------------------------------------------------------ checking
    async def check(self) -> tuple[int, int]:
        """End what has expired, and mark what rests on documents that changed or are gone; gives both numbers."""
        async with self._db.read() as session:
            over = list(
                await session.scalars(
                    select(CuratedRow).where(CuratedRow.state.in_(_LIVING), CuratedRow.expires_at <= now())
                )
            )
        for row in over:
            async with self._db.session() as session:
                await session.execute(
                    update(CuratedRow)
                    .where(CuratedRow.id == row.id, CuratedRow.state.in_(_LIVING))
                    .values(state="expired", updated_at=now())
                )
            await self._remove_document(row)
        await self._write_missing()
        return len(over), await self._mark_changed()

    async def _write_missing(self) -> None:
        """The documents of those that were being written, switched on or checked when a process was killed."""
        long_ago = now() - _BEING_WRITTEN
        query = (
            select(CuratedRow, KnowledgeBaseRow.name)
            .join(KnowledgeBaseRow, KnowledgeBaseRow.id == CuratedRow.kb_id)
            .where(CuratedRow.state.in_(_LIVING), CuratedRow.document_id.is_(None), CuratedRow.updated_at < long_ago)
        )
        async with self._db.read() as session:
            rows = [(row, kb) for row, kb in await session.execute(query)]
        for row, kb in rows:
            await self._write_document(row, kb, row.created_by)

    async def _mark_changed(self) -> int:
        """What a switch or deletion should have marked, and did not: a process was killed, or a backup came back."""
        marked, after = 0, ""
        while True:
            async with self._db.session() as session:
                query = select(CuratedRow).where(CuratedRow.state.in_(_LIVING), CuratedRow.id > after)
                rows = list(await session.scalars(query.order_by(CuratedRow.id).limit(_PAGE)))
                if not rows:
                    return marked
                after = rows[-1].id
                there = await _documents(session, {key for row in rows for key, *_ in row.rests_on})
                for row in rows:
                    lines = set(row.reason.splitlines())
                    found = [_trouble(there, key, content) for key, content, *_ in row.rests_on]
                    new = [line for line in found if line and not lines & {line}]
                    if new and (row.state == "active" or not lines):
                        row.state, row.reason = "review", "\n".join([*lines, *new])
                        marked += 1

    # ------------------------------------------------------------ its document
    async def write(self, kb: str, name: str, text: str, *, source: str = "upload", by: str = "") -> str:
        """Bring a text in as a document, in the place of one of that name; gives its id once it is searched.

        Raises KvasirError with the reason where it cannot be indexed.
        """
        data = text.encode("utf-8", "replace")

        async def incoming() -> AsyncIterator[Incoming]:
            yield Incoming(name, lambda: data, source=source)

        ticket = await self._ingest.submit(kb, incoming(), claimed=True, by=by)
        await run_job(self._jobs, ticket.job, self._work)
        for outcome in [*ticket.refused, *await self._ingest.outcomes(ticket.job.id)]:
            if outcome.status == "failed":
                raise KvasirError(outcome.reason or tell("curated_empty"))
        return (await self._knowledge.find_document(kb, clean_name(name))).id

    async def _write_document(self, row: CuratedRow, kb: str, by: str) -> None:
        parts = [f"# {row.question[:_LONGEST_TITLE]}", row.text]
        if row.paraphrases:
            parts.append("\n".join(f"- {one}" for one in row.paraphrases))
        parts.append(tell("curated_by", name=visible(by), day=f"{now():%Y-%m-%d}"))
        document = await self.write(kb, f"{FOLDER}/{row.id}.md", "\n\n".join(parts) + "\n", source=FOLDER, by=by)
        async with self._db.session() as session:
            await session.execute(
                update(CuratedRow).where(CuratedRow.id == row.id).values(document_id=document, updated_at=now())
            )

    async def _work(self, job: Job) -> None:
        try:
            await self._ingest.run(job)
        except KvasirError as error:
            await self._ingest.give_up(job, str(error))
            raise

    async def _remove_document(self, row: CuratedRow) -> None:
        if row.document_id is None:
            return
        async with self._db.session() as session:
            await session.execute(update(CuratedRow).where(CuratedRow.id == row.id).values(document_id=None))
        try:
            await self._knowledge.delete_document(row.document_id)
        except NotFound:
            return  # it is gone already, which is what was wanted


async def keep(kvasir: Kvasir, kb: str, question: str, answer: str, by: str) -> str:
    """Keep what a helper said as the curated answer to a question, in the place of an earlier one; gives its id.

    Raises as `Curated.add`.
    """
    former = await kvasir.curated.find(kb, question) if question.strip() else None
    if former is not None:
        return (await kvasir.curated.change(former.id, Rewritten(text=answer, is_on=True), by)).id
    return (await kvasir.curated.add(kb, Written(question, answer), by)).id


async def run(kvasir: Kvasir, _job: Job) -> str:
    """The job `curated`: check all; gives what came of it in one sentence."""
    expired, marked = await kvasir.curated.check()
    return tell("curated_checked", expired=expired, marked=marked)


def _clean(text: str) -> str:
    """What can be seen, and written as UTF-8."""
    return visible(text).encode("utf-8", "replace").decode("utf-8")


def _text(text: str) -> str:
    text = _clean(text).strip()
    if not text:
        raise UserError(tell("curated_empty"))
    if len(text) > LONGEST:
        raise UserError(tell("curated_long", most=LONGEST))
    return text


def _questions(question: str, paraphrases: Iterable[str]) -> tuple[str, list[str]]:
    """Both as they are kept: each on one line, and none twice."""
    lines = [" ".join(_clean(line).split()) for line in (question, *paraphrases)]
    if not normalised(lines[0]):
        raise UserError(tell("curated_empty"))
    if max(map(len, lines)) > LONGEST_QUESTION:
        raise UserError(tell("curated_question_long", most=LONGEST_QUESTION))
    distinct: dict[str, str] = {}
    for line in lines:
        if normal := normalised(line):
            distinct.setdefault(normal, line)
    first, *rest = distinct.values()
    if len(rest) > MOST_PARAPHRASES:
        raise UserError(tell("curated_paraphrases", most=MOST_PARAPHRASES))
    return first, rest


def _future(moment: datetime | None) -> datetime | None:
    if moment is not None and moment <= now():
        raise UserError(tell("curated_past"))
    return moment


async def _check_free(session: AsyncSession, row: CuratedRow) -> None:
    """Raises Conflict where another answer of the base is for one of its questions."""
    own = {normalised(text) for text in (row.question, *row.paraphrases)}
    others = await session.execute(
        select(CuratedRow.question, CuratedRow.paraphrases).where(
            CuratedRow.kb_id == row.kb_id, CuratedRow.id != row.id, CuratedRow.state.in_(_LIVING)
        )
    )
    for question, paraphrases in others:
        for text in (question, *paraphrases):
            if normalised(text) in own:
                raise Conflict(tell("curated_twice", question=text))


async def _cited(session: AsyncSession, answer_id: str | None) -> Sequence[str]:
    """Ids of the documents that an answer cites."""
    if answer_id is None:
        return ()
    passages = await session.scalar(select(AnswerRow.passages).where(AnswerRow.id == answer_id)) or []
    return [kept["document_id"] for kept in passages if kept["cited"]]


async def _rests(session: AsyncSession, kb_id: str, wanted: Sequence[str]) -> list[list[str]]:
    """[id, content hash] of those that are documents of the base, and no curated answers themselves."""
    keys = list(dict.fromkeys(wanted))[:_MOST_RESTS]
    rows = await session.execute(
        select(DocumentRow.id, DocumentRow.live_hash, DocumentRow.content_hash).where(
            DocumentRow.id.in_(keys),
            DocumentRow.kb_id == kb_id,
            DocumentRow.status != "deleting",
            DocumentRow.source != FOLDER,
        )
    )
    there = {key: live or content for key, live, content in rows}
    return [[key, there[key]] for key in keys if key in there]


async def _row(session: AsyncSession, id: str) -> tuple[CuratedRow, str]:
    query = select(CuratedRow, KnowledgeBaseRow.name).join(KnowledgeBaseRow, KnowledgeBaseRow.id == CuratedRow.kb_id)
    found = (await session.execute(query.where(CuratedRow.id == id))).one_or_none()
    if found is None:
        raise NotFound(tell("no_such_curated"))
    return found[0], found[1]


_Documents = dict[str, tuple[str, str]]


async def _documents(session: AsyncSession, ids: set[str]) -> _Documents:
    """Name and content hash of those there are."""
    found: _Documents = {}
    keys = sorted(ids)
    for start in range(0, len(keys), _PAGE):
        rows = await session.execute(
            select(DocumentRow.id, DocumentRow.name, DocumentRow.live_hash, DocumentRow.content_hash).where(
                DocumentRow.id.in_(keys[start : start + _PAGE]), DocumentRow.status != "deleting"
            )
        )
        found |= {key: (name, live or content) for key, name, live, content in rows}
    return found


def _trouble(there: _Documents, key: str, content: str) -> str:
    """A line of a reason; empty where the document is what it was."""
    if key not in there:
        return f"{GONE}\t"
    name, held = there[key]
    return "" if held == content else f"{CHANGED}\t{' '.join(name.split())}"


async def _shown(session: AsyncSession, rows: Sequence[tuple[CuratedRow, str]]) -> list[CuratedAnswer]:
    there = await _documents(session, {key for row, _ in rows for key, *_ in row.rests_on})
    return [_curated(row, kb, there) for row, kb in rows]


def _curated(row: CuratedRow, kb: str, there: _Documents) -> CuratedAnswer:
    rests = []
    for key, content, *_ in row.rests_on:
        name, held = there.get(key, ("", ""))
        rests.append(RestsOn(key, name, "gone" if not name else "same" if held == content else "changed"))
    is_over = row.state in _LIVING and row.expires_at is not None and row.expires_at <= now()
    return CuratedAnswer(
        id=row.id,
        kb=kb,
        document_id=row.document_id,
        question=row.question,
        paraphrases=tuple(row.paraphrases),
        text=row.text,
        rests_on=tuple(rests),
        state="expired" if is_over else row.state,
        reason="\n".join(_sentence(line) for line in row.reason.splitlines()),
        answer_id=row.answer_id,
        used=row.used,
        created_by=row.created_by,
        expires_at=row.expires_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _sentence(line: str) -> str:
    word, _, name = line.partition("\t")
    return tell(f"curated_{word}" if name or word not in (CHANGED, GONE) else f"curated_{word}_nameless", name=name)
