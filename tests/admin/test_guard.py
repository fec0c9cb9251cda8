"""The guard: hosts, origins, proxies, headers, and bodies that are too large or too slow."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI, Request
from starlette.types import ASGIApp

from admin import connections, guard
from admin.guard import CONTENT_SECURITY_POLICY, Guard, Limits, Policy
from core.errors import ConfigError
from core.settings import Settings, load

pytestmark = pytest.mark.anyio

HERE = "http://127.0.0.1:8410"


def make_app(settings: Settings) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(Guard, policy=Policy.of(settings))

    @app.get("/")
    @app.get("/api/v1/thing")
    async def read(request: Request) -> dict[str, Any]:
        return {"client": request.client and request.client.host, "scheme": request.url.scheme}

    @app.post("/api/v1/thing")
    @app.post("/api/v1/kbs/{name}/documents")
    async def write(request: Request) -> dict[str, int]:
        return {"size": len(await request.body())}

    @app.post("/api/v1/json")
    async def write_json(body: dict[str, int]) -> dict[str, int]:
        return body

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("secret detail")

    return app


def settings(tmp_path: Path, **web: Any) -> Settings:
    return load(data_dir=tmp_path, web=web)


def client(tmp_path: Path, *, peer: str = "127.0.0.1", **web: Any) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(make_app(settings(tmp_path, **web)), client=(peer, 5555))
    return httpx2.AsyncClient(transport=transport, base_url=HERE)


# ---------------------------------------------------------------- hosts
@pytest.mark.parametrize(
    "host", ["127.0.0.1:8410", "localhost", "localhost:1", "[::1]:8410", "ask.example.org", "LOCALHOST"]
)
async def test_our_own_names_are_answered(tmp_path: Path, host: str) -> None:
    async with client(tmp_path, public_url="https://ask.example.org") as here:
        assert (await here.get("/", headers={"host": host})).status_code == 200


OTHER_NAMES = [
    "evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.2",
    "",
    "a@b",
    "localhost/x",
    "x\ty",
    "127.0.0.1, evil",
    "[::1",
]


async def test_other_names_are_not(tmp_path: Path) -> None:
    async with client(tmp_path) as here:
        for host in OTHER_NAMES:
            response = await here.get("/", headers={"host": host})
            assert response.status_code == 421, host
            assert response.headers["content-type"] == "application/problem+json"


async def test_two_host_headers_or_none_are_refused(tmp_path: Path) -> None:
    for hosts in ([b"127.0.0.1", b"127.0.0.1"], []):
        status = await _status(make_app(settings(tmp_path)), [(b"host", host) for host in hosts])
        assert status == 421


async def _status(app: ASGIApp, headers: list[tuple[bytes, bytes]]) -> int:
    found: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        found.extend([message["status"]] if message["type"] == "http.response.start" else [])

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}
    scope |= {"scheme": "http", "client": ("127.0.0.1", 1), "server": None, "root_path": "", "http_version": "1.1"}
    await app(scope, receive, send)
    return found[0]


async def test_on_every_address_any_number_is_ours_but_no_strange_name(tmp_path: Path) -> None:
    async with client(tmp_path, host="0.0.0.0") as here:
        assert (await here.get("/", headers={"host": "10.1.2.3:8410"})).status_code == 200
        assert (await here.get("/", headers={"host": "rebound.example"})).status_code == 421


# ---------------------------------------------------------------- origins
OURS = [
    {"sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "same-origin", "origin": HERE},
    {"sec-fetch-site": "same-origin", "origin": "null"},
    {"origin": HERE},
    {"referer": f"{HERE}/documents?x=1"},
    {"authorization": "Bearer kv_x"},
]
FOREIGN = [
    {},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "cross-site", "origin": HERE},
    {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:9999"},
    {"origin": "https://127.0.0.1:8410"},
    {"origin": "http://127.0.0.1:8410.evil.example"},
    {"origin": "http://user@127.0.0.1:8410"},
    {"origin": ""},
    {"origin": "http://[::1"},
    {"referer": "https://evil.example/?http://127.0.0.1:8410/"},
    {"origin": "https://evil.example", "referer": f"{HERE}/"},
    {"x-requested-with": "XMLHttpRequest", "content-type": "application/json"},
]


async def test_our_own_pages_may_change_things(tmp_path: Path) -> None:
    async with client(tmp_path) as here:
        for headers in OURS:
            assert (await here.post("/api/v1/thing", headers=headers)).status_code == 200, headers


async def test_other_sites_may_not(tmp_path: Path) -> None:
    async with client(tmp_path) as here:
        for method, headers in product(("POST", "PUT", "PATCH", "DELETE"), FOREIGN):
            refused = await here.request(method, "/api/v1/thing", headers=headers)
            assert refused.status_code == 403, (method, headers)


async def test_other_sites_may_not_read_data_but_may_link_to_us(tmp_path: Path) -> None:
    foreign = {"sec-fetch-site": "cross-site"}
    async with client(tmp_path) as here:
        assert (await here.get("/api/v1/thing", headers=foreign | {"sec-fetch-mode": "no-cors"})).status_code == 403
        assert (await here.get("/api/v1/thing", headers=foreign | {"sec-fetch-mode": "navigate"})).status_code == 200
        assert (await here.get("/", headers=foreign | {"sec-fetch-mode": "navigate"})).status_code == 200


async def test_behind_a_proxy_the_public_origin_is_ours(tmp_path: Path) -> None:
    async with client(tmp_path, public_url="https://ask.example.org") as here:
        ours, other = {"origin": "https://ask.example.org"}, {"origin": "http://ask.example.org"}
        assert (await here.post("/api/v1/thing", headers=ours)).status_code == 200
        assert (await here.post("/api/v1/thing", headers=other)).status_code == 403


# ---------------------------------------------------------------- proxies
FORWARDED = {
    "x-forwarded-for": "198.51.100.7, 203.0.113.5, 10.0.0.9",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "evil.example",
}


async def test_nobody_but_a_trusted_proxy_speaks_for_others(tmp_path: Path) -> None:
    async with client(tmp_path, peer="192.0.2.1", trusted_proxies=["10.0.0.0/8"]) as here:
        assert (await here.get("/", headers=FORWARDED)).json() == {"client": "192.0.2.1", "scheme": "http"}


async def test_a_trusted_proxy_does_up_to_the_first_stranger(tmp_path: Path) -> None:
    async with client(tmp_path, peer="10.0.0.1", trusted_proxies=["10.0.0.0/8"]) as here:
        response = await here.get("/", headers=FORWARDED)
        assert response.json() == {"client": "203.0.113.5", "scheme": "https"}
        assert "strict-transport-security" in response.headers
        nonsense = {"x-forwarded-for": "198.51.100.7, <script>", "x-forwarded-proto": "gopher"}
        assert (await here.get("/", headers=nonsense)).json() == {"client": "10.0.0.1", "scheme": "http"}


@pytest.mark.parametrize(
    "web", [{"trusted_proxies": ["nonsense"]}, {"public_url": "ask.example.org"}, {"public_url": "ftp://x"}]
)
def test_settings_that_are_no_addresses_are_said_at_once(tmp_path: Path, web: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="web"):
        Policy.of(settings(tmp_path, **web))


# ---------------------------------------------------------------- headers
async def test_every_response_has_its_headers(tmp_path: Path) -> None:
    async with client(tmp_path) as here:
        for path in ("/", "/nowhere", "/broken", "/api/v1/thing"):
            response = await here.get(path)
            assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "no-referrer"
            assert response.headers["cross-origin-opener-policy"] == "same-origin"
            assert response.headers["cross-origin-resource-policy"] == "same-origin"
            assert len(response.headers["x-request-id"]) == 16
            assert "access-control-allow-origin" not in response.headers
        assert response.headers["cache-control"] == "no-store"
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY


async def test_a_failure_says_a_number_and_no_detail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with client(tmp_path) as here:
        response = await here.get("/broken")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "secret" not in response.text
    assert response.headers["x-request-id"] in response.text
    assert response.headers["x-request-id"] in caplog.text


PREFERRED = [
    ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-US,zh;q=0.5", "en"), ("de, zh;q=0.1", "zh"), ("en;q=0, zh;q=0.2", "zh"),
    ("de", None), ("", None), ("*;q=1, ,;;", None), ("zh;q=x", None),
]  # fmt: skip


def test_the_language_is_the_one_the_browser_prefers() -> None:
    for accepted, language in PREFERRED:
        assert guard.accepted_language(accepted) == language, accepted


# ---------------------------------------------------------------- bodies
async def test_a_large_body_is_refused_by_its_declaration(tmp_path: Path) -> None:
    async with client(tmp_path) as here:
        headers = {"origin": HERE, "content-length": str(10 << 30)}
        assert (await here.post("/api/v1/thing", headers=headers, content=b"x")).status_code == 413


@pytest.mark.parametrize("path", ["/api/v1/thing", "/api/v1/json"])
async def test_a_body_without_declared_size_is_cut_at_the_limit(tmp_path: Path, path: str) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(200):
            sent += 1
            yield b" " * 65536

    async with client(tmp_path) as here:
        assert (await here.post(path, headers={"origin": HERE}, content=endless())).status_code == 413
    assert sent < 10


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[int]:
    """A real server on loopback; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = uvicorn.Server(connections.config_of(app))
        task = asyncio.create_task(running._serve([listener]))
        yield listener.getsockname()[1]
        running.should_exit = True
        await task


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(5):
        return await reader.read()


async def test_a_body_that_does_not_come_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = replace(Policy.of(settings(tmp_path)), body=Limits(size=1000, seconds=0.5, silence=0.2))
    monkeypatch.setattr(Policy, "of", lambda _settings: policy)
    app = make_app(settings(tmp_path))
    async with served(app) as port:
        for pieces, pause in (([b"x"], 0.0), ([b"x"] * 80, 0.05)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST /api/v1/thing HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\norigin: http://127.0.0.1:{port}\r\n"
            writer.write((head + "content-length: 900\r\n\r\n").encode())
            started = time.monotonic()
            answer = asyncio.create_task(_read_all(reader))
            for piece in pieces:
                if not answer.done():
                    writer.write(piece)
                    await asyncio.sleep(pause)
            try:
                assert b" 408 " in (await answer).splitlines()[0]
            except ConnectionResetError:  # what we still sent met a closed door, and took the answer with it
                assert len(pieces) > 1
            assert time.monotonic() - started < 2
            writer.close()


async def test_headers_that_do_not_come_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    async with served(make_app(settings(tmp_path))) as port:
        for first in (b"", b"GET / HTTP/1.1\r\nhost: 127.0", b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\nGET / HT"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first)
            await _read_all(reader)  # it ends
            writer.close()
