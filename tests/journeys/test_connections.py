"""From a token put into the console to an answer in the chat: the API, the service `bots`, and each real client."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import pytest
from sqlalchemy import select

from bots import runner
from bots.handler import ChatHandler
from core.app import Kvasir
from core.cli.documents import bring_in
from core.db.tables import AuditRow, ConnectionRow, ConversationRow
from core.types import Place, Role
from tests.admin.conftest import Site, open_site
from tests.fakes.discord_server import DiscordServer
from tests.fakes.slack import SlackServer
from tests.fakes.telegram import server as telegram_fakes

__all__ = ["open_site"]

pytestmark = pytest.mark.anyio

QUESTION = "How many days of annual leave are there?"
ANSWER = "28 days"


class World(ABC):
    """One platform's server, and what an administrator types in to be connected with it."""

    platform: ClassVar[str]
    wrong: ClassVar[str]
    """What the sentence about a wrong token has in it."""
    field: ClassVar[str]

    def __init__(self, server: Any) -> None:
        self.server = server

    @abstractmethod
    def given(self) -> dict[str, Any]:
        """Values and secrets."""

    def mistaken(self) -> dict[str, Any]:
        good = self.given()
        return {**good, "secrets": {**good["secrets"], self.field: self.bad_token}}

    bad_token: ClassVar[str]

    @abstractmethod
    async def ask(self) -> Callable[[], list[str]]:
        """Ask; gives what shows the answers to it."""

    channel: ClassVar[str]
    called: ClassVar[str]
    """What people call it."""
    workspace: ClassVar[str] = ""

    @abstractmethod
    def heard(self) -> bool:
        """Whether a bot listens."""

    @abstractmethod
    def posted(self) -> list[str]:
        """What we said in the channel besides answers."""


class SlackSide(World):
    platform, field, bad_token, channel, workspace = "slack", "bot_token", "xoxb-wrong", "C1", "T1"
    wrong, called = "invalid_auth", "#c1"

    def given(self) -> dict[str, Any]:
        secrets = {"bot_token": self.server.workspace.token, "app_token": self.server.app_token}
        return {"values": {"base_url": self.server.base_url}, "secrets": secrets}

    async def ask(self) -> Callable[[], list[str]]:
        asked = await self.server.people.mention(QUESTION)
        return lambda: [answer.body for answer in self.server.channel.answers(asked.ts)]

    def heard(self) -> bool:
        return bool(self.server.delivery.live)

    def posted(self) -> list[str]:
        return [one.body for one in self.server.channel.messages if not one.thread_ts and "kvasir" in one.body.lower()]


class DiscordSide(World):
    platform, field, bad_token = "discord", "token", "wrong.wrong.wrong"
    wrong, called = "does not know this token", "#general"

    def given(self) -> dict[str, Any]:
        return {"values": {"api_base": self.server.api_base}, "secrets": {"token": self.server.token}}

    async def ask(self) -> Callable[[], list[str]]:
        asked = self.server.mention(self.server.world.ann, self.server.world.general, QUESTION)
        return lambda: [answer.text for answer in self.server.answers(asked)]

    @property
    def channel(self) -> str:  # type: ignore[override]
        return str(self.server.world.general.id)

    def heard(self) -> bool:
        return bool(self.server.clients)

    def posted(self) -> list[str]:
        ours = self.server.seen(self.server.world.general)
        return [one.text for one in ours if one.author.id == self.server.world.bot.id]


class TelegramSide(World):
    platform, field, bad_token = "telegram", "token", "1:wrong"
    wrong, called = "BotFather", "Team"

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.ann = server.person("Ann", "ann_smith")
        self.group = server.group("Team", bot_is_admin=True)

    def given(self) -> dict[str, Any]:
        return {"values": {"api_base": self.server.url}, "secrets": {"token": self.server.token}}

    async def ask(self) -> Callable[[], list[str]]:
        asked = self.server.mention(self.group, self.ann, QUESTION)
        return lambda: [answer.text for answer in self.server.replies(asked)]

    @property
    def channel(self) -> str:  # type: ignore[override]
        return str(self.group.id)

    def heard(self) -> bool:
        return self.server.world.mail._poll is not None

    def posted(self) -> list[str]:
        return [one["text"] for one in self.server.made("sendMessage") if "reply_parameters" not in one]


@asynccontextmanager
async def world_of(platform: str) -> AsyncIterator[World]:
    match platform:
        case "slack":
            async with SlackServer() as slack:
                yield SlackSide(slack)
        case "discord":
            async with DiscordServer() as discord:
                yield DiscordSide(discord)
        case _:
            async with telegram_fakes.telegram_server() as telegram:
                yield TelegramSide(telegram)


@asynccontextmanager
async def serving(kvasir: Kvasir) -> AsyncIterator[None]:
    service = asyncio.create_task(runner.serve(kvasir, ChatHandler(kvasir)))
    try:
        yield
    finally:
        service.cancel()
        await asyncio.gather(service, return_exceptions=True)


