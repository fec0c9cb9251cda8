"""Brings the database to the newest revision: all or nothing, with a copy of an older SQLite file kept beside it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DatabaseError, OperationalError

from core.db import queue_schema
from core.db.session import Database
from core.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from alembic.config import Config

logger = logging.getLogger(__name__)

_ADVISORY_LOCK = 0x4B76_6173  # any fixed number: "Kvas"


@dataclass(frozen=True, slots=True)
class Revision:
    current: str | None
    """None: an empty database."""
    newest: str
    queue: bool = True
    """Whether the tables of the queue engine are up to date; SQLite has none."""

    @property
    def is_newest(self) -> bool:
        return self.current == self.newest and self.queue


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config  # late: a database that is up to date needs none of it, and it takes a while

    config = Config()
    config.set_main_option("script_location", "core.db:migrations")
    config.set_main_option("path_separator", "os")
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def newest_revision() -> str:
    """The revision that the last of our migrations makes; their files are named for it."""
    names = [path.name for path in (Path(__file__).parent / "migrations" / "versions").glob("[0-9]*_*.py")]
    if not names:
        raise ConfigError("This installation has no database migrations; install Kvasir again.")
    return max(names).partition("_")[0]


async def revision(db: Database) -> Revision:
    """Where the database stands. Raises ConfigError or Unavailable where it cannot be opened."""
    try:
        if db.is_sqlite and db.url.database:  # the driver leaves a thread behind where a file cannot be opened
            sqlite3.connect(db.url.database).close()
        async with db.engine.connect() as connection:
            current = await connection.run_sync(_current_revision)
            queue = db.is_sqlite or await connection.run_sync(queue_schema.is_newest)
    except (DatabaseError, sqlite3.Error, OSError) as error:
        raise _unusable(db, error) from error
    return Revision(current, newest_revision(), queue)


def _current_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


async def upgrade(db: Database) -> Revision:
    """Bring the database to the newest revision; several processes may call it at once."""
    before = await revision(db)
    if before.is_newest:
        return before
    if before.current not in (None, before.newest):
        _refuse_newer(before.current)
        if db.is_sqlite and db.url.database:
            await asyncio.to_thread(_keep_copy, Path(db.url.database), before.current)
    try:
        async with db.engine.begin() as connection:
            if not db.is_sqlite:
                await connection.execute(text("SET LOCAL statement_timeout = 0"))
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
                await connection.run_sync(queue_schema.apply)
            await connection.run_sync(_upgrade)
    except (OperationalError, OSError) as error:
        raise _unusable(db, error) from error
    after = await revision(db)
    logger.info("database upgraded from %s to %s", before.current, after.current)
    return after


def _upgrade(connection: Connection) -> None:
    import alembic.command

    alembic.command.upgrade(_config(connection), "head")


def _refuse_newer(current: str) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if current not in known:
        raise ConfigError(
            f"The database is at revision {current}, which a newer Kvasir wrote; "
            "install that version or restore a backup."
        )


def _keep_copy(path: Path, revision_name: str) -> None:
    copy = path.with_name(f"{path.name}.before-{revision_name}")
    if copy.exists():
        return
    partial = copy.with_name(f"{copy.name}.partial")
    partial.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as target:
        source.backup(target)
    partial.rename(copy)


def _unusable(db: Database, error: Exception) -> ConfigError | Unavailable:
    detail = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    shown = db.url.render_as_string(hide_password=True)
    if db.is_sqlite:
        return ConfigError(
            f"The database {db.url.database} cannot be used ({detail}); nothing was changed. "
            "Make it readable and writable, or restore a backup with «kvasir restore»."
        )
    return Unavailable(f"The database {shown} cannot be reached ({detail}). Check KVASIR_DATABASE__URL and the server.")
