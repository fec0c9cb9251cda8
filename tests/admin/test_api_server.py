"""The service `web` as `kvasir up` runs it: on a real socket, from the first word to a clean end."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any, cast

import httpx2
import pytest
from fastapi import FastAPI

from admin import openapi, server
from bots.handler import ChatHandler
from core.access import Action
from core.answer import Answers
from core.answering.curated_match import CuratedMatch
from core.answering.retrieve import Retriever
from core.errors import ConfigError
from core.ports import Engine
from core.settings import WebSettings
from core.types import Role
from tests.admin.conftest import PASSWORD, OpenSite, Site, described_once, serving
from tests.admin.handler import EchoHandler
from tests.fakes.house import FakeSearch

pytestmark = pytest.mark.anyio


async def test_it_says_where_it_is_and_answers_there(open_site: OpenSite, capfd: pytest.CaptureFixture[str]) -> None:
    async with open_site(web={"port": 0}) as site:
        async with serving(site) as url, httpx2.AsyncClient(base_url=url) as browser:
            assert url.startswith("http://127.0.0.1:")
            assert (await browser.get("/healthz")).text == "ok"
            page = await browser.get("/login")
            assert page.status_code == 200
            assert "server" not in page.headers
            assert (await browser.get("/")).headers["location"] == "/login?next=%2F"
        with pytest.raises(httpx2.ConnectError):
            await httpx2.AsyncClient(base_url=url).get("/healthz")
    assert capfd.readouterr() == ("", "")


async def test_what_takes_long_is_worked_out_beside_the_event_loop(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All routes before the first request comes, and the API's document once, for whoever asks first."""
    where: list[tuple[str, bool]] = []

    def noted(module: ModuleType, name: str) -> None:
        genuine = getattr(module, name)

        def note(app: FastAPI) -> Any:
            where.append((name, threading.current_thread() is threading.main_thread()))
            return genuine(app)

        monkeypatch.setattr(module, name, note)

    monkeypatch.setattr(openapi, "described", described_once)
    noted(server, "work_out_routes")
    noted(openapi, "described")
    async with open_site(web={"port": 0}) as site:
        async with serving(site) as url, httpx2.AsyncClient(base_url=url) as browser:
            assert (await browser.get("/healthz")).text == "ok"
        ann = await site.person("ann", Role.VIEWER)
        first, second = await asyncio.gather(*(ann.get("/api/v1/openapi.json") for _ in range(2)))
        assert first.content == second.content
        assert first.json()["openapi"].startswith("3.1")
        assert (await site.client().get("/api/v1/openapi.json")).status_code == 401
    assert where == [("work_out_routes", False), ("described", False)]


async def test_it_ends_in_the_middle_of_an_answer(open_site: OpenSite) -> None:
    async with open_site(web={"port": 0}) as site:
        await site.kvasir.knowledge.create("kb")
        await site.kvasir.accounts.create("anna", PASSWORD, Role.OWNER)
        site.handler.words, site.handler.pause = ["word "] * 1000, 0.02
        async with httpx2.AsyncClient() as browser:
            async with serving(site) as url:
                browser.headers["origin"] = url
                await browser.post(f"{url}/api/v1/login", json={"name": "anna", "password": PASSWORD})
                chat = (await browser.post(f"{url}/api/v1/conversations", json={})).json()["id"]
                asked = browser.stream("POST", f"{url}/api/v1/conversations/{chat}/questions", json={"text": "x"})
                response = await asked.__aenter__()
                await site.handler.started.wait()
            assert site.handler.cancelled.is_set()
            assert "event: finished" not in [line async for line in response.aiter_lines()]
            await asked.__aexit__(None, None, None)


