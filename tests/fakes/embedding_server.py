"""A server on loopback that speaks OpenAI's embeddings on the wire, with the faults that real ones have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.embedder import HashEmbedder
from tests.fakes.llm_server import Exchange, LlmServer


@dataclass
class EmbeddingServer(LlmServer):
    """Gives the vectors of a `HashEmbedder`, not normalised; `mode` names what is wrong."""

    embedder: HashEmbedder = field(default_factory=HashEmbedder)

    async def _answer(self, exchange: Exchange) -> None:
        await MODES[self.mode](exchange)

    @property
    def texts(self) -> list[str]:
        """All that was to be embedded, in order."""
        return [text for request in self.requests for text in request.body["input"]]


@asynccontextmanager
async def embedding_server(mode: str = "ok") -> AsyncIterator[EmbeddingServer]:
    fake = EmbeddingServer(mode)
    listener = await asyncio.start_server(fake.accept, "127.0.0.1", 0)
    fake.base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield fake
    finally:
        listener.close()
        await fake.close()
        await listener.wait_closed()


async def _vectors(exchange: Exchange) -> list[dict[str, Any]]:
    server, body = exchange.server, exchange.request.body
    assert isinstance(server, EmbeddingServer)
    assert exchange.request.path == "/v1/embeddings"
    assert all(isinstance(text, str) and text.strip() for text in body["input"])
    embedder = HashEmbedder(body.get("dimensions", server.embedder.info.dimension))
    rows = await embedder.embed_documents(body["input"])
    return [{"object": "embedding", "index": n, "embedding": (3 * row).tolist()} for n, row in enumerate(rows)]


async def ok(exchange: Exchange) -> None:
    await exchange.json(200, {"object": "list", "data": await _vectors(exchange), "model": "m"})


async def disordered(exchange: Exchange) -> None:
    await exchange.json(200, {"data": list(reversed(await _vectors(exchange)))})


async def one_missing(exchange: Exchange) -> None:
    await exchange.json(200, {"data": (await _vectors(exchange))[1:]})


async def not_a_number(exchange: Exchange) -> None:
    data = await _vectors(exchange)
    data[0]["embedding"][0] = float("nan")
    await exchange.json(200, {"data": data})


async def nothing_but_zeros(exchange: Exchange) -> None:
    data = await _vectors(exchange)
    data[0]["embedding"] = [0.0] * len(data[0]["embedding"])
    await exchange.json(200, {"data": data})


async def garbage(exchange: Exchange) -> None:
    await exchange.head(200, "text/html")
    await exchange.send(b"<html>Welcome to the router's login page</html>")
    await exchange.end()


async def wrong_key(exchange: Exchange) -> None:
    key = exchange.request.headers.get("authorization", "")
    await exchange.json(401, {"error": {"message": f"Incorrect API key provided: {key}"}})


async def refusing_aloud(exchange: Exchange) -> None:
    key = exchange.request.headers.get("authorization", "")
    await exchange.json(400, {"error": {"message": f"too much for {key}"}})


async def no_model(exchange: Exchange) -> None:
    await exchange.json(404, {"error": {"message": "no such model"}})


async def moved(exchange: Exchange) -> None:
    await exchange.json(307, {}, location="http://elsewhere.example/v1/embeddings")


async def failing_then_ok(exchange: Exchange) -> None:
    if len(exchange.server.requests) == 1:
        await exchange.json(500, {"error": "engine died"})
    else:
        await ok(exchange)


async def busy_then_ok(exchange: Exchange) -> None:
    if len(exchange.server.requests) == 1:
        await exchange.json(429, {"error": {"message": "slow down"}}, retry_after="0.05")
    else:
        await ok(exchange)


async def busy_for_long(exchange: Exchange) -> None:
    await exchange.json(429, {"error": {"message": "slow down"}}, retry_after="3600")


async def breaking_then_ok(exchange: Exchange) -> None:
    if len(exchange.server.requests) > 1:
        await ok(exchange)
        return
    exchange.writer.transport.abort()
    raise ConnectionResetError


async def breaking_half_way(exchange: Exchange) -> None:
    await exchange.head(200, "application/json")
    await exchange.send(json.dumps({"data": await _vectors(exchange)}).encode()[:200])
    exchange.writer.transport.abort()
    raise ConnectionResetError


async def silent(exchange: Exchange) -> None:
    await asyncio.sleep(60)


async def endless(exchange: Exchange) -> None:
    await exchange.head(200, "application/json")
    while True:
        await exchange.send(b" " * (1 << 20))


MODES: dict[str, Callable[[Exchange], Awaitable[None]]] = {
    work.__name__: work
    for work in (
        ok, disordered, one_missing, not_a_number, nothing_but_zeros, garbage, wrong_key, refusing_aloud, no_model,
        moved, failing_then_ok, busy_then_ok, busy_for_long, breaking_then_ok, breaking_half_way, silent, endless,
    )
}  # fmt: skip
