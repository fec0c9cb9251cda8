"""Models over HTTP: who may, what is kept and shown, and how they are tried and changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from core.db.tables import AuditRow, ModelRow
from core.types import Role
from tests.admin.conftest import Site
from tests.fakes.embedding_server import embedding_server
from tests.fakes.llm_server import LlmServer, llm_server

pytestmark = pytest.mark.anyio
KEY = "sk-very-secret-key-0002"
ROOT = "/api/v1/models"


@pytest.fixture
async def admin(site: Site) -> httpx2.AsyncClient:
    return await site.person("astrid", Role.ADMIN)


@pytest.fixture
async def server() -> AsyncIterator[LlmServer]:
    async with llm_server() as running:
        yield running


def given(server: LlmServer, **more: Any) -> dict[str, Any]:
    settings = {"base_url": server.base_url, "model": "tiny"}
    return {"kind": "engine", "name": "ours", "adapter": "openai", "settings": settings, **more}


def trial(server: LlmServer, **more: Any) -> dict[str, Any]:
    return {name: value for name, value in given(server, **more).items() if name != "name"}


async def until_ready(admin: httpx2.AsyncClient, name: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            found: dict[str, Any] = (await admin.get(f"{ROOT}/engine/{name}")).json()
            if found["standing"]["state"] not in ("loading", "idle"):
                return found
            await asyncio.sleep(0.01)


async def test_the_journey_of_an_engine(site: Site, admin: httpx2.AsyncClient, server: LlmServer) -> None:
    tried = await admin.post(
        f"{ROOT}/trials", json={"kind": "engine", "adapter": "openai", "settings": given(server)["settings"]}
    )
    assert (tried.status_code, tried.json()["ok"], tried.json()["text"]) == (200, True, server.text)
    made = await admin.post(ROOT, json=given(server, secrets={"api_key": KEY, "headers": {"X-Team": "skalds"}}))
    assert made.status_code == 201, made.text
    found = await until_ready(admin, "ours")
    assert found["standing"]["state"] == "ready"
    assert sorted(found["secrets"]) == ["api_key", "headers"]
    tested = (await admin.post(f"{ROOT}/engine/ours/test")).json()
    assert tested["ok"]
    assert server.requests[-1].headers["x-team"] == "skalds"
    used = await admin.post(f"{ROOT}/engine/ours/use", json={})
    assert (used.status_code, used.json()["default"]) == (200, True)
    assert (await admin.get("/api/v1/me")).json()["engine"]["name"] == "ours"
    assert (await admin.get("/v1/models")).json()["data"][0] == {
        "id": "tiny", "object": "model", "created": 0, "owned_by": "ours"
    }  # fmt: skip
    assert (await admin.delete(f"{ROOT}/engine/ours")).status_code == 409
    assert (await admin.post(f"{ROOT}/engine/ours/unload")).status_code == 409
    assert (await admin.post(f"{ROOT}/engine/extractive/use", json={})).status_code == 200
    assert (await admin.post(f"{ROOT}/engine/ours/unload")).json()["standing"]["state"] == "off"
    assert (await admin.post(f"{ROOT}/engine/ours/load")).status_code == 202
    log = (await admin.get(f"{ROOT}/engine/ours/log")).json()
    assert log["total"] > 0
    assert (await admin.delete(f"{ROOT}/engine/ours")).status_code == 204
    assert (await admin.get(f"{ROOT}/engine/ours")).status_code == 404


async def test_a_default_is_taken_back(site: Site, admin: httpx2.AsyncClient) -> None:
    assert site.kvasir.models.house().retrieval.reranker == ""
    assert (await admin.post(f"{ROOT}/reranker/sentences/use", json={})).json()["default"]
    assert site.kvasir.models.house().retrieval.reranker == "sentences"
    assert (await admin.delete(f"{ROOT}/reranker/sentences/use")).status_code == 204
    assert site.kvasir.models.house().retrieval.reranker == ""
    assert (await admin.delete(f"{ROOT}/reranker/sentences/use")).status_code == 204
    assert (await admin.delete(f"{ROOT}/reranker/nobody/use")).status_code == 404


async def test_added_models_speak_openais_api(site: Site, admin: httpx2.AsyncClient) -> None:
    async with embedding_server() as server:
        settings = {"base_url": server.base_url, "model": "hash"}
        body = {"kind": "embedder", "name": "theirs", "adapter": "openai", "settings": settings}
        assert (await admin.post(ROOT, json=body)).status_code == 201
        body = {"kind": "engine", "name": "poet", "adapter": "scripted", "settings": {"reply": "Mead."}}
        assert (await admin.post(ROOT, json=body)).status_code == 201
        assert (await admin.post(f"{ROOT}/embedder/theirs/test")).json()["ok"]
        owners = {one["owned_by"]: one["id"] for one in (await admin.get("/v1/models")).json()["data"]}
        assert owners["theirs"] == "hash"
        assert "poet" in owners
        for model in ("theirs", "hash"):
            made = await admin.post("/v1/embeddings", json={"model": model, "input": ["a"]})
            assert len(made.json()["data"][0]["embedding"]) == 64
        assert (await admin.post("/v1/embeddings", json={"model": "nobody", "input": ["a"]})).status_code == 404
        messages = [{"role": "user", "content": "Hello?"}]
        said = await admin.post("/v1/chat/completions", json={"model": "poet", "messages": messages})
        assert said.status_code == 200, said.text


async def test_no_answer_and_no_audit_holds_a_key(site: Site, admin: httpx2.AsyncClient, server: LlmServer) -> None:
    server.mode = "wrong_key"
    said = [await admin.post(ROOT, json=given(server, secrets={"api_key": KEY}))]
    await until_ready(admin, "ours")
    said.append(await admin.post(f"{ROOT}/engine/ours/test"))
    said.append(await admin.patch(f"{ROOT}/engine/ours", json={"secrets": {"api_key": KEY + "-b"}}))
    said.append(await admin.patch(f"{ROOT}/engine/ours", json={"secrets": {"api_key": {"a": KEY}}}))
    said.append(await admin.patch(f"{ROOT}/engine/ours", json={"settings": {"api_key": KEY}}))
    said.append(await admin.post(f"{ROOT}/trials", json=trial(server, secrets={"api_key": KEY})))
    said += [await admin.get(path) for path in (ROOT, f"{ROOT}/engine/ours", f"{ROOT}/engine/ours/log")]
    assert KEY not in "".join(response.text for response in said)
    async with site.kvasir.db.read() as session:
        changes = [str(row.changes) for row in await session.scalars(select(AuditRow))]
        rows = [row.secrets + str(row.settings) for row in await session.scalars(select(ModelRow))]
    assert any("ours" in change for change in changes)
    assert KEY not in "".join(changes + rows)


async def test_what_is_wrong_stands_beside_its_field(admin: httpx2.AsyncClient, server: LlmServer) -> None:
    refused = await admin.post(ROOT, json=given(server) | {"settings": {"base_url": "nonsense", "model": "m"}})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "base_url"
    refused = await admin.post(ROOT, json=given(server, name="kb:x"))
    assert refused.json()["errors"][0]["field"] == "name"
    refused = await admin.post(ROOT, json=given(server, adapter="os.system"))
    assert refused.json()["errors"][0]["field"] == "adapter"
    assert (await admin.post(ROOT, json=given(server))).status_code == 201
    assert (await admin.post(ROOT, json=given(server))).status_code == 409
    assert (await admin.patch(f"{ROOT}/engine/extractive", json={"settings": {}})).status_code == 404


async def test_nothing_odd_gets_through(admin: httpx2.AsyncClient, server: LlmServer) -> None:
    good = given(server)["settings"]
    odd: list[dict[str, Any]] = [
        {"name": "a\ud800"}, {"name": "a\0"}, {"adapter": "\ud800"}, {"adapter": "openai\0"},
        {"settings": {**good, "model": "\ud800"}}, {"settings": {**good, "model": "a\0"}}, {"settings": {"\ud800": 1}},
        {"settings": {**good, "token_timeout_seconds": float("inf")}}, {"settings": {**good, "parallel": 10**30}},
        {"secrets": {"api_key": "a\ud800"}}, {"secrets": {"\ud800": "a"}}, {"secrets": {"headers": {"a\ud800": "b"}}},
        {"secrets": {"headers": {"a b": "c"}}}, {"secrets": {"headers": {"a": "é\u4e2d"}}},
        {"secrets": {"api_key": "é\u4e2d"}}, {"secrets": {"api_key": " a"}},
        {"secrets": {"model": "a"}}, {"settings": {**good, "headers": {"a": "b"}}}, {"kind": "os"},
    ]  # fmt: skip
    headers = {"content-type": "application/json"}
    for change in odd:
        answer = await admin.post(ROOT, content=json.dumps(given(server, **change)).encode(), headers=headers)
        assert answer.status_code == 422, (change, answer.status_code, answer.text)
    for path in ("engine/%ED%A0%80", "engine/%00", "os/x", "engine/" + "x" * 65):
        assert (await admin.get(f"{ROOT}/{path}")).status_code in (404, 422)
    assert (await admin.get(f"{ROOT}?kind=engine")).json()["total"] == 1


async def test_the_forms_of_the_adapters(admin: httpx2.AsyncClient) -> None:
    found = {(one["kind"], one["name"]): one for one in (await admin.get(f"{ROOT}/adapters")).json()["items"]}
    assert {("engine", "extractive"), ("engine", "openai"), ("embedder", "builtin"), ("embedder", "openai")} <= set(
        found
    )
    fields = {field["name"]: field for field in found["engine", "openai"]["fields"]}
    assert fields["api_key"]["kind"] == "secret"
    assert fields["headers"]["is_secret"]
    assert fields["base_url"]["is_needed"]
    assert fields["provider"]["choices"][0] == "auto"
    assert {"openai", "ollama", "dashscope"} <= {one["name"] for one in found["engine", "openai"]["presets"]}
    names = {field["name"] for field in found["embedder", "builtin"]["fields"]}
    assert names == {"model_dir", "fetch", "threads", "pooling", "query_prefix", "document_prefix", "cache"}
    assert "bge-small-zh-v1.5" in {one["name"] for one in found["embedder", "builtin"]["presets"]}
    assert {field["name"] for field in found["engine", "tiangong"]["fields"] if field["is_secret"]} == {
        "app_key",
        "app_secret",
    }
    names = {field["name"] for field in found["reranker", "cross-encoder"]["fields"]}
    assert names == {"model_dir", "threads"}
    assert found["reranker", "sentences"]["fields"] == []
    assert {"cohere", "jina", "tei"} <= {one["name"] for one in found["reranker", "http"]["presets"]}


async def test_models_are_for_administrators(site: Site, server: LlmServer) -> None:
    for role in (Role.EDITOR, Role.REVIEWER, Role.VIEWER):
        browser = await site.person(f"a-{role}", role)
        calls = [
            browser.get(ROOT), browser.get(f"{ROOT}/adapters"), browser.post(ROOT, json=given(server)),
            browser.post(f"{ROOT}/trials", json=trial(server)), browser.get(f"{ROOT}/engine/extractive/log"),
            browser.post(f"{ROOT}/engine/extractive/test"), browser.post(f"{ROOT}/engine/extractive/use", json={}),
        ]  # fmt: skip
        assert {(await call).status_code for call in calls} == {403}
    assert server.requests == []
