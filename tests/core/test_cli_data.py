"""`kvasir config`, `db`, `backup`, `restore`, `doctor`, `user`, `key`, `feedback`: also on files that are not well."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from core.identity import accounts as accounts_module
from core.identity.passwords import Passwords
from core.settings import fields
from tests.databases import peek
from tests.fakes.commands import Commands

PASSWORD = "a long enough secret"


@pytest.fixture
def kvasir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(accounts_module, "Passwords", lambda: Passwords(cheap))
    monkeypatch.setenv("KVASIR_EMBEDDER__KIND", "none")
    monkeypatch.setenv("LANG", "en_GB.UTF-8")
    monkeypatch.chdir(tmp_path)
    return Commands(tmp_path / "data")


# ---------------------------------------------------------------- settings
def test_every_value_is_shown_with_where_it_came_from(
    kvasir: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[answer]\ntop_k = 7\n[openai]\napi_key = "hush-hush"\nheaders = { x-key = "hush-hush" }\n')
    Path(".env").write_text("KVASIR_ANSWER__SENTENCES=3\n")
    for name in (
        "SECRET_KEY",
        "SLACK__BOT_TOKEN",
        "SLACK__CLIENT_SECRET",
        "DISCORD__TOKEN",
        "TELEGRAM__WEBHOOK_SECRET",
    ):
        monkeypatch.setenv(f"KVASIR_{name}", "hush-hush")
    monkeypatch.setenv("KVASIR_TELEGRAM__PROXY", "socks5://me:hush-hush@proxy:1080")
    monkeypatch.setenv("KVASIR_WEB__PORT", "1234")
    monkeypatch.setenv("KVASIR_DATABASE__URL", "postgresql://me:hush-hush@host/db")
    monkeypatch.setenv("KVASIR_WEBB__PORT", "1")
    checked = kvasir.json("config", "check", "--config", file)
    assert list(checked) == ["settings", "unknown"]
    found = {item["name"]: (item["value"], item["from"]) for item in checked["settings"]}
    assert found["answer.top_k"] == (7, str(file))
    assert found["answer.sentences"] == (3, ".env")
    assert found["web.port"] == (1234, "environment (KVASIR_WEB__PORT)")
    assert found["data_dir"] == (str(kvasir.data_dir), "--data-dir")
    assert found["openai.api_key"] == ("********", str(file))
    assert found["splitter.chunk_size"][1] == "default"
    assert len(found) == len(fields())
    assert checked["unknown"] == ["KVASIR_WEBB__PORT"]
    kvasir("config", "check", "--all", "--config", file)
    assert "hush" not in json.dumps(checked) + kvasir.out + kvasir.err
    assert "KVASIR_WEBB__PORT" in kvasir.err
    assert not kvasir.data_dir.exists()


def test_settings_that_cannot_be_used_are_said(
    kvasir: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: fault 77, the settings file."""
    damaged = tmp_path / "damaged.toml"
    damaged.write_text("[web\nport = 1")
    assert str(damaged) in kvasir.fails("kb", "list", "--config", damaged)
    kvasir("kb", "list", "--config", tmp_path / "absent.toml", status=2)
    kvasir("kb", "list", "--config", tmp_path, status=2)
    monkeypatch.setenv("KVASIR_WEB__PORT", "many")
    assert "KVASIR_WEB__PORT" in kvasir.fails("kb", "list")
    kvasir("config", "check", status=1)
    assert "web.port: environment (KVASIR_WEB__PORT)" in kvasir.err


def test_the_sample_is_a_settings_file(kvasir: Commands, tmp_path: Path) -> None:
    text = kvasir("config", "sample")
    assert tomllib.loads(text).keys() <= {field.path.split(".")[0] for field in fields()}
    file = tmp_path / "sample.toml"
    file.write_text(text)
    assert kvasir.json("config", "check", "--config", file)["unknown"] == []


