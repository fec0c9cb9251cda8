"""A database in use by others, a full disk, and damaged files (faults 74, 76 and 77)."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select

from bots.handler import ChatHandler
from core.cli.main import app
from core.db.tables import AnswerRow
from core.errors import Unavailable
from core.types import Mention, Person, Place, Role
from tests.bots.conftest import Front, front
from tests.databases import copy_data
from tests.fakes.library import opened_library
from tests.fakes.platform import FakePlatform
from tests.processes import run

__all__ = ["front"]

ONE_PROCESS = pytest.mark.anyio

HOLDER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


@asynccontextmanager
async def held_by_another(path: Path, seconds: float) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process is writing to the database for so long."""
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, str(path), str(seconds)), stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    yield holder
    await holder.wait()


def mention(text: str, thread: int) -> Mention:
    return Mention(Place("fake", "T1", "C1", str(thread)), str(thread), Person("fake:ann", "Ann", Role.EDITOR), text)


# ---------------------------------------------------------------- 74
@pytest.mark.sqlite("the lock of its file")
@ONE_PROCESS
async def test_no_question_is_lost_while_another_process_writes(front: Front, tmp_path: Path) -> None:
    """Protection: `PRAGMA busy_timeout` and BEGIN IMMEDIATE in `core/db/session.py`."""
    platform, handler = FakePlatform(), ChatHandler(front.kvasir)
    async with held_by_another(tmp_path / "kvasir.db", 2.0) as holder:
        asked = [handler.on_mention(platform, mention(f"How long is leave {n}?", n)) for n in range(12)]
        async with asyncio.timeout(30):
            await asyncio.gather(*asked)
        assert await holder.wait() == 0
    await front.house.answers.close()
    assert [answer.failure for answer in platform.answers] == [""] * 12
    assert all(answer.finished for answer in platform.answers)
    async with front.house.db.read() as session:
        assert await session.scalar(select(func.count()).select_from(AnswerRow)) == 12


@pytest.mark.sqlite("the lock of its file")
@ONE_PROCESS
async def test_a_write_that_is_cancelled_while_it_waits_holds_no_lock_later(front: Front, tmp_path: Path) -> None:
    """Whatever ends the waiting (a closed connection, or the rollback of `core/db/driver.py`), the lock is let go."""
    other = sqlite3.connect(tmp_path / "kvasir.db", isolation_level=None, timeout=1)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(front.house.conversations.start("fake", "ann"))
    await asyncio.sleep(0.1)
    writing.cancel()
    await asyncio.sleep(0.05)
    other.execute("ROLLBACK")
    await asyncio.wait([writing], timeout=5)
    assert writing.cancelled()
    await asyncio.sleep(0.2)
    other.execute("BEGIN IMMEDIATE")
    other.execute("ROLLBACK")
    other.close()


# ---------------------------------------------------------------- 76
@contextmanager
def full_disk(bytes_a_file: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@ONE_PROCESS
async def test_a_full_disk_stops_ingestion_in_one_sentence_and_nothing_else(tmp_path: Path) -> None:
    """Protection: errors of the disk become ours in `core/blobs.py`, `core/db/session.py` and `core/stores`."""
    async with opened_library(tmp_path / "data") as library:
        await library.bring("kb", {"tea.md": "# Tea\n\nTea is served at four."})
        many = {f"{n}.md": f"# Page {n}\n\n" + f"words {n} of the page. " * 400 for n in range(20)}
        with full_disk(64 << 10):
            with pytest.raises(Unavailable) as caught:
                await library.bring("kb", many)
            assert "\n" not in str(caught.value)
            assert await library.found("kb", "When is tea served?") == ["tea.md"]
        ended = await library.bring("kb", many)
        assert {outcome.status for outcome in ended.values()} == {"indexed"}
        await library.work_off()
        assert await library.agrees("kb")
        assert (await library.knowledge.get("kb")).documents == 21


# ---------------------------------------------------------------- 77
def kvasir(arguments: list[str]) -> int:
    """The exit status of a command."""
    with pytest.raises(SystemExit) as ended:
        app(args=arguments, prog_name="kvasir")
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with one document, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "tea.md").write_text("# Tea\n\nTea is served at four.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KVASIR_EMBEDDER__KIND", "none")
        assert kvasir(["--data-dir", str(folder / "data"), "ingest", str(folder / "tea.md"), "--kb", "kb"]) == 0
    return folder / "data"


@pytest.fixture
def data(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One's own copy of it."""
    monkeypatch.setenv("KVASIR_EMBEDDER__KIND", "none")
    monkeypatch.delenv("KVASIR_DATA_DIR", raising=False)
    copy_data(made, tmp_path / "data")
    return tmp_path / "data"


def _flipped(data: bytes) -> bytes:
    return bytes(byte ^ 0xFF if 100 <= at < 4096 and at % 3 else byte for at, byte in enumerate(data))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "overwritten": lambda whole: b"my notes, not a database\n" * (len(whole) // 25),
    "bits flipped": _flipped,
    "header gone": lambda whole: bytes(100) + whole[100:],
}


@pytest.mark.parametrize("name", [pytest.param("kvasir.db", marks=pytest.mark.sqlite("its file")), "index.db"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_ends_a_command_with_one_sentence_and_stays_as_it_is(
    data: Path, name: str, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Protection: `core/db/migrate.py` and `core/stores/database.py` name the file, and never make a new one."""
    path = data / name
    for beside in data.glob(f"{name}-*"):
        beside.unlink()
    damaged = DAMAGES[damage](path.read_bytes())
    path.write_bytes(damaged)
    capfd.readouterr()
    status = kvasir(["--data-dir", str(data), "ask", "When is tea?", "--kb", "kb"])
    said = capfd.readouterr().err.strip().splitlines()
    assert status == 1
    assert len(said) == 1
    assert said[0].startswith("kvasir: ")
    assert name in said[0]
    assert path.read_bytes() == damaged


def test_a_damaged_config_file_ends_a_command_with_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Protection: `core/settings.py: load`."""
    config = tmp_path / "kvasir.toml"
    for content in (b"[web\nport = 1", b"\xff\xfe\x00binary", b"[web]\nport = 'many'"):
        config.write_bytes(content)
        assert kvasir(["--data-dir", str(tmp_path / "data"), "--config", str(config), "kb", "list"]) == 1
        [said] = capfd.readouterr().err.strip().splitlines()
        assert "kvasir.toml" in said or "KVASIR_WEB__PORT" in said
        assert config.read_bytes() == content


READ_ONLY = """
import ctypes, sys
head, rights = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
ctypes.CDLL(None).capset(head, rights)  # root, too, may from now on only do what the files' modes allow
from core.cli import main
main()
"""


@pytest.mark.sqlite("its file")
def test_a_read_only_data_directory_ends_a_command_with_one_sentence(data: Path) -> None:
    """Protection: `core/db/session.py` and `core/stores/database.py` say what the driver's error means."""
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    for path in (*before, data):
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = run(
        [sys.executable, "-c", READ_ONLY, "--data-dir", str(data), "kb", "create", "new"],
        env={**os.environ, "KVASIR_EMBEDDER__KIND": "none"}, capture_output=True, text=True,
    )  # fmt: skip
    data.chmod(0o755)
    assert done.returncode == 1, done.stderr
    [said] = done.stderr.strip().splitlines()
    assert said.startswith("kvasir: ")
    assert "kvasir.db" in said
    assert {path: path.read_bytes() for path in before} == before