async def test_whoever_waits_for_a_model_sees_at_which_place(open_site: OpenSite) -> None:
    """From the queue of a worker's process to the page; each in the language that was asked in."""
    async with open_site(web={"port": 0}) as site:
        await site.kvasir.knowledge.create("kb")
        values = {"process": True, "parallel": 1, "token_seconds": 0.02, "tokens": 5000, "reply": "word "}
        await site.kvasir.models.add("engine", "poet", "scripted", values)
        running = await site.kvasir.engines.pool.get("poet")
        running.gate.limit = 0  # the queue is the worker's, as that of `llamacpp` is

        async def poet(name: str) -> Engine:
            engine: Engine = await site.kvasir.engines.get("poet")
            return engine

        db, settings, search = site.kvasir.db, site.kvasir.settings, cast("Retriever", FakeSearch())
        kvasir = replace(site.kvasir, answers=Answers(db, search, poet, settings, CuratedMatch(db)))
        async with (
            serving(Site(kvasir, site.app, cast("EchoHandler", ChatHandler(kvasir)))) as url,
            reading(site, url, "anna", "How?") as first,
        ):
            assert await heard(first, "delta", "word")
            async with reading(site, url, "bo", "How?") as second:
                assert await heard(second, "status", "You are number 1 in the queue…")
                async with reading(site, url, "li", "怎么办？") as third:
                    assert await heard(third, "status", "排队中，您排在第 2 位……")
                    await first.aclose()
                    assert await heard(second, "status", "Reading 2 passages…")
                    assert await heard(second, "delta", "word")
                    assert await heard(third, "status", "排队中，您排在第 1 位……")
                    await second.aclose()
                    assert await heard(third, "status", "正在阅读 2 段资料……")
                    assert await heard(third, "delta", "word")


@asynccontextmanager
async def reading(site: Site, url: str, name: str, text: str) -> AsyncIterator[AsyncGenerator[str]]:
    """The lines of an answer, as a browser gets them."""
    await site.kvasir.accounts.create(name, PASSWORD, Role.OWNER)
    async with httpx2.AsyncClient(base_url=url, headers={"origin": url}, timeout=10) as browser:
        await browser.post("/api/v1/login", json={"name": name, "password": PASSWORD})
        chat = (await browser.post("/api/v1/conversations", json={"kb": "kb"})).json()["id"]

        async def lines() -> AsyncGenerator[str]:
            asked = browser.stream("POST", f"/api/v1/conversations/{chat}/questions", json={"text": text})
            async with asked as response:
                async for line in response.aiter_lines():
                    yield line

        async with aclosing(lines()) as found:
            yield found


async def heard(lines: AsyncGenerator[str], event: str, text: str) -> bool:
    """Whether such an event comes, whose data has the text."""
    async for line in lines:
        if line == f"event: {event}" and text in await anext(lines):
            return True
    return False


async def test_a_port_in_use_is_said_in_one_sentence(open_site: OpenSite) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with open_site(web={"port": port}) as site:
            with pytest.raises(ConfigError, match=f"Port {port}"):
                await asyncio.wait_for(server.serve(site.kvasir, site.handler), timeout=5)


async def test_an_address_that_is_not_ours_is_said_in_one_sentence(open_site: OpenSite) -> None:
    async with open_site(web={"host": "192.0.2.1", "port": 0}) as site:
        await site.kvasir.accounts.create("anna", PASSWORD, Role.OWNER)
        with pytest.raises(ConfigError, match="KVASIR_WEB__HOST"):
            await asyncio.wait_for(server.serve(site.kvasir, site.handler), timeout=5)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "ask.example.org"])
async def test_it_opens_to_others_only_once_somebody_owns_it(open_site: OpenSite, host: str) -> None:
    async with open_site(web={"host": host, "port": 0}) as site:
        with pytest.raises(ConfigError, match="administrator"):
            await asyncio.wait_for(server.serve(site.kvasir, site.handler), timeout=5)
    assert not server.is_loopback(host)


async def test_with_an_owner_it_opens_to_all(open_site: OpenSite) -> None:
    async with open_site(web={"host": "0.0.0.0", "port": 0}) as site:
        await site.kvasir.accounts.create("anna", PASSWORD, Role.OWNER)
        async with serving(site) as url, httpx2.AsyncClient(base_url=url) as browser:
            assert url.startswith("http://127.0.0.1:")
            assert (await browser.get("/healthz")).status_code == 200
            assert (await browser.get("/healthz", headers={"host": "rebound.example"})).status_code == 421
        assert site.kvasir.accounts.may(None, Action.ASK, private=False) is False


@pytest.mark.parametrize(
    ("web", "url"),
    [
        ({"host": "127.0.0.1"}, "http://127.0.0.1:7"),
        ({"host": "::1"}, "http://[::1]:7"),
        ({"host": "::"}, "http://[::1]:7"),
        ({"host": "localhost"}, "http://localhost:7"),
        ({"host": "0.0.0.0", "public_url": "https://ask.example.org/"}, "https://ask.example.org"),
    ],
)
def test_the_address_is_one_that_a_browser_opens(web: dict[str, str], url: str) -> None:
    class Listener:
        def getsockname(self) -> tuple[str, int]:
            return "", 7

    assert server.address_of(WebSettings.model_validate(web), Listener()) == url  # type: ignore[arg-type]  # only that
