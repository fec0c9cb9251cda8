"""What every place where people talk to Kvasir keeps to, whatever breaks: one question, one whole answer.

A new platform is a world in `platform_worlds.py`, and a subclass here.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, ClassVar, Final, Generic, TypeVar, cast

import pytest
from sqlalchemy import delete

from bots import runner
from bots.errors import Refused
from bots.handler import ChatHandler
from core.db.tables import PostRow
from tests.bots.conftest import Front, connected
from tests.contracts.platform_worlds import (
    AnswerWorld,
    ChatWorld,
    DiscordWorld,
    SlackWorld,
    TelegramWorld,
    TerminalWorld,
    WebWorld,
)
from tests.fakes.engine import FakeEngine

pytestmark = pytest.mark.anyio

QUESTION: Final = "How long is annual leave?"
ANSWER: Final = "Annual leave is 28 days"
_LONGEST_HOLD: Final = 1.0
"""Seconds of its own CPU time for which the event loop may be held; what the machine does meanwhile does not count."""

_SHORTENED: Final = {"bots.streaming._FIRST_PAUSE": 0.05, "bots.streaming._STREAM_PAUSE": 0.05}

W = TypeVar("W", bound=AnswerWorld)
C = TypeVar("C", bound=ChatWorld)

HOSTILE: Final = (
    "@everyone",
    "@here",
    "@channel",
    "<!channel>",
    "<!here>",
    "<!everyone>",
    "<!subteam^S1>",
    "<!subteam^S1|@team>",
    "<@U1>",
    "<@U2|bob>",
    "<#C1>",
    "<#C1|ops>",
    "<!date^1392734382^{date}|x>",
    "<@1001>",
    "<@!1001>",
    "<@&1001>",
    "<<@U1>>",
    "\\<@U1>",
    "&lt;!channel&gt;",
    "&lt;@U1&gt;",
    "&#60;@U1&#62;",
    "`<!channel>`",
    "```\n<@U1> @everyone\n```",
    "**<@U1>** *@here*",
    "> <!here> @everyone",
    "| who |\n|---|\n| <@U1> @everyone |",
    "@\u200beveryone",
    "<@\u200bU1>",
    "x\u202e@everyone",
    "@ann_smith",
    "ask @bob_smith, please",
    "[x](tg://user?id=1001)",
    "tg://user?id=1001",
    "<tg://user?id=1001>",
    "/start",
    "/kick@other_bot",
    "![x](https://evil.example/p.png)",
    "[![x](https://evil.example/p.png)](https://evil.example/)",
    "https://evil.example/login",
    "http://evil.example",
    "evil.example.com/path and evil.io",
    "www.evil.example",
    "<https://evil.example>",
    "<https://evil.example|click>",
    "[safe](https://evil.example)",
    "[safe][1]\n\n[1]: https://evil.example",
    "<mailto:x@evil.example>",
    "https://discord.gg/abc",
    "</kvasir ask:123>",
    "<script>alert(1)</script>",
    "<img src='https://evil.example/p.png' onerror=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "\x1b[31mred\x1b]0;title\x07",
)


def _long_text() -> tuple[str, list[str]]:
    """100,000 characters of everything an answer is made of; its words, each of which is there once."""
    pieces: list[str] = []
    words: list[str] = []

    def some(count: int) -> list[str]:
        new = [f"w{number}" for number in range(len(words), len(words) + count)]
        words.extend(new)
        return new

    while sum(map(len, pieces)) < 100_000:
        pieces.append(f"## About {' '.join(some(3))}")
        pieces.append(" ".join(some(120)) + " 😀 年假。")
        pieces.append("\n".join(f"- {' '.join(some(6))}" for _ in range(8)))
        pieces.append(f"A **{some(1)[0]}** and `{some(1)[0]}`.")
        pieces.append("```python\n" + "\n".join(f"    {word} = 1" for word in some(30)) + "\n```")
        pieces.append("> " + " ".join(some(20)))
    return "\n\n".join(pieces), words


def _answered(engine: FakeEngine) -> FakeEngine:
    engine.is_scripted = True
    return engine


@asynccontextmanager
async def holding_nobody() -> AsyncIterator[None]:
    """Fails where something inside keeps the event loop for long."""
    holds: list[float] = []

    async def probe() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.005)
            holds.append(time.thread_time() - before)

    task = asyncio.create_task(probe())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert max(holds) < _LONGEST_HOLD


def _ours(tasks: set[asyncio.Task[Any]]) -> list[str]:
    """Tasks that are not the other side's."""
    names = []
    for task in tasks - {asyncio.current_task()}:
        code = getattr(task.get_coro(), "cr_code", None)
        file = code.co_filename if code is not None else ""
        if "tests/fakes" not in file and "aiohttp/web" not in file:
            names.append(f"{task.get_name()} in {file}")
    return names


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.name.startswith(("asyncio", "database"))}


