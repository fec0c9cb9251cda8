"""Knowledge bases over HTTP: what can be set, who was let in, indexes beside the live one, and taking one elsewhere."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest

from core.access import OPERATOR
from core.db.tables import CuratedRow, now
from core.indexing.ingest import Incoming
from core.quality.evaluate import Line
from core.types import Role
from core.work.jobs import run_job
from tests.admin.conftest import OpenSite, Site
from tests.admin.test_security import END, MULTIPART, part

pytestmark = pytest.mark.anyio

KB = "/api/v1/kbs/kb"
LONG = "\n\n".join(f"Paragraph {n} is about the tide table, and takes some words to say so." for n in range(12))


@pytest.fixture
async def anna(site: Site) -> httpx2.AsyncClient:
    await site.kvasir.knowledge.create("kb", description="All we know")
    await bring(site, {f"{n}.md": f"# Paper {n}\n\nIt says {n}.\n\n{LONG}" for n in range(3)})
    return await site.person("anna", Role.OWNER)


async def bring(site: Site, files: dict[str, str]) -> None:
    async def incoming() -> Any:
        for name, text in files.items():
            yield Incoming(name, text.encode)

    ticket = await site.kvasir.ingest.submit("kb", incoming(), claimed=True)
    await run_job(site.kvasir.jobs, ticket.job, site.kvasir.run_job)


async def work_off(site: Site) -> None:
    while (job := await site.kvasir.jobs.claim()) is not None:
        await run_job(site.kvasir.jobs, job, site.kvasir.run_job)


# ---------------------------------------------------------------- settings
async def test_settings_are_seen_with_what_stands_there_by_default_and_changed(
    site: Site, anna: httpx2.AsyncClient
) -> None:
    found = (await anna.get(f"{KB}/settings")).json()
    assert found["values"]["top_k"] is None
    assert found["defaults"]["top_k"] == 5
    assert "extractive" in found["choices"]["engine"]
    assert (found["can_change"], found["needs_reindex"]) == (True, False)
    sent = {"top_k": 9, "min_evidence": 0.2, "mode": "keyword", "engine": "extractive", "chunk_size": 64}
    changed = await anna.patch(KB, json=sent | {"chunk_overlap": 0, "instructions": "Be brief."})
    assert changed.status_code == 200, changed.text
    values = changed.json()["values"]
    assert sent.items() <= values.items()
    assert values["description"] == "All we know"  # what is not sent stays
    assert changed.json()["needs_reindex"]
    assert (await anna.patch(KB, json={"top_k": None})).json()["values"]["top_k"] is None
    assert (found["values"]["fallbacks"], found["defaults"]["fallbacks"]) == (None, [])
    changed = await anna.patch(KB, json={"fallbacks": ["extractive"]})
    assert changed.json()["values"]["fallbacks"] == ["extractive"]
    assert (await anna.patch(KB, json={"fallbacks": ["nobody"]})).status_code == 422


NONSENSE: Sequence[tuple[dict[str, Any], str]] = [
    ({"engine": "absent"}, "absent"),
    ({"top_k": 51}, "top_k"),
    ({"chunk_size": 40, "chunk_overlap": 39}, "overlap"),
    ({"chunk_size": None}, "chunk_size"),
    ({"live_generation_id": "x"}, "live_generation_id"),
    ({"name": "other"}, "name"),
]


async def test_nonsense_is_refused_in_a_sentence(anna: httpx2.AsyncClient) -> None:
    before = (await anna.get(f"{KB}/settings")).json()["values"]
    for sent, says in NONSENSE:
        refused = await anna.patch(KB, json={"description": "New"} | sent)
        assert refused.status_code == 422, sent
        assert says in refused.json()["detail"]
        assert (await anna.get(f"{KB}/settings")).json()["values"] == before


async def test_a_page_of_them_and_what_would_be_lost(site: Site, anna: httpx2.AsyncClient) -> None:
    for name in ("b", "c"):
        await site.kvasir.knowledge.create(name, description="Tea" if name == "b" else "")
    page = (await anna.get("/api/v1/kbs", params={"limit": 2})).json()
    assert ([kb["name"] for kb in page["items"]], page["total"]) == (["b", "c"], 3)
    assert [kb["name"] for kb in (await anna.get("/api/v1/kbs", params={"text": "tea"})).json()["items"]] == ["b"]
    found = (await anna.get(KB)).json()
    assert (found["documents"], found["waiting"], found["failed"]) == (3, 0, 0)
    assert found["size"] > 0
    await anna.put(f"{KB}/grants/slack:T1:U9", json={})
    lost = (await anna.get(f"{KB}/contents")).json()
    assert (lost["documents"], lost["grants"], lost["curated"], lost["sources"]) == (3, 1, 0, 0)
    assert lost["chunks"] == found["chunks"]


async def test_a_name_that_is_taken_is_said_to_be(anna: httpx2.AsyncClient) -> None:
    """Protection: what the database refuses for its own reasons was told as trouble with the database."""
    refused = await anna.post("/api/v1/kbs", json={"name": "kb"})
    assert refused.status_code == 409
    assert "«kb»" in refused.json()["detail"]


# ---------------------------------------------------------------- who may
async def test_people_are_let_in_with_a_right_and_out_again(site: Site, anna: httpx2.AsyncClient) -> None:
    ben = await site.person("ben", Role.EDITOR)
    await site.kvasir.people.change(OPERATOR, "ben", everywhere=False)
    await anna.patch(KB, json={"private": True})
    assert (await ben.get(KB)).status_code == 404
    assert (await anna.put(f"{KB}/grants/ben", json={"right": "ask"})).json()["name"] == "ben"
    assert (await ben.get(KB)).json()["can_edit"] is False
    assert (await anna.put(f"{KB}/grants/ben", json={"right": "edit"})).status_code == 200
    assert (await ben.get(KB)).json()["can_edit"] is True
    assert (await ben.get(f"{KB}/settings")).json()["can_change"] is False
    assert (await ben.patch(KB, json={"private": False})).status_code == 403
    await anna.put(f"{KB}/grants/slack:T1:*", json={})
    listed = (await anna.get(f"{KB}/grants")).json()
    assert [(one["person"][:5], one["right"]) for one in listed["items"]] == [("slack", "ask"), ("user:", "edit")]
    assert listed["total"] == 2
    assert (await anna.delete(f"{KB}/grants/{listed['items'][1]['person']}")).status_code == 204
    assert (await ben.get(KB)).status_code == 404
    assert (await anna.delete(f"{KB}/grants/ben")).status_code == 404
    refused = await anna.put(f"{KB}/grants/slack:T1:U9", json={"right": "edit"})
    assert refused.status_code == 422
    assert (await anna.put(f"{KB}/grants/nobody", json={})).status_code == 422


# ---------------------------------------------------------------- indexes
async def test_an_index_is_built_compared_switched_to_and_back(site: Site, anna: httpx2.AsyncClient) -> None:
    made = await site.kvasir.evaluations.create("kb", "tides")
    await site.kvasir.evaluations.add(made.id, Line("What does paper 2 say?", (), "2.md"))
    await anna.patch(KB, json={"chunk_size": 64, "chunk_overlap": 0})
    started = await anna.post(f"{KB}/indexes", json={})
    assert started.status_code == 202
    assert (await anna.post(f"{KB}/indexes", json={})).status_code == 409
    before = (await anna.get(f"{KB}/indexes")).json()
    assert (before["job"]["id"], [one["state"] for one in before["items"]]) == (started.json()["id"], ["live"])
    await work_off(site)
    assert (await anna.get(KB)).json()["indexes"] == ["ready"]
    found = (await anna.get(f"{KB}/indexes")).json()
    live, ready = found["items"]
    assert (found["job"], found["failure"], ready["state"]) == (None, "", "ready")
    assert ready["counted"]["chunks"] > ready["live_then"]["chunks"] > 0
    assert [one["measured"][0]["figures"]["n"] for one in (live, ready)] == [1, 1]
    switched = await anna.post(f"{KB}/indexes/{ready['id']}/switch", json={})
    assert (switched.status_code, switched.json()) == (200, {"job_id": None})
    await bring(site, {"late.md": "# Late\n\nIt came after the switch."})
    late = await anna.post(f"{KB}/indexes/{live['id']}/switch", json={})
    assert late.status_code == 202
    await work_off(site)
    await site.kvasir.run_job(await site.kvasir.jobs.get(late.json()["job_id"]))  # as after a worker's death
    items = (await anna.get(f"{KB}/indexes")).json()["items"]
    assert [(one["id"], one["state"]) for one in items] == [(live["id"], "live"), (ready["id"], "former")]
    assert items[0]["documents"] == 4
    assert (await anna.delete(f"{KB}/indexes/{live['id']}")).status_code == 409
    assert (await anna.delete(f"{KB}/indexes/{ready['id']}")).status_code == 204
    for gone in (ready["id"], "0" * 32, "x"):
        assert (await anna.post(f"{KB}/indexes/{gone}/switch", json={})).status_code == 404
        assert (await anna.delete(f"{KB}/indexes/{gone}")).status_code == 404


async def test_one_that_waits_is_given_up_with_its_job(site: Site, anna: httpx2.AsyncClient) -> None:
    await anna.patch(KB, json={"chunk_size": 64, "chunk_overlap": 0})
    await site.kvasir.indexes.begin("kb", beside=True)
    job = (await anna.post(f"{KB}/indexes", json={})).json()["id"]
    building = (await anna.get(f"{KB}/indexes")).json()["items"][1]
    assert (building["state"], building["counted"]) == ("building", None)
    assert (await anna.delete(f"{KB}/indexes/{building['id']}")).status_code == 204
    assert (await site.kvasir.jobs.get(job)).state == "cancelled"
    assert (await anna.get(f"{KB}/indexes")).json()["failure"] == ""


# ---------------------------------------------------------------- elsewhere and back
async def exported(anna: httpx2.AsyncClient) -> bytes:
    response = await anna.get(f"{KB}/export")
    assert response.status_code == 200
    assert response.headers["content-disposition"].startswith('attachment; filename="kb.kvasir.zip"')
    return response.content


async def brought_in(anna: httpx2.AsyncClient, data: bytes, name: str = "") -> httpx2.Response:
    return await anna.post(
        f"/api/v1/kbs/import?name={name}",
        content=part("kb.zip", data) + END,
        headers=MULTIPART,
    )


async def test_one_goes_out_and_comes_in_under_another_name(site: Site, anna: httpx2.AsyncClient) -> None:
    data = await exported(anna)
    assert (await brought_in(anna, data)).status_code == 409
    made = await brought_in(anna, data, "copy")
    assert made.status_code == 202, made.text
    assert (made.json()["name"], made.json()["documents"]) == ("copy", 3)
    await work_off(site)
    found = (await anna.get("/api/v1/kbs/copy")).json()
    original = (await anna.get(KB)).json()
    assert (found["documents"], found["chunks"]) == (original["documents"], original["chunks"]) == (3, found["chunks"])
    data_dir = site.kvasir.settings.data_dir
    assert not await asyncio.to_thread(lambda: list(data_dir.glob("import-*")))


def manifest_of(data: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found: dict[str, Any] = json.loads(archive.read("manifest.json"))
        return found


def forged(data: bytes, **changes: Any) -> bytes:
    """The same archive with something else in its manifest."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            if name != "manifest.json":
                archive.writestr(name, source.read(name))
        archive.writestr("manifest.json", json.dumps(manifest_of(data) | changes))
    return target.getvalue()


