"""Proxies on loopback: HTTP with CONNECT, and SOCKS5 with a password."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Door = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[tuple[str, int]]]


@dataclass
class Proxy:
    port: int = 0
    reached: list[str] = field(default_factory=list)
    """`host:port` of every connection made."""


@asynccontextmanager
async def proxy(door: Door) -> AsyncIterator[Proxy]:
    """A proxy that greets as `door` does."""
    running = Proxy()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            host, port = await door(reader, writer)
            running.reached.append(f"{host}:{port}")
            inner, outer = await asyncio.open_connection(host, port)
            await asyncio.gather(_pump(reader, outer), _pump(inner, writer))
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def http_door(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int]:
    """CONNECT by `user` with `secret`."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    wanted = base64.b64encode(b"user:secret").decode()
    if f"Basic {wanted}" not in head or not head.startswith("CONNECT "):
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        raise ValueError("refused")
    host, port = head.split()[1].rsplit(":", 1)
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    return host, int(port)


async def socks_door(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int]:
    """SOCKS5 by `user` with `secret`; names are resolved here."""
    count = (await reader.readexactly(2))[1]
    await reader.readexactly(count)
    writer.write(b"\x05\x02")
    user = await reader.readexactly((await reader.readexactly(2))[1])
    password = await reader.readexactly((await reader.readexactly(1))[0])
    if (user, password) != (b"user", b"secret"):
        writer.write(b"\x01\x01")
        raise ValueError("refused")
    writer.write(b"\x01\x00")
    kind = (await reader.readexactly(4))[3]
    if kind == 1:
        host = ".".join(str(number) for number in await reader.readexactly(4))
    else:
        host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
    (port,) = struct.unpack("!H", await reader.readexactly(2))
    writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
    return host, port
