"""Processes that tests start: `kvasir …` and `python …`, forked from one that has imported already what they need.

A short command spends nine tenths of its time on imports. But for these, `start` and `run` are `subprocess.Popen` and
`subprocess.run`: signals, pipes, exit status, environment, folder and locale are those of a process that is started
anew, and it is a child of the test. `KVASIR_TEST_REAL_PROCESSES=1` has each started anew indeed. So are at all times
those with other PYTHON… variables than ours, and on systems other than Linux.

Not for tests of what is imported when, of what a library does when it is taken apart at the very end, of the entry
point itself, or of limits that the test process set for itself.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import locale
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    import pytest  # the process that forks does without

REAL: Final = "KVASIR_TEST_REAL_PROCESSES"
KVASIR: Final = str(Path(sys.executable).with_name("kvasir"))
"""The command, first word of a command line."""

_COMMANDS: Final = (
    *("core.cli.main", "core.app", "core.worker", "core.doctor", "core.stores.local", "core.engines.extractive"),
    *("admin.server", "bots.runner", "bots.handler", "alembic.command", "alembic.autogenerate", "uvicorn"),
)
"""What most commands import late."""
_PLAIN: Final = ("C", "POSIX", "C.UTF-8", "C.utf8")
"""Locales in which a Python takes and gives bytes that are no text."""
_MESSAGE: Final = 1 << 17
_PATIENCE: Final = 120.0
_SET_CHILD_SUBREAPER: Final = 36
"""Of prctl: descendants who lose their parent become children of this process."""


# ---------------------------------------------------------------- the side of the test
def run(
    command: Sequence[str | Path],
    *,
    timeout: float = 60,
    check: bool = False,
    capture_output: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """What `subprocess.run` gives."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(command, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def start(command: Sequence[str | Path], *, imports: Sequence[str] = (), **options: Any) -> subprocess.Popen[Any]:
    """What `subprocess.Popen` gives, for `[KVASIR, …]`, `[sys.executable, "-c", …]` and `[sys.executable, "-m", …]`.

    Python may have the option `-P`, too. `imports` names what the process is going to import late.
    """
    words = [str(word) for word in command]
    environment = options.get("env") or os.environ
    if os.environ.get(REAL) or sys.platform != "linux" or _pythons(environment) != _pythons(os.environ):
        return subprocess.Popen(words, **options)
    return _Forked(words, _nursery(), list(imports), **options)


