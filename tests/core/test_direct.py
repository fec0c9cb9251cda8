"""Statements that run without the ORM: the same values, one transaction, each caller's own errors."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from core.db.direct import Statement
from core.db.driver import Connection
from core.db.session import Database
from core.db.tables import AnswerRow, ChannelRow, InboxRow, JobRow, PostRow, new_id, now
from core.errors import Unavailable
from tests.databases import put_sqlite
from tests.processes import start

pytestmark = pytest.mark.anyio

PUT: Final = Statement(insert(JobRow))
GET: Final = Statement(select(JobRow).where(JobRow.id == bindparam("job")))
COUNT: Final = Statement(select(func.count().label("jobs")).select_from(JobRow))
STEP: Final = Statement(
    update(JobRow).where(JobRow.id == bindparam("job")).values(attempts=JobRow.attempts + bindparam("more"))
)


async def count(db: Database) -> int:
    (found,) = await db.fetch(COUNT())
    assert found.first is not None
    return int(found.first.jobs)


# ---------------------------------------------------------------- values
async def test_values_are_those_of_the_orm(db: Database) -> None:
    put = Statement(insert(AnswerRow))
    given: dict[str, Any] = {
        "id": new_id(), "person": "ann", "platform": "fake", "kbs": ["a", "年假"], "question": "Q ‘’ \n?",
        "standalone_question": "", "answered": True, "evidence": 0.25, "timings": {"total": 1.5, "deep": {"x": [None]}},
        "created_at": datetime(2026, 1, 2, 3, 4, 5, 678, timezone(timedelta(hours=8))),
    }  # fmt: skip
    await db.run(put(**given))
    async with db.read() as session:
        row = await session.get(AnswerRow, given["id"])
    (found,) = await db.fetch(Statement(select(AnswerRow))())
    assert row is not None
    assert found.first is not None
    for column in AnswerRow.__table__.columns:
        value = getattr(row, column.key)
        assert getattr(found.first, column.key) == value
        assert type(getattr(found.first, column.key)) is type(value)
        assert value == given.get(column.key, value)
    assert found.first.created_at.tzinfo is UTC
    assert (found.first.state, found.first.notice, found.first.conversation_id) == ("complete", "", None)


async def test_a_column_that_is_not_given_gets_its_default(db: Database) -> None:
    at = now()
    await db.run(PUT(kind="a"), PUT(kind="b"))
    async with db.read() as session:
        one, two = await session.scalars(select(JobRow).order_by(JobRow.kind))
    assert one.id != two.id
    assert len(one.id) == 32
    assert one.state == "queued"
    assert one.payload == {}
    assert at <= one.created_at <= two.created_at <= now()


async def test_what_changes_with_every_change_changes_here_too(db: Database) -> None:
    async with db.session() as session:
        session.add(ChannelRow(platform="fake", updated_at=now() - timedelta(days=1)))
    before = now()
    change = Statement(update(ChannelRow).values(helpers=bindparam("people")).returning(ChannelRow.updated_at))
    (done,) = await db.run(change(people=["bob"]))
    assert [row.updated_at >= before for row in done.rows] == [True]
    (found,) = await db.fetch(Statement(select(ChannelRow.helpers, ChannelRow.managers))())
    assert [tuple(row) for row in found.rows] == [(["bob"], None)]


async def test_a_value_that_is_missing_or_has_no_place_is_a_mistake_of_ours() -> None:
    for wrong in ({}, {"job": "x", "jbo": "y"}):
        with pytest.raises(TypeError, match=r"job|jbo"):
            GET(**wrong)
    with pytest.raises(TypeError, match="kind"):
        PUT(id=new_id())
    lists = Statement(select(JobRow).where(JobRow.id.in_(bindparam("ids", expanding=True))))
    with pytest.raises(TypeError, match="list"):
        lists(ids=["a"])


# ---------------------------------------------------------------- transactions
async def test_all_steps_are_done_or_none(db: Database) -> None:
    await db.run(PUT(id="1", kind="a"))
    with pytest.raises(IntegrityError):
        await db.run(PUT(id="2", kind="b"), STEP(job="1", more=1), PUT(id="1", kind="again"))
    assert await count(db) == 1
    put, stepped, found = await db.run(PUT(id="2", kind="b"), STEP(job="2", more=3), GET(job="2"))
    assert (put.count, stepped.count, [row.attempts for row in found.rows]) == (1, 1, [3])


async def test_a_condition_between_steps_stands_in_their_sql(db: Database) -> None:
    add = Statement(
        insert(PostRow).from_select(
            ["inbox_id", "platform", "message"],
            select(InboxRow.id, InboxRow.platform, InboxRow.message).where(InboxRow.fence == bindparam("held")),
        )
    )
    take_in = Statement(lambda insert: insert(InboxRow).on_conflict_do_nothing())
    question = {"platform": "fake", "message": "m1", "said_at": now(), "fence": 2}
    taken, again = await db.run(take_in(**question), take_in(**question))
    assert (taken.count, again.count) == (1, 0)
    late, held = await db.run(add(held=1), add(held=2))
    assert (late.count, held.count) == (0, 1)


async def test_callers_at_the_same_time_hear_of_their_own_errors_only(db: Database) -> None:
    await db.run(PUT(id="taken", kind="a"))
    jobs = ["taken" if number % 10 == 5 else f"{number}" for number in range(100)]
    done = await asyncio.gather(
        *(db.run(PUT(id=f"{number} first", kind="a"), PUT(id=job, kind="b")) for number, job in enumerate(jobs)),
        return_exceptions=True,
    )
    assert [isinstance(one, IntegrityError) for one in done] == [job == "taken" for job in jobs]
    assert await count(db) == 1 + 2 * 90


async def test_what_is_found_together_is_one_state(db: Database) -> None:
    async def write() -> None:
        for _ in range(30):
            await db.run(PUT(kind="a"), PUT(kind="b"))

    writing, seen = asyncio.create_task(write()), set[int]()
    while not writing.done():
        (counted,) = {row.jobs for found in await db.fetch(*[COUNT()] * 20) for row in found.rows}
        assert counted % 2 == 0
        seen.add(counted)
    await writing
    assert seen


async def test_a_cancelled_caller_disturbs_nobody(db: Database) -> None:
    await db.run(PUT(id="1", kind="a"))
    tasks = [asyncio.create_task(db.run(STEP(job="1", more=1), STEP(job="1", more=1))) for _ in range(60)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    kept = sum(not isinstance(one, BaseException) for one in done)
    (found,) = await db.fetch(GET(job="1"))
    assert found.first is not None
    assert kept >= 30
    assert found.first.attempts % 2 == 0  # both steps or none
    assert 2 * kept <= found.first.attempts <= 120
    await db.run(PUT(id="2", kind="b"))


ANOTHER: Final = """
import asyncio, sys
from sqlalchemy import update
from core.db.direct import Statement
from core.db.driver import Connection
from core.db.session import Database
from core.db.tables import JobRow
async def main():
    db = Database(sys.argv[1])
    step = Statement(update(JobRow).values(attempts=JobRow.attempts + 1))
    for _ in range(100):
        await db.run(step())
    await db.close()
