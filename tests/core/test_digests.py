"""Summaries of what was asked: what they say, where they go, and that each goes once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import select

from core import scheduled
from core.app import Kvasir
from core.chats import digests
from core.chats.channels import Channels
from core.chats.outbox import Outbox
from core.db.session import Database
from core.db.tables import AnswerRow, RatingRow, ScheduleRow, now
from core.errors import UserError
from core.settings import load
from core.types import Place
from core.work.jobs import Jobs

pytestmark = pytest.mark.anyio

HERE, THERE = Place("slack", "T1", "C1"), Place("discord", "G1", "5")


@dataclass
class Office:
    db: Database
    kvasir: Kvasir

    async def ask(self, question: str, place: Place, *, answered: bool = True, value: int = 0, days: int = 0) -> None:
        row = AnswerRow(
            person="ann", platform=place.platform, workspace=place.workspace, channel=place.channel, question=question,
            standalone_question=question, answered=answered, created_at=now() - timedelta(days=days, hours=1),
        )  # fmt: skip
        async with self.db.session() as session:
            session.add(row)
            await session.flush()
            if value:
                session.add(RatingRow(answer_id=row.id, person="bob", value=value))

    async def run(self, run_id: str, **settings: Any) -> str:
        """The job of a schedule's run, as often as it is done."""
        jobs = Jobs(self.db)
        job = await jobs.add("digest", {"settings": settings, "target": "", "run": run_id})
        return await digests.run(self.kvasir, job)

    async def posted(self) -> dict[str, str]:
        found, _ = await self.kvasir.outbox.list()
        assert {one.purpose for one in found} <= {"digest"}
        return {f"{one.place.platform}:{one.place.workspace}:{one.place.channel}": one.text for one in found}


@pytest.fixture
async def office(db: Database, tmp_path: Path) -> Office:
    settings = load(data_dir=tmp_path, language="en")
    kvasir = SimpleNamespace(
        db=db, settings=settings, channels=Channels(db, settings.channels), outbox=Outbox(db)
    )  # fmt: skip
    return Office(db, cast(Kvasir, kvasir))


async def test_a_channel_hears_what_was_asked_in_it_once(office: Office) -> None:
    await office.kvasir.channels.change(HERE, "user:1", digest="weekly")
    await office.kvasir.channels.change(THERE, "user:1", digest="daily")
    assert "0; places where nothing was asked: 1" in await office.run("r0", period="weekly")
    await office.ask("How long is annual leave?", HERE, value=1)
    await office.ask("Who feeds the [cat](https://evil.example)?", HERE, answered=False, value=-1, days=3)
    await office.ask("And long ago?", HERE, answered=False, days=9)
    await office.ask("Elsewhere?", THERE, answered=False)
    done = await asyncio.gather(*(office.run("r1", period="weekly") for _ in range(3)))
    assert sorted(done)[-1].startswith("Summaries on their way: 1")
    ((place, text),) = (await office.posted()).items()
    assert place == "slack:T1:C1"
    assert "Questions: 2 · answered: 1 · 👍 1 · 👎 1" in text
    assert "Who feeds the cat" in text
    assert "`https://evil.example`" in text  # as code, which leads nowhere
    assert "found nothing" in text
    assert "rated 👎" in text
    assert "long ago" not in text
    assert "Elsewhere" not in text
    await office.run("r2", period="weekly")  # the next week
    assert (await office.kvasir.outbox.list())[1] == 2


async def test_a_schedule_posts_about_everything_where_it_was_told_to(office: Office) -> None:
    await office.ask("In C1?", HERE, answered=False)
    await office.ask("In discord?", THERE, value=-1)
    await office.ask("A trial of the console", Place("console"), answered=False)
    await office.run("r1", period="daily", place="slack:T1:C9", everything=True)
    text = (await office.posted())["slack:T1:C9"]
    assert "Questions: 2" in text
    assert "In C1?" in text
    assert "In discord?" in text
    assert "trial" not in text
    await office.run("r2", period="daily", place="slack:T1:C8", everything=True, unanswered=False, down=False)
    assert "In" not in (await office.posted())["slack:T1:C8"].partition("👎")[2]
    await office.run("r3", period="daily", place="slack:T1:C7", everything=False)
    assert "slack:T1:C7" not in await office.posted()  # nobody asked there
    for bad in ({"period": "yearly"}, {"place": "slack"}, {"place": "slack:T1"}):
        with pytest.raises(UserError):
            await office.run("r4", **bad)


async def test_wanting_one_makes_its_schedule_once(office: Office) -> None:
    async with office.db.read() as session:
        assert (await session.scalars(select(ScheduleRow))).all() == []
    await asyncio.gather(*(office.kvasir.channels.change(HERE, "user:1", digest="daily") for _ in range(3)))
    await digests.ensure_wanted(office.kvasir)
    async with office.db.read() as session:
        (row,) = (await session.scalars(select(ScheduleRow))).all()
    assert (row.kind, row.cron, row.enabled, row.created_by) == ("digest", "0 9 * * *", True, "system")
    assert scheduled.checked("digest", row.settings) == row.settings  # as a person may set it
