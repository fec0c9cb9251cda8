"""Drills on real worker processes: whatever happens to one, no question is lost, no place is stuck, nothing is left."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import cast

import pytest

from core.app import Kvasir
from core.engines.local import LocalEngine
from core.errors import EngineUnavailable
from core.inference import tending
from core.serving.client import health, load
from core.serving.house import SharedWorker
from core.serving.plan import Plan
from core.serving.vectors import Vectors
from core.settings import load as load_settings
from core.types import Sampling
from tests.fakes.engine import text_of
from tests.processes import start
from tests.serving.worker_process import (
    TEXT,
    answer,
    asking,
    client,
    engine,
    forked_workers,
    is_gone,
    pid_of,
    plan,
    prompt,
    worker,
)

__all__ = ["forked_workers"]  # a fixture, found by its name here

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

ROOT = Path(__file__).parents[2]


# ---------------------------------------------------------------- one process after the other
@pytest.mark.parametrize("what", ["segv", "poison", "oom", "bug"])
async def test_a_question_that_has_not_begun_is_asked_again(tmp_path: Path, what: str) -> None:
    async with engine(plan(tmp_path, f"{what}@1,once:{tmp_path / 'mark'}")) as asked:
        assert await answer(asked, TEXT) == TEXT


@pytest.mark.parametrize("token", [2, 7])
async def test_an_answer_that_has_begun_ends_visibly(tmp_path: Path, token: int) -> None:
    wanted = plan(tmp_path, f"segv@{token},once:{tmp_path / 'mark'}", token_seconds=0.05)
    async with engine(wanted) as asked:
        said: list[str] = []

        async def listen() -> None:
            async for piece in asked.stream(prompt(TEXT), Sampling()):
                said.append(str(piece))  # noqa: PERF401  what came before the error counts

        with pytest.raises(EngineUnavailable, match=r"interrupted.*SIGSEGV"):
            await listen()
        assert 0 < len("".join(said)) < len(TEXT)
        assert await answer(asked, TEXT) == TEXT


@pytest.mark.parametrize("what", ["hang", "freeze"])
async def test_a_model_that_makes_no_headway_is_replaced(tmp_path: Path, what: str) -> None:
    async with engine(plan(tmp_path, f"{what}@1,once:{tmp_path / 'mark'}", stall=1.0)) as asked:
        assert await answer(asked, TEXT) == TEXT


async def test_a_worker_that_is_killed_from_outside_is_replaced(tmp_path: Path) -> None:
    wanted = plan(tmp_path, token_seconds=0.05, tokens=1000)
    async with worker(wanted) as running, asking(running, wanted) as asked:
        first = await pid_of(running)
        async with aclosing(asked.stream(prompt(), Sampling())) as stream:
            await anext(stream)
            os.kill(first, signal.SIGKILL)
            with pytest.raises(EngineUnavailable, match=r"interrupted.*SIGKILL"):
                _ = [piece async for piece in stream]
        assert await answer(asked, max_tokens=3) == "hello" * 3
        assert await pid_of(running) != first
        assert await is_gone(first)


async def test_one_question_that_kills_takes_no_others_with_it(tmp_path: Path) -> None:
    """Memory runs out over a long prompt, each time: it fails alone, while eight others are answered."""
    async with engine(plan(tmp_path, "prompt:300", parallel=8, token_seconds=0.01)) as asked:

        async def long() -> str:
            try:
                return await answer(asked, "x" * 400)
            except EngineUnavailable as error:
                return str(error)

        said = await asyncio.gather(long(), *(answer(asked, f"{number} {TEXT}") for number in range(8)))
        assert "3 times over this question" in said[0]
        assert said[1:] == [f"{number} {TEXT}" for number in range(8)]
        assert await answer(asked, TEXT) == TEXT


async def test_a_job_that_breaks_breaks_alone(tmp_path: Path) -> None:
    wanted = plan(tmp_path, "break@1,only:bad")
    async with worker(wanted) as running, client(running) as http, asking(running, wanted) as asked:
        first = await pid_of(running)

        async def bad() -> str:
            with pytest.raises(EngineUnavailable, match="break"):
                await answer(asked, "bad")
            return ""

        said = await asyncio.gather(*(bad() if number % 2 else answer(asked, TEXT) for number in range(10)))
        assert said == [TEXT, ""] * 5
        assert await pid_of(running) == first
        assert (await health(http, 5))["active"] == 0


# ---------------------------------------------------------------- loading
@pytest.mark.parametrize(
    ("drill", "sentence"),
    [("load:oom", "not enough memory"), ("load:refuse", "cannot be loaded"), ("load:bug", "5 times")],
)
async def test_what_cannot_be_loaded_is_one_sentence(tmp_path: Path, drill: str, sentence: str) -> None:
    with pytest.raises(EngineUnavailable, match=sentence):
        async with engine(plan(tmp_path, drill)):
            pass
    assert not any(one.suffix in (".sock", ".json") for one in (tmp_path / "workers").iterdir())


async def test_a_process_that_dies_while_loading_is_replaced(tmp_path: Path) -> None:
    async with engine(plan(tmp_path, f"load:segv,once:{tmp_path / 'mark'}")) as asked:
        assert await answer(asked, TEXT) == TEXT


async def test_a_model_that_loads_for_too_long_is_ended(tmp_path: Path) -> None:
    wanted = Plan("scripted", {"drill": "load:hang"}, tmp_path, start_seconds=1.0)
    with pytest.raises(EngineUnavailable, match="not loaded within 1 s"):
        async with engine(wanted):
            pass


async def test_a_python_that_is_not_there_is_said(tmp_path: Path) -> None:
    wanted = Plan("scripted", {}, tmp_path, python=str(tmp_path / "python"))
    with pytest.raises(EngineUnavailable, match="cannot be started"):
        async with engine(wanted):
            pass


async def test_what_is_too_large_is_said_before_it_is_loaded(tmp_path: Path) -> None:
    wanted = Plan("scripted", {"drill": "load:segv"}, tmp_path, memory=1 << 50)
    with pytest.raises(EngineUnavailable, match=r"needs about 1048576\.0 GB of memory"):
        async with engine(wanted):
            pass


async def test_the_load_goes_on_whoever_listens(tmp_path: Path) -> None:
    """A second one that asks for it hears the rest; the first leaves, and nothing is lost."""
    told: list[tuple[str, float]] = []
    wanted = plan(tmp_path, "slow:1")
    running = SharedWorker(wanted, lambda stage, done: told.append((stage, done)))
    opening = asyncio.create_task(running.open())
    note = tmp_path / "workers" / f"{wanted.name}.json"
    async with asyncio.timeout(20):
        while not any(stage == "load" for stage, _ in told):
            await asyncio.sleep(0.01)
    assert note.stat().st_mode & 0o077 == 0
    second = SharedWorker(wanted, lambda _stage, _done: None)
    joining = asyncio.create_task(second.open())
    third = asyncio.create_task(second.open())
    third.cancel()
    assert await opening is None
    assert await joining is None
    assert running.is_own
    assert not second.is_own
    assert [done for stage, done in told if stage == "load"] == sorted(done for stage, done in told if stage == "load")
    async with client(second) as http:
        assert (await load(http, lambda _stage, _done: None)).model == "scripted"
    await second.close()
    await running.close()


# ---------------------------------------------------------------- leaving
async def test_two_hundred_cancels_leave_no_place_taken(tmp_path: Path) -> None:
    wanted = plan(tmp_path, parallel=4, token_seconds=0.001, tokens=500)
    async with worker(wanted) as running, client(running) as http, asking(running, wanted) as asked:
        chance = random.Random(7)

        async def leave() -> None:
            task = asyncio.create_task(answer(asked))
            await asyncio.sleep(chance.uniform(0, 0.05))
            task.cancel()
            await asyncio.wait({task})

        for _ in range(10):
            await asyncio.gather(*(leave() for _ in range(20)))
        async with asyncio.timeout(20):
            while (found := await health(http, 5))["active"] or found["queued"]:
                await asyncio.sleep(0.01)
        assert await answer(asked, max_tokens=2) == "hello" * 2


async def test_the_worker_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Here it is started anew, by a process that is forked."""
    script = (
        "import asyncio, pathlib, sys\n"
        "from tests.serving.worker_process import plan, pid_of, worker\n"
        "async def main():\n"
        "    async with worker(plan(pathlib.Path(sys.argv[1]))) as running:\n"
        "        print(await pid_of(running), flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    wanted = plan(tmp_path)
    other = SharedWorker(wanted, lambda _stage, _done: None)
    with start([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        async with asking(other, wanted) as asked:
            assert await other.open() is None
            assert await answer(asked, TEXT) == TEXT
            assert await pid_of(other) == 0
            parent.kill()
            await asyncio.to_thread(parent.wait)
            assert await is_gone(pid)
            assert await answer(asked, TEXT) == TEXT  # whoever asks next takes its place
            assert await pid_of(other) > 0


async def test_whoever_shares_a_worker_that_is_closed_goes_on(tmp_path: Path) -> None:
    wanted = plan(tmp_path)
    second = SharedWorker(wanted, lambda _stage, _done: None)
    async with worker(wanted) as first, asking(second, wanted) as asked:
        assert await second.open() is None
        assert await answer(asked, TEXT) == TEXT
        assert await pid_of(second) == 0
        await first.close()
        assert await answer(asked, TEXT) == TEXT
        assert await pid_of(second) > 0


async def test_vectors_are_asked_for_again(tmp_path: Path) -> None:
    wanted = plan(tmp_path, f"segv@2,once:{tmp_path / 'mark'}", kind="scripted-vectors")
    vectors = await Vectors.open(wanted, lambda _stage, _done: None)
    try:
        texts = [f"text {number}" for number in range(200)]
        rows = await vectors.embed(texts, query=False)
        assert rows.shape == (200, 64)
        assert (tmp_path / "mark").exists()
        assert (await vectors.embed(texts[150:151], query=True) == rows[150:151]).all()
        assert max(await vectors.rerank("text 3", ["text 3", "moon"])) > 0.9
    finally:
        await vectors.close()


# ---------------------------------------------------------------- in the house
async def test_a_switch_under_twenty_answers_loses_none(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path / "data", embedder={"kind": "none"})
    async with Kvasir.open(settings) as kvasir:
        values = {"process": True, "parallel": 8, "token_seconds": 0.01, "reply": "one two three four"}
        await kvasir.models.add("engine", "poet", "scripted", values)

        async def ask() -> str:
            asked = await kvasir.engines.get("poet")
            return await text_of(asked.stream(prompt(), Sampling()))

        assert await ask() == "one two three four"
        running = [asyncio.create_task(ask()) for _ in range(20)]
        await asyncio.sleep(0.02)
        await kvasir.models.change("poet", {"reply": "five six seven eight"})
        later = [asyncio.create_task(ask()) for _ in range(5)]
        said = await asyncio.gather(*running, *later)
        assert set(said[:20]) <= {"one two three four", "five six seven eight"}
        assert said[20:] == ["five six seven eight"] * 5
        standing = kvasir.engines.pool.standing(kvasir.models.find("engine", "poet"))
        assert (standing.state, standing.active, standing.waiting, standing.ending) == ("ready", 0, 0, 0)
        async with asyncio.timeout(10):
            while len(list((tmp_path / "data" / "workers").glob("*.json"))) > 1:
                await asyncio.sleep(0.02)
    assert not list((tmp_path / "data" / "workers").glob("*.json"))


async def test_a_model_with_a_queue_of_its_own_says_that_it_is_full(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path / "data", embedder={"kind": "none"})
    async with Kvasir.open(settings) as kvasir:
        await kvasir.models.add("engine", "poet", "scripted", {})
        asked = await kvasir.engines.get("poet")
        running = kvasir.engines.pool.peek("poet")
        assert running is not None
        running.most = 2
        one, two, three = (cast(AsyncGenerator[str, None], asked.stream(prompt(), Sampling())) for _ in range(3))
        assert await anext(one) == await anext(two) == "hello"
        with pytest.raises(EngineUnavailable, match="busy: 2 questions"):
            await anext(three)
        await one.aclose()
        assert await answer(asked) == "hello"
        await two.aclose()


async def test_of_two_that_are_to_be_alone_the_former_ends_first(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path / "data", embedder={"kind": "none"})
    async with Kvasir.open(settings) as kvasir:
        values = {"process": True, "alone": True, "token_seconds": 0.02, "reply": "one two three"}
        await kvasir.models.add("engine", "first", "scripted", values)
        await kvasir.models.add("engine", "second", "scripted", {**values, "reply": "four five"})
        await kvasir.models.enable("second", False)
        await kvasir.models.add("engine", "bad", "scripted", {**values, "drill": "load:refuse"})
        await kvasir.models.enable("bad", False)
        await tending.use(kvasir, "engine", "first")

        async def ask() -> str:
            asked = await kvasir.engines.get("")
            return await text_of(asked.stream(prompt(), Sampling()))

        running = [asyncio.create_task(ask()) for _ in range(4)]
        await asyncio.sleep(0.02)
        await tending.use(kvasir, "engine", "second")
        assert await asyncio.gather(*running, ask()) == ["one two three"] * 4 + ["four five"]
        assert len(list((tmp_path / "data" / "workers").glob("*.json"))) == 1
        with pytest.raises(EngineUnavailable):
            await tending.use(kvasir, "engine", "bad")
        assert kvasir.models.default("engine") == "second"
        assert await ask() == "four five"


async def test_changes_are_heard_while_a_model_loads(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path / "data", embedder={"kind": "none"})
    async with Kvasir.open(settings, embedder="background") as kvasir, Kvasir.open(settings) as other:
        await other.models.add("engine", "slow", "scripted", {"process": True, "drill": "slow:60"})

        def state(name: str) -> str:
            return next(
                (kvasir.engines.pool.standing(one).state for one in kvasir.models.all() if one.name == name), ""
            )

        async with asyncio.timeout(20):
            while state("slow") != "loading":
                await asyncio.sleep(0.05)
            await other.models.add("engine", "quick", "scripted")
            while not state("quick"):
                await asyncio.sleep(0.05)
        assert state("slow") == "loading"
    assert not list((tmp_path / "data" / "workers").glob("*.json"))


async def test_the_console_sees_that_a_model_was_given_up_and_can_load_it_again(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path / "data", embedder={"kind": "none"})
    async with Kvasir.open(settings) as kvasir:
        await kvasir.models.add("engine", "poet", "scripted", {"process": True, "drill": "segv@1,only:bad"})
        model = kvasir.models.find("engine", "poet")
        await kvasir.engines.get("poet")
        running = kvasir.engines.pool.peek("poet")
        assert running is not None
        assert isinstance(running.part, LocalEngine)
        object.__setattr__(running.part._plan, "pause_seconds", 0.01)
        for _ in range(2):
            with pytest.raises(EngineUnavailable):
                await answer(running.part, "bad")
        standing = kvasir.engines.pool.standing(model)
        assert (standing.state, "5 times" in standing.reason) == ("failed", True)
        assert any("SIGSEGV" in line.text for line in kvasir.engines.pool.log("poet"))
        kvasir.engines.pool.begin("poet")
        async with asyncio.timeout(20):
            while kvasir.engines.pool.standing(model).state != "ready":
                await asyncio.sleep(0.02)
        assert await answer(running.part, TEXT) == TEXT
