"""The simulation with real processes, as far as this machine goes: N `kvasir up bots` on a real PostgreSQL, platforms
of ours on loopback, a scripted engine. `python -m bench.simulate --real --processes 1,2` runs it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.chat import First
from bench.common import quantile
from tests.databases import Postgres
from tests.fakes.chats import PLATFORMS, Asked, Chats, Process, chats

_REPLY: Final = "You asked «{question}». It is 28 days a year, and more after ten years of work for the company [1]."
_WARM_UP: Final = 30
_PATIENCE: Final = 120.0
HEAD: Final = (
    "| real processes | questions | asked | first sign p50/p95/p99/longest | whole answer p50/p95/p99/longest "
    "| answered once |"
)


async def measure(folder: Path, processes: int, rate: float, seconds: float) -> str:
    """One row of the table; `folder` is empty."""
    server = Postgres(folder)
    try:
        async with asyncio.timeout(600):
            return await _measured(server, folder, processes, rate, seconds)
    finally:
        server.leave()


async def _measured(server: Postgres, folder: Path, processes: int, rate: float, seconds: float) -> str:
    database = server.database(migrated=True)
    url = await database.__aenter__()
    async with chats() as world:
        world.discord.rest.shards = max(2, processes)
        settings = {
            **world.settings(),
            "KVASIR_DATABASE__URL": url,
            "KVASIR_ANSWER__ENGINE": "scripted",
            "KVASIR_SCRIPTED__REPLY": _REPLY,
            "KVASIR_SCRIPTED__TOKEN_SECONDS": "0.02",
        }
        with ExitStack() as stack:
            running = [stack.enter_context(Process(folder / "data", settings)) for _ in range(processes)]
            await asyncio.to_thread(running[0].prepare)
            for process in running:
                process.start()
            await world.slack.delivery.connected(processes)
            whole: dict[str, float] = {}
            seen = First(world)
            await _ask(world, _WARM_UP, rate, seen, whole, "warm up")
            asked = await _ask(world, int(rate * seconds), rate, seen, whole, "question")
            for process in running:
                await asyncio.to_thread(process.end)
        once = sum(sum("company" in text for text in world.answers(one)) == 1 for one in asked)
    await database.__aexit__(None, None, None)
    waits = [[at.get(one.text, float("inf")) - seen.asked[one.text] for one in asked] for at in (seen.at, whole)]
    shown = (" / ".join(f"{one:.2f}" for one in (*(quantile(w, q) for q in (0.5, 0.95, 0.99)), max(w))) for w in waits)
    cells = (str(processes), str(len(asked)), f"{rate:g} /s", *(f"{one} s" for one in shown), f"{once} of {len(asked)}")
    return f"| {' | '.join(cells)} |"


async def _ask(
    world: Chats, count: int, rate: float, seen: First, whole: dict[str, float], word: str
) -> Sequence[Asked]:
    """So many questions at an even pace, each platform in turn; returns when the answers stand."""
    asked: list[Asked] = []
    open_: list[Asked] = []
    begun = time.perf_counter()

    def look() -> None:
        now = time.perf_counter()
        for one in [one for one in open_ if any("company" in text for text in world.answers(one))]:
            whole[one.text] = now
            open_.remove(one)

    for number in range(count):
        while (left := begun + number / rate - time.perf_counter()) > 0:
            await asyncio.sleep(min(left, 0.02))
            look()
        at = time.perf_counter()
        one = await world.ask(PLATFORMS[number % 3], f"How long is leave, {word} {number}?", number // 3)
        seen.expect(one, at)
        asked.append(one)
        open_.append(one)
    until = time.monotonic() + _PATIENCE
    while open_ and time.monotonic() < until:
        await asyncio.sleep(0.02)
        look()
    return asked
