"""The sample knowledge base: complete, small, and its questions true to its documents."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import configs
from core.loaders import load
from core.texts import text_language

SAMPLE = Path(configs.__file__).parent / "sample"
DOCUMENTS = SAMPLE / "documents"


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SAMPLE / name).read_text(encoding="utf-8").splitlines()]


def paths(folder: str) -> list[Path]:
    return sorted(path for path in (DOCUMENTS / folder).rglob("*") if path.is_file())


@cache
def text_of(document: str) -> str:
    parsed = load((DOCUMENTS / document).read_bytes(), document, ocr=False, limit=1_000_000)
    return " ".join(" ".join((*section.headings, section.text)) for section in parsed.sections)


def squeezed(text: str) -> str:
    """Line breaks are the reader's business; they neither make nor break an answer."""
    return "".join(text.split())


QUESTIONS = lines("questions.jsonl")
NEAR_MISSES = lines("near_misses.jsonl")
FOLLOW_UPS = lines("follow_ups.jsonl")


def test_the_handbook_has_many_formats_in_two_languages() -> None:
    handbook = paths("handbook")
    assert len(handbook) >= 20
    assert len({path.suffix for path in handbook}) >= 12
    languages = Counter(text_language(text_of(path.relative_to(DOCUMENTS).as_posix())) for path in handbook)
    assert languages["en"] >= 12
    assert languages["zh"] >= 8


def test_the_manual_has_the_same_pages_in_both_languages() -> None:
    english, chinese = ({path.name for path in paths(f"manual/{language}")} for language in ("en", "zh"))
    assert english == chinese
    assert all(text_language(path.read_text(encoding="utf-8")) == "zh" for path in paths("manual/zh"))


def test_the_sample_is_small() -> None:
    sizes = {path: path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()}
    assert max(sizes.values()) < 60_000
    assert sum(sizes.values()) < 700_000


@pytest.mark.parametrize(
    ("rows", "key", "each"),
    [(QUESTIONS, "question", 30), (NEAR_MISSES, "question", 20), (FOLLOW_UPS, "second", 20)],
    ids=["questions", "near misses", "follow-ups"],
)
def test_both_languages_are_asked_alike(rows: list[dict[str, Any]], key: str, each: int) -> None:
    assert Counter(text_language(row[key]) for row in rows) == {"en": each, "zh": each}
    assert len({row[key] for row in rows}) == len(rows)


def test_near_misses_name_no_answer() -> None:
    assert all(row["answers"] == [] and row["document"] == "" for row in NEAR_MISSES)


def test_every_document_of_the_handbook_is_readable() -> None:
    for path in paths("handbook"):
        assert len(squeezed(text_of(path.relative_to(DOCUMENTS).as_posix()))) > 700, path.name


@pytest.mark.parametrize("row", [*QUESTIONS, *FOLLOW_UPS], ids=lambda row: row.get("question") or row["second"])
def test_every_answer_stands_in_its_document(row: dict[str, Any]) -> None:
    assert row["answers"]
    text = squeezed(text_of(row["document"]))
    for answer in row["answers"]:
        assert squeezed(answer) in text


def test_the_questions_reach_most_of_the_handbook() -> None:
    asked = {row["document"] for row in QUESTIONS}
    handbook = {path.relative_to(DOCUMENTS).as_posix() for path in paths("handbook")}
    assert len(asked & handbook) >= 20


def test_the_first_question_is_there_in_both_languages() -> None:
    first = json.loads((SAMPLE / "first_question.json").read_text(encoding="utf-8"))
    assert {language: text_language(text) for language, text in first.items()} == {"en": "en", "zh": "zh"}
