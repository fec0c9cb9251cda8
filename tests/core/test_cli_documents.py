"""`kvasir ingest`, `kb`, `doc`, `ask`, `search`, `eval` and `job`: their words, their JSON keys, their exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from tests.databases import copy_data
from tests.fakes.commands import Commands

pytestmark = pytest.mark.usefixtures("parser_here")

LEAVE = "# Leave\n\nAnnual leave is twenty-eight days for everybody in the house."
PARKING = "# Parking\n\nVisitors park in the yard behind the mill."


@pytest.fixture
def kvasir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.setenv("KVASIR_EMBEDDER__KIND", "none")
    monkeypatch.setenv("LANG", "en_GB.UTF-8")
    monkeypatch.chdir(tmp_path)
    return Commands(tmp_path / "data")


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    return write_papers(tmp_path / "papers")


def write_papers(folder: Path) -> Path:
    (folder / "yard").mkdir(parents=True)
    (folder / "leave.md").write_text(LEAVE)
    (folder / "yard" / "parking.md").write_text(PARKING)
    (folder / ".hidden.md").write_text("# Hidden\n\nNot for anybody.")
    (folder / "~$leave.docx").write_bytes(b"lock")
    return folder


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose knowledge base «kb» holds the papers."""
    folder = tmp_path_factory.mktemp("stock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KVASIR_EMBEDDER__KIND", "none")
        Commands(folder / "data")("ingest", write_papers(folder / "papers"), "--kb", "kb")
    return folder / "data"


@pytest.fixture
def stocked(kvasir: Commands, stock: Path) -> Commands:
    """The command line on a copy of it."""
    copy_data(stock, kvasir.data_dir)
    return kvasir


# ---------------------------------------------------------------- ingest
def test_a_link_that_leads_nowhere_stops_nothing(kvasir: Commands, papers: Path) -> None:
    (papers / "loop.md").symlink_to("loop.md")
    (papers / "absent.md").symlink_to("nowhere.md")
    names = {document["name"] for document in kvasir.json("ingest", papers, "--kb", "kb")["documents"]}
    assert names == {"leave.md", "yard/parking.md"}


def test_a_folder_comes_in_and_is_not_done_again(kvasir: Commands, papers: Path) -> None:
    first = kvasir.json("ingest", papers, "--kb", "kb")
    assert set(first) == {"kb", "documents", "seconds"}
    assert first["kb"] == "kb"
    assert first["documents"] == [
        {"name": "leave.md", "status": "indexed", "chunks": 1, "reason": None},
        {"name": "yard/parking.md", "status": "indexed", "chunks": 1, "reason": None},
    ]
    (papers / "leave.md").write_text(LEAVE + " It was less.")
    second = kvasir.json("ingest", papers, "--kb", "kb")
    assert [(item["name"], item["status"]) for item in second["documents"]] == [
        ("leave.md", "indexed"),
        ("yard/parking.md", "unchanged"),
    ]
    assert "1 indexed, 1 unchanged, 0 failed" not in kvasir("ingest", papers / "leave.md", "--kb", "kb")
    assert "0 indexed, 1 unchanged, 0 failed" in kvasir.out


def test_a_bad_file_costs_only_itself(kvasir: Commands, papers: Path) -> None:
    (papers / "bad.pdf").write_bytes(b"%PDF-1.7 broken")
    (papers / "empty.md").write_bytes(b"")
    (papers / "[red]odd\x1b[31m.md").write_text("# Odd\n\nIts name is a trick.")
    found = {item["name"]: item for item in kvasir.json("ingest", papers, "--kb", "kb")["documents"]}
    assert {name: item["status"] for name, item in found.items()} == {
        "[red]odd[31m.md": "indexed",
        "bad.pdf": "failed",
        "empty.md": "failed",
        "leave.md": "indexed",
        "yard/parking.md": "indexed",
    }
    assert found["bad.pdf"]["reason"]
    kvasir("ingest", papers, "--kb", "kb")
    assert "2 failed" in kvasir.out
    assert "bad.pdf: " in kvasir.err
    assert "[red]odd[31m.md" in kvasir("doc", "list", "--kb", "kb")
    assert "\x1b" not in kvasir.out
    only = kvasir.json("ingest", papers / "bad.pdf", "--kb", "kb", status=1)
    assert [item["status"] for item in only["documents"]] == ["failed"]


