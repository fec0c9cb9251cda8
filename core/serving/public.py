"""A worker for others: on an address of this machine, with a key, looked after like one's own."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Final

from core.errors import ConfigError, EngineUnavailable
from core.serving.client import Address
from core.serving.house import card_of
from core.serving.plan import Plan
from core.serving.supervisor import Progress, Supervisor
from core.texts import spoken, tell

LEAST_KEY: Final = 16
"""Characters of a key that the network can try."""
_DRAIN_SECONDS: Final = 20.0


@asynccontextmanager
async def public_worker(
    plan: Plan, host: str, port: int, key: str, progress: Progress
) -> AsyncIterator[tuple[Supervisor, str]]:
    """The worker, its model loaded, and its address. Raises EngineUnavailable or ConfigError where it cannot be."""
    if not _is_loopback(host) and len(key) < LEAST_KEY:
        raise ConfigError(tell("worker_needs_key", least=LEAST_KEY))
    try:
        lock = await card_of(plan, time.monotonic() + plan.start_seconds, progress)
    except TimeoutError as error:
        raise EngineUnavailable(tell("worker_not_alone")) from error
    with lock or nullcontext(), _listening(host, port) as listener:
        url = _url(host, listener.getsockname()[1])
        address = Address(plan.kind, url=url, key=key)
        supervisor = Supervisor(plan, address, listener.fileno(), progress, may_end=True)
        try:
            trouble = await supervisor.start()
            if trouble is not None:
                raise EngineUnavailable(trouble.say(spoken()))
            yield supervisor, url
        finally:
            await supervisor.stop(_DRAIN_SECONDS)


def _listening(host: str, port: int) -> socket.socket:
    """Raises ConfigError where it cannot."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        raise ConfigError(tell("cannot_listen", host=host, port=port, reason=error.strerror or error)) from error
    listener.setblocking(False)
    return listener


def _url(host: str, port: int) -> str:
    """Where this machine reaches it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  compared
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
