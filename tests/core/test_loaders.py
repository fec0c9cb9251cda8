"""Every kind of document, read through `load`: its text, headings, title, and where each part stands."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import core.loaders.ocr
from core.errors import DocumentError, MissingExtra
from core.loaders import SUFFIXES, load, media_type
from core.types import Locator, Parsed, Section
from tests.payloads.documents import make

PAYLOADS = Path(__file__).parent.parent / "payloads" / "documents"
LIMIT = 1_000_000


def read(data: bytes | str, name: str, *, ocr: bool = False, limit: int = LIMIT) -> Parsed:
    return load(data.encode() if isinstance(data, str) else data, name, ocr=ocr, limit=limit)


def texts(parsed: Parsed) -> list[str]:
    return [section.text for section in parsed.sections]


def whole(parsed: Parsed) -> str:
    return "\n".join(texts(parsed))


def under(parsed: Parsed, *headings: str) -> Section:
    return next(section for section in parsed.sections if section.headings == headings)


def refused(data: bytes | str, name: str, **options: bool) -> str:
    with pytest.raises(DocumentError) as caught:
        read(data, name, **options)
    return str(caught.value)


# ---------------------------------------------------------------- Markdown, text, code, rst
MARKDOWN = """---
title: Lamp manual
tags: [light, home]
since: 2024-05-01
---
Before all.

Safety
======

Read this first,
then switch on.

## The `switch` **itself** ##

| part | price |
|------|------:|
| knob | 3     |

After the table.

```python
# not a heading
on()
```

### Only a heading
<!-- nobody
sees this -->
## Care
- wipe
- dry
"""


def test_markdown_sections_keep_headings_kind_and_lines() -> None:
    parsed = read(MARKDOWN, "a.md")
    found = [(s.kind, s.headings, s.locator.first, s.locator.last) for s in parsed.sections]
    assert found == [
        ("text", (), 6, 6),
        ("text", ("Safety",), 11, 12),
        ("table", ("Safety", "The switch itself"), 16, 18),
        ("text", ("Safety", "The switch itself"), 20, 20),
        ("code", ("Safety", "The switch itself"), 22, 25),
        ("text", ("Safety", "The switch itself", "Only a heading"), 27, 27),
        ("text", ("Safety", "Care"), 31, 32),
    ]
    lines = MARKDOWN.split("\n")
    for section in parsed.sections[:5]:
        assert section.locator.first is not None
        assert section.text == "\n".join(lines[section.locator.first - 1 : section.locator.last])
    assert "nobody" not in whole(parsed)


def test_markdown_front_matter_gives_title_and_metadata() -> None:
    parsed = read(MARKDOWN, "a.md")
    assert parsed.title == "Lamp manual"
    assert parsed.metadata == {"title": "Lamp manual", "tags": "light, home", "since": "2024-05-01"}
    assert read('+++\ntitle = "T"\n+++\nx', "a.md").title == "T"
    assert read("---\n: [\n---\nx", "a.md").title == ""
    assert "---" in whole(read("---\nno end", "a.md"))


@pytest.mark.parametrize(
    ("text", "title"),
    [("# One\nx", "One"), ("x\n\n# Late\n\ny", "Late"), ("## Two\nx", ""), ("x", ""), ("#hash tag", "")],
)
def test_markdown_title_is_the_first_top_heading_or_none(text: str, title: str) -> None:
    assert read(text, "a.md").title == title


def test_fences_hide_headings_and_may_stay_open() -> None:
    parsed = read("# A\n~~~\n# no\n```\n~~~\n## B\nx\n````\n# no\n```\n", "a.md")
    assert [s.headings for s in parsed.sections] == [("A",), ("A", "B"), ("A", "B")]


def test_dashes_under_a_list_or_nothing_are_no_heading() -> None:
    parsed = read("- item\n---\n\n---\ntext\n", "a.md")
    assert {s.headings for s in parsed.sections} == {()}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_are_all_the_same(end: str) -> None:
    parsed = read(end.join(["# T", "", "one", "two"]), "a.md")
    assert texts(parsed) == ["one\ntwo"]
    assert parsed.sections[0].locator == Locator("lines", "", 3, 4)


def test_plain_text_is_one_section_of_lines() -> None:
    parsed = read("\n\nfirst\n\nsecond\n\n", "notes.txt")
    assert parsed.sections == (Section("first\n\nsecond", "text", (), Locator("lines", "", 3, 5)),)
    assert parsed.title == ""


@pytest.mark.parametrize("name", ["a.py", "a.rs", "a.ts", "Makefile", "a.toml", "a.yaml", "a.sql", "deep/a.GO"])
def test_source_code_keeps_its_lines(name: str) -> None:
    parsed = read("def f():\n    return 1\n", name)
    assert parsed.sections == (Section("def f():\n    return 1", "code", (), Locator("lines", "", 1, 2)),)


def test_files_without_suffix_are_read_as_text() -> None:
    assert texts(read("hello", "README")) == ["hello"]


RST = """=====
Lamps
=====