def test_an_address_inside_is_not_fetched(kvasir: Commands, httpserver: HTTPServer) -> None:
    """Protection: faults 25 and 31; a server on this machine is never asked."""
    httpserver.expect_request("/").respond_with_data("secret")
    found = kvasir.json("ingest", httpserver.url_for("/"), "--kb", "kb", status=1)
    assert [(item["name"], item["status"]) for item in found["documents"]] == [(httpserver.url_for("/"), "failed")]
    assert "private network" in found["documents"][0]["reason"]
    assert httpserver.log == []
    assert "neither a file nor a folder" in kvasir.fails("ingest", "file:///etc/passwd", "--kb", "kb")


def test_what_cannot_be_ingested_is_said_before_anything_is_made(kvasir: Commands, papers: Path) -> None:
    assert "/nowhere is neither" in kvasir.fails("ingest", papers, "/nowhere", "--kb", "kb")
    assert not kvasir.data_dir.exists()
    (papers / "yard" / "leave.md").write_text("# Other\n\nAnother.")
    assert "«leave.md»" in kvasir.fails("ingest", papers / "leave.md", papers / "yard" / "leave.md", "--kb", "kb")
    assert "letters, digits" in kvasir.fails("ingest", papers, "--kb", "../kb")
    kvasir("ingest", "--kb", "kb", status=2)
    kvasir("ingest", papers, status=2)


# ---------------------------------------------------------------- ask, search, eval
def test_answers_and_passages_have_the_keys_that_scripts_read(stocked: Commands) -> None:
    answer = stocked.json("ask", "How many days of annual leave are there?", "--kb", "kb")
    assert list(answer) == ["answer", "answered", "sources", "engine", "timings_ms"]
    assert answer["answered"] is True
    assert "twenty-eight days" in answer["answer"]
    assert answer["engine"] == "extractive"
    assert list(answer["sources"][0]) == ["n", "document", "title", "locator", "score", "text"]
    assert (answer["sources"][0]["document"], answer["sources"][0]["title"]) == ("leave.md", "Leave")
    found = stocked.json("search", "visitors park", "--limit", "1", "--mode", "keyword")
    assert list(found) == ["passages", "took_ms"]
    (passage,) = found["passages"]
    assert list(passage) == ["document", "chunk", "score", "vector_score", "keyword_score", "text", "locator"]
    assert (passage["document"], passage["chunk"], passage["vector_score"]) == ("yard/parking.md", 0, None)
    assert "yard/parking.md" in stocked("search", "visitors park")
    assert "twenty-eight" in stocked("ask", "How many days of annual leave are there?", "--kb", "kb")


def test_questions_that_cannot_be_asked_are_said(kvasir: Commands) -> None:
    assert "no knowledge base yet" in kvasir.fails("ask", "Who?")
    kvasir("kb", "create", "one")
    kvasir("kb", "create", "two")
    assert "--kb; there are: one, two" in kvasir.fails("ask", "Who?")
    assert "there are: one, two" in kvasir.fails("search", "Who?", "--kb", "three")
    assert "question first" in kvasir.fails("search", " ", "--kb", "one")
    assert "question first" in kvasir.fails("ask", " ", "--kb", "one", "--json")
    assert "no engine named «nope»" in kvasir.fails("ask", "Who?", "--kb", "one", "--engine", "nope", "--json")
    kvasir("ask", "--kb", "one", "--json", status=2)
    kvasir("search", "Who?", "--mode", "psychic", status=2)