FORGED: Sequence[dict[str, Any]] = [
    {"documents": [{"name": "a.md", "hash": "absent"}]},
    {"documents": 5},
    {"documents": [5]},
    {"kb": {"name": "../kb"}},
    {"kb": {"name": "x", "chunk_size": "many"}},
    {"overrides": [{"document": "0.md", "action": "run", "original": "", "text": ""}]},
    {"overrides": [5]},
    {"sources": [{"name": "s", "kind": "shell", "settings": {}}]},
    {"sources": [{"name": "s", "kind": "git", "settings": 5}]},
    {"curated": [{"question": 5, "paraphrases": [], "text": "", "state": "active", "document": None}]},
    {"curated": [{"question": "q", "paraphrases": [], "text": "t", "state": "best", "document": None}]},
    {"evaluation_sets": [{"name": "s", "questions": [{"question": "q" * 9999, "answers": [], "document": ""}]}]},
    {"format": 2},
]


async def test_a_forged_file_makes_nothing(site: Site, anna: httpx2.AsyncClient) -> None:
    genuine = await exported(anna)
    for changes in FORGED:
        data = forged(genuine, **changes)
        response = await brought_in(anna, data, "" if "kb" in changes else "copy")
        assert response.status_code == 422, (changes, response.text)
        assert str(site.kvasir.settings.data_dir) not in response.json()["detail"]
        assert [kb.name for kb in await site.kvasir.knowledge.list()] == ["kb"]


