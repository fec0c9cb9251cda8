"""`kvasir doc versions`, `restore` and `retry`: their words, their JSON keys, their exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.commands import Commands

pytestmark = pytest.mark.usefixtures("parser_here")


@pytest.fixture
def kvasir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """The command line on a knowledge base with a document that came in twice."""
    monkeypatch.setenv("KVASIR_EMBEDDER__KIND", "none")
    monkeypatch.setenv("LANG", "en_GB.UTF-8")
    monkeypatch.chdir(tmp_path)
    commands = Commands(tmp_path / "data")
    for hour in ("four", "five"):
        Path("tea.md").write_text(f"# Tea\n\nTea is at {hour}.")
        commands("ingest", "tea.md", "--kb", "kb")
    return commands


def test_a_former_version_is_listed_and_restored(kvasir: Commands) -> None:
    (version,) = kvasir.json("doc", "versions", "tea.md", "--kb", "kb")["versions"]
    assert set(version) == {"version", "size", "by", "replaced_at"}
    assert version["version"] == 1
    assert kvasir("doc", "restore", "tea.md", "--version", "1", "--kb", "kb") == "«tea.md» is version 1 again.\n"
    shown = kvasir.json("doc", "show", "tea.md", "--kb", "kb")
    assert [chunk["text"] for chunk in shown["chunks"]] == ["Tea is at four."]
    assert kvasir.fails("doc", "restore", "tea.md", "--version", "9", "--kb", "kb")


def test_what_failed_is_tried_again(kvasir: Commands) -> None:
    assert kvasir("doc", "retry", "--kb", "kb") == "No document of «kb» has failed.\n"
    Path("bad.pdf").write_bytes(b"%PDF-1.7 broken")
    kvasir("ingest", "bad.pdf", "--kb", "kb", status=1)
    kvasir("doc", "retry", "--kb", "kb", status=1)
    assert kvasir.err.startswith("  bad.pdf: ")
    (tried,) = kvasir.json("doc", "retry", "bad.pdf", "--kb", "kb", status=1)["documents"]
    assert (tried["name"], tried["status"], bool(tried["reason"])) == ("bad.pdf", "failed", True)
    kvasir("doc", "retry", "tea.md", "--kb", "kb")
    assert "It has not failed." in kvasir.err
