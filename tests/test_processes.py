"""What is forked for a test ends, speaks and is placed as what is started anew (`tests/processes.py`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import processes

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a process a parent that did not fork it"),
    pytest.mark.skipif(bool(os.environ.get(processes.REAL)), reason=f"{processes.REAL} is set: nothing is forked"),
]
LOOK = """
import gc, locale, os, random, resource, signal, sys, threading, time
print(os.getcwd(), sys.argv, sys.path[0], __name__, os.getppid(), os.getpgrp() == os.getpid(), os.umask(0o22))
print(sorted(os.environ.items()), os.getenv("SOME"), time.tzname, locale.setlocale(locale.LC_CTYPE))
print([(one.encoding, one.errors, one.line_buffering, one.newlines) for one in (sys.stdin, sys.stdout, sys.stderr)])
print([signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD)])
print(threading.enumerate() == [threading.main_thread()], len(os.listdir("/proc/self/fd")), os.getpriority(0, 0))
print([resource.getrlimit(one) for one in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS)])
print(sys.stdin.read())
"""


def both(*arguments: str, **options: Any) -> Iterator[subprocess.CompletedProcess[Any]]:
    for run in (processes.run, subprocess.run):
        yield run([sys.executable, *arguments], capture_output=True, timeout=60, **options)


@pytest.mark.parametrize("encoding", ["", "gbk", "ascii:replace"])
@pytest.mark.parametrize(("session", "option"), [(False, ()), (True, ("-P",))])
def test_it_finds_itself_where_a_new_one_would(
    tmp_path: Path, encoding: str, session: bool, option: tuple[str, ...]
) -> None:
    environment = {"SOME": "café", "TZ": "Asia/Shanghai", "LANG": "C.UTF-8", "PATH": "/bin"}
    environment |= {"PYTHONIOENCODING": encoding} if encoding else {}
    (tmp_path / "given").write_bytes(b"tea\r\n")
    found = []
    for run in (processes.run, subprocess.run):
        with (tmp_path / "given").open() as given:
            done = run(
                [sys.executable, *option, "-c", LOOK, "a", "--b"],
                env=environment, cwd=tmp_path, stdin=given, start_new_session=session, capture_output=True,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert found[0].splitlines() == found[1].splitlines()
    assert b"tea" in found[0]
    assert str(os.getpid()).encode() in found[0], "the test is its parent"


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("import sys; sys.exit('in words')", 1),
        ("nope", 1),
        ("no program", 1),
        ("import nothing_of_that_name", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os, signal; signal.signal(15, lambda *_: os._exit(7)); os.kill(os.getpid(), 15)", 7),
        ("import os; os.abort()", -signal.SIGABRT),
        ("import atexit; atexit.register(print, 'last'); print('first', end=' ')", 0),
        ("import threading; threading.Timer(0.05, print, ('later',)).start()", 0),
        ("import sys; sys.stdout = open('/dev/full', 'w'); print('too much')", 120),
    ],
)
def test_it_ends_as_a_new_one_would(program: str, status: int) -> None:
    forked, new = both("-c", program)
    assert (forked.returncode, forked.stdout) == (new.returncode, new.stdout)
    assert forked.returncode == status
    assert forked.stderr.splitlines()[-1:] == new.stderr.splitlines()[-1:]


def test_a_module_and_the_command_are_run_as_they_are() -> None:
    forked, new = both("-m", "site")
    assert (forked.returncode, forked.stdout, forked.stderr) == (0, new.stdout, new.stderr)
    said = processes.run([processes.KVASIR, "--version"], capture_output=True, text=True).stdout
    assert said == f"kvasir {version('kvasir')}\n"
    forked, new = both("-c", "from core.cli import main; main()", "kb", "lst")
    assert (forked.returncode, forked.stdout, forked.stderr) == (2, new.stdout, new.stderr)


def test_signals_reach_it_and_it_is_waited_for() -> None:
    program = "import signal, time\nprint('here', flush=True)\nsignal.pause()"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with processes.start([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            assert process.poll() is None
            assert psutil.Process(process.pid).ppid() == os.getpid()
            process.send_signal(number)
            process.communicate(timeout=20)
        assert process.returncode == -number
        assert not psutil.pid_exists(process.pid)


def test_processes_know_nothing_of_each_other() -> None:
    program = "import core.texts as one, random; print(hasattr(one, 'mark'), random.random()); one.mark = True"
    said = [processes.run([sys.executable, "-c", program], capture_output=True, text=True).stdout for _ in range(2)]
    assert [one.split()[0] for one in said] == ["False", "False"]
    assert said[0] != said[1]


def test_those_of_other_children_are_left_to_whoever_they_belong_to() -> None:
    """Only what is forked for a test becomes its child; an orphan goes where orphans go."""
    program = "import subprocess; print(subprocess.Popen(['sleep', '60'], stdout=-3, stderr=-3).pid)"
    done = processes.run([sys.executable, "-c", program], capture_output=True, text=True)
    orphan = psutil.Process(int(done.stdout))
    try:
        assert orphan.ppid() != os.getpid()
    finally:
        orphan.kill()


def test_what_needs_a_new_one_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "print(open('/proc/self/cmdline').read().split('\\0')[1])"
    for environment, forked in (
        ({}, True),
        ({**os.environ, "PYTHONUTF8": "1"}, False),
        ({**os.environ, processes.REAL: "1"}, True),
    ):
        done = processes.run([sys.executable, "-c", program], env=environment or None, capture_output=True, text=True)
        assert (done.stdout.strip() == "-c") != forked
    monkeypatch.setenv(processes.REAL, "1")
    done = processes.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "-c\n"
