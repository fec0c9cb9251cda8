"""Slack over HTTP: signed events, installation in many workspaces, and what is kept of them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from bots.memory import Memory
from bots.slack.workspaces import Installation, Workspaces
from core.db.tables import InboxRow, PlatformStateRow
from tests.bots.conftest import Front
from tests.bots.slack_world import World, world
from tests.fakes.slack import SlackServer

pytestmark = pytest.mark.anyio
ANSWER = "Annual leave is 28 days [1]."


@pytest.fixture
async def server() -> AsyncIterator[SlackServer]:
    async with SlackServer() as slack:
        yield slack


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def over_http(server: SlackServer, **more: Any) -> dict[str, Any]:
    port = free_port()
    server.delivery.request_url = f"http://127.0.0.1:{port}/hooks/slack"
    secret = SecretStr(server.delivery.signing_secret)
    return {"app_token": None, "signing_secret": secret, "events_port": port, **more}


def for_many(server: SlackServer) -> dict[str, Any]:
    secret = SecretStr(server.client_secret)
    return over_http(server, bot_token=None, client_id=server.client_id, client_secret=secret)


async def test_signed_events_are_answered_once(front: Front, server: SlackServer) -> None:
    async with world(front, server, **over_http(server)) as here:
        server.people.copies, server.people.pair = 4, True
        asked = await here.ask("How long is annual leave?")
        assert [answer.body.split("\n")[0] for answer in here.answers(asked)] == [ANSWER]
        assert (await server.people.command("status")).answers[0]["response_type"] == "ephemeral"
        await server.people.click(here.answers(asked)[0], "up:")
        assert [rated.value for rated in await front.kvasir.feedback.list()] == [1]


@pytest.mark.parametrize(("forged", "age"), [(True, 0), (False, 310)])
async def test_what_slack_did_not_sign_just_now_is_refused(
    front: Front, server: SlackServer, forged: bool, age: float
) -> None:
    """Faults 60 and 61; nothing is stored."""
    async with world(front, server, **over_http(server)) as here:
        server.delivery.forged, server.delivery.age = forged, age
        asked = await here.ask("How long is annual leave?")
        assert {status for receipt in server.delivery.receipts for status in receipt.statuses} == {401}
        async with aiohttp.ClientSession() as anybody, anybody.post(server.delivery.request_url, json={}) as response:
            assert response.status == 401
        assert here.answers(asked) == []
    async with front.kvasir.db.read() as session:
        assert (await session.scalars(select(InboxRow))).all() == []


async def test_without_a_signing_secret_no_event_comes_by_http(front: Front, server: SlackServer) -> None:
    """Installations are let in by HTTP while events come by Socket Mode: nothing could prove that they are Slack's."""
    settings = {**for_many(server), "signing_secret": None, "app_token": SecretStr(server.app_token)}
    server.delivery.signing_secret = ""
    async with world(front, server, **settings) as here:
        asked = await here.ask("How long is annual leave?")
        assert {status for receipt in server.delivery.receipts for status in receipt.statuses} == {404}
        assert here.answers(asked) == []


async def test_slacks_first_question_is_answered(front: Front, server: SlackServer) -> None:
    async with world(front, server, **over_http(server)):
        challenge = {"type": "url_verification", "challenge": "abc", "token": "t"}
        receipt = await server.delivery.delivered("events_api", challenge)
        assert receipt.answers == [{"challenge": "abc"}]


# ---------------------------------------------------------------- many workspaces
async def install(server: SlackServer, *, elsewhere: bool = False) -> tuple[int, str]:
    """Walk through the installation; gives the status and text of its last page. `elsewhere`: change the browser."""
    cookies, url = aiohttp.CookieJar(unsafe=True), f"{server.delivery.request_url}/install"
    async with aiohttp.ClientSession(cookie_jar=cookies) as browser:
        async with browser.get(url, allow_redirects=False) as page:
            url = page.headers["Location"]
        if elsewhere:
            cookies.clear()
        async with browser.get(url) as page:
            return page.status, await page.text()


async def asked_in(here: World, team: str, text: str) -> list[str]:
    workspace = here.server.workspaces[team]
    asked = await here.server.people_of(workspace).mention(text)
    await here.idle()
    return [answer.body for answer in workspace.channels["C1"].answers(asked.ts)]


async def test_every_workspace_that_installs_it_is_answered_with_its_own_token(
    front: Front, server: SlackServer
) -> None:
    settings = for_many(server)
    async with world(front, server, **settings) as here:
        for team in ("T2", "T3"):
            server.installing = team
            status, page = await install(server)
            assert (status, f"Team {team}" in page) == (200, True)
            (said,) = await asked_in(here, team, "How long is annual leave?")
            assert said.startswith(ANSWER)
        assert await asked_in(here, "T1", "How long is annual leave?") == []
    async with world(front, server, **settings) as here:  # after a restart
        (said,) = await asked_in(here, "T3", "How long is annual leave?")
        assert said.startswith(ANSWER)


async def test_tokens_are_kept_encrypted_until_the_app_is_removed(front: Front, server: SlackServer) -> None:
    async with world(front, server, **for_many(server)) as here:
        await install(server)
        async with front.kvasir.db.read() as session:
            kept = (await session.scalars(select(PlatformStateRow.value))).all()
        assert len(kept) == 2  # the installation, and the workspace's name
        assert [value for value in kept if server.workspaces["T2"].token in value] == []
        await server.people_of(server.workspaces["T2"]).uninstall()
        assert await asked_in(here, "T2", "How long is annual leave?") == []
        async with front.kvasir.db.read() as session:
            assert (await session.scalars(select(PlatformStateRow))).all() == []


async def test_a_revoked_token_costs_its_own_workspace_until_it_installs_again(
    front: Front, server: SlackServer
) -> None:
    """Another process may have taken the new token in: it is looked for in the database."""
    async with world(front, server, **for_many(server)) as here:
        for team in ("T2", "T3"):
            server.installing = team
            await install(server)
        revoked = server.workspaces["T2"]
        revoked.revoked = "token_revoked"
        assert await asked_in(here, "T2", "How long is annual leave?") == []
        assert len(await asked_in(here, "T3", "How long is annual leave?")) == 1
        called = len(server.calls)
        assert await asked_in(here, "T2", "How long is annual leave, still?") == []
        assert len(server.calls) == called  # a dead token is not tried again
        revoked.revoked, revoked.token = "", "xoxb-new"
        other = Workspaces(here.slack.settings, Memory(front.kvasir.db, here.slack.kvasir.vault, "slack"))
        await other.put(Installation("T2", "xoxb-new", revoked.bot_user, revoked.bot_id))
        (answer,) = await asked_in(here, "T2", "How long is annual leave, now?")
        assert answer.startswith(ANSWER)


async def test_an_installation_begun_in_another_browser_is_refused(front: Front, server: SlackServer) -> None:
    async with world(front, server, **for_many(server)):
        status, text = await install(server, elsewhere=True)
        assert (status, "came to nothing" in text) == (400, True)
        query = {"error": "<script>access_denied", "state": "x"}
        url = f"{server.delivery.request_url}/oauth"
        async with aiohttp.ClientSession() as browser, browser.get(url, params=query) as page:
            assert page.status == 400
            assert "&lt;script&gt;" in await page.text()
    async with front.kvasir.db.read() as session:
        assert (await session.scalars(select(PlatformStateRow))).all() == []
