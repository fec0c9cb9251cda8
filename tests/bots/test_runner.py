"""The service that runs the chat platforms: what it opens, what becomes of one that fails, and what is changed live."""

from __future__ import annotations

import asyncio
import fcntl
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from bots import runner, running
from bots.errors import Limited, Refused, Unreachable
from bots.handler import ChatHandler
from bots.platform import Intake
from core import registry
from core.app import Kvasir
from core.chats import digests
from core.chats import outbox as outbox_module
from core.chats.connections import Connection, Connections
from core.chats.outbox import Posting
from core.db.tables import AnswerRow, ConnectionRow, OutboxRow, now
from core.settings import Settings
from core.types import Place
from core.work.jobs import Jobs
from tests.bots.conftest import Front, connected
from tests.fakes.messenger import FakeMessenger

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(runner, "_REPORT_SECONDS", 0.02)
    monkeypatch.setattr(running, "_FIRST_WAIT", 0.01)


class Failing(FakeMessenger):
    """Fails at the first tries."""

    def __init__(self, name: str, *faults: Exception) -> None:
        super().__init__(name=name)
        self.todo, self.runs, self.stands, self.ended = list(faults), 0, asyncio.Event(), 0

    async def run(self, intake: Intake) -> None:
        self.runs += 1
        if self.todo:
            raise self.todo.pop(0)
        self.stands.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stands.clear()
            self.ended += 1


Opened = dict[str, FakeMessenger | Exception | None]


@asynccontextmanager
async def serving(front: Front, monkeypatch: pytest.MonkeyPatch, opened: Opened) -> AsyncIterator[Kvasir]:
    """The service with platforms of these names; what stands for each is opened where its connection is on."""

    def open_platform(name: str, _kvasir: Kvasir) -> FakeMessenger | None:
        found = opened[name]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(registry, "load", lambda _, name: lambda kvasir: open_platform(name, kvasir))
    kvasir = connected(front.kvasir, front.house.settings, list(opened))
    service = asyncio.create_task(runner.serve(kvasir, ChatHandler(kvasir)))
    try:
        yield kvasir
    finally:
        service.cancel()
        with pytest.raises(asyncio.CancelledError):
            await service


async def until(kvasir: Kvasir, name: str, right: Callable[[Connection], object]) -> Connection:
    async with asyncio.timeout(10):
        while not right(found := await kvasir.connections.get(name)):
            await asyncio.sleep(0.01)
    return found


