"""The playground: what a question finds in a knowledge base, what the engine would read, and what it would say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field

from admin.deps import CallerDep, KvasirDep, is_id, take_turn
from admin.html import to_html
from admin.schemas import Given, Out, Text
from admin.stream import EventStream, event
from core.access import Action
from core.answering.fusion import keyword_shares
from core.app import Kvasir
from core.db.tables import new_id
from core.errors import KvasirError, NotFound, UserError
from core.kb.kb_settings import LONGEST_INSTRUCTIONS
from core.texts import place_of, spoken, tell
from core.types import (
    AnswerOptions,
    Considered,
    Delta,
    Finished,
    Generation,
    Language,
    Passage,
    Question,
    Queued,
    SearchMode,
)

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/kbs/{name}/playground", tags=["playground"])


class Options(Given):
    """What goes before the settings of the knowledge base; null leaves it to them."""

    top_k: Annotated[int, Field(ge=1, le=50)] | None = None
    mode: SearchMode | None = None
    dense_weight: Annotated[float, Field(ge=0, le=1)] | None = None
    reranker: Annotated[Text, Field(max_length=64)] | None = None
    """By name; empty: none."""
    min_evidence: Annotated[float, Field(ge=0, le=1)] | None = None
    engine: Annotated[Text, Field(max_length=64)] | None = None
    instructions: Annotated[Text, Field(max_length=LONGEST_INSTRUCTIONS)] | None = None

    def options(self, generation: Generation | None = None) -> AnswerOptions:
        return AnswerOptions(**self.model_dump(), generation=generation)


class Trial(Given):
    text: Text
    options: Options = Options()
    answer: bool = True
    """False: only what is found, and what the engine would read."""
    generation_id: Annotated[str, Field(max_length=64)] | None = None
    """Of the index to search; null: the live one."""


class PlanOut(Out):
    """How questions are answered when nothing is chosen with them."""

    top_k: int
    mode: SearchMode
    dense_weight: float | None
    """Null: what suits embedder and question."""
    reranker: str
    min_evidence: float
    engine: str
    instructions: str
    """As they stand, before names are filled in."""
    engines: Sequence[str]
    rerankers: Sequence[str]
    vectors: bool
    """False: its index has none, so that search goes by keywords alone."""


class PassageOut(Out):
    n: int
    document_id: str
    document: str
    title: str
    chunk: int
    locator: str
    headings: Sequence[str]
    text: str
    score: float
    """The fused score, 0..1; in the mode `vector` the similarity."""
    vector_score: float | None
    """Cosine similarity to the question."""
    keyword_score: float | None
    """BM25."""
    keyword_share: float | None
    """The same as a share of the most that the question could get, 0..1."""
    rerank_score: float | None
    used: bool
    """Whether an answer draws on it."""


@router.get("")
async def playground(name: str, caller: CallerDep, kvasir: KvasirDep) -> PlanOut:
    """How questions to the knowledge base are answered now, and what else can be chosen."""
    kb = await caller.kb(name, Action.REVIEW)
    plan = await kvasir.answers.plan(kb.name)
    return PlanOut(
        top_k=plan.top_k,
        mode=plan.mode,
        dense_weight=plan.dense_weight,
        reranker=plan.reranker,
        min_evidence=plan.min_evidence,
        engine=plan.engine,
        instructions=kvasir.answers.instructions(plan, spoken()),
        engines=await kvasir.knowledge.part_names("engine"),
        rerankers=await kvasir.knowledge.part_names("reranker"),
        vectors=kb.vectors,
    )


@router.post("/questions")
async def ask(name: str, given: Trial, caller: CallerDep, kvasir: KvasirDep, request: Request) -> EventStream:
    """Try a question; nothing of it is kept, and hanging up stops it.

    Events: `considered` (passages, evidence, prompt), `queued` while it waits for its engine (`place` from 1; 0: no
    more), then `delta`s, and at last `finished` or `error`. A trial without an answer ends after `considered`.
    """
    kb = await caller.kb(name, Action.REVIEW)
    text, most = given.text.strip(), kvasir.settings.web.max_question_chars
    if not text:
        raise UserError(tell("question_empty"))
    if len(text) > most:
        raise UserError(tell("question_long", most=most))
    generation = None
    if given.generation_id is not None:
        if not is_id(given.generation_id):
            raise NotFound(tell("no_generation"))
        generation = await kvasir.evaluations.generation(kb.name, given.generation_id)
    if given.answer:
        await take_turn(request.app.state.questions, caller, request)
    question = Question(
        text,
        (kb.name,),
        caller.person.key,
        platform="web",
        options=given.options.options(generation),
        trial=True,
    )
    return EventStream(_tried(kvasir, question, answer=given.answer))


async def _tried(kvasir: Kvasir, question: Question, *, answer: bool) -> AsyncGenerator[bytes]:
    language = spoken()
    try:
        async with aclosing(kvasir.answers.answer(question)) as events:
            async for happened in events:
                match happened:
                    case Considered():
                        yield event("considered", _considered(happened, language))
                        if not answer:
                            return
                    case Queued():
                        yield event("queued", {"place": happened.place})
                    case Delta():
                        yield event("delta", {"text": happened.text})
                    case Finished():
                        yield event("finished", await asyncio.to_thread(_finished, happened))
    except KvasirError as error:
        yield event("error", {"detail": str(error)})
    except Exception:
        number = new_id()[:8]
        logger.exception("trial %s came to nothing", number)
        yield event("error", {"detail": tell("internal_error", id=number)})


def _considered(found: Considered, language: Language) -> dict[str, object]:
    shares = keyword_shares([passage.keyword_score for passage in found.passages], found.terms)
    passages = [
        _passage(number, passage, share, language, used=number <= found.plan.top_k)
        for number, (passage, share) in enumerate(zip(found.passages, shares, strict=True), 1)
    ]
    plan, prompt = found.plan, found.prompt
    turns = [
        {"role": turn.role, "text": turn.text, "tokens": tokens}
        for turn, tokens in zip(prompt.turns if prompt else (), found.tokens, strict=True)
    ]
    return {
        "plan": {
            "top_k": plan.top_k,
            "mode": plan.mode,
            "dense_weight": plan.dense_weight,
            "reranker": plan.reranker,
            "min_evidence": plan.min_evidence,
            "engine": plan.engine,
        },
        "passages": [passage.model_dump() for passage in passages],
        "evidence": round(found.evidence, 4),
        "curated": found.curated,
        "refused": not found.passages or found.evidence < plan.min_evidence,
        "terms": [{"token": token, "weight": round(weight, 3)} for token, weight in found.terms.items()],
        "dense_weight": round(found.dense_weight, 4),
        "prompt": turns,
        "tokens": sum(found.tokens),
        "context_size": found.context_size,
        "read": len(prompt.passages) if prompt else 0,
    }


def _passage(number: int, passage: Passage, share: float, language: Language, *, used: bool) -> PassageOut:
    return PassageOut(
        n=number,
        document_id=passage.document_id,
        document=passage.document,
        title=passage.title,
        chunk=passage.chunk,
        locator=place_of(passage.locator, (), language),
        headings=passage.headings,
        text=passage.text,
        score=round(passage.score, 4),
        vector_score=_rounded(passage.vector_score),
        keyword_score=_rounded(passage.keyword_score),
        keyword_share=None if passage.keyword_score is None else round(share, 4),
        rerank_score=_rounded(passage.rerank_score),
        used=used,
    )


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)


def _finished(finished: Finished) -> dict[str, object]:
    return {
        "text": finished.text,
        "html": to_html(finished.text),
        "answered": finished.answered,
        "notice": finished.notice,
        "engine": finished.engine,
        "sources": [{"n": source.n, "document": source.passage.document} for source in finished.sources],
        "timings_ms": dict(finished.timings_ms),
    }