def test_an_evaluation_measures_what_it_says(stocked: Commands, tmp_path: Path) -> None:
    lines = [
        {"question": "How many days of annual leave?", "answers": ["twenty-eight days"], "document": "leave.md"},
        {"question": "Where do visitors park?", "answers": ["in the yard"], "document": "yard/parking.md"},
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    measured = stocked.json("eval", file, "--kb", "kb")
    assert list(measured) == [
        "n", "recall@1", "recall@5", "recall@10", "mrr@10", "answer_contains", "refused", "ms_p50", "ms_p95",
    ]  # fmt: skip
    assert (measured["n"], measured["recall@1"], measured["answer_contains"]) == (2, 1.0, 1.0)
    assert "recall@1" in stocked("eval", file, "--kb", "kb")
    file.write_text("no json")
    assert "Line 1" in stocked.fails("eval", file, "--kb", "kb")
    assert "cannot be read" in stocked.fails("eval", tmp_path / "absent.jsonl", "--kb", "kb")


def test_an_evaluation_set_is_filled_from_a_file_and_run_by_its_name(stocked: Commands, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps({"question": "Where do visitors park?", "document": "yard/parking.md"}))
    assert "no evaluation sets" in stocked.fails("eval", "--kb", "kb", "--set", "Everyday")
    first = stocked.json("eval", file, "--kb", "kb", "--set", "Everyday")
    again = stocked.json("eval", "--kb", "kb", "--set", "Everyday")
    assert list(first) == list(again)
    assert (first["n"], again["n"], again["recall@1"]) == (1, 1, 1.0)
    assert "«Everyday»" in stocked.fails("eval", "--kb", "kb", "--set", "Other")
    stocked("eval", "--kb", "kb", status=2)


# ---------------------------------------------------------------- kb
def test_a_knowledge_base_from_first_to_last(kvasir: Commands, papers: Path) -> None:
    made = kvasir.json("kb", "create", "kb", "--description", "Ours", "--chunk-size", "100", "--chunk-overlap", "10")
    assert (made["name"], made["description"], made["chunk_size"], made["documents"]) == ("kb", "Ours", 100, 0)
    assert "already" in kvasir.fails("kb", "create", "kb")
    assert "letters" in kvasir.fails("kb", "create", "a/b")
    assert "chunk size" in kvasir.fails("kb", "create", "small", "--chunk-size", "1")
    kvasir("ingest", papers, "--kb", "kb")
    assert [kb["name"] for kb in kvasir.json("kb", "list")["kbs"]] == ["kb"]
    assert "keywords only" in kvasir("kb", "list")
    shown = kvasir.json("kb", "show", "kb")
    assert (shown["documents"], shown["chunks"], shown["vectors"]) == (2, 2, False)
    assert "chunk_overlap" in kvasir("kb", "show", "kb")
    assert "2 documents" in kvasir("kb", "reindex", "kb", "--chunk-size", "64", "--chunk-overlap", "0")
    assert kvasir.json("kb", "show", "kb")["chunk_size"] == 64
    assert "--yes" in kvasir.fails("kb", "delete", "kb", stdin="")
    kvasir("kb", "delete", "kb", "--yes")
    assert kvasir.json("kb", "list") == {"kbs": []}
    assert "no knowledge base" in kvasir.fails("kb", "show", "kb")


def test_a_knowledge_base_goes_out_and_comes_in(stocked: Commands, tmp_path: Path) -> None:
    file = tmp_path / "kb.zip"
    assert "2 documents were written" in stocked("kb", "export", "kb", file)
    assert "exists already" in stocked.fails("kb", "export", "kb", file)
    assert "already" in stocked.fails("kb", "import", file)
    assert "2 documents came in" in stocked("kb", "import", file, "--name", "again")
    assert stocked.json("search", "visitors", "--kb", "again")["passages"][0]["document"] == "yard/parking.md"
    assert "is no" in stocked.fails("kb", "import", tmp_path / "absent.zip")


# ---------------------------------------------------------------- doc, job
def test_documents_are_listed_shown_and_deleted(stocked: Commands) -> None:
    listed = stocked.json("doc", "list", "--kb", "kb")
    assert [(item["name"], item["status"]) for item in listed["documents"]] == [
        ("leave.md", "indexed"),
        ("yard/parking.md", "indexed"),
    ]
    assert listed["total"] == 2
    shown = stocked.json("doc", "show", "leave.md", "--kb", "kb")
    assert [chunk["text"] for chunk in shown["chunks"]] == [LEAVE.partition("\n\n")[2]]
    assert "twenty-eight" in stocked("doc", "show", "leave.md", "--kb", "kb")
    assert stocked.json("doc", "list", "--kb", "kb", "--status", "failed")["total"] == 0
    stocked("doc", "list", "--kb", "kb", "--status", "happy", status=2)
    assert "no document named «tea.md»" in stocked.fails("doc", "show", "tea.md", "--kb", "kb")
    assert "--yes" in stocked.fails("doc", "delete", "leave.md", "--kb", "kb", stdin="")
    assert "no document named" in stocked.fails("doc", "delete", "leave.md", "tea.md", "--kb", "kb", "--yes")
    stocked("doc", "delete", "leave.md", "leave.md", "--kb", "kb", "--yes")
    assert [item["name"] for item in stocked.json("doc", "list", "--kb", "kb")["documents"]] == ["yard/parking.md"]


def test_jobs_are_listed_and_only_ended_ones_tried_again(stocked: Commands) -> None:
    (job,) = stocked.json("job", "list")["jobs"]
    assert (job["kind"], job["state"], job["kb"], job["error"]) == ("ingest", "done", "kb", None)
    assert (job["done"], job["total"]) == (2, 2)
    listed = stocked("job", "list", "--state", "done")
    assert job["id"] in listed
    assert "2 / 2" in listed
    assert stocked.json("job", "list", "--state", "failed") == {"jobs": []}
    assert "ended already" in stocked.fails("job", "cancel", job["id"])
    assert "failed or was cancelled" in stocked.fails("job", "retry", job["id"])
    assert "no such job" in stocked.fails("job", "retry", "x")


# ---------------------------------------------------------------- words
def test_people_read_their_own_language(kvasir: Commands, papers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert "已索引 2 份" in kvasir("ingest", papers, "--kb", "kb")
    assert "没有" in kvasir.fails("kb", "show", "x")
    assert list(kvasir.json("kb", "show", "kb"))[:2] == ["name", "description"]


# ---------------------------------------------------------------- narrowing
def test_a_search_is_narrowed_to_documents_and_folders(stocked: Commands) -> None:
    def found(*narrowed: str) -> set[str]:
        passages = stocked.json("search", "the house and the yard", "--kb", "kb", *narrowed)["passages"]
        return {passage["document"] for passage in passages}

    assert found() == {"leave.md", "yard/parking.md"}
    assert found("--folder", "yard") == {"yard/parking.md"}
    assert found("--document", "leave.md") == {"leave.md"}
    assert found("--document", "leave.md", "--folder", "yard") == set()
    assert found("--meta", "author=nobody") == set()
    stocked("search", "house", "--kb", "kb", "--meta", "author", status=2)


def test_an_answer_comes_from_the_documents_chosen(stocked: Commands) -> None:
    question = ("ask", "How long is annual leave?", "--kb", "kb")
    assert stocked.json(*question, "--document", "leave.md")["answered"]
    assert not stocked.json(*question, "--folder", "yard")["answered"]


def test_a_link_out_of_the_folder_is_not_followed(kvasir: Commands, papers: Path, tmp_path: Path) -> None:
    """Protection: `_files`; a folder from a stranger must not bring in what lies beside it."""
    (tmp_path / "secret.md").write_text("# Secret\n\nThe key is under the mat.")
    (papers / "notes.md").symlink_to(tmp_path / "secret.md")
    (papers / "copy.md").symlink_to(papers / "leave.md")
    found = {d["name"]: d for d in kvasir.json("ingest", papers, "--kb", "kb")["documents"]}
    assert found["notes.md"]["status"] == "failed"
    assert "link" in found["notes.md"]["reason"]
    assert found["copy.md"]["status"] == "indexed"
    assert kvasir.json("search", "key mat", "--kb", "kb", "--document", "notes.md")["passages"] == []


def test_people_of_chat_platforms_are_let_in_and_out(kvasir: Commands) -> None:
    kvasir("kb", "create", "hr", "--private")
    assert "slack:T1:U9, slack:T2:*" in kvasir("kb", "allow", "hr", "slack:T1:U9", "slack:T2:*")
    assert kvasir.err == ""
    assert kvasir.json("kb", "show", "hr")["allowed"] == ["slack:T1:U9", "slack:T2:*"]
    assert "slack:T1:U9, slack:T2:*" in kvasir("kb", "show", "hr")
    kvasir("kb", "disallow", "hr", "slack:T2:*")
    assert kvasir.json("kb", "show", "hr")["allowed"] == ["slack:T1:U9"]
    assert "slack:T2:*" in kvasir.fails("kb", "disallow", "hr", "slack:T2:*")
    assert "slack:T1:U9" in kvasir.fails("kb", "allow", "hr", "U9")
    assert "nowhere" in kvasir.fails("kb", "allow", "nowhere", "slack:T1:U9")


def test_letting_people_in_to_what_is_open_is_said_to_be_needless(kvasir: Commands) -> None:
    kvasir("kb", "create", "open")
    kvasir("kb", "allow", "open", "slack:T1:U9")
    assert "not private" in kvasir.err
