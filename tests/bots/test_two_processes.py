"""Two processes on one database, in one: what people do may come to the one that does not write the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import cast

import pytest

from bots.handler import ChatHandler
from bots.inbox import Inbox, Item
from bots.intake import Intake
from core.app import Kvasir
from core.texts import say
from core.types import Mention, Press
from core.work.limits import Limits
from core.work.presence import Presence
from tests.bots.conftest import Front
from tests.fakes.messenger import ANN, BOB, PLACE, FakeMessenger

pytestmark = pytest.mark.anyio

ASKED = Mention(PLACE, "1", ANN, "How long is annual leave?", trigger="mention", language="en")


@dataclass
class Two:
    front: Front
    messenger: FakeMessenger
    one: Intake
    other: Intake

    async def until_begun(self) -> None:
        async with asyncio.timeout(10):
            await self.front.house.engine.begun.wait()
            while not self.messenger.answers("1"):
                await asyncio.sleep(0.01)


@pytest.fixture
async def two(front: Front) -> AsyncIterator[Two]:
    messenger = FakeMessenger(spread=True)
    presences = [Presence(front.kvasir.db) for _ in range(2)]
    intakes = []
    for presence in presences:
        presence.say("bots", {"fake": "connected"})
        parts = {**vars(front.kvasir), "presence": presence, "limits": Limits(front.kvasir.db, presence)}
        kvasir = cast(Kvasir, SimpleNamespace(**parts))
        intakes.append(Intake(kvasir, ChatHandler(kvasir), messenger, Inbox(front.kvasir.db)))
    for presence in presences * 2:
        await presence.beat()
    yield Two(front, messenger, *intakes)
    for intake in intakes:
        await intake.close(1.0)


async def test_an_answer_is_stopped_by_whoever_writes_it(two: Two) -> None:
    two.front.house.engine.pause = 30
    await two.one.take(ASKED)
    await two.until_begun()
    (post,) = two.messenger.messages
    press = Press("stop", PLACE, post, BOB)
    assert await two.other.take(press) == say("only_the_asker", "en")
    assert await two.other.take(replace(press, person=ANN)) == ""
    await two.one.hear_wants()
    await two.one.idle()
    (shown,) = two.messenger.answers("1")
    assert say("answer_stopped", "en") in shown
    assert await two.other.take(replace(press, person=ANN)) == say("nothing_to_stop", "en")


async def test_it_is_stopped_by_the_name_of_its_question_too(two: Two) -> None:
    """Where there is no message to press on yet."""
    two.front.house.engine.pause = 30
    await two.one.take(ASKED)
    await two.until_begun()
    press = Press("stop", PLACE, "1", ANN)
    assert await two.other.take(replace(press, person=BOB)) == say("only_the_asker", "en")
    assert await two.other.take(press) == ""
    await two.one.hear_wants()
    await two.one.idle()
    assert say("answer_stopped", "en") in two.messenger.answers("1")[0]
    assert await two.other.take(replace(press, post="2")) == say("nothing_to_stop", "en")


async def test_a_former_answer_never_stands_over_the_one_to_the_changed_question(two: Two) -> None:
    """Protection: the end of an answer is written only after a look whether another process answers anew."""
    engine = two.front.house.engine
    engine.pause, engine.text = 0.2, "The former answer [1]."
    await two.one.take(ASKED)
    await two.until_begun()
    engine.pause, engine.text = 0, "The answer to what was meant [1]."
    await two.other.take(replace(ASKED, text="How long is parental leave?", edited=True))
    await two.other.idle()
    await two.one.idle()
    (shown,) = two.messenger.answers("1")
    assert "what was meant" in shown
    (message,) = two.messenger.messages.values()
    assert not any("The former answer" in text and not text.endswith("…") for text in message.history[-1:])


async def test_a_message_that_was_sent_as_the_question_was_taken_over_goes(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands there, and is not yet noted, when another process begins to answer the changed question."""
    add_post = two.one._inbox.add_post

    async def late(item: Item, post: str) -> None:
        await two.other.take(replace(ASKED, text="How long is parental leave?", edited=True))
        await two.other.idle()
        await add_post(item, post)

    monkeypatch.setattr(two.one._inbox, "add_post", late)
    await two.one.take(ASKED)
    await two.one.idle()
    assert len(two.messenger.answers("1")) == 1


async def test_what_a_platform_forbids_one_waits_in_the_other(two: Two) -> None:
    tempo = two.one._tempos.of("C", 0.01)
    tempo.freeze(20.0)
    await two.one._kvasir.limits.exchange()
    await two.other._kvasir.limits.exchange()
    assert two.other._tempos.of("C", 0.01).frozen() > 15
    assert two.other._tempos.of("D", 0.01).frozen() == 0


async def test_edits_of_two_processes_in_one_place_take_turns(two: Two) -> None:
    waits = [await intake._tempos.of("C", 5.0).turn() for intake in (two.one, two.other, two.one)]
    assert [round(wait) for wait in waits] == [0, 5, 10]


async def test_those_who_wait_for_the_end_of_a_freeze_come_one_after_the_other(two: Two) -> None:
    """Else all of them call at once, and the platform forbids it again."""
    tempo = two.one._tempos.of("C", 2.0)
    assert [tempo.slot() for _ in range(2)] == [0.0, 0.0]
    tempo.freeze(10.0)
    assert [round(tempo.slot()) for _ in range(3)] == [10, 12, 14]
