"""Figures, conversations of others and a person's data over HTTP: what each role sees, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from core.answering.conversation import Conversations
from core.db.tables import JobRow, KbGrantRow, UserRow, now
from core.quality.feedback import Feedback
from core.types import Place, Role
from tests.admin.conftest import OpenSite, Site
from tests.core.test_conversation import answered

pytestmark = pytest.mark.anyio

EVE = "slack:T1:U9"
API = "/api/v1"


async def furnish(site: Site) -> tuple[str, str]:
    """A conversation of Eve's, and a question that rests on a private knowledge base."""
    for name, private in (("kb", False), ("secret", True)):
        await site.kvasir.knowledge.create(name, private=private)
    place = Place("slack", "T1", "C1", "1")
    key = (await Conversations(site.kvasir.db).open(place, EVE)).id
    where = {"platform": "slack", "workspace": "T1", "channel": "C1", "kbs": ["kb"]}
    rated = await answered(
        site.kvasir.db, key, "How <b>long</b>?", EVE, text="<script>alert(1)</script> 28 days [1].", **where
    )
    await Feedback(site.kvasir.db).rate(rated, EVE, -1, "=too()")
    secret = await answered(
        site.kvasir.db, None, "Who is let go?", EVE, platform="slack", kbs=["secret"], answered=False
    )
    return key, secret


async def restricted(site: Site, name: str, *granted: str) -> httpx2.AsyncClient:
    """A reviewer whose role counts only where they were let in."""
    browser = await site.person(name, Role.REVIEWER)
    user = await site.kvasir.accounts.get(name)
    async with site.kvasir.db.session() as session:
        await session.execute(update(UserRow).where(UserRow.id == user.id).values(everywhere=False))
        for kb in granted:
            found = await site.kvasir.knowledge.get(kb)
            session.add(KbGrantRow(kb_id=found.id, person=f"user:{user.id}"))
    return browser


