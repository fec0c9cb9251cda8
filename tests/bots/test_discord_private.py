"""Slash commands, a message's menu, and answers that one person alone sees, on our Discord."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from core.types import Place
from tests.bots.conftest import Front
from tests.bots.discord_world import World, world
from tests.fakes.discord_server import DiscordServer, Interaction, Kind, Permission

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


async def told(town: World, interaction: Interaction) -> str:
    """What was said in answer, to that person alone."""
    await town.server.until(lambda: interaction.responses)
    assert all(one.seen_only_by is interaction.user for one in interaction.responses)
    return "\n".join(one.text for one in interaction.responses)


async def test_the_commands_are_registered_once_in_two_languages(front: Front, server: DiscordServer) -> None:
    for _ in range(2):
        async with world(front, server):
            pass
    assert len(server.calls_of("PUT", "/commands$")) == 1
    names = {(one["type"], one["name"]) for one in server.world.commands}
    assert names == {(1, "ask"), (1, "kvasir"), (3, "Ask Kvasir about this"), (3, "Keep as answer")}
    ask = next(one for one in server.world.commands if one["name"] == "ask")
    assert ask["description_localizations"]["zh-CN"].startswith("提问")
    assert all(one["integration_types"] == [0] for one in server.world.commands)


async def test_a_slash_question_is_answered_to_its_asker_alone_and_can_be_shared(town: World) -> None:
    people = town.server.world
    asked = town.server.slash(people.ann, people.general, "ask", question="how long is annual leave?")
    await town.until(lambda: asked.responses and ANSWER in asked.responses[0].text)
    await town.idle()
    (answer,) = asked.responses
    assert answer.seen_only_by is people.ann
    assert town.server.seen(people.general) == []
    assert (answer.pinged, answer.previews) == (set(), [])
    assert list(answer.buttons) == ["👍", "👎", "Answer again", "Share to channel"]

    thumb = town.server.click(people.ann, answer, "👍")
    assert "helpful" in await told(town, thumb)
    shared = town.server.click(people.ann, answer, "Share to channel")
    await town.server.until(lambda: shared.responses)
    first, second = town.server.seen(people.general)
    assert first.text == "Shared by Ann"
    assert ANSWER in second.text
    assert second.pinged == set()


async def test_what_is_private_cannot_be_shared(town: World) -> None:
    people = town.server.world
    asked = town.server.slash(people.ann, people.general, "ask", question="how long is annual leave?")
    await town.until(lambda: asked.responses and ANSWER in asked.responses[0].text)
    await town.idle()
    town.front.knowledge.there["handbook"] = True
    shared = town.server.click(people.ann, asked.responses[0], "Share to channel")
    assert "private" in await told(town, shared)
    assert town.server.seen(people.general) == []


async def test_slash_questions_of_one_person_are_one_conversation(town: World) -> None:
    people, engine = town.server.world, town.front.house.engine
    for user, question in (
        (people.ann, "how long is annual leave?"),
        (people.bo, "parking?"),
        (people.ann, "in Spain?"),
    ):
        asked = town.server.slash(user, people.general, "kvasir ask", question=question)
        await town.until(lambda asked=asked: asked.responses and ANSWER in asked.responses[0].text)
        await town.idle()
    said = "\n".join(turn.text for turn in engine.asked[-1][0].turns)
    assert "how long is annual leave?" in said
    assert "parking?" not in said


@pytest.mark.parametrize("applied", [True, False])
async def test_an_interaction_is_answered_also_where_the_first_try_fails(town: World, applied: bool) -> None:
    people = town.server.world
    town.server.fail("POST", "/callback$", applied=applied)
    asked = town.server.slash(people.ann, people.general, "ask", question="how long is annual leave?")
    await town.until(lambda: asked.responses and ANSWER in asked.responses[0].text)
    await town.idle()
    assert len(asked.responses) == 1


async def test_an_answer_that_comes_too_late_goes_to_the_asker_in_private(front: Front, server: DiscordServer) -> None:
    people = server.world
    front.house.engine.pause = 30
    async with world(front, server) as town:
        asked = server.slash(people.ann, people.general, "ask", question="how long is annual leave?")
        await server.until(lambda: asked.responses)
        await town.until(lambda: front.house.engine.begun.is_set())
    server.interactions.life = 0
    front.house.engine.pause = 0
    async with world(front, server) as town:
        chat = people.dm_of(people.ann)
        await town.until(lambda: any(ANSWER in one.text for one in server.seen(chat)))
        await town.idle()
        assert len(server.seen(chat)) == 1
        thumb = server.click(people.ann, server.seen(chat)[0], "👍")
        assert "helpful" in await told(town, thumb)


async def test_a_slash_question_goes_on_after_a_restart_in_the_same_message(
    front: Front, server: DiscordServer
) -> None:
    people = server.world
    front.house.engine.pause = 30
    async with world(front, server) as town:
        asked = server.slash(people.ann, people.general, "ask", question="how long is annual leave?")
        await server.until(lambda: asked.responses)
        await town.until(lambda: front.house.engine.begun.is_set())
    front.house.engine.pause = 0
    async with world(front, server) as town:
        await town.until(lambda: ANSWER in asked.responses[0].text)
        await town.idle()
    assert len(asked.responses) == 1


async def test_a_message_can_be_asked_about_from_its_menu(town: World) -> None:
    """Discord gives its text although the bot is not mentioned in it."""
    people = town.server.world
    said = town.server.say(people.bo, people.general, "how long is annual leave?")
    asked = town.server.context(people.ann, said, "Ask Kvasir about this")
    await town.until(lambda: asked.responses and ANSWER in asked.responses[0].text)
    await town.idle()
    assert town.front.house.search.asked[0][0] == "how long is annual leave?"
    assert asked.responses[0].seen_only_by is people.ann


async def test_commands_say_and_change_how_a_channel_is_answered(town: World) -> None:
    people = town.server.world
    assert "Mention me" in await told(town, town.server.slash(people.ann, people.general, "kvasir help"))
    assert "handbook" in await told(town, town.server.slash(people.ann, people.general, "kvasir status"))
    assert "handbook" in await told(town, town.server.slash(people.ann, people.general, "kvasir kb"))
    may_not = town.server.slash(people.bo, people.general, "kvasir set", what="mode", value="off")
    assert "looks after this channel" in await told(town, may_not)

    people.ann.permissions |= int(Permission.MANAGE_CHANNELS)
    for what, value in (("mode", "off"), ("helpers", f"<@{people.bo.id}> <@&77>"), ("managers", f"<@!{people.bo.id}>")):
        done = town.server.slash(people.ann, people.general, "kvasir set", what=what, value=value)
        assert "Changed" in await told(town, done)
    place = Place("discord", str(people.guild.id), str(people.general.id))
    channel = await town.front.kvasir.channels.get(place)
    assert (channel.mode, channel.helpers) == ("off", (str(people.bo.id), "&77"))
    assert channel.managers == (f"discord:{people.bo.id}",)

    town.server.mention(people.ann, people.general, "are you there?")
    reset = town.server.slash(people.bo, people.general, "kvasir reset")
    assert "as it was" in await told(town, reset)
    asked = await town.ask("and now?")
    assert len(town.server.answers(asked)) == 1
    assert len(town.front.house.search.asked) == 1


async def test_whoever_reads_discord_in_chinese_is_told_in_chinese(town: World) -> None:
    people = town.server.world
    people.bo.locale = "zh-CN"
    assert "提及我并提问" in await told(town, town.server.slash(people.bo, people.general, "kvasir help"))
    (answer,) = town.server.answers(await town.ask("how long is annual leave?"))
    down = town.server.click(people.bo, answer, "👎")
    await town.server.until(lambda: down.modal)
    assert down.modal is not None
    assert down.modal["title"] == "哪里不好？"
    assert "谢谢" in await told(town, town.server.submit(down, reason="没有说西班牙"))


async def test_knowledge_bases_are_offered_while_one_types_and_can_be_chosen(town: World) -> None:
    people = town.server.world
    town.front.knowledge.there |= {"hardware": False, "secret": True}
    typing = town.server.autocomplete(people.ann, people.general, "ask", "kb", "HA")
    await town.server.until(lambda: typing.choices is not None)
    assert [one["value"] for one in typing.choices or ()] == ["handbook", "hardware"]
    more = town.server.autocomplete(people.ann, people.general, "kvasir kb", "names", "handbook, hard")
    await town.server.until(lambda: more.choices is not None)
    assert [one["value"] for one in more.choices or ()] == ["handbook, hardware"]

    asked = town.server.slash(people.ann, people.general, "ask", question="how long is leave?", kb="handbook")
    await town.until(lambda: asked.responses and ANSWER in asked.responses[0].text)
    await town.idle()
    assert town.front.house.search.asked[-1][1] == ("handbook",)
    refused = town.server.slash(people.ann, people.general, "ask", question="which codes?", kb="secret")
    await town.until(lambda: refused.responses and "secret" in refused.responses[0].text)


async def test_a_setting_holds_in_the_threads_of_its_channel(town: World) -> None:
    people = town.server.world
    place = Place("discord", str(people.guild.id), str(people.general.id))
    await town.front.kvasir.channels.change(place, "ann", feedback=False)
    thread = town.server.open_thread(people.ann, town.server.say(people.ann, people.general, "x"), "aside")
    asked = town.server.mention(people.bo, thread, "how long is annual leave?")
    answer = await town.answered(asked)
    assert list(answer.buttons) == ["Answer again"]


async def test_whoever_asks_too_much_is_told_alone(front: Front, server: DiscordServer) -> None:
    people = server.world
    limits = front.house.settings.channels.model_copy(update={"questions_per_minute": 1})
    front.house.settings = front.house.settings.model_copy(update={"channels": limits})
    async with world(front, server) as town:
        await town.ask("how long is annual leave?")
        for _ in range(2):
            more = server.slash(people.ann, people.general, "ask", question="and now?")
            assert "asked a lot" in await told(town, more)


async def test_commands_in_private_and_in_forums(town: World) -> None:
    people = town.server.world
    chat = people.dm_of(people.ann)
    assert "handbook" in await told(town, town.server.slash(people.ann, chat, "kvasir status"))
    await told(town, town.server.slash(people.ann, chat, "kvasir set", what="language", value="zh"))
    assert "知识库" in await told(town, town.server.slash(people.ann, chat, "kvasir status"))
    forum = people.add_channel("help", Kind.FORUM)
    post = town.server.post(people.ann, forum, "Leave", "hello")
    asked = town.server.slash(people.bo, post, "ask", question="how long is annual leave?")
    await town.until(lambda: asked.responses and ANSWER in asked.responses[0].text)


async def test_interactions_that_came_to_nothing_leave_us_listening(town: World) -> None:
    people = town.server.world
    town.server.fail("POST", "/callback$", status=400, times=3)
    for _ in range(3):
        town.server.slash(people.ann, people.general, "kvasir help")
    await town.server.until(lambda: len(town.server.calls_of("POST", "/callback$")) == 3)
    await asyncio.sleep(0)
    assert "Mention me" in await told(town, town.server.slash(people.ann, people.general, "kvasir help"))
