"""How a question is answered: what was chosen with it goes before its channel, this before its knowledge bases, and
these before the settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import bindparam, func, select

from core.answering.sampling import resolved
from core.db.direct import AnyRow, Statement, Step
from core.db.tables import CuratedRow, KnowledgeBaseRow
from core.settings import Settings
from core.types import AnswerOptions, AnswerPlan, Question, Sampling

_CURATED: Final = CuratedRow.kb_id == KnowledgeBaseRow.id
_WANTED: Final = Statement(
    select(
        KnowledgeBaseRow.top_k,
        KnowledgeBaseRow.mode,
        KnowledgeBaseRow.dense_weight,
        KnowledgeBaseRow.reranker,
        KnowledgeBaseRow.min_evidence,
        KnowledgeBaseRow.engine,
        KnowledgeBaseRow.instructions,
        KnowledgeBaseRow.fallbacks,
        KnowledgeBaseRow.sampling,
        KnowledgeBaseRow.expires_at,
        select(func.count()).where(_CURATED).scalar_subquery().label("curated"),
        select(func.max(CuratedRow.updated_at)).where(_CURATED).scalar_subquery().label("curated_at"),
    ).where(KnowledgeBaseRow.name == bindparam("kb"))
)
_NOTHING: Final = AnswerOptions()
_AGREED: Final = ("mode", "dense_weight", "reranker", "engine", "instructions", "fallbacks", "sampling")


def wanted(kb: str) -> Step:
    """Find what a knowledge base wants, a row for `plan`, and the version of its curated answers.

    No row where there is none of that name.
    """
    return _WANTED(kb=kb)


def plan(question: Question, bases: Sequence[AnyRow], settings: Settings) -> AnswerPlan:
    """What holds for `question`; `bases` are the rows of its knowledge bases.

    Of several, the most passages and the strictest threshold hold that one of them has (what it leaves open is the
    settings'). Of all else, what those that say something agree on; where they contradict each other, the settings.
    Files sent in a conversation have no say beside lasting knowledge bases.
    """
    lasting = [_own(row) for row in bases if row.expires_at is None] or [_own(row) for row in bases]
    base = lasting[0] if len(lasting) == 1 else _together(lasting, settings)
    asked, given, answer = question.options, question.instructions, settings.answer
    weight = _first(asked.dense_weight, base.dense_weight)
    engine = asked.engine or question.engine or base.engine or answer.engine
    fallbacks = () if asked.engine else _first(asked.fallbacks, base.fallbacks, answer.fallbacks)
    return AnswerPlan(
        top_k=_first(asked.top_k, base.top_k) or answer.top_k,
        mode=_first(asked.mode, base.mode) or "hybrid",
        dense_weight=settings.retrieval.dense_weight if weight is None else weight,
        reranker=_first(asked.reranker, base.reranker, settings.retrieval.reranker) or "",
        min_evidence=float(_first(asked.min_evidence, base.min_evidence, answer.min_evidence) or 0.0),
        engine=engine,
        instructions=_said(asked.instructions) or _said(given) or _said(base.instructions),
        generation=asked.generation,
        fallbacks=tuple(name for name in dict.fromkeys(fallbacks) if name != engine),
        sampling=sampling(settings, _first(asked.sampling, base.sampling) or (), asked.samplers or {}),
    )


def sampling(settings: Settings, rules: Sequence[str], asked: Mapping[str, Any]) -> Sampling:
    """How a language model is to draw its words, by an answer preset and by what is asked for."""
    usual = Sampling(settings.answer.max_tokens, settings.answer.temperature)
    return resolved(rules, usual, asked) if rules or asked else usual


def _own(row: AnyRow) -> AnswerOptions:
    top_k, mode, dense_weight, reranker, min_evidence, engine, instructions, fallbacks, sampling, *_ = row
    return AnswerOptions(
        top_k, mode, dense_weight, reranker, min_evidence, engine, instructions,
        fallbacks=None if fallbacks is None else tuple(fallbacks),
        sampling=None if sampling is None else tuple(sampling),
    )  # fmt: skip


def _together(bases: Sequence[AnswerOptions], settings: Settings) -> AnswerOptions:
    if all(base == _NOTHING for base in bases):
        return _NOTHING
    answer = settings.answer
    said = {name: {value for base in bases if (value := getattr(base, name)) is not None} for name in _AGREED}
    return AnswerOptions(
        top_k=max(base.top_k or answer.top_k for base in bases),
        min_evidence=max(answer.min_evidence if base.min_evidence is None else base.min_evidence for base in bases),
        **{name: values.pop() for name, values in said.items() if len(values) == 1},
    )


def _first(*values: Any) -> Any:
    """The first that is not None."""
    return next((value for value in values if value is not None), None)


def _said(text: str | None) -> str | None:
    return text if text and text.strip() else None
