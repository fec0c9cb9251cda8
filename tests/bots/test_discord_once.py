"""Whatever breaks between Discord and Kvasir, each question has one answer, and it is whole."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.bots.conftest import Front
from tests.bots.discord_world import World, world
from tests.fakes.discord_server import DiscordServer, Permission

pytestmark = pytest.mark.anyio

ANSWER = "Annual leave is 28 days [1]."


@pytest.fixture
async def server() -> AsyncIterator[DiscordServer]:
    async with DiscordServer() as server:
        yield server


@pytest.fixture
async def town(front: Front, server: DiscordServer) -> AsyncIterator[World]:
    async with world(front, server) as town:
        yield town


async def test_the_same_event_many_times_over_two_connections_is_one_answer(
    front: Front, server: DiscordServer
) -> None:
    server.gateway.repeat = 4
    async with world(front, server) as town, world(front, server) as other:
        asked = [server.mention(server.world.ann, server.world.general, f"question {n}?") for n in range(5)]
        for one in asked:
            await town.answered(one)
        await other.idle()
    for one in asked:
        assert len(server.answers(one)) == 1
        assert ANSWER in server.answers(one)[0].text


async def test_what_was_asked_in_a_gap_is_answered(town: World) -> None:
    people = town.server.world
    await town.ask("before?")
    private = town.server.dm(people.bo, "hello, how long is annual leave?")
    await town.answered(private)
    with town.server.gap():
        inside = town.server.mention(people.ann, people.general, "inside?")
        thread = town.server.open_thread(people.ann, town.server.say(people.bo, people.general, "x"), "aside")
        below = town.server.mention(people.ann, thread, "in a thread?")
        privately = town.server.dm(people.bo, "are you there?")
        late = town.server.mention(people.ann, people.general, "long ago?", age=7200)
    for one in (inside, below, privately):
        assert ANSWER in (await town.answered(one)).text
        assert len(town.server.answers(one)) == 1
    assert town.server.answers(late) == []


async def test_what_was_asked_while_no_process_ran_is_answered_after_the_start(
    front: Front, server: DiscordServer
) -> None:
    people = server.world
    async with world(front, server) as town:
        before = await town.ask("before?")
    missed = [server.mention(people.ann, people.general, f"missed {n}?") for n in range(3)]
    server.say(people.ann, people.general, "not to us")
    async with world(front, server) as town:
        for one in missed:
            await town.answered(one)
    for one in (before, *missed):
        assert len(server.answers(one)) == 1


async def test_a_history_that_cannot_be_read_at_first_is_read_again(front: Front, server: DiscordServer) -> None:
    async with world(front, server) as town:
        await town.ask("before?")
    missed = server.mention(server.world.ann, server.world.general, "missed?")
    server.fail("GET", "/messages$")
    async with world(front, server) as town:
        await town.answered(missed)


async def test_what_was_asked_before_we_were_ever_there_is_not_answered(front: Front, server: DiscordServer) -> None:
    old = server.mention(server.world.ann, server.world.general, "long before you came?", age=60)
    async with world(front, server) as town:
        await town.ask("how long is annual leave?")
    assert server.answers(old) == []


async def test_a_killed_process_leaves_one_answer(front: Front, server: DiscordServer) -> None:
    people = server.world
    front.house.engine.pause = 30
    async with world(front, server) as town:
        asked = server.mention(people.ann, people.general, "how long is annual leave?")
        await server.until(lambda: server.answers(asked))
        await town.until(lambda: front.house.engine.begun.is_set())
    front.house.engine.pause = 0
    async with world(front, server) as town:
        await town.until(lambda: ANSWER in server.answers(asked)[0].text)
        await town.idle()
    assert len(server.answers(asked)) == 1


async def test_a_message_that_arrived_though_its_answer_was_lost_is_found_again(town: World) -> None:
    town.server.cut("POST", "/messages$", applied=True)
    asked = await town.ask("how long is annual leave?")
    town.server.fail("POST", "/threads$", applied=True)
    other = await town.ask("and in Spain?")
    for one in (asked, other):
        (answer,) = town.server.answers(one)
        assert ANSWER in answer.text
        assert "👎" in answer.buttons


async def test_limits_are_obeyed_and_the_end_is_never_lost(town: World) -> None:
    town.front.house.engine.text = " ".join(f"w{n}" for n in range(300)) + " the end [1]."
    town.front.house.engine.pause = 0.001
    town.server.limit = (3, 0.2)
    town.server.limit_next("PATCH", "/messages/", wait=0.2)
    town.server.limit_next("POST", "/messages$", wait=0.1, all=True)
    asked = await town.ask("how long is annual leave?")
    (answer,) = town.server.answers(asked)
    assert "the end [1]." in answer.text


async def test_a_long_answer_arrives_whole_and_within_the_limits(town: World) -> None:
    words = " ".join(f"w{n}" for n in range(6000))
    town.front.house.engine.text = f"{words} 😀😀 [1]."
    town.front.house.engine.is_scripted = True
    town.front.house.engine.size = 5000
    asked = await town.ask("tell me everything")
    shown = town.shown(str(asked.id))
    whole = " ".join(shown)
    assert [word for word in whole.split() if word.startswith("w")] == words.split()
    assert list(town.server.answers(asked)[-1].buttons) == ["👍", "👎", "Answer again"]
    assert not any(one.buttons for one in town.server.answers(asked)[:-1])


async def test_where_we_may_not_write_nothing_breaks(town: World) -> None:
    people = town.server.world
    quiet = people.add_channel("quiet")
    town.server.deny(quiet, Permission.SEND_MESSAGES | Permission.CREATE_PUBLIC_THREADS)
    town.server.mention(people.ann, quiet, "how long is annual leave?")
    await town.ask("how long is annual leave?")
    assert len(town.server.seen(quiet)) == 1


async def test_an_edited_question_is_answered_anew_in_the_same_message(town: World) -> None:
    asked = await town.ask("how long is annual leav?")
    town.front.house.engine.text = "Twenty-eight [1]."
    town.server.edit(asked, f"<@{town.server.world.bot.id}> how long is annual leave?")
    await town.until(lambda: "Twenty-eight" in town.shown(str(asked.id))[0])
    await town.idle()
    assert len(town.server.answers(asked)) == 1


async def test_a_deleted_question_takes_its_answer_along(town: World) -> None:
    asked = await town.ask("how long is annual leave?")
    town.server.delete(asked)
    await town.server.until(lambda: not town.server.answers(asked))
