"""CPU of one question around the search and the engine, which are stubs here: history, prompt, safe text, record."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.common import ratio
from core.db import migrate
from core.db.session import Database
from core.types import Place, Prompt, Sampling
from tests.fakes.engine import FakeEngine
from tests.fakes.house import House, furnished

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
        sides = {"bare loop": bare(house), "answer": alone(house), "answer in a conversation": await talking(house)}
        found: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(ROUNDS + 1):  # the first warms up
            for name, ask in sides.items():
                took = await cpu(ask)
                if number:
                    found[name].append(took)
        await house.answers.close()
        await db.close()
    base = found.pop("bare loop")
    print(f"bare loop over the same {len(ANSWER) // PIECE} pieces: {statistics.median(base):.2f} ms")
    for name, values in found.items():
        streams = 2 if "conversation" in name else 1  # there the engine also rewrites the question
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
        return "".join([piece async for piece in engine.stream(Prompt((), "", ()), Sampling(512, 0.0))])

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
