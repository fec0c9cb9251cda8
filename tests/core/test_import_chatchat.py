"""`kvasir kb import-chatchat`: what LangChain's real files give, and what hostile ones cannot do."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.imports import chroma, docstore
from core.imports.chatchat import Found, survey
from core.imports.databases import reading
from core.imports.pieces import joined
from core.imports.prompts import instructions
from tests.fakes.commands import Commands

PAYLOADS = Path(__file__).parent.parent / "payloads" / "chatchat"
TEXTS = [
    ("Tea is served at four in the kitchen.", "handbook/tea.md"),
    ("Cake comes on Fridays.", "handbook/tea.md"),
    ("出差结束后十五天内提交发票。发票须写明公司名称和税号。The travel desk books trains.", "出差/报销.txt"),
    ("The travel desk books trains. Ask for a window seat.", "出差/报销.txt"),
    ("The lift is out of order on Mondays.", "/opt/chatchat/knowledge_base/samples/content/notes.txt"),
]
TABLES = """
CREATE TABLE knowledge_base (id INTEGER PRIMARY KEY, kb_name VARCHAR(50), kb_info VARCHAR(200), vs_type VARCHAR(50),
    embed_model VARCHAR(50), file_count INTEGER, create_time DATETIME);
CREATE TABLE knowledge_file (id INTEGER PRIMARY KEY, file_name VARCHAR(255), file_ext VARCHAR(10), kb_name VARCHAR(50),
    document_loader_name VARCHAR(50), text_splitter_name VARCHAR(50), create_time DATETIME, file_version INTEGER,
    file_mtime FLOAT, file_size INTEGER, custom_docs BOOLEAN, docs_count INTEGER);
CREATE TABLE summary_chunk (id INTEGER PRIMARY KEY, kb_name VARCHAR(50), summary_context VARCHAR(255));
CREATE TABLE message (id VARCHAR(32) PRIMARY KEY, query VARCHAR(4096), response VARCHAR(4096));
INSERT INTO knowledge_base VALUES (1, 'samples', '差旅与茶点', 'faiss', 'bge-large-zh', 3, NULL);
INSERT INTO knowledge_base VALUES (2, 'notes', '关于notes的知识库', 'chromadb', 'm3e-base', 1, NULL);
INSERT INTO knowledge_base VALUES (3, 'moved away', '', 'faiss', 'm3e-base', 0, NULL);
INSERT INTO knowledge_file (file_name, kb_name, custom_docs) VALUES ('handbook/tea.md', 'samples', 1);
INSERT INTO knowledge_file (file_name, kb_name, custom_docs) VALUES ('出差/报销.txt', 'samples', 0);
INSERT INTO knowledge_file (file_name, kb_name, custom_docs) VALUES ('lost.pdf', 'samples', 0);
INSERT INTO summary_chunk (kb_name, summary_context) VALUES ('samples', 'About tea.');
INSERT INTO message VALUES ('m1', 'q', 'a');
"""


def database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(TABLES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As Langchain-Chatchat leaves it: one knowledge base with FAISS and two originals, one with Chroma and none."""
    root = tmp_path / "chatchat" / "knowledge_base"
    content = root / "samples" / "content"
    (content / "handbook").mkdir(parents=True)
    (content / "handbook" / "tea.md").write_text("# Tea\n\nTea is served at four. Cake comes on Fridays.\n", "utf-8")
    (content / "menu.txt").write_text("Soup on Tuesdays.\n", "utf-8")
    (content / ".hidden").write_text("x", "utf-8")
    index = root / "samples" / "vector_store" / "bge-large-zh"
    index.mkdir(parents=True)
    for name in ("index.pkl", "index.faiss"):
        shutil.copy(PAYLOADS / name, index)
    notes = root / "notes" / "vector_store" / "m3e-base"
    notes.mkdir(parents=True)
    (notes / "chroma.sqlite3").write_bytes(gzip.decompress((PAYLOADS / "chroma.sqlite3.gz").read_bytes()))
    database(root / "info.db")
    return root.parent


def named(found: list[Found], name: str) -> Found:
    (one,) = [each for each in found if each.name == name]
    return one


# ---------------------------------------------------------------- the real files
@pytest.mark.parametrize("name", ["index.pkl", "index-pydantic1.pkl"])
def test_the_texts_of_a_docstore(name: str) -> None:
    assert [(piece.text, piece.source) for piece in docstore.pieces(PAYLOADS / name)] == TEXTS
    assert docstore.vectors_in(PAYLOADS / "index.faiss") == (5, 4)


def test_the_texts_of_a_chroma_folder(folder: Path) -> None:
    found = chroma.collections(folder / "knowledge_base" / "notes" / "vector_store" / "m3e-base" / "chroma.sqlite3")
    assert {name: [(piece.text, piece.source) for piece in pieces] for name, pieces in found.items()} == {
        "notes": TEXTS
    }


