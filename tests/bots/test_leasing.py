"""What only one process does: it follows the lease, whatever becomes of that."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import update

from bots import leasing
from bots.leasing import while_held
from core.db.session import Database
from core.db.tables import LeaseRow, now
from core.errors import Unavailable
from core.work.leases import Leases

pytestmark = pytest.mark.anyio

NAME = "telegram/1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("RENEW", 0.02), ("TRY", 0.01), ("_AGAIN", 0.01), ("_SURE", 0.3)):
        monkeypatch.setattr(leasing, f"{name}_SECONDS", seconds)


class Worker:
    """One process that would do the work."""

    def __init__(self, leases: Leases, name: str) -> None:
        self.works, self.rests = asyncio.Event(), asyncio.Event()
        self.begun = 0
        self.task = asyncio.create_task(while_held(leases, NAME, name, self._work, self._say))

    async def _work(self) -> None:
        self.begun += 1
        self.works.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.works.clear()

    def _say(self, is_ours: bool) -> None:
        (self.rests.clear if is_ours else self.rests.set)()

    async def until(self, event: asyncio.Event) -> None:
        async with asyncio.timeout(10):
            await event.wait()

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_one_works_and_the_other_follows_at_once_when_it_is_told_to_stop(db: Database) -> None:
    one = Worker(Leases(db), "one")
    await one.until(one.works)
    other = Worker(Leases(db), "other")
    await other.until(other.rests)
    assert (one.works.is_set(), other.works.is_set()) == (True, False)
    await one.end()
    await other.until(other.works)
    await other.end()


async def test_whose_lease_went_to_another_stops_and_stands_by(db: Database) -> None:
    """It was away so long that another took over; each write of it counts by the fence."""
    leases = Leases(db)
    one = Worker(leases, "one")
    await one.until(one.works)
    async with db.session() as session:
        later = now() + timedelta(seconds=60)
        await session.execute(update(LeaseRow).values(holder="another", fence=LeaseRow.fence + 1, until=later))
    await one.until(one.rests)
    assert not one.works.is_set()
    await leases.give_back(NAME, "another", 2)
    await one.until(one.works)
    assert one.begun == 2
    await one.end()


async def test_who_cannot_renew_stops_before_another_can_begin(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    leases = Leases(db)
    one = Worker(leases, "one")
    await one.until(one.works)

    async def away(*_: object) -> bool:
        raise Unavailable("The database is away.")

    monkeypatch.setattr(leases, "renew", away)
    monkeypatch.setattr(leases, "take", away)
    await one.until(one.rests)
    assert not one.works.is_set()
    monkeypatch.undo()
    await one.end()


async def test_what_the_work_raises_is_raised_and_the_lease_given_back(db: Database) -> None:
    async def fails() -> None:
        raise RuntimeError("the token was revoked")

    leases = Leases(db)
    with pytest.raises(RuntimeError, match="revoked"):
        await while_held(leases, NAME, "one", fails, lambda _: None)
    assert await leases.take(NAME, "other") == 2
