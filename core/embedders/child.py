"""Runs another program for a while: watched, with an end in sight, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_TICK = 0.2


async def run_child(
    arguments: Sequence[str],
    *,
    folder: Path,
    variables: Mapping[str, str],
    watch: Callable[[], None] = lambda: None,
) -> tuple[int, str]:
    """The program's exit status and what it printed; `watch` is called a few times a second while it runs.

    An error that `watch` raises, or being cancelled, kills the program. Our own settings, which hold secrets, are kept
    from it.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KVASIR_")}
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env=inherited | dict(variables),
        start_new_session=True,
    )
    reading = asyncio.ensure_future(process.communicate())
    try:
        while not reading.done():
            await asyncio.wait({reading}, timeout=_TICK)
            watch()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        output, _ = await reading
    return process.returncode or 0, output.decode("utf-8", "replace")
