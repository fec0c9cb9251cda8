"""Jobs and schedules over HTTP: who sees what, and what can be done with them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import update

from core.db.tables import KbGrantRow, UserRow
from core.types import Role
from tests.admin.conftest import Site

pytestmark = pytest.mark.anyio


async def test_a_schedule_from_its_making_to_its_end(site: Site) -> None:
    admin = await site.person("ada", Role.ADMIN)
    kinds = (await admin.get("/api/v1/schedules/kinds")).json()
    assert "backup" in {item["kind"] for item in kinds["items"]}
    assert "up jobs" in kinds["notice"]

    looked = (await admin.get("/api/v1/schedules/upcoming", params={"cron": "daily", "timezone": "UTC"})).json()
    assert (looked["when"], len(looked["times"])) == ("every day at 03:00", 5)
    made = await admin.post("/api/v1/schedules", json={"kind": "backup", "cron": "daily", "settings": {"keep": 3}})
    assert made.status_code == 201, made.text
    item = made.json()
    assert (item["name"], item["cron"], item["settings"]) == ("Backup", "0 3 * * *", {"keep": 3, "index": False})
    where = f"/api/v1/schedules/{item['id']}"

    changed = await admin.patch(where, json={"cron": "30 4 * * 1", "settings": {"keep": 9}, "name": "Weekly"})
    assert changed.json()["when"] == "every Monday at 04:30"
    started = await admin.post(f"{where}/run")
    assert started.status_code == 202
    again = await admin.post(f"{where}/run")
    assert again.json() == started.json()
    runs = (await admin.get(f"{where}/runs")).json()
    assert (runs["total"], runs["items"][0]["state"], runs["items"][0]["due"]) == (1, "queued", None)
    listed = (await admin.get("/api/v1/schedules")).json()
    assert (listed["total"], listed["items"][0]["last"]["job_id"]) == (1, started.json()["job_id"])
    assert (await admin.delete(where)).status_code == 204
    assert (await admin.get(where)).status_code == 404


IMPOSSIBLE: Sequence[tuple[dict[str, object], str]] = [
    ({"kind": "coffee", "cron": "daily"}, "cannot be scheduled"),
    ({"kind": "backup", "cron": "61 * * * *"}, "Minute"),
    ({"kind": "backup", "cron": "daily", "timezone": "Nowhere"}, "time zone"),
    ({"kind": "backup", "cron": "daily", "settings": {"keep": 0}}, "Backups to keep: from 1 to 1000"),
    ({"kind": "backup", "cron": "daily", "settings": {"keep": True}}, "cannot be used"),
    ({"kind": "backup", "cron": "daily", "settings": {"folder": "/etc"}}, "no setting folder"),
    ({"kind": "backup", "cron": "daily", "created_by": "user:1"}, "created_by"),
]


async def test_what_cannot_be_is_said_and_not_made(site: Site) -> None:
    admin = await site.person("ada", Role.ADMIN)
    for given, said in IMPOSSIBLE:
        refused = await admin.post("/api/v1/schedules", json=given)
        assert refused.status_code in (400, 404, 422), given
        assert said in refused.json()["detail"]
        assert (await admin.get("/api/v1/schedules")).json()["total"] == 0


async def test_only_administrators_schedule(site: Site) -> None:
    admin, editor = await site.person("ada", Role.ADMIN), await site.person("ed", Role.EDITOR)
    made = (await admin.post("/api/v1/schedules", json={"kind": "backup", "cron": "daily"})).json()
    where = f"/api/v1/schedules/{made['id']}"
    answers = [
        await editor.get("/api/v1/schedules"),
        await editor.get("/api/v1/schedules/kinds"),
        await editor.get(where),
        await editor.get(f"{where}/runs"),
        await editor.post(f"{where}/run"),
        await editor.patch(where, json={"name": "Mine"}),
        await editor.delete(where),
        await editor.post("/api/v1/schedules", json={"kind": "backup", "cron": "daily"}),
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert (await editor.get("/api/v1/schedules/upcoming", params={"cron": "daily"})).status_code == 200


async def test_jobs_are_seen_by_those_who_could_have_started_them(site: Site) -> None:
    """Protection: an editor who is let into one knowledge base sees and stops nothing of another."""
    kvasir = site.kvasir
    kb = await kvasir.knowledge.create("open")
    await kvasir.knowledge.create("closed", private=True)
    admin, editor = await site.person("ada", Role.ADMIN), await site.person("ed", Role.EDITOR)
    viewer = await site.person("vi", Role.VIEWER)
    async with kvasir.db.session() as session:
        user = await session.scalar(update(UserRow).filter_by(name="ed").values(everywhere=False).returning(UserRow.id))
        session.add(KbGrantRow(kb_id=kb.id, person=f"user:{user}", right="edit"))
    mine = await kvasir.jobs.add("ingest", {"kb": "open"})
    others = await kvasir.jobs.add("ingest", {"kb": "closed"})
    backup = await kvasir.jobs.add("backup", {"target": "", "settings": {}, "run": "", "name": "Nightly"})

    everything = (await admin.get("/api/v1/jobs")).json()
    assert [item["id"] for item in everything["items"]] == [backup.id, others.id, mine.id]
    assert [item["about"] for item in everything["items"]] == [
        "A backup of everything",
        "Documents for «closed»",
        "Documents for «open»",
    ]
    counts = {item["kind"]: item["queued"] for item in (await admin.get("/api/v1/jobs/counts")).json()["items"]}
    assert counts == {"ingest": 2, "backup": 1}
    assert (await admin.get("/api/v1/jobs", params={"kind": "backup", "state": "queued"})).json()["total"] == 1

    seen = (await editor.get("/api/v1/jobs")).json()
    assert ([item["id"] for item in seen["items"]], seen["total"]) == ([mine.id], 1)
    for job in (others, backup):
        for answer in (
            await editor.get(f"/api/v1/jobs/{job.id}"),
            await editor.post(f"/api/v1/jobs/{job.id}/cancel"),
            await editor.post(f"/api/v1/jobs/{job.id}/retry"),
        ):
            assert answer.status_code == 404
    cancelled = await editor.post(f"/api/v1/jobs/{mine.id}/cancel")
    assert cancelled.json()["state"] == "cancelled"
    assert (await editor.post(f"/api/v1/jobs/{mine.id}/cancel")).status_code == 409
    assert (await editor.post(f"/api/v1/jobs/{mine.id}/retry")).json()["state"] == "queued"
    assert (await viewer.get("/api/v1/jobs")).status_code == 403
    assert (await admin.get("/api/v1/jobs/none")).status_code == 404
