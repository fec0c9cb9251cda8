"""Tells systemd, where it wants to know, that we serve and that our loop goes round (`sd_notify(3)`)."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

_NOTIFY: Final = "NOTIFY_SOCKET"
_WITHIN: Final = "WATCHDOG_USEC"


async def report() -> None:
    """Say that we are ready, then in time that we are alive, until cancelled; does nothing under anything else."""
    address = os.environ.pop(_NOTIFY, "")  # processes that we start have nothing to say there
    within = os.environ.pop(_WITHIN, "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.setblocking(False)
        door.connect("\0" + address[1:] if address.startswith("@") else address)
        _say(door, "READY=1")
        try:
            while within.isdecimal():
                _say(door, "WATCHDOG=1")
                await asyncio.sleep(int(within) / 3_000_000)
        finally:
            _say(door, "STOPPING=1")


def _say(door: socket.socket, words: str) -> None:
    try:
        door.send(words.encode())
    except OSError:  # it is busy; what is said next time will do
        return
