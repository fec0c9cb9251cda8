"""What people do with an answer on Discord: rate it, stop it, ask again, call a human."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select

from core.db.tables import RatingRow
from core.types import Place
from tests.bots.conftest import Front
from tests.bots.discord_world import World, world
from tests.fakes.discord_server import DiscordServer

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


async def _ratings(town: World) -> list[tuple[int, str]]:
    async with town.front.kvasir.db.read() as session:
        rows = await session.execute(select(RatingRow.value, RatingRow.reason))
        return sorted((row.value, row.reason) for row in rows)


async def test_thumbs_by_button_with_a_reason_that_survives_a_restart(front: Front, server: DiscordServer) -> None:
    people = server.world
    async with world(front, server) as town:
        answer = server.answers(await town.ask("how long is annual leave?"))[0]
    async with world(front, server) as town:
        up = server.click(people.bo, answer, "👍")
        await server.until(lambda: up.responses)
        assert "helpful" in up.responses[0].text
        assert up.responses[0].seen_only_by is people.bo
        down = server.click(people.bo, answer, "👎")
        await server.until(lambda: down.modal)
        assert await _ratings(town) == [(-1, "")]
    async with world(front, server) as town:
        sent = server.submit(down, reason="It says nothing about Spain.")
        await server.until(lambda: sent.responses)
        assert await _ratings(town) == [(-1, "It says nothing about Spain.")]


async def test_thumbs_by_reaction_one_vote_each_and_taken_back(town: World) -> None:
    people = town.server.world
    asked = await town.ask("how long is annual leave?")
    (answer,) = town.server.answers(asked)
    town.server.react(people.ann, answer, "👍🏽")
    town.server.react(people.bo, answer, "👎")
    town.server.react(people.bo, answer, "🎉")
    town.server.react(people.ann, asked, "👎")
    town.server.react(people.bo, answer, "👍")
    town.server.unreact(people.ann, answer, "👍🏽")
    async with asyncio.timeout(10):
        while await _ratings(town) != [(0, ""), (1, "")]:
            await asyncio.sleep(0.01)


async def test_a_forged_button_does_nothing(town: World) -> None:
    people = town.server.world
    said = town.server.say(people.ann, people.general, "mine")
    ids = ("kvasir:up", "kvasir:down", "kvasir:again", "kvasir:stop", f"kvasir:up:{'0' * 32}", "kvasir:nothing")
    clicks = [town.server.click(people.bo, said, custom_id, forged=True) for custom_id in ids]
    await town.ask("how long is annual leave?")
    assert [click.responses for click in clicks] == [[]] * len(ids)
    assert await _ratings(town) == []


async def test_an_answer_can_be_stopped_by_its_asker_and_asked_again(town: World) -> None:
    people, engine = town.server.world, town.front.house.engine
    engine.pause = 5
    asked = town.server.mention(people.ann, people.general, "how long is annual leave?")
    await town.server.until(lambda: town.server.answers(asked))
    await town.until(lambda: engine.begun.is_set())
    placeholder = town.server.answers(asked)[0]
    not_his = town.server.click(people.bo, placeholder, "Stop")
    await town.server.until(lambda: not_his.responses)
    town.server.click(people.ann, placeholder, "Stop")
    await town.until(lambda: "Stopped" in placeholder.text)
    await town.idle()

    engine.pause = 0
    town.server.click(people.ann, placeholder, "Answer again")
    await town.until(lambda: ANSWER in placeholder.text)
    await town.idle()
    assert len(town.server.answers(asked)) == 1


async def test_helpers_are_called_and_say_when_it_is_solved(town: World) -> None:
    people = town.server.world
    place = Place("discord", str(people.guild.id), str(people.general.id))
    await town.front.kvasir.channels.change(place, "ann", helpers=(str(people.bo.id), f"&{people.guild.bot_role}"))
    (answer,) = town.server.answers(await town.ask("how long is @everyone's annual leave?"))
    called = town.server.click(people.ann, answer, "Ask a human")
    await town.server.until(lambda: called.responses)
    call = town.server.seen(answer.channel)[-1]
    assert call.pinged == {str(people.bo.id), str(people.guild.bot_role)}
    assert call.reference is answer
    assert "annual leave" in call.text

    solved = town.server.click(people.bo, call, "Solved")
    await town.server.until(lambda: solved.responses)
    assert "solved" in solved.responses[0].text
    await town.server.until(lambda: call.reactions == {"✅": [people.bot.id]})
