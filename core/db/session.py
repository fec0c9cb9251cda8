"""The one door to Kvasir's own database (SQLite in WAL mode, or PostgreSQL)."""

from __future__ import annotations

import asyncio
import importlib.util
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy import URL, event, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from core.db.direct import InsertInto, Result, Step, postgres_insert, run_on
from core.db.driver import READ, Connection
from core.db.postgres import for_asyncpg
from core.db.thread import SqliteThread
from core.errors import ConfigError, MissingExtra, StorageFull, Unavailable
from core.settings import DatabaseSettings
from core.texts import tell

_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",
    "PRAGMA busy_timeout=30000",
    "PRAGMA foreign_keys=ON",
)


_READ = "kvasir_read"
_SNAPSHOT = "REPEATABLE READ"
_LOCK_SECONDS = 30
"""As long as SQLite waits for another writer."""
_IDLE_SECONDS = 300
"""After which PostgreSQL ends the transaction of a process that is stuck in it."""
_AWAY = ("08", "42P01", "42703", "42501", "53", "57", "58", "XX")
"""Beginnings of PostgreSQL's codes: no connection, tables that are not as they should be or may not be used, no room or
too many, an operator or a limit intervened, its files are damaged."""
_IN_THE_WAY = frozenset({"25P03", "40001", "40P01", "55P03"})
"""Too long idle in a transaction, or other transactions were in the way."""


class Database:
    """Gives sessions; a use case opens one, and it commits when the block ends without an error.

    `session` is for writing: on SQLite it takes the write lock at once (waiting up to 30 s for it), since a transaction
    that reads first and writes later fails when another process wrote in between. `read` never waits for a writer.
    `run` and `fetch` are the same for statements that are known beforehand; they cost a tenth.
    """

    def __init__(self, url: str, options: DatabaseSettings | None = None) -> None:
        self.url = checked_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.engine = _sqlite_engine(self.url)
        else:
            self.engine = _postgres_engine(self.url, options or DatabaseSettings())
        self.insert: InsertInto = sqlite.insert if self.is_sqlite else postgres_insert()
        """`insert` with the ON CONFLICT of this database."""
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._readers = async_sessionmaker(self.engine.execution_options(**{_READ: True}), expire_on_commit=False)
        self._snapshots = self.engine if self.is_sqlite else self.engine.execution_options(isolation_level=_SNAPSHOT)
        self._writing = SqliteThread("database-write", self._connection, "BEGIN IMMEDIATE")
        self._reading = SqliteThread("database-read", partial(self._connection, "PRAGMA query_only=ON"), "BEGIN")

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Raises Unavailable where the database cannot be used; nothing was changed then."""
        async with self._opened(self._sessions) as session:
            yield session

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """As `session`."""
        async with self._opened(self._readers) as session:
            yield session

    @asynccontextmanager
    async def _opened(self, sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
        """As `sessions.begin()`, in half the time: what is committed is closed without another task."""
        session = sessions()
        is_committed = False
        try:
            yield session
            await session.commit()
            is_committed = True
        except DBAPIError as error:
            raise self._meaning(error) from error
        except NoConnectionFree as error:
            raise Unavailable(tell("database_all_taken")) from error
        finally:
            if is_committed:
                session.sync_session.close()  # it holds no connection any more
            else:
                await asyncio.shield(session.close())

    async def run(self, *steps: Step) -> Sequence[Result]:
        """Run the steps in one transaction, in order: all of them are done, or none. Raises as `session` does."""
        return await self._directly(self._writing, self.engine, steps)

    async def fetch(self, *steps: Step) -> Sequence[Result]:
        """What they find, all in the same state of the database. Raises as `read` does."""
        return await self._directly(self._reading, self._snapshots if len(steps) > 1 else self.engine, steps)

    async def _directly(self, thread: SqliteThread, engine: AsyncEngine, steps: Sequence[Step]) -> Sequence[Result]:
        try:
            if self.is_sqlite:
                return await thread.run(steps)
            async with engine.begin() as connection:
                return await run_on(connection, steps)
        except sqlite3.Error as error:
            known = DBAPIError.instance(None, None, error, sqlite3.Error)
            assert isinstance(known, DBAPIError)  # noqa: S101 - what an error of a driver becomes
            raise self._meaning(known) from error
        except DBAPIError as error:
            raise self._meaning(error) from error
        except NoConnectionFree as error:
            raise Unavailable(tell("database_all_taken")) from error

    async def optimize(self) -> None:
        """Let SQLite look at what has changed much, so that it searches well; PostgreSQL does so by itself."""
        if self.is_sqlite:
            async with self.session() as session:
                await session.execute(text("PRAGMA analysis_limit = 400"))
                await session.execute(text("ANALYZE"))  # before SQLite 3.46 its `optimize` never looks at a new table

    def _connection(self, *more: str) -> sqlite3.Connection:
        """Another connection than the engine's, to be used in one thread."""
        found: Any = self.engine.dialect.create_connect_args(self.url)
        (name,), options = found
        connection: sqlite3.Connection = sqlite3.connect(name, **options, timeout=30, isolation_level=None)
        try:
            for pragma in (*_PRAGMAS, *more):
                connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    def _meaning(self, error: DBAPIError) -> Exception:
        """What an error of the driver means to a person; those that a use case handles stay what they are."""
        code = str(getattr(error.orig, "sqlstate", None) or "")
        if code in _IN_THE_WAY or code == "57014":  # the last: it took longer than it may
            return Unavailable(tell("database_in_the_way", reason=_first_line(error)))
        is_about_it = type(error) in (DatabaseError, OperationalError, InterfaceError) or error.connection_invalidated
        if not is_about_it and not code.startswith(_AWAY):
            return error
        detail = _first_line(error)
        name = (self.url.database or "") if self.is_sqlite else self.url.render_as_string(hide_password=True)
        if "full" in detail or "No space" in detail or code == "53100":
            return StorageFull(tell("database_full", database=name))
        if not self.is_sqlite:
            return Unavailable(tell("database_unreachable", database=name, reason=detail))
        keys = {"readonly": "database_read_only", "locked": "database_locked", "malformed": "database_damaged",
                "not a database": "database_damaged"}  # fmt: skip
        key = next((key for word, key in keys.items() if word in detail), "database_unreachable")
        return Unavailable(tell(key, database=name, reason=detail))

    async def close(self) -> None:
        await self._writing.close()
        await self._reading.close()
        await self.engine.dispose()