# ---------------------------------------------------------------- database
@pytest.mark.sqlite("a data directory without a database")
def test_the_database_is_checked_and_made(kvasir: Commands) -> None:
    assert kvasir.json("db", "check", status=1) == {"revision": None, "newest": "0005", "ok": False}
    assert "no database yet" in kvasir.fails("db", "check")
    assert not kvasir.data_dir.exists()
    assert "newest" in kvasir("db", "upgrade")
    assert kvasir.json("db", "check")["ok"] is True
    assert "newest" in kvasir("db", "check")
    kvasir("kb", "create", "hr")
    sizes = {one["name"]: one for one in kvasir.json("db", "check", "--sizes")["tables"]}
    assert sizes["knowledge_bases"]["rows"] == 1
    assert sizes["answers"]["bytes"] > 0
    assert "knowledge_bases" in kvasir("db", "check", "--sizes")


@pytest.mark.parametrize("url", ["nonsense", "mysql://me@host/db", "sqlite+aiosqlite:////proc/none/kvasir.db"])
def test_an_address_that_is_no_database_is_said(kvasir: Commands, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("KVASIR_DATABASE__URL", url)
    assert "database" in kvasir.fails("kb", "list")


def test_a_server_that_is_not_there_is_said_without_its_password(
    kvasir: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVASIR_DATABASE__URL", "postgresql://me:hush-hush@127.0.0.1:1/db")
    said = kvasir.fails("kb", "list")
    assert "cannot be reached" in said
    assert "hush" not in said


@pytest.mark.parametrize("name", [pytest.param("kvasir.db", marks=pytest.mark.sqlite("its file")), "index.db"])
@pytest.mark.parametrize("how", ["other", "flipped"])
def test_a_damaged_file_is_said_and_left_as_it_is(kvasir: Commands, name: str, how: str) -> None:
    """Protection: fault 77; no silent reset."""
    (kvasir.data_dir.parent / "tea.md").write_text("# Tea\n\nTea is at four.")
    kvasir("ingest", "tea.md", "--kb", "kb")
    file = kvasir.data_dir / name
    for beside in kvasir.data_dir.glob(f"{name}-*"):
        beside.unlink()
    whole = file.read_bytes()
    damaged = b"something else" if how == "other" else whole[:4096] + b"\xff" * (len(whole) - 4096)
    file.write_bytes(damaged)
    said = kvasir.fails("search", "tea", "--kb", "kb")
    assert str(file) in said
    assert "restore" in said
    assert file.read_bytes() == damaged


def test_a_place_that_cannot_be_written_is_said(kvasir: Commands, tmp_path: Path) -> None:
    """Protection: fault 77; a read-only place, and a file where a folder should be."""
    (tmp_path / "file").write_text("")
    for place in (Path("/proc/none"), tmp_path / "file"):
        kvasir.data_dir = place
        assert "--data-dir" in kvasir.fails("kb", "list")
        assert "--data-dir" in kvasir.fails("db", "upgrade")
        assert "cannot be used" in kvasir("doctor", status=1)


# ---------------------------------------------------------------- backups
def test_a_backup_goes_out_and_comes_back(kvasir: Commands, tmp_path: Path) -> None:
    """Protection: fault 95, by the command line; `test_archive.py` compares everything."""
    (tmp_path / "tea.md").write_text("# Tea\n\nTea is at four.")
    kvasir("ingest", "tea.md", "--kb", "kb")
    file = tmp_path / "kvasir.zip"
    assert "1 documents" in kvasir("backup", file)
    assert "exists already" in kvasir.fails("backup", file)
    assert "could not be written" in kvasir.fails("backup", tmp_path / "absent" / "kvasir.zip")
    before = kvasir.json("search", "tea", "--kb", "kb")["passages"]
    assert "data already" in kvasir.fails("restore", file)
    kvasir.data_dir = tmp_path / "second"
    assert "no file" in kvasir.fails("restore", tmp_path / "absent.zip")
    (tmp_path / "other.zip").write_text("no zip")
    assert "not a file of Kvasir's" in kvasir.fails("restore", tmp_path / "other.zip")
    assert "1 documents are back" in kvasir("restore", file)
    assert kvasir.json("search", "tea", "--kb", "kb")["passages"] == before


# ---------------------------------------------------------------- doctor
def test_the_doctor_says_what_is_wrong_and_what_to_do(
    kvasir: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tea.md").write_text("# Tea\n\nTea is at four.")
    kvasir("ingest", "tea.md", "--kb", "kb")
    found = kvasir.json("doctor")
    assert list(found) == ["ok", "findings"]
    assert found["ok"] is True
    assert {"what", "ok", "says"} == set(found["findings"][0])
    shutil.copy(kvasir.data_dir / "index.db", tmp_path / "kept.db")
    for file in kvasir.data_dir.glob("index.db*"):
        file.unlink()
    assert "kvasir kb reindex kb" in kvasir("doctor", status=1)
    monkeypatch.setenv("KVASIR_WEBB__PORT", "1")
    monkeypatch.setenv("KVASIR_ANSWER__ENGINE", "nope")
    wrong = [item["what"] for item in kvasir.json("doctor", status=1)["findings"] if not item["ok"]]
    assert wrong == ["Settings", "Knowledge base kb", "Engine nope"]
    monkeypatch.setenv("KVASIR_ORIGINALS__URL", str(tmp_path / "elsewhere"))
    assert "1 of the newest 1 are not there" in kvasir("doctor", status=1)


# ---------------------------------------------------------------- people
def test_people_and_their_keys(kvasir: Commands) -> None:
    assert "ann was added as owner" in kvasir(
        "user", "add", "ann", "--role", "owner", "--password-stdin", stdin=PASSWORD
    )
    kvasir("user", "add", "bob", "--password-stdin", stdin=f"{PASSWORD}\r\n")
    assert "already a user" in kvasir.fails("user", "add", "bob", "--password-stdin", stdin=PASSWORD)
    assert "password needs" in kvasir.fails("user", "add", "cat", "--password-stdin", stdin="x")
    assert "--password-stdin" in kvasir.fails("user", "add", "cat", stdin="")
    kvasir("user", "add", "cat", "--role", "king", status=2)
    kvasir("user", "password", "bob", "--password-stdin", stdin=PASSWORD + "!")
    made = kvasir.json("key", "create", "script", "--user", "bob", "--scope", "ask", "--scope", "read", "--days", "3")
    assert made["scopes"] == ["ask", "read"]
    (listed,) = kvasir.json("key", "list")["keys"]
    assert (listed["name"], listed["user"], listed["revoked"]) == ("script", "bob", False)
    assert made["key"] not in kvasir("key", "list")
    kvasir("key", "create", "other", "--user", "ann")
    assert "not shown again" in kvasir.err
    assert "no user named" in kvasir.fails("key", "create", "k", "--user", "nobody")
    kvasir("key", "revoke", made["id"])
    assert "no API key" in kvasir.fails("key", "revoke", "nothing")
    kvasir("user", "disable", "bob")
    assert {user["name"]: user["disabled"] for user in kvasir.json("user", "list")["users"]} == {
        "ann": False,
        "bob": True,
    }
    kvasir("user", "disable", "bob", "--undo")
    assert "only owner" in kvasir.fails("user", "disable", "ann")
    assert PASSWORD not in kvasir("user", "list") + kvasir.err


def test_ratings_are_listed_and_exported(kvasir: Commands, tmp_path: Path) -> None:
    assert kvasir.json("feedback", "list") == {"feedback": []}
    assert "0 ratings" in kvasir("feedback", "export", tmp_path / "ratings.csv")
    assert (tmp_path / "ratings.csv").is_file()
    assert ".csv or .jsonl" in kvasir.fails("feedback", "export", tmp_path / "ratings.pdf")
    assert kvasir.fails("feedback", "export", "/proc/none/ratings.csv")


# ---------------------------------------------------------------- the audit log
def test_commands_that_change_something_are_written_down_without_secrets(kvasir: Commands) -> None:
    kvasir("user", "add", "ann", "--role", "editor", "--password-stdin", stdin=PASSWORD)
    kvasir("kb", "create", "hr", "--private")
    kvasir("kb", "delete", "absent", "--yes", status=1)
    for reading in (("user", "list"), ("kb", "show", "hr"), ("key", "list")):
        kvasir(*reading)
    rows = peek(kvasir.data_dir, "SELECT person, action, object, CAST(changes AS text) FROM audit ORDER BY created_at")
    assert [row[:3] for row in rows] == [
        ("terminal:operator", "user.add", "ann"),
        ("terminal:operator", "kb.create", "hr"),
    ]
    assert PASSWORD not in str(rows)
    assert json.loads(rows[0][3])["role"] == "editor"
