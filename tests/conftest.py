"""What every test shares: one event loop kind, and no way out but loopback."""

from __future__ import annotations

import asyncio
import functools
import gc
import ipaddress
import os
import socket
import ssl
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from shutil import disk_usage, rmtree
from typing import Any

import hypothesis
import pytest

import core.app
import core.db.migrate
from core.db.session import Database
from core.settings import WeaviateSettings
from tests.databases import Postgres, compile_once, everything_on_postgres, put_sqlite, upgrade_at_once
from tests.fakes.parser import InProcessParser
from tests.weaviate_server import any_server, empty

hypothesis.settings.register_profile("kvasir", deadline=None)  # how long a test takes is the machine's business
hypothesis.settings.load_profile("kvasir")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that at the end no process waits long for another."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported to find the tests stays: nobody looks through it for garbage, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(10_000)


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


@pytest.fixture
def parser_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Kvasir of the test reads files in this process: starting one that reads takes longer than most tests.

    A file of tests that is about those processes has a fixture of this name that does nothing.
    """
    monkeypatch.setattr(core.app, "ParserPool", InProcessParser)


@pytest.fixture(scope="session", autouse=True)
def _certificates_read_once() -> Iterator[None]:
    """Libraries read those of the world for each client that they make, 20 milliseconds each time."""
    genuine = ssl.create_default_context
    read = functools.cache(lambda cafile: genuine(cafile=cafile))

    def create(*purpose: ssl.Purpose, cafile: str | None = None, **options: Any) -> ssl.SSLContext:
        if cafile is None or purpose or options:
            return genuine(*purpose, cafile=cafile, **options)
        shared: ssl.SSLContext = read(cafile)
        return shared

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", create)
        yield


# ---------------------------------------------------------------- databases
@pytest.fixture(autouse=True)
def upgraded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty SQLite database has its tables in a moment; tests of the migrations have a fixture of this name."""
    monkeypatch.setattr(core.db.migrate, "_upgrade", upgrade_at_once)


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        compile_once(patch)
        yield


DATABASES = [pytest.param("postgres", marks=pytest.mark.postgres)]
if not everything_on_postgres():
    DATABASES.insert(0, pytest.param("sqlite"))
_lent: list[Postgres] = []
"""The server, where everything runs on it."""


_MEMORY = Path("/dev/shm")
_ENOUGH = 6 << 30
"""Bytes; a whole run leaves half of it behind."""


def pytest_configure() -> None:
    """Before anything is imported that looks at the environment."""
    if _MEMORY.is_dir() and not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC and disk_usage(_MEMORY).free > _ENOUGH:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))  # a third of a run would wait for the disk
    if everything_on_postgres():
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex  # all processes of a run have one server
        shared = Path(tempfile.gettempdir(), f"kvtests-{run}")
        shared.mkdir(mode=0o700, exist_ok=True)
        _lent.append(Postgres(shared))
        _lent[0].lend()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Memory is not kept for what passed."""
    if exitstatus == 0 and "PYTEST_XDIST_WORKER" not in os.environ:
        factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]  # no other way
        if factory.getbasetemp().is_relative_to(_MEMORY):
            rmtree(factory.getbasetemp(), ignore_errors=True)


def pytest_unconfigure() -> None:
    while _lent:
        _lent.pop().leave(remove=True)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    if _lent:
        yield _lent[0]
        return
    own = tmp_path_factory.getbasetemp()
    server = Postgres(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)
    yield server
    server.leave()


@pytest.fixture(scope="module", autouse=everything_on_postgres())
def _lent_databases() -> Iterator[None]:
    yield
    asyncio.run(_lent[0].drop_lent())


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests of what only SQLite has say so by `@pytest.mark.sqlite("…")`."""
    if everything_on_postgres() and (mark := item.get_closest_marker("sqlite")):
        pytest.skip(f"everything runs on PostgreSQL, and this is about SQLite: {mark.args[0]}")


@pytest.fixture(scope="session")
def weaviate_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeaviateSettings]:
    """Settings for a real Weaviate; whoever makes indexes there removes them."""
    with any_server(tmp_path_factory.mktemp("weaviate")) as settings:
        yield settings
        asyncio.run(empty(settings, collections=True))


@pytest.fixture(params=DATABASES)
async def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """Address of a database without tables, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'kvasir.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    async with server.database(migrated=False) as address:
        yield address


@pytest.fixture(params=DATABASES)
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """Address of a database with all tables and nothing in them, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        yield await put_sqlite(tmp_path / "kvasir.db")
        return
    server: Postgres = request.getfixturevalue("postgres")
    async with server.database(migrated=True) as address:
        yield address


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """A database with all tables, on SQLite and on PostgreSQL."""
    database = Database(database_url)
    yield database
    await database.close()
