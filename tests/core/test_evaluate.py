from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.answer import Answers
from core.answering.curated_match import CuratedMatch
from core.answering.retrieve import Retriever
from core.db.session import Database
from core.db.tables import KnowledgeBaseRow
from core.engines.extractive import ExtractiveEngine
from core.errors import UserError
from core.ports import Engine
from core.quality.evaluate import Line, Outcome, contains, evaluate, read_lines, summed_up
from core.settings import RetrievalSettings, load
from tests.core.library import CHINESE, ENGLISH, library
from tests.databases import put_sqlite

pytestmark = pytest.mark.anyio

KEYS = ["n", "recall@1", "recall@5", "recall@10", "mrr@10", "answer_contains", "refused", "ms_p50", "ms_p95"]


@pytest.fixture
async def answers(tmp_path: Path) -> AsyncIterator[Answers]:
    """Answers over a small knowledge base `both`."""
    db = Database(await put_sqlite(tmp_path / "kvasir.db"))
    async with db.session() as session:
        session.add(KnowledgeBaseRow(name="both", chunk_size=200, chunk_overlap=40, top_k=None))
    async with library(tmp_path) as shelf:
        await shelf.add("both", {**ENGLISH, **CHINESE})
        retriever = Retriever(shelf.store, lambda: None, shelf.live, RetrievalSettings())

        async def engines(_name: str) -> Engine:
            return ExtractiveEngine(2)

        made = Answers(db, retriever, engines, load(data_dir=tmp_path), CuratedMatch(db))
        yield made
        await made.close()
    await db.close()


def write(folder: Path, *lines: object) -> Path:
    file = folder / "lines.jsonl"
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return file


async def test_a_file_is_measured_through_the_parts_that_answer(answers: Answers, tmp_path: Path) -> None:
    file = write(
        tmp_path,
        {"question": "How many days of holiday do I have?", "answers": ["28 days"], "document": "leave.md"},
        {"question": "谁保管档案室的钥匙？", "answers": ["林博士"], "document": "办公室.md"},
        {"question": "Who founded the company?", "answers": ["Somebody else"], "document": "history.md"},
        {"question": "Which enzyme splits lactose?", "answers": [], "document": ""},
    )
    steps: list[tuple[int, int]] = []

    async def told(done: int, total: int) -> None:
        steps.append((done, total))

    found = await evaluate(answers, file, "both", progress=told)
    assert list(found) == KEYS
    times = found.pop("ms_p50"), found.pop("ms_p95")
    assert found == {
        "n": 4,
        "recall@1": 1.0,
        "recall@5": 1.0,
        "recall@10": 1.0,
        "mrr@10": 1.0,
        "answer_contains": 0.6667,
        "refused": 0.25,
    }
    assert 0 < times[0] <= times[1]
    assert steps == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


async def test_questions_out_of_scope_alone(answers: Answers, tmp_path: Path) -> None:
    file = write(tmp_path, {"question": "Which enzyme splits lactose?", "answers": [], "document": ""})
    found = await evaluate(answers, file, "both")
    assert (found["n"], found["refused"], found["recall@1"], found["answer_contains"]) == (1, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "row",
    ["{", "[]", "3", '{"answers": []}', '{"question": ""}', '{"question": 3}', '{"question": "a", "answers": [1]}'],
)
def test_a_bad_line_is_named(row: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(f'{{"question": "fine"}}\n\n{row}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"Line 3 of bad\.jsonl"):
        read_lines(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl"):
        read_lines(tmp_path / "none.jsonl")
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        read_lines(binary)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n", encoding="utf-8")
    with pytest.raises(UserError, match="no questions"):
        read_lines(empty)


def test_missing_answers_and_document_mean_a_refusal(tmp_path: Path) -> None:
    file = tmp_path / "short.jsonl"
    file.write_text('\ufeff{"question": "Who?"}', encoding="utf-8")
    assert read_lines(file) == [Line("Who?", (), "")]


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("It has **28 days** of leave. [1]", ["28 Days"], True),
        ("售价１２元。", ["12 元"], True),
        ("U\\.S\\. law", ["US law"], True),
        ("nothing", ["something"], False),
        ("nothing", ["—"], False),
        ("nothing", [], False),
    ],
)
def test_an_answer_stands_in_a_text_whatever_its_form(text: str, answers: list[str], expected: bool) -> None:
    assert contains(text, answers) is expected


@given(st.lists(st.tuples(st.integers(0, 10), st.booleans(), st.booleans(), st.floats(0.1, 1e4)), min_size=1))
def test_sums_are_shares(rows: list[tuple[int, bool, bool, float]]) -> None:
    lines = [Line("q", ("a",), "d.md" if rank or said else "") for rank, said, _, _ in rows]
    found = summed_up(lines, [Outcome(*row) for row in rows])
    assert list(found) == KEYS
    assert found["recall@1"] <= found["recall@5"] <= found["recall@10"]
    assert found["recall@1"] - 1e-4 <= found["mrr@10"] <= found["recall@10"] + 1e-4
    assert all(0 <= found[key] <= 1 for key in KEYS[1:-2])
    assert found["ms_p50"] <= found["ms_p95"]
