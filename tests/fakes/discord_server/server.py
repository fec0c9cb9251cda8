"""The server as a test holds it: people who act, trouble on demand, and what was asked."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from core.types import JSON
from tests.fakes.discord_server import payloads
from tests.fakes.discord_server.gateway import Gateway
from tests.fakes.discord_server.interactions import Interactions
from tests.fakes.discord_server.people import People
from tests.fakes.discord_server.rest import Handler, Rest, answer
from tests.fakes.discord_server.telling import Teller
from tests.fakes.discord_server.world import Channel, Message, Permission, World

TOKEN: Final = "MTIz.fake.discord-bot-token"


@dataclass
class Fault:
    """What the next requests that match get instead of an answer."""

    method: str = ""
    """Empty: any."""
    path: str = ""
    """A regular expression that is searched in the path."""
    times: int = 1
    status: int = 503
    body: JSON = field(default_factory=lambda: {"message": "Service Unavailable", "code": 0})
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0
    """Seconds before anything is answered."""
    applied: bool = False
    """The request is carried out all the same; only its answer is lost."""
    cut: bool = False
    """The connection ends instead of an answer."""

    def matches(self, request: web.Request) -> bool:
        right_method = self.method in {"", request.method}
        return self.times > 0 and right_method and re.search(self.path, request.path) is not None


@dataclass(frozen=True)
class Call:
    """A request that came, and what it got."""

    method: str
    path: str
    status: int
    at: float
    """On the monotonic clock."""


class DiscordServer(People):
    """Discord on loopback: `async with DiscordServer() as server`, then `server.api_base` is where a bot is sent."""

    def __init__(self) -> None:
        self.world = World()
        self.gateway = Gateway(self.world)
        self.teller = Teller(self.world, self.gateway)
        self.rest = Rest(self.teller)
        self.interactions = Interactions(self.teller, self.rest)
        super().__init__(self.teller, self.rest)
        self.api_base = ""
        self.faults: list[Fault] = []
        self.limit: tuple[int, float] = (10_000, 1.0)
        """Requests to one channel and kind of route, and over how many seconds; the real one is (5, 5.0)."""
        self.slow = 0.0
        """Seconds that every answer takes."""
        self.calls: deque[Call] = deque(maxlen=100_000)
        self._windows: dict[str, deque[float]] = {}
        self._runner: web.AppRunner | None = None
        self.set_token(TOKEN)

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._watch], client_max_size=64 << 20)
        app.add_routes([*self.rest.routes(), *self.interactions.routes()])
        app.add_routes([web.get("/gw", self.gateway.serve), web.get("/gw/", self.gateway.serve)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.rest.base = f"http://127.0.0.1:{port}"
        self.api_base = f"{self.rest.base}/api/v10"
        self.gateway.url = f"ws://127.0.0.1:{port}/gw"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.gateway.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    # -------------------------------------------------------------- what is there
    @property
    def token(self) -> str:
        return self.rest.token

    def set_token(self, token: str) -> None:
        """The token that is valid from now on."""
        self.rest.token = self.gateway.token = token

    def revoke_token(self) -> None:
        """Make the bot's token worthless: 401, and close 4004 for all who are connected."""
        self.set_token("another")
        self.gateway.close_all(4004)

    def allow_message_content(self) -> None:
        """Switch on the privileged intent, as its owner does in the developer portal."""
        self.gateway.allowed_privileged |= payloads.MESSAGE_CONTENT
        self.teller.portal_content = True

    def deny(self, channel: Channel, permission: Permission) -> None:
        channel.denied |= permission
        self.teller.channel_changed(channel)

    def gap(self) -> AbstractContextManager[None]:
        """See `Gateway.gap`."""
        return self.gateway.gap()

    def seen(self, channel: Channel) -> list[Message]:
        """What everybody sees in a channel, oldest first."""
        messages = [one for one in channel.messages.values() if not one.deleted and one.seen_only_by is None]
        return sorted(messages, key=lambda one: one.id)

    def answers(self, message: Message) -> list[Message]:
        """What the bot answered to it: replies, and all it wrote in the thread that hangs on it."""
        replies = [one for one in self.seen(message.channel) if one.reference is message]
        below = self.seen(message.thread) if message.thread is not None else []
        return [one for one in replies + below if one.author is self.world.bot]

    def calls_of(self, method: str, path: str) -> list[Call]:
        """Requests whose path has this regular expression in it."""
        return [call for call in self.calls if call.method == method and re.search(path, call.path)]

    @property
    def clients(self) -> int:
        """Connections whose client identified or resumed."""
        return len([one for one in self.gateway.connections if one.session is not None])

    # -------------------------------------------------------------- trouble
    def fail(
        self, method: str = "", path: str = "", *, status: int = 503, times: int = 1, applied: bool = False
    ) -> None:
        """Answer the next requests that match with an error."""
        self.faults.append(Fault(method, path, times, status, applied=applied))

    def cut(self, method: str = "", path: str = "", *, times: int = 1, applied: bool = False) -> None:
        """Close the connection instead of answering; with `applied`, after the request was carried out."""
        self.faults.append(Fault(method, path, times, cut=True, applied=applied))

    def hang(self, method: str = "", path: str = "", *, seconds: float = 3600, times: int = 1) -> None:
        """Take so long to answer."""
        self.faults.append(Fault(method, path, times, delay=seconds))

    def limit_next(self, method: str = "", path: str = "", *, wait: float, times: int = 1, all: bool = False) -> None:
        """Answer 429 with this `wait`; `all`: as the limit of the whole bot."""
        self.faults.append(_too_many(method, path, times, wait, "global" if all else "user"))

    # -------------------------------------------------------------- the way in
    @web.middleware
    async def _watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count, slow down, limit and break requests; the gateway and the files are let through."""
        if not request.path.startswith("/api/"):
            return await handler(request)
        began = time.monotonic()
        if self.slow:
            await asyncio.sleep(self.slow)
        window = self._window(request)
        full = window is not None and len(window) >= self.limit[0]
        if window is not None and not full:
            window.append(began)
        response = await self._broken(request, handler)
        if response is None:
            response = self._too_soon(window) if full and window else await handler(request)
        if window is not None:
            response.headers.update(self._headers(request, window))
        self.calls.append(Call(request.method, request.path, response.status, began))
        self.teller.touch()
        return response

    async def _broken(self, request: web.Request, handler: Handler) -> web.StreamResponse | None:
        fault = next((one for one in self.faults if one.matches(request)), None)
        if fault is None:
            return None
        fault.times -= 1
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.applied:
            await handler(request)
        if fault.cut and request.transport is not None:
            request.transport.abort()
        response = answer(fault.body, fault.status)
        response.headers.update(fault.headers)
        return response

    def _window(self, request: web.Request) -> deque[float] | None:
        """When requests of this kind came for this channel lately; None: there is no limit of a channel."""
        resource = request.match_info.route.resource
        if resource is None or "channel" not in request.match_info:
            return None
        bucket = f"{request.method} {resource.canonical} {request.match_info['channel']}"
        window = self._windows.setdefault(bucket, deque())
        while window and time.monotonic() - window[0] >= self.limit[1]:
            window.popleft()
        return window

    def _too_soon(self, window: deque[float]) -> web.StreamResponse:
        fault = _too_many("", "", 1, self._wait(window), "user")
        response = answer(fault.body, fault.status)
        response.headers.update(fault.headers)
        return response

    def _wait(self, window: deque[float]) -> float:
        """Seconds until the oldest no longer counts."""
        return max(0.0, self.limit[1] - (time.monotonic() - window[0])) + 0.001 if window else 0.0

    def _headers(self, request: web.Request, window: deque[float]) -> dict[str, str]:
        resource = request.match_info.route.resource
        kind = f"{request.method} {resource.canonical if resource else ''}"
        wait = self._wait(window)
        return {
            "X-RateLimit-Bucket": hashlib.md5(kind.encode(), usedforsecurity=False).hexdigest(),
            "X-RateLimit-Limit": str(self.limit[0]),
            "X-RateLimit-Remaining": str(max(0, self.limit[0] - len(window))),
            "X-RateLimit-Reset": f"{time.time() + wait:.3f}",
            "X-RateLimit-Reset-After": f"{wait:.3f}",
        }


def _too_many(method: str, path: str, times: int, wait: float, scope: str) -> Fault:
    whole = scope == "global"
    headers = {
        "Via": "1.1 google",
        "Retry-After": str(max(1, round(wait))),
        "X-RateLimit-Scope": scope,
        **({"X-RateLimit-Global": "true"} if whole else {}),
    }
    body: JSON = {"message": "You are being rate limited.", "retry_after": wait, "global": whole}
    return Fault(method, path, times, 429, body, headers)
