"""Server-sent events: how they are written, and a response that ends everything behind it when the client goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")

HEARTBEAT: Final = b": still here\n\n"
HEARTBEAT_SECONDS: Final = 15.0
_SEND_SECONDS: Final = 60.0


def event(name: str, data: Any) -> bytes:
    """One event; its data is JSON on one line."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode("utf-8", "replace")


async def with_heartbeats(events: AsyncGenerator[bytes], seconds: float = HEARTBEAT_SECONDS) -> AsyncGenerator[bytes]:
    """The same events, with a comment wherever none came for a while, so that no proxy takes the line for dead."""
    upcoming: asyncio.Future[bytes] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({upcoming}, timeout=seconds)
            if not done:
                yield HEARTBEAT
                continue
            try:
                piece = upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = None
            yield piece
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.wait({upcoming})
        await events.aclose()


class EventStream(Response):
    """Sends the events until they end, the client goes, or the server closes; then closes their generator."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], first: bytes = b"") -> None:
        """`first` is what came of the events already."""
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._first = first
        self._events = with_heartbeats(events)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        closing: asyncio.Event = scope["app"].state.closing
        pump = asyncio.create_task(self._pump(send), name="event-stream")
        ends = [asyncio.create_task(_gone(receive)), asyncio.create_task(closing.wait())]
        try:
            await asyncio.wait({pump, *ends}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (pump, *ends):
                task.cancel()
            results = await asyncio.gather(pump, *ends, return_exceptions=True)
            await self._events.aclose()
        if isinstance(results[0], Exception):
            raise results[0]
        if results[1] is not None:  # the client is still there to hear the end
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, send: Send) -> None:
        if self._first:
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
        async for piece in self._events:
            async with asyncio.timeout(_SEND_SECONDS):
                await send({"type": "http.response.body", "body": piece, "more_body": True})


async def while_there(request: Request, work: Awaitable[T]) -> T:
    """The work's result; cancels it, and raises ClientDisconnect, when the client goes before or the server closes."""
    task = asyncio.ensure_future(work)
    closing: asyncio.Event = request.app.state.closing
    ends = [asyncio.create_task(_gone(request.receive)), asyncio.create_task(closing.wait())]
    try:
        await asyncio.wait({task, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for other in (task, *ends):
            other.cancel()
        await asyncio.gather(task, *ends, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
