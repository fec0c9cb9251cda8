"""`kvasir kb set`, `reindex`, `switch`, `rollback`, `discard` and `move`: what they say, and their exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.commands import Commands

pytestmark = pytest.mark.usefixtures("parser_here")

LONG = "\n\n".join(f"Paragraph {n} is about annual leave, and takes some words to say so." for n in range(30))


@pytest.fixture
def kvasir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.setenv("KVASIR_EMBEDDER__KIND", "none")
    monkeypatch.setenv("LANG", "en_GB.UTF-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leave.md").write_text(f"# Leave\n\n{LONG}")
    commands = Commands(tmp_path / "data")
    commands("ingest", tmp_path / "leave.md", "--kb", "kb")
    return commands


def test_settings_are_changed_and_refused(kvasir: Commands) -> None:
    found = kvasir.json(
        "kb", "set", "kb", "top_k=8", "min_evidence=0.25", "mode=keyword", "private=yes", "embedder=none"
    )
    wanted = {"top_k": 8, "min_evidence": 0.25, "mode": "keyword", "private": True, "wanted_embedder": ""}
    assert wanted.items() <= found.items()
    assert kvasir.json("kb", "set", "kb", "top_k=", "mode=")["top_k"] is None
    assert kvasir.json("kb", "show", "kb")["min_evidence"] == 0.25
    kvasir("kb", "set", "kb", "chunk_size=64", "chunk_overlap=0")
    assert "kvasir kb reindex kb" in kvasir.err
    assert "top_k is a number from 1 to 50" in kvasir.fails("kb", "set", "kb", "top_k=many")
    assert "nonesuch" in kvasir.fails("kb", "set", "kb", "engine=nonesuch")
    for given, kept in (("extractive, openai", ["extractive", "openai"]), ("none", []), ("", None)):
        assert kvasir.json("kb", "set", "kb", f"fallbacks={given}")["fallbacks"] == kept
    for wrong in ("top_k", "live_generation_id=x"):
        kvasir("kb", "set", "kb", wrong, status=2)


def test_an_index_waits_and_is_gone_over_to_and_back(kvasir: Commands) -> None:
    before = kvasir.json("kb", "show", "kb")["chunks"]
    assert "no index that waits" in kvasir.fails("kb", "switch", "kb")
    kvasir("kb", "set", "kb", "chunk_size=64", "chunk_overlap=0")
    assert f"({before} in the one in use)" in kvasir("kb", "reindex", "kb", "--beside")
    shown = kvasir.json("kb", "show", "kb")
    assert (shown["chunks"], [index["state"] for index in shown["indexes"]]) == (before, ["live", "ready"])
    kvasir("kb", "switch", "kb")
    assert kvasir.json("kb", "show", "kb")["chunks"] > before
    kvasir("kb", "rollback", "kb")
    assert kvasir.json("kb", "show", "kb")["chunks"] == before
    kvasir("kb", "reindex", "kb")
    assert "no former index" in kvasir.fails("kb", "rollback", "kb")
    kvasir("kb", "reindex", "kb", "--beside")
    kvasir("kb", "discard", "kb")
    assert "no index that waits" in kvasir.fails("kb", "discard", "kb")
    assert [index["state"] for index in kvasir.json("kb", "show", "kb")["indexes"]] == ["live"]


def test_who_is_let_in_and_what_is_lost_are_said(kvasir: Commands) -> None:
    kvasir("kb", "allow", "kb", "slack:T1:*")
    assert kvasir.json("kb", "show", "kb")["allowed"] == ["slack:T1:*"]
    assert "Only accounts can edit" in kvasir.fails("kb", "allow", "kb", "slack:T1:U9", "--right", "edit")
    assert "no account" in kvasir.fails("kb", "allow", "kb", "ann")
    assert "1 documents" in kvasir.fails("kb", "delete", "kb")


@pytest.mark.sqlite("on PostgreSQL pgvector is set up, too")
def test_an_index_is_moved_to_a_store_there_is(kvasir: Commands) -> None:
    there = [{"kb": "kb", "store": "local", "documents": 0, "chunks": 0, "is_moved": False}]
    assert kvasir.json("kb", "move", "kb", "--store", "local") == {"kbs": there}
    assert kvasir.json("kb", "move", "--all", "--store", "local") == {"kbs": there}
    assert [index["store"] for index in kvasir.json("kb", "show", "kb")["indexes"]] == ["local"]
    assert "in «local» already" in kvasir("kb", "move", "kb", "--store", "local")
    kvasir("kb", "create", "empty")
    assert "no index yet" in kvasir("kb", "move", "empty", "--store", "local")
    assert "nonesuch" in kvasir.fails("kb", "move", "kb", "--store", "nonesuch")
    assert "nonesuch" in kvasir.fails("kb", "move", "nonesuch", "--store", "local")
    assert "KVASIR_PGVECTOR__URL" in kvasir.fails("kb", "move", "kb", "--store", "pgvector")
    for wrong in (("--store", "local"), ("kb",), ("kb", "--all", "--store", "local")):
        kvasir("kb", "move", *wrong, status=2)
