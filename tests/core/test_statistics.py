"""Figures add up, over time and by place, knowledge base and model, and show nobody what they may not see."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.answering.conversation import Conversations
from core.db.session import Database
from core.db.tables import ChannelRow
from core.errors import UserError
from core.quality.feedback import Feedback
from core.quality.figures import Figures, Latency, normal
from core.quality.selection import Selection
from core.quality.statistics import Statistics
from tests.core.test_conversation import ANN, BOB, answered

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
Ask = Callable[..., Coroutine[Any, Any, str]]


@pytest.fixture
def statistics(db: Database) -> Statistics:
    return Statistics(db)


@pytest.fixture
def ask(db: Database) -> Ask:
    async def asked(at: datetime = NOON, question: str = "How long is leave?", **values: Any) -> str:
        given = {"platform": "slack", "workspace": "T1", "channel": "C1", "model": "m", "created_at": at, **values}
        return await answered(db, None, question, **given)

    return asked


def around(hours: float = 6, **values: Any) -> Selection:
    return Selection(NOON - timedelta(hours=hours), NOON + timedelta(hours=hours), **values)


async def test_totals_stand_beside_those_of_the_time_before(db: Database, statistics: Statistics, ask: Ask) -> None:
    times = [100.0, 200.0, 300.0, 400.0]
    ids = [await ask(total_ms=total, first_token_ms=total / 2, prompt_tokens=10, answer_tokens=5) for total in times]
    await ask(answered=False, total_ms=500.0)
    await ask(answered=False, state="failed", error="down", total_ms=60_000.0)
    await ask(answered=False, state="stopped")
    await ask(state="replaced")
    await ask(platform="eval")
    await ask(NOON - timedelta(hours=8), answered=False)
    await ask(NOON - timedelta(hours=30))
    feedback = Feedback(db)
    await feedback.rate(ids[0], ANN, 1)
    await feedback.rate(ids[0], BOB, -1)
    await feedback.rate(ids[1], BOB, 1)
    await feedback.withdraw(ids[1], BOB)
    found = await statistics.overview(around())
    assert found.totals == Figures(
        questions=7,
        answered=4,
        refused=1,
        failed=1,
        stopped=1,
        up=1,
        down=1,
        first_token=Latency(125, 192),
        total=Latency(300, 480),
        prompt_tokens=40,
        answer_tokens=20,
    )
    assert (found.before.questions, found.before.refused, found.before.total) == (1, 1, None)


async def test_hours_and_days_follow_each_other_without_gaps(statistics: Statistics, ask: Ask) -> None:
    await ask()
    hours = (await statistics.overview(around(3))).points
    assert [point.at.hour for point in hours] == [9, 10, 11, 12, 13, 14]
    assert [point.figures.questions for point in hours] == [0, 0, 0, 1, 0, 0]
    days = (await statistics.overview(around(60))).points
    assert [point.at.day for point in days] == [8, 9, 10, 11, 12]
    assert [point.figures.questions for point in days] == [0, 0, 1, 0, 0]
    assert (await statistics.overview(around(24 * 70))).step == "week"


async def test_a_day_begins_at_midnight_of_the_zone(statistics: Statistics, ask: Ask) -> None:
    await ask(datetime(2026, 3, 10, 17, tzinfo=UTC))
    there = await statistics.overview(around(60), "Asia/Shanghai")
    (day,) = [point for point in there.points if point.figures.questions]
    assert (day.at.day, day.at.hour, day.at.utcoffset()) == (11, 0, timedelta(hours=8))


async def test_days_of_a_change_of_the_clock_come_once_each(statistics: Statistics, ask: Ask) -> None:
    change = datetime(2026, 3, 29, 1, tzinfo=UTC)
    await ask(change + timedelta(hours=20))
    selection = Selection(change - timedelta(days=3), change + timedelta(days=3))
    points = (await statistics.overview(selection, "Europe/Berlin")).points
    assert [point.at.day for point in points] == [26, 27, 28, 29, 30, 31, 1]
    assert [point.figures.questions for point in points] == [0, 0, 0, 1, 0, 0, 0]


async def test_figures_by_place_base_and_model(db: Database, statistics: Statistics, ask: Ask) -> None:
    async with db.session() as session:
        session.add(ChannelRow(platform="slack", workspace="T1", channel="C1", name="help-hr"))
    up = await ask(kbs=["handbook", "人事"], total_ms=100.0)
    await ask(kbs=["handbook"], channel="C2", engine="extractive", model="", answered=False)
    await ask(kbs=["thread-" + "0" * 32], platform="web", workspace="", channel="user:ann")
    await Feedback(db).rate(up, ANN, 1)
    found = await statistics.by(around())
    assert [(item.name, item.figures.questions) for item in found["platform"]] == [("slack", 2), ("web", 1)]
    assert [item.name for item in found["channel"]] == ["help-hr", "C2"]
    assert found["channel"][0].key == {"platform": "slack", "workspace": "T1", "channel": "C1"}
    bases = {item.name: item.figures for item in found["kb"]}
    assert (bases["handbook"].questions, bases["handbook"].refused, bases["handbook"].up) == (2, 1, 1)
    assert (bases["人事"].questions, bases["人事"].total) == (1, Latency(100, 100))
    assert [item.key for item in found["kb"] if item.name == "Files sent in threads"] == [{}]
    assert {item.name: item.key for item in found["model"]} == {
        "m": {"engine": "fake", "model": "m"},
        "extractive": {"engine": "extractive", "model": ""},
    }


@pytest.mark.parametrize(
    ("narrowed", "count"),
    [
        ({"platform": "discord"}, 1),
        ({"platform": "slack", "workspace": "T1", "channel": "C2"}, 1),
        ({"kb": "人事"}, 1),
        ({"kb": "hand"}, 0),
        ({"kb": "handbook"}, 3),
        ({"engine": "extractive", "model": ""}, 1),
        ({"platform": "eval"}, 1),
        ({"allowed": ("handbook",)}, 1),
        ({"allowed": ("handbook", "人事")}, 2),
        ({"allowed": ()}, 0),
    ],
)
async def test_every_figure_can_be_narrowed_down(
    statistics: Statistics, ask: Ask, narrowed: dict[str, Any], count: int
) -> None:
    """Protection: `allowed` keeps answers out that rest on a knowledge base not named in it, also on one of several."""
    await ask(kbs=["handbook", "人事"], answered=False, question="a")
    await ask(kbs=["handbook"], platform="discord", answered=False, question="b")
    await ask(kbs=["secret", "handbook"], channel="C2", engine="extractive", model="", answered=False, question="c")
    await ask(kbs=["人事"], platform="eval", answered=False, question="d")
    selection = around(**narrowed)
    assert (await statistics.overview(selection)).totals.questions == count
    assert (await statistics.unanswered(selection))[1] == count
    assert sum(item.figures.questions for item in (await statistics.by(selection))["platform"]) == count
    assert bool((await statistics.choices(selection)).platforms) == bool(count)


async def test_unanswered_questions_are_grouped_however_they_are_written(statistics: Statistics, ask: Ask) -> None:
    await ask(answered=False, question="Where do I park?")
    await ask(answered=False, question="Who pays?")
    last = await ask(NOON + timedelta(hours=1), answered=False, question="where do I PARK ")
    await ask(question="Where do I park?")
    found, total = await statistics.unanswered(around(), limit=1)
    assert total == 2
    assert [(item.question, item.count, item.answer_id) for item in found] == [("where do I PARK ", 2, last)]
    assert normal("如何请假？") == normal("如何请假")
    assert normal("C++ or C?") != normal("D?")


async def test_what_there_is_to_choose_from(db: Database, statistics: Statistics, ask: Ask) -> None:
    place = await Conversations(db).start("web", ANN)
    await ask(platform="web", workspace="", channel=ANN, kbs=["thread-" + place.id])
    await ask(kbs=["b", "a"])
    found = await statistics.choices(around())
    assert (found.platforms, found.kbs, found.models) == (("slack", "web"), ("a", "b"), (("fake", "m"),))
    assert [item.key["channel"] for item in found.channels] == ["C1"]


@pytest.mark.parametrize(
    ("since", "until", "zone"),
    [
        (NOON, NOON, "UTC"),
        (NOON - timedelta(days=400), NOON, "UTC"),
        (NOON - timedelta(days=1), NOON, "Mars/Olympus"),
        (NOON - timedelta(days=1), NOON, "../../etc/passwd"),
    ],
)
async def test_times_that_cannot_be_are_refused_with_a_sentence(
    statistics: Statistics, since: datetime, until: datetime, zone: str
) -> None:
    with pytest.raises(UserError):
        await statistics.overview(Selection(since, until), zone)
