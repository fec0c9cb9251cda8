"""The scripted engine: what it says, how much, at which pace, and how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core import registry
from core.db import migrate
from core.db.session import Database
from core.engines.scripted import ScriptedEngine
from core.errors import EngineUnavailable
from core.settings import ScriptedSettings, load
from core.types import Delta, Locator, Passage, Prompt, Sampling, Turn
from tests.fakes.house import House, furnished

pytestmark = pytest.mark.anyio

PASSAGE = Passage("handbook", "d1", "leave.md", "Leave", 0, "28 days.", (), Locator(), 0.9)


def prompt(question: str = "How long is leave?", **values: Any) -> Prompt:
    return Prompt(
        **{"turns": (Turn("user", question),), "question": question, "passages": (PASSAGE, PASSAGE), **values}
    )


async def said(asked: Prompt | None = None, **settings: Any) -> list[str]:
    engine = ScriptedEngine(ScriptedSettings(**settings))
    return [piece async for piece in engine.stream(asked or prompt(), Sampling(max_tokens=5))]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    db = Database(f"sqlite+aiosqlite:///{tmp_path / 'kvasir.db'}")
    await migrate.upgrade(db)
    yield await furnished(db, tmp_path)
    await db.close()


async def test_it_is_found_by_its_name(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path, scripted={"reply": "Hello [1]."})
    engine = await registry.load("kvasir.engines", "scripted")(settings, embedder=lambda: None)
    assert [piece async for piece in engine.stream(prompt(), Sampling())] == ["Hello", " [1]."]


async def test_the_reply_knows_the_question_and_the_number_of_passages() -> None:
    reply = "{n} on {question} {other} {"
    assert "".join(await said(prompt("What is {n}?"), reply=reply)) == "2 on What is {n}? {other} {"


async def test_without_a_reply_it_says_something_with_a_source() -> None:
    assert "How long is leave?" in (text := "".join(await said()))
    assert "[1]" in text
    assert "“年假几天？”" in "".join(await said(prompt("年假几天？", language="zh")))


@pytest.mark.parametrize("reply", ["One two [1].", "年假有28天。", " \n a  b\t", "x"])
async def test_the_pieces_are_its_tokens_and_make_the_reply(reply: str) -> None:
    pieces = await said(reply=reply)
    assert "".join(pieces) == reply
    engine = ScriptedEngine(ScriptedSettings())
    assert engine.count_tokens(reply) == len(pieces) == sum(engine.count_tokens(piece) for piece in pieces)


async def test_it_is_as_long_as_the_settings_want() -> None:
    assert await said(reply="One two three.", tokens=2) == ["One", " two"]
    assert "".join(await said(reply="One two.", tokens=5)) == "One two.\n\nOne two.\n\nOne"
    assert len(await said(reply="年假。", tokens=1000)) == 1000


async def test_a_question_to_be_rewritten_comes_back_at_once() -> None:
    asked = prompt("And\nthen?", passages=())
    assert await said(asked, reply="Hello.", first_token_seconds=60, fail_after=1, hang_after=1) == ["And then?"]


@pytest.mark.parametrize("after", [1, 2, 3, 50])
async def test_it_fails_after_so_many_tokens(after: int) -> None:
    stream = ScriptedEngine(ScriptedSettings(reply="a b c", fail_after=after)).stream(prompt(), Sampling())
    assert [await anext(stream) for _ in range(min(after, 3))] == ["a", " b", " c"][:after]
    with pytest.raises(EngineUnavailable, match="settings"):
        await anext(stream)


@pytest.mark.parametrize("after", [2, 50])
async def test_it_falls_silent_after_so_many_tokens_and_can_be_left(after: int) -> None:
    stream = ScriptedEngine(ScriptedSettings(reply="a b c", hang_after=after)).stream(prompt(), Sampling())
    for _ in range(min(after, 3)):
        await anext(stream)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(stream)
    await stream.aclose()


async def test_it_keeps_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    clock = asyncio.get_running_loop()
    started = now = clock.time()

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    monkeypatch.setattr(clock, "time", lambda: now)
    monkeypatch.setattr("core.engines.scripted.asyncio.sleep", sleep)
    await said(reply="a b c d", first_token_seconds=8, token_seconds=2)
    assert slept == pytest.approx([8, 2, 2, 2])
    assert now - started == pytest.approx(14)
    slept.clear()
    await said(reply="a b c d", token_seconds=2, seed=7)
    first = slept[:]
    slept.clear()
    await said(reply="a b c d", token_seconds=2, seed=7)
    assert slept == pytest.approx(first)
    assert len({round(one, 6) for one in first[1:]}) == 3
    assert all(1 <= one <= 3 for one in first[1:])


async def test_a_long_answer_lets_others_work() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await said(reply="word", tokens=2000)
    task.cancel()
    assert turns > 20


async def test_an_answer_by_it_has_its_source_and_follow_ups_stay_as_they_are(house: House) -> None:
    house.replace_engine(ScriptedEngine(ScriptedSettings()))
    conversation = await house.conversations.start("terminal", "ann")
    first = await house.finished("How long is annual leave?", conversation_id=conversation.id)
    assert [source.n for source in first.sources] == [1]
    assert (first.engine, first.answered) == ("scripted", True)
    second = await house.finished("Who approves it?", conversation_id=conversation.id)
    assert second.standalone_question == "Who approves it?"
    assert "«Who approves it?»" in second.text


async def test_a_long_scripted_answer_arrives_whole(house: House) -> None:
    house.replace_engine(ScriptedEngine(ScriptedSettings(reply="All is well [1].", tokens=4000)))
    events = await house.ask()
    text = "".join(event.text for event in events if isinstance(event, Delta))
    assert text.count("All is well [1].") == 1000
