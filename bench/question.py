"""CPU of one question around the search and the engine, which are stubs here: history, prompt, safe text, record.

Once alone, and once as it comes from a chat platform (a stub, too): durable inbox, conversation, messages and edits.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from bench.common import ratio
from bots.handler import ChatHandler
from bots.inbox import Inbox
from bots.intake import Intake
from core.chats.channels import Channels
from core.db import migrate
from core.db.session import Database
from core.identity.accounts import Accounts
from core.kb.grants import Grants
from core.kb.knowledge import Knowledge
from core.kb.temporary import TemporaryBases
from core.quality.feedback import Feedback
from core.types import Capabilities, Mention, Place, Prompt, Sampling
from core.work.limits import Limits
from core.work.presence import Presence
from tests.fakes.engine import FakeEngine, text_of
from tests.fakes.house import House, furnished
from tests.fakes.messenger import ANN, PLACE, FakeMessenger

ANSWER = "Annual leave is 28 days a year, and more after ten years of work for the company [1]. " * 3
PIECE = 4
QUESTIONS = 100
ROUNDS = 5


def main() -> None:
    asyncio.run(measure())


async def measure() -> None:
    with tempfile.TemporaryDirectory() as folder:
        db = Database(f"sqlite+aiosqlite:///{folder}/kvasir.db")
        await migrate.upgrade(db)
        house = await furnished(db, Path(folder))
        house.replace_engine(FakeEngine(ANSWER, size=PIECE))
        intake = chat(house)
        sides = {
            "bare loop": bare(house),
            "answer": alone(house),
            "answer in a conversation": await talking(house),
            "chat, a new thread each": asked(intake, new_thread=True),
            "chat, in one thread": asked(intake, new_thread=False),
        }
        found: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(ROUNDS + 1):  # the first warms up
            for name, ask in sides.items():
                took = await cpu(ask)
                if number:
                    found[name].append(took)
        await intake.close(1)
        await house.answers.close()
        await db.close()
    base = found.pop("bare loop")
    print(f"bare loop over the same {len(ANSWER) // PIECE} pieces: {statistics.median(base):.2f} ms")
    for name, values in found.items():
        streams = 2 if "one" in name or "conversation" in name else 1  # there the engine also rewrites the question
        ours = sorted(value - streams * bare_loop for value, bare_loop in zip(values, base, strict=True))
        print(
            f"{name}: {statistics.median(ours):.2f} ms of CPU [{ours[0]:.2f}..{ours[-1]:.2f}] beside the engine's "
            f"(bar: ≤ 2 ms); {ratio(values, base)} of the bare loop"
        )


async def cpu(ask: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds of CPU a question, over all threads of this process."""
    before = time.process_time()
    for _ in range(QUESTIONS):
        await ask()
    return (time.process_time() - before) / QUESTIONS * 1000


def bare(house: House) -> Callable[[], Awaitable[str]]:
    async def ask() -> str:
        return await text_of(engine.stream(Prompt((), "", ()), Sampling(512, 0.0)))

    engine = house.current
    assert isinstance(engine, FakeEngine)
    return ask


def alone(house: House) -> Callable[[], Awaitable[object]]:
    return house.ask


async def talking(house: House) -> Callable[[], Awaitable[object]]:
    conversation = await house.conversations.open(Place("terminal", channel="here"), "ann")

    async def ask() -> object:
        return await house.ask(conversation_id=conversation.id)

    return ask


def chat(house: House) -> Intake:
    """What takes questions from a platform that shows an answer by edits, one a second."""
    db, settings = house.db, house.settings
    absent = cast(Any, None)  # nothing is stored or searched here
    kvasir = SimpleNamespace(
        settings=settings,
        answers=house.answers,
        conversations=house.conversations,
        feedback=Feedback(db),
        knowledge=Knowledge(db, absent, absent, settings.splitter),
        grants=Grants(db),
        temporary=TemporaryBases(db, absent, settings.splitter),
        accounts=Accounts(db, settings),
        channels=Channels(db, settings.channels),
        limits=Limits(db, Presence(db)),
        db=db,
    )
    messenger = FakeMessenger(capabilities=Capabilities(4000, "edit", 1.0))
    unlimited = settings.channels.model_copy(
        update={"questions_per_minute": 10**6, "channel_questions_per_minute": 10**6, "reading_back": False}
    )
    kvasir.settings = settings.model_copy(update={"channels": unlimited})
    return Intake(cast(Any, kvasir), ChatHandler(cast(Any, kvasir)), messenger, Inbox(db))


def asked(intake: Intake, *, new_thread: bool) -> Callable[[], Awaitable[object]]:
    numbers = count()

    async def ask() -> object:
        number = f"{new_thread} {next(numbers)}"
        place = replace(PLACE, thread=number if new_thread else "one")
        await intake.take(Mention(place, number, ANN, "How long is annual leave?"))
        return await asyncio.gather(*(work.task for work in intake._working.values() if work.task is not None))

    return ask
