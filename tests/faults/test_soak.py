"""Thousands of questions leave nothing behind but their records (fault 96)."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from dataclasses import dataclass

import psutil
import pytest
from sqlalchemy import func, select

from bots.handler import ChatHandler
from core.db.tables import AnswerRow
from core.types import Mention, Person, Place, Role, Thumb
from tests.bots.conftest import Front, front
from tests.fakes.platform import FakePlatform

__all__ = ["front"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ANN = Person("user:ann", "Ann", Role.OWNER)
ROUND = 150
ROUNDS = 5


@dataclass(frozen=True)
class Held:
    """What the process holds on to."""

    blocks: int
    """Pieces of memory the interpreter has given out; whatever is kept of a question is one at least."""
    tasks: int
    threads: int
    files: int

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        blocks = sys.getallocatedblocks()
        return cls(blocks, len(asyncio.all_tasks()), threading.active_count(), psutil.Process().num_fds())


async def ask_many(front: Front, handler: ChatHandler, begin: int) -> None:
    """A round of questions: in threads of their own and in old ones, refused, stopped, failing and rated."""
    platform = FakePlatform()
    for number in range(begin, begin + ROUND):
        front.house.engine.fail_after = 1 if number % 9 == 8 else None
        thread = str(number if number % 2 else number % 10)
        kbs = ("nowhere",) if number % 11 == 10 else ()
        mention = Mention(Place("fake", "W", "C", thread), str(number), ANN, f"How long is leave {number}?", kbs=kbs)
        task = asyncio.create_task(handler.on_mention(platform, mention))
        if number % 7 == 6:
            await asyncio.sleep(0.001)
            task.cancel()
        await asyncio.wait([task])
        if number % 5 == 0 and (answer := platform.answers[-1]).finished:
            await handler.on_thumb(Thumb(answer.finished.answer_id, ANN, 1))
        platform.answers.clear()
    await front.house.answers.close()
    front.house.engine.asked.clear()
    front.house.search.asked.clear()


async def test_thousands_of_questions_leave_nothing_behind(front: Front) -> None:
    """Protection: lines, tasks, streams and sessions end with their question (`bots/turns.py`, `core/answer.py`)."""
    front.house.engine.size = 20
    front.house.engine.text = "Annual leave is 28 days [1]."
    handler = ChatHandler(front.kvasir)
    held = []
    for number in range(ROUNDS):
        await ask_many(front, handler, number * ROUND)
        held.append(Held.now())
    _, _, before, *_, after = held  # the first rounds fill caches
    assert (after.tasks, after.threads, after.files) == (before.tasks, before.threads, before.files)
    assert after.blocks - before.blocks < 1.0 * ROUND * (ROUNDS - 3), held  # a line left behind is a dozen a question
    assert front.house.engine.running == 0
    async with front.house.db.read() as session:
        assert (await session.scalar(select(func.count()).select_from(AnswerRow)) or 0) > 0.6 * ROUND * ROUNDS
