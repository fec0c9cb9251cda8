"""The HTTP API: knowledge bases, documents, jobs, conversations, answers as streams, ratings."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import uvicorn
from sqlalchemy import update

import core.worker
from admin import stream
from admin.app import create_app
from admin.connections import config_of
from admin.rate import Rate
from core import registry
from core.access import Scope
from core.db.tables import AnswerRow, ConversationRow
from core.errors import EngineUnavailable
from core.types import Role
from tests.admin.conftest import OpenSite, Site
from tests.admin.test_security import END, part, send

pytestmark = pytest.mark.anyio


@pytest.fixture
def parser_here() -> None:
    """Here files come from outside, and are read as they are in service: by processes of their own."""


HANDBOOK = (
    b"# Handbook\n\n## Leave\n\nEvery employee has 25 days of leave a year.\n\n## Office\n\nThe office opens at nine.\n"
)


@pytest.fixture
async def anna(site: Site) -> httpx2.AsyncClient:
    await site.kvasir.knowledge.create("kb", description="All we know")
    return await site.person("anna", Role.OWNER)


@asynccontextmanager
async def working(site: Site) -> AsyncIterator[None]:
    """The queue is worked off meanwhile."""
    task = asyncio.create_task(core.worker.serve(site.kvasir, None))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


# ---------------------------------------------------------------- me and health
async def test_who_watches_is_told(site: Site) -> None:
    async with site.client() as stranger:
        assert (await stranger.get("/healthz")).text == "ok"
        assert (await stranger.get("/readyz")).status_code == 200


async def test_me(site: Site, anna: httpx2.AsyncClient) -> None:
    me = (await anna.get("/api/v1/me")).json()
    assert me["name"] == "anna"
    assert me["role"] == "owner"
    assert me["language"] == "auto"
    assert me["can_manage"] is True
    assert me["engine"] == {"name": "extractive", "is_language_model": False}
    assert me["embedder"]["ready"] is False
    assert "keywords" in me["notice"]
    chinese = (await anna.get("/api/v1/me", headers={"accept-language": "zh-CN"})).json()
    assert "关键词" in chinese["notice"]


async def test_errors_come_in_the_language_of_the_reader(site: Site) -> None:
    async with site.client() as stranger:
        english = (await stranger.get("/api/v1/me")).json()
        chinese = (await stranger.get("/api/v1/me", headers={"accept-language": "zh"})).json()
    assert english["detail"] == "Log in first."
    assert chinese["detail"] == "请先登录。"


async def test_an_engine_that_cannot_be_had_is_said_not_fatal(open_site: OpenSite) -> None:
    async with open_site(answer={"engine": "nonesuch"}) as site:
        anna = await site.person("anna", Role.OWNER)
        me = (await anna.get("/api/v1/me")).json()
    assert me["engine"] == {"name": "nonesuch", "is_language_model": False}
    assert "nonesuch" in me["notice"]


# ---------------------------------------------------------------- knowledge bases and documents
async def test_knowledge_bases_come_and_go(site: Site, anna: httpx2.AsyncClient) -> None:
    made = await anna.post(
        "/api/v1/kbs", json={"name": "New one", "private": True, "chunk_size": 100, "chunk_overlap": 10}
    )
    assert made.status_code == 201
    assert made.json() | {"updated_at": ""} == {
        "name": "New one", "description": "", "private": True, "documents": 0, "chunks": 0, "size": 0, "waiting": 0,
        "failed": 0, "vectors": False, "embedder": "", "indexes": [], "can_edit": True, "updated_at": "",
    }  # fmt: skip
    assert (await anna.post("/api/v1/kbs", json={"name": "New one"})).status_code == 409
    assert (await anna.post("/api/v1/kbs", json={"name": "x", "chunk_size": 1})).status_code == 422
    assert [kb["name"] for kb in (await anna.get("/api/v1/kbs")).json()["items"]] == ["New one", "kb"]
    assert (await anna.delete("/api/v1/kbs/New%20one")).status_code == 204
    assert (await anna.delete("/api/v1/kbs/New%20one")).status_code == 404


async def test_an_upload_is_followed_until_it_is_live(site: Site, anna: httpx2.AsyncClient) -> None:
    body = part("handbook.md", HANDBOOK) + part("empty.md", b"") + part("broken.pdf", b"%PDF-1.7 nonsense")
    ticket = (await send(anna, body + END)).json()
    assert {document["status"] for document in ticket["documents"]} == {"queued"}
    async with working(site):
        response = await anna.get(f"/api/v1/jobs/{ticket['job_id']}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    found = events(response.text)
    assert found[-1][0] == "end"
    steps = [data for name, data in found if name == "document"]
    assert steps[-1]["done"] == steps[-1]["total"] == 3
    last = {step["name"]: step for step in steps}
    assert last["handbook.md"]["status"] == "indexed"
    assert last["handbook.md"]["stage"] == "live"
    for bad in ("empty.md", "broken.pdf"):
        assert last[bad]["status"] == "failed"
        assert last[bad]["reason"]

    listed = (await anna.get("/api/v1/kbs/kb/documents?status=indexed&text=HAND")).json()
    assert listed["total"] == 1
    [document] = listed["items"]
    found_chunks = (await anna.get(f"/api/v1/documents/{document['id']}/chunks?around=0")).json()["items"]
    assert [chunk["number"] for chunk in found_chunks] == list(range(document["chunks"]))[:4]
    assert any("25 days" in chunk["text"] and "<p>" in chunk["html"] for chunk in found_chunks)

    again = (await send(anna, part("handbook.md", HANDBOOK) + END)).json()
    assert (again["documents"], [item["name"] for item in again["unchanged"]]) == ([], ["handbook.md"])
    assert (await anna.delete(f"/api/v1/documents/{document['id']}")).status_code == 204
    assert (await anna.get(f"/api/v1/documents/{document['id']}/chunks")).status_code == 404


# ---------------------------------------------------------------- conversations
async def _conversation(browser: httpx2.AsyncClient, **given: Any) -> str:
    made = await browser.post("/api/v1/conversations", json=given)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def _ask(browser: httpx2.AsyncClient, chat: str, text: str, **more: Any) -> list[tuple[str, Any]]:
    response = await browser.post(f"/api/v1/conversations/{chat}/questions", json={"text": text, **more})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return events(response.text)


async def test_an_answer_streams(site: Site, anna: httpx2.AsyncClient) -> None:
    chat = await _conversation(anna, kb="kb")
    site.handler.words = ["# Title\n", "<b>x</b> ", "y [1]\ud83d"]
    found = await _ask(anna, chat, " What?\x00 ", kb="kb")
    assert [name for name, _ in found] == ["status", "sources", "delta", "delta", "delta", "finished"]
    finished = found[-1][1]
    assert finished["text"].startswith("# Title\n<b>x</b> y [1]")
    assert finished["html"].startswith("<h1>Title</h1>")
    assert "<b>" not in finished["html"]
    assert finished["answered"] is True
    assert finished["sources"] == [
        {"n": 1, "kb": "kb", "document_id": "d" * 32, "document": "a.md", "title": "A", "chunk": 3, "locator": "page 2",
         "headings": ["H"], "score": 0.5, "text": "the passage"}
    ]  # fmt: skip
    assert found[1][1]["sources"] == finished["sources"]
    [mention] = site.handler.mentions
    assert (mention.text, mention.kbs, mention.conversation_id, mention.place.platform) == (
        "What?",
        ("kb",),
        chat,
        "web",
    )
    assert mention.person.key.startswith("user:")


async def test_only_a_knowledge_base_one_may_ask_is_chosen(site: Site, anna: httpx2.AsyncClient) -> None:
    chat = await _conversation(anna)
    await site.kvasir.knowledge.create("private", private=True)
    await _ask(anna, chat, "x")
    await _ask(anna, chat, "x", kb="private")
    assert [mention.kbs for mention in site.handler.mentions] == [(), ("private",)]
    for wrong in ("nowhere", "a\x00b", "../x", "a\ud7ff"):
        response = await anna.post(f"/api/v1/conversations/{chat}/questions", json={"text": "x", "kb": wrong})
        assert response.status_code == 404
        assert (await anna.patch(f"/api/v1/conversations/{chat}", json={"kb": wrong})).status_code == 404
    assert (await anna.patch(f"/api/v1/conversations/{chat}", json={"kb": "private"})).json()["kb"] == "private"
    assert (await anna.patch(f"/api/v1/conversations/{chat}", json={"kb": ""})).json()["kb"] is None


async def test_a_guest_asks_only_what_is_not_private(open_site: OpenSite) -> None:
    async with open_site(web={"anonymous": True}) as site:
        await site.kvasir.knowledge.create("open")
        await site.kvasir.knowledge.create("closed", private=True)
        guest = site.client()
        chat = await _conversation(guest)
        await _ask(guest, chat, "x")
        assert site.handler.mentions[0].person.key.startswith("web:")
        closed = await guest.post(f"/api/v1/conversations/{chat}/questions", json={"text": "x", "kb": "closed"})
        assert closed.status_code == 404
        assert (await guest.post("/api/v1/conversations", json={"kb": "closed"})).status_code == 404
        assert (await site.client().get(f"/api/v1/conversations/{chat}")).status_code == 404


async def test_a_question_has_a_length(site: Site, anna: httpx2.AsyncClient) -> None:
    chat = await _conversation(anna)
    for text in ("", "   ", "\x00\u200b", "x" * 4001, "字" * 4001):
        response = await anna.post(f"/api/v1/conversations/{chat}/questions", json={"text": text})
        assert response.status_code == 422
        assert response.headers["content-type"] == "application/problem+json"
    assert site.handler.mentions == []


async def test_a_giant_question_is_not_even_read(anna: httpx2.AsyncClient) -> None:
    chat = await _conversation(anna)
    response = await anna.post(f"/api/v1/conversations/{chat}/questions", json={"text": "x" * 1_000_000})
    assert response.status_code == 413


async def test_what_fails_is_said(site: Site, anna: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    chat = await _conversation(anna)
    site.handler.error = EngineUnavailable("The engine is away; try again later.")
    assert (await _ask(anna, chat, "x"))[-1] == ("error", {"detail": "The engine is away; try again later."})
    site.handler.error = RuntimeError("secret detail")
    name, data = (await _ask(anna, chat, "x"))[-1]
    assert name == "error"
    assert "secret" not in data["detail"]
    assert "secret detail" in caplog.text


async def test_a_person_asks_so_often_a_minute(open_site: OpenSite) -> None:
    async with open_site(web={"questions_per_minute": 3}) as site:
        await site.kvasir.knowledge.create("kb")
        anna, bert = await site.person("anna", Role.OWNER), await site.person("bert", Role.VIEWER)
        chat, other = await _conversation(anna), await _conversation(bert)
        for _ in range(3):
            await _ask(anna, chat, "x")
        response = await anna.post(f"/api/v1/conversations/{chat}/questions", json={"text": "x"})
        assert response.status_code == 429
        assert "3" in response.json()["detail"]
        await _ask(bert, other, "x")


async def test_guests_count_by_address(open_site: OpenSite) -> None:
    async with open_site(web={"anonymous": True, "questions_per_minute": 2}) as site:
        made = [await site.client(peer="192.0.2.1").post("/api/v1/conversations", json={}) for _ in range(3)]
        assert [response.status_code for response in made] == [201, 201, 429]
        guest = site.client(peer="192.0.2.2")
        chat = await _conversation(guest)
        for wanted in (200, 200, 429):
            cookie = {"kvasir_guest": guest.cookies["kvasir_guest"]}
            again = site.client(peer="192.0.2.2", cookies=cookie)
            response = await again.post(f"/api/v1/conversations/{chat}/questions", json={"text": "x"})
            assert response.status_code == wanted


async def test_a_bucket_fills_again(site: Site) -> None:
    at = 0.0
    rate = Rate(site.kvasir.limits, "questions", 6, clock=lambda: at)
    assert [await rate.take("a") for _ in range(6)] == [0.0] * 6
    assert await rate.take("a") == pytest.approx(10)
    at = 10.5
    assert await rate.take("a") == 0
    assert await rate.take("a") > 0
    at = 10_000.0
    assert [await rate.take("a") for _ in range(7)].count(0.0) == 6


async def test_several_processes_let_in_what_one_would(
    open_site: OpenSite, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.work.limits.time", SimpleNamespace(time=lambda: 60_030.0))  # within one minute
    given = {"web": {"anonymous": True, "questions_per_minute": 3}, "database": {"url": database_url}}
    async with open_site(**given) as first, open_site(**given) as second:
        await first.kvasir.knowledge.create("kb")
        for site in (first, second, first):
            site.kvasir.presence.say("web", {})
            await site.kvasir.presence.beat()
        made = [await (first, second)[n % 2].client().post("/api/v1/conversations", json={}) for n in range(6)]
        assert [response.status_code for response in made].count(201) == 3
        refused = next(response for response in made if response.status_code == 429)
        assert refused.headers["retry-after"] == "30"
        other = await second.client(peer="192.0.2.9").post("/api/v1/conversations", json={})
        assert other.status_code == 201
        rate: Rate = first.app.state.conversations
        await second.kvasir.presence.leave()
        await first.kvasir.presence.beat()
        assert await rate.take("address:127.0.0.1") == 0, "alone, what was refused for the sake of others is not lost"


# ---------------------------------------------------------------- other people's things
async def _recorded(site: Site, chat: str, person: str, **more: Any) -> str:
    """An answer as `core/answer.py` keeps it."""
    row = AnswerRow(conversation_id=chat, person=person, platform="web", kbs=["kb"], question="What?",
                    text="**That** [1]", standalone_question="What?", answered=True, **more)  # fmt: skip
    async with site.kvasir.db.session() as session:
        session.add(row)
        await session.execute(update(ConversationRow).where(ConversationRow.id == chat).values(title="What?"))
    return row.id


async def test_conversations_are_their_owners_alone(site: Site, anna: httpx2.AsyncClient) -> None:
    eve = await site.person("eve", Role.ADMIN)
    chat = await _conversation(anna)
    person = (await site.kvasir.accounts.get("anna")).person.key
    answer = await _recorded(site, chat, person)
    mine = await _conversation(eve)
    for method, path, body in (
        ("GET", f"conversations/{chat}", None),
        ("PATCH", f"conversations/{chat}", {"title": "stolen"}),
        ("DELETE", f"conversations/{chat}", None),
        ("GET", f"conversations/{chat}/export.md", None),
        ("POST", f"conversations/{chat}/questions", {"text": "x"}),
        ("POST", f"conversations/{mine}/questions", {"text": "x", "regenerate": answer}),
        ("PUT", f"answers/{answer}/rating", {"value": -1}),
        ("DELETE", f"answers/{answer}/rating", None),
    ):
        response = await eve.request(method, f"/api/v1/{path}", json=body)
        assert response.status_code == 404, (method, path)
    assert (await eve.get("/api/v1/conversations")).json() == {"items": []}
    other = await _conversation(anna)
    response = await anna.post(f"/api/v1/conversations/{other}/questions", json={"text": "x", "regenerate": answer})
    assert response.status_code == 404
    assert site.handler.mentions == []
    assert (await anna.get(f"/api/v1/conversations/{chat}")).json()["exchanges"][0]["answer_id"] == answer


async def test_a_conversation_from_first_to_last(site: Site, anna: httpx2.AsyncClient) -> None:
    chat = await _conversation(anna, kb="kb")
    person = (await site.kvasir.accounts.get("anna")).person.key
    answer = await _recorded(site, chat, person)
    stopped = await _recorded(site, chat, person, state="stopped")
    await _ask(anna, chat, "x", regenerate=stopped)
    assert site.handler.mentions[0].regenerate == stopped
    rated = await anna.put(f"/api/v1/answers/{answer}/rating", json={"value": -1, "reason": "wrong\x00 page"})
    assert rated.json() == {"value": -1, "reason": "wrong page"}
    for wrong in ({"value": 0}, {"value": 2}, {"value": "x"}, {}, {"value": 1, "person": "user:x"}):
        assert (await anna.put(f"/api/v1/answers/{answer}/rating", json=wrong)).status_code == 422
    whole = (await anna.get(f"/api/v1/conversations/{chat}")).json()
    assert whole["kb"] == "kb"
    assert [exchange["state"] for exchange in whole["exchanges"]] == ["complete", "stopped"]
    assert whole["exchanges"][0]["rating"] == {"value": -1, "reason": "wrong page"}
    assert whole["exchanges"][0]["html"] == "<p><strong>That</strong> [1]</p>\n"
    assert (await anna.delete(f"/api/v1/answers/{answer}/rating")).status_code == 204
    assert (await anna.get(f"/api/v1/conversations/{chat}")).json()["exchanges"][0]["rating"] is None

    renamed = await anna.patch(f"/api/v1/conversations/{chat}", json={"title": 'My "leave"\r\nx: y'})
    assert renamed.json()["title"] == 'My "leave" x: y'
    assert (await anna.patch(f"/api/v1/conversations/{chat}", json={"title": ""})).status_code == 422
    assert [item["id"] for item in (await anna.get("/api/v1/conversations")).json()["items"]] == [chat]
    export = await anna.get(f"/api/v1/conversations/{chat}/export.md")
    assert export.headers["content-type"] == "text/markdown; charset=utf-8"
    assert export.headers["content-disposition"].startswith('attachment; filename="My _leave_')
    assert "**That** [1]" in export.text
    assert (await anna.delete(f"/api/v1/conversations/{chat}")).status_code == 204
    assert (await anna.get(f"/api/v1/conversations/{chat}")).status_code == 404


async def test_a_key_that_may_only_ask_asks(site: Site, anna: httpx2.AsyncClient) -> None:
    _, key = await site.kvasir.accounts.create_key("anna", "ask", [Scope.ASK])
    script = site.client(headers={"authorization": f"Bearer {key}"})
    chat = await _conversation(script, kb="kb")
    assert (await _ask(script, chat, "x"))[-1][0] == "finished"
    assert (await script.get("/api/v1/kbs/kb/documents")).status_code == 403
    _, key = await site.kvasir.accounts.create_key("anna", "write", [Scope.WRITE, Scope.READ])
    script = site.client(headers={"authorization": f"Bearer {key}"})
    assert (await script.get("/api/v1/kbs/kb/documents")).status_code == 200
    assert (await script.get("/api/v1/conversations")).status_code == 403
    assert (await script.post(f"/api/v1/conversations/{chat}/questions", json={"text": "x"})).status_code == 403
    assert (await script.put(f"/api/v1/answers/{'a' * 32}/rating", json={"value": 1})).status_code == 403


# ---------------------------------------------------------------- streams that end early
@asynccontextmanager
async def served(site: Site) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = uvicorn.Server(config_of(site.app))
        task = asyncio.create_task(running._serve([listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        running.should_exit = True
        async with asyncio.timeout(10):
            await task


async def _begin(base: str, anna: httpx2.AsyncClient, chat: str) -> tuple[httpx2.AsyncClient, Any]:
    cookies = {"kvasir_session": anna.cookies["kvasir_session"]}
    browser = httpx2.AsyncClient(base_url=base, headers={"origin": base}, cookies=cookies)
    asked = browser.stream("POST", f"/api/v1/conversations/{chat}/questions", json={"text": "x"})
    return browser, asked


async def test_hanging_up_stops_the_answer(site: Site, anna: httpx2.AsyncClient) -> None:
    chat = await _conversation(anna)
    site.handler.words, site.handler.pause = ["word "] * 1000, 0.02
    async with served(site) as base:
        browser, asked = await _begin(base, anna, chat)
        async with browser, asked as response:
            async for line in response.aiter_lines():
                if line == "event: delta":
                    break
        async with asyncio.timeout(5):
            await site.handler.cancelled.wait()
    assert site.app.state.platform._open == {}


async def test_closing_the_server_ends_open_streams(site: Site, anna: httpx2.AsyncClient) -> None:
    chat = await _conversation(anna)
    site.handler.words, site.handler.pause = ["word "] * 1000, 0.02
    async with served(site) as base:
        browser, asked = await _begin(base, anna, chat)
        async with browser, asked as response:
            await site.handler.started.wait()
            site.app.state.closing.set()
            async with asyncio.timeout(5):
                lines = [line async for line in response.aiter_lines()]
    assert "event: finished" not in lines
    assert site.handler.cancelled.is_set()


async def test_a_reader_that_does_not_read_holds_the_engine_back(
    site: Site, anna: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No event is kept without bound, and after a while the reader is given up."""
    monkeypatch.setattr(stream, "_SEND_SECONDS", 0.5)
    chat = await _conversation(anna)
    sent = 0

    class Words(list[str]):
        def __iter__(self) -> Any:
            nonlocal sent
            for _ in range(100_000):
                sent += 1
                yield "x" * 50_000

    site.handler.words = Words()
    async with served(site) as base:
        host, port = base.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        body = json.dumps({"text": "x"})
        head = f"POST /api/v1/conversations/{chat}/questions HTTP/1.1\r\nhost: {host}:{port}\r\norigin: {base}\r\n"
        head += f"cookie: kvasir_session={anna.cookies['kvasir_session']}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        async with asyncio.timeout(10):
            await site.handler.cancelled.wait()
        writer.transport.abort()
        del reader
    assert sent < 1000