def checked_url(url: str) -> URL:
    """The address with the driver that is used. Raises ConfigError, or MissingExtra where the driver is not there."""
    try:
        found = make_url(url)
    except ArgumentError as error:
        raise ConfigError(tell("database_bad_url")) from error
    match found.get_backend_name():
        case "sqlite":
            return found.set(drivername="sqlite+aiosqlite")
        case "postgresql":
            if not all(importlib.util.find_spec(name) for name in ("asyncpg", "procrastinate", "psycopg")):
                raise MissingExtra("PostgreSQL", "postgres")
            return found.set(drivername="postgresql+asyncpg")
    raise ConfigError(tell("database_bad_url"))


def _first_line(error: DBAPIError) -> str:
    return str(error.orig or error).strip().splitlines()[0]


def _postgres_engine(url: URL, options: DatabaseSettings) -> AsyncEngine:
    limits: dict[str, float] = {}
    if options.statement_seconds:
        limits = {
            "statement_timeout": options.statement_seconds,
            "lock_timeout": _LOCK_SECONDS,
            "idle_in_transaction_session_timeout": _IDLE_SECONDS,
        }
    settings = {name: str(round(seconds * 1000)) for name, seconds in limits.items()}
    shown = url.render_as_string(hide_password=True)
    address, arguments = for_asyncpg(url, settings)

    async def connect(*given: Any, **named: Any) -> Any:
        """Raises Unavailable where there is no connection to be had."""
        import asyncpg

        try:
            return await asyncpg.connect(*given, **named)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(tell("database_away", database=shown, reason=reason)) from error

    return create_async_engine(
        address,
        pool_pre_ping=True,
        pool_size=options.pool_size,
        max_overflow=options.pool_overflow,
        pool_timeout=options.pool_seconds,
        connect_args={**arguments, "async_creator_fn": connect},
    )


def _sqlite_engine(url: URL) -> AsyncEngine:
    engine = create_async_engine(url, connect_args={"timeout": 30, "async_creator_fn": Connection})

    @event.listens_for(engine.sync_engine, "connect")
    def _set_pragmas(connection: Any, _record: Any) -> None:
        # The driver opens transactions late and as readers; we open them ourselves, see `_begin`.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        reading = connection.get_execution_options().get(_READ, False)
        connection.connection.driver_connection.begin(READ if reading else "BEGIN IMMEDIATE")

    return engine