See :ref:`set-up <install>` and ``on()``.

Switches
========

They click::

    click
    clack

.. code-block:: python

   on()

.. include:: /etc/passwd

Knobs
-----

===== =====
Part  Price
===== =====
knob  3
===== =====

Turn them.
"""


def test_rst_headings_code_and_tables() -> None:
    parsed = read(RST, "a.rst")
    assert parsed.title == "Lamps"
    assert [(s.kind, s.headings) for s in parsed.sections] == [
        ("text", ("Lamps",)),
        ("text", ("Lamps", "Switches")),
        ("code", ("Lamps", "Switches")),
        ("code", ("Lamps", "Switches")),
        ("table", ("Lamps", "Switches", "Knobs")),
        ("text", ("Lamps", "Switches", "Knobs")),
    ]
    assert parsed.sections[0].text == "See set-up and `on()`."
    assert parsed.sections[-1].locator == Locator("lines", "", 30, 30)


def test_rst_directives_are_never_run() -> None:
    """Fails when `.. include::` is followed or left in the text."""
    assert "passwd" not in whole(read(RST, "a.rst"))
    assert "root:" not in whole(
        read("x\n\n.. include:: /etc/passwd\n\n.. raw:: html\n   :file: /etc/passwd\n", "a.rst")
    )


# ---------------------------------------------------------------- web pages
PAGE = """<!DOCTYPE html><html><head><title>Lamps — Shop</title><meta charset="utf-8"></head><body>
<nav><a href="/">Home</a></nav>
<h1>Lamps</h1><p>Bright <b>and</b> warm,<br>always.</p>
<ul><li>desk</li><li>floor <p>tall</p></li></ul>
<table><tr><th>Kind</th><th>Price</th></tr><tr><td>desk|wall</td><td>12</td></tr></table>
<pre>on()
  off()</pre>