async def test_silence_is_filled_with_heartbeats() -> None:
    async def slow() -> Any:
        yield b"a"
        await asyncio.sleep(0.2)
        yield b"b"

    pieces = [piece async for piece in stream.with_heartbeats(slow(), 0.05)]
    assert [pieces[0], pieces[-1]] == [b"a", b"b"]
    assert pieces.count(stream.HEARTBEAT) >= 2


# ---------------------------------------------------------------- with the real handler
async def test_from_an_upload_to_a_rated_answer(open_site: OpenSite) -> None:
    async with open_site() as site:
        real = create_app(site.kvasir, registry.load("kvasir.handlers", "chat")(site.kvasir))
        site.app = real
        await site.kvasir.knowledge.create("kb")
        anna = await site.person("anna", Role.OWNER)
        async with working(site):
            ticket = (await send(anna, part("handbook.md", HANDBOOK) + END)).json()
            assert events((await anna.get(f"/api/v1/jobs/{ticket['job_id']}/events")).text)[-1][0] == "end"
        chat = await _conversation(anna, kb="kb")
        found = await _ask(anna, chat, "How many days of leave does an employee have?")
        finished = found[-1][1]
        assert found[-1][0] == "finished"
        assert "25 days" in finished["text"]
        assert finished["answered"] is True
        assert finished["sources"][0]["document"] == "handbook.md"
        rated = await anna.put(f"/api/v1/answers/{finished['answer_id']}/rating", json={"value": 1})
        assert rated.status_code == 200
        again = await _ask(anna, chat, "How many days of leave?", regenerate=finished["answer_id"])
        assert again[-1][0] == "finished"
        whole = (await anna.get(f"/api/v1/conversations/{chat}")).json()
        assert [exchange["answer_id"] for exchange in whole["exchanges"]] == [again[-1][1]["answer_id"]]
        [item] = (await anna.get("/api/v1/conversations")).json()["items"]
        assert item["title"].startswith("How many days")
