"""Documents, their chunks and versions over HTTP: what each role may do, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2
import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import update

from core import egress
from core.db.tables import UserRow
from core.types import Role
from core.work.jobs import run_job
from tests.admin.conftest import Site

pytestmark = pytest.mark.anyio


@pytest.fixture
def parser_here() -> None:
    """Here files come from outside, and are read as they are in service: by processes of their own."""


API = "/api/v1"
TEA = "# Tea\n\nTea is at four.\n"


async def put(site: Site, browser: httpx2.AsyncClient, files: Mapping[str, str], kb: str = "kb") -> None:
    """Upload these and wait until they are searched."""
    sent = [("files", (name, text.encode())) for name, text in files.items()]
    response = await browser.post(f"{API}/kbs/{kb}/documents", files=sent)
    assert response.status_code == 202, response.text
    await work_off(site)


async def work_off(site: Site) -> None:
    while (job := await site.kvasir.jobs.claim()) is not None:
        await run_job(site.kvasir.jobs, job, site.kvasir.run_job)


async def got(browser: httpx2.AsyncClient, path: str, **params: Any) -> Any:
    response = await browser.get(API + path, params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def done(response: httpx2.Response) -> Any:
    assert response.status_code in (200, 201), response.text
    return response.json()


@pytest.fixture
async def anna(site: Site) -> httpx2.AsyncClient:
    await site.kvasir.knowledge.create("kb", chunk_size=64, chunk_overlap=0)
    await site.kvasir.knowledge.create("attic")
    await site.kvasir.knowledge.create("secret", private=True)
    return await site.person("anna", Role.EDITOR)


async def test_a_folder_comes_in_and_is_looked_after(site: Site, anna: httpx2.AsyncClient) -> None:
    await put(site, anna, {"house/tea.md": TEA, "house/copy/tea.md": TEA, "empty.md": ""})
    listed = await got(anna, "/kbs/kb/documents")
    assert [(item["name"], item["status"], item["by"], item["copies"]) for item in listed["items"]] == [
        ("empty.md", "failed", "anna", 0),
        ("house/copy/tea.md", "indexed", "anna", 1),
        ("house/tea.md", "indexed", "anna", 1),
    ]
    twice = await got(anna, "/kbs/kb/documents", duplicates=True, sort="updated_at", descending=True, limit=1)
    assert (twice["total"], len(twice["items"])) == (2, 1)
    summary = await got(anna, "/kbs/kb/documents/summary")
    assert (summary["documents"], summary["duplicates"], summary["bytes"]) == (3, 2, 2 * len(TEA))
    tea = listed["items"][2]
    whole = await got(anna, f"/documents/{tea['id']}")
    assert [one["name"] for one in whole["same"]] == ["house/copy/tea.md"]
    changes = f"{API}/kbs/kb/documents/changes"
    again = await done(await anna.post(changes, json={"change": "retry", "all": {"status": "failed"}}))
    assert (again["done"], again["left_out_total"]) == (1, 0)
    left = await done(await anna.post(changes, json={"change": "enable", "ids": [tea["id"]]}))
    assert (left["done"], left["left_out"][0]["name"], bool(left["left_out"][0]["reason"])) == (0, "house/tea.md", True)
    moved = await done(await anna.post(changes, json={"change": "move", "ids": [tea["id"]], "into": "attic"}))
    assert moved["done"] == 1
    await work_off(site)
    assert [item["name"] for item in (await got(anna, "/kbs/attic/documents"))["items"]] == ["house/tea.md"]
    gone = await done(await anna.post(changes, json={"change": "delete", "all": {}}))
    assert gone["done"] == 2
    assert (await got(anna, "/kbs/kb/documents"))["total"] == 0


async def test_a_chunk_is_bettered_and_searched_at_once(site: Site, anna: httpx2.AsyncClient) -> None:
    await put(site, anna, {"tea.md": TEA})
    (tea,) = (await got(anna, "/kbs/kb/documents"))["items"]
    path = f"{API}/documents/{tea['id']}"
    (chunk,) = (await got(anna, f"/documents/{tea['id']}/text"))["items"]
    assert (chunk["text"], chunk["override"], chunk["tokens"] > 3) == ("Tea is at four.", None, True)
    stale = await anna.patch(f"{path}/chunks/0", json={"seen": "0" * 40, "text": "Mine."})
    assert stale.status_code == 409
    edited = {"seen": chunk["content_hash"], "text": "Tea is at <b>five</b>."}
    state = await done(await anna.patch(f"{path}/chunks/0", json=edited))
    assert (state["status"], state["changes"]) == ("indexed", 1)
    (chunk,) = (await got(anna, f"/documents/{tea['id']}/text"))["items"]
    assert chunk["override"]["original"] == "Tea is at four."
    assert "five" in (await site.kvasir.retriever.retrieve("tea at five", ["kb"], limit=1)).passages[0].text
    new = {"after": 0, "seen": chunk["content_hash"], "text": "Cake is on Fridays."}
    assert (await done(await anna.post(f"{path}/chunks", json=new)))["chunks"] == 2
    off = await anna.delete(f"{path}/chunks/0", params={"seen": chunk["content_hash"]})
    assert (await done(off))["chunks"] == 1
    shown = (await got(anna, f"/documents/{tea['id']}/text"))["items"]
    assert [(one["number"], one["text"]) for one in shown] == [(None, "Tea is at four."), (0, "Cake is on Fridays.")]
    for change in (await got(anna, f"/documents/{tea['id']}/overrides"))["items"]:
        assert change["by"] == "anna"
        await done(await anna.delete(f"{path}/overrides/{change['id']}"))
    assert [one["text"] for one in (await got(anna, f"/documents/{tea['id']}/text"))["items"]] == ["Tea is at four."]
    assert (await anna.delete(f"{path}/overrides/{'0' * 32}")).status_code == 404


async def test_a_former_version_is_given_out_and_restored(site: Site, anna: httpx2.AsyncClient) -> None:
    await put(site, anna, {"tea.md": TEA})
    await put(site, anna, {"tea.md": "# Tea\n\nTea is at nine.\n"})
    (tea,) = (await got(anna, "/kbs/kb/documents"))["items"]
    (version,) = (await got(anna, f"/documents/{tea['id']}/versions"))["items"]
    assert (version["number"], version["by"]) == (1, "anna")
    response = await anna.get(f"{API}/documents/{tea['id']}/versions/1/original")
    assert (response.text, response.headers["content-type"]) == (TEA, "application/octet-stream")
    assert response.headers["content-disposition"].startswith("attachment;")
    state = await done(await anna.post(f"{API}/documents/{tea['id']}/versions/1/restore"))
    assert (state["status"], state["versions"]) == ("indexed", 1)
    assert (await got(anna, f"/documents/{tea['id']}/text"))["items"][0]["text"] == "Tea is at four."
    assert (await anna.post(f"{API}/documents/{tea['id']}/versions/1/restore")).status_code == 404


async def test_a_page_of_the_web_is_fetched(
    site: Site, anna: httpx2.AsyncClient, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    httpserver.expect_request("/tea").respond_with_data("<h1>Tea</h1><p>Tea is at four.</p>", content_type="text/html")
    address = httpserver.url_for("/tea")
    refused = await anna.post(f"{API}/kbs/kb/documents/url", json={"url": address})
    assert refused.status_code == 403  # protection: nothing inside a private network is fetched
    genuine = egress.is_public
    monkeypatch.setattr(egress, "is_public", lambda found: found.is_loopback or genuine(found))
    sent = await anna.post(f"{API}/kbs/kb/documents/url", json={"url": address})
    assert sent.status_code == 202, sent.text
    await work_off(site)
    (page,) = (await got(anna, "/kbs/kb/documents", source="web"))["items"]
    assert (page["source"], page["status"], page["by"]) == (address, "indexed", "anna")
    assert (await anna.post(f"{API}/kbs/kb/documents/url", json={"url": "file:///etc/passwd"})).status_code == 422


async def test_documents_of_a_cancelled_job_end_and_can_be_tried_again(site: Site, anna: httpx2.AsyncClient) -> None:
    """Protection: they would wait for a job that never comes."""
    sent = await anna.post(f"{API}/kbs/kb/documents", files=[("files", ("tea.md", TEA.encode()))])
    await site.kvasir.cancel_job(sent.json()["job_id"])
    (tea,) = (await got(anna, "/kbs/kb/documents"))["items"]
    assert (tea["status"], bool(tea["reason"])) == ("failed", True)
    await site.kvasir.retry_job(sent.json()["job_id"])
    await work_off(site)
    assert (await got(anna, f"/documents/{tea['id']}"))["status"] == "indexed"


async def test_readers_change_nothing_and_strangers_find_nothing(site: Site, anna: httpx2.AsyncClient) -> None:
    """Protection: each route asks for the right to the document's knowledge base, and for both of a move."""
    owner = await site.person("olaf", Role.OWNER)
    await put(site, anna, {"tea.md": TEA})
    await put(site, owner, {"plan.md": "# Plan\n\nIt is secret.\n"}, "secret")
    tea = (await got(anna, "/kbs/kb/documents"))["items"][0]["id"]
    plan = (await got(owner, "/kbs/secret/documents"))["items"][0]["id"]
    vera = await site.person("vera", Role.VIEWER)
    for path in ("", "/text", "/overrides", "/versions"):
        await got(vera, f"/documents/{tea}{path}")
    writes: list[tuple[str, str, dict[str, Any]]] = [
        ("PATCH", "chunks/0", {"json": {"seen": "", "text": "x"}}),
        ("DELETE", "chunks/0", {"params": {"seen": ""}}),
        ("POST", "chunks", {"json": {"text": "x"}}),
        ("DELETE", f"overrides/{'0' * 32}", {}),
        ("POST", "versions/1/restore", {}),
    ]
    for method, path, given in writes:
        assert (await vera.request(method, f"{API}/documents/{tea}/{path}", **given)).status_code == 403
    changes = {"change": "delete", "ids": [tea]}
    assert (await vera.post(f"{API}/kbs/kb/documents/changes", json=changes)).status_code == 403
    assert (await vera.post(f"{API}/kbs/kb/documents/url", json={"url": "https://example.org"})).status_code == 403
    erik = await site.person("erik", Role.EDITOR)
    user = await site.kvasir.accounts.get("erik")
    await restrict(site, user.id)
    for path in ("", "/text", "/overrides", "/versions", "/versions/1/original"):
        assert (await erik.get(f"{API}/documents/{plan}{path}")).status_code == 404
    for method, path, given in writes:
        assert (await erik.request(method, f"{API}/documents/{plan}/{path}", **given)).status_code == 404
    assert (await erik.post(f"{API}/kbs/secret/documents/changes", json=changes)).status_code == 404
    hidden = {"change": "delete", "ids": [plan]}
    assert (await done(await anna.post(f"{API}/kbs/kb/documents/changes", json=hidden)))["done"] == 0
    assert (await got(owner, "/kbs/secret/documents"))["total"] == 1


async def restrict(site: Site, user_id: str) -> None:
    async with site.kvasir.db.session() as session:
        await session.execute(update(UserRow).where(UserRow.id == user_id).values(everywhere=False))


@pytest.mark.parametrize(
    "given",
    [
        {"change": "delete"},
        {"change": "delete", "ids": ["x"]},
        {"change": "explode", "all": {}},
        {"change": "delete", "ids": ["0" * 32], "all": {}},
        {"change": "delete", "all": {"kb_id": "x"}},
        {"change": "delete", "ids": ["0" * 32] * 1001},
    ],
)
async def test_what_makes_no_sense_is_refused(anna: httpx2.AsyncClient, given: dict[str, Any]) -> None:
    assert (await anna.post(f"{API}/kbs/kb/documents/changes", json=given)).status_code == 422


async def test_a_list_takes_no_nonsense(anna: httpx2.AsyncClient) -> None:
    for params in ({"sort": "content_hash"}, {"limit": 501}, {"offset": -1}, {"status": "x" * 17}):
        assert (await anna.get(f"{API}/kbs/kb/documents", params=params)).status_code == 422
    assert (await got(anna, "/kbs/kb/documents", text="\x00", kind="'; DROP TABLE documents"))["total"] == 0
