"""kill -9 of `kvasir up bots` at random moments, with questions in flight on Slack, Discord and Telegram, each sent 4
times; in the end every question has exactly one visible answer, letter by letter the expected one.

`python -m bench kill_chat` does it 200 times; the tests do it a few times.
"""

from __future__ import annotations

import asyncio
import logging
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.fakes.chats import PLATFORMS, Asked, Chats, Process, chats

KILLS: Final = 200
COPIES: Final = 4
_REPLY: Final = "You asked «{question}», and this is the answer to it. " * 6 + "It stands in the handbook [1]."
_TOKEN_SECONDS: Final = 0.004
_LONGEST_LIFE: Final = 4.0
"""Seconds from a start to the kill at most, about twice what a start takes."""
_PATIENCE: Final = 90.0


def main() -> None:
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(drill(Path(folder), kills=KILLS, seed=1)))


async def drill(
    folder: Path,
    *,
    kills: int,
    seed: int,
    longest_life: float = _LONGEST_LIFE,
    process_of: Callable[[Path, dict[str, str]], Process] = Process,
) -> str:
    """Run it in `folder`; raises AssertionError where an answer is missing, doubled or other; gives one sentence."""
    chance = random.Random(seed)
    async with chats() as world:
        script = {
            "KVASIR_ANSWER__ENGINE": "scripted",
            "KVASIR_SCRIPTED__REPLY": _REPLY,
            "KVASIR_SCRIPTED__TOKEN_SECONDS": str(_TOKEN_SECONDS),
        }
        with process_of(folder / "data", {**world.settings(), **script}) as process:
            await asyncio.to_thread(process.prepare)
            asked: list[Asked] = []
            in_flight = 0
            started = time.monotonic()
            for _ in range(kills):
                process.start()
                life = chance.uniform(longest_life / 8, longest_life)
                moments = sorted(chance.uniform(0, life) for _ in PLATFORMS)
                begun = time.monotonic()
                for platform, moment in zip(chance.sample(PLATFORMS, len(PLATFORMS)), moments, strict=True):
                    await asyncio.sleep(max(0.0, begun + moment - time.monotonic()))
                    asked.append(
                        await world.ask(platform, f"How long is leave number {len(asked)}?", len(asked), COPIES)
                    )
                await asyncio.sleep(max(0.0, begun + life - time.monotonic()))
                in_flight += sum(not _stands(world, one) for one in asked)
                process.kill()
            process.start()
            await _until_all_stand(world, asked, process)
            await asyncio.sleep(2.0)  # what would stand there twice by now does
            spent = time.monotonic() - started
            status = await asyncio.to_thread(process.end)
            assert status == 0, f"it ended with status {status} when told to stop:\n{process.log()[-2000:]}"
    wrong = [(one, world.answers(one)) for one in asked if not _is_right(world, one)]
    assert not wrong, f"{len(wrong)} of {len(asked)} questions are not answered as they should be: {wrong[:3]}"
    left = sum(len(world.answers(one)) - 1 for one in asked)
    return (
        f"{kills} kills in {spent:.0f} s, with {in_flight / max(1, kills):.0f} questions unanswered at each: "
        f"{len(asked)} questions on {len(PLATFORMS)} platforms, each sent {COPIES} times, have one answer each, "
        f"byte-equal to the expected text; {left} empty placeholder messages were left behind"
    )


def expected(one: Asked) -> str:
    return _REPLY.replace("{question}", one.text).removesuffix("[1].")


def _finals(world: Chats, one: Asked) -> Sequence[str]:
    """Messages that hold any of the answer's text."""
    return [text for text in world.answers(one) if "You asked" in text]


def _stands(world: Chats, one: Asked) -> bool:
    return any(expected(one) in text for text in _finals(world, one))


def _is_right(world: Chats, one: Asked) -> bool:
    finals = _finals(world, one)
    return len(finals) == 1 and finals[0].startswith(expected(one))


async def _until_all_stand(world: Chats, asked: Sequence[Asked], process: Process) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and not all(_stands(world, one) for one in asked):
        await asyncio.sleep(0.1)
    missing = [(one, world.answers(one)) for one in asked if not _stands(world, one)]
    assert not missing, f"{len(missing)} of {len(asked)} are not answered: {missing[:3]}\n{process.log()[-3000:]}"
