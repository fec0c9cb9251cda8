"""`kvasir model`: its words, its JSON keys, its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.databases import peek
from tests.fakes.commands import Commands

KEY = "sk-very-secret-key-0004"


@pytest.fixture
def kvasir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.setenv("KVASIR_EMBEDDER__KIND", "none")
    monkeypatch.setenv("LANG", "en_GB.UTF-8")
    monkeypatch.chdir(tmp_path)
    return Commands(tmp_path / "data")


def named(kvasir: Commands, name: str) -> dict[str, object]:
    found: list[dict[str, object]] = kvasir.json("model", "list")["models"]
    return next(one for one in found if one["name"] == name)


def test_a_model_is_added_tried_used_and_removed(kvasir: Commands) -> None:
    made = kvasir.json("model", "add", "poet", "--adapter", "scripted", "--set", "reply=Mead.", "--set", "parallel=2")
    assert set(made) == {"model"}
    assert set(made["model"]) == {
        "kind", "name", "adapter", "default", "enabled", "added", "model", "server", "settings", "secrets", "memory",
        "used_by",
    }  # fmt: skip
    assert made["model"]["settings"] == {"reply": "Mead.", "parallel": 2}
    tried = kvasir.json("model", "test", "poet")
    assert (tried["ok"], tried["error"], tried["text"]) == (True, None, "Mead.")
    assert "Mead." in kvasir("model", "test", "poet")
    kvasir("model", "use", "poet")
    assert named(kvasir, "poet")["default"]
    assert "default" in kvasir.fails("model", "unload", "poet")
    kvasir("model", "use", "extractive")
    kvasir("model", "unload", "poet")
    assert not named(kvasir, "poet")["enabled"]
    kvasir("model", "load", "poet")
    kvasir("model", "set", "poet", "--set", "reply=Ale.", "--set", "parallel=")
    assert named(kvasir, "poet")["settings"] == {"reply": "Ale."}
    kvasir("model", "remove", "poet", "--yes")
    assert "poet" in kvasir.fails("model", "test", "poet")


def test_a_key_is_read_from_stdin_and_seen_nowhere(kvasir: Commands, tmp_path: Path) -> None:
    given = ("--preset", "openai", "--set", "model=m", "--key-stdin", "--json")
    made = json.loads(kvasir("model", "add", "far", *given, stdin=KEY + "\n"))
    assert made["model"]["secrets"] == ["api_key"]
    assert made["model"]["server"] == "api.openai.com"
    kept = [str(row) for table in ("models", "audit") for row in peek(tmp_path / "data", f"SELECT * FROM {table}")]
    assert any("model.add" in row for row in kept)
    assert KEY not in "".join(kept)


def test_what_is_wrong_is_said(kvasir: Commands) -> None:
    assert "base_url" in kvasir.fails("model", "add", "x", "--set", "model=m")
    assert "FIELD=VALUE" in kvasir.fails("model", "add", "x", "--set", "model")
    assert "ollama" in kvasir.fails("model", "add", "x", "--preset", "nobody")
    assert "extractive" in kvasir.fails("model", "use", "nobody")
    assert "settings file" in kvasir.fails("model", "load", "extractive")


def test_a_models_path_is_kept_whole_since_whoever_opens_it_stands_elsewhere(
    kvasir: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    paths = {"models/a.gguf": f"{tmp_path}/models/a.gguf", "~/a.gguf": "/home/anna/a.gguf"}
    for number, (given, kept) in enumerate(paths.items()):
        name = f"model {number}"
        made = kvasir.json("model", "add", name, "--adapter", "llamacpp", "--set", f"model_path={given}")["model"]
        assert (made["settings"], made["model"]) == ({"model_path": kept}, "a.gguf")
