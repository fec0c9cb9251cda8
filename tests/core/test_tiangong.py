"""The `tiangong` engine against a server that checks its signature and answers in JSON lines."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from core.engines.tiangong import TiangongEngine
from core.errors import ConfigError, EngineUnavailable
from core.settings import TiangongSettings
from core.types import Language, Prompt, Sampling, Turn
from tests.fakes.llm_server import MODES, Exchange, LlmServer, llm_server, pieces

pytestmark = pytest.mark.anyio

KEY, SECRET = "app-key-4711", "app-secret-0815"
PROMPT = (Turn("system", "Be brief."), Turn("user", "How long is leave?"))


def line(reply: str, **more: object) -> bytes:
    said = {"code": 200, "code_msg": "ok", "resp_data": {"reply": reply, "status": 1}, **more}
    return json.dumps(said, ensure_ascii=False).encode() + b"\n"


async def tiangong(exchange: Exchange) -> None:
    """As the real one: the signature is checked, and every byte may come alone."""
    given = exchange.request.headers
    wanted = hashlib.md5(f"{KEY}{SECRET}{given['timestamp']}".encode(), usedforsecurity=False).hexdigest()
    await exchange.head(200, "application/json")
    if given["app_key"] != KEY or given["sign"] != wanted or abs(time.time() - int(given["timestamp"])) > 60:
        await exchange.send(line("", code=41001, code_msg=f"bad sign of {given['app_key']}", resp_data=None))
    else:
        whole = b"".join(line(word) for word in pieces(exchange.server.text)) + b"\n" + line("").strip()
        for start in range(0, len(whole), 7):
            await exchange.send(whole[start : start + 7])
    await exchange.end()


async def tiangong_stalls(exchange: Exchange) -> None:
    await exchange.head(200, "application/json")
    await exchange.send(line("Annual "))
    await asyncio.sleep(60)


async def tiangong_fails_midway(exchange: Exchange) -> None:
    await exchange.head(200, "application/json")
    await exchange.send(line("Annual ") + line("", code=500, code_msg="out of memory"))
    await exchange.end()


async def tiangong_breaks(exchange: Exchange) -> None:
    await exchange.head(200, "application/json")
    await exchange.send(line("Annual "))
    exchange.writer.transport.abort()
    raise ConnectionResetError


async def tiangong_busy_then_ok(exchange: Exchange) -> None:
    if len(exchange.server.requests) == 1:
        await exchange.json(429, {}, retry_after="0.01")
    else:
        await tiangong(exchange)


@pytest.fixture(autouse=True)
def modes(monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in (tiangong, tiangong_stalls, tiangong_fails_midway, tiangong_breaks, tiangong_busy_then_ok):
        monkeypatch.setitem(MODES, mode.__name__, mode)


@asynccontextmanager
async def opened(mode: str, **changes: object) -> AsyncIterator[tuple[TiangongEngine, LlmServer]]:
    async with llm_server(mode) as server:
        values: dict[str, object] = {
            "base_url": server.base_url.removesuffix("/v1") + "/saas/api/v4/generate",
            "app_key": SecretStr(KEY),
            "app_secret": SecretStr(SECRET),
            "first_token_timeout_seconds": 5,
            **changes,
        }
        engine = TiangongEngine(TiangongSettings.model_validate(values), backoff=0.01)
        try:
            yield engine, server
        finally:
            await engine.close()


async def answer(engine: TiangongEngine, language: Language = "en") -> str:
    return "".join([text async for text in engine.stream(Prompt(PROMPT, "leave", (), language), Sampling())])


@pytest.mark.parametrize(("mode", "requests"), [("tiangong", 1), ("tiangong_busy_then_ok", 2)])
async def test_the_answer_arrives_whole(mode: str, requests: int) -> None:
    async with opened(mode) as (engine, server):
        assert await answer(engine) == server.text
        assert len(server.requests) == requests
        request = server.requests[-1]
    assert (request.path, request.headers["stream"]) == ("/saas/api/v4/generate", "true")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How long is leave?"}]
    assert request.body == {"messages": messages, "model": "SkyChat-MegaVerse"}
    assert SECRET not in str(request)


@pytest.mark.parametrize(
    ("mode", "changes", "words"),
    [
        ("tiangong", {"app_secret": SecretStr("another")}, "41001: bad sign of …"),
        ("tiangong_stalls", {"token_timeout_seconds": 0.1}, "stalled: nothing came for 0.1 s"),
        ("tiangong_fails_midway", {}, "500: out of memory"),
        ("stall_before_headers", {"first_token_timeout_seconds": 0.2}, "did not begin to answer within 0.2 s"),
        ("wrong_key", {}, "does not accept the key"),
        ("busy_for_long", {}, "busy"),
        ("failing", {}, "status 500"),
        ("garbage", {}, "does not answer as this engine expects"),
        ("huge_line", {}, "does not answer as this engine expects"),
        ("tiangong_breaks", {}, "broke"),
        ("empty", {}, "empty answer"),
    ],
)
async def test_a_fault_ends_as_one_clear_sentence(mode: str, changes: dict[str, object], words: str) -> None:
    async with opened(mode, **changes) as (engine, server):
        with pytest.raises(EngineUnavailable) as caught:
            await answer(engine)
        assert words in str(caught.value)
        assert KEY not in str(caught.value)
        assert len(server.requests) == (3 if mode == "failing" else 1)


async def test_closing_the_stream_closes_the_connection_at_once() -> None:
    async with opened("tiangong_stalls") as (engine, server):
        stream = engine.stream(Prompt(PROMPT, "leave", ()), Sampling())
        assert await anext(stream) == "Annual "
        await stream.aclose()
        async with asyncio.timeout(1):
            await server.gone.wait()


async def test_nobody_listening_is_said_with_the_address() -> None:
    async with opened("tiangong") as (engine, server):
        pass
    engine = TiangongEngine(
        TiangongSettings(base_url=server.base_url, app_key=SecretStr("k"), app_secret=SecretStr("s")), backoff=0.01
    )
    with pytest.raises(EngineUnavailable, match=r"Cannot connect to .* 127\.0\.0\.1"):
        await answer(engine)
    assert "Cannot connect" in await engine.health()
    await engine.close()


@pytest.mark.parametrize("values", [{"app_key": "k"}, {"app_key": "k", "app_secret": "s", "base_url": "ftp://x"}])
async def test_unusable_settings_are_refused_with_the_variable_s_name(values: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="KVASIR_TIANGONG__"):
        TiangongEngine(TiangongSettings.model_validate(values))
