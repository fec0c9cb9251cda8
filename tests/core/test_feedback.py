"""One vote for each answer and person; the last one counts."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path

import pytest

from core.db.session import Database
from core.errors import NotFound, UserError
from core.quality.feedback import Feedback, as_csv, cell
from tests.core.test_conversation import ANN, BOB, answered

pytestmark = pytest.mark.anyio


@pytest.fixture
def feedback(db: Database) -> Feedback:
    return Feedback(db)


async def test_the_last_vote_counts(db: Database, feedback: Feedback) -> None:
    answer = await answered(db, None, "How long?")
    await feedback.rate(answer, ANN, 1)
    rating = await feedback.rate(answer, ANN, -1, "  too short ")
    assert (rating.value, rating.reason, rating.person) == (-1, "too short", ANN)
    await feedback.rate(answer, BOB, 1)
    assert await feedback.totals() == (1, 1)
    assert [(item.person, item.value) for item in await feedback.list()] == [(BOB, 1), (ANN, -1)]


async def test_withdrawing_leaves_nothing_and_voting_again_works(db: Database, feedback: Feedback) -> None:
    answer = await answered(db, None, "How long?")
    await feedback.withdraw(answer, ANN)
    await feedback.rate(answer, ANN, -1, "why")
    await feedback.withdraw(answer, ANN)
    assert await feedback.rating(answer, ANN) is None
    assert await feedback.list() == []
    await feedback.rate(answer, ANN, 1)
    rating = await feedback.rating(answer, ANN)
    assert rating is not None
    assert (rating.value, rating.reason) == (1, "")


async def test_a_thousand_flips_are_one_vote(db: Database, feedback: Feedback) -> None:
    answer = await answered(db, None, "How long?")
    await asyncio.gather(*(feedback.rate(answer, ANN, 1 if turn % 2 else -1) for turn in range(40)))
    assert sum(await feedback.totals()) == 1


@pytest.mark.parametrize(("value", "reason"), [(0, ""), (2, ""), (1, "x" * 2001)])
async def test_what_is_no_vote_is_refused(db: Database, feedback: Feedback, value: int, reason: str) -> None:
    answer = await answered(db, None, "How long?")
    with pytest.raises(UserError):
        await feedback.rate(answer, ANN, value, reason)
    assert await feedback.totals() == (0, 0)


async def test_only_answers_that_exist_can_be_rated(feedback: Feedback) -> None:
    with pytest.raises(NotFound):
        await feedback.rate("0" * 32, ANN, 1)


async def test_lists_can_be_paged_and_narrowed(db: Database, feedback: Feedback) -> None:
    for number in range(4):
        answer = await answered(db, None, f"question {number}")
        await feedback.rate(answer, ANN, 1 if number % 2 else -1)
    assert [item.question for item in await feedback.list(value=-1)] == ["question 2", "question 0"]
    assert [item.question for item in await feedback.list(limit=2, offset=1)] == ["question 2", "question 1"]
    item = (await feedback.list(limit=1))[0]
    assert (item.answer, item.sources, item.kbs, item.engine) == ("28 days [1].", ("leave.md",), ("kb",), "fake")


async def test_export(db: Database, feedback: Feedback, tmp_path: Path) -> None:
    answer = await answered(db, None, "=cmd|'/c calc'!A1")
    await feedback.rate(answer, ANN, -1, "@SUM(1+1)\n第二行")
    assert await feedback.export(tmp_path / "out.csv") == 1
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text("utf-8-sig").splitlines(keepends=True)))
    assert rows[0]["question"] == "'=cmd|'/c calc'!A1"
    assert rows[0]["reason"] == "'@SUM(1+1)\n第二行"
    assert await feedback.export(tmp_path / "out.jsonl") == 1
    kept = json.loads((tmp_path / "out.jsonl").read_text("utf-8"))
    assert kept["question"] == "=cmd|'/c calc'!A1"
    assert kept["sources"] == ["leave.md"]
    for bad in (tmp_path / "out.xlsx", tmp_path / "no" / "folder.csv"):
        with pytest.raises(UserError):
            await feedback.export(bad)


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", " =1", "\t=1", "\r=1", "＝1", "\u3000=1", "|x", "%0A"])
async def test_no_cell_is_a_formula(text: str) -> None:
    assert cell(text) == "'" + text


async def test_plain_cells_are_left_alone() -> None:
    assert [cell(text) for text in ("a=1", "1-2", "", "年假")] == ["a=1", "1-2", "", "年假"]
    assert as_csv([]).startswith("\ufeffanswer_id,value,reason")
