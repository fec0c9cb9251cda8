"""How events reach an app: over several sockets or by signed HTTP, again and again until it says that it has them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from tests.fakes.slack.world import JSON

Kind = Literal["events_api", "interactive", "slash_commands"]


@dataclass
class Receipt:
    """One thing that was sent, and what the app said to it."""

    kind: Kind
    payload: Mapping[str, object]
    sent: int = 0
    """Attempts and copies together."""
    acks: list[float] = field(default_factory=list)
    """Seconds from sending to each acknowledgement."""
    answers: list[JSON] = field(default_factory=list)
    """What came with the acknowledgements."""
    statuses: list[int] = field(default_factory=list)
    """HTTP: each status; the last one counts."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Acknowledged, or given up."""


@dataclass(eq=False)
class Socket:
    """One connection of Socket Mode."""

    ws: web.WebSocketResponse
    waiting: dict[str, asyncio.Future[JSON]] = field(default_factory=dict)
    silent: bool = False
    """Half-open: nothing is read, answered or sent any more, and nobody is told."""
    acknowledged: list[str] = field(default_factory=list)

    async def send(self, document: JSON) -> None:
        if not self.silent:
            await self.ws.send_json(document)

    async def refresh(self) -> None:
        """Ask the app to come back with another connection, as Slack does every few hours."""
        await self.send({"type": "disconnect", "reason": "refresh_requested", "debug_info": {"host": "applink"}})

    async def cut(self) -> None:
        await self.ws.close(code=1006 if self.ws.closed else 1011)

    async def serve(self) -> None:
        """Read what the app sends until it goes."""
        async for message in self.ws:
            if self.silent:
                continue
            if message.type is aiohttp.WSMsgType.PING:
                await self.ws.pong(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                answer = json.loads(message.data)
                self.acknowledged.append(answer["envelope_id"])
                future = self.waiting.pop(answer["envelope_id"], None)
                if future is not None and not future.done():
                    future.set_result(answer.get("payload") or {})


@dataclass
class Delivery:
    """Sends to the one app that is connected."""

    signing_secret: str = "signing-secret"
    request_url: str = ""
    """Where HTTP deliveries go; empty: Socket Mode."""
    ack_seconds: float = 3
    """So long an app may take to acknowledge; then the same is sent again."""
    retry_pauses: tuple[float, ...] = (0, 60, 300)
    """Seconds before each further attempt."""
    age: float = 0
    """HTTP: seconds by which the time stamp of a request lies in the past."""
    forged: bool = False
    """HTTP: sign with another secret."""
    sockets: list[Socket] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    held: list[tuple[Receipt, int]] | None = None
    """While `holding`: what waits, in the order in which it will be sent."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _turn: itertools.count[int] = field(default_factory=itertools.count)
    _session: aiohttp.ClientSession | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, kind: Kind, payload: Mapping[str, object], copies: int = 1) -> Receipt:
        """Send it `copies` times, over different sockets where there are several."""
        receipt = Receipt(kind, payload)
        self.receipts.append(receipt)
        if self.held is not None:
            self.held.append((receipt, copies))
        else:
            self._start(receipt, copies)
        return receipt

    async def delivered(self, kind: Kind, payload: Mapping[str, object], copies: int = 1) -> Receipt:
        """Send it, and wait until it is acknowledged or given up."""
        receipt = await self.send(kind, payload, copies)
        if self.held is None:
            await asyncio.wait_for(receipt.done.wait(), 30)
        return receipt

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[list[tuple[Receipt, int]]]:
        """Nothing goes out before the end; what waits may be put in another order."""
        self.held = []
        try:
            yield self.held
        finally:
            held, self.held = self.held, None
            for receipt, copies in held:
                self._start(receipt, copies)
                await asyncio.wait_for(receipt.done.wait(), 30)

    async def connected(self, sockets: int = 1) -> None:
        """Return when the app has that many connections."""
        async with asyncio.timeout(30):
            await self._arrival(sockets)

    def arrived(self, socket: Socket) -> None:
        self.sockets.append(socket)
        self._news.set()

    @property
    def live(self) -> list[Socket]:
        return [socket for socket in self.sockets if not socket.ws.closed]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for socket in self.live:
            await socket.ws.close()
        if self._session is not None:
            await self._session.close()

    # ------------------------------------------------------------ one delivery
    async def _arrival(self, sockets: int) -> None:
        while len(self.live) < sockets:
            self._news.clear()
            await self._news.wait()

    def _start(self, receipt: Receipt, copies: int) -> None:
        for _ in range(copies):
            task = asyncio.create_task(self._until_acknowledged(receipt))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _until_acknowledged(self, receipt: Receipt) -> None:
        for attempt, pause in enumerate((0.0, *self.retry_pauses)):
            await asyncio.sleep(pause)
            receipt.sent += 1
            begun = time.monotonic()
            answer, again = await (self._by_http if self.request_url else self._by_socket)(receipt, attempt)
            if answer is not None:
                receipt.acks.append(time.monotonic() - begun)
                receipt.answers.append(answer)
            if not again or receipt.kind != "events_api":
                break
        receipt.done.set()

    async def _by_socket(self, receipt: Receipt, attempt: int) -> tuple[JSON | None, bool]:
        await self._arrival(1)
        socket = self.live[next(self._turn) % len(self.live)]
        envelope_id = str(uuid.uuid4())
        future: asyncio.Future[JSON] = asyncio.get_running_loop().create_future()
        socket.waiting[envelope_id] = future
        envelope: JSON = {
            "envelope_id": envelope_id,
            "type": receipt.kind,
            "payload": receipt.payload,
            "accepts_response_payload": receipt.kind != "events_api",
        }
        if receipt.kind == "events_api":
            envelope |= {"retry_attempt": attempt, "retry_reason": "timeout" if attempt else ""}
        try:
            await socket.send(envelope)
            return await asyncio.wait_for(future, self.ack_seconds), False
        except (TimeoutError, ConnectionError, RuntimeError):
            return None, True
        finally:
            socket.waiting.pop(envelope_id, None)

    async def _by_http(self, receipt: Receipt, attempt: int) -> tuple[JSON | None, bool]:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        body, kind = _encoded(receipt)
        stamp = str(int(time.time() - self.age))
        secret = "another" if self.forged else self.signing_secret
        signature = hmac.new(secret.encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": kind,
            "X-Slack-Request-Timestamp": stamp,
            "X-Slack-Signature": f"v0={signature}",
        }
        if attempt:
            headers |= {"X-Slack-Retry-Num": str(attempt), "X-Slack-Retry-Reason": "http_timeout"}
        timeout = aiohttp.ClientTimeout(total=self.ack_seconds)
        try:
            async with self._session.post(self.request_url, data=body, headers=headers, timeout=timeout) as response:
                text = await response.text()
                receipt.statuses.append(response.status)
                if response.status == 200:
                    is_json = response.content_type == "application/json"
                    return (json.loads(text) if is_json else {"text": text} if text else {}), False
                return None, response.headers.get("X-Slack-No-Retry") != "1"
        except (TimeoutError, aiohttp.ClientError):
            return None, True


def _encoded(receipt: Receipt) -> tuple[bytes, str]:
    """The body of an HTTP delivery, and its content type."""
    if receipt.kind == "events_api":
        return json.dumps(receipt.payload).encode(), "application/json"
    if receipt.kind == "interactive":
        return urlencode({"payload": json.dumps(receipt.payload)}).encode(), "application/x-www-form-urlencoded"
    return urlencode({str(k): str(v) for k, v in receipt.payload.items()}).encode(), "application/x-www-form-urlencoded"