asyncio.run(main())
"""


async def test_two_processes_lose_nothing(db: Database, database_url: str) -> None:
    await db.run(PUT(id="1", kind="a"))
    other = await asyncio.to_thread(start, [sys.executable, "-c", ANOTHER, database_url])
    while other.poll() is None:
        async with db.session() as session:  # the other door
            await session.execute(update(JobRow).values(attempts=JobRow.attempts - 1))
        await db.run(STEP(job="1", more=1))
        await asyncio.sleep(0.001)
    (found,) = await db.fetch(GET(job="1"))
    assert other.returncode == 0
    assert found.first is not None
    assert found.first.attempts == 100


# ---------------------------------------------------------------- the file
@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kvasir.db"


@pytest.mark.sqlite("its threads")
async def test_at_its_end_what_was_asked_for_is_done_and_it_can_be_used_again(path: Path) -> None:
    db = Database(await put_sqlite(path))
    late = asyncio.create_task(db.run(PUT(id="1", kind="a")))
    await asyncio.sleep(0)
    await db.close()
    await late
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("database-")]
    assert await count(db) == 1
    await db.close()


@pytest.mark.sqlite("its threads")
async def test_a_connection_that_nobody_waits_for_any_more_is_closed(path: Path) -> None:
    opens, may_open = threading.Event(), threading.Event()

    def slowly() -> sqlite3.Connection:
        opens.set()
        may_open.wait(10)
        return sqlite3.connect(path, check_same_thread=False)

    connection = Connection(str(path))
    connection._opener = slowly
    waiting = asyncio.ensure_future(connection._connect())
    connection._thread.start()
    await asyncio.to_thread(opens.wait, 10)
    waiting.cancel()
    await asyncio.wait({waiting})
    may_open.set()
    await asyncio.to_thread(connection._thread.join, 10)
    assert not connection._thread.is_alive()
    assert connection._opened is not None
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection._opened.execute("SELECT 1")


@pytest.mark.sqlite("its file")
async def test_readers_never_wait_for_a_writer_and_a_cancelled_writer_holds_no_lock(path: Path) -> None:
    db = Database(await put_sqlite(path))
    await db.run(PUT(id="1", kind="a"))
    other = sqlite3.connect(path, isolation_level=None, timeout=1)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(db.run(PUT(id="2", kind="b")))
    await asyncio.sleep(0.05)
    assert await count(db) == 1
    assert not writing.done()
    writing.cancel()
    await asyncio.wait([writing], timeout=1)
    assert writing.cancelled()
    other.execute("ROLLBACK")
    await db.run(PUT(id="3", kind="c"))  # comes after what was cancelled
    other.execute("BEGIN IMMEDIATE")
    assert other.execute("SELECT id FROM jobs ORDER BY id").fetchall() == [("1",), ("3",)]
    other.close()
    await db.close()


@pytest.mark.sqlite("its file")
async def test_a_file_that_may_only_be_read_says_so_and_is_read(path: Path) -> None:
    whole = Database(await put_sqlite(path))
    await whole.run(PUT(id="1", kind="a"))
    db = Database(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(Unavailable, match=path.name):
        await db.run(PUT(id="2", kind="b"))
    assert await count(db) == 1
    with pytest.raises(Unavailable):
        await whole.fetch(PUT(id="2", kind="b"))  # who only reads may not write
    assert await count(whole) == 1
    await db.close()
    await whole.close()


async def test_a_damaged_file_says_so_and_stays_as_it_is(path: Path) -> None:
    path.write_bytes(b"my notes, not a database\n" * 400)
    db = Database(f"sqlite:///{path}")
    for steps in (db.run(PUT(kind="a")), db.fetch(COUNT())):
        with pytest.raises(Unavailable, match=path.name):
            await steps
    await db.close()
    assert path.read_bytes() == b"my notes, not a database\n" * 400


@contextmanager
def full_disk(bytes_a_file: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.sqlite("its file")
async def test_a_full_disk_keeps_nothing_half_and_is_over_when_there_is_room(path: Path) -> None:
    db = Database(await put_sqlite(path))
    await db.run(PUT(id="1", kind="a"))
    large = {"text": "x" * 400_000}
    with full_disk(200_000):
        with pytest.raises(Unavailable):
            await db.run(PUT(id="2", kind="b"), PUT(id="3", kind="c", payload=large))
        assert await count(db) == 1
    await db.run(PUT(id="2", kind="b"), PUT(id="3", kind="c", payload=large))
    assert await count(db) == 3
    await db.close()
