"""Processes know of each other, and of what limits they share: on both databases, as different processes would."""

from __future__ import annotations

import asyncio
import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from core.cli.watched import report
from core.db.session import Database
from core.db.tables import ProcessRow, now
from core.ports import Finding
from core.settings import Settings
from core.work.leases import Leases
from core.work.limits import Limits
from core.work.presence import ALIVE, Presence, examine_role
from tests.databases import put_sqlite

pytestmark = pytest.mark.anyio


@pytest.fixture
async def two(db: Database) -> tuple[Presence, Presence]:
    """Two processes with Slack, which have heard of each other."""
    first, second = Presence(db), Presence(db)
    first._started -= timedelta(seconds=1)
    for one in (first, second):
        one.say("bots", {"slack": "connected", "telegram": "off"})
        await one.beat()
    await first.beat()
    return first, second


# ---------------------------------------------------------------- who is there
async def test_processes_know_those_that_share_the_work(two: tuple[Presence, Presence]) -> None:
    first, second = two
    assert [one.id for one in first.others("bots", "slack")] == [second.id]
    assert first.others("bots", "telegram") == []
    assert first.others_run("bots")
    assert not first.others_run("web")
    await second.leave()
    await first.beat()
    assert first.others("bots", "slack") == []
    assert not first.others_run("bots")


async def test_one_that_was_not_heard_of_for_long_is_gone(
    two: tuple[Presence, Presence], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for whoever hears nothing himself, since the database is away."""
    first, _ = two
    later = now() + ALIVE
    assert first.others_run("bots")
    monkeypatch.setattr("core.work.presence.now", lambda: later)
    assert first.others("bots", "slack") == []
    assert not first.others_run("bots")


async def test_what_the_former_processes_of_a_house_held_is_free_at_once(db: Database) -> None:
    leases, former, other = Leases(db), Presence(db), Presence(db)
    await former.belongs_to("aaaa")
    await other.belongs_to("a%_a")
    for one in (former, other):
        assert await leases.take(f"x/{one.id[:4]}", one.id) == 1
    assert await leases.take("x/aaaa", other.id) is None
    await leases.free("aaaa")
    found = await leases.holders("x/")
    assert {name: one.is_there for name, one in found.items()} == {"x/aaaa": False, "x/a%_a": True}
    assert await leases.take("x/aaaa", other.id) == 2


# ---------------------------------------------------------------- what they share
async def test_what_is_counted_by_several_is_let_in_as_often_as_by_one(
    db: Database, two: tuple[Presence, Presence]
) -> None:
    limits = [Limits(db, one) for one in two]
    assert all(one.are_shared("slack") and not one.are_shared("telegram") for one in limits)
    let_in = await asyncio.gather(*(limits[n % 2].count("slack:T:ann", 5) for n in range(12)))
    assert sum(let_in) == 5
    assert await limits[0].count("slack:T:bob", 5)


async def test_a_minute_later_there_is_room_again(
    db: Database, two: tuple[Presence, Presence], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 60_000.0
    monkeypatch.setattr("core.work.limits.time.time", lambda: clock)
    limits = Limits(db, two[0])
    assert [await limits.count("ann", 4) for _ in range(6)] == [True] * 4 + [False] * 2
    clock += 60  # all of the last minute still counts
    assert not await limits.count("ann", 4)
    clock += 30  # half of it does
    assert [await limits.count("ann", 4) for _ in range(3)] == [True, True, False]
    clock += 120
    assert await limits.count("ann", 4)
    clock += 4000
    await limits.forget_old()
    assert await limits.count("ann", 1)


async def test_turns_are_taken_one_after_the_other(db: Database, two: tuple[Presence, Presence]) -> None:
    limits = [Limits(db, one) for one in two]
    waits = sorted(await asyncio.gather(*(limits[n % 2].turn("C1", 10.0) for n in range(4))))
    assert [round(wait, -1) for wait in waits] == [0, 10, 20, 30]
    assert await limits[0].turn("C2", 10.0) == 0.0


async def test_what_a_platform_forbids_one_is_forbidden_to_all(db: Database, two: tuple[Presence, Presence]) -> None:
    one, other = (Limits(db, presence) for presence in two)
    one.freeze("slack/T/chat.update/", 30.0)
    one.freeze("slack/T/" + "x" * 400, 20.0)
    await one.exchange()
    await other.exchange()
    assert 25 < other.frozen("slack/T/chat.update/") <= 30
    assert 15 < other.frozen("slack/T/" + "x" * 400) <= 20
    assert other.frozen("slack/T/chat.postMessage/C1") == 0
    other.freeze("slack/T/chat.update/", 1.0)  # a shorter one takes nothing away
    await other.exchange()
    await one.exchange()
    assert one.frozen("slack/T/chat.update/") > 25


# ---------------------------------------------------------------- what others ask
async def found(settings: Settings, role: str) -> list[Finding]:
    return [finding async for finding in examine_role(settings, role)]


async def test_the_check_of_a_role_tells_whether_its_process_lives_and_is_connected(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    db = Database(await put_sqlite(tmp_path / "kvasir.db"))
    presence = Presence(db)
    assert [one.ok for one in await found(settings, "bots")] == [False]
    presence.say("jobs", {})
    presence.say("bots", {"slack": "connected", "telegram": "standby"})
    await presence.beat()
    assert [one.ok for one in await found(settings, "jobs")] == [True]
    assert [(one.what, one.ok) for one in await found(settings, "bots")][1:] == [("slack", True), ("telegram", True)]
    assert [one.ok for one in await found(settings, "web")] == [False]
    for state in ("connecting", "refused"):
        presence.say("bots", {"slack": state})
        await presence.beat()
        assert [one.ok for one in await found(settings, "bots")] == [True, False]
    async with db.session() as session:  # it hangs
        await session.execute(update(ProcessRow).values(seen_at=now() - ALIVE))
    assert [one.ok for one in await found(settings, "jobs")] == [False]
    async with db.session() as session:  # it is gone without a word; its number may be anybody's
        await session.execute(update(ProcessRow).values(number=_free_number(), seen_at=now()))
    assert [one.ok for one in await found(settings, "jobs")] == [False]
    await db.close()


def _free_number() -> int:
    ended = os.posix_spawn("/bin/true", ["/bin/true"], {})
    os.waitpid(ended, 0)
    return ended


@pytest.mark.parametrize("name", ["door", "@kvasir-test"])
async def test_systemd_hears_that_the_loop_goes_round(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{name}-{os.getpid()}" if name.startswith("@") else str(tmp_path / name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + path[1:] if path.startswith("@") else path)
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "30000")
        telling = asyncio.create_task(report())
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            said = [await loop.sock_recv(systemd, 100) for _ in range(3)]
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        assert said == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        assert "NOTIFY_SOCKET" not in os.environ, "what we start is not to speak for us"


async def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    async with asyncio.timeout(1):
        await report()
