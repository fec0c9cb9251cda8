"""Compiles an extension in a process of its own: `python -P -m core.serving.drivers.exllama_compile`.

What to compile comes as a line of JSON on standard input. When that is closed, the compilers end with this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any, Final

_ROUNDS: Final = 5


def main() -> None:
    wanted = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_watch, name="parent", daemon=True).start()
    _compile(wanted)
    sys.stdout.flush()
    os._exit(0)  # without waiting for the reader of the input


def _compile(wanted: dict[str, Any]) -> None:
    extension: Any = import_module("torch.utils.cpp_extension")
    try:
        extension.load(
            name=wanted["name"],
            sources=wanted["sources"],
            extra_include_paths=wanted["includes"],
            extra_cflags=wanted["cflags"],
            extra_cuda_cflags=wanted["cuda_cflags"],
            build_directory=wanted["folder"],
            with_cuda=True,
            verbose=True,
        )
    except (ImportError, OSError) as error:
        # where there is no driver, the finished library cannot be opened; it is for other machines then
        if not (Path(wanted["folder"]) / f"{wanted['name']}.so").is_file() or "libcuda" not in str(error):
            raise


def _watch() -> None:
    while os.read(0, 4096):
        pass
    end_session(os.getsid(0))


def end_session(session: int) -> None:
    """Kill all processes of the session, this one last where it is among them.

    The session and not the process group: ninja gives each compiler a group of its own.
    """
    for _ in range(_ROUNDS):  # what was being started while we looked
        for pid in (others := [pid for pid in _members(session) if pid != os.getpid()]):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not others:
            break
    if os.getsid(0) == session:
        os.kill(os.getpid(), signal.SIGKILL)


def _members(session: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(place.name)) == session:
                found.append(int(place.name))
    return found


if __name__ == "__main__":
    main()
