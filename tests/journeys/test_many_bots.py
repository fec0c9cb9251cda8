"""`kvasir up bots` killed and started anew, and several on one PostgreSQL as on several machines: one answer each.

Processes, database, client libraries and wire are real; leases run out after seconds (`fakes/quick.py`).
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest

from bench.kill_chat import drill
from core.chats.outbox import Outbox
from core.db.session import Database
from core.db.tables import now
from core.types import Place
from core.work.presence import Presence
from tests.databases import Postgres
from tests.fakes.chats import LATE, PLATFORMS, Asked, Chats, Process, chats
from tests.processes import start

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

REPLY = "You asked «{question}». It is 28 days a year [1]."
SHARDS = 4
QUICK = "tests.fakes.quick"


def quick(data: Path, settings: dict[str, str]) -> Process:
    found = Process(data, settings, begin=partial(start, imports=LATE))
    found.command = [sys.executable, "-m", QUICK]
    return found


@dataclass
class House:
    """A database and a knowledge base that all processes share."""

    url: str
    data: Path

    def process(self, **settings: str) -> Process:
        return quick(
            self.data,
            {
                "KVASIR_DATABASE__URL": self.url,
                "KVASIR_ANSWER__ENGINE": "scripted",
                "KVASIR_SCRIPTED__REPLY": REPLY,
                "KVASIR_LOG__LEVEL": "INFO",
                **settings,
            },
        )


@pytest.fixture(scope="module")
def house(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with asyncio.Runner() as runner:
        context = postgres.database(migrated=True)
        found = House(runner.run(context.__aenter__()), tmp_path_factory.mktemp("many") / "data")
        found.process().prepare()
        yield found
        runner.run(context.__aexit__(None, None, None))


async def until(right: Callable[[], object], what: str, within: float = 60.0) -> None:
    try:
        async with asyncio.timeout(within):
            while not right():
                await asyncio.sleep(0.2)  # to look costs more than one thinks: all connections of a process
    except TimeoutError:
        raise AssertionError(what) from None


def finals(world: Chats, one: Asked) -> Sequence[str]:
    """Messages that hold the answer."""
    return [text for text in world.answers(one) if "It is 28 days" in text]


def ports(process: Process) -> set[int]:
    return {one.laddr.port for one in psutil.Process(process.id).net_connections("tcp")}


async def answered(world: Chats, asked: Sequence[Asked]) -> None:
    await until(lambda: all(finals(world, one) for one in asked), "a question was not answered")
    for one in asked:
        assert len(finals(world, one)) == 1, world.answers(one)


def checked(process: Process) -> dict[str, bool]:
    """What the health check says of the processes of this machine: the role, then its platforms."""
    done = process.run("doctor", "--role", "bots", "--json")
    found = json.loads(done.stdout)
    assert found["ok"] == (done.returncode == 0)
    return {one["what"]: one["ok"] for one in found["findings"]}


@pytest.mark.postgres
async def test_two_processes_share_what_there_is_and_either_may_die(house: House) -> None:
    async with chats() as world:
        discord = world.discord
        discord.rest.shards = SHARDS
        places = [discord.world.general]
        while {(one.guild.id >> 22) % SHARDS for one in places if one.guild} != set(range(SHARDS)):
            await asyncio.sleep(0.001)  # an id is a time
            places.append(discord.world.add_channel("talk", guild=discord.world.add_guild(f"G{len(places)}")))

        def everywhere(text: str) -> list[Asked]:
            said = [discord.mention(discord.world.ann, place, text) for place in places]
            return [Asked("discord", text, message) for message in said]

        async def asked(text: str) -> list[Asked]:
            return [*everywhere(text), *[await world.ask(one, text) for one in PLATFORMS if one != "discord"]]

        def shared(*counts: int) -> bool:
            """So many of the shards are connected from each of those that run, and each shard once."""
            found = [discord.gateway.shards_of(ports(process)) for process in (one, two, three) if process.runs]
            each = sorted(number for shards in found for number in shards)
            return sorted(map(len, found)) == sorted(counts) and each == list(range(SHARDS))

        with ExitStack() as stack:
            one, two, three = (stack.enter_context(house.process(**world.settings())) for _ in range(3))
            one.start()
            await until(lambda: shared(SHARDS), "one process holds all shards")
            await answered(world, await asked("How long is leave?"))
            two.start()
            await until(lambda: shared(2, 2), "two processes share the shards")
            await until(lambda: len(world.slack.delivery.live) == 2, "both are connected to Slack")
            await answered(world, await asked("How long is leave with two?"))
            assert world.telegram.world.mail.conflicts == 0, "one asks at a time"
            health = dict.fromkeys((*PLATFORMS, "Role bots"), False)
            for _ in range(20):
                if all((health := await asyncio.to_thread(checked, one)).values()):
                    break
                await asyncio.sleep(1.0)  # what they say is written down every three seconds
            assert health == dict.fromkeys((*PLATFORMS, "Role bots"), True)
            identified = len(discord.gateway.identified)

            flying = await asked("How long is leave in between?")
            await asyncio.sleep(0.05)
            one.kill()
            late = await asked("How long is leave after a death?")
            await answered(world, [*flying, *late])
            await until(lambda: shared(SHARDS), "the shards of a dead process are taken over")
            assert len(discord.gateway.identified) == identified, "sessions are gone on with"
            assert discord.gateway.resumed >= 2

            three.start()
            await until(lambda: shared(2, 2), "a new one has its share")
            house_outbox = Outbox(database := Database(house.url))
            place = Place("telegram", "", str(late[-1].message.chat.id))
            two.kill()  # it asked Telegram for updates; what it was sending, nobody would send again
            sent = [await house_outbox.add(place, f"Summary {n}", "digest") for n in range(4)]
            last = await asked("How long is leave after two deaths?")
            await answered(world, last)
            async with asyncio.timeout(30):
                while {(await house_outbox.get(post)).state for post in sent} != {"sent"}:
                    await asyncio.sleep(0.1)
            await database.close()
            assert await asyncio.to_thread(three.end) == 0
        await answered(world, [*flying, *late, *last])


@pytest.mark.postgres
async def test_slack_by_http_before_two_processes_with_one_quota(house: House) -> None:
    """Slack's requests come to any of them, and a person's questions are counted by all together."""
    async with chats() as world:
        slack = world.slack
        ports = [_free_port(), _free_port()]
        given = {
            "KVASIR_SLACK__BOT_TOKEN": slack.workspace.token,
            "KVASIR_SLACK__BASE_URL": slack.base_url,
            "KVASIR_SLACK__SIGNING_SECRET": slack.delivery.signing_secret,
            "KVASIR_CHANNELS__QUESTIONS_PER_MINUTE": "6",
        }
        with ExitStack() as stack:
            processes = [house.process(**given, KVASIR_SLACK__EVENTS_PORT=str(port)) for port in ports]
            for process in processes:
                stack.enter_context(process).start()
            urls = [f"http://127.0.0.1:{port}/hooks/slack" for port in ports]
            await until(lambda: all(map(_is_open, ports)), "both serve")
            await known(house, {process.id for process in processes})
            questions, begun = [], time.time()
            for number in range(10):
                slack.delivery.request_url = urls[number % 2]
                message = await slack.people.mention(f"How long is leave number {number}?")
                questions.append(Asked("slack", message.body, message))
                slack.delivery.request_url = urls[(number + 1) % 2]
                await slack.people.tell(message)  # and once more, to the other
            await until(lambda: sum(bool(finals(world, one)) for one in questions) >= 6, "six are answered")
            await asyncio.sleep(1.0)  # what would be let in besides is
            passed = (
                time.time() % 60 if begun // 60 < time.time() // 60 else 0.0
            )  # in another minute: there is room again
            assert 6 <= [len(finals(world, one)) for one in questions].count(1) <= 6 + math.ceil(6 * passed / 60)
            assert not any(len(finals(world, one)) > 1 for one in questions)


async def test_each_question_has_one_answer_whenever_the_bots_are_killed(tmp_path: Path) -> None:
    """Questions in flight when a process is killed are answered once by the next one (faults 82, 83 and 85).

    `make bench ARGS=kill_chat` does it 200 times, with leases as they are.
    """
    assert await drill(tmp_path, kills=2, seed=7, longest_life=2.0, process_of=quick)


async def known(house: House, numbers: set[int]) -> None:
    """Until each of these processes has heard that all others are connected to Slack."""
    database = Database(house.url)
    observer = Presence(database)
    since = None
    async with asyncio.timeout(60):
        while True:
            await observer.beat()
            found = [one for one in observer.others("bots", "slack") if one.number in numbers]
            if since is None and len(found) == len(numbers):
                since = now()
            if since is not None and all(one.seen_at > since for one in found):  # with the next beat of each
                break
            await asyncio.sleep(0.1)
    await observer.leave()
    await database.close()


def _free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def _is_open(port: int) -> bool:
    with socket.socket() as door:
        door.settimeout(0.2)
        return door.connect_ex(("127.0.0.1", port)) == 0
