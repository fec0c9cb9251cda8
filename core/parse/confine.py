"""What a process that reads strangers' files may not do: reach the network, write files, start programs, outlive us."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from typing import Any, Final, Literal

Isolation = Literal["namespace", "hook"]
"""How the network is shut: by the kernel (an empty network namespace), or by Python's audit hook alone."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_OPEN_FILES: Final = 128
_REFUSED: Final = frozenset(
    {
        "socket.connect",
        "socket.bind",
        "socket.sendto",
        "socket.sendmsg",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.gethostbyaddr",
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "pty.spawn",
        "pickle.find_class",
    }
)


def confine(memory_mb: int, parent: int) -> Isolation:
    """Give up everything that reading files does not need; for good, and for this whole process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0 and os.getppid() != parent:
        sys.exit(0)  # it died before we asked to die with it
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    isolation: Isolation = "hook"
    if libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        isolation = "namespace"
    _limit(resource.RLIMIT_AS, memory_mb << 20)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    sys.addaudithook(_refuse)
    return isolation


def allow_cpu(seconds: float) -> None:
    """From now on this process may use so much CPU time; then the kernel ends it."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    wanted = int(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard < 0 else min(wanted, hard), hard))


def resident_mb() -> float:
    """Memory this process really holds, in MB."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  # read after every request
        return int(file.read().split()[1]) * resource.getpagesize() / (1 << 20)


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard < 0 else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _refuse(event: str, _: tuple[Any, ...]) -> None:
    if event in _REFUSED:
        raise PermissionError(f"a parser process may not do this: {event}")
