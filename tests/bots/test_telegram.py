"""Telegram end to end: people write on a Telegram of our own, and Kvasir answers there by the real client library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from bots.handler import ChatHandler
from bots.inbox import Inbox
from bots.intake import Intake
from bots.telegram.platform import Telegram
from core.vault import Vault
from tests.bots.conftest import Front
from tests.fakes.engine import FakeEngine
from tests.fakes.telegram import Chat, Message, Person, TelegramServer, telegram_server

pytestmark = pytest.mark.anyio

ANSWER = "Annual leave is 28 days [1]."


class Bot:
    """One process of ours on a Telegram; `again` is the next one, after this was killed."""

    def __init__(self, front: Front, server: TelegramServer, **telegram: Any) -> None:
        self.front, self.server = front, server
        kvasir = cast(Any, front.kvasir)
        settings = front.house.settings
        values = {"token": server.token, "api_base": server.url, **telegram}
        web = settings.web.model_copy(update=values.pop("web", {}))
        section = type(settings.telegram)(**values)
        kvasir.settings = settings.model_copy(update={"telegram": section, "web": web})
        kvasir.vault = Vault(settings.data_dir)
        self.messenger = Telegram(kvasir)
        self.inbox = Inbox(kvasir.db)
        self.intake = Intake(kvasir, ChatHandler(kvasir), self.messenger, self.inbox)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Bot]:
        task = asyncio.create_task(self.messenger.run(self.intake))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.intake.close(0)

    async def answered(self, question: Message, text: str = "28 days") -> Message:
        """The one answer to the question, when it stands."""

        def stands() -> bool:
            return [text in reply.text and "👎" in reply.buttons for reply in self.server.replies(question)] == [True]

        await self.server.until(stands)
        return self.server.replies(question)[0]


class Town:
    """A server with people on it."""

    def __init__(self, server: TelegramServer) -> None:
        self.server = server
        self.alice, self.bob = server.person("Alice", "alice"), server.person("Bob", "bob_smith")
        self.group = server.group("Team")
        self.private: Chat = server.private(self.alice)

    def asks(self, text: str = "how long is annual leave?", who: Person | None = None, **more: Any) -> Message:
        return self.server.mention(self.group, who or self.alice, text, **more)


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    async with telegram_server() as server:
        yield Town(server)


@pytest.fixture
async def bot(front: Front, town: Town) -> AsyncIterator[Bot]:
    async with Bot(front, town.server).running() as bot:
        yield bot


# ---------------------------------------------------------------- one answer
async def test_a_mention_in_a_group_is_answered_by_one_message(bot: Bot, town: Town) -> None:
    question = town.asks()
    answer = await bot.answered(question)
    assert answer.text.startswith(ANSWER)
    assert "leave.md" in answer.text
    assert (answer.preview, answer.pinged, answer.topic) == (False, [], None)
    assert town.group.of_bot() == [answer]
    assert len(answer.versions) >= 2, "a first sign of life, then the answer in the same message"
    assert answer.buttons[:2] == ["👍", "👎"]


async def test_what_was_asked_while_we_were_away_is_answered(front: Front, town: Town) -> None:
    first = town.asks()
    late = town.asks(ago=3 * 3600)
    async with Bot(front, town.server).running() as bot:
        await bot.answered(first)
        await town.server.until(lambda: any("I was away" in reply.text for reply in town.server.replies(late)))


async def test_an_update_is_confirmed_only_after_it_is_kept(bot: Bot, town: Town) -> None:
    kept = bot.inbox.take_in
    seen: list[int] = []

    async def take_in(*args: Any, **values: Any) -> Any:
        seen.append(town.server.world.mail.confirmed)
        return await kept(*args, **values)

    bot.inbox.take_in = take_in  # type: ignore[method-assign]
    question = town.asks()
    await bot.answered(question)
    (update,) = town.server.world.mail.given
    await town.server.until(lambda: town.server.world.mail.confirmed == update)
    assert seen == [0]


async def test_repeated_and_shuffled_updates_are_answered_once(front: Front, town: Town) -> None:
    mail = town.server.world.mail
    mail.copies, mail.backwards = 4, True
    questions = [town.asks(), town.asks(who=town.bob), town.asks("how long is leave?")]
    updates = list(mail.pending)
    async with Bot(front, town.server).running() as bot:
        for question in questions:
            await bot.answered(question)
        for update in updates:
            mail.repeat(update)
            mail.repeat({**update, "update_id": update["update_id"] + 1000})
        last = town.asks("once more?")
        await bot.answered(last)
    assert all(len(town.server.replies(question)) == 1 for question in [*questions, last])


async def test_after_a_kill_the_answer_goes_into_the_message_that_is_there(front: Front, town: Town) -> None:
    front.house.replace_engine(FakeEngine("Annual leave is 28 days [1].", pause=30))
    question = town.asks()
    first = Bot(front, town.server)
    async with first.running():
        await town.server.until(lambda: town.server.replies(question))
    front.house.replace_engine(FakeEngine("Annual leave is 28 days [1]."))
    second = Bot(front, town.server)
    await second.intake.take_over(everything=True)
    async with second.running():
        answer = await second.answered(question)
    assert town.group.of_bot() == [answer]
