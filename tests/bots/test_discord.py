"""Discord end to end: people write on a Discord of our own, and Kvasir answers there by the real client library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from core.types import Place
from tests.bots.conftest import Front
from tests.bots.discord_world import World, world
from tests.fakes.discord_server import DiscordServer, Kind, Permission, payloads

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


# ---------------------------------------------------------------- one answer
async def test_a_mention_is_answered_once_in_a_thread_of_its_own(town: World) -> None:
    asked = await town.ask("how long is annual leave?")

    (answer,) = town.server.answers(asked)
    assert asked.thread is not None
    assert answer.channel is asked.thread
    assert asked.thread.name == "how long is annual leave?"
    assert ANSWER in answer.text
    assert list(answer.buttons) == ["👍", "👎", "Answer again"]
    assert (answer.pinged, answer.previews) == (set(), [])
    assert len(answer.versions) > 1
    assert town.front.house.search.asked[0][0] == "how long is annual leave?"


async def test_whoever_waits_sees_at_which_place(town: World) -> None:
    places = town.front.house.engine.places = asyncio.Queue()
    asked = town.server.mention(town.server.world.ann, town.server.world.general, "how long is annual leave?")

    async def shown(place: int) -> None:
        says = f"You are number {place} in the queue…"
        await town.server.until(lambda: any(says in answer.text for answer in town.server.answers(asked)))

    places.put_nowait(3)
    await shown(3)
    for place in (9, 8, 7):  # faster than Discord lets us edit
        places.put_nowait(place)
    await shown(7)
    places.put_nowait(0)
    answer = await town.answered(asked)
    assert ANSWER in answer.text
    assert "queue" not in answer.text
    assert len(town.server.answers(asked)) == 1
    assert not any("number 8" in version for version in answer.versions)


async def test_without_the_right_to_open_threads_it_replies(town: World) -> None:
    town.server.deny(town.server.world.general, Permission.CREATE_PUBLIC_THREADS)
    asked = await town.ask("how long is annual leave?")

    (answer,) = town.server.answers(asked)
    assert asked.thread is None
    assert (answer.reference, answer.pinged) == (asked, set())
    assert town.server.calls_of("POST", "/threads$") == []


async def test_a_server_with_too_many_threads_is_left_alone_for_a_while(town: World) -> None:
    town.server.rest.most_threads = 0
    for question in ("how long is annual leave?", "and in Spain?"):
        asked = await town.ask(question)
        assert town.server.answers(asked)[0].reference is asked
    assert len(town.server.calls_of("POST", "/threads$")) == 1


async def test_where_nothing_can_be_replied_to_it_answers_all_the_same(town: World) -> None:
    general = town.server.world.general
    town.server.deny(general, Permission.READ_MESSAGE_HISTORY | Permission.SEND_MESSAGES_IN_THREADS)
    town.server.mention(town.server.world.ann, general, "how long is annual leave?")
    await town.until(lambda: ANSWER in town.server.seen(general)[-1].text)
    await town.idle()
    assert len(town.server.seen(general)) == 2


async def test_threads_can_be_switched_off(front: Front, server: DiscordServer) -> None:
    async with world(front, server, threads=False) as town:
        asked = await town.ask("how long is annual leave?")
        (answer,) = server.answers(asked)
        assert (asked.thread, answer.reference) == (None, asked)


async def test_replies_and_the_threads_on_them_go_on_with_the_conversation(front: Front, server: DiscordServer) -> None:
    people = server.world
    async with world(front, server, threads=False) as town:
        first = await town.ask("how long is annual leave?")
        answer = server.answers(first)[0]
        follow_up = server.say(people.bo, people.general, "and in Spain?", reply_to=answer)
        await town.answered(follow_up)
        thread = server.open_thread(people.ann, answer, "more")
        third = server.mention(people.ann, thread, "and in France?")
        await town.answered(third)

    conversations = [prompt.turns for prompt, _ in front.house.engine.asked]
    said = "\n".join(turn.text for turn in conversations[-1])
    assert "how long is annual leave?" in said
    assert "and in Spain?" in said
    assert server.answers(third)[0].channel is thread


async def test_a_thread_is_one_conversation_and_parts_from_the_next(town: World) -> None:
    first = await town.ask("how long is annual leave?")
    assert first.thread is not None
    second = town.server.mention(town.server.world.bo, first.thread, "and sick leave?")
    await town.answered(second)
    engine = town.front.house.engine
    assert "how long is annual leave?" in "\n".join(turn.text for turn in engine.asked[-1][0].turns)
    assert [one.reference for one in town.server.seen(first.thread) if one.author.bot] == [None, second]

    await town.ask("where can I park?")
    assert "annual leave?" not in "\n".join(turn.text for turn in engine.asked[-1][0].turns)


async def test_a_direct_message_is_answered_there(town: World) -> None:
    asked = town.server.dm(town.server.world.ann, "how long is annual leave?")
    answer = await town.answered(asked)
    assert ANSWER in answer.text
    assert answer.channel is asked.channel


async def test_a_forum_post_is_asked_with_its_title(town: World) -> None:
    people = town.server.world
    forum = people.add_channel("help", Kind.FORUM)
    town.server.gateway.tell("CHANNEL_CREATE", payloads.channel(forum, people), 1, people.guild.id)
    post = town.server.post(people.ann, forum, "Annual leave", f"<@{people.bot.id}> how long is it?")
    await town.until(lambda: len(town.server.seen(post)) == 2)
    await town.idle()

    question, answer = town.server.seen(post)
    assert (answer.reference, ANSWER in answer.text) == (question, True)
    assert town.front.house.search.asked[0][0] == "Annual leave\n\nhow long is it?"


async def test_bots_and_what_is_not_said_to_us_are_left_alone(town: World) -> None:
    people = town.server.world
    other = people.add_user("Robot", bot=True)
    town.server.mention(other, people.general, "how long is annual leave?")
    town.server.say(people.ann, people.general, "how long is annual leave?")
    town.server.say(people.ann, people.general, "@Kvasir <@123> how long?")
    asked = await town.ask("where can I park?")

    assert [one for one in town.server.seen(people.general) if one.author is people.bot] == []
    assert len(town.front.house.search.asked) == 1
    assert len(town.server.answers(asked)) == 1


async def test_a_call_without_words_is_told_how_to_ask_once(town: World) -> None:
    people = town.server.world
    town.server.gateway.repeat = 3
    named = town.server.say(people.ann, people.general, f"<@{people.bot.id}>")
    role = town.server.say(people.ann, people.general, f"<@&{people.guild.bot_role}> how long is annual leave?")
    await town.answered(named)
    await town.answered(role)

    for message in (named, role):
        (answer,) = town.server.answers(message)
        assert "Mention me with a question" in answer.text
    assert town.front.house.search.asked == []


async def test_a_message_can_be_pointed_at(town: World) -> None:
    people = town.server.world
    town.server.allow_message_content()
    said = town.server.say(people.bo, people.general, "how long is annual leave?")
    asked = town.server.say(people.ann, people.general, f"<@{people.bot.id}>", reply_to=said, ping=False)
    town.server.dm(people.bo, "hello")
    await town.answered(asked)
    assert "Mention me with a question" in town.shown(str(asked.id))[0]  # we may not read what Bo said


async def test_follow_ups_without_a_mention_where_they_are_wanted(front: Front, server: DiscordServer) -> None:
    server.allow_message_content()
    people = server.world
    async with world(front, server, message_content=True) as town:
        place = Place("discord", str(people.guild.id), str(people.general.id))
        await front.kvasir.channels.change(place, "ann", follow_ups=True)
        first = await town.ask("how long is annual leave?")
        assert first.thread is not None
        second = server.say(people.bo, first.thread, "and how long is sick leave?")
        server.say(people.bo, people.general, "how long is sick leave?")
        await town.answered(second)
        assert len(front.house.search.asked) == 2

        await front.kvasir.channels.change(place, "ann", mode="auto")
        heard = server.say(people.bo, people.general, "how long is parental leave?")
        await town.answered(heard)


async def test_several_shards_hear_each_their_servers(front: Front, server: DiscordServer) -> None:
    server.rest.shards = 4
    people = server.world
    places = [people.general, *(people.add_channel("talk", guild=people.add_guild(f"G{n}")) for n in range(4))]
    async with world(front, server) as town:
        await server.until(lambda: server.clients == 4)
        for channel in places:
            await town.answered(server.mention(people.ann, channel, "how long is annual leave?"))
        await town.answered(server.dm(people.bo, "how long is annual leave?"))
    assert sorted(server.gateway.identified) == [(0, 4), (1, 4), (2, 4), (3, 4)]


async def test_a_message_of_our_own_answers_where_there_is_no_thread(front: Front, server: DiscordServer) -> None:
    async with world(front, server, threads=False) as town:
        asked = await town.ask("how long is annual leave?")
        where = Place("discord", str(server.world.guild.id), str(server.world.general.id), str(asked.id))
        await town.platform.post(where, "**28 days**, says Ann. @everyone")
        await server.until(lambda: len(server.answers(asked)) == 2)
        said = server.answers(asked)[-1]
        assert "**28 days**" in said.text
        assert not said.pinged
