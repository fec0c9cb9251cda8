"""Unanswered questions are put together by what they are about."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import insert

from core.db.session import Database
from core.db.tables import AnswerRow, ReviewRow, now
from core.quality.gaps import MOST, Gaps
from core.quality.selection import Selection
from tests.core.test_conversation import answered
from tests.fakes.embedder import HashEmbedder

pytestmark = pytest.mark.anyio

ALL = Selection()


async def refused(db: Database, question: str, days: float = 1, person: str = "ann", **values: object) -> str:
    at = now() - timedelta(days=days)
    return await answered(db, None, question, person, answered=False, passages=[], created_at=at, **values)


@pytest.mark.parametrize("embedder", [None, HashEmbedder()])
async def test_the_same_subject_is_one_gap_the_largest_first(db: Database, embedder: HashEmbedder | None) -> None:
    for days, question in (
        (2, "Where can I park my car?"),
        (3, "where can I park my car"),
        (40, "May I park my car here?"),
    ):
        await refused(db, question, days, person=f"p{days}")
    await refused(db, "年假有多少天？", 1)
    await refused(db, "我的年假有多少天？", 2)
    await refused(db, "Is there fish on Fridays?", 5, kbs=["menu"])
    await answered(db, None, "Where can I park my car?")
    first, second, third = await Gaps(db, lambda: embedder).list(ALL)
    assert (first.question, first.size, first.people, len(first.questions)) == ("Where can I park my car?", 3, 3, 3)
    assert first.weeks == (0, 0, 1, 0, 0, 0, 0, 2)
    assert first.trend == pytest.approx(1 / 3)
    assert first.last_at > first.first_at
    assert (second.size, "年假" in second.question) == (2, True)
    assert (third.question, third.kbs, third.answers[1:]) == ("Is there fish on Fridays?", ("menu",), ())


async def test_what_was_solved_or_may_not_be_seen_is_no_gap(db: Database) -> None:
    solved = await refused(db, "Where can I park?")
    working = await refused(db, "Is there fish?")
    await refused(db, "Who is let go?", kbs=["kb", "secret"])
    await refused(db, "An evaluation's question?", platform="eval")
    async with db.session() as session:
        session.add_all([ReviewRow(answer_id=solved, state="solved"), ReviewRow(answer_id=working, state="working")])
    found = await Gaps(db, lambda: None).list(Selection(allowed=("kb",)))
    assert [gap.answers for gap in found] == [(working,)]
    assert await Gaps(db, lambda: None).list(Selection(until=now() - timedelta(days=2))) == []


async def test_only_the_latest_questions_are_looked_at(db: Database) -> None:
    row = {"person": "p", "platform": "web", "kbs": ["kb"], "text": "", "state": "complete", "answered": False}
    rows = [
        {**row, "question": f"word{n} thing{n}", "standalone_question": "", "created_at": now() - timedelta(minutes=n)}
        for n in range(MOST + 5)
    ]
    async with db.session() as session:
        await session.execute(insert(AnswerRow), rows)
    found = await Gaps(db, lambda: None).list(ALL)
    assert sum(gap.size for gap in found) == MOST
