"""When what a worker's model says comes to whoever asked: places in its queue, and words."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from core.types import Queued, Sampling
from tests.serving.worker_process import asking, forked_workers, plan, prompt, worker

__all__ = ["forked_workers"]  # a fixture, found by its name here

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


async def test_an_engine_hears_of_the_queue(tmp_path: Path) -> None:
    wanted = plan(tmp_path, parallel=1, token_seconds=0.05, tokens=1000)
    async with worker(wanted) as found, asking(found, wanted) as asked:
        first, second, third = (asked.stream(prompt("word"), Sampling()) for _ in range(3))
        assert await anext(first) == "word"
        assert await anext(second) == Queued(1)
        assert await anext(third) == Queued(2)
        await first.aclose()
        assert [await anext(second), await anext(second)] == [Queued(0), "word"]
        assert await anext(third) == Queued(1)
        await second.aclose()
        assert [await anext(third), await anext(third)] == [Queued(0), "word"]
        await third.aclose()


async def test_what_was_said_comes_though_the_model_hangs_on_the_next_word(tmp_path: Path) -> None:
    """The first word at once; those that were being gathered soon after, though nobody says more."""
    wanted = plan(tmp_path, "hang@5", token_seconds=0.001, reply="one two three four five")
    async with worker(wanted) as found, asking(found, wanted) as asked:
        said = asked.stream(prompt(), Sampling())
        pieces = [str(await anext(said))]
        async with asyncio.timeout(10):
            while "".join(pieces) != "one two three four":
                pieces.append(str(await anext(said)))
        await said.aclose()


async def test_fast_words_come_in_few_pieces(tmp_path: Path) -> None:
    """What costs is to be woken, and not what is read then."""
    wanted = plan(tmp_path, token_seconds=0.002, tokens=200)
    async with worker(wanted) as found, asking(found, wanted) as asked:
        pieces = [str(piece) async for piece in asked.stream(prompt("word"), Sampling())]
        assert "".join(pieces).split("word")[1:] == [""] * 200
        assert len(pieces) < 50
