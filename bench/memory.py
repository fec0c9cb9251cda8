"""Whether memory stays flat while 100,000 questions go through the intake of a chat platform, from many people.

The platform and the engine are stand-ins, so that nothing but ours can grow.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import tempfile
from pathlib import Path
from typing import Final

import psutil

from bots.handler import ChatHandler
from bots.inbox import Inbox
from bots.intake import Intake
from core.app import Kvasir
from core.settings import load
from core.types import Capabilities, Mention, Person, Place
from tests.fakes.messenger import FakeMessenger

QUESTIONS: Final = int(os.environ.get("KVASIR_BENCH_QUESTIONS", "100000"))
_AT_ONCE: Final = 20
_WARM_UP: Final = QUESTIONS // 10


def main() -> None:
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(measure(Path(folder))))


async def measure(folder: Path) -> str:
    settings = load(
        data_dir=folder / "data",
        embedder={"kind": "none"},
        answer={"engine": "scripted", "min_evidence": 0},
    )
    async with Kvasir.open(settings) as kvasir:
        await kvasir.knowledge.create("handbook")
        messenger = FakeMessenger(capabilities=Capabilities(4000, "edit", 0.0))
        intake = Intake(kvasir, ChatHandler(kvasir), messenger, Inbox(kvasir.db))
        process, seen = psutil.Process(), []
        for start in range(0, QUESTIONS, _AT_ONCE):
            for number in range(start, start + _AT_ONCE):
                await intake.take(_mention(number))
            await intake.idle()
            messenger.messages.clear()  # the platform keeps them, not we
            messenger.keys.clear()
            if start % (QUESTIONS // 10) == 0:
                gc.collect()
                seen.append(process.memory_info().rss / 2**20)
        await intake.close(5)
    grown = seen[-1] - seen[1]
    return (
        f"{QUESTIONS} questions: {seen[1]:.0f} MiB after {_WARM_UP}, {seen[-1]:.0f} MiB at the end "
        f"({grown * 2**20 / (QUESTIONS - _WARM_UP):+.0f} bytes a question); "
        f"on the way {', '.join(f'{value:.0f}' for value in seen)}"
    )


def _mention(number: int) -> Mention:
    person = Person(f"fake:W:{number % 500}", f"Person {number % 500}", member=True)
    place = Place("fake", "W", f"C{number % 50}", f"T{number // 3}")
    return Mention(place, f"m{number}", person, f"How long is leave number {number}?")
