"""`kvasir up bots` on three chat platforms of ours at 50 questions a second: how soon the first sign of life comes,
whether every question has its answer, what a question costs, and whether memory stays flat.

The platforms run in this process, so on two cores both sides share what there is.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

from bench.common import quantile
from tests.fakes.chats import PLATFORMS, Asked, Chats, Process, chats

A_SECOND: Final = 50
SECONDS: Final = int(os.environ.get("KVASIR_BENCH_SECONDS", "120"))
_WARM_UP: Final = 3 * 20
_REPLY: Final = "You asked «{question}». It is 28 days a year, and more after ten years of work for the company [1]."


def main() -> None:
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(measure(Path(folder))))


async def measure(folder: Path) -> str:
    gc.disable()  # the platforms are not what is measured
    async with chats() as world:
        seen = First(world)
        process = Process(
            folder / "data",
            {
                **world.settings(),
                "KVASIR_ANSWER__ENGINE": "scripted",
                "KVASIR_SCRIPTED__REPLY": _REPLY,
                "KVASIR_SCRIPTED__TOKEN_SECONDS": "0.005",
            },
        )
        await asyncio.to_thread(process.prepare)
        process.start()
        try:
            await ask(world, _WARM_UP, seen, "warm up")
            child = psutil.Process(process.id)
            cpu, memory = _cpu(child), child.memory_info().rss
            asked = await ask(world, A_SECOND * SECONDS, seen, "question")
            spent, grown = _cpu(child) - cpu, child.memory_info().rss - memory
        finally:
            await asyncio.to_thread(process.end)
    late = [(seen.at.get(one.text, float("inf")) - seen.asked[one.text]) * 1000 for one in asked]
    answered = [sum("You asked" in text for text in world.answers(one)) for one in asked]
    doubled = sum(count > 1 for count in answered)
    by = {name: [ms for one, ms in zip(asked, late, strict=True) if one.platform == name] for name in PLATFORMS}
    return "\n".join(
        [
            f"{len(asked)} questions at {A_SECOND} a second: {answered.count(0)} lost, {doubled} doubled",
            f"first reaction: p50 {quantile(late, 0.5):.1f} ms, p99 {quantile(late, 0.99):.1f} ms (bars: 5 and 50) – "
            + ", ".join(f"{name} {quantile(ms, 0.5):.1f}/{quantile(ms, 0.99):.1f}" for name, ms in by.items()),
            f"CPU of a question, client libraries and streaming included: {spent / len(asked) * 1000:.2f} ms",
            f"memory: {memory / 2**20:.0f} MiB, {grown / 2**20:+.1f} MiB after {len(asked)} questions",
        ]
    )


class First:
    """When each question was asked, and when the first message in answer to it was there."""

    def __init__(self, world: Chats) -> None:
        self.asked: dict[str, float] = {}
        self.at: dict[str, float] = {}
        self._waiting: dict[str, str] = {}
        """What identifies the question on its platform -> its text."""
        telegram, discord = world.telegram.world, world.discord.world
        telegram.post = self._after(telegram.post, lambda message, *_: message)  # type: ignore[method-assign]
        discord.keep = self._after(discord.keep, lambda _, message, *__: message)  # type: ignore[method-assign]
        world.slack.channel.messages = _Watched(lambda message: self._note(f"s{message.thread_ts}"))

    def expect(self, one: Asked, begun: float) -> None:
        self.asked[one.text] = begun
        self._waiting[f"s{one.message.ts}" if one.platform == "slack" else _key(one.message)] = one.text

    def _note(self, key: str) -> None:
        text = self._waiting.pop(key, None)
        if text is not None:
            self.at[text] = time.perf_counter()

    def _after(self, put: Callable[..., Any], message_of: Callable[..., Any]) -> Callable[..., Any]:
        """The function, and a look at which question its message answers."""

        def watched(*args: Any, **more: Any) -> Any:
            result = put(*args, **more)
            message = message_of(result, *args)
            answered = getattr(message, "reply_to", None) or getattr(message, "reference", None)
            self._note(_key(answered) if answered else f"{message.channel.id}" if hasattr(message, "channel") else "")
            return result

        return watched


def _key(message: Any) -> str:
    """Of a message on Telegram, whose numbers count in each chat, or Discord, where a thread has its message's id."""
    return f"{message.chat.id}/{message.id}" if hasattr(message, "chat") else f"{message.id}"


class _Watched(list[Any]):
    def __init__(self, note: Callable[[Any], object]) -> None:
        super().__init__()
        self._tell = note

    def append(self, message: Any) -> None:
        super().append(message)
        self._tell(message)


async def ask(world: Chats, count: int, seen: First, word: str) -> list[Asked]:
    """So many questions, at an even pace, each platform in turn; returns when the answers stand."""
    asked: list[Asked] = []
    begun = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, begun + number / A_SECOND - time.perf_counter()))
        now = time.perf_counter()
        one = await world.ask(PLATFORMS[number % 3], f"How long is leave, {word} {number}?", number // 3)
        seen.expect(one, now)
        asked.append(one)
    until = time.monotonic() + 60
    while time.monotonic() < until and not all(_stands(world, one) for one in asked[-300:]):
        await asyncio.sleep(0.2)
    return asked


def _stands(world: Chats, one: Asked) -> bool:
    return any("company" in text for text in world.answers(one))


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
