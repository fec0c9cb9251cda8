"""From a 👎 in a chat to a curated answer, and what the next people who ask in that chat get, in both languages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.app import Kvasir
from core.indexing.ingest import Incoming
from core.quality.curated import Rewritten, Written
from core.quality.reviews import Changed, Sought
from core.settings import load
from core.types import Person, Place, Role, Thumb
from core.work.jobs import run_job
from tests.bots.test_thread_files import Desk
from tests.fakes.messenger import ANN, PLACE

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("parser_here")]

RITA = Person("user:" + "a" * 32, "rita", Role.REVIEWER)
CASES = [
    (
        "How many days of annual leave do I get?",
        ("How many annual leave days do I have?", "What is the number of annual leave days per employee?"),
        "How much paid holiday is there?",
        "How many days of sick leave do I get?",
        "Thirty days since May.",
        "leave.md",
    ),
    (
        "年假有多少天？",
        ("我有多少天年假？", "每年有几天年假？"),
        "一年能歇几天？",
        "病假有多少天？",
        "自五月起为三十天。",
        "年假.md",
    ),
]
LEAVE = {
    "leave.md": "# Leave\n\nAnnual leave is 28 days. Sick leave is 10 days.",
    "年假.md": "# 年假\n\n年假为二十八天。病假为十天。",
}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Kvasir.open(load(data_dir=tmp_path, embedder={"kind": "none"})) as kvasir:
        await kvasir.knowledge.create("handbook")
        for name, text in LEAVE.items():
            await bring(kvasir, name, text)
        desk = Desk(kvasir)
        yield desk
        await desk.intake.close(1)


async def bring(kvasir: Kvasir, name: str, text: str) -> None:
    async def files() -> AsyncIterator[Incoming]:
        yield Incoming(name, text.encode)

    ticket = await kvasir.ingest.submit("handbook", files(), claimed=True)
    await run_job(kvasir.jobs, ticket.job, kvasir.run_job)


@pytest.mark.parametrize(("question", "others", "kept", "miss", "text", "document"), CASES)
async def test_a_thumb_down_becomes_an_answer_that_the_next_people_get(
    desk: Desk, question: str, others: tuple[str, ...], kept: str, miss: str, text: str, document: str
) -> None:
    first = await desk.ask("m1", question)
    assert text not in first
    (post,) = desk.messenger.messages
    await desk.intake.take(Thumb("", ANN, -1, "old", place=PLACE, post=post))
    (review,) = (await desk.kvasir.reviews.list(Sought(why="down"))).items
    assert (review.question, [one.reason for one in review.complaints]) == (question, ["old"])
    made = await desk.kvasir.curated.add(
        "handbook", Written(question, text, (kept,), answer_id=review.answer_id), RITA.name
    )
    assert [one.name for one in made.rests_on] == [document]
    await desk.kvasir.reviews.change(
        review.answer_id, Changed("solved", cure={"kind": "curated", "object": made.id}), RITA
    )
    for number, asked in enumerate((question, kept, *others)):
        said = await desk.ask(f"n{number}", asked, place=Place("fake", "W", "C", f"thread {number}"))
        assert text in said
    near = await desk.ask("near", miss, place=Place("fake", "W", "C", "thread near"))
    assert text not in near.split("\n")[0]
    assert (await desk.kvasir.curated.get(made.id)).used == 4

    await bring(desk.kvasir, document, LEAVE[document] + "\n\nMore.")
    assert (await desk.kvasir.curated.get(made.id)).state == "review"
    marked = await desk.ask("m8", question, place=Place("fake", "W", "C", "later"))
    assert text in marked
    assert ("复核" if document == "年假.md" else "changed since") in marked
    await desk.kvasir.curated.change(made.id, Rewritten(is_on=False), RITA.name)
    async with asyncio.timeout(30):
        assert text not in await desk.ask("m9", question, place=Place("fake", "W", "C", "last"))


async def test_the_thread_is_known(desk: Desk) -> None:
    await desk.ask("m1", "Who is the king of Norway?")
    (review,) = (await desk.kvasir.reviews.list(Sought(why="unanswered"))).items
    assert (await desk.kvasir.reviews.place(review.answer_id))[0] == PLACE