async def got(browser: httpx2.AsyncClient, path: str, **params: Any) -> Any:
    response = await browser.get(API + path, params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_reviewer_sees_what_was_asked_and_cannot_delete(site: Site) -> None:
    key, _ = await furnish(site)
    browser = await site.person("rita", Role.REVIEWER)
    totals = (await got(browser, "/statistics"))["totals"]
    assert (totals["questions"], totals["answered"], totals["refused"], totals["down"]) == (2, 1, 1, 1)
    breakdown = await got(browser, "/statistics/by")
    assert [item["name"] for item in breakdown["kb"]] == ["kb", "secret"]
    assert (await got(browser, "/statistics", **breakdown["kb"][1]["key"]))["totals"]["questions"] == 1
    assert [item["question"] for item in (await got(browser, "/statistics/unanswered"))["items"]] == ["Who is let go?"]
    assert (await got(browser, "/statistics/choices"))["platforms"] == ["slack"]
    parts = {item["kind"]: item["state"] for item in (await got(browser, "/statistics/parts"))["items"]}
    assert parts == {
        "database": "good", "store": "good", "engine": "good", "embedder": "off", "queue": "good", "schedules": "warn"
    }  # fmt: skip
    found = await got(browser, "/records", rating="down")
    assert [item["id"] for item in found["items"]] == [key]
    whole = await got(browser, f"/records/{key}")
    assert whole["entries"][0]["votes"][0]["reason"] == "=too()"
    assert "<script>" not in whole["entries"][0]["html"]
    person = f"/persons/{EVE}"
    refusals = (
        ("DELETE", f"/records/{key}"),
        ("POST", "/records/delete"),
        ("GET", "/persons"),
        ("GET", person),
        ("GET", f"{person}/export.json"),
        ("DELETE", person),
    )
    for method, path in refusals:
        refused = await browser.request(method, API + path, json={"ids": [key]} if method == "POST" else None)
        assert refused.status_code == 403, path
    assert (await got(browser, "/records"))["total"] == 2


async def test_answers_from_private_bases_are_for_those_who_may_read_them(site: Site) -> None:
    """Protection: `Caller.seen_kbs`, in every route that shows answers or counts them."""
    key, secret = await furnish(site)
    outside, inside = await restricted(site, "otto"), await restricted(site, "ines", "secret")
    for browser, seen in ((outside, 1), (inside, 2)):
        assert (await got(browser, "/statistics"))["totals"]["questions"] == seen
        assert sum(item["figures"]["questions"] for item in (await got(browser, "/statistics/by"))["kb"]) == seen
        assert (await got(browser, "/statistics/unanswered"))["total"] == seen - 1
        assert len((await got(browser, "/statistics/choices"))["kbs"]) == seen
        assert (await got(browser, "/records"))["total"] == seen
        assert (await browser.get(f"{API}/records/{key}")).status_code == 200
        assert (await browser.get(f"{API}/records/{secret}")).status_code == (404 if seen == 1 else 200)
    assert (await got(outside, "/statistics", kb="secret"))["totals"]["questions"] == 0


async def test_others_see_nothing(site: Site) -> None:
    key, _ = await furnish(site)
    browser = await site.person("vera", Role.VIEWER)
    ways = ("statistics", "statistics/by", "statistics/unanswered", "statistics/choices", "statistics/parts", "records")
    for path in (*ways, f"records/{key}"):
        assert (await browser.get(f"{API}/{path}")).status_code == 403, path
        assert (await site.client().get(f"{API}/{path}")).status_code == 401, path


async def test_an_administrator_deletes_and_erases(site: Site) -> None:
    key, secret = await furnish(site)
    admin = await site.person("ada", Role.ADMIN)
    gone = await admin.post(f"{API}/records/delete", json={"ids": [secret, "0" * 32]})
    assert gone.json() == {"answers": 1, "conversations": 0, "files": 0}
    assert [item["key"] for item in (await got(admin, "/persons", text="u9"))["items"]] == [EVE]
    assert (await got(admin, f"/persons/{EVE}"))["answers"] == 1
    given = await admin.get(f"{API}/persons/{EVE}/export.json")
    assert given.headers["content-disposition"].startswith("attachment")
    assert given.json()["ratings"][0]["reason"] == "=too()"
    assert (await admin.delete(f"{API}/persons/{EVE}")).json()["conversations"] == 1
    assert (await admin.get(f"{API}/persons/{EVE}")).status_code == 404
    assert (await admin.delete(f"{API}/records/{key}")).status_code == 404
    changes, _ = await site.kvasir.audit.list()
    assert [(change.action, change.object) for change in changes][:3] == [
        ("persons.erase_person", EVE),
        ("persons.export_person", EVE),
        ("records.delete_many", ""),
    ]


IMPOSSIBLE: Sequence[tuple[str, dict[str, Any], int]] = [
    ("/statistics", {"zone": "Nowhere/Else"}, 422),
    ("/statistics", {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, 422),
    ("/statistics", {"since": "2020-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, 422),
    ("/statistics", {"since": "2026-01-02T00:00:00"}, 422),
    ("/statistics", {"since": "0001-01-01T00:00:00Z"}, 422),
    ("/records", {"limit": 201}, 422),
    ("/records", {"rating": "best"}, 422),
    ("/records/nothing", {}, 404),
    ("/records/" + "0" * 32, {}, 404),
    ("/persons/nobody", {}, 404),
]


async def test_what_cannot_be_is_refused(site: Site) -> None:
    admin = await site.person("ada", Role.ADMIN)
    for path, params, status in IMPOSSIBLE:
        response = await admin.get(API + path, params=params)
        assert response.status_code == status, (path, params, response.text)
        assert response.json()["detail"]


async def test_a_queue_that_nobody_serves_is_said(site: Site) -> None:
    admin = await site.person("ada", Role.ADMIN)
    async with site.kvasir.db.session() as session:
        session.add(JobRow(kind="ingest", state="queued", created_at=now() - timedelta(minutes=9)))
    parts = {item["kind"]: item for item in (await got(admin, "/statistics/parts"))["items"]}
    assert (parts["queue"]["state"], "1 jobs wait" in parts["queue"]["text"]) == ("bad", True)


async def test_a_platform_with_tokens_that_nobody_runs_is_said(open_site: OpenSite) -> None:
    async with open_site(slack={"bot_token": "xoxb-1", "app_token": "xapp-1"}) as site:
        admin = await site.person("ada", Role.ADMIN)
        parts = [item for item in (await got(admin, "/statistics/parts"))["items"] if item["kind"] == "platform"]
    assert [(part["name"], part["state"]) for part in parts] == [("slack", "warn")]
    assert "kvasir up bots" in parts[0]["text"]


async def test_a_part_that_fails_hides_no_other(site: Site) -> None:
    """Protection: `_looked` in core/health.py."""
    admin = await site.person("ada", Role.ADMIN)
    await site.kvasir.knowledge.create("kb")
    await site.kvasir.models.add("engine", "far", "openai", {"base_url": "http://127.0.0.1:9", "model": "m"})
    await site.kvasir.models.use("engine", "far")
    parts = {item["kind"]: item for item in (await got(admin, "/statistics/parts"))["items"]}
    assert (parts["engine"]["state"], parts["database"]["state"], parts["queue"]["state"]) == ("bad", "good", "good")
    assert "127.0.0.1:9" in parts["engine"]["text"]
