"""Gaps in what the documents cover: questions that nobody could be answered, put together by what they are about."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import log
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from core.analyzer import query_tokens
from core.answering.fusion import known_share
from core.answering.sameness import normalised
from core.db.session import Database
from core.db.tables import AnswerRow, ReviewRow, now
from core.errors import EmbedderUnavailable
from core.ports import Embedder
from core.quality.selection import Selection
from core.types import Matrix

logger = logging.getLogger(__name__)

MOST: Final = 1000
"""Questions that are looked at, the latest."""
WEEKS: Final = 8
_ALIKE: Final = 0.33
"""Mean similarity from which a question belongs to a group: 0 nothing in common, 1 the same words. With it
`bench/curated.txt`, 34 English and 33 Chinese questions in four wordings each, falls into about as many groups."""
_EMBED_SECONDS: Final = 8.0
_KNOWN: Final = 0.9
_NEAR: Final = (0.3, 0.85)
"""Cosines that count as nothing and as everything in common."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    answer_id: str
    question: str
    person: str
    kbs: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class Gap:
    """Questions about the same, none of which was answered."""

    question: str
    """The one that is most like the others."""
    size: int
    people: int
    kbs: tuple[str, ...]
    first_at: datetime
    last_at: datetime
    weeks: tuple[int, ...]
    """How many in each of the last weeks, the latest last."""
    trend: float
    """Asked in the later half of that time, less the earlier half, as a share of both: -1..1."""
    answers: tuple[str, ...]
    """Ids, the latest first."""
    questions: tuple[str, ...]
    """Different ones, the latest first."""


class Gaps:
    def __init__(self, db: Database, embedder: Callable[[], Embedder | None]) -> None:
        self._db = db
        self._embedder = embedder

    async def list(self, selection: Selection) -> Sequence[Gap]:
        """The largest first; what was solved in the review is none any more."""
        query = (
            select(AnswerRow.id, AnswerRow.standalone_question, AnswerRow.question, AnswerRow.person, AnswerRow.kbs,
                   AnswerRow.created_at)
            .outerjoin(ReviewRow, ReviewRow.answer_id == AnswerRow.id)
            .where(AnswerRow.answered.is_(False), AnswerRow.state == "complete",
                   ReviewRow.state.is_distinct_from("solved"), selection.condition(is_sqlite=self._db.is_sqlite))
            .order_by(AnswerRow.created_at.desc(), AnswerRow.id)
            .limit(MOST)
        )  # fmt: skip
        async with self._db.read() as session:
            found = [
                Unanswered(key, standalone or question, person, tuple(kbs), at)
                for key, standalone, question, person, kbs, at in await session.execute(query)
            ]
        texts = list({normalised(one.question): one.question for one in reversed(found)}.values())
        vectors, known = await self._vectors(texts)
        return await asyncio.to_thread(grouped, found, texts, vectors, known, now())

    async def _vectors(self, texts: Sequence[str]) -> tuple[Matrix | None, Sequence[bool]]:
        """The vectors of the texts, and of which the embedder knows the script; None where there are none in time."""
        embedder = self._embedder()
        if embedder is None or not texts:
            return None, ()
        known = [known_share(embedder.info.scripts, text) >= _KNOWN for text in texts]
        if not any(known):
            return None, ()
        try:
            async with asyncio.timeout(_EMBED_SECONDS):
                return await embedder.embed_documents(texts), known
        except (EmbedderUnavailable, TimeoutError) as error:
            logger.warning("unanswered questions are put together by their words alone: %s", error or "too slow")
            return None, ()


def grouped(
    found: Sequence[Unanswered], texts: Sequence[str], vectors: Matrix | None, known: Sequence[bool], moment: datetime
) -> list[Gap]:
    """The gaps, the largest first; `texts` are the different questions, with their vectors."""
    likeness = alike(texts, vectors, known)
    numbers = {normalised(text): number for number, text in enumerate(texts)}
    of_text: dict[int, list[Unanswered]] = {}
    for one in found:
        of_text.setdefault(numbers[normalised(one.question)], []).append(one)
    gaps = [_gap(group, likeness, of_text, moment) for group in _groups(likeness, of_text)]
    return sorted(gaps, key=lambda gap: (-gap.size, -gap.last_at.timestamp()))


def alike(texts: Sequence[str], vectors: Matrix | None = None, known: Sequence[bool] = ()) -> NDArray[np.float32]:
    """How much each question has in common with each other, 0..1: by words, and vectors where they say something."""
    words = [frozenset(query_tokens(text)) for text in texts]
    counts = Counter(word for one in words for word in one)
    terms = {word: number for number, word in enumerate(counts)}
    weights = np.zeros((len(texts), len(terms)), np.float32)
    for row, one in enumerate(words):
        for word in one:
            weights[row, terms[word]] = log(1 + len(texts) / counts[word])
    lengths = np.linalg.norm(weights, axis=1, keepdims=True)
    weights /= np.where(lengths == 0, 1, lengths)
    by_words: NDArray[np.float32] = weights @ weights.T
    if vectors is None:
        return by_words
    low, high = _NEAR
    by_meaning = np.clip((vectors @ vectors.T - low) / (high - low), 0, 1)
    both = np.outer(known, known)
    together: NDArray[np.float32] = np.where(both, 0.4 * by_words + 0.6 * by_meaning, by_words)
    return together


def _groups(likeness: NDArray[np.float32], of_text: dict[int, list[Unanswered]]) -> list[list[int]]:
    """Each question, the one asked most first, joins those that it is most like on average, or begins anew."""
    order = sorted(of_text, key=lambda number: (-len(of_text[number]), number))
    groups: list[list[int]] = []
    sums = np.zeros((0, likeness.shape[1]), np.float32)
    for number in order:
        if groups:
            average = sums[: len(groups), number] / np.array([len(group) for group in groups], np.float32)
            best = int(average.argmax())
            if average[best] >= _ALIKE:
                groups[best].append(number)
                sums[best] += likeness[number]
                continue
        groups.append([number])
        if len(groups) > len(sums):
            sums = np.concatenate([sums, np.zeros((max(16, len(sums)), likeness.shape[1]), np.float32)])
        sums[len(groups) - 1] = likeness[number]
    return groups


def _gap(
    group: Sequence[int], likeness: NDArray[np.float32], of_text: dict[int, list[Unanswered]], moment: datetime
) -> Gap:
    counts = np.array([len(of_text[number]) for number in group], np.float32)
    center = group[int((likeness[np.ix_(list(group), list(group))] @ counts).argmax())]
    asked: list[Unanswered] = sorted(
        (one for number in group for one in of_text[number]), key=lambda one: one.at, reverse=True
    )
    weeks = [0] * WEEKS
    for one in asked:
        ago = int((moment - one.at) / timedelta(weeks=1))
        if 0 <= ago < WEEKS:
            weeks[WEEKS - 1 - ago] += 1
    later, earlier = sum(weeks[WEEKS // 2 :]), sum(weeks[: WEEKS // 2])
    return Gap(
        question=of_text[center][0].question,
        size=len(asked),
        people=len({one.person for one in asked}),
        kbs=tuple(sorted({kb for one in asked for kb in one.kbs})),
        first_at=asked[-1].at,
        last_at=asked[0].at,
        weeks=tuple(weeks),
        trend=(later - earlier) / (later + earlier) if later + earlier else 0.0,
        answers=tuple(one.answer_id for one in asked),
        questions=tuple(dict.fromkeys(one.question for one in asked)),
    )
