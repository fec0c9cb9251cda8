"""An answer from beginning to end. Read `Answers.answer` first; everything else in Kvasir serves it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from importlib.resources import files
from typing import Any, Final, TypeVar

from sqlalchemy import Insert, bindparam, select, update

from core.answering import options
from core.answering.conversation import finished_from, note_question, passage_json, past_turns, turns_from
from core.answering.curated_match import CuratedMatch, Given, Version
from core.answering.prompt import REFUSAL_MARK, Asked, Room, before_repetition, build, cited, named, quoting
from core.answering.retrieve import Retrieved, Retriever
from core.answering.rewrite import standalone, standalone_by_engine
from core.db.direct import InsertInto, Statement
from core.db.session import Database
from core.db.tables import AnswerRow, CuratedRow, new_id
from core.deadline import Deadline
from core.errors import ConfigError, EngineUnavailable, KvasirError, MissingExtra, TooLarge, Unavailable, UserError
from core.kb.knowledge import no_such_kb
from core.outbound import Outlet, visible
from core.ports import Engine
from core.settings import Settings
from core.texts import say, speaking, text_language
from core.types import (
    AnswerEvent,
    AnswerPlan,
    Considered,
    Delta,
    Ended,
    Finished,
    Language,
    Passage,
    PastTurn,
    Prompt,
    Question,
    Queued,
    Sampling,
    Source,
    Sources,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_QUESTION: Final = 8000
"""Characters; a platform may allow fewer."""
_COUNT_EVERY: Final = 200
"""Characters that are counted as tokens together; piece by piece, each count would be rounded up."""
_CHECK_EVERY: Final = 64
"""Characters between two looks for repetition."""
_SHOWN: Final = 20
"""Passages that a trial tells of at least."""


def _keeping(insert: InsertInto) -> Insert:
    """Insert an answer; one that was begun before, by a process that was ended, is overwritten."""
    row = insert(AnswerRow)
    values = {
        column.key: row.excluded[column.key]
        for column in AnswerRow.__table__.columns
        if column.key not in ("id", "created_at")
    }
    unfinished = AnswerRow.state.in_(("failed", "stopped"))
    return row.on_conflict_do_update(index_elements=[AnswerRow.id], set_=values, where=unfinished)


_KEEP: Final = Statement(_keeping)
_USED: Final = Statement(
    update(CuratedRow)
    .where(CuratedRow.id == bindparam("curated"))
    .values(used=CuratedRow.used + 1, updated_at=CuratedRow.updated_at)  # it was used, and not changed
)
_RECORDED: Final = Statement(
    select(AnswerRow).where(AnswerRow.id == bindparam("answer"), AnswerRow.state == "complete")
)


@dataclass
class Record:
    """What is known of an answer so far; the row in the database is made of it."""

    question: Question
    language: Language
    deadline: Deadline
    begun: float = field(default_factory=time.perf_counter)
    standalone: str = ""
    passages: Sequence[Passage] = ()
    prompt: Prompt | None = None
    sampling: Sampling | None = None
    evidence: float | None = None
    engine: str = ""
    model: str = ""
    count_tokens: Callable[[str], int] | None = None
    """As the engine counts them; None: it is no language model."""
    ended: Ended = field(default_factory=Ended)
    text: str = ""
    answered: bool = False
    state: str = "complete"
    error: str | None = None
    notice: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    """Of the curated answers of the knowledge bases that have any."""
    curated: Given | None = None
    """The curated answer that it consists of."""
    checked: int = 0
    """Characters of the text that were looked through for repetition."""

    @cached_property
    def id(self) -> str:
        return self.question.answer_id or new_id()

    def took(self, step: str, since: float) -> float:
        """Note how long a step took; gives the time now."""
        now = time.perf_counter()
        self.timings[step] = round((now - since) * 1000, 2)
        return now

    @property
    def tokens(self) -> tuple[int | None, int | None]:
        """Of the prompt and of the answer; None where no language model was asked."""
        if self.count_tokens is None or self.prompt is None:
            return None, None
        asked, told = self.ended.prompt_tokens, self.ended.answer_tokens
        if asked is not None and told is not None:
            return asked, told
        said = self.text if self.answered else REFUSAL_MARK
        return sum(self.count_tokens(turn.text) for turn in self.prompt.turns), self.count_tokens(said)

    def hear(self, ended: Ended) -> None:
        """What the engine's server says of the end."""
        self.ended = ended
        if ended.reason == "length":
            self.notice = f"{self.notice} {say('length_notice', self.language)}".strip()

    @property
    def cited(self) -> tuple[int, ...]:
        if self.curated is not None:
            return tuple(range(1, len(self.passages) + 1))
        return cited(self.text, len(self.passages)) if self.answered else ()


