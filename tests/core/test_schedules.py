"""Schedules: one leader, each time once, what was missed once, and a history that says what came of it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from core import settings as settings_module
from core import worker
from core.app import Kvasir
from core.db.session import Database
from core.db.tables import JobRow, LeaseRow, ScheduleRow, ScheduleRunRow, now
from core.errors import NotFound, UserError
from core.upkeep.backups import folder_of
from core.work import leases as leases_module
from core.work.jobs import Jobs, run_job
from core.work.leases import Leases
from core.work.scheduler import Scheduler
from core.work.schedules import LEAD, NewSchedule, Schedules
from tests.databases import put_sqlite
from tests.fakes.embedder import HashEmbedder

pytestmark = pytest.mark.anyio

START = datetime.fromisoformat("2026-11-23T12:00:00+00:00")


class House:
    """A database with a clock that a test sets."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.now = START
        self.jobs = Jobs(db)
        self.leases = Leases(db)
        self.schedules = self.another()

    def another(self) -> Schedules:
        """Another process on the same database."""
        return Schedules(self.db, self.jobs, self.leases, {"backup": None, "sync": None}, lambda: self.now)

    async def fire(self, schedule_id: str, holder: str = "me") -> bool:
        fence = await self.leases.take(LEAD, holder)
        assert fence is not None
        return await self.schedules.fire(schedule_id, holder=holder, fence=fence)

    async def work_off(self, result: str = "Done.") -> None:
        async def work(_job: object) -> str:
            return result

        while (job := await self.jobs.claim()) is not None:
            await run_job(self.jobs, job, work)
            await self.schedules.note(job, result)


@pytest.fixture
async def house(db: Database) -> House:
    return House(db)


async def _count(db: Database, table: type[JobRow] | type[ScheduleRunRow]) -> int:
    async with db.read() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def test_what_is_due_is_started_once_and_says_what_came_of_it(house: House) -> None:
    made = await house.schedules.create(NewSchedule("backup", "*/10 * * * *", settings={"keep": 3}), by="user:1")
    assert made.next_at == START + timedelta(minutes=10)
    assert not await house.fire(made.id)
    house.now = START + timedelta(minutes=10)
    assert await house.fire(made.id)
    assert not await house.fire(made.id)
    (job,) = await house.jobs.list()
    assert (job.kind, job.payload["settings"]) == ("backup", {"keep": 3})
    await house.work_off("A file was written.")
    (run,), total = await house.schedules.runs(made.id)
    assert (total, run.state, run.result, run.due) == (1, "done", "A file was written.", house.now)
    assert (await house.schedules.get(made.id)).next_at == START + timedelta(minutes=20)


async def test_two_schedulers_at_the_same_moment_start_it_once(house: House) -> None:
    """Protection: the run's slot is unique, and written together with its job."""
    made = await house.schedules.create(NewSchedule("backup", "*/10 * * * *"))
    house.now += timedelta(minutes=10)
    fence = await house.leases.take(LEAD, "me")
    assert fence is not None
    others = [house.another() for _ in range(4)]
    started = await asyncio.gather(*(other.fire(made.id, holder="me", fence=fence) for other in others))
    assert sorted(started) == [False, False, False, True]
    assert await _count(house.db, JobRow) == await _count(house.db, ScheduleRunRow) == 1


async def test_a_slot_that_has_its_run_gets_no_second_job(house: House) -> None:
    """The same without the lock of the row: only the slot stands between two schedulers that know the same time."""
    made = await house.schedules.create(NewSchedule("backup", "*/10 * * * *"))
    house.now += timedelta(minutes=10)
    assert await house.fire(made.id)
    await house.work_off()
    async with house.db.session() as session:
        await session.execute(update(ScheduleRow).values(next_at=house.now))
    assert not await house.fire(made.id)
    assert await _count(house.db, JobRow) == 1


async def test_what_was_missed_is_done_once(house: House) -> None:
    made = await house.schedules.create(NewSchedule("backup", "*/10 * * * *"))
    house.now += timedelta(hours=5, minutes=3)
    assert await house.fire(made.id)
    assert not await house.fire(made.id)
    assert (await house.schedules.get(made.id)).next_at == START + timedelta(hours=5, minutes=10)


async def test_what_was_due_long_ago_is_left_out(house: House) -> None:
    made = await house.schedules.create(NewSchedule("backup", "0 13 * * mon"))
    house.now += timedelta(days=3)
    assert not await house.fire(made.id)
    assert (await house.schedules.get(made.id)).next_at == START + timedelta(days=7, hours=1)
    assert await _count(house.db, JobRow) == 0


async def test_a_run_that_is_not_over_holds_up_the_next(house: House) -> None:
    made = await house.schedules.create(NewSchedule("backup", "*/10 * * * *"))
    for _ in range(2):
        house.now += timedelta(minutes=10)
        await house.fire(made.id)
    assert await _count(house.db, JobRow) == 1
    (newest, _), _ = await house.schedules.runs(made.id)
    assert "was not over" in newest.result


