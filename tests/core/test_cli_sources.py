"""`kvasir source`, `kvasir schedule` and `kvasir job`: from a folder to its documents, and what happens by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.commands import Commands

pytestmark = pytest.mark.usefixtures("parser_here")


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "tea.md").write_text("# Tea\n\nTea is served at four.")
    (folder / "cake.txt").write_text("Cake is cut at five.")
    return folder


@pytest.fixture
def kvasir(tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.setenv("KVASIR_EMBEDDER__KIND", "none")
    monkeypatch.setenv("KVASIR_SOURCES__FOLDERS", f'["{shelf}"]')
    monkeypatch.setenv("LANG", "en_GB.UTF-8")
    monkeypatch.chdir(tmp_path)
    commands = Commands(tmp_path / "data")
    commands("kb", "create", "menu")
    return commands


def test_a_source_is_added_synchronised_and_deleted(kvasir: Commands, shelf: Path) -> None:
    made = kvasir.json(
        "source", "add", "folder", "Shelf", shelf, "--kb", "menu", "--include", "*.md", "--when", "daily"
    )
    assert (made["state"], made["settings"]["include"]) == ("new", ["*.md"])
    assert "nonsense" in kvasir.fails("source", "add", "url", "Bad", "nonsense", "--kb", "menu")
    assert str(shelf) in kvasir.fails("source", "add", "folder", "Etc", "/etc", "--kb", "menu")
    done = kvasir.json("source", "sync", "Shelf", "--kb", "menu")
    assert (done["state"], done["documents"]) == ("done", 1)
    assert done["result"] == "1 new, 0 changed, 0 removed, 0 as they were."
    assert [item["name"] for item in kvasir.json("doc", "list", "--kb", "menu")["documents"]] == ["Shelf/tea.md"]
    assert "Shelf" in kvasir("source", "list", "--kb", "menu")
    (planned,) = kvasir.json("schedule", "list")["schedules"]
    assert (planned["kind"], planned["target"], planned["cron"]) == ("sync", made["id"], "0 3 * * *")
    assert "1 documents" in kvasir.fails("source", "delete", "Shelf", "--kb", "menu", "--documents")
    kvasir("source", "delete", "Shelf", "--kb", "menu", "--documents", "--yes")
    assert kvasir.json("doc", "list", "--kb", "menu")["total"] == 0
    assert kvasir.json("schedule", "list")["schedules"] == []
    assert "no source" in kvasir.fails("source", "sync", "Shelf", "--kb", "menu")


def test_a_schedule_is_made_run_and_deleted(kvasir: Commands) -> None:
    made = kvasir.json(
        "schedule", "add", "backup", "--when", "30 4 * * mon", "--timezone", "Asia/Shanghai", "--set", "keep=3",
        "--name", "Nightly",
    )  # fmt: skip
    assert (made["settings"], made["timezone"]) == ({"keep": 3, "index": False}, "Asia/Shanghai")
    assert "every Monday at 04:30 (Asia/Shanghai)" in kvasir("schedule", "list")
    assert "from 1 to 1000" in kvasir.fails("schedule", "add", "backup", "--set", "keep=0")
    assert "Hour" in kvasir.fails("schedule", "add", "backup", "--when", "0 25 * * *")
    assert "cannot be scheduled" in kvasir.fails("schedule", "add", "coffee")
    assert "Choose what" in kvasir.fails("schedule", "add", "sync", "--for", "nothing")
    kvasir("schedule", "run", "Nightly")
    (job,) = kvasir.json("job", "list")["jobs"]
    assert (job["kind"], job["state"]) == ("backup", "queued")
    kvasir("job", "cancel", job["id"])
    assert kvasir.json("schedule", "list")["schedules"][0]["last"]["state"] == "cancelled"
    kvasir("schedule", "delete", made["id"], "--yes")
    assert "no such schedule" in kvasir.fails("schedule", "run", "Nightly")
