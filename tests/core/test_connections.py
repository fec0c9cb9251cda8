"""What the console sets for chat platforms: kept encrypted, tried first, behind the settings, and told by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from core.chats.connections import Connections
from core.chats.reports import SILENT_AFTER, Report
from core.db.session import Database
from core.db.tables import ConnectionRow, InboxRow, now
from core.errors import ConfigError, NotAccepted, NotFound
from core.ports import Finding
from core.settings import Settings, load
from core.vault import Vault

pytestmark = pytest.mark.anyio

TOKEN = "123456:ABC-secret"
PLATFORMS = ("slack", "telegram", "foreign")


class Checks:
    """A platform's check that keeps what it was asked with."""

    def __init__(self) -> None:
        self.asked: list[Settings] = []
        self.findings: list[Finding] = [Finding("Telegram: groups", False, "It is in no group yet.")]
        self.hangs = False

    async def __call__(self, settings: Settings) -> AsyncIterator[Finding]:
        self.asked.append(settings)
        if self.hangs:
            await asyncio.Event().wait()
        for finding in self.findings:
            yield finding


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path


def opened(db: Database, data: Path, checks: Checks, **given: Any) -> Connections:
    settings = load(data_dir=data, **given)
    return Connections(db, Vault(data), settings, lambda: PLATFORMS, lambda _: checks)


async def token_of(connections: Connections) -> str:
    settings = await connections.settings_of("telegram")
    assert settings is not None
    return settings.telegram.token.get_secret_value() if settings.telegram.token else ""


async def row_of(db: Database) -> ConnectionRow:
    async with db.read() as session:
        return await session.get_one(ConnectionRow, "telegram")


async def test_what_is_kept_holds_and_its_secrets_are_encrypted(db: Database, data: Path, checks: Checks) -> None:
    connections = opened(db, data, checks)
    assert (await connections.get("telegram")).state == "unset"
    findings = await connections.change("telegram", "user:1", {"token": f" {TOKEN}\n", "allowed": ["7", "8"]})
    assert [one.says for one in findings] == ["It is in no group yet."]  # which keeps nobody from connecting
    assert [one.telegram.allowed for one in checks.asked] == [["7", "8"]]
    row = await row_of(db)
    assert row.settings == {"allowed": ["7", "8"]}
    assert "ABC" not in row.secrets
    assert row.secrets
    assert await token_of(connections) == TOKEN
    assert await token_of(opened(db, data, checks)) == TOKEN  # after a restart, too
    found = await connections.get("telegram")
    assert (found.state, found.is_configured, found.is_kept, found.updated_by) == ("waiting", True, True, "user:1")
    fields = {field.name: field for field in found.fields}
    assert (fields["token"].kind, fields["token"].value, fields["token"].origin) == ("secret", None, "console")
    assert (fields["allowed"].kind, fields["allowed"].value) == ("list", ["7", "8"])
    assert (fields["proxy"].kind, fields["webhook"].kind, fields["webhook_port"].kind) == ("secret", "switch", "number")
    assert fields["token"].description
    assert (fields["token"].variable, TOKEN in repr(found)) == ("KVASIR_TELEGRAM__TOKEN", False)
    await connections.change("telegram", "user:1", {"allowed": None})  # the token stays as it is
    assert (await row_of(db)).settings == {}
    assert await token_of(connections) == TOKEN


async def test_a_wrong_field_is_named_and_nothing_is_kept(db: Database, data: Path, checks: Checks) -> None:
    connections = opened(db, data, checks)
    checks.findings = [Finding("Telegram: token", False, "Telegram refuses the token.", "token")]
    with pytest.raises(NotAccepted, match="refuses") as refused:
        await connections.change("telegram", "user:1", {"token": TOKEN})
    assert refused.value.fields == {"token": "Telegram refuses the token."}
    assert (await connections.get("telegram")).state == "unset"
    for values, field in (
        ({"webhook_port": 0}, "webhook_port"),
        ({"webhook_port": "many"}, "webhook_port"),
        ({"nonsense": 1}, "nonsense"),
        ({"token": {"a": 1}}, "token"),
        ({"token": "x" * 5000}, "token"),
        ({"allowed": ["x" * 300]}, "allowed"),
    ):
        with pytest.raises(NotAccepted) as refused:
            await connections.change("telegram", "user:1", values)
        assert list(refused.value.fields) == [field]
    with pytest.raises(NotFound):
        await connections.change("terminal", "user:1", {})
    await connections.change("telegram", "user:1", {"token": TOKEN}, unchecked=True)
    assert await token_of(connections) == TOKEN


