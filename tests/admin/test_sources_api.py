"""Sources over HTTP: who may keep which, what is shown of them, and that no secret comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import update

from core.db.tables import KbGrantRow, UserRow
from core.types import Role
from core.work.jobs import run_job
from tests.admin.conftest import OpenSite, Site

pytestmark = pytest.mark.anyio


@pytest.fixture
async def site(open_site: OpenSite, tmp_path: Path) -> AsyncIterator[Site]:
    (tmp_path / "shelf").mkdir()
    sources = {"private_hosts": ["127.0.0.1"], "delay_seconds": 0, "folders": [str(tmp_path / "shelf")]}
    async with open_site(sources=sources) as made:
        await made.kvasir.knowledge.create("open")
        await made.kvasir.knowledge.create("closed", private=True)
        yield made


async def work_off(site: Site) -> None:
    while (job := await site.kvasir.jobs.claim()) is not None:
        await run_job(site.kvasir.jobs, job, site.kvasir.run_job)


async def test_a_source_from_a_look_at_it_to_its_end(site: Site, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/tea").respond_with_data("<p>Tea is served at four.</p>", content_type="text/html")
    address = f"http://127.0.0.1:{httpserver.port}/tea"
    editor = await site.person("ed", Role.EDITOR)
    given = {"kb": "open", "kind": "url", "settings": {"urls": [address]}}
    look = await editor.post("/api/v1/sources/preview", json=given)
    assert look.json() == {
        "items": [{"name": address, "address": address}], "total": 1, "is_complete": True, "notes": [], "problem": "",
    }  # fmt: skip
    assert (await editor.get("/api/v1/sources")).json()["total"] == 0

    made = await editor.post("/api/v1/sources", json={**given, "name": "Menu"})
    assert made.status_code == 201, made.text
    where = f"/api/v1/sources/{made.json()['id']}"
    planned = await editor.put(f"{where}/schedule", json={"cron": "daily", "timezone": "Asia/Shanghai"})
    assert planned.json()["schedule"]["when"] == "every day at 03:00"
    planned = await editor.put(f"{where}/schedule", json={"cron": "hourly"})
    assert planned.json()["schedule"]["next_at"]

    started = await editor.post(f"{where}/sync")
    assert started.status_code == 202
    assert (await editor.get(where)).json()["state"] == "queued"
    assert (await editor.post(f"{where}/sync")).status_code == 409
    await work_off(site)
    shown = (await editor.get("/api/v1/sources", params={"kb": "open"})).json()["items"][0]
    assert (shown["state"], shown["documents"], shown["job_id"]) == ("done", 1, None)
    runs = (await editor.get(f"{where}/runs")).json()
    assert (runs["total"], runs["items"][0]["about"]) == (1, "Source «Menu»")
    assert runs["items"][0]["result"].startswith("1 new")

    changed = await editor.patch(where, json={"name": "Tea", "settings": {"urls": [address, f"{address}?x"]}})
    assert (changed.json()["name"], len(changed.json()["settings"]["urls"])) == ("Tea", 2)
    assert (await editor.delete(f"{where}/schedule")).json()["schedule"] is None
    assert (await editor.delete(where, params={"documents": True})).json() == {"documents": 1}
    assert (await editor.get(where)).status_code == 404


async def test_what_reads_the_servers_files_or_holds_a_token_is_for_administrators(site: Site, tmp_path: Path) -> None:
    admin, editor = await site.person("ada", Role.ADMIN), await site.person("ed", Role.EDITOR)
    folder = {"kb": "open", "name": "Shelf", "kind": "folder", "settings": {"path": str(tmp_path / "shelf")}}
    secret = {
        "kb": "open", "name": "Code", "kind": "git", "settings": {"url": "https://git.example/x"}, "token": "t0ken",
    }  # fmt: skip
    for given in (folder, secret):
        assert (await editor.post("/api/v1/sources", json=given)).status_code == 403
        looked = {key: value for key, value in given.items() if key != "name"}
        assert (await editor.post("/api/v1/sources/preview", json=looked)).status_code == 403
    made = await admin.post("/api/v1/sources", json=folder)
    where = f"/api/v1/sources/{made.json()['id']}"
    assert (await editor.patch(where, json={"settings": {"path": "/"}})).status_code == 403
    assert (await editor.post(f"{where}/preview", json={})).status_code == 403
    assert (await admin.patch(where, json={"settings": {"path": "/"}})).status_code == 403
    kinds = {item["kind"]: item["problem"] for item in (await editor.get("/api/v1/sources/kinds")).json()["items"]}
    assert "administrators" in kinds["folder"]
    assert (await admin.get("/api/v1/sources/kinds")).json()["folders"] == [str(tmp_path / "shelf")]

    made = await admin.post("/api/v1/sources", json=secret)
    assert made.status_code == 201, made.text
    assert made.json()["has_token"]
    for answer in (made, await admin.get("/api/v1/sources"), await admin.get(f"/api/v1/sources/{made.json()['id']}")):
        assert "t0ken" not in answer.text
    entries, _ = await site.kvasir.audit.list()
    assert "t0ken" not in repr(entries)
    moved = await editor.patch(
        f"/api/v1/sources/{made.json()['id']}", json={"settings": {"url": "https://thief.example/x"}}
    )
    assert not moved.json()["has_token"]


async def test_nobody_sees_or_touches_sources_of_a_knowledge_base_they_may_not_edit(site: Site) -> None:
    admin, editor = await site.person("ada", Role.ADMIN), await site.person("ed", Role.EDITOR)
    viewer = await site.person("vi", Role.VIEWER)
    async with site.kvasir.db.session() as session:
        user = await session.scalar(update(UserRow).filter_by(name="ed").values(everywhere=False).returning(UserRow.id))
        kb = await site.kvasir.knowledge.get("open")
        session.add(KbGrantRow(kb_id=kb.id, person=f"user:{user}", right="edit"))
    given = {"kb": "closed", "name": "Menu", "kind": "url", "settings": {"urls": ["http://127.0.0.1:9/"]}}
    made = await admin.post("/api/v1/sources", json=given)
    where = f"/api/v1/sources/{made.json()['id']}"
    answers = [
        await editor.get(where),
        await editor.get(f"{where}/runs"),
        await editor.patch(where, json={"name": "Mine"}),
        await editor.delete(where),
        await editor.post(f"{where}/sync"),
        await editor.post(f"{where}/preview", json={}),
        await editor.put(f"{where}/schedule", json={"cron": "daily"}),
        await editor.delete(f"{where}/schedule"),
        await editor.post("/api/v1/sources", json=given),
        await editor.post("/api/v1/sources/preview", json={key: given[key] for key in ("kb", "kind", "settings")}),
        await editor.get("/api/v1/sources", params={"kb": "closed"}),
        await admin.get("/api/v1/sources/none"),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert (await editor.get("/api/v1/sources")).json()["total"] == 0
    assert (await viewer.get("/api/v1/sources")).status_code == 403
    assert (await viewer.get(where)).status_code == 403
