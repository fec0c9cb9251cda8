"""`kvasir connection`: its words, its JSON keys, its exit status, and that it tells no token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.db.tables import Table
from tests.databases import peek
from tests.fakes.commands import Commands

TOKEN = "123456:ABC-very-secret"


@pytest.fixture
def kvasir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.setenv("KVASIR_EMBEDDER__KIND", "none")
    monkeypatch.setenv("LANG", "en_GB.UTF-8")
    monkeypatch.chdir(tmp_path)
    return Commands(tmp_path / "data")


def test_a_platform_is_set_switched_and_removed(kvasir: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = kvasir.json("connection", "list")["connections"]
    assert [(one["platform"], one["state"]) for one in listed] == [
        ("discord", "unset"), ("slack", "unset"), ("telegram", "unset"),
    ]  # fmt: skip
    assert set(listed[0]) == {"platform", "state", "enabled", "trouble", "set", "reports", "waiting", "working"}
    assert "token=-" in kvasir.fails("connection", "set", "telegram", f"token={TOKEN}")
    assert kvasir("connection", "set", "telegram", "nonsense", status=2) == ""
    assert "no option" in kvasir.fails("connection", "set", "telegram", "nonsense=1")
    assert "no platform" in kvasir.fails("connection", "enable", "terminal")
    options = ("token=-", "allowed=7, 8", "rich_messages=on", "--unchecked", "--json")
    made = json.loads(kvasir("connection", "set", "telegram", *options, stdin=f"{TOKEN}\n"))
    assert (made["state"], made["set"]) == (
        "waiting", {"token": "console", "allowed": "console", "rich_messages": "console"}
    )  # fmt: skip
    assert "telegram: off." in kvasir("connection", "disable", "telegram")
    assert "waits for «kvasir up»" in kvasir("connection", "enable", "telegram")
    assert set(kvasir.json("connection", "set", "telegram", "allowed=", "--unchecked")["set"]) == {
        "token", "rich_messages",
    }  # fmt: skip
    waiting = kvasir.json("connection", "test", "telegram::7", "--wait", "0")
    assert waiting["state"] == "waiting"
    for table in Table.metadata.tables:
        assert "very-secret" not in str(peek(kvasir.data_dir, f"SELECT * FROM {table}"))
    monkeypatch.setenv("KVASIR_TELEGRAM__TOKEN", "9:settings")
    assert "KVASIR_TELEGRAM__TOKEN" in kvasir.fails("connection", "set", "telegram", "token=-", stdin="1:x\n")
    monkeypatch.delenv("KVASIR_TELEGRAM__TOKEN")
    kvasir("connection", "remove", "telegram", "--yes")
    assert "Nothing is kept" in kvasir.fails("connection", "remove", "telegram", "--yes")


def test_the_doctor_looks_with_what_is_kept(kvasir: Commands) -> None:
    assert "Telegram is off" in kvasir("doctor", "telegram", status=1)
    kvasir("connection", "set", "telegram", "token=-", "api_base=http://127.0.0.1:9", "--unchecked", stdin=TOKEN)
    assert "does not answer" in kvasir("doctor", "telegram", status=1)
    assert TOKEN not in kvasir.out
