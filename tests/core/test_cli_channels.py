"""`kvasir channel`: its words, its JSON keys, its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import registry
from tests.fakes.commands import Commands

PLATFORM = registry.names("kvasir.platforms")[0]


@pytest.fixture
def kvasir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.setenv("KVASIR_EMBEDDER__KIND", "none")
    monkeypatch.setenv("LANG", "en_GB.UTF-8")
    monkeypatch.chdir(tmp_path)
    commands = Commands(tmp_path / "data")
    commands("kb", "create", "handbook")
    commands("kb", "create", "hr", "--private")
    return commands


def test_a_channel_is_bound_changed_and_unbound(kvasir: Commands, tmp_path: Path) -> None:
    place = f"{PLATFORM}:T1:C:9"
    (tmp_path / "prompt.md").write_text("Be brief.\nBe kind.\n")
    made = kvasir.json("channel", "bind", place, "--kb", "handbook", "--model", "extractive", "--prompt", "prompt.md")
    assert set(made) == {"platform", "workspace", "channel", "name", "kbs", "engine", "instructions", "updated_by",
                         "updated_at"}  # fmt: skip
    assert (made["platform"], made["workspace"], made["channel"]) == (PLATFORM, "T1", "C:9")
    assert (made["kbs"], made["engine"], made["instructions"]) == (["handbook"], "extractive", "Be brief.\nBe kind.")
    changed = kvasir.json(
        "channel", "set", place, "--mode", "auto", "--language", "zh", "--no-feedback", "--follow-ups",
        "--manager", "slack:T1:U1", "--helper", "U1", "--helper", "U2", "--name", "#help", "--reset", "prompt",
    )  # fmt: skip
    assert (changed["mode"], changed["language"], changed["feedback"], changed["follow_ups"]) == (
        "auto",
        "zh",
        False,
        True,
    )
    assert (changed["managers"], changed["helpers"], changed["name"]) == (["slack:T1:U1"], ["U1", "U2"], "#help")
    assert (changed["kbs"], "instructions" in changed) == (["handbook"], False)
    assert kvasir.json("channel", "list")["channels"] == [changed]
    assert "kb=handbook; model=extractive; mode=auto" in kvasir("channel", "list")
    kvasir("channel", "unbind", place)
    assert kvasir.json("channel", "list") == {"channels": []}
    assert place in kvasir.fails("channel", "unbind", place)


def test_workspaces_and_platforms_are_bound_too(kvasir: Commands) -> None:
    kvasir("channel", "bind", PLATFORM, "--kb", "handbook")
    assert f"{PLATFORM}:T1: kb=handbook, hr" in kvasir(
        "channel", "bind", f"{PLATFORM}:T1", "--kb", "handbook", "--kb", "hr"
    )
    assert "«hr» is private" in kvasir.err
    found = kvasir.json("channel", "list")["channels"]
    assert [(item["workspace"], item["channel"]) for item in found] == [("", ""), ("T1", "")]


@pytest.mark.parametrize(
    "place", ["", ":T1", "nowhere:T1", f"{PLATFORM}:T1:", f"{PLATFORM}:", " x", f"{PLATFORM}:a\nb"]
)
def test_what_is_no_place_is_said(kvasir: Commands, place: str) -> None:
    assert "PLATFORM:WORKSPACE" in kvasir.fails("channel", "set", place, "--mode", "off") or "no platform" in kvasir.err


def test_what_cannot_be_set_is_said(kvasir: Commands) -> None:
    place = f"{PLATFORM}:T1:C9"
    assert "nowhere" in kvasir.fails("channel", "bind", place, "--kb", "nowhere")
    assert "extractive" in kvasir.fails("channel", "set", place, "--model", "gpt")
    assert "absent.md" in kvasir.fails("channel", "set", place, "--prompt", "absent.md")
    assert "what to set" in kvasir.fails("channel", "set", place)
    kvasir("channel", "set", place, "--mode", "loud", status=2)
    kvasir("channel", "bind", place, status=2)
    assert kvasir.json("channel", "list") == {"channels": []}