async def test_run_now_and_turned_off(house: House) -> None:
    made = await house.schedules.create(NewSchedule("backup", "daily", enabled=False))
    assert made.next_at is None
    first, second = await house.schedules.run_now(made.id), await house.schedules.run_now(made.id)
    assert first.id == second.id
    await house.work_off()
    (run,), _ = await house.schedules.runs(made.id)
    assert run.due is None
    house.now += timedelta(days=2)
    assert not await house.fire(made.id)


async def test_a_former_leader_starts_nothing(house: House) -> None:
    """Protection: the fence of the lease."""
    made = await house.schedules.create(NewSchedule("backup", "*/10 * * * *"))
    house.now += timedelta(minutes=10)
    old = await house.leases.take(LEAD, "old")
    assert old is not None
    assert await house.leases.take(LEAD, "new") is None
    async with house.db.session() as session:
        await session.execute(update(LeaseRow).values(until=now() - timedelta(seconds=1)))
    assert await house.leases.take(LEAD, "new") == old + 1
    assert not await house.schedules.fire(made.id, holder="old", fence=old)
    assert not await house.leases.renew(LEAD, "old", old)
    leader = await house.schedules.leader()
    assert leader is not None
    assert (leader.name, leader.is_there) == ("new", True)


async def test_changes_move_the_next_time_and_bad_ones_change_nothing(house: House) -> None:
    made = await house.schedules.create(NewSchedule("backup", "daily", name=" Nightly\x00 "))
    assert made.name == "Nightly"
    changed = await house.schedules.update(made.id, cron="0 13 * * *", timezone="Asia/Shanghai")
    assert changed.next_at == datetime.fromisoformat("2026-11-24T05:00:00+00:00")
    with pytest.raises(UserError):
        await house.schedules.update(made.id, cron="0 25 * * *")
    with pytest.raises(UserError):
        await house.schedules.update(made.id, kind="sync")
    assert await house.schedules.get(made.id) == changed
    assert (await house.schedules.update(made.id, enabled=False)).next_at is None
    with pytest.raises(UserError, match="cannot be scheduled"):
        await house.schedules.create(NewSchedule("coffee", "daily"))
    await house.schedules.delete(made.id)
    with pytest.raises(NotFound):
        await house.schedules.get(made.id)


async def test_the_leader_is_followed_when_it_is_gone(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two schedulers run; the one that leads is killed without a word, and the other one takes over."""
    monkeypatch.setattr(leases_module, "LEASE", timedelta(seconds=0.3))
    jobs, leases = Jobs(db), Leases(db)
    schedules = Schedules(db, jobs, leases, {"backup": None})
    pair = [Scheduler(schedules, leases, beat=0.05) for _ in range(2)]
    tasks = [asyncio.create_task(each.run()) for each in pair]

    async def leader() -> str:
        while (found := await leases.holder(LEAD)) is None or not found.is_there:
            await asyncio.sleep(0.02)
        return found.name

    async with asyncio.timeout(20):
        first = await leader()
        index = next(i for i, each in enumerate(pair) if each.holder == first)
        monkeypatch.setattr(pair[index], "_step_down", _silence)  # a process that is killed says nothing
        tasks[index].cancel()
        while await leader() == first:
            await asyncio.sleep(0.02)
        made = await schedules.create(NewSchedule("backup", "* * * * *"))
        async with db.session() as session:
            await session.execute(update(ScheduleRow).values(next_at=now() - timedelta(seconds=5)))
        while not (await schedules.runs(made.id))[1]:
            await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert len(await jobs.list()) == 1


async def _silence(_fence: int) -> None:
    return None


async def test_a_backup_by_schedule_is_written_and_the_oldest_goes(tmp_path: Path) -> None:
    await put_sqlite(tmp_path / "kvasir.db")
    settings = settings_module.load(data_dir=tmp_path)
    async with Kvasir.open(settings, embedder=HashEmbedder()) as kvasir:
        folder = folder_of(settings)
        folder.mkdir()
        for name in ("kvasir-20260101-000000.zip", "kvasir-20260102-000000.zip", "holiday.zip"):
            (folder / name).touch()
        made = await kvasir.schedules.create(NewSchedule("backup", "daily", settings={"keep": 2}))
        await kvasir.schedules.run_now(made.id)
        service = asyncio.create_task(worker.serve(kvasir, None))
        async with asyncio.timeout(20):
            while not (runs := (await kvasir.schedules.runs(made.id))[0])[0].result or runs[0].state != "done":
                await asyncio.sleep(0.02)
        service.cancel()
        await asyncio.wait({service})
        kept = sorted(item.name for item in folder.iterdir())
        assert kept[:2] == ["holiday.zip", "kvasir-20260102-000000.zip"]
        assert len(kept) == 3
        assert "old backups deleted: 1" in runs[0].result
        assert (await kvasir.jobs.get(runs[0].job_id)).progress["result"] == runs[0].result


async def test_a_long_job_of_one_kind_holds_up_no_other(db: Database) -> None:
    """Protection: the lanes."""
    jobs = Jobs(db)
    for kind in ("sync", "sync", "ingest", "backup", "digest"):
        await jobs.add(kind, {})
    taken = [await jobs.claim(busy) for busy in ((), ("sync",), ("sync", "documents"), ("sync", "documents", "other"))]
    assert [job and job.kind for job in taken] == ["sync", "ingest", "backup", None]
