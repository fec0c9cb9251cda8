"""`kvasir doctor slack`: one sentence for each thing that is missing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from bots.slack import check, events
from core.settings import Settings, load
from tests.fakes.slack import SlackServer
from tests.fakes.slack.world import SCOPES

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server() -> AsyncIterator[SlackServer]:
    async with SlackServer() as slack:
        yield slack


def settings(server: SlackServer, tmp_path: Path, **slack: Any) -> Settings:
    given = {"bot_token": server.workspace.token, "app_token": server.app_token, "base_url": server.base_url}
    return load(data_dir=tmp_path, slack={**given, **slack})


async def wrong(settings: Settings) -> list[str]:
    return [finding.says for finding in [found async for found in check.check(settings)] if not finding.ok]


async def test_all_is_well(server: SlackServer, tmp_path: Path) -> None:
    assert await wrong(settings(server, tmp_path)) == []


async def test_slack_is_off(tmp_path: Path) -> None:
    (says,) = await wrong(load(data_dir=tmp_path))
    assert "KVASIR_SLACK__BOT_TOKEN" in says


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"bot_token": "xoxp-1"}, "begins with xoxb-"),
        ({"bot_token": "xoxb-wrong"}, "invalid_auth"),
        ({"app_token": "xoxb-1"}, "begins with xapp-"),
        ({"app_token": "xapp-wrong"}, "connections:write"),
        ({"app_token": "", "signing_secret": "s"}, "KVASIR_WEB__PUBLIC_URL"),
        ({"client_id": "1.2"}, "KVASIR_SLACK__CLIENT_SECRET"),
        ({"base_url": "http://127.0.0.1:9/api/", "app_token": "xoxb-1"}, "Error"),
    ],
)
async def test_what_is_missing_is_said(
    server: SlackServer, tmp_path: Path, changes: dict[str, str], expected: str
) -> None:
    assert any(expected in says for says in await wrong(settings(server, tmp_path, **changes)))


async def test_missing_rights_are_named(server: SlackServer, tmp_path: Path) -> None:
    server.workspace.scopes.discard("reactions:read")
    (says,) = await wrong(settings(server, tmp_path))
    assert "reactions:read" in says


async def test_a_clock_that_is_wrong_is_found(
    server: SlackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_MOST_SKEW", -1)
    (says,) = await wrong(settings(server, tmp_path))
    assert "clock" in says


def test_the_manifest_asks_for_what_the_code_uses() -> None:
    """Every callback, command and event that the adapter knows, and no right that our Slack has no use for."""
    manifest = json.loads(files("bots.slack").joinpath("manifest.json").read_text("utf-8"))
    callbacks = {shortcut["callback_id"] for shortcut in manifest["features"]["shortcuts"]}
    assert callbacks == {events.ASK, events.KEEP}
    subscribed = set(manifest["settings"]["event_subscriptions"]["bot_events"])
    assert {"app_mention", "message.im", "reaction_added", "agent_session_stopped", "app_home_opened"} <= subscribed
    assert check.scopes_wanted() <= set(SCOPES)
    assert 174 <= len(manifest["display_information"]["long_description"]) <= 4000
    assert len(manifest["display_information"]["description"]) <= 140
    assert "assistant_view" not in manifest["features"]