<script>alert(1)</script><style>b{}</style><p style="display: none">HIDDEN</p><p hidden>HIDDEN</p>
<h2>Care</h2><div>Wipe &amp; dry.</div>
</body></html>"""


@pytest.mark.parametrize("name", ["a.html", "a.htm", "saved.txt"])
def test_html_text_without_menus_scripts_and_hidden_parts(name: str) -> None:
    parsed = read(PAGE, name)
    assert parsed.title == "Lamps"
    assert [(s.kind, s.headings, s.text) for s in parsed.sections] == [
        ("text", ("Lamps",), "Bright and warm,\nalways.\n\n- desk\n- floor\n- tall"),
        ("table", ("Lamps",), "| Kind | Price |\n| --- | --- |\n| desk\\|wall | 12 |"),
        ("code", ("Lamps",), "on()\n  off()"),
        ("text", ("Lamps", "Care"), "Wipe & dry."),
    ]


def test_html_main_part_is_preferred_and_menus_of_links_left_out() -> None:
    links = "".join(f'<li><a href="/{n}">Link {n}</a></li>' for n in range(9))
    words = "All lamps are tested for a year. " * 10
    parsed = read(f"<body><ul>{links}</ul><main><p>{words}</p></main><div>Imprint</div></body>", "a.html")
    assert texts(parsed) == [words.strip()]
    assert "Link 3" not in whole(read(f"<body><ul>{links}</ul><p>text</p></body>", "a.html"))
    assert "Link 3" in whole(read(f"<body><ul>{links}</ul></body>", "a.html"))


def test_html_of_a_layout_table_is_read_as_text() -> None:
    parsed = read("<table><tr><td><h1>A</h1><p>one</p></td><td><p>two</p></td></tr></table>", "a.html")
    assert [(s.kind, s.text) for s in parsed.sections] == [("text", "one\n\ntwo")]


def test_mhtml_gives_its_page() -> None:
    data = (
        "MIME-Version: 1.0\nContent-Type: multipart/related; boundary=X\n\n"
        "--X\nContent-Type: text/html; charset=utf-8\n"
        "Content-Transfer-Encoding: quoted-printable\n\n"
        "<html><body><h1>Saved=20page</h1><p>text</p></body></html>\n--X--\n"
    )
    parsed = read(data, "a.mhtml")
    assert (parsed.title, texts(parsed)) == ("Saved page", ["text"])


# ---------------------------------------------------------------- PDF
def test_pdf_pages_paragraphs_and_hyphens() -> None:
    pages = [
        [
            "Every employee is entitled to twenty-five days of paid vacation in a",
            "calendar year. It lapses at the end of March of the following year, un-",
            "less the reason lies with the company.",
            "A second paragraph starts after a short line, and it is rather long, too,",
            "as one can see.",
        ],
        ["On the second page."],
    ]
    parsed = read(make.pdf(pages, title="Staff handbook"), "a.pdf")
    assert parsed.title == "Staff handbook"
    assert parsed.sections[0].text.startswith(
        "Every employee is entitled to twenty-five days of paid vacation in a calendar"
    )
    assert "following year, unless the reason lies with the company.\n\nA second paragraph" in parsed.sections[0].text
    assert [s.locator for s in parsed.sections] == [Locator("page", "", 1, 1), Locator("page", "", 2, 2)]


def test_pdf_headings_from_its_outline() -> None:
    data = make.pdf(
        [["Intro", "Some words."], ["More words.", "1.2 Prices", "A lamp is 12."]],
        outline=[("Intro", 0), ("1.2 Prices", 1)],
    )
    parsed = read(data, "a.pdf")
    assert [(s.headings, s.text, s.locator.first) for s in parsed.sections] == [
        (("Intro",), "Some words.", 1),
        (("Intro",), "More words.", 2),
        (("1.2 Prices",), "A lamp is 12.", 2),
    ]


def test_pdf_headings_from_larger_type() -> None:
    body = ["The text of this page is set in a type of eleven points and goes on for a while."] * 4
    parsed = read(make.pdf([[("Staff handbook", 24), *body, ("Travel", 16), *body]]), "a.pdf")
    assert parsed.title == "Staff handbook"
    assert [s.headings for s in parsed.sections] == [("Staff handbook",), ("Staff handbook", "Travel")]


def test_pdf_running_titles_and_page_numbers_are_left_out() -> None:
    pages = [["Lamp handbook", f"What stands on page {word}.", f"{n} of 6"] for n, word in enumerate("abcdef", 1)]
    parsed = read(make.pdf(pages), "a.pdf")
    assert "handbook" not in whole(parsed)
    assert "of 6" not in whole(parsed)
    assert "What stands on page f." in whole(parsed)


@pytest.mark.parametrize("title", ["Microsoft Word - draft3.doc", "untitled", "report_final.docx", "Document1"])
def test_titles_that_programs_put_there_are_no_titles(title: str) -> None:
    assert read(make.pdf([["text of the page"]], title=title), "a.pdf").title == ""


# ---------------------------------------------------------------- Office
def test_docx_title_headings_lists_and_tables() -> None:
    parsed = read(make.word(title="Another title"), "a.docx")
    assert parsed.title == "Travel rules"
    assert [(s.kind, s.headings, s.text) for s in parsed.sections] == [
        ("text", ("Travel rules", "Hotels"), "A night may cost 120 euros.\n\n- with breakfast\n- without minibar"),
        ("table", ("Travel rules", "Hotels", "Abroad"), "| City | Limit |\n| --- | --- |\n| Oslo | 180 |"),
        ("text", ("Travel rules", "Trains"), "Second class is the rule."),
    ]


def test_docx_keeps_equations_and_footnotes_and_drops_what_was_deleted() -> None:
    members = make.unzipped(make.word())
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" xmlns:m="urn:m"'
    members["word/document.xml"] = (
        f"<w:document {space}><w:body><w:p><w:r><w:t>Area </w:t></w:r><m:oMath><m:r><m:t>a=bc</m:t></m:r></m:oMath>"
        "<w:del><w:r><w:delText>GONE</w:delText></w:r></w:del><w:ins><w:r><w:t> new</w:t></w:r></w:ins>"
        '<w:r><w:footnoteReference w:id="2"/></w:r></w:p></w:body></w:document>'
    ).encode()
    members["word/footnotes.xml"] = (
        f'<w:footnotes {space}><w:footnote w:id="2"><w:p><w:r><w:t>A note.</w:t></w:r></w:p></w:footnote></w:footnotes>'
    ).encode()
    assert texts(read(make.zipped(members), "a.docx")) == ["Area a=bc new\n\nA note."]


def test_pptx_slides_in_order_with_tables_and_notes() -> None:
    parsed = read(make.slides(), "a.pptx")
    assert parsed.title == "Quarterly review"
    assert [(s.headings, s.text, s.locator) for s in parsed.sections] == [
        (("Quarterly review",), "Quarterly review", Locator("slide", "", 1, 1)),
        (("Sales",), "- Up by a third\n- Mostly lamps", Locator("slide", "", 2, 2)),
        (("Sales",), "| Month | Lamps |\n| --- | --- |\n| May | 31 |", Locator("slide", "", 2, 2)),
        (("Sales",), "Mention the new shop.", Locator("slide", "", 2, 2)),
    ]


PRICES: Sequence[Sequence[object]] = [
    ["Price list"],
    ["Product", "Price", "Since", "In stock"],
    ["Lamp", 12.5, datetime.date(2026, 1, 2), True],
    ["Chair", 40, datetime.datetime(2026, 1, 2, 3, 4), False],  # noqa: DTZ001  # sheets know no time zones
    [],
    ["Desk", 100],
]


def test_xlsx_rows_carry_their_header_and_their_numbers() -> None:
    data = make.sheets({"Prices": PRICES, "Secret": [["x", "y"]], "Empty": []}, hidden="Secret")
    parsed = read(data, "a.xlsx")
    lamp = "Product: Lamp; Price: 12.5; Since: 2026-01-02; In stock: yes"
    chair = "Product: Chair; Price: 40; Since: 2026-01-02 03:04; In stock: no"
    assert [(s.text, s.locator) for s in parsed.sections] == [
        ("Price list", Locator("sheet", "Prices", 1, 1)),
        (f"{lamp}\n{chair}", Locator("sheet", "Prices", 3, 4)),
        ("Product: Desk; Price: 100", Locator("sheet", "Prices", 6, 6)),
    ]
    assert parsed.notes == ("Hidden sheets were left out: Secret.",)


def test_xls_and_ods_are_read_like_xlsx() -> None:
    assert texts(read((PAYLOADS / "prices.xls").read_bytes(), "a.xls")) == [
        "Product: Lamp; Price: 12.5; Since: 2024\nProduct: Chair; Price: 40; Since: 2025"
    ]
    words = ("Product", "Price", "Lamp", "cheap")
    cells = [f"<table:table-cell office:value-type='string'><text:p>{w}</text:p></table:table-cell>" for w in words]
    rows = "".join(f"<table:table-row>{cells[at]}{cells[at + 1]}</table:table-row>" for at in (0, 2))
    parsed = read(make.open_document(f"<table:table table:name='P'>{rows}</table:table>", kind="spreadsheet"), "a.ods")
    assert [(s.text, s.locator) for s in parsed.sections] == [
        ("Product: Lamp; Price: cheap", Locator("sheet", "P", 2, 2))
    ]


def test_odt_and_odp() -> None:
    body = (
        "<text:h text:outline-level='1'>Lamps</text:h>"
        "<text:p>Bright<text:s text:c='2'/><text:span>and</text:span> warm</text:p>"
        "<text:list><text:list-item><text:p>desk</text:p></text:list-item></text:list>"
        "<table:table><table:table-row><table:table-cell><text:p>A</text:p></table:table-cell>"
        "<table:table-cell><text:p>B</text:p></table:table-cell></table:table-row></table:table>"
    )
    parsed = read(make.open_document(body), "a.odt")
    assert parsed.title == "Lamps"
    assert [(s.kind, s.headings, s.text) for s in parsed.sections] == [
        ("text", ("Lamps",), "Bright  and warm\n\n- desk"),
        ("table", ("Lamps",), "| A | B |\n| --- | --- |"),
    ]
    deck = "".join(
        f"<draw:page><draw:frame><draw:text-box><text:p>{text}</text:p></draw:text-box></draw:frame></draw:page>"
        for text in ("one", "two")
    )
    parsed = read(make.open_document(deck, kind="presentation"), "a.odp")
    assert [(s.text, s.locator.kind, s.locator.first) for s in parsed.sections] == [
        ("one", "slide", 1),
        ("two", "slide", 2),
    ]


def test_epub_chapters() -> None:
    chapters = [
        "<html><body><h1>Light</h1><p>Once&nbsp;upon a time.</p></body></html>",
        "<html><body>End.</body></html>",
    ]
    parsed = read(make.epub(chapters), "a.epub")
    assert (parsed.title, parsed.metadata["creator"]) == ("The lamp book", "A. Writer")
    assert [(s.headings, s.text, s.locator.label, s.locator.first) for s in parsed.sections] == [
        (("Light",), "Once upon a time.", "Light", 1),
        ((), "End.", "chapter 2.xhtml", 2),
    ]


def test_rtf() -> None:
    parsed = read(rb"{\rtf1\ansi{\info{\title Lamp letter}}\b Hello\b0  world\par Second \u20320? one\par}", "a.rtf")
    assert (parsed.title, texts(parsed)) == ("Lamp letter", ["Hello world\n\nSecond 你 one"])


# ---------------------------------------------------------------- data
def test_csv_rows_carry_their_header_and_their_numbers() -> None:
    parsed = read('Name;Price\nLamp;12,50\n"Chair; red";40\n\nDesk;100\n', "a.csv")
    assert [(s.text, s.locator) for s in parsed.sections] == [
        ("Name: Lamp; Price: 12,50\nName: Chair; red; Price: 40", Locator("rows", "", 2, 3)),
        ("Name: Desk; Price: 100", Locator("rows", "", 5, 5)),
    ]


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t"), ("a.csv", "|"), ("a.csv", ";")])
def test_delimiters_are_told_from_the_text(name: str, mark: str) -> None:
    assert texts(read(f"Name{mark}Price\nLamp{mark}12\nDesk{mark}9\n", name)) == [
        "Name: Lamp; Price: 12\nName: Desk; Price: 9"
    ]


def test_csv_without_header_is_read_as_it_is() -> None:
    assert texts(read("1,2\n3,4\n", "a.csv")) == ["1 | 2\n3 | 4"]


def test_json_paths_become_headings() -> None:
    data = {
        "title": "Catalogue",
        "tags": ["a", "b"],
        "owner": {"name": "Ann"},
        "items": [{"name": "Lamp", "size": {"w": 1.10}}, {"name": "Chair", "price": 40}],
    }
    parsed = read(json.dumps(data), "a.json")
    assert parsed.title == "Catalogue"
    assert under(parsed, "owner").text == "name: Ann"
    assert under(parsed, "items", "Lamp").text == "name: Lamp"
    assert under(parsed, "items", "Lamp", "size").text == "w: 1.1"
    assert under(parsed, "items").text == "name: Chair; price: 40"
    assert texts(read('[1, null, "x"]', "a.json")) == ["1\n\nx"]


def test_json_lines_keep_their_numbers() -> None:
    parsed = read('{"q": "a", "n": 1.10}\n\n{"q": "b"}\n{"q": {"r": [1, 2]}}\n', "a.jsonl")
    assert [(s.text, s.locator) for s in parsed.sections] == [
        ("q: a; n: 1.10", Locator("lines", "", 1, 1)),
        ("q: b\nq.r: 1, 2", Locator("lines", "", 3, 4)),
    ]


def test_notebook_cells() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Lamps\n", "About."]},
        {"cell_type": "code", "source": "print(1)", "outputs": [{"text": ["1\n"]}, {"data": {"image/png": "xx"}}]},
    ]
    parsed = read(json.dumps({"cells": cells, "metadata": {}}), "a.ipynb")
    assert parsed.title == "Lamps"
    assert [(s.kind, s.headings, s.text, s.locator.first) for s in parsed.sections] == [
        ("text", ("Lamps",), "About.", 1),
        ("code", ("Lamps",), "print(1)\n\n1", 2),
    ]


def test_mail_text_is_read_and_attachments_are_named() -> None:
    data = (
        b"From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: =?utf-8?b?5oql5ZGK?=\r\n"
        b"Date: Mon, 2 Mar 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=X\r\n"
        b"\r\n"
        b"--X\r\nContent-Type: text/plain; charset=gb2312\r\n\r\n" + "你好，世界".encode("gb2312") + b"\r\n"
        b"--X\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=r.pdf\r\n"
        b"\r\nSECRET\r\n--X--\r\n"
    )
    parsed = read(data, "a.eml")
    assert parsed.title == "报告"
    assert "你好，世界" in whole(parsed)
    assert "From: Ann <ann@example.org>" in whole(parsed)
    assert "SECRET" not in whole(parsed)
    assert parsed.notes == ("Attachments were not read: r.pdf.",)


def test_mail_with_html_alone() -> None:
    parsed = read("Subject: Hi\nContent-Type: text/html\n\n<p>Hello <b>you</b></p><script>x</script>", "a.eml")
    assert parsed.sections[0].text == "Hello you"


def test_xml_titles_become_headings() -> None:
    data = (
        "<?xml version='1.0'?><book><title>Lamps</title><chapter><title>One</title><para>A <b>bold</b> word.</para>"
        "<row><kind>desk</kind><price>12</price></row></chapter></book>"
    )
    parsed = read(data, "a.xml")
    assert parsed.title == "Lamps"
    assert under(parsed, "Lamps", "One").text == "A bold word.\n\nkind: desk\nprice: 12"
    drawing = "<svg xmlns='http://www.w3.org/2000/svg'><script>x()</script><text>Label</text></svg>"
    assert texts(read(drawing, "a.svg")) == ["Label"]


def test_subtitles_say_when() -> None:
    data = "1\n00:00:01,000 --> 00:00:04,000\nHello <i>there</i>\n\n2\n00:00:05,000 --> 00:00:06,000\nfriend\n\n"
    data += "3\n00:01:30,000 --> 00:01:33,000\nLater.\n"
    parsed = read(data, "a.srt")
    assert [(s.text, s.locator.label) for s in parsed.sections] == [
        ("Hello there friend", "00:00:01–00:00:06"),
        ("Later.", "00:01:30–00:01:33"),
    ]
    assert texts(read("WEBVTT\n\n00:01.000 --> 00:02.000\nHi\n", "a.vtt")) == ["Hi"]


# ---------------------------------------------------------------- pictures
def _picture(kind: str) -> bytes:
    image = pytest.importorskip("PIL.Image")
    drawing = pytest.importorskip("PIL.ImageDraw")
    font = pytest.importorskip("PIL.ImageFont")
    picture = image.new("RGB", (460, 460), "white")  # a longer one is enlarged
    drawing.Draw(picture).text((40, 50), "Invoice number 4711", fill="black", font=font.load_default(size=40))
    file = io.BytesIO()
    picture.save(file, kind, resolution=200)  # as pages are drawn
    return file.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp", "tiff", "pdf"])
def test_pictures_without_the_extra_say_what_to_install(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(begins: object) -> object:
        raise MissingExtra("Reading pictures", "ocr")

    monkeypatch.setattr(core.loaders.ocr, "picture_reader", absent)
    assert "pip install 'kvasir[ocr]'" in refused(_picture(kind), f"a.{kind}", ocr=True)
    assert "KVASIR_INGEST__OCR" in refused(_picture(kind), f"a.{kind}", ocr=False)


def test_pages_with_text_are_never_read_by_ocr(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(begins: object) -> object:
        raise AssertionError("this page has a text layer")

    monkeypatch.setattr(core.loaders.ocr, "picture_reader", forbidden)
    assert texts(read(make.pdf([["words on a page"], []]), "a.pdf", ocr=True)) == ["words on a page"]


@pytest.mark.slow
def test_pictures_and_scanned_pages_are_read() -> None:
    pytest.importorskip("rapidocr")
    begun = []
    for kind in ("png", "pdf"):
        parsed = load(_picture(kind), f"a.{kind}", ocr=True, limit=LIMIT, ocr_begins=lambda: begun.append(1))
        assert "Invoice number 4711" in whole(parsed)
        assert parsed.sections[0].locator == Locator("page", "", 1, 1)
    assert len(begun) == 2


# ---------------------------------------------------------------- all of them
def test_text_beyond_the_limit_is_left_out_with_a_note() -> None:
    parsed = read("word " * 1000, "a.txt", limit=100)
    assert len(whole(parsed)) == 100
    assert parsed.notes == ("Only the first 100 characters were read.",)
    assert len(whole(read("a,b\n" + "x,y\n" * 1000, "a.csv", limit=200))) <= 200


@pytest.mark.parametrize("end", ["\n", "\n\n", " "])
def test_long_sections_are_cut_and_keep_their_lines(end: str) -> None:
    """Fails when a section may be so long that splitting it takes the square of its length."""
    text = end.join(f"Line {number} of many." for number in range(20_000))
    parsed = read(text, "a.txt")
    assert max(len(section.text) for section in parsed.sections) <= 60_000
    lines = text.split("\n")
    for section in parsed.sections:
        assert section.locator.first is not None
        where = section.locator
        assert section.text.strip() in "\n".join(lines[section.locator.first - 1 : where.last])
        if end != " ":
            assert section.text.startswith(lines[section.locator.first - 1])
    assert "".join("".join(texts(parsed)).split()) == "".join(text.split())


def test_long_tables_are_cut_between_rows_and_repeat_their_header() -> None:
    rows = "\n".join(f"| part {number} | {number} |" for number in range(9000))
    parsed = read(f"# T\n\n| name | price |\n|---|---|\n{rows}\n", "a.md")
    assert len(parsed.sections) > 2
    assert all(section.text.startswith("| name | price |\n|---|---|\n| part") for section in parsed.sections)
    assert sum(section.text.count("| part ") for section in parsed.sections) == 9000


def test_sentences_come_in_chinese_too() -> None:
    with pytest.raises(DocumentError, match="文件是空的"):
        load(b"", "a.md", ocr=False, limit=LIMIT, language="zh")


@pytest.mark.parametrize("name", sorted(f"a{suffix}" for suffix in SUFFIXES))
def test_an_empty_or_blank_file_says_so_whatever_its_kind(name: str) -> None:
    assert refused(b"", name) == "The file is empty."
    assert refused(b"  \n\n ", name)


def test_media_types_go_by_content_then_name() -> None:
    assert media_type(b"# x", "a.md") == "text/markdown"
    assert media_type(b"%PDF-1.7\n", "a.txt") == "application/pdf"
    assert media_type(make.word()[:512], "a.docx").endswith("wordprocessingml.document")
    assert media_type(make.epub([])[:512], "noname") == "application/epub+zip"
    assert media_type(b"PK\x03\x04" + bytes(60), "a.bin") == "application/zip"
    assert media_type(b"\x00\x01\x02", "a.bin") == "application/octet-stream"
    assert media_type(b"<html>", "a.txt") == "text/html"
    assert media_type(b"", "") == "text/plain"
