"""The service `web`: serves the application in the event loop that runs everything else."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from admin.app import create_app, work_out_routes
from admin.chat.platform import Handler
from admin.connections import GRACE_SECONDS, config_of
from core.app import Kvasir
from core.errors import ConfigError
from core.settings import WebSettings
from core.texts import tell


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs the loop, and says when it is there."""

    def __init__(self, app: FastAPI, started: Callable[[], None]) -> None:
        super().__init__(config_of(app))
        self._app = app
        self._when_started = started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._when_started()
        await asyncio.to_thread(work_out_routes, self._app)


async def serve(kvasir: Kvasir, handler: Handler, *, listening: Callable[[str], None] | None = None) -> None:
    """Serve until cancelled; `listening` hears the page's address as soon as it answers.

    Raises ConfigError where it cannot listen, or where it would be open to others while nobody is its owner.
    """
    web = kvasir.settings.web
    if not is_loopback(web.host) and not await kvasir.accounts.any_user():
        raise ConfigError(tell("open_without_owner", host=web.host))
    app = create_app(kvasir, handler)
    listener = _listen(web)
    server = _Server(app, lambda: listening(address_of(web, listener)) if listening else None)
    serving = asyncio.create_task(server.serve([listener]), name="web-server")
    try:
        await asyncio.shield(serving)
    finally:
        app.state.closing.set()
        server.should_exit = True
        await asyncio.wait({serving}, timeout=GRACE_SECONDS + 2)
        serving.cancel()
        listener.close()


def address_of(web: WebSettings, listener: socket.socket) -> str:
    """Where people find the page."""
    if web.public_url:
        return web.public_url.rstrip("/")
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(web.host, web.host)  # noqa: S104  compared
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"http://{host}:{listener.getsockname()[1]}"


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(web: WebSettings) -> socket.socket:
    try:
        found = socket.getaddrinfo(web.host or None, web.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(web, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _cannot_listen(web, error) from error
    return listener


def _cannot_listen(web: WebSettings, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(tell("port_taken", host=web.host, port=web.port))
    return ConfigError(tell("cannot_listen", host=web.host, port=web.port, reason=error.strerror or error))
