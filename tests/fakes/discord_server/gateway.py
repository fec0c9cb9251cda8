"""The gateway: sessions with their numbered events, and the connections they are sent over."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from aiohttp import WSCloseCode, WSMsgType, web

from core.types import JSON
from tests.fakes.discord_server import payloads
from tests.fakes.discord_server.world import World

GUILDS: Final = 1 << 0
GUILD_MESSAGES: Final = 1 << 9
GUILD_REACTIONS: Final = 1 << 10
DIRECT_MESSAGES: Final = 1 << 12
DIRECT_REACTIONS: Final = 1 << 13
_PRIVILEGED: Final = (1 << 1) | (1 << 8) | payloads.MESSAGE_CONTENT
_KEPT: Final = 20_000
"""Events that a session can replay."""

Payload = Callable[["Session"], JSON]


@dataclass(eq=False)
class Connection:
    """One web socket; what it is to send waits in a queue, so that nobody who says something waits for it."""

    socket: web.WebSocketResponse
    compress: bool
    outbox: asyncio.Queue[JSON | int] = field(default_factory=asyncio.Queue)
    """Frames; a number closes with that code."""
    silent: bool = False
    """Open, but nothing comes through any more."""
    session: Session | None = None
    port: int = 0
    """The client's own."""
    _deflate: zlib._Compress = field(default_factory=zlib.compressobj)

    def send(self, op: int, data: object = None, **more: object) -> None:
        self.outbox.put_nowait({"op": op, "d": data, **more})

    def close(self, code: int) -> None:
        self.outbox.put_nowait(code)

    async def write(self) -> None:
        """Send what is in the outbox, until it says close."""
        while True:
            frame = await self.outbox.get()
            if self.silent:
                continue
            if isinstance(frame, int):
                await self.socket.close(code=frame)
                return
            text = json.dumps(frame)
            if self.compress:
                await self.socket.send_bytes(
                    self._deflate.compress(text.encode()) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
                )
            else:
                await self.socket.send_str(text)


