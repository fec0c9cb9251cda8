"""Channels over HTTP: who may, what is listed, what holds where, and what is changed for several places at once."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from sqlalchemy import event

from core.db.tables import ConversationRow, InboxRow, PlatformStateRow, now
from core.types import Role
from tests.admin.conftest import Site

pytestmark = pytest.mark.anyio

C1 = {"platform": "slack", "workspace": "T1", "channel": "C1"}
C2 = {"platform": "slack", "workspace": "T1", "channel": "C2"}
T1 = {"platform": "slack", "workspace": "T1"}


async def seen(site: Site, platform: str, workspace: str, channel: str, *, questions: int = 1) -> None:
    """Somebody asked there."""
    async with site.kvasir.db.session() as session:
        place = {"platform": platform, "workspace": workspace, "channel": channel}
        session.add(ConversationRow(**place, person="slack:T1:U1"))
        for number in range(questions):
            session.add(InboxRow(**place, message=f"{channel}-{number}", state="done", said_at=now()))


async def patch(browser: httpx2.AsyncClient, places: list[dict[str, str]], status: int = 200, **body: Any) -> Any:
    response = await browser.patch("/api/v1/channels", json={"places": places, **body})
    assert response.status_code == status, response.text
    return response.json()


async def holding(browser: httpx2.AsyncClient, place: dict[str, str]) -> Any:
    return (await browser.get("/api/v1/channels/at", params=place)).json()["fields"]


@pytest.mark.parametrize("role", [Role.EDITOR, Role.REVIEWER, Role.VIEWER])
async def test_only_administrators_see_and_change_them(site: Site, role: Role) -> None:
    browser = await site.person("eve", role)
    for path in ("channels", "channels/options", "channels/at?platform=slack", "connections", "connections/slack",
                 "connections/slack/messages", "connections/slack/workspaces",
                 "connections/slack/manifest"):  # fmt: skip
        assert (await browser.get(f"/api/v1/{path}")).status_code == 403, path
    assert (await browser.patch("/api/v1/channels", json={"places": [C1]})).status_code == 403
    assert (await browser.delete("/api/v1/channels", params=C1)).status_code == 403
    assert (await browser.patch("/api/v1/connections/slack", json={"enabled": False})).status_code == 403
    assert (await browser.delete("/api/v1/connections/slack")).status_code == 403
    for path in ("check", "restart"):
        assert (await browser.post(f"/api/v1/connections/slack/{path}", json={})).status_code == 403
    assert (await browser.post("/api/v1/connections/slack/messages", json={"channel": "C1"})).status_code == 403
    assert (await site.kvasir.connections.get("slack")).enabled


async def test_places_are_listed_where_something_was_set_or_asked(site: Site) -> None:
    browser = await site.person("ada", Role.ADMIN)
    await seen(site, "slack", "T1", "C1", questions=3)
    await seen(site, "discord", "G1", "7")
    await seen(site, "web", "", "")  # no channel of a chat platform
    async with site.kvasir.db.session() as session:
        session.add(PlatformStateRow(platform="slack", workspace="T1", key="workspace", value="Acme"))
        session.add(PlatformStateRow(platform="discord", workspace="G1", key="channel:7", value="#general"))
    await patch(browser, [C1, C2], values={"mode": "auto"})
    await patch(browser, [C2], name="#help_100%")
    page = (await browser.get("/api/v1/channels")).json()
    parts = ("channel", "name", "platform_name", "workspace_name", "questions", "values")
    shown = [tuple(one[part] for part in parts) for one in page["items"]]
    assert page["total"] == 3
    assert sorted(shown) == [
        ("7", "", "#general", "", 1, {}),
        ("C1", "", "", "Acme", 3, {"mode": "auto"}),
        ("C2", "#help_100%", "", "Acme", 0, {"mode": "auto"}),
    ]
    assert page["items"][-1]["channel"] == "C2"  # never used
    for query, found in (("platform=discord", ["7"]), ("text=acm", ["C1", "C2"]), ("text=p_100%25", ["C2"]),
                         ("text=_", ["C2"]), ("text=%23gen", ["7"]), ("limit=1&offset=2", ["C2"])):  # fmt: skip
        items = (await browser.get(f"/api/v1/channels?{query}")).json()["items"]
        assert sorted(one["channel"] for one in items) == found, query
    assert (await browser.get("/api/v1/channels?platform=terminal")).status_code == 404


async def test_a_page_costs_as_many_statements_however_many_places(site: Site) -> None:
    browser = await site.person("ada", Role.ADMIN)
    counts = []
    asked: list[str] = []
    engine = site.kvasir.db.engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    for number in range(2, 30, 25):
        for channel in range(number):
            await seen(site, "slack", "T1", f"D{number}-{channel}")
        asked.clear()
        assert (await browser.get("/api/v1/channels?limit=50")).status_code == 200
        counts.append(len(asked))
    assert counts[0] == counts[1]


async def test_what_holds_is_told_with_where_it_was_set(site: Site) -> None:
    browser = await site.person("ada", Role.ADMIN)
    await patch(browser, [T1], values={"mode": "auto", "language": "zh"})
    await patch(browser, [C1], values={"mode": "off", "feedback": False})
    fields = await holding(browser, C1)
    assert fields["mode"] == {
        "value": "off", "origin": "channel", "wider_value": "auto", "wider_origin": "workspace", "is_own": True,
    }  # fmt: skip
    assert (fields["language"]["value"], fields["language"]["origin"]) == ("zh", "workspace")
    assert (fields["engine"]["value"], fields["engine"]["origin"]) == (None, "settings")
    assert (await holding(browser, T1))["mode"]["wider_value"] == "mention"
    await patch(browser, [C1], values={"mode": None})
    assert (await holding(browser, C1))["mode"]["origin"] == "workspace"
    assert (await browser.delete("/api/v1/channels", params=C1)).status_code == 204
    assert (await browser.delete("/api/v1/channels", params=C1)).status_code == 404
    assert (await holding(browser, C1))["feedback"]["origin"] == "settings"


async def test_a_whole_workspace_is_set_and_its_channels_follow(site: Site) -> None:
    browser = await site.person("ada", Role.ADMIN)
    await site.kvasir.knowledge.create("handbook")
    await site.kvasir.knowledge.create("secrets", private=True)
    other = {"platform": "slack", "workspace": "T2", "channel": "C9"}
    await patch(browser, [C1, C2, other], values={"mode": "off", "language": "zh"})
    done = await patch(browser, [T1], values={"mode": "auto", "kbs": ["handbook", "secrets"]}, within=True)
    assert done["changed"] == 3
    assert "secrets" in done["notices"][0]
    for place in (C1, C2):
        fields = await holding(browser, place)
        assert (fields["mode"]["value"], fields["language"]["value"]) == ("auto", "zh")  # only what was changed
        assert fields["kbs"]["value"] == ["handbook", "secrets"]
    assert (await holding(browser, other))["mode"]["value"] == "off"


async def test_what_cannot_be_set_is_refused_with_a_sentence(site: Site) -> None:
    browser = await site.person("ada", Role.ADMIN)
    for values in ({"mode": "never"}, {"mode": True}, {"kbs": "handbook"}, {"feedback": "yes"}, {"engine": "none"},
                   {"updated_by": "x"}, {"instructions": "x" * 8001}, {"managers": ["a b"]}):  # fmt: skip
        assert (await patch(browser, [C1], 422, values=values))["detail"]
    assert "nobase" in (await patch(browser, [C1], 404, values={"kbs": ["nobase"]}))["detail"]
    await patch(browser, [{"platform": "terminal"}], 404, values={})
    await patch(browser, [{**C1, "channel": " C1"}], 422, values={})
    await patch(browser, [C1, C2], 422, name="both")
    await patch(browser, [], 422)
    await patch(browser, [C1], 422, updated_by="user:1")
    assert (await browser.get("/api/v1/channels")).json()["total"] == 0


async def test_the_manifest_is_slacks_own(site: Site) -> None:
    browser = await site.person("ada", Role.ADMIN)
    found = await browser.get("/api/v1/connections/slack/manifest")
    assert "attachment" in found.headers["content-disposition"]
    assert found.json()["settings"]["socket_mode_enabled"] is True
    assert (await browser.get("/api/v1/connections/telegram/manifest")).status_code == 404
    assert (await browser.get("/api/v1/connections/nothing")).status_code == 404


async def test_a_message_of_another_platform_is_not_found(site: Site) -> None:
    browser = await site.person("ada", Role.ADMIN)
    made = await browser.post("/api/v1/connections/slack/messages", json={"channel": "C1", "text": "Hello"})
    assert (made.status_code, made.json()["state"]) == (201, "waiting")
    found = f"/messages/{made.json()['id']}"
    assert (await browser.get(f"/api/v1/connections/slack{found}")).json()["text"] == "Hello"
    assert (await browser.get(f"/api/v1/connections/discord{found}")).status_code == 404
    assert (await browser.get("/api/v1/connections/slack/messages/nonsense")).status_code == 404
    assert (await browser.get("/api/v1/connections/slack/messages")).json()["total"] == 1
    for body in ({"channel": ""}, {"channel": " \u0000"}, {}, {"channel": "C1", "purpose": "digest"}):
        assert (await browser.post("/api/v1/connections/slack/messages", json=body)).status_code == 422