class AnswerSuite(Generic[W]):
    """For any place that can show an answer."""

    kind: ClassVar[type[AnswerWorld]]

    @pytest.fixture
    async def world(self, front: Front, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[W]:
        for name, value in (*_SHORTENED.items(), *self.kind.shortened.items()):
            monkeypatch.setattr(name, value)
        world = self.kind(front)
        async with world.server():
            yield cast(W, world)

    async def test_a_question_is_answered_with_its_source(self, world: W) -> None:
        async with world.process():
            (answer,) = await world.answered(await world.ask(QUESTION))
        assert ANSWER in answer.text
        assert "leave.md" in answer.text
        assert [asked[0] for asked in world.front.house.search.asked] == [QUESTION]

    async def test_what_goes_wrong_is_one_sentence(self, world: W) -> None:
        world.front.house.engine.fail_after = 1
        async with world.process():
            asked = await world.ask(QUESTION)
            text = await self.sentence(world, asked)
        assert text == "The fake engine broke down."

    async def sentence(self, world: W, asked: Any) -> str:
        (answer,) = await world.answered(asked)
        return answer.text.strip()

    async def test_code_stays_code_however_long(self, world: W) -> None:
        lines = [f"line_{number} = compute({number})  # a comment" for number in range(300)]
        code = "```python\n" + "\n".join(lines) + "\n```"
        engine = FakeEngine(f"It is done so:\n\n{code}\n\nThat was all [1].", size=400)
        world.front.house.replace_engine(_answered(engine))
        async with world.process():
            answers = await world.answered(await world.ask("Which code?"))
        assert all(answer.text.count("```") % 2 == 0 for answer in answers)
        found = "\n".join(answer.code for answer in answers).splitlines()
        assert [line.strip() for line in found if "line_" in line] == lines
        assert "That was all" in "".join(answer.text for answer in answers)

    async def test_a_hundred_thousand_characters_arrive_whole(self, world: W) -> None:
        text, words = _long_text()
        world.front.house.replace_engine(_answered(FakeEngine(text, size=5000)))
        async with world.process():
            asked = await world.ask("Tell me everything")
            async with holding_nobody():
                answers = await world.answered(asked)
        assert all(0 < answer.size <= world.longest for answer in answers)
        said = "\n".join(answer.text for answer in answers)
        assert re.findall(r"\bw\d+\b", said) == words
        assert "".join(said.split()).count("😀年假。") == text.count("😀 年假。")

    async def test_nobody_is_called_and_nothing_is_fetched(self, world: W) -> None:
        engine = FakeEngine("\n\n".join(f"n{n}\n\n{text}" for n, text in enumerate(HOSTILE)), size=37)
        world.front.house.replace_engine(_answered(engine))
        async with world.process():
            answers = await world.answered(await world.ask("Whom do I ask?"))
        assert [list(answer.called) for answer in answers if answer.called] == []
        assert [list(answer.fetched) for answer in answers if answer.fetched] == []
        said = "\n".join(answer.text for answer in answers)
        assert re.findall(r"\bn\d+\b", said) == [f"n{number}" for number in range(len(HOSTILE))]
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", said)

    async def test_a_stop_leaves_nothing_running(self, world: W) -> None:
        engine = world.front.house.replace_engine(FakeEngine(pause=30))
        before, threads = asyncio.all_tasks(), _threads()
        async with world.process():
            await world.ask(QUESTION)
            await engine.begun.wait()
        assert _ours(asyncio.all_tasks() - before) == []
        async with asyncio.timeout(10):
            while not _threads() <= threads:  # one that was told to end does so in a moment
                await asyncio.sleep(0.02)
        assert (engine.running, engine.ended_early) == (0, 1)
        gc.collect()  # what was not closed says so, and warnings are errors


class TestTerminal(AnswerSuite[TerminalWorld]):
    kind = TerminalWorld


class TestWeb(AnswerSuite[WebWorld]):
    kind = WebWorld


# ---------------------------------------------------------------- platforms made of messages
class ChatSuite(AnswerSuite[C]):
    """For Slack, Discord, Telegram, and what may come."""

    async def sentence(self, world: C, asked: Any) -> str:
        await world.until(lambda: world.shown(asked) and "again" in world.shown(asked)[-1].buttons)
        (answer,) = world.shown(asked)
        return answer.text.strip()

    async def one_answer(self, world: C, asked: Any, text: str = ANSWER) -> None:
        answers = await world.answered(asked)
        assert len(answers) == 1
        assert answers[0].text.count(text) == 1
        assert "stop" not in answers[0].buttons

    # ------------------------------------------------------------ once
    async def test_the_same_event_many_times_is_one_answer(self, world: C) -> None:
        world.repeat(4)
        async with world.process(), AsyncExitStack() as others:
            if world.several:
                await others.enter_async_context(world.process())
            asked = [await world.ask(f"{QUESTION} {number}") for number in range(3)]
            for one in asked:
                await self.one_answer(world, one)
        assert len(world.front.house.search.asked) == 3

    async def test_events_in_any_order_have_each_their_answer(self, world: C) -> None:
        async with world.process():
            for asked in await world.ask_backwards([f"{QUESTION} {number}" for number in range(3)]):
                await self.one_answer(world, asked)

    # ------------------------------------------------------------ trouble with calls
    @pytest.mark.slow
    async def test_a_wait_is_kept_to_and_the_end_is_not_lost(self, world: C) -> None:
        world.front.house.engine.pause = 0.01  # so that there is a first sign of life
        async with world.process():
            for name, limit in world.limits().items():
                limit()
                await self.one_answer(world, await world.ask(f"{QUESTION} {name}"))
                assert not world.unmet(), name

    @pytest.mark.slow
    async def test_calls_that_fail_or_are_lost_make_no_second_answer(self, world: C) -> None:
        world.front.house.engine.pause = 0.01  # so that there is a first sign of life
        async with world.process():
            for name, fault in world.faults().items():
                fault()
                await self.one_answer(world, await world.ask(f"{QUESTION} {name}"))
                assert not world.unmet(), name

    async def test_a_slow_platform_has_its_answer(self, world: C) -> None:
        async with world.process():
            world.slow(0.15)
            await self.one_answer(world, await world.ask(QUESTION))

    @pytest.mark.slow
    async def test_a_long_answer_is_whole_whatever_breaks_within_it(self, world: C) -> None:
        async with world.process():
            for name, fault in world.faults_within().items():
                asked, words = await self.long_question(world, name)
                await world.until_messages(asked, 3)
                fault()
                await self.long_answer(world, asked, words)
                assert not world.unmet(), name

    @pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
    async def test_a_long_answer_goes_on_after_a_kill(self, world: C, *, known: bool) -> None:
        async with world.process() as killed:
            asked, words = await self.long_question(world)
            await world.until_messages(asked, 2)  # half of it: the rest takes longer than to notice and kill
            await world.kill(killed)
        assert "rate" not in world.shown(asked)[-1].buttons
        if not known:
            await self.forget_posts(world, 1)
        async with world.process():
            await self.long_answer(world, asked, words)

    async def long_question(self, world: C, name: str = "") -> tuple[Any, list[str]]:
        """A question whose answer takes several messages, each of which takes its time."""
        words = [f"w{number}" for number in range(world.longest * 2 // 3)]
        world.front.house.replace_engine(_answered(FakeEngine(" ".join(words), size=5000)))
        world.slow(0.02)
        return await world.ask(f"Tell me everything {name}"), words

    async def long_answer(self, world: C, asked: Any, words: list[str]) -> None:
        answers = await world.answered(asked)
        assert re.findall(r"\bw\d+\b", "\n".join(answer.text for answer in answers)) == words
        assert ["rate" in answer.buttons for answer in answers] == [False] * (len(answers) - 1) + [True]

    # ------------------------------------------------------------ trouble with what comes
    async def test_a_closed_connection_loses_nothing(self, world: C) -> None:
        async with world.process():
            world.cut()
            await self.one_answer(world, await world.ask(QUESTION))
            await self.one_answer(world, await world.ask(f"{QUESTION} again"))

    async def test_a_dead_connection_loses_nothing(self, world: C) -> None:
        world.dead_after = 0.4
        async with world.process():
            await world.go_silent()
            await self.one_answer(world, await world.ask(QUESTION))

    @pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
    async def test_after_a_kill_the_answer_goes_on_where_it_was(self, world: C, *, known: bool) -> None:
        """Killed while it was written; `known`: its message's id was kept."""
        slow = world.front.house.replace_engine(FakeEngine(f"{ANSWER} [1].", pause=30))
        async with world.process() as killed:
            asked = await world.ask(QUESTION)
            await slow.begun.wait()
            await world.until(lambda: world.shown(asked))
            (begun,) = world.shown(asked)
            await world.kill(killed)
        if not known:
            await self.forget_posts(world, 0)
        world.front.house.replace_engine(FakeEngine(f"{ANSWER} [1]."))
        async with world.process():
            await self.one_answer(world, asked)
            assert world.shown(asked)[0].id == begun.id

    @pytest.mark.parametrize("grace", [0.05, 1.0], ids=["short", "long"])
    async def test_a_stop_in_the_midst_of_an_answer_loses_nothing(self, world: C, grace: float) -> None:
        slow = world.front.house.replace_engine(FakeEngine(f"{ANSWER} [1].", pause=0.05))
        async with world.process() as stopped:
            asked = await world.ask(QUESTION)
            await slow.begun.wait()
            await world.stop_process(stopped, grace)
        async with world.process():
            await self.one_answer(world, asked)

    async def forget_posts(self, world: C, first: int) -> None:
        """Those messages of ours were sent, but their ids did not come to be kept."""
        async with world.front.kvasir.db.session() as session:
            await session.execute(delete(PostRow).where(PostRow.number >= first))

    async def test_what_was_asked_while_we_were_away_is_answered(self, world: C) -> None:
        async with world.process():
            await self.one_answer(world, await world.ask(QUESTION))
        asked = await world.ask(f"{QUESTION} And now?")
        async with world.process():
            await self.one_answer(world, asked)

    # ------------------------------------------------------------ people
    async def test_a_thumb_by_button_or_reaction_is_one_vote(self, world: C) -> None:
        async with world.process():
            (answer,) = await world.answered(await world.ask(QUESTION))
            await world.thumb(answer, 1)
            await world.voted(1)
            await world.thumb(answer, -1)
            await world.voted(-1)
            await world.react(answer, 1)
            await world.voted(1)
            await world.unreact(answer, 1)
            await world.voted()

    async def test_an_answer_is_stopped_and_asked_for_again(self, world: C) -> None:
        slow = world.front.house.replace_engine(FakeEngine(f"{ANSWER} [1].", pause=0.1))
        async with world.process():
            asked = await world.ask(QUESTION)
            await slow.begun.wait()
            await world.stop(asked)
            await world.until(lambda: [("Stopped." in one.text) for one in world.shown(asked)] == [True])
            await world.quiet()
            (stopped,) = world.shown(asked)
            assert "rate" not in stopped.buttons
            assert slow.ended_early == 1
            world.front.house.replace_engine(FakeEngine(f"{ANSWER} [1]."))
            await world.again(stopped)
            await self.one_answer(world, asked)
            assert "Stopped." not in world.shown(asked)[0].text

    async def test_an_edited_question_is_answered_anew_in_its_place(self, world: C) -> None:
        async with world.process():
            asked = await world.ask(QUESTION)
            (first,) = await world.answered(asked)
            world.front.house.replace_engine(FakeEngine("Ask Bob [1]."))
            await world.edit(asked, "Whom do I ask?")
            await world.until_said(asked, "Ask Bob")
            await self.one_answer(world, asked, "Ask Bob")
            assert world.shown(asked)[0].id == first.id
        assert world.front.house.search.asked[-1][0] == "Whom do I ask?"

    async def test_a_question_edited_meanwhile_has_the_new_answer_alone(
        self, world: C, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bots.intake._NOTICED_SECONDS", 60.0)  # no other process has to notice
        slow = world.front.house.replace_engine(FakeEngine(f"{ANSWER} [1].", pause=0.1))
        async with world.process():
            asked = await world.ask(QUESTION)
            await slow.begun.wait()
            await world.until_messages(asked, 1)
            world.front.house.replace_engine(FakeEngine("Ask Bob [1]."))
            await world.edit(asked, "Whom do I ask?")
            await world.until_said(asked, "Ask Bob")
            await self.one_answer(world, asked, "Ask Bob")
            assert ANSWER not in world.shown(asked)[0].text

    async def test_all_that_people_do_counts_once_however_often_it_comes(self, world: C) -> None:
        async with world.process():
            world.repeat(4)
            asked = await world.ask(QUESTION)
            (answer,) = await world.answered(asked)
            await world.thumb(answer, 1)
            await world.voted(1)
            await world.react(answer, -1)
            await world.voted(-1)
            for word, act in (("Bob", world.edit(asked, "Whom do I ask?")), ("Carl", world.again(answer))):
                world.front.house.replace_engine(FakeEngine(f"Ask {word} [1].", pause=0.02))
                await act
                await world.until_said(asked, f"Ask {word} [1]")
                await self.one_answer(world, asked, f"Ask {word}")
                await world.told()
                await world.quiet()
        assert len(world.front.house.search.asked) == 3

    async def test_another_answer_may_be_shorter_or_longer(self, world: C) -> None:
        async with world.process():
            asked, words = await self.long_question(world)
            await self.long_answer(world, asked, words)
            long = world.front.house.current
            world.front.house.replace_engine(FakeEngine("Ask Bob [1]."))
            await world.again(world.shown(asked)[-1])
            await world.until(lambda: len(world.messages(asked)) == 1)
            await self.one_answer(world, asked, "Ask Bob")
            world.front.house.replace_engine(cast(FakeEngine, long))
            await world.again(world.shown(asked)[0])
            await world.until_messages(asked, 3)
            await self.long_answer(world, asked, words)

    async def test_a_deleted_question_takes_its_answer_along(self, world: C) -> None:
        if not world.tells_deletions:
            pytest.skip(f"{world.name} tells no bot that a message was deleted")
        slow = FakeEngine(f"{ANSWER} [1].", pause=30)
        async with world.process():
            asked = await world.ask(QUESTION)
            await world.answered(asked)
            await world.delete(asked)
            await world.until(lambda: not world.shown(asked))
            world.front.house.replace_engine(slow)
            begun = await world.ask(QUESTION)
            await slow.begun.wait()
            await world.delete(begun)
            await world.quiet()
            await world.until(lambda: not world.shown(begun))
        assert slow.ended_early == 1


class TestSlack(ChatSuite[SlackWorld]):
    kind = SlackWorld


class TestDiscord(ChatSuite[DiscordWorld]):
    kind = DiscordWorld

    async def test_a_budget_with_room_holds_up_nobody(self, world: DiscordWorld) -> None:
        """The library, told not to wait long, refuses all but the first call in a window that is longer than that."""
        world.discord.limit = (5, 600.0)
        async with world.process():
            for number in range(2):
                await self.one_answer(world, await world.ask(f"{QUESTION} {number}"))
        assert {call.status for call in world.discord.calls} <= {200, 201, 204}

    async def test_a_spent_budget_is_left_alone_until_there_is_more(self, world: DiscordWorld) -> None:
        world.discord.limit = (3, 0.7)
        words = [f"w{number}" for number in range(3000)]
        world.front.house.replace_engine(_answered(FakeEngine(" ".join(words), size=5000)))
        async with world.process():
            asked = await world.ask("Tell me everything")
            await self.long_answer(world, asked, words)
        assert len(world.messages(asked)) >= 3 * 3
        assert sum(call.status == 429 for call in world.discord.calls) <= 1


class TestTelegram(ChatSuite[TelegramWorld]):
    kind = TelegramWorld


# ---------------------------------------------------------------- together
@pytest.fixture
async def worlds(front: Front, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[ChatWorld]]:
    """All platforms made of messages."""
    made: list[ChatWorld] = [SlackWorld(front), DiscordWorld(front), TelegramWorld(front)]
    for world in made:
        for name, value in world.shortened.items():
            monkeypatch.setattr(name, value)
    async with AsyncExitStack() as servers:
        for world in made:
            await servers.enter_async_context(world.server())
        yield made


@asynccontextmanager
async def serving(front: Front, worlds: list[ChatWorld]) -> AsyncIterator[None]:
    """The service `bots` with all these platforms on; it is stopped at the end."""
    settings = front.house.settings
    sections = {world.name: getattr(world.kvasir().settings, world.name) for world in worlds}
    kvasir = connected(worlds[0].kvasir(), settings.model_copy(update=sections))
    service = asyncio.create_task(runner.serve(kvasir, ChatHandler(kvasir)))
    try:
        yield
    finally:
        service.cancel()
        await asyncio.gather(service, return_exceptions=True)
        for world in worlds:
            await world.rest()


async def test_a_revoked_token_ends_its_platform_alone_with_one_sentence(
    front: Front, worlds: list[ChatWorld], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(front, worlds):
        for number, revoked in enumerate([None, *worlds]):
            if revoked is not None:
                caplog.clear()
                revoked.revoke()
                await revoked.ask(QUESTION)
                await revoked.until(lambda: _errors(caplog))
            for world in worlds[number:]:
                (answer,) = await world.answered(await world.ask(f"{QUESTION} {number}"))
                assert ANSWER in answer.text
            if revoked is not None:
                assert len(_errors(caplog)) == 1
                assert revoked.name in _errors(caplog)[0]


async def test_what_is_nearly_said_is_said_to_its_end_before_a_stop(front: Front, worlds: list[ChatWorld]) -> None:
    async with serving(front, worlds):
        for world in worlds:
            await world.answered(await world.ask(f"{QUESTION} first"))
        slow = front.house.replace_engine(FakeEngine(f"{ANSWER} [1].", pause=0.05))
        asked = [await world.ask(QUESTION) for world in worlds]
        await worlds[0].until(lambda: slow.running == len(worlds))
    for world, one in zip(worlds, asked, strict=True):
        (answer,) = world.shown(one)
        assert ANSWER in answer.text
        assert "rate" in answer.buttons


def _errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.ERROR and record.name.startswith("bots")
    ]


@pytest.mark.parametrize("kind", [SlackWorld, DiscordWorld, TelegramWorld], ids=lambda kind: kind.name)
async def test_a_token_that_was_never_good_is_refused(front: Front, kind: type[ChatWorld]) -> None:
    world = kind(front)
    async with world.server():
        world.revoke()
        with pytest.raises(Refused) as refused:
            await world.start()
    assert str(refused.value)