@dataclass
class Turns:
    """Which engines may answer a question, one after the other."""

    first: str
    waiting: list[str]
    failure: KvasirError | None = None
    """Why the first one could not."""


class Answers:
    """Answers questions from knowledge bases, and keeps what was asked, found, sent and said."""

    def __init__(
        self,
        db: Database,
        retriever: Retriever,
        engines: Callable[[str], Awaitable[Engine]],
        settings: Settings,
        curated: CuratedMatch,
        house: Callable[[], Settings] | None = None,
    ) -> None:
        """`house` gives the settings with the engine and the reranker that the console has chosen."""
        self._db = db
        self._retriever = retriever
        self._engines = engines
        self._settings = settings
        self._house = house or (lambda: settings)
        self._curated = curated
        self._writing: set[asyncio.Task[None]] = set()

    async def answer(self, question: Question) -> AsyncGenerator[AnswerEvent, None]:
        """Sources, its place while it waits, the text as it comes, then Finished. Closing it cancels what runs for it.

        A trial tells before all else what was Considered, and leaves no record.

        Raises UserError where the question cannot be asked so, Unavailable where a part that is needed is down.
        """
        record = self._begin(question)
        try:
            plan, history = await self._looked_up(record)
            record.sampling = plan.sampling
            given = None if history else await self._curated_for(record)
            if given is None or question.trial:
                turn = Turns(plan.engine, [plan.engine, *plan.fallbacks])
                engine = await self._engine(record, turn)
                at = time.perf_counter()
                record.standalone = await self._standalone(record, engine, history)
                record.took("rewrite", at)
                given = await self._curated_for(record) if history else given
            if given is None or question.trial:
                found = await self._found(record, plan)
                if question.trial:
                    yield self._considered(record, plan, engine, history, found, curated=given is not None)
            if given is not None:
                yield self._give(record, given)
                yield Delta(record.text)
            elif _bears_an_answer(found, plan):
                prompt = record.prompt = self._prompt(record, plan, engine, history, found)
                record.passages = prompt.passages
                yield Sources(_sources(prompt.passages), record.standalone)
                found = replace(found, passages=prompt.passages)
                remade = partial(self._prompt, record, plan, history=history, found=found)
                async with aclosing(self._said_in_turn(record, engine, turn, remade)) as pieces:
                    async for piece in pieces:
                        yield piece if isinstance(piece, Queued) else Delta(piece)
            else:
                record.text = self._refusal(record)
                yield Delta(record.text)
        except Unavailable as error:
            record.state, record.error = "failed", str(error)
            await self._keep(record)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            record.state = "stopped"
            await self._keep(record)
            raise
        finally:
            record.deadline.close()
        await self._keep(record)
        yield self._finished(record)

    async def plan(self, kb: str) -> AnswerPlan:
        """How a question to this knowledge base alone is answered, where nothing is chosen with it. Raises NotFound."""
        (found,) = await self._db.fetch(options.wanted(kb))
        if found.first is None:
            raise await no_such_kb(self._db, kb)
        return options.plan(Question("", (kb,), ""), [found.first], self._house())

    def instructions(self, plan: AnswerPlan, language: Language) -> str:
        """What a language model is told, its `{names}` not filled in. Raises ConfigError."""
        if plan.instructions is not None:
            return plan.instructions
        own = self._settings.answer.prompt_file
        try:
            return own.read_text("utf-8") if own else _own_instructions(language)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(say("prompt_unreadable", language, file=own)) from error

    async def recorded(self, answer_id: str) -> Finished | None:
        """The recorded answer as the event that ended it; None where there is none, or it is not complete."""
        (found,) = await self._db.fetch(_RECORDED(answer=answer_id))
        return finished_from(found.first) if found.first is not None else None

    async def close(self) -> None:
        """Wait until everything that was asked is recorded."""
        if self._writing:
            await asyncio.wait(self._writing)

    # ------------------------------------------------------------ what is asked
    def _begin(self, question: Question) -> Record:
        language = question.language or self._settings.language
        spoken: Language = text_language(question.text) if language == "auto" else language
        if not visible(question.text).strip():
            raise UserError(say("question_empty", spoken))
        if len(question.text) > LONGEST_QUESTION:
            raise TooLarge(say("question_long", spoken, most=LONGEST_QUESTION))
        if not question.kbs:
            raise UserError(say("no_kb_yet", spoken))
        seconds = self._settings.answer.timeout_seconds
        deadline = Deadline(seconds, EngineUnavailable(say("answer_timeout", spoken, seconds=seconds)))
        return Record(question, spoken, deadline, standalone=question.text.strip())

    async def _looked_up(self, record: Record) -> tuple[AnswerPlan, Sequence[PastTurn]]:
        """How it is to be answered, and what was said before; NotFound where a knowledge base does not exist."""
        question, turns = record.question, self._settings.answer.history_turns
        steps = [options.wanted(kb) for kb in question.kbs]
        if turns and question.conversation_id:
            steps.append(past_turns(question.conversation_id, turns))
        with speaking(record.language):
            found = await self._db.fetch(*steps)
            bases = []
            for kb, wanted in zip(question.kbs, found, strict=False):
                if wanted.first is None:
                    raise await no_such_kb(self._db, kb)
                if wanted.first.curated:
                    record.versions[kb] = Version(wanted.first.curated, wanted.first.curated_at)
                bases.append(wanted.first)
        plan = options.plan(question, bases, self._house())
        if not turns:
            return plan, ()
        own = turns_from(found[-1].rows) if question.conversation_id else ()
        return plan, own or question.history[-turns:]

    async def _engine(self, record: Record, turn: Turns) -> Engine:
        """The next in turn that can be had. Raises why the first could not be, where none can."""
        while turn.waiting and not record.deadline.is_over:
            try:
                with speaking(record.language):
                    engine = await record.deadline.wait(self._engines(turn.waiting.pop(0)))
            except (Unavailable, ConfigError, MissingExtra) as error:
                turn.failure = turn.failure or error
                continue
            record.engine, record.model = engine.info.name, engine.info.model
            reads = engine.info.is_language_model
            record.count_tokens = engine.count_tokens if reads else None
            record.notice = "" if reads else say("quoted_notice", record.language)
            if turn.failure is not None:
                logger.info("«%s» answers, since «%s» cannot: %s", engine.info.name, turn.first, turn.failure)
                notice = "fallback_notice" if reads else "fallback_quoted_notice"
                record.notice = say(notice, record.language, first=turn.first, engine=engine.info.name)
            return engine
        assert turn.failure is not None  # noqa: S101 - there is one engine at least
        raise turn.failure

    async def _standalone(self, record: Record, engine: Engine, history: Sequence[PastTurn]) -> str:
        text = visible(record.question.text).strip()
        if not history:
            return text
        if engine.info.is_language_model:
            return await standalone_by_engine(engine, text, history)
        return standalone(text, history)

    # ------------------------------------------------------------ what a person has written
    async def _curated_for(self, record: Record) -> Given | None:
        """The curated answer to the question; never where only certain documents are to answer it."""
        if not record.versions or record.question.filter is not None:
            return None
        at = time.perf_counter()
        found = await record.deadline.wait(self._curated.find(record.standalone, record.versions))
        record.took("curated", at)
        return found

    def _give(self, record: Record, given: Given) -> Sources:
        """Make the curated answer the record's; gives what it cites."""
        record.curated, record.text, record.answered = given, given.text, True
        record.engine, record.model, record.count_tokens = "curated", "", None
        record.passages = given.passages(say("curated_title", record.language))
        record.notice = say("curated_marked" if given.is_marked else "curated_notice", record.language)
        record.took("first_token", record.begun)
        return Sources(_sources(record.passages), record.standalone)

    # ------------------------------------------------------------ what is found
    async def _found(self, record: Record, plan: AnswerPlan) -> Retrieved:
        at = time.perf_counter()
        question, limit = record.question, plan.top_k
        if question.trial:
            limit = max(limit, min(_SHOWN, self._settings.retrieval.candidates))
        found = await record.deadline.wait(
            self._retriever.retrieve(
                record.standalone,
                question.kbs,
                limit=limit,
                mode=plan.mode,
                filter=question.filter,
                dense_weight=plan.dense_weight,
                reranker=plan.reranker,
                generation=plan.generation,
            )
        )
        if ended := await self._curated.ended(record.versions):
            left = tuple(passage for passage in found.passages if passage.document_id not in ended)
            found = replace(found, passages=left)
        record.took("retrieve", at)
        record.passages, record.evidence = found.passages[: plan.top_k], found.evidence
        return found

    def _considered(
        self,
        record: Record,
        plan: AnswerPlan,
        engine: Engine,
        history: Sequence[PastTurn],
        found: Retrieved,
        *,
        curated: bool,
    ) -> Considered:
        prompt = self._prompt(record, plan, engine, history, found) if found.passages else None
        reads = engine.info.is_language_model
        return Considered(
            plan=plan,
            passages=found.passages,
            evidence=found.evidence,
            terms=found.terms,
            dense_weight=found.dense_weight,
            prompt=prompt,
            tokens=tuple(engine.count_tokens(turn.text) for turn in prompt.turns) if prompt else (),
            context_size=engine.info.context_size if reads else 0,
            curated=curated,
        )

    def _refusal(self, record: Record) -> str:
        record.notice = ""
        return say("refusal", record.language, kbs=named(record.question.kbs, record.language))

    def _prompt(
        self, record: Record, plan: AnswerPlan, engine: Engine, history: Sequence[PastTurn], found: Retrieved
    ) -> Prompt:
        question, passages = record.question, found.passages[: plan.top_k]
        asked = Asked(
            text=visible(question.text).strip(),
            standalone=record.standalone,
            kbs=question.kbs,
            language=record.language,
            history=tuple(history),
            terms=found.terms,
        )
        if not engine.info.is_language_model:
            return quoting(asked, passages)
        room = Room(engine.info.context_size, self._sampling(record, engine).max_tokens, engine.count_tokens)
        prompt = build(asked, passages, self.instructions(plan, record.language), room)
        if not prompt.passages:
            raise EngineUnavailable(say("engine_context", record.language, model=record.model))
        return prompt

    def _sampling(self, record: Record, engine: Engine) -> Sampling:
        """An answer takes half of the context at most."""
        wanted = record.sampling or options.sampling(self._settings, (), {})
        return replace(wanted, max_tokens=min(wanted.max_tokens, engine.info.context_size // 2))

    # ------------------------------------------------------------ what is said
    async def _said_in_turn(
        self, record: Record, engine: Engine, turn: Turns, prompt_for: Callable[[Engine], Prompt]
    ) -> AsyncGenerator[str | Queued, None]:
        """The words of the engine; those of the next in turn where it is down before it has said anything."""
        while True:
            try:
                assert record.prompt is not None  # noqa: S101 - it was made for the engine
                async with aclosing(self._said(record, engine, record.prompt)) as pieces:
                    async for piece in pieces:
                        yield piece
            except Unavailable as error:
                if "first_token" in record.timings or not turn.waiting or record.deadline.is_over:
                    raise turn.failure or error from error
                turn.failure = turn.failure or error
            else:
                return
            engine = await self._engine(record, turn)
            record.prompt = prompt_for(engine)

    async def _said(self, record: Record, engine: Engine, prompt: Prompt) -> AsyncGenerator[str | Queued, None]:
        """Where it waits for the engine, and its words, made safe; `record.text` grows with them."""
        outlet = Outlet(
            frozenset(p.document for p in prompt.passages if p.document.startswith(("https://", "http://"))),
            frozenset(host.lower() for host in self._settings.channels.links),
        )
        opening, record.answered = Opening(), True
        sampling, info, wait = self._sampling(record, engine), engine.info, record.deadline.wait
        length = Length(engine, sampling.max_tokens)
        prompt = replace(prompt, on_end=record.hear, asker=record.question.person)
        async with _closing(engine.stream(prompt, sampling)) as stream:
            while not opening.refuses and (piece := await wait(anext(stream, None))) is not None:
                if isinstance(piece, Queued):
                    yield piece
                    continue
                if "first_token" not in record.timings:
                    record.took("first_token", record.begun)
                safe = outlet.feed(opening.feed(piece))
                if safe:
                    record.text += safe
                    yield safe
                if info.is_scripted:
                    continue
                if length.is_over(piece):
                    record.notice = say("length_notice", record.language)
                    return
                if self._repeats(record):
                    return
        rest = outlet.feed(opening.close()) + outlet.close()
        if not (record.text + rest).strip():
            rest, record.answered = self._refusal(record), False
        if rest:
            record.text += rest
            yield rest

    def _repeats(self, record: Record) -> bool:
        """Whether the engine says the same again and again; it is left once then."""
        if len(record.text) < record.checked + _CHECK_EVERY:
            return False
        record.checked = len(record.text)
        end = before_repetition(record.text)
        if end is None:
            return False
        record.text, record.notice = record.text[:end], say("repetition_notice", record.language)
        return True

    def _finished(self, record: Record) -> Finished:
        numbers = record.cited
        return Finished(
            answer_id=record.id,
            text=record.text,
            answered=record.answered,
            sources=tuple(source for source in _sources(record.passages) if source.n in numbers),
            engine=record.engine,
            standalone_question=record.standalone,
            timings_ms=record.timings,
            notice=record.notice,
        )

    # ------------------------------------------------------------ what is kept
    async def _keep(self, record: Record) -> None:
        """Write the record; it is written to the end also where whoever waits for it is cancelled."""
        record.took("total", record.begun)
        if record.question.trial:
            return
        task = asyncio.create_task(self._write(record), name=f"record-{record.id}")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        await asyncio.shield(task)

    async def _write(self, record: Record) -> None:
        steps = [_KEEP(**_row(record))]
        if record.curated is not None:
            steps.append(_USED(curated=record.curated.id))
        if record.question.conversation_id is not None:
            steps.append(note_question(record.question.conversation_id, visible(record.question.text).strip()))
        await self._db.run(*steps)


def _bears_an_answer(found: Retrieved, plan: AnswerPlan) -> bool:
    return bool(found.passages) and found.evidence >= plan.min_evidence


@cache
def _own_instructions(language: Language) -> str:
    return (files("configs") / "prompts" / f"answer.{language}.md").read_text("utf-8")


def _row(record: Record) -> dict[str, Any]:
    """The columns of the answer's row."""
    question, numbers = record.question, record.cited
    prompt_tokens, answer_tokens = record.tokens
    return {
        "id": record.id,
        "conversation_id": question.conversation_id,
        "person": question.person,
        "platform": question.platform,
        "kbs": list(question.kbs),
        "question": visible(question.text).strip(),
        "standalone_question": record.standalone,
        "text": record.text,
        "state": record.state,
        "answered": record.answered,
        "error": record.error,
        "notice": record.notice,
        "engine": record.engine,
        "model": record.model,
        "passages": [
            passage_json(passage, number, cited=number in numbers) for number, passage in enumerate(record.passages, 1)
        ],
        "prompt": [{"role": turn.role, "text": turn.text} for turn in record.prompt.turns] if record.prompt else [],
        "evidence": record.evidence,
        "timings": record.timings,
        "curated_id": record.curated.id if record.curated is not None else None,
        "workspace": question.workspace,
        "channel": question.channel,
        "first_token_ms": record.timings.get("first_token"),
        "total_ms": record.timings.get("total"),
        "prompt_tokens": prompt_tokens,
        "answer_tokens": answer_tokens,
    }


def _sources(passages: Sequence[Passage]) -> tuple[Source, ...]:
    return tuple(Source(number, passage) for number, passage in enumerate(passages, 1))


class Length:
    """Whether a language model says far more than it was to."""

    def __init__(self, engine: Engine, most: int) -> None:
        self._engine = engine
        self._most = 2 * most
        self._tokens = 0
        self._uncounted = ""

    def is_over(self, piece: str) -> bool:
        """With the next piece."""
        self._uncounted += piece
        if len(self._uncounted) >= _COUNT_EVERY:
            self._tokens, self._uncounted = self._tokens + self._engine.count_tokens(self._uncounted), ""
        return self._engine.info.is_language_model and self._tokens > self._most


class Opening:
    """Holds an answer's first characters back until it is clear whether the model refuses by its mark."""

    def __init__(self) -> None:
        self._held = ""
        self._is_open = False
        self.refuses = False

    def feed(self, piece: str) -> str:
        if self._is_open:
            return piece
        self._held += piece
        begin = self._held.lstrip(" \n\"'`*“")
        self.refuses = begin.startswith(REFUSAL_MARK)
        if self.refuses or REFUSAL_MARK.startswith(begin):
            return ""
        self._is_open = True
        return self.close()

    def close(self) -> str:
        """What is still held and turned out to be answer."""
        held, self._held = self._held, ""
        return "" if self.refuses else held


@asynccontextmanager
async def _closing(stream: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    try:
        yield stream
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
