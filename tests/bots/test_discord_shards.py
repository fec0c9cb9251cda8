"""Shards of Discord change hands without anything lost; how processes do so, `journeys/test_many_bots.py` tries."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from discord.gateway import KeepAliveHandler
from sqlalchemy import select

from bots.discord.shards import share
from core.db.tables import RatingRow
from tests.bots.conftest import Front
from tests.bots.discord_world import World, world
from tests.fakes.discord_server import DiscordServer

pytestmark = pytest.mark.anyio

ANSWER = "Annual leave is 28 days [1]."


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bots.discord.shards._OPEN_PAUSE", 0.05)
    monkeypatch.setattr("bots.discord.shards.TRY_SECONDS", 0.05)
    monkeypatch.setattr("bots.discord.shards._KEEP_SECONDS", 0.05)


@pytest.fixture
async def server() -> AsyncIterator[DiscordServer]:
    async with DiscordServer() as server:
        yield server


# ---------------------------------------------------------------- who holds how many
@pytest.mark.parametrize("count", [1, 2, 4, 7, 16])
@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_shares_make_the_whole_and_differ_by_one_at_most(count: int, members: int) -> None:
    names = [f"p{number}" for number in range(members)]
    held = {"p1": 2, "p0": 1}
    shares = [share(count, held, names, name) for name in names]
    assert sum(shares) == count
    assert max(shares) - min(shares) <= 1


def test_what_cannot_be_divided_stays_where_it_is() -> None:
    assert [share(1, {"b": 1}, ["a", "b"], name) for name in "ab"] == [0, 1]
    assert [share(4, {"a": 2, "b": 2}, ["a", "b", "c"], name) for name in "abc"] == [2, 1, 1]


# ---------------------------------------------------------------- sessions
async def kept(town: World) -> None:
    """Until it is written down how far all was dealt with."""
    shards = town.platform._shards
    assert shards is not None
    owned = shards._owned[0]
    await town.until(lambda: owned.kept is not None and owned.kept == shards._bot.session(0))


async def test_the_next_process_goes_on_with_the_session(front: Front, server: DiscordServer) -> None:
    """Reactions and the rest are in no history: only the session tells of them."""
    people = server.world
    async with world(front, server) as town:
        asked = await town.ask("how long is annual leave?")
        await kept(town)
    server.react(people.ann, server.answers(asked)[-1], "👎")
    by_role = server.say(people.ann, people.general, f"<@&{people.guild.bot_role}> and in Spain?")
    async with world(front, server) as town:
        await town.answered(by_role)
    assert (len(server.gateway.identified), server.gateway.resumed) == (1, 1)
    async with front.kvasir.db.read() as session:
        assert [row.value for row in await session.scalars(select(RatingRow))] == [-1]
    for one in (asked, by_role):
        assert len(server.answers(one)) == 1


async def test_where_discord_knows_the_session_no_more_the_gap_is_read(front: Front, server: DiscordServer) -> None:
    people = server.world
    async with world(front, server) as town:
        await town.ask("how long is annual leave?")
        await kept(town)
    server.gateway.sessions.clear()
    missed = server.mention(people.ann, people.general, "missed?")
    async with world(front, server) as town:
        await town.answered(missed)
    assert len(server.gateway.identified) == 2
    assert len(server.answers(missed)) == 1


async def test_a_session_is_kept_only_as_far_as_all_was_dealt_with(
    front: Front, server: DiscordServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: what was heard and not stored when the process ended comes again."""
    people = server.world
    async with world(front, server) as town:
        await town.ask("how long is annual leave?")
        await kept(town)
        desk = town.platform._desk
        assert desk is not None
        heard = asyncio.Event()

        async def never(*_: object) -> str:
            heard.set()
            await asyncio.Event().wait()
            return ""

        monkeypatch.setattr(desk.listener, "take", never)
        lost = server.mention(people.ann, people.general, "heard, and not stored?")
        await heard.wait()
    async with world(front, server) as town:
        await town.answered(lost)
    assert len(server.answers(lost)) == 1


async def test_no_session_is_begun_when_discord_allows_none(front: Front, server: DiscordServer) -> None:
    """Protection: a bot that begins more than a thousand a day loses its token."""
    server.rest.remaining = 0
    starting = asyncio.create_task(_ask(front, server))
    await server.until(lambda: len(server.calls_of("GET", "/gateway/bot$")) >= 3)
    assert server.gateway.identified == []
    server.rest.remaining = 1
    assert ANSWER in await starting


async def _ask(front: Front, server: DiscordServer) -> str:
    async with world(front, server) as town:
        return server.answers(await town.ask("how long is annual leave?"))[-1].text


async def test_a_second_process_stands_by_where_there_is_one_shard(front: Front, server: DiscordServer) -> None:
    async with world(front, server) as town, world(front, server) as other:
        assert (town.platform.connected, other.platform.standing_by) == (True, True)
        await town.ask("how long is annual leave?")
        assert server.gateway.identified == [(0, 1)]
    assert not other.platform.standing_by


async def test_the_setting_says_how_many_shards_there_are(front: Front, server: DiscordServer) -> None:
    async with world(front, server, shards=3) as town:
        await town.until(lambda: town.platform.connected)
        assert sorted(server.gateway.identified) == [(0, 3), (1, 3), (2, 3)]


# ---------------------------------------------------------------- given up
def _minding() -> set[threading.Thread]:
    """Threads of the library that keep connections alive."""
    return {one for one in threading.enumerate() if isinstance(one, KeepAliveHandler)}


async def test_a_connection_that_is_given_up_leaves_nothing_behind(
    front: Front, server: DiscordServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: `client._Socket`; the library leaves the socket open then, and the thread that keeps it alive."""
    async with world(front, server) as town:
        shards = town.platform._shards
        assert shards is not None
        bot = shards._bot
        await bot.leave_shard(0)
        waits = asyncio.Event()

        async def in_turn(*_: object, **__: object) -> None:
            waits.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(bot, "before_identify_hook", in_turn)
        before = _minding()
        opening = asyncio.create_task(bot.open_shard(0, None))
        await waits.wait()
        (minding,) = _minding() - before
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await asyncio.to_thread(minding.join, 5)
        assert not minding.is_alive()
