"""How large the tables are, and how many connections the server takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from core.db.session import Database
from core.db.tables import Table

_POSTGRES: Final = text("""
SELECT relname, pg_total_relation_size(oid), greatest(reltuples, 0)::bigint FROM pg_class
WHERE relkind IN ('r', 'p') AND relname = ANY(:names) AND pg_table_is_visible(oid)
""")
_SQLITE: Final = text("""
SELECT m.tbl_name, sum(d.pgsize), max(CASE WHEN m.type = 'table' THEN d.ncell ELSE 0 END)
FROM (SELECT name, sum(pgsize) AS pgsize, sum(CASE WHEN pagetype = 'leaf' THEN ncell ELSE 0 END) AS ncell
FROM dbstat GROUP BY name) AS d JOIN sqlite_schema AS m ON m.name = d.name GROUP BY m.tbl_name
""")
_CONNECTIONS: Final = text("""
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
- coalesce(current_setting('reserved_connections', true)::int, 0),
(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
""")


@dataclass(frozen=True, slots=True)
class TableSize:
    name: str
    rows: int
    """On PostgreSQL as many as it last estimated."""
    bytes: int
    """With indexes, and what is free within."""


@dataclass(frozen=True, slots=True)
class Connections:
    most: int
    """Without those that are kept for the server's owner."""
    taken: int


async def table_sizes(db: Database) -> list[TableSize]:
    """The largest first; empty where SQLite was built without its table of sizes."""
    names = [*Table.metadata.tables, "procrastinate_jobs", "procrastinate_events"]
    async with db.read() as session:
        try:
            rows = (
                await session.execute(_SQLITE) if db.is_sqlite else await session.execute(_POSTGRES, {"names": names})
            )
        except OperationalError:
            return []
        found = [TableSize(name, int(count), int(size)) for name, size, count in rows if name in names]
    return sorted(found, key=lambda one: (-one.bytes, one.name))


async def connections(db: Database) -> Connections:
    """Of PostgreSQL."""
    async with db.read() as session:
        most, taken = (await session.execute(_CONNECTIONS)).one()
    return Connections(int(most), int(taken))
