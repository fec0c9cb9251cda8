"""The command line as a process: signals, pipes, a full disk, and how soon it is there."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from core.cli.common import _is_trouble
from tests import processes
from tests.databases import peek
from tests.fakes.commands import Commands

KVASIR = [sys.executable, "-c", "from core.cli import main; main()"]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("KVASIR_")},
    "KVASIR_EMBEDDER__KIND": "none",
    "KVASIR_WEB__PORT": "0",
    "LANG": "en_GB.UTF-8",
}
SLOWLY = """
import asyncio, signal
from core.indexing import ingest

pauses = [0.1]
signal.signal(signal.SIGUSR1, lambda *_: pauses.clear())

async def switch(*given, genuine=ingest.Ingest._switch):
    done = await genuine(*given)
    await asyncio.sleep(sum(pauses))
    return done

ingest.Ingest._switch = switch
ingest._FIRST_GROUP = ingest._LARGEST_GROUP = 4
"""
"""An ingestion that one sees at work, until SIGUSR1 says that it may hurry."""


def run(folder: Path, *arguments: object, status: int = 0, before: str = "") -> subprocess.CompletedProcess[str]:
    command = [*KVASIR[:2], f"{before}\n{KVASIR[2]}", *map(str, arguments), "--data-dir", str(folder)]
    done = processes.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done


@contextmanager
def started(
    folder: Path, *arguments: object, start: Callable[..., subprocess.Popen[str]] = processes.start, before: str = ""
) -> Iterator[subprocess.Popen[str]]:
    command = [*KVASIR[:2], f"{before}\n{KVASIR[2]}", *map(str, arguments), "--data-dir", str(folder)]
    process = start(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parser_here: None) -> Commands:
    """Another process on the same data directory: this one, which is quicker to be there."""
    for name in ("KVASIR_EMBEDDER__KIND", "KVASIR_WEB__PORT", "LANG"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    return Commands(tmp_path / "data")


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    folder.mkdir()
    line = "Visitors of the mill are asked to write their names into the book at the door, every time. "
    for number in range(100):
        (folder / f"{number:03}.md").write_text(f"# Paper {number}\n\n" + f"{line} Of {number}.\n\n" * 40)
    return folder


# ---------------------------------------------------------------- quick to be there
def test_help_imports_nothing_heavy() -> None:
    heavy = ["numpy", "sqlalchemy", "onnxruntime", "fastapi", "pydantic", "trafilatura"]
    code = f"import sys, core.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_ours_is_the_core_that_is_imported() -> None:
    code = "import core, bots, admin, configs; print(*(m.__file__ for m in (core, bots, admin, configs)), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd="/")
    root = str(Path(__file__).parents[2])
    assert all(path.startswith(root) for path in done.stdout.splitlines())


# ---------------------------------------------------------------- stopped
@pytest.mark.parametrize(("signal_number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_the_middle_an_ingestion_goes_on_the_next_time(
    tmp_path: Path, papers: Path, other: Commands, signal_number: signal.Signals, status: int
) -> None:
    with started(tmp_path / "data", "ingest", papers, "--kb", "kb", before=SLOWLY) as process:
        _wait_for(lambda: _indexed(tmp_path / "data") > 0)
        process.send_signal(signal_number)
        out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == ("", status)
    assert err == "kvasir: stopped. Nothing is left half done, and the same command goes on from here.\n"
    between = other.json("kb", "show", "kb")["documents"]
    count = len(list(papers.iterdir()))
    assert 0 < between < count
    assert other.json("doctor")["ok"] is True
    done = other.json("ingest", papers, "--kb", "kb")["documents"]
    assert (len(done), sum(item["status"] == "unchanged" for item in done)) == (count, between)
    assert other.json("kb", "show", "kb")["documents"] == count
    assert other.json("doctor")["ok"] is True


def _indexed(data: Path) -> int:
    """Documents that are live, as a second process sees them while the first works."""
    try:
        ((count,),) = peek(data, "SELECT count(*) FROM documents WHERE live_hash IS NOT NULL")
    except sqlite3.Error:
        return 0
    return int(count)


def _wait_for(there: object, seconds: float = 30.0) -> None:
    assert callable(there)
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def test_a_second_process_searches_and_asks_meanwhile(tmp_path: Path, papers: Path, other: Commands) -> None:
    with started(tmp_path / "data", "ingest", papers, "--kb", "kb", "--json", before=SLOWLY) as process:
        _wait_for(lambda: _indexed(tmp_path / "data") > 0)
        found = other.json("search", "names into the book", "--kb", "kb")
        answer = other.json("ask", "What are visitors of the mill asked to write into the book?", "--kb", "kb")
        assert process.poll() is None, "it ended too soon to show anything"
        process.send_signal(signal.SIGUSR1)
        out, err = process.communicate(timeout=60)
    assert found["passages"]
    assert answer["answered"] is True
    assert (process.returncode, err) == (0, "")
    assert {item["status"] for item in json.loads(out)["documents"]} == {"indexed"}


# ---------------------------------------------------------------- pipes and disks
def test_a_terminal_that_lacks_characters_gets_the_others(tmp_path: Path, other: Commands) -> None:
    paper = tmp_path / "休假.md"
    paper.write_text(
        "# 休假\n\n每年有二十天带薪休假 ✓ ›。 Everyone gets twenty days of paid leave.\n", encoding="utf-8"
    )

    def said(encoding: str, *arguments: str) -> str:
        command = [*KVASIR, *arguments, "--kb", "kb", "--data-dir", str(tmp_path / "data")]
        environment = {**ENVIRONMENT, "PYTHONIOENCODING": encoding}
        done = processes.run(command, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr
        return str(done.stdout, encoding)

    other("ingest", paper, "--kb", "kb")
    for encoding in ("gbk", "ascii"):
        assert "twenty days" in said(encoding, "ask", "How many days of paid leave?")
        assert "✓" in json.loads(said(encoding, "search", "paid leave", "--json"))["passages"][0]["text"]


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    for arguments in (["config", "check", "--all"], ["kb", "list", "--json"]):
        with started(tmp_path / "data", *arguments) as process:
            assert process.stdout is not None
            process.stdout.close()
            process.stdout = None
            _, err = process.communicate(timeout=30)
            assert err == ""


def test_a_full_disk_is_said_and_costs_nothing_stored(tmp_path: Path, papers: Path, other: Commands) -> None:
    """Protection: fault 76; no file may grow beyond some size, as on a disk that is full."""
    other("ingest", papers / "000.md", "--kb", "kb")
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (450_000, 450_000))"
    full = run(tmp_path / "data", "ingest", papers, "--kb", "kb", status=1, before=limit)
    assert full.stdout == ""
    (line,) = full.stderr.splitlines()
    assert re.search(r"space|disk|File too large", line)
    assert other.json("search", "names into the book", "--kb", "kb")["passages"]
    again = other.json("ingest", papers, "--kb", "kb")["documents"]
    assert {item["status"] for item in again} <= {"indexed", "unchanged"}
    assert other.json("doctor")["ok"] is True


# ---------------------------------------------------------------- up
def test_up_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """In a process that is started anew, so that whatever `kvasir up` imports late is imported by it."""
    with started(tmp_path / "data", "up", start=subprocess.Popen) as process:
        assert process.stdout is not None
        ready, link = process.stdout.readline(), process.stdout.readline()
        assert re.match(r"Kvasir is ready: http://127\.0\.0\.1:\d+ \(\d+\.\d s\)$", ready)
        assert re.search(r"http://127\.0\.0\.1:\d+/setup\?token=\S+$", link)
        port = int(ready.split(":")[3].split()[0])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            assert b" 200 " in _all(connection.makefile("rb"))
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Kvasir has stopped." in out
    assert "Traceback" not in err


def _all(file: IO[bytes]) -> bytes:
    with file:
        return file.read()


def test_up_says_what_keeps_it_from_serving(tmp_path: Path) -> None:
    assert "no role nope" in run(tmp_path / "data", "up", "nope", status=2).stderr
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.MonkeyPatch.context() as patch:
        port = str(taken.getsockname()[1])
        patch.setitem(ENVIRONMENT, "KVASIR_WEB__PORT", port)
        failed = run(tmp_path / "data", "up", "web", status=1)
    assert failed.stderr.splitlines()[-1].startswith("kvasir: ")
    assert port in failed.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("sqlalchemy.pool.impl.AsyncAdaptedQueuePool", asyncio.CancelledError(), False),
        ("sqlalchemy.pool.impl.AsyncAdaptedQueuePool", OSError("gone"), True),
        ("core.work.jobs", asyncio.CancelledError(), True),
    ],
)
def test_a_task_cancelled_as_it_closes_its_connection_is_not_told(
    name: str, error: BaseException, *, told: bool
) -> None:
    """Protection: `up` on PostgreSQL that was told to stop printed a traceback now and then."""
    record = logging.LogRecord(name, logging.ERROR, "", 0, "closing", (), (type(error), error, None))
    assert _is_trouble(record) is told
