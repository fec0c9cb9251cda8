"""The tables of procrastinate beside ours, on PostgreSQL: made once, and kept as the installed version wants them.

It keeps no note of what was applied; ours is the comment on its table of jobs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, text

from core.errors import ConfigError
from core.texts import tell

_TABLE: Final = "SELECT to_regclass('procrastinate_jobs') IS NOT NULL"
_NOTE: Final = "SELECT obj_description(to_regclass('procrastinate_jobs'), 'pg_class')"


def is_newest(connection: Connection) -> bool:
    """Whether the tables are there as the installed version wants them."""
    known: str = connection.scalar(text(_NOTE)) or ""
    return known >= _migrations()[-1].stem


def apply(connection: Connection) -> None:
    """Make the tables or bring them up to date, in the connection's transaction; for one process at a time.

    Raises ConfigError where tables of that name are there which Kvasir did not make.
    """
    from procrastinate.schema import SchemaManager

    known: str | None = connection.scalar(text(_NOTE))
    if known is None and connection.scalar(text(_TABLE)):
        raise ConfigError(tell("database_queue_taken"))
    if known is None:
        _run(connection, SchemaManager.get_schema())
    newer = [path for path in _migrations() if known is not None and path.stem > known]
    for path in newer:
        _run(connection, path.read_text(encoding="utf-8"))
    if known is None or newer:
        _run(connection, f"COMMENT ON TABLE procrastinate_jobs IS '{_migrations()[-1].stem}'")


def _migrations() -> list[Path]:
    """In order; each is named for the version that brought it."""
    from procrastinate.schema import SchemaManager  # late: it is there only with the extra `postgres`

    return sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))


def _run(connection: Connection, statements: str) -> None:
    """Many statements at once, as the driver takes them; SQLAlchemy takes one."""
    raw: Any = connection.connection.dbapi_connection
    raw.run_async(lambda driver: driver.execute(statements))
