"""How a document's structure shows in its chunks."""

from __future__ import annotations

from itertools import pairwise

import pytest

from core.analyzer import tokens
from core.ports import SplitterSpec
from core.splitters.counting import token_counter
from core.splitters.structural import HEADER_TOKENS, StructuralSplitter, title_of
from core.types import Chunk, Locator, Parsed, Section

COUNT = token_counter("")
SENTENCE = "Receipt {} goes to the office within ten days."


def split(*sections: Section, size: int = 60, overlap: int = 0, enhanced: bool = False, title: str = "") -> list[Chunk]:
    spec = SplitterSpec(chunk_size=size, chunk_overlap=overlap, title_enhance=enhanced)
    return StructuralSplitter(spec, COUNT).split(Parsed(sections, title=title), "handbook/travel_rules.md")


def prose(first: int, last: int) -> str:
    return " ".join(SENTENCE.format(number) for number in range(first, last))


def test_a_section_that_fits_is_one_chunk() -> None:
    (chunk,) = split(Section("Tea.\n\nAnd  cake.", headings=("Meals", "Tea")))
    assert chunk.text == "Tea.\n\nAnd  cake."
    assert chunk.headings == ("Meals", "Tea")


def test_sections_of_different_headings_do_not_mix() -> None:
    chunks = split(Section(prose(0, 2), headings=("A",)), Section(prose(2, 4), headings=("B",)))
    assert [chunk.headings for chunk in chunks] == [("A",), ("B",)]


def test_very_small_brothers_share_a_chunk_and_keep_their_headings() -> None:
    small = [
        Section(text, headings=("Office", name))
        for name, text in [("Tea", "At 4."), ("Cake", "At 5."), ("Door", "Shut.")]
    ]
    big = Section(prose(0, 4), headings=("Office", "Post"))
    together, alone = split(*small, big, size=100)
    assert together.text == "Tea\nAt 4.\n\nCake\nAt 5.\n\nDoor\nShut."
    assert together.headings == ("Office",)
    assert alone.headings == ("Office", "Post")
    assert len(split(*small, Section("Shut.", headings=("Garden", "Gate")), size=100)) == 2


def test_long_text_is_cut_between_sentences_into_even_chunks() -> None:
    chunks = split(Section(prose(0, 13)))
    assert len(chunks) == 3
    assert all(chunk.text.endswith("days.") for chunk in chunks)
    lengths = [COUNT(chunk.text) for chunk in chunks]
    assert max(lengths) - min(lengths) <= COUNT(SENTENCE)


def test_a_paragraph_is_not_torn_where_the_chunk_is_half_full() -> None:
    paragraphs = [prose(number, number + 3) for number in range(0, 12, 3)]
    assert [chunk.text for chunk in split(Section("\n\n".join(paragraphs)), size=55)] == paragraphs


def test_neighbours_overlap_in_whole_sentences() -> None:
    chunks = split(Section(prose(0, 20)), size=60, overlap=25)
    for one, other in pairwise(chunks):
        shared = one.text.split("Receipt")[-2:]
        assert other.text.startswith(f"Receipt{shared[0]}Receipt{shared[1]}")


def test_chinese_sentences_end_chunks() -> None:
    text = "".join(f"第{number}条规定出差结束后应在十五天内提交发票。" for number in "一二三四五六七八九十")
    chunks = split(Section(text))
    assert len(chunks) > 2
    assert all(chunk.text.endswith("。") for chunk in chunks)
    assert "".join(chunk.text for chunk in chunks) == text


def test_a_sentence_without_end_is_cut_at_commas_then_at_words() -> None:
    clauses = [
        f"the {name} of the house and all its rooms" for name in ("roof", "wall", "floor", "door", "stair", "lamp")
    ]
    assert all(chunk.text.endswith((",", "rooms")) for chunk in split(Section(", ".join(clauses)), size=25))
    assert {chunk.text.strip("word ") for chunk in split(Section("word " * 300), size=25)} == {""}


def test_a_giant_word_is_cut() -> None:
    chunks = split(Section("before " + "x" * 10_000 + " after"), size=32)
    assert max(len(chunk.text) for chunk in chunks) <= 32 * 16
    assert "".join(chunk.text for chunk in chunks).count("x") == 10_000


def test_a_table_that_fits_stays_whole_among_its_text() -> None:
    table = Section("| item | price |\n|---|---|\n| tea | 3 |", kind="table", headings=("Meals",))
    (chunk,) = split(Section("Prices are:", headings=("Meals",)), table)
    assert chunk.text == "Prices are:\n\n| item | price |\n|---|---|\n| tea | 3 |"


