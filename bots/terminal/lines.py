"""Lines from standard input, and Ctrl+C while an answer comes."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final

_PROMPT: Final = "› "


class LineReader:
    """Reads lines on a thread of its own, which never keeps the program from ending."""

    async def __call__(self) -> str | None:
        """The next line; None at the end."""
        loop = asyncio.get_running_loop()
        line: asyncio.Future[str | None] = loop.create_future()

        def set_line(text: str | None) -> None:
            if not line.done():
                line.set_result(text)

        def read() -> None:
            try:
                text: str | None = input(_PROMPT if sys.stdin.isatty() else "")
            except (EOFError, ValueError, OSError):
                text = None
            with suppress(RuntimeError):  # the loop is closed: nobody waits for the line
                loop.call_soon_threadsafe(set_line, text)

        threading.Thread(target=read, name="terminal-input", daemon=True).start()
        return await line


async def interruptible(work: Awaitable[None]) -> bool:
    """Do it; True where Ctrl+C stopped it."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    before = signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        await asyncio.wait({task})
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    return task.cancelled()