async def test_a_check_that_never_ends_is_ended(
    db: Database, data: Path, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.chats.connections._CHECK_SECONDS", 0.05)
    checks.hangs = True
    with pytest.raises(NotAccepted):
        await opened(db, data, checks).change("telegram", "user:1", {"token": TOKEN})


async def test_what_the_settings_say_goes_first(db: Database, data: Path, checks: Checks) -> None:
    mine = {"token": "9:settings", "webhook": True, "api_base": ""}
    connections = opened(db, data, checks, telegram=mine, web={"public_url": "https://ask.example.org"})
    fields = {field.name: field for field in (await connections.get("telegram")).fields}
    assert {name for name, field in fields.items() if field.origin == "settings"} == {"token", "webhook"}
    for name in ("token", "webhook"):
        with pytest.raises(NotAccepted, match=f"KVASIR_TELEGRAM__{name.upper()}"):
            await connections.change("telegram", "user:1", {name: None})
    await opened(db, data, checks).change("telegram", "user:1", {"token": TOKEN, "rich_messages": True})
    assert await token_of(connections) == "9:settings"
    settings = await connections.settings_of("telegram")
    assert settings is not None
    assert settings.telegram.rich_messages
    assert await connections.remove("telegram", "user:1")
    assert not await connections.remove("telegram", "user:1")
    assert (await token_of(connections), await token_of(opened(db, data, checks))) == ("9:settings", "")


async def test_tokens_go_to_no_other_address(db: Database, data: Path, checks: Checks) -> None:
    """Who may change the address must know the tokens, or they could have them sent to themselves."""
    connections = opened(db, data, checks)
    await connections.change("telegram", "user:1", {"token": TOKEN})
    for values in ({"api_base": "https://evil.example"}, {"proxy": "http://evil.example"}):
        for attempt in (connections.examine("telegram", values), connections.change("telegram", "user:2", values)):
            with pytest.raises(NotAccepted, match="another address"):
                await attempt
    assert all(asked.telegram.api_base == asked.telegram.proxy == "" for asked in checks.asked)
    await connections.change("telegram", "user:1", {"token": TOKEN, "api_base": "https://gateway.example"})
    set_elsewhere = opened(db, data, checks, slack={"bot_token": "xoxb-1", "app_token": "xapp-1"})
    with pytest.raises(NotAccepted, match="bot_token"):
        await set_elsewhere.change("slack", "user:2", {"base_url": "https://evil.example/api/"})


async def test_it_is_switched_off_and_on_and_each_change_has_a_stamp(db: Database, data: Path, checks: Checks) -> None:
    connections = opened(db, data, checks, telegram={"token": "9:settings"})
    assert await connections.stamps() == {}
    await connections.report("telegram", Report("here:1", "connected", now(), now()))
    assert await connections.stamps() == {}  # what processes say changes nothing
    await connections.change("telegram", "user:1", {}, enabled=False)
    off = await connections.stamps()
    assert await connections.settings_of("telegram") is None
    assert await connections.settings_of("slack") is not None
    assert (await connections.get("telegram")).state == "off"
    await connections.change("telegram", "user:1", {}, enabled=True)
    on = await connections.stamps()
    await connections.restart("telegram", "user:1")
    again = await connections.stamps()
    assert len({off["telegram"], on["telegram"], again["telegram"]}) == 3
    assert [(await connections.stamped(name))[0] for name in ("telegram", "slack")] == [again["telegram"], ""]
    assert await token_of(connections) == "9:settings"


async def test_another_key_is_told_and_the_others_can_be_seen(db: Database, data: Path, checks: Checks) -> None:
    await opened(db, data, checks).change("telegram", "user:1", {"token": TOKEN})
    (data / "secret.key").write_text("another key that is long enough to be one\n")
    connections = opened(db, data, checks)
    found = {one.platform: one for one in await connections.list()}
    assert (found["telegram"].state, found["slack"].state) == ("refused", "unset")
    assert "secret.key" in found["telegram"].trouble
    with pytest.raises(ConfigError):
        await connections.settings_of("telegram")
    assert await connections.remove("telegram", "user:1")  # the way out of it
    assert (await connections.get("telegram")).state == "unset"


async def test_how_processes_are_is_told_with_its_age(db: Database, data: Path, checks: Checks) -> None:
    connections = opened(db, data, checks, telegram={"token": "9:settings"})
    said = Report("here:1", "connecting", now(), now(), error="ConnectionError", error_at=now())
    await connections.report("telegram", said)
    assert (await connections.get("telegram")).reports == [said]
    await connections.report("telegram", replace(said, state="connected", last_event_at=now()))
    await connections.report("telegram", replace(said, process="there:2", state="refused"))
    found = await connections.get("telegram")
    assert (found.state, [one.process for one in found.reports]) == ("connected", ["here:1", "there:2"])
    old = now() - SILENT_AFTER - timedelta(seconds=1)
    await connections.report("telegram", replace(said, state="connected", at=old))
    await connections.report("telegram", replace(said, process="there:2", state="connected", at=old))
    silent = await connections.get("telegram")
    assert (silent.state, [one.is_silent for one in silent.reports]) == ("silent", [True, True])
    await connections.restart("telegram", "user:1")
    await connections.report("telegram", replace(said, state="refused", at=now() - timedelta(seconds=5)))
    assert (await connections.get("telegram")).state == "connecting"  # what was said before the change is over
    await connections.report("telegram", replace(said, state="refused", at=now()))
    assert (await connections.get("telegram")).state == "refused"
    async with db.session() as session:
        for number, state in enumerate(["waiting", "working", "working", "done"]):
            session.add(InboxRow(platform="telegram", channel="1", message=str(number), state=state, said_at=now()))
    found = await connections.get("telegram")
    assert (found.waiting, found.working) == (1, 2)
