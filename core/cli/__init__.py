"""The command line; DESIGN of its words and its JSON is a contract (README, "Command line")."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import sys
from typing import Final

_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD: Final = -1
"""As glibc's `mallopt` names them."""


def main() -> None:
    """Entry of the console script `kvasir`."""
    collect_seldom()
    keep_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal in GBK or ASCII lacks some of our characters
    try:
        from core.cli.main import app  # late: Ctrl+C may come while this imports

        app(args=data_dir_first(sys.argv[1:]), prog_name="kvasir")
    except KeyboardInterrupt:
        sys.exit(130)


def collect_seldom() -> None:
    """Look for garbage less often: what is imported stays, and to look through it time and again costs a tenth of a
    start and a fifth of an ingestion. For whole processes only.
    """
    gc.set_threshold(20_000)


def keep_memory() -> None:
    """Let the C library keep up to 32 MB of what is freed for the next time: the system gives memory page by page,
    which costs a twentieth of an ingestion. Does nothing where the library is not glibc. For whole processes only.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 8 << 20)
        libc.mallopt(_TRIM_THRESHOLD, 32 << 20)


def data_dir_first(arguments: list[str]) -> list[str]:
    """`--data-dir` and `--config` may stand anywhere; the parser wants them before the command."""
    front: list[str] = []
    rest: list[str] = []
    given = iter(arguments)
    for argument in given:
        if argument == "--":
            rest += [argument, *given]
        elif argument in ("--data-dir", "--config"):
            front += [argument, *([value] if (value := next(given, None)) is not None else [])]
        elif argument.startswith(("--data-dir=", "--config=")):
            front.append(argument)
        else:
            rest.append(argument)
    return front + rest
