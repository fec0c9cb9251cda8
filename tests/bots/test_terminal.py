"""A conversation typed into a terminal."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import Sequence

import pytest
from rich.console import Console

from bots.handler import ChatHandler
from bots.terminal.lines import LineReader, interruptible
from bots.terminal.platform import TerminalPlatform
from core.errors import Unavailable
from core.types import Thumb
from tests.bots.conftest import Front

pytestmark = pytest.mark.anyio


class Typed:
    """Lines as somebody types them."""

    def __init__(self, *lines: str) -> None:
        self._lines = list(lines)

    async def __call__(self) -> str | None:
        return self._lines.pop(0) if self._lines else None


class FakeScreen:
    def __init__(self, front: Front) -> None:
        self._front = front

    async def new_conversation(self) -> str:
        return (await self._front.house.conversations.start("terminal", "terminal:operator")).id

    async def kbs(self) -> Sequence[str]:
        return list(self._front.knowledge.there)


async def talk(front: Front, *lines: str, kb: str | None = "handbook", terminal: bool = False) -> str:
    """What stands on the screen after these lines."""
    screen = io.StringIO()
    console = Console(file=screen, width=80, height=24, force_terminal=terminal, highlight=False, markup=False)
    platform = TerminalPlatform(console, Typed(*lines), FakeScreen(front), kb=kb, language="en")
    handler = ChatHandler(front.kvasir)
    async for event in platform.events():
        if isinstance(event, Thumb):
            await handler.on_thumb(event)
        else:
            await handler.on_mention(platform, event)
    return screen.getvalue()


async def test_questions_and_answers(front: Front) -> None:
    text = await talk(front, "How long is annual leave?", "", "  ", "Who approves it?")
    assert text.count("Annual leave is 28 days [1].") == 2
    assert "[1] Leave — leave.md, page 2, Leave" in text
    assert len(front.house.search.asked) == 2


async def test_a_live_terminal_says_who_waits_where(front: Front) -> None:
    places = front.house.engine.places = asyncio.Queue()
    for place in (2, 0):
        places.put_nowait(place)
    text = await talk(front, "How long is annual leave?", terminal=True)
    assert text.index("You are number 2 in the queue…") < text.index("Reading 2 passages…")
    assert text.rstrip().endswith("Annual leave is 28 days.\x1b[0m")


async def test_a_live_terminal_streams_and_ends_with_the_whole(front: Front) -> None:
    text = await talk(front, "How long is annual leave?", terminal=True)
    assert "Searching…" in text
    assert text.rstrip().endswith("Annual leave is 28 days.\x1b[0m")


async def test_thumbs_reach_the_feedback(front: Front) -> None:
    text = await talk(front, "/up", "How long?", "/down too short", "/down  still too short ")
    assert "no answer to rate" in text
    (rated,) = await front.kvasir.feedback.list()
    assert (rated.value, rated.reason) == (-1, "still too short")


async def test_commands(front: Front) -> None:
    front.knowledge.there = {"handbook": False, "manual": False}
    text = await talk(
        front,
        "How long?",
        "/new",
        "Who approves it?",
        "/kb nowhere",
        "/kb manual",
        "How?",
        "/help",
        "/what",
        "/quit",
        "No",
    )
    assert [asked[1] for asked in front.house.search.asked] == [("handbook",), ("handbook",), ("manual",)]
    assert front.house.search.asked[1][0] == "Who approves it?"
    assert "There are: handbook, manual." in text
    assert "no command /what" in text
    assert "/quit ends" in text
    assert "No" not in [asked[0] for asked in front.house.search.asked]


async def test_a_failure_is_shown(front: Front) -> None:
    front.house.engine.fail_after = 1
    with pytest.raises(Unavailable, match="broke down"):
        await TerminalPlatform.converse(front.kvasir, kb="handbook", question="How long?", engine=None, language="en")


async def test_one_question_is_answered_on_standard_output(front: Front, capsys: pytest.CaptureFixture[str]) -> None:
    await TerminalPlatform.converse(front.kvasir, kb=None, question="How long?", engine=None, language="en")
    printed = capsys.readouterr().out
    assert printed.startswith("Annual leave is 28 days [1].\n")
    assert "\x1b" not in printed


async def test_a_whole_conversation_on_standard_input(
    front: Front, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("How long?\n/up\n年假呢？\n"))
    await TerminalPlatform.converse(front.kvasir, kb=None, question=None, engine=None, language="en")
    printed = capsys.readouterr().out
    assert "Thank you." in printed
    assert "来源" in printed
    assert await front.kvasir.feedback.totals() == (1, 0)


async def test_the_end_of_input_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n"))
    reader = LineReader()
    assert await reader() == "one"
    assert await reader() is None


async def test_ctrl_c_stops_the_answer_and_not_the_conversation() -> None:
    async def endless() -> None:
        await asyncio.sleep(60)

    before = signal.getsignal(signal.SIGINT)
    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
    assert await interruptible(endless())
    assert not await interruptible(asyncio.sleep(0))
    assert signal.getsignal(signal.SIGINT) is before
