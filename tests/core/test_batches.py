"""What was kept long enough is deleted a few rows at a time, in the database that is used."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text

from bots.inbox import Inbox
from core.access import OPERATOR
from core.db import batches
from core.db.session import Database
from core.db.tables import AuditRow, InboxRow, PostRow, now
from core.identity.audit import Audit
from tests.databases import put_sqlite

pytestmark = pytest.mark.anyio


async def _count(db: Database, table: type[AuditRow | InboxRow | PostRow]) -> int:
    async with db.read() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def test_the_log_of_changes_is_kept_as_long_as_the_settings_say(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "TOGETHER", 2)
    audit = Audit(db)
    for number in range(7):
        await audit.note(OPERATOR, "kb.create", object=str(number))
    async with db.session() as session:
        for row in await session.scalars(select(AuditRow).where(AuditRow.object != "6")):
            row.created_at = now() - timedelta(days=31)
    assert await audit.delete_older(0) == 0
    assert await audit.delete_older(32) == 0
    assert await audit.delete_older(30) == 6
    assert [change.object for change in (await audit.list())[0]] == ["6"]


async def test_sqlite_learns_what_its_tables_hold(tmp_path: Path) -> None:
    db = Database(await put_sqlite(tmp_path / "kvasir.db"))
    if not db.is_sqlite:
        pytest.skip("PostgreSQL does so by itself")
    async with db.session() as session:
        rows = [{"person": "p", "name": "n", "action": "a", "object": str(number)} for number in range(300)]
        await session.execute(insert(AuditRow), rows)
    await db.optimize()
    async with db.read() as session:
        assert await session.scalar(text("SELECT count(*) FROM sqlite_stat1 WHERE tbl = 'audit'"))
    await db.close()


async def test_old_questions_go_with_their_messages(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protection: `belonging`, and what is not over stays."""
    monkeypatch.setattr(batches, "TOGETHER", 2)
    old, place = now() - timedelta(days=100), {"platform": "slack", "workspace": "T", "channel": "C"}
    async with db.session() as session:
        for number in range(5):
            row = InboxRow(**place, message=str(number), state="done" if number else "waiting", said_at=old)
            row.created_at = old if number < 4 else now()
            session.add(row)
            await session.flush()
            session.add(PostRow(**place, message=f"post {number}", inbox_id=row.id))
    await Inbox(db).forget_old()
    assert (await _count(db, InboxRow), await _count(db, PostRow)) == (2, 2)
    async with db.read() as session:
        assert set(await session.scalars(select(InboxRow.message))) == {"0", "4"}


async def test_rows_that_another_process_is_at_are_left_to_it(db: Database) -> None:
    """Protection: SKIP LOCKED; nobody who tidies up waits for another who does."""
    if db.is_sqlite:
        return  # one writer at a time, whatever it does
    audit = Audit(db)
    for number in range(3):
        await audit.note(OPERATOR, "kb.create", object=str(number))
    async with db.session() as session:
        await session.execute(text("SELECT 1 FROM audit WHERE object = '1' FOR UPDATE"))
        assert await batches.delete_in_batches(db, AuditRow, AuditRow.action == "kb.create") == 2
    assert await _count(db, AuditRow) == 1
