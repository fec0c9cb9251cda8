"""Measures retrieval, answers and refusals on questions with known answers, through the parts that answer people."""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Final

from core.errors import UserError
from core.retrieve import Retriever
from core.texts import tell
from core.types import Finished, Passage, Question

if TYPE_CHECKING:
    from core.answer import Answers

_DEEPEST: Final = 10


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file; `document` is empty where the right answer is a refusal."""

    question: str
    answers: tuple[str, ...]
    document: str


@dataclass(frozen=True, slots=True)
class Outcome:
    rank: int
    """Place of the line's document among the passages, from 1; 0 where it is not among the first ten."""
    holds_answer: bool
    answered: bool
    milliseconds: float


async def evaluate(
    retriever: Retriever,
    answers: Answers,
    file: Path,
    kb: str,
    *,
    engine: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """`n` lines measured: recall and mrr over those with a document, `answer_contains` over those with answers too,
    `refused` and the times of the answers over all.

    Raises UserError where the file or a line of it cannot be used.
    """
    lines = read_lines(file)
    outcomes = []
    for done, line in enumerate(lines):
        if progress:
            progress(done, len(lines))
        found = await retriever.retrieve(line.question, [kb], limit=_DEEPEST, judged=False)
        started = time.perf_counter()
        finished = await _answer(answers, line.question, kb, engine)
        took = (time.perf_counter() - started) * 1000
        outcomes.append(
            Outcome(
                _rank(found.passages, line.document), contains(finished.text, line.answers), finished.answered, took
            )
        )
    if progress:
        progress(len(lines), len(lines))
    return summed_up(lines, outcomes)


def read_lines(file: Path) -> list[Line]:
    try:
        rows = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(tell("eval_unreadable", file=file.name)) from error
    lines = [_line(row, number, file.name) for number, row in enumerate(rows, 1) if row.strip()]
    if not lines:
        raise UserError(tell("eval_empty", file=file.name))
    return lines


def contains(text: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers stands in the text, whatever its case, width, spaces and punctuation."""
    said = bare(text)
    return any(answer and answer in said for answer in map(bare, answers))


def bare(text: str) -> str:
    """Letters and digits only, in lower case and normal width."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


def summed_up(lines: Sequence[Line], outcomes: Sequence[Outcome]) -> dict[str, float]:
    pairs = list(zip(lines, outcomes, strict=True))
    ranks = [outcome.rank for line, outcome in pairs if line.document]
    times = [outcome.milliseconds for outcome in outcomes]
    middle, late = (times[0], times[0]) if len(times) == 1 else _p50_p95(times)
    return {
        "n": len(lines),
        "recall@1": _share([rank == 1 for rank in ranks]),
        "recall@5": _share([0 < rank <= 5 for rank in ranks]),
        "recall@10": _share([0 < rank <= _DEEPEST for rank in ranks]),
        "mrr@10": round(sum(1 / rank for rank in ranks if rank) / len(ranks), 4) if ranks else 0.0,
        "answer_contains": _share([outcome.holds_answer for line, outcome in pairs if line.document and line.answers]),
        "refused": _share([not outcome.answered for outcome in outcomes]),
        "ms_p50": round(middle, 2),
        "ms_p95": round(late, 2),
    }


async def _answer(answers: Answers, question: str, kb: str, engine: str | None) -> Finished:
    asked = Question(text=question, kbs=(kb,), person="eval", platform="eval", engine=engine)
    async with aclosing(answers.answer(asked)) as events:
        async for event in events:
            if isinstance(event, Finished):
                return event
    raise AssertionError("every answer ends with Finished")


def _line(row: str, number: int, file: str) -> Line:
    try:
        read = json.loads(row)
        question, answers, document = read["question"], read.get("answers", []), read.get("document", "")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(tell("eval_line", line=number, file=file)) from error
    texts = isinstance(answers, list) and all(isinstance(text, str) for text in (question, document, *answers))
    if not texts or not question.strip():
        raise UserError(tell("eval_line", line=number, file=file))
    return Line(question, tuple(answers), document)


def _rank(passages: Sequence[Passage], document: str) -> int:
    return next((rank for rank, passage in enumerate(passages, 1) if passage.document == document), 0)


def _share(hits: Sequence[bool]) -> float:
    return round(sum(hits) / len(hits), 4) if hits else 0.0


def _p50_p95(times: Sequence[float]) -> tuple[float, float]:
    cuts = quantiles(times, n=20, method="inclusive")
    return cuts[9], cuts[18]