def fork_programs(patch: pytest.MonkeyPatch, imports: Sequence[str]) -> None:
    """Let `asyncio.create_subprocess_exec` start `[sys.executable, "-P", "-m", …]` as `start` does.

    The command line that `psutil` sees is not theirs.
    """

    def popen(words: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        if list(words[:3]) != [sys.executable, "-P", "-m"]:
            return subprocess.Popen(words, **options)
        return start(words, imports=imports, **{name: value for name, value in options.items() if name not in _USUAL})

    events = importlib.import_module("asyncio.unix_events")
    patch.setattr(events, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": popen}))


_USUAL: Final = ("shell", "bufsize", "universal_newlines")
"""Options that asyncio gives for each process, always the same."""


def _pythons(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that a Python looks at when it starts; the one of these that a fork can follow is left out."""
    return {
        name: value for name, value in environment.items() if name.startswith("PYTHON") and name != "PYTHONIOENCODING"
    }


class _Forked(subprocess.Popen[Any]):
    """One that is made by another process, which leaves it to us at once: a child of ours like any."""

    def __init__(self, words: list[str], nursery: _Nursery, imports: list[str], **options: Any) -> None:
        self._nursery, self._imports = nursery, imports
        unknown = options.keys() - {"env", "cwd", "stdin", "stdout", "stderr", "text", "start_new_session"}
        assert not unknown, f"a process that is forked has no {unknown}"
        super().__init__(words, **options)

    def _execute_child(self, words: list[str], *rest: Any) -> None:
        """As the library's, in Python 3.11 to 3.13; what follows `words` is by position there, too."""
        _, _, _, _, cwd, env, _, _, _, *pipes = rest[:15]
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = pipes
        given = (p2cread, c2pwrite, errwrite)
        try:
            request = {
                "words": words,
                "imports": self._imports,
                "folder": os.fspath(cwd or Path.cwd()),
                "environment": dict(os.environ if env is None else env),
                "session": rest[-2],
            }
            self.pid = self._nursery.bear(request, [own if one == -1 else one for own, one in enumerate(given)])
            self._child_created = True
        finally:
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]


class _Nursery:
    """The process that forks; it ends when this one does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.settimeout(_PATIENCE)
        self._prctl = ctypes.CDLL(None).prctl
        self._said = tempfile.TemporaryFile()  # no terminal, whatever ours is: what imports looks at it  # noqa: SIM115
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.processes", str(theirs.fileno())],
                cwd=Path(__file__).parents[1], pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said,
            )  # fmt: skip
        atexit.register(self.end)

    def end(self) -> None:
        self._channel.close()
        self._process.kill()  # it holds nothing
        self._process.wait()
        self._said.close()

    def bear(self, request: dict[str, Any], streams: list[int]) -> int:
        """The number of a new child of this process."""
        with self._lock:
            self._prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self._channel, [json.dumps(request).encode()], streams)
                said = self._channel.recv(99)
            finally:
                self._prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        if not said:
            self._said.seek(0)
            raise AssertionError(f"the process that forks has ended: {self._said.read().decode()}")
        return int(said)


_nursery = cache(_Nursery)


# ---------------------------------------------------------------- the process that forks
def _serve(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Forks for each request; this returns in the children alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the tests
    gc.disable()  # what is imported stays
    commands: Any = importlib.import_module("core.cli")
    entry = commands.main
    for name in _COMMANDS:
        importlib.import_module(name)
    _work_out(commands.main.app)
    commands.main = entry  # it bears the name of one of its modules
    while True:
        text, streams, _, _ = socket.recv_fds(channel, _MESSAGE, 3)
        if not text:
            os._exit(0)
        request = json.loads(text)
        for name in (*request["imports"], *_imported_by(request["words"])):
            with contextlib.suppress(Exception):  # the process will say it
                importlib.import_module(name)
        assert threading.active_count() == 1, "an import has started a thread"
        gc.freeze()  # what is shared stays shared
        if (number := _fork_twice()) == 0:
            gc.enable()
            channel.close()
            return request, streams
        channel.send(str(number).encode())
        for stream in streams:
            os.close(stream)


def _work_out(app: Any) -> None:
    """What libraries would do on their first use: a third of a short command, and of what comes before a first page."""
    typer: Any = importlib.import_module("typer.main")
    typer.get_command = cache(typer.get_command)
    typer.get_command(app)
    importlib.import_module("sqlalchemy.orm").configure_mappers()
    for route in importlib.import_module("admin.app")._operations():
        route.matches({"type": "http", "method": "GET", "path": "/", "root_path": ""})


def _imported_by(words: Sequence[str]) -> list[str]:
    """What the program of `-c` imports at its top."""
    if words[1:2] != ["-c"]:
        return []
    try:
        tree = ast.parse(words[2])
    except SyntaxError:  # the process will say it
        return []
    found = [name.name for one in tree.body if isinstance(one, ast.Import) for name in one.names]
    return found + [one.module for one in tree.body if isinstance(one, ast.ImportFrom) and one.module]


def _fork_twice() -> int:
    """The number of a grandchild without a parent between, or 0 in it."""
    told, tell = os.pipe()
    wait, go = os.pipe()
    if (child := os.fork()) == 0:
        if (grandchild := os.fork()) != 0:
            os.write(tell, str(grandchild).encode())
            os._exit(0)
        for end in (told, tell, go):
            os.close(end)
        os.read(wait, 1)  # until the test is the parent
        os.close(wait)
        return 0
    os.waitpid(child, 0)
    number = int(os.read(told, 99))
    for end in (told, tell, wait, go):
        os.close(end)
    return number


def _live(request: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    """Do what a Python does from its start to its end; this process is to do nothing else."""
    try:
        _become(request, streams)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            with contextlib.suppress(BaseException):  # then Python ends as it does
                _end(end.code or 0)
        raise


def _end(status: int) -> NoReturn:
    """As Python does, but what is imported is not taken apart: page after page would be copied to be given back."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 0xFF)


def _become(request: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    if request["session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, "")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _reopen()
    program, *arguments = request["words"]
    if program == KVASIR:
        sys.argv, sys.path[0] = [program, *arguments], str(Path(program).parent)
        sys.exit(importlib.import_module("core.cli").main())
    is_safe = arguments[0] == "-P"
    kind, what, *arguments = arguments[is_safe:]
    sys.argv = [kind, *arguments]
    if is_safe:
        del sys.path[0]
    elif kind == "-c":
        sys.path[0] = ""
    else:
        sys.path[0] = request["folder"]
    if kind == "-c":
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(what, main.__dict__)  # as `python -c` does
    else:
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    sys.exit(0)


def _reopen() -> None:
    """Standard streams as a Python opens them, in what PYTHONIOENCODING says."""
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    encoding = encoding or "utf-8"
    if not errors:
        errors = "surrogateescape" if locale.setlocale(locale.LC_CTYPE) in _PLAIN else "strict"
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(  # type: ignore[misc]
        io.BufferedReader(io.FileIO(0, closefd=False)), encoding, errors
    )
    sys.stdout = sys.__stdout__ = _written(1, encoding, errors, os.isatty(1))  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _written(2, encoding, "backslashreplace", True)  # type: ignore[misc]


def _written(number: int, encoding: str, errors: str, by_line: bool) -> io.TextIOWrapper:
    raw = io.FileIO(number, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, newline="\n", line_buffering=by_line)


if __name__ == "__main__":
    _live(*_serve(socket.socket(fileno=int(sys.argv[1]))))
