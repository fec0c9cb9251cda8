"""The database is made and brought up to date by its migrations, and these fit the tables."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select, text

from core.db import migrate, queue_schema
from core.db.session import Database
from core.db.tables import KnowledgeBaseRow, Table
from core.errors import ConfigError, Unavailable
from core.work.jobs import Jobs
from tests.databases import Postgres, upgrade_at_once

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def upgraded_at_once() -> None:
    """Here every database goes through all migrations."""


async def test_the_migrations_make_exactly_the_tables(db: Database) -> None:
    def differences(connection: Connection) -> object:
        def is_meant(item: Any, name: str | None, kind: str, *_more: object) -> bool:
            if (name or "").startswith("procrastinate_") or "procrastinate" in str(getattr(item, "table", "")):
                return False  # those of the queue engine, which makes them itself
            return kind != "index" or item.info.get("only") in (None, connection.dialect.name)

        context = MigrationContext.configure(connection, opts={"include_object": is_meant})
        return compare_metadata(context, Table.metadata)

    async with db.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.sqlite("there the tests spare themselves the migrations")
async def test_databases_of_tests_are_as_migrated_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dump(name: str) -> list[str]:
        database = Database(f"sqlite+aiosqlite:///{tmp_path / name}")
        assert (await migrate.upgrade(database)).is_newest
        await database.close()
        with closing(sqlite3.connect(tmp_path / name)) as file:
            return list(file.iterdump())

    migrated = await dump("migrated.db")
    monkeypatch.setattr(migrate, "_upgrade", upgrade_at_once)
    assert [await dump("first.db"), await dump("second.db")] == [migrated, migrated]


def test_the_newest_revision_is_the_one_that_alembic_would_go_to() -> None:
    assert migrate.newest_revision() == ScriptDirectory.from_config(migrate._config()).get_current_head()


async def test_upgrading_twice_does_nothing_the_second_time(db: Database) -> None:
    assert (await migrate.upgrade(db)).is_newest


@pytest.mark.postgres
async def test_processes_that_start_together_upgrade_once(postgres: Postgres) -> None:
    """Protection: the advisory lock, around the queue engine's tables as well."""
    async with postgres.database(migrated=False) as url:
        databases = [Database(url) for _ in range(3)]
        found = await asyncio.gather(*(migrate.upgrade(database) for database in databases))
        assert all(one.is_newest for one in found)
        for database in databases:
            await database.close()


@pytest.mark.postgres
async def test_tables_of_an_older_queue_engine_are_brought_up_to_date(postgres: Postgres) -> None:
    """Protection: `queue_schema.apply` knows what was applied; tables of another program are left alone."""
    *older, last = queue_schema._migrations()

    def old(connection: Connection) -> None:
        for path in older:
            queue_schema._run(connection, path.read_text(encoding="utf-8"))

    async with postgres.database(migrated=False) as url:
        db = Database(url)
        async with db.engine.begin() as connection:
            await connection.run_sync(old)
        with pytest.raises(ConfigError, match="another program"):
            await migrate.upgrade(db)
        async with db.session() as session:
            await session.execute(text(f"COMMENT ON TABLE procrastinate_jobs IS '{older[-1].stem}'"))
        assert (await migrate.upgrade(db)).is_newest
        async with db.read() as session:
            assert await session.scalar(text(queue_schema._NOTE)) == last.stem
        await Jobs(db).add("ingest", {"kb": "a"})
        await db.close()


async def test_times_come_back_aware_and_in_utc(db: Database) -> None:
    async with db.session() as session:
        session.add(KnowledgeBaseRow(name="a", chunk_size=100, chunk_overlap=10))
    async with db.read() as session:
        row = (await session.scalars(select(KnowledgeBaseRow))).one()
        assert row.created_at.utcoffset() is not None
        assert row.created_at.utcoffset().total_seconds() == 0  # type: ignore[union-attr]


async def test_a_failed_migration_leaves_nothing_behind(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: the upgrade runs in one transaction (fault 93)."""
    database = Database(empty_database_url)
    genuine = migrate._upgrade

    def breaks(connection: Connection) -> None:
        genuine(connection)
        raise RuntimeError("the power went")

    monkeypatch.setattr(migrate, "_upgrade", breaks)
    with pytest.raises(RuntimeError):
        await migrate.upgrade(database)
    monkeypatch.undo()
    assert (await migrate.revision(database)).current is None
    assert (await migrate.upgrade(database)).is_newest
    await database.close()


async def test_a_filled_older_database_is_copied_and_brought_up_to_date(tmp_path: Path) -> None:
    """Protection: `_keep_copy` (fault 93); nothing is lost on the way up, and the copy holds what was there."""
    path = tmp_path / "kvasir.db"
    database = Database(f"sqlite+aiosqlite:///{path}")

    def first(connection: Connection) -> None:
        alembic.command.upgrade(migrate._config(connection), "0001")

    async with database.engine.begin() as connection:
        await connection.run_sync(first)
        await connection.execute(
            text(
                "INSERT INTO knowledge_bases (id, name, description, private, chunk_size, chunk_overlap, title_enhance,"
                " created_at, updated_at) VALUES ('1', 'kept', '', 0, 100, 10, 1, '2026-01-01', '2026-01-01')"
            )
        )
    assert (await migrate.upgrade(database)).is_newest
    async with database.read() as session:
        assert (await session.scalars(select(KnowledgeBaseRow.name))).all() == ["kept"]
    await database.close()
    with closing(sqlite3.connect(tmp_path / "kvasir.db.before-0001")) as copy:
        assert copy.execute("SELECT name FROM knowledge_bases").fetchall() == [("kept",)]
        assert not copy.execute("SELECT * FROM sqlite_master WHERE name = 'inbox'").fetchall()


async def test_a_database_of_a_newer_kvasir_is_left_alone(db: Database) -> None:
    async with db.session() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="newer Kvasir"):
        await migrate.upgrade(db)


async def test_a_damaged_file_is_named_and_not_touched(tmp_path: Path) -> None:
    """Protection: no silent reset of a file that cannot be read (fault 77)."""
    path = tmp_path / "kvasir.db"
    path.write_bytes(b"this is no database" * 100)
    database = Database(f"sqlite+aiosqlite:///{path}")
    with pytest.raises(ConfigError, match="nothing was changed"):
        await migrate.upgrade(database)
    await database.close()
    assert path.read_bytes() == b"this is no database" * 100


async def test_an_unreachable_server_is_said_without_its_password() -> None:
    database = Database("postgresql+asyncpg://kvasir:hunter2secret@127.0.0.1:9/kvasir")
    with pytest.raises(Unavailable) as caught:
        await migrate.upgrade(database)
    assert "hunter2secret" not in str(caught.value)
    await database.close()