def test_a_folder_is_surveyed(folder: Path) -> None:
    found = survey(folder)
    assert [one.name for one in found] == ["notes", "samples"]
    samples, notes = named(found, "samples"), named(found, "notes")
    assert (samples.description, notes.description) == ("差旅与茶点", "")
    assert sorted(original.name for original in samples.originals) == ["handbook/tea.md", "menu.txt"]
    assert sorted(samples.texts) == ["notes.txt", "出差/报销.txt"]
    text = samples.texts["出差/报销.txt"]
    assert text.startswith("> ")
    assert text.count("The travel desk books trains.") == 1
    assert text.endswith("The travel desk books trains. Ask for a window seat.\n")
    assert sorted(notes.texts) == ["handbook/tea.md", "notes.txt", "出差/报销.txt"]
    left_out = {left.what: left.reason for one in found for left in one.left_out}
    assert sorted(left_out) == ["handbook/tea.md", "info.db", "lost.pdf", "moved away", "samples"]


def test_one_knowledge_base_or_index_alone(folder: Path, tmp_path: Path) -> None:
    root = folder / "knowledge_base"
    for place in (root, root / "samples"):
        assert named(survey(place), "samples").description == "差旅与茶点"
    (bare,) = survey(root / "samples" / "vector_store" / "bge-large-zh")
    assert sorted(bare.texts) == ["handbook/tea.md", "notes.txt", "出差/报销.txt"]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="nothing"):
        survey(tmp_path / "nothing")


def test_chunks_are_put_together() -> None:
    assert joined(["one two three four", "three four five", "six"]) == "one two three four five\n\nsix"
    assert joined(["a b", "b c"]) == "a b\n\nb c"
    assert joined([]) == ""


# ---------------------------------------------------------------- the command
@pytest.fixture
def kvasir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.setenv("KVASIR_EMBEDDER__KIND", "none")
    monkeypatch.setenv("LANG", "en_GB.UTF-8")
    return Commands(tmp_path / "data")


def test_everything_is_brought_and_the_second_time_nothing_is_new(kvasir: Commands, folder: Path) -> None:
    config = folder / "prompt_config.py"
    config.write_text(
        'PROMPT_TEMPLATES = {}\nPROMPT_TEMPLATES["knowledge_base_chat"] = {"default": """\n'
        '<指令>像图书馆员一样回答。</指令>\n<已知信息>{{ context }}</已知信息>、\n<问题>{{ question }}</问题>\n"""}\n',
        "utf-8",
    )
    found = kvasir.json("kb", "import-chatchat", folder, "--prompts", config)
    assert [(one["kb"], len(one["documents"])) for one in found["kbs"]] == [("notes", 3), ("samples", 4)]
    assert {document["status"] for one in found["kbs"] for document in one["documents"]} == {"indexed"}
    shown = kvasir.json("kb", "show", "samples")
    assert (shown["description"], shown["instructions"]) == ("差旅与茶点", "像图书馆员一样回答。")
    asked = kvasir.json("search", "window seat", "--kb", "samples", "--mode", "keyword")
    assert asked["passages"][0]["document"] == "出差/报销.txt"
    kvasir("kb", "set", "samples", "description=Our own words", "instructions=Ours")
    (folder / "knowledge_base" / "samples" / "content" / "menu.txt").write_text("Soup on Mondays.\n", "utf-8")
    again = kvasir.json("kb", "import-chatchat", folder, "--only", "samples", "--prompts", config)
    (one,) = again["kbs"]
    assert sorted((document["name"], document["status"]) for document in one["documents"]) == [
        ("handbook/tea.md", "unchanged"), ("menu.txt", "indexed"), ("notes.txt", "unchanged"),
        ("出差/报销.txt", "unchanged"),
    ]  # fmt: skip
    shown = kvasir.json("kb", "show", "samples")
    assert (shown["description"], shown["instructions"]) == ("Our own words", "Ours")


def test_what_is_said_and_refused(kvasir: Commands, folder: Path) -> None:
    assert "--only" in kvasir.fails("kb", "import-chatchat", folder, "--kb", "other")
    assert "notes, samples" in kvasir.fails("kb", "import-chatchat", folder, "--only", "nonesuch")
    assert "nowhere" in kvasir.fails("kb", "import-chatchat", folder / "nowhere")
    said = kvasir("kb", "import-chatchat", folder, "--only", "samples", "--kb", "other name")
    assert "other name: 4 indexed" in said
    assert "lost.pdf: Neither its original nor its text is there." in kvasir.err
    assert "samples: 1 summaries were not brought." in kvasir.err
    (folder / "knowledge_base" / "samples").rename(folder / "knowledge_base" / "差旅 (旧)")
    found = kvasir.json("kb", "import-chatchat", folder, "--only", "差旅 (旧)")
    assert found["kbs"][0]["kb"] == "差旅 -旧"


# ---------------------------------------------------------------- hostile files
class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> Any:
        return os.system, (self._command,)


def hostile_pickles(mark: Path) -> Iterator[bytes]:
    genuine = (PAYLOADS / "index.pkl").read_bytes()
    attack = Hostile(f"touch {mark}")
    for protocol in range(5):
        yield pickle.dumps(attack, protocol)
        yield pickle.dumps(({"x": attack}, {}), protocol)
    yield genuine.replace(b"langchain_core.documents.base", b"subprocess_core.documents.bas")
    # As the genuine one, but what it calls a document is something else that exists.
    yield genuine.replace(b"\x8c\x1dlangchain_core.documents.base", b"\x8c\x02os").replace(
        b"\x8c\x08Document", b"\x8c\x06system"
    )
    yield b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR."
    yield b"(S'touch " + str(mark).encode() + b"'\nios\nsystem\n."
    yield b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R."
    yield b"\x80\x02P0\n."


