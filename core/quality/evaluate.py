"""Measures retrieval, answers and refusals on questions with known answers, by the way on which people are answered."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from core.errors import Unavailable, UserError
from core.texts import tell
from core.types import AnswerOptions, AnswerPlan, Considered, Finished, Passage, Question

if TYPE_CHECKING:
    from core.answer import Answers

Progress: TypeAlias = Callable[[int, int], Awaitable[None]]
"""Told how many questions are done, and of how many."""

_DEEPEST: Final = 10

Problem: TypeAlias = Literal["", "missed", "refused", "words", "answered"]
"""What is wrong with an answer: its document was not among the passages it drew on, it was refused, it holds none of
the expected words, or it was answered though nothing here answers it. Empty: nothing.
"""


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
    problem: Problem = ""
    text: str = ""
    """The answer."""
    plan: AnswerPlan | None = None
    """How it was searched for and answered."""


async def evaluate(
    answers: Answers,
    file: Path,
    kb: str,
    *,
    engine: str | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """`n` lines measured: recall and mrr over those with a document, `answer_contains` over those with answers too,
    `refused` and the times of the answers over all.

    Raises UserError where the file or a line of it cannot be used.
    """
    lines = read_lines(file)
    outcomes = [one async for one in measured(answers, lines, kb, AnswerOptions(engine=engine), progress)]
    return summed_up(lines, outcomes)


async def measured(
    answers: Answers,
    lines: Sequence[Line],
    kb: str,
    options: AnswerOptions,
    progress: Progress | None = None,
) -> AsyncIterator[Outcome]:
    """What becomes of each line, one after the other; nothing of it is recorded.

    Raises Unavailable where a part that answers need is down twice in a row.
    """
    for done, line in enumerate(lines):
        if progress:
            await progress(done, len(lines))
        try:
            outcome = await _tried(answers, line, kb, options)
        except Unavailable:  # a moment of silence is not to cost the whole run
            outcome = await _tried(answers, line, kb, options)
        yield outcome
    if progress:
        await progress(len(lines), len(lines))


def read_lines(file: Path) -> list[Line]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(tell("eval_unreadable", file=file.name)) from error
    return parsed(text, file.name)


def parsed(text: str, name: str) -> list[Line]:
    """The lines of a file of that name. Raises UserError with the number of one that cannot be used."""
    rows = re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff"))  # no other sign that ends a line does so in JSON
    lines = [_line(row, number, name) for number, row in enumerate(rows, 1) if row.strip()]
    if not lines:
        raise UserError(tell("eval_empty", file=name))
    return lines


def written(lines: Sequence[Line]) -> str:
    """The file that `parsed` reads."""
    rows = ({"question": line.question, "answers": list(line.answers), "document": line.document} for line in lines)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


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


async def _tried(answers: Answers, line: Line, kb: str, options: AnswerOptions) -> Outcome:
    asked = Question(line.question, (kb,), "eval", platform="eval", options=options, trial=True)
    considered: Considered | None = None
    started = time.perf_counter()
    async with aclosing(answers.answer(asked)) as events:
        async for event in events:
            if isinstance(event, Considered):
                considered = event
            elif isinstance(event, Finished):
                took = (time.perf_counter() - started) * 1000
                return _outcome(line, considered, event, took)
    raise AssertionError("every answer ends with Finished")


def _outcome(line: Line, considered: Considered | None, finished: Finished, took: float) -> Outcome:
    passages, plan = (considered.passages, considered.plan) if considered else ((), None)
    rank = _rank(passages[:_DEEPEST], line.document)
    holds = contains(finished.text, line.answers)
    is_used = line.document in (passage.document for passage in passages[: plan.top_k if plan else 0])
    problem: Problem = ""
    if not line.document:
        problem = "answered" if finished.answered else ""
    elif not is_used:
        problem = "missed"
    elif not finished.answered:
        problem = "refused"
    elif line.answers and not holds:
        problem = "words"
    return Outcome(rank, holds, finished.answered, took, problem, finished.text, plan)


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
