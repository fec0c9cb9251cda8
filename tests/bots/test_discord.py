"""Discord end to end: people write on a Discord of our own, and Kvasir answers there by the real client library."""

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


async def test_without_the_right_to_open_threads_it_replies(town: World) -> None:
    town.server.deny(town.server.world.general, Permission.CREATE_PUBLIC_THREADS)
    asked = await town.ask("how long is annual leave?")

    (answer,) = town.server.answers(asked)
    assert asked.thread is None
    assert (answer.reference, answer.pinged) == (asked, set())