def test_no_pickle_is_ever_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "executed"

    def loaded(*_given: Any, **_more: Any) -> None:
        raise AssertionError("a pickle was loaded")

    attacks = list(hostile_pickles(mark))
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, loaded)
    for attack in attacks:
        (tmp_path / "index.pkl").write_bytes(attack)
        with pytest.raises(UserError):
            docstore.pieces(tmp_path / "index.pkl")
    assert not mark.exists()


def test_damaged_pickles_are_refused_in_a_sentence(tmp_path: Path) -> None:
    genuine = (PAYLOADS / "index.pkl").read_bytes()
    cut = [genuine[:length] for length in range(0, len(genuine), 23)]
    flipped = [genuine[:at] + bytes([genuine[at] ^ 0x55]) + genuine[at + 1 :] for at in range(0, len(genuine), 7)]
    for damaged in [*cut, *flipped, b"\x80\x04\x8d" + b"\xff" * 8, b"\x80\x04" + b"a" * 10 + b".", b"\x80\x04(((t."]:
        (tmp_path / "index.pkl").write_bytes(damaged)
        said, found = "", []
        try:
            found = docstore.pieces(tmp_path / "index.pkl")
        except UserError as error:
            said = str(error)
        assert "index.pkl" in said or found
        assert all(isinstance(piece.text, str) and isinstance(piece.source, str) for piece in found)


def test_a_text_that_is_repeated_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docstore, "MOST_CHARACTERS", 100)
    with pytest.raises(UserError, match="more than"):
        docstore.pieces(PAYLOADS / "index.pkl")


def test_hostile_databases_run_nothing_and_are_told(folder: Path, tmp_path: Path) -> None:
    root = folder / "knowledge_base"
    path = root / "info.db"
    whole = path.read_bytes()
    path.write_bytes(whole[:3000] + b"\xff" * 4000 + whole[7000:])
    found = named(survey(folder), "samples")
    assert len(found.originals) == 2
    path.write_bytes(b"no database")
    assert any(left.what == "info.db" for one in survey(folder) for left in one.left_out)
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:  # a view that never ends stands for the table
        connection.executescript(
            "CREATE VIEW knowledge_base AS WITH RECURSIVE r(kb_name) AS (SELECT 1 UNION ALL SELECT kb_name + 1 FROM r)"
            " SELECT kb_name, '' AS kb_info, '' AS vs_type, '' AS embed_model FROM r;"
        )
    assert named(survey(folder), "samples").description == ""
    with reading(path) as file, pytest.raises(sqlite3.DatabaseError, match=r"not authorized|prohibited"):
        file._connection.execute("ATTACH DATABASE ? AS other", (str(tmp_path / "made.db"),))
    assert not (tmp_path / "made.db").exists()


def test_links_and_names_lead_nowhere(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("The password is swordfish.", "utf-8")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "inside.txt").write_text("Private.", "utf-8")
    root = folder / "knowledge_base"
    content = root / "samples" / "content"
    (content / "link.txt").symlink_to(secret)
    (content / "folder").symlink_to(tmp_path / "private")
    os.mkfifo(content / "pipe.txt")
    shutil.rmtree(root / "notes" / "vector_store")
    (root / "notes" / "content").symlink_to(tmp_path / "private")
    (root / "other").symlink_to(tmp_path / "private")
    with closing(sqlite3.connect(root / "info.db")) as connection:
        connection.execute(
            "INSERT INTO knowledge_file (file_name, kb_name) VALUES ('../../../../secret.txt', 'samples')"
        )
        connection.execute("INSERT INTO knowledge_base (kb_name) VALUES ('../../private')")
        connection.commit()
    found = survey(folder)
    assert [one.name for one in found] == ["samples"]
    (samples,) = found
    assert sorted(original.name for original in samples.originals) == ["handbook/tea.md", "menu.txt"]
    assert "swordfish" not in repr(samples)
    assert {"link.txt", "folder", "pipe.txt", "secret.txt"} <= {left.what for left in samples.left_out}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'Be brief.\\n{{ context }}\\n{{ question }}'", "Be brief."),
        ("'<指令>根据已知信息，简洁和专业的来回答问题。</指令>'", ""),
    ],
)
def test_prompts_are_read_and_not_run(
    text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = "__import__('os').system('touch executed')\n"
    prompts = f"PROMPT_TEMPLATES = {{'knowledge_base_chat': {{'default': {text}}}}}\n"
    (tmp_path / "prompt_config.py").write_text(run + prompts, "utf-8")
    assert instructions(tmp_path / "prompt_config.py") == expected
    assert not (tmp_path / "executed").exists()
    with pytest.raises(UserError, match="default"):
        instructions(tmp_path / "prompt_config.py", "other")