async def test_one_that_fails_is_started_again_alone_and_one_that_is_refused_is_not(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 88."""
    caplog.set_level(logging.INFO)
    shaky = Failing("shaky", ConnectionError("reset of https://example.org/bot123:SECRET"), OSError("no route"))
    revoked, well = Failing("revoked", Refused("token_revoked")), Failing("well")
    opened: Opened = {"shaky": shaky, "revoked": revoked, "well": well, "off": None, "broken": RuntimeError("bad")}
    async with serving(front, monkeypatch, opened) as kvasir, asyncio.timeout(10):
        await shaky.stands.wait()
        await well.stands.wait()
        refused = await until(kvasir, "revoked", lambda it: it.state == "refused")
        assert [one.error for one in refused.reports] == ["token_revoked"]
        right = ["OSError"]  # and nothing that its text may hold
        lively = await until(kvasir, "shaky", lambda it: [one.error for one in it.reports] == right)
        assert lively.state == "connected"
        assert (await until(kvasir, "broken", lambda it: it.state == "refused")).reports[0].error == "RuntimeError"
    assert (shaky.runs, revoked.runs, well.runs) == (3, 1, 1)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len([line for line in errors if "revoked will not have us" in line]) == 1
    assert len([line for line in errors if "shaky stopped" in line]) == 2


async def test_a_connection_that_is_changed_is_taken_up_alone(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Failing("one"), Failing("other")
    async with serving(front, monkeypatch, {"one": one, "other": other}) as kvasir, asyncio.timeout(10):
        await one.stands.wait()
        await other.stands.wait()
        await kvasir.connections.change("one", "user:1", {}, enabled=False)
        off = await until(kvasir, "one", lambda it: [report.state for report in it.reports] == ["stopped"])
        assert (off.state, off.enabled, one.stands.is_set()) == ("off", False, False)
        await kvasir.connections.change("one", "user:1", {}, enabled=True)
        await one.stands.wait()
        await kvasir.connections.restart("one", "user:1")
        while one.runs < 3:
            await asyncio.sleep(0.01)
        await one.stands.wait()
        assert (one.runs, one.ended, other.runs, other.ended) == (3, 2, 1, 0)
        await until(kvasir, "one", lambda it: it.state == "connected")
    assert [report.state for report in (await kvasir.connections.get("one")).reports] == ["stopped"]  # the last word


async def test_what_is_changed_just_as_it_is_read_is_begun_once(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    one, looked = Failing("one"), asyncio.Event()
    genuine_stamps, genuine_stamped = Connections.stamps, Connections.stamped

    async def stamps(self: Connections) -> Mapping[str, str]:
        found = await genuine_stamps(self)
        looked.set()
        return found

    async def changed_just_before(self: Connections, platform: str) -> tuple[str, Callable[[], Settings | None]]:
        if not one.runs:
            await self.change("one", "user:1", {}, enabled=True)
        return await genuine_stamped(self, platform)

    monkeypatch.setattr(Connections, "stamps", stamps)
    monkeypatch.setattr(Connections, "stamped", changed_just_before)
    async with serving(front, monkeypatch, {"one": one}), asyncio.timeout(10):
        await one.stands.wait()
        for _ in range(2):
            looked.clear()
            await looked.wait()
        await asyncio.sleep(0)
        assert (one.runs, one.ended) == (1, 0)


async def test_one_that_cannot_be_used_as_it_is_set_up_is_said_once(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = 0
    genuine = Connections.stamps

    async def stamps(self: Connections) -> Mapping[str, str]:
        nonlocal looks
        looks += 1
        return await genuine(self)

    monkeypatch.setattr(Connections, "stamps", stamps)
    async with front.kvasir.db.session() as session:
        session.add(ConnectionRow(platform="one", secrets="by another key", updated_by="user:1", updated_at=now()))
    async with serving(front, monkeypatch, {"one": Failing("one")}) as kvasir, asyncio.timeout(10):
        await until(kvasir, "one", lambda it: it.state == "refused")
        while looks < 4:
            await asyncio.sleep(0.01)
    assert len([record for record in caplog.records if "cannot be used as it is set up" in record.getMessage()]) == 1


async def test_a_dead_process_is_known_by_its_silence(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    kvasir = connected(front.kvasir, front.house.settings, ["one"])
    long_ago = now() - timedelta(minutes=3)
    said = {"state": "connected", "since": long_ago.isoformat(), "at": long_ago.isoformat(), "error": ""}
    async with kvasir.db.session() as session:
        session.add(ConnectionRow(platform="one", status={"old:1": said}))
    assert (await kvasir.connections.get("one")).state == "silent"
    async with serving(front, monkeypatch, {"one": Failing("one")}) as kvasir:
        living = await until(kvasir, "one", lambda it: it.state == "connected")
        assert "old:1" not in [report.process for report in living.reports]


# ---------------------------------------------------------------- the outbox
HERE = Place("fake", "W", "C")


async def posted(kvasir: Kvasir, posting_id: str) -> Posting:
    async with asyncio.timeout(10):
        while (found := await kvasir.outbox.get(posting_id)).state in ("waiting", "sending"):
            await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize(
    ("fault", "state", "says", "times"),
    [
        (None, "sent", "", 1),
        (Limited(0.01), "sent", "", 1),
        (Refused("not_in_channel"), "failed", "did not take the message: not_in_channel", 0),
        (Unreachable("timeout"), "failed", "did not say whether", 0),
        (RuntimeError("a bug"), "failed", "did not say whether", 0),
    ],
)
async def test_a_message_is_posted_or_says_why_not(
    front: Front, monkeypatch: pytest.MonkeyPatch, fault: Exception | None, state: str, says: str, times: int
) -> None:
    platform = FakeMessenger(faults=[fault] if fault else [])
    async with serving(front, monkeypatch, {"fake": platform}) as kvasir:
        found = await posted(kvasir, await kvasir.outbox.add(HERE, "Hello!", "test"))
    assert found.state == state
    assert says in found.error
    assert platform.posted == [(HERE, "Hello!")] * times


async def test_two_processes_post_once_and_one_that_is_not_connected_leaves_it(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, away = FakeMessenger(), FakeMessenger(connected=False)
    async with serving(front, monkeypatch, {"fake": away}) as kvasir:
        ids = [await kvasir.outbox.add(HERE, f"Message {number}", "test") for number in range(5)]
        await asyncio.sleep(0.1)
        assert {(await kvasir.outbox.get(one)).state for one in ids} == {"waiting"}
        async with serving(front, monkeypatch, {"fake": platform}), serving(front, monkeypatch, {"fake": platform}):
            assert {(await posted(kvasir, one)).state for one in ids} == {"sent"}
    assert sorted(text for _, text in platform.posted) == [f"Message {number}" for number in range(5)]
    assert away.posted == []


async def test_a_digest_that_two_processes_prepare_and_post_stands_there_once(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = FakeMessenger()
    kvasir = connected(front.kvasir, front.house.settings, ["fake"])
    await kvasir.channels.change(HERE, "user:1", digest="daily", language="en")
    async with kvasir.db.session() as session:
        where = {"platform": "fake", "workspace": "W", "channel": "C"}
        session.add(AnswerRow(**where, person="ann", question="Who?", standalone_question="Who?"))
    jobs = Jobs(kvasir.db)
    job = await jobs.add("digest", {"settings": {"period": "daily"}, "run": "r1"})
    async with serving(front, monkeypatch, {"fake": platform}), serving(front, monkeypatch, {"fake": platform}):
        await asyncio.gather(*(digests.run(kvasir, job) for _ in range(3)))
        ((message,), _) = await kvasir.outbox.list("fake")
        assert (await posted(kvasir, message.id)).state == "sent"
    ((place, text),) = platform.posted
    assert place == HERE
    assert "Questions: 1 · answered: 0" in text


async def test_what_a_killed_sender_left_is_not_posted_twice(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    kvasir = connected(front.kvasir, front.house.settings, ["fake"])
    left = await kvasir.outbox.add(HERE, "Half sent", "test")
    claimed = await kvasir.outbox.claim("fake")
    assert claimed is not None
    async with kvasir.db.session() as session:
        await session.execute(update(OutboxRow).values(lease_until=now() - timedelta(seconds=1)))
    platform = FakeMessenger()
    async with serving(front, monkeypatch, {"fake": platform}) as kvasir:
        after = await posted(kvasir, await kvasir.outbox.add(HERE, "Next", "test"))
        found = await kvasir.outbox.get(left)
    assert (found.state, after.state, [text for _, text in platform.posted]) == ("failed", "sent", ["Next"])
    assert "look in the channel" in found.error
    await kvasir.outbox.sent(claimed)  # its lease is another's: nothing is written over
    assert (await kvasir.outbox.get(left)).state == "failed"


async def test_a_test_message_that_nobody_fetched_is_given_up(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    kvasir = connected(front.kvasir, front.house.settings, ["fake"])
    monkeypatch.setattr(outbox_module, "_TEST_WAITS", timedelta(0))
    found = await kvasir.outbox.get(await kvasir.outbox.add(HERE, "Hello?", "test"))
    assert found.state == "failed"
    assert await kvasir.outbox.claim("fake") is None
    assert not await kvasir.outbox.waiting()
    assert "No process runs fake" in found.error


async def test_two_processes_on_one_folder_leave_each_others_questions_alone(tmp_path: Path) -> None:
    """Only who is alone takes over what leases hold; the system frees the lock of a dead process."""
    file = tmp_path / "bots.lock"
    with runner._lock(file) as first:
        assert first.alone
        with runner._lock(file) as second:
            assert not second.alone
            sharing = asyncio.create_task(second.share())  # it waits, and holds nobody up
            await asyncio.sleep(0)
            assert not sharing.done()
            await first.share()
            await sharing
    with runner._lock(file) as third:
        assert third.alone


@pytest.mark.parametrize("is_alone", [True, False])
async def test_what_former_processes_of_the_folder_held_is_free_at_the_start(
    front: Front, monkeypatch: pytest.MonkeyPatch, is_alone: bool
) -> None:
    """Whoever starts again after a kill -9 waits for no lease; where others run on the folder, theirs stay theirs."""
    leases, house = front.kvasir.leases, "a" * 16
    with (front.house.settings.data_dir / "bots.lock").open("a+") as lock:
        lock.write(house)
        lock.flush()
        if not is_alone:
            fcntl.flock(lock, fcntl.LOCK_SH)
        for name, holder in (("telegram/1", f"{house} here 7 x"), ("telegram/2", f"{'b' * 16} there 8 y")):
            assert await leases.take(name, holder) == 1
        async with serving(front, monkeypatch, {"fake": FakeMessenger()}) as kvasir:
            await until(kvasir, "fake", lambda one: one.reports)
            assert kvasir.presence.id.startswith(house)
            found = await leases.holders("telegram/")
    assert {name: one.is_there for name, one in found.items()} == {"telegram/1": not is_alone, "telegram/2": True}