async def until(right: Callable[[], Any]) -> Any:
    async with asyncio.timeout(20):
        while True:
            found = right()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.05)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(runner, "_REPORT_SECONDS", 0.05)
    monkeypatch.setattr("bots.naming._LOOK_SECONDS", 0.05)
    monkeypatch.setattr("bots.streaming._FIRST_PAUSE", 0.02)
    monkeypatch.setattr("bots.discord.client._BETWEEN_IDENTIFIES", 0.0)


async def state(browser: httpx2.AsyncClient, platform: str, wanted: str) -> dict[str, Any]:
    async def right() -> Any:
        found = (await browser.get(f"/api/v1/connections/{platform}")).json()
        return found if found["state"] == wanted else None

    found: dict[str, Any] = await until(right)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["slack", "discord", "telegram"])
async def test_a_platform_is_connected_tried_and_disconnected(open_site: Any, platform: str, tmp_path: Path) -> None:
    (tmp_path / "leave.md").write_text("# Leave\n\nThere are 28 days of annual leave in a year.\n")
    async with open_site(language="en") as site, world_of(platform) as world:
        await bring_in(site.kvasir, "handbook", [str(tmp_path / "leave.md")], show=False)
        browser = await site.person("ada", Role.ADMIN)
        url = f"/api/v1/connections/{platform}"
        async with serving(site.kvasir):
            assert (await browser.get(url)).json()["state"] == "unset"

            refused = await browser.patch(url, json=world.mistaken())
            assert refused.status_code == 422
            assert world.wrong in refused.json()["detail"]
            assert [error["field"] for error in refused.json()["errors"]] == [world.field]
            assert (await browser.get(url)).json()["state"] == "unset"  # nothing was kept

            saved = await browser.patch(url, json=world.given())
            assert saved.status_code == 200, saved.text
            assert all(one["ok"] for one in saved.json()["findings"] if one["field"])
            await state(browser, platform, "connected")
            shown = await world.ask()
            await until(lambda: any(ANSWER in text for text in shown()))

            async def is_heard() -> bool:
                return bool((await browser.get(url)).json()["reports"][0]["last_event_at"])

            await until(is_heard)

            message = {"channel": world.channel, "workspace": world.workspace}
            sent = (await browser.post(f"{url}/messages", json=message)).json()

            async def is_sent() -> bool:
                found = (await browser.get(f"{url}/messages/{sent['id']}")).json()
                assert found["state"] != "failed", found
                return bool(found["state"] == "sent")

            await until(is_sent)
            assert len([text for text in world.posted() if "test message" in text]) == 1

            async with site.kvasir.db.read() as session:
                asked = (await session.scalars(select(ConversationRow).filter_by(platform=platform))).one()
            place = Place(platform, asked.workspace, asked.channel, asked.thread)
            await site.kvasir.outbox.add(place, "A person says: **28 days**, <!channel>, @everyone.", "reply")
            await until(lambda: any("A person says" in text for text in shown()))

            workspaces = (await browser.get(f"{url}/workspaces")).json()["items"]
            assert [one["name"] for one in workspaces] == ([] if platform == "telegram" else ["Acme"])

            async def is_called() -> bool:
                spots = (await browser.get(f"/api/v1/channels?platform={platform}")).json()["items"]
                return [one["platform_name"] for one in spots] == [world.called]

            await until(is_called)

            assert (await browser.patch(url, json={"enabled": False})).status_code == 200

            async def is_stopped() -> bool:
                reports = (await browser.get(url)).json()["reports"]
                return [one["state"] for one in reports] == ["stopped"]

            await until(is_stopped)
            await until(lambda: not world.heard())  # nobody listens any more

            assert (await browser.patch(url, json={"enabled": True})).status_code == 200
            await state(browser, platform, "connected")
        await _keeps_secrets(site, browser, world)


async def _keeps_secrets(site: Site, browser: httpx2.AsyncClient, world: World) -> None:
    """No token is told to anybody, by API, database or record of changes; and removing forgets them."""
    url = f"/api/v1/connections/{world.platform}"
    secrets = list(world.given()["secrets"].values())
    told = (await browser.get(url)).text + (await browser.get("/api/v1/connections")).text
    async with site.kvasir.db.read() as session:
        row = await session.get_one(ConnectionRow, world.platform)
        told += json.dumps([row.settings, row.secrets, row.status])
        told += json.dumps([one.changes for one in await session.scalars(select(AuditRow))])
    assert [secret for secret in secrets if secret in told] == []
    fields = {one["name"]: one for one in (await browser.get(url)).json()["options"]}
    assert (fields[world.field]["value"], fields[world.field]["origin"]) == (None, "console")
    assert (await browser.delete(url)).status_code == 204
    after = (await browser.get(url)).json()
    assert (after["state"], after["is_kept"], after["is_configured"]) == ("unset", False, False)