async def test_what_is_no_archive_or_holds_too_much_makes_nothing(open_site: OpenSite) -> None:
    async with open_site(ingest={"max_kb_mb": 1}) as site:
        await site.kvasir.knowledge.create("kb")
        anna = await site.person("anna", Role.OWNER)
        bomb, locked = io.BytesIO(), io.BytesIO()
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("originals/x", b"\0" * (3 << 20))
            listed = [{"name": "a.txt", "hash": "x"}]
            archive.writestr("manifest.json", json.dumps({"format": 1, "kb": {"name": "x"}, "documents": listed}))
        with zipfile.ZipFile(locked, "w") as archive:
            archive.writestr("manifest.json", "{}")
        encrypted = bytearray(locked.getvalue())
        for mark in (b"PK\x03\x04", b"PK\x01\x02"):
            encrypted[encrypted.index(mark) + (6 if mark[2] == 3 else 8)] |= 1
        assert (await brought_in(anna, bomb.getvalue())).status_code == 413
        for data in (b"", b"PK\x03\x04 nonsense", bytes(encrypted)):
            assert (await brought_in(anna, data)).status_code == 422
        assert [kb.name for kb in await site.kvasir.knowledge.list()] == ["kb"]


async def test_only_those_who_manage_take_one_out_or_in(site: Site, anna: httpx2.AsyncClient) -> None:
    ben = await site.person("ben", Role.EDITOR)
    data = await exported(anna)
    assert (await brought_in(ben, data, "copy")).status_code == 403
    for path in ("export", "contents", "grants"):
        assert (await ben.get(f"{KB}/{path}")).status_code == 403
    assert (await ben.get(f"{KB}/indexes")).json()["can_change"] is False
    assert (await ben.post(f"{KB}/indexes", json={})).status_code == 403


async def test_a_curated_answer_finds_its_document_again(site: Site, anna: httpx2.AsyncClient) -> None:
    kb = await site.kvasir.knowledge.get("kb")
    document = await site.kvasir.knowledge.find_document("kb", "1.md")
    async with site.kvasir.db.session() as session:
        session.add(CuratedRow(kb_id=kb.id, question="What?", text="That.", rests_on=[[document.id, "h"]],
                               created_at=now(), updated_at=now()))  # fmt: skip
    made = await brought_in(anna, await exported(anna), "copy")
    assert made.status_code == 202
    (copied,), total = await site.kvasir.curated.list(["copy"])
    assert (total, copied.question, copied.text) == (1, "What?", "That.")
    there = await site.kvasir.knowledge.find_document("copy", "1.md")
    assert [one.document_id for one in copied.rests_on] == [there.id]