def test_a_long_table_is_cut_by_rows_and_repeats_its_header() -> None:
    rows = [f"| tea no. {number} | {number}.50 |" for number in range(40)]
    chunks = split(Section("\n".join(["| item | price |", "|------|-------|", *rows]), kind="table"), size=80)
    assert len(chunks) > 3
    assert all(chunk.text.startswith("| item | price |\n|------|-------|\n| tea") for chunk in chunks)
    assert [line for chunk in chunks for line in chunk.text.splitlines()[2:]] == rows


def test_a_header_row_too_long_to_repeat_is_not_repeated() -> None:
    header = " | ".join(f"column {number}" for number in range(12))
    chunks = split(Section("\n".join([header, *(f"a | {number}" for number in range(40))]), kind="table"), size=50)
    assert sum("column" in chunk.text for chunk in chunks) == 1


def test_code_is_cut_by_lines_and_keeps_its_indentation() -> None:
    lines = [f"    total += price[{number}]" for number in range(60)]
    chunks = split(
        Section("\n".join(["def total():", *lines]), kind="code", locator=Locator("lines", first=11, last=71))
    )
    assert [line for chunk in chunks for line in chunk.text.split("\n")] == ["def total():", *lines]
    assert chunks[0].locator.first == 11
    assert chunks[-1].locator == Locator("lines", first=72 - len(chunks[-1].text.split("\n")), last=71)


def test_a_chunk_over_two_pages_names_both() -> None:
    pages = [
        Section(prose(number, number + 2), locator=Locator("page", first=number, last=number)) for number in (3, 4)
    ]
    (chunk,) = split(*pages)
    assert chunk.locator == Locator("page", first=3, last=4)


def test_a_sentence_broken_by_a_page_goes_on_in_the_next_line() -> None:
    (chunk,) = split(
        Section("Tea is served", locator=Locator("page", first=1)),
        Section("at four.", locator=Locator("page", first=2)),
    )
    assert chunk.text == "Tea is served\nat four."
    assert chunk.locator == Locator("page", first=1, last=2)


def test_a_table_knows_its_rows() -> None:
    rows = [f"tea no. {number} | {number}.50" for number in range(2, 42)]
    section = Section("\n".join(["item | price", *rows]), kind="table", locator=Locator("sheet", "Prices", 1, 41))
    chunks = split(section, size=80)
    for chunk in chunks:
        first, last = chunk.locator.first, chunk.locator.last
        assert chunk.text.splitlines()[-1].startswith(f"tea no. {last} ")
        assert first == (1 if chunk.number == 0 else int(chunk.text.splitlines()[1].split()[2]))
        assert chunk.locator.label == "Prices"


def test_sheets_do_not_mix() -> None:
    sheets = [Section("a | b\n1 | 2", kind="table", locator=Locator("sheet", label, 1, 2)) for label in ("May", "June")]
    assert [chunk.locator.label for chunk in split(*sheets)] == ["May", "June"]


def test_title_and_headings_are_embedded_and_searched() -> None:
    section = Section("At four.", headings=("Handbook", "Meals", "Tea"))
    (chunk,) = split(section, enhanced=True, title="Handbook")
    assert chunk.embed_text == "Handbook > Meals > Tea\nAt four."
    assert chunk.text == "At four."
    assert chunk.tokens.split() == tokens("Handbook Meals Tea At four.")
    (plain,) = split(section, title="Handbook")
    assert plain.embed_text == "At four."
    assert plain.tokens.split() == tokens("At four.")


def test_long_headings_leave_room_for_the_text() -> None:
    headings = tuple(f"chapter {number} of the book of many long chapters" for number in range(12))
    (chunk,) = split(Section("At four.", headings=headings), enhanced=True, title="Handbook")
    header = chunk.embed_text.splitlines()[0]
    assert COUNT(header) <= HEADER_TOKENS
    assert header.startswith("Handbook > ")
    assert header.endswith(headings[-1])
    (endless,) = split(Section("At four."), enhanced=True, title="word " * 200)
    assert COUNT(endless.embed_text) <= HEADER_TOKENS + COUNT("At four.")


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("Apollo_program/030.md", "Apollo program 030"),
        ("reports/annual_report-2024.pdf", "annual report 2024"),
        ("差旅制度.docx", "差旅制度"),
        ("2024.csv", "2024"),
        ("README", "README"),
        ("", ""),
        ("___", "___"),
    ],
)
def test_a_document_without_title_is_called_by_its_name(name: str, title: str) -> None:
    assert title_of(name) == title


def test_blank_sections_give_nothing() -> None:
    assert split(Section(""), Section(" \n\t"), Section("\u3000", kind="table")) == []
