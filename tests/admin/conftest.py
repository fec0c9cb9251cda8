"""The web application on a real Kvasir in a folder of its own, and people to call it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI

from admin import openapi, server
from admin.app import create_app
from admin.openapi import described
from core.app import Kvasir
from core.identity import accounts as accounts_module
from core.identity.passwords import Passwords
from core.settings import load
from core.types import Role
from tests.admin.handler import EchoHandler
from tests.databases import put_sqlite

HERE = "http://127.0.0.1:8410"
PASSWORD = "correct horse battery"


class Site:
    """One running application and its people."""

    def __init__(self, kvasir: Kvasir, app: FastAPI, handler: EchoHandler) -> None:
        self.kvasir = kvasir
        self.app = app
        self.handler = handler
        self._clients: list[httpx2.AsyncClient] = []

    def client(self, **options: Any) -> httpx2.AsyncClient:
        """Somebody's browser on the site."""
        peer = options.pop("peer", "127.0.0.1")
        headers = {"origin": HERE, "accept-language": "en"} | options.pop("headers", {})
        transport = httpx2.ASGITransport(self.app, client=(peer, 5555))
        made = httpx2.AsyncClient(transport=transport, base_url=HERE, headers=headers, **options)
        self._clients.append(made)
        return made

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()

    async def person(self, name: str, role: Role) -> httpx2.AsyncClient:
        """A browser in which a new person of that role is logged in; `log_in` is how people do it."""
        login = await self.kvasir.accounts.open_session(await self.kvasir.accounts.create(name, PASSWORD, role))
        browser = self.client()
        browser.cookies.set("kvasir_session", login.token, domain="127.0.0.1")
        return browser

    async def log_in(self, name: str) -> httpx2.AsyncClient:
        browser = self.client()
        response = await browser.post("/api/v1/login", json={"name": name, "password": PASSWORD})
        assert response.status_code == 200, response.text
        return browser

    def document(self) -> dict[str, Any]:
        """The API's own, to be read only."""
        return described_once(self.app)


_DOCUMENTS: list[dict[str, Any]] = []
OpenSite = Callable[..., Any]


def described_once(app: FastAPI) -> dict[str, Any]:
    """The API's document: it is the same for each application, and takes a second to make."""
    if not _DOCUMENTS:
        _DOCUMENTS.append(described(app))
    return _DOCUMENTS[0]


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[str]:
    """The service's address; it is cancelled in the end, as `kvasir up` does."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.serve(site.kvasir, site.handler, listening=ready.set_result))
    try:
        yield await asyncio.wait_for(ready, timeout=10)
    finally:
        task.cancel()
        async with asyncio.timeout(8):
            await asyncio.wait({task})
        assert task.cancelled()


@pytest.fixture
def open_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parser_here: None) -> OpenSite:
    """`async with open_site(web={...}) as site`."""
    cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(accounts_module, "Passwords", lambda: Passwords(cheap))
    monkeypatch.setattr(openapi, "described", described_once)

    @asynccontextmanager
    async def opened(**given: Any) -> AsyncIterator[Site]:
        given.setdefault("embedder", {"kind": "none"})
        await put_sqlite(tmp_path / "data" / "kvasir.db")
        async with Kvasir.open(load(data_dir=tmp_path / "data", **given)) as kvasir:
            handler = EchoHandler(kvasir)
            made = Site(kvasir, create_app(kvasir, handler), handler)
            yield made
            await made.close()

    return opened


@pytest.fixture
async def site(open_site: OpenSite) -> AsyncIterator[Site]:
    async with open_site() as made:
        yield made