@dataclass(eq=False)
class Session:
    """What a client identified for: its shard, its intents and the events it was or would have been sent."""

    shard: int
    shards: int
    intents: int
    id: str = field(default_factory=lambda: uuid4().hex)
    sequence: int = 0
    events: deque[tuple[int, str, JSON]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    connection: Connection | None = None
    left: float = 0
    """When its connection was lost, on the monotonic clock."""

    @property
    def reads_content(self) -> bool:
        return bool(self.intents & payloads.MESSAGE_CONTENT)

    def push(self, event: str, data: JSON) -> None:
        self.sequence += 1
        self.events.append((self.sequence, event, data))
        if self.connection is not None:
            self.connection.send(0, data, t=event, s=self.sequence)

    def replay(self, after: int) -> None:
        """Send again what came after that number."""
        for number, event, data in self.events:
            if self.connection is not None and number > after:
                self.connection.send(0, data, t=event, s=number)


class Gateway:
    """Accepts clients, and tells them what happens."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.token = ""
        """Set by the server; a client with another is closed with 4004."""
        self.url = ""
        self.allowed_privileged = 0
        """Privileged intents that were switched on for this bot; asking for another closes with 4014."""
        self.heartbeat_interval = 41_250
        self.max_concurrency = 16
        self.repeat = 1
        """How often every event is sent."""
        self.sessions: dict[str, Session] = {}
        self.connections: list[Connection] = []
        self.identified: list[tuple[int, int]] = []
        """(shard, shards) of every client that identified."""
        self.resumed = 0
        self.noticed: Callable[[], None] = lambda: None
        """Called when a client comes or goes."""
        self.open = asyncio.Event()
        self.open.set()
        self._held: list[tuple[str, Payload, int, int | None]] | None = None
        self._lost = False

    # -------------------------------------------------------------- saying
    def tell(self, event: str, payload: JSON | Payload, intents: int, guild: int | None) -> None:
        """Send an event to every session of its shard that asked for one of these intents (0: all)."""
        make: Payload = payload if callable(payload) else lambda _: payload
        if self._held is not None:
            self._held.append((event, make, intents, guild))
        elif not self._lost:
            for _ in range(self.repeat):
                self._tell(event, make, intents, guild)

    def _tell(self, event: str, make: Payload, intents: int, guild: int | None) -> None:
        for session in list(self.sessions.values()):
            shard = 0 if guild is None else (guild >> 22) % session.shards
            if session.shard == shard and (not intents or session.intents & intents):
                session.push(event, make(session))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """What happens inside is told afterwards, last first."""
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held or [], None
            for one in reversed(held):
                self.tell(*one)

    @contextmanager
    def gap(self) -> Iterator[None]:
        """The clients are cut off; what happens inside is in the channels' history, and no event will ever tell it."""
        self.open.clear()
        self._lost = True
        self.close_all(4000)
        try:
            yield
        finally:
            self.sessions.clear()
            self._lost = False
            self.open.set()

    def shards_of(self, ports: Collection[int]) -> list[int]:
        """The shards that are connected from these ports."""
        return [one.session.shard for one in self.connections if one.session is not None and one.port in ports]

    # -------------------------------------------------------------- trouble
    def close_all(self, code: int) -> None:
        for connection in self.connections:
            connection.close(code)

    def ask_reconnect(self) -> None:
        """Tell every client to connect again and resume, as Discord does when it moves them."""
        for connection in self.connections:
            connection.send(7)

    def invalidate(self, *, resumable: bool = False) -> None:
        """Tell every client that its session is no longer valid."""
        if not resumable:
            self.sessions.clear()
        for connection in self.connections:
            connection.send(9, resumable)

    def go_silent(self) -> None:
        """Leave the connections open and send nothing more over them, acknowledgements included."""
        for connection in self.connections:
            connection.silent = True

    # -------------------------------------------------------------- hearing
    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One client, from hello to its end."""
        socket = web.WebSocketResponse(compress=False, max_msg_size=1 << 20)
        await socket.prepare(request)
        await self.open.wait()
        connection = Connection(socket, request.query.get("compress") == "zlib-stream")
        if request.transport is not None:
            connection.port = request.transport.get_extra_info("peername")[1]
        self.connections.append(connection)
        connection.send(10, {"heartbeat_interval": self.heartbeat_interval})
        writing = asyncio.create_task(connection.write())
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT and not connection.silent:
                    self._hear(connection, json.loads(message.data))
        finally:
            writing.cancel()
            await asyncio.wait([writing])
            self.connections.remove(connection)
            if connection.session is not None and connection.session.connection is connection:
                connection.session.connection = None
                connection.session.left = time.monotonic()
            self.noticed()
        return socket

    async def stop(self) -> None:
        self.open.set()
        for connection in list(self.connections):
            await connection.socket.close(code=WSCloseCode.GOING_AWAY)

    def _hear(self, connection: Connection, frame: JSON) -> None:
        data = frame.get("d")
        if frame["op"] == 1:
            connection.send(11)
        elif frame["op"] == 2 and isinstance(data, dict):
            self._identify(connection, data)
        elif frame["op"] == 6 and isinstance(data, dict):
            self._resume(connection, data)
        self.noticed()

    def _identify(self, connection: Connection, data: JSON) -> None:
        shard, shards = data.get("shard", [0, 1])
        if data["token"].removeprefix("Bot ") != self.token:
            connection.close(4004)
        elif data["intents"] & _PRIVILEGED & ~self.allowed_privileged:
            connection.close(4014)
        else:
            self._forget_old()
            session = Session(shard, shards, data["intents"])
            self.identified.append((shard, shards))
            self._attach(connection, session)
            self._welcome(session)
            self.sessions[session.id] = session

    def _welcome(self, session: Session) -> None:
        world = self._world
        guilds = [one for one in world.guilds.values() if (one.id >> 22) % session.shards == session.shard]
        session.push(
            "READY",
            {
                "v": 10,
                "user": payloads.user(world.bot),
                "guilds": [{"id": str(one.id), "unavailable": True} for one in guilds],
                "session_id": session.id,
                "resume_gateway_url": self.url,
                "shard": [session.shard, session.shards],
                "application": {"id": str(world.bot.id), "flags": 0},
            },
        )
        for one in guilds:
            session.push("GUILD_CREATE", payloads.guild(one, world))

    def _resume(self, connection: Connection, data: JSON) -> None:
        session = self.sessions.get(data["session_id"])
        if data["token"].removeprefix("Bot ") != self.token:
            connection.close(4004)
        elif session is None or (session.events and session.events[0][0] > data["seq"] + 1):
            connection.send(9, False)
        else:
            self._attach(connection, session)
            session.replay(data["seq"])
            self.resumed += 1
            session.push("RESUMED", {})

    @staticmethod
    def _attach(connection: Connection, session: Session) -> None:
        if session.connection is not None and session.connection is not connection:
            session.connection.session = None
        connection.session, session.connection = session, connection

    def _forget_old(self) -> None:
        """A session without a client can be resumed for a while only."""
        now = time.monotonic()
        for session in list(self.sessions.values()):
            if session.connection is None and now - session.left > 60:
                del self.sessions[session.id]
