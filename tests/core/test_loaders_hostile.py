"""Files that mean harm: each is refused with a sentence, or read without its harm. Each test names its protection."""

from __future__ import annotations

import io
import pickle
import re
import socket
import stat
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pypdf
import pytest

import core
from core.errors import DocumentError
from core.loaders import load
from core.loaders.archive import MAX_MEMBERS
from core.types import Parsed
from tests.payloads.documents import make

LIMIT = 2_000_000


def read(data: bytes | str, name: str, *, ocr: bool = False) -> Parsed:
    return load(data.encode() if isinstance(data, str) else data, name, ocr=ocr, limit=LIMIT)


def whole(parsed: Parsed) -> str:
    return "\n".join(section.text for section in parsed.sections)


def refused(data: bytes | str, name: str, *, ocr: bool = False) -> str:
    with pytest.raises(DocumentError) as caught:
        read(data, name, ocr=ocr)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- archives (rows 6, 7, 8)
OFFICE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a.docx": (make.word, "word/document.xml"),
    "a.pptx": (make.slides, "ppt/presentation.xml"),
    "a.xlsx": (lambda: make.sheets({"S": [["a", "b"], [1, 2]]}), "xl/worksheets/sheet1.xml"),
    "a.epub": (lambda: make.epub(["<p>x</p>"]), "OEBPS/book.opf"),
    "a.odt": (lambda: make.open_document("<text:p>x</text:p>"), "content.xml"),
}


@cache
def _bomb(name: str) -> bytes:
    build, member = OFFICE[name]
    return make.zipped({**make.unzipped(build()), member: b" " * (16 << 20)})


@pytest.mark.parametrize("name", OFFICE)
def test_zip_bombs_are_refused_before_they_are_unpacked(name: str) -> None:
    """Row 6. Fails without the check of declared sizes and ratio in `Archive._directory`."""
    bomb = _bomb(name)
    started = time.process_time()
    assert "unpacks to far more" in refused(bomb, name)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("name", OFFICE)
def test_members_larger_than_they_declare_are_refused(name: str) -> None:
    """Rows 6 and 7. Fails when the bytes are not counted while they are unpacked (`Archive._unpacked`, `verify`)."""
    assert "unpacks to far more" in refused(_lying(_bomb(name), OFFICE[name][1], 1000), name)


def _lying(data: bytes, member: str, size: int) -> bytes:
    """The same archive, where the member's declared size is another."""
    out = bytearray(data)
    for mark, place, name_at in ((b"PK\x03\x04", 22, 30), (b"PK\x01\x02", 24, 46)):
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            if data[at + name_at :].startswith(member.encode()):
                struct.pack_into("<I", out, at + place, size)
    return bytes(out)


def test_archives_of_a_million_members_are_refused_at_once() -> None:
    """Row 7. Fails without `Archive._check_end`: the directory would be read first."""
    one = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = 500_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(one) * count, 0, 0)
    started = time.process_time()
    assert "unpacks to far more" in refused(b"PK\x03\x04" + one * count + end, "a.docx")
    assert time.process_time() - started < 2


def test_too_many_members_are_refused() -> None:
    """Row 7. Fails without the count of members."""
    members: dict[str, str | bytes] = {**make.unzipped(make.word())}
    members.update({f"word/media/{number}": b"" for number in range(MAX_MEMBERS)})
    assert "unpacks to far more" in refused(make.zipped(members, method=zipfile.ZIP_STORED), "a.docx")


def test_members_that_share_their_bytes_are_refused() -> None:
    """Row 7. Fails without `_check_overlap`: small archives that unpack to petabytes are made so."""
    data = make.zipped(make.unzipped(make.word()))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        first, second = archive.infolist()[:2]
    at = data.find(b"PK\x01\x02")
    following = data.find(b"PK\x01\x02", at + 4)
    out = bytearray(data)
    struct.pack_into("<I", out, following + 42, first.header_offset)
    assert second.header_offset != first.header_offset
    assert "unpacks to far more" in refused(bytes(out), "a.docx")


def test_nothing_is_ever_written_by_a_member_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 8. Fails when members are extracted to disk by name, or links among them followed."""
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    file = io.BytesIO(make.word())
    with zipfile.ZipFile(file, "a") as archive:
        for name in ("../escaped", "/tmp/escaped-absolute", "..\\escaped", "C:\\escaped"):
            archive.writestr(name, "x")
        link = zipfile.ZipInfo("word/media/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert "Second class" in whole(read(file.getvalue(), "a.docx"))
    assert [path.name for path in tmp_path.rglob("*")] == ["inner"]
    assert not Path("/tmp/escaped-absolute").exists()


# ---------------------------------------------------------------- XML (rows 9, 10)
@contextmanager
def sink() -> Iterator[tuple[int, list[int]]]:
    """A server on loopback that notes the ports of all who connect until its end."""
    heard: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                connection, (_, port) = server.accept()
                connection.close()
                if port == last:
                    return
                heard.append(port)

        last = 0
        thread = threading.Thread(target=listen)
        thread.start()
        yield server.getsockname()[1], heard
        with socket.socket() as ours:  # whoever came before is noted before
            ours.bind(("127.0.0.1", 0))
            last = ours.getsockname()[1]
            ours.connect(server.getsockname())
            thread.join()


@pytest.mark.parametrize("name", [*OFFICE, "a.xml", "a.svg"])
def test_external_entities_are_never_read(name: str, tmp_path: Path) -> None:
    """Row 9. Fails when `parse_xml` resolves entities."""
    secret = tmp_path / "secret.txt"
    secret.write_text("TOPSECRET")
    with sink() as (port, heard):
        for target in (secret.as_uri(), f"http://127.0.0.1:{port}/x"):
            declared = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{target}">]>'
            try:
                text = whole(read(_with_doctype(name, declared, "&e;"), name))
            except DocumentError as error:
                text = str(error)
            assert "TOPSECRET" not in text
        external = f'<!DOCTYPE x SYSTEM "http://127.0.0.1:{port}/x.dtd">'
        with suppress(DocumentError):
            read(_with_doctype(name, external, ""), name)  # either answer is right; only the sink must be silent
    assert heard == []


@pytest.mark.parametrize("name", ["a.docx", "a.xml", "a.epub"])
def test_entities_that_grow_are_refused_at_once(name: str) -> None:
    """Row 10. Fails without `forbid_entities`."""
    laughs = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))
    started = time.process_time()
    for declared, used in (
        (f'<!DOCTYPE x [<!ENTITY a0 "ha">{laughs}]>', "&a9;"),
        (f'<!DOCTYPE x [<!ENTITY a "{"x" * 50_000}">]>', "&a;" * 50_000),
    ):
        assert "XML entities" in refused(_with_doctype(name, declared, used), name)
    assert time.process_time() - started < 1


def _with_doctype(name: str, declared: str, used: str) -> bytes:
    if name not in OFFICE:
        return f"<?xml version='1.0'?>{declared}<x><y>text {used}</y></x>".encode()
    build, member = OFFICE[name]
    members = make.unzipped(build())
    xml = members[member].decode()
    xml = re.sub(r"^<\?xml[^>]*\?>", "", xml)
    closing = xml.rfind("</")
    members[member] = f"{declared}{xml[:closing]}{used}{xml[closing:]}".encode()
    return make.zipped(members)


def test_deep_nesting_is_refused() -> None:
    """Rows 10 and 67. Fails without the look at depth: the HTML parser's time grows with its square."""
    started = time.process_time()
    for tag in ("div", "ul><li", "table><tr><td", "b", "section"):
        assert "nested too deeply" in refused(f"<body>{f'<{tag}>' * 20_000}deep", "a.html")
    assert "nested too deeply" in refused("[" * 100_000, "a.json")
    assert "nested too deeply" in refused('{"a":' * 5000 + "1" + "}" * 5000, "a.json")
    assert "nested too deeply" in refused('{"a":' * 90 + "1" + "}" * 90 + "\n", "a.jsonl")
    assert "deep" in whole(read("<a>" * 20_000 + "deep" + "</a>" * 20_000, "a.xml"))
    assert time.process_time() - started < 5


# ---------------------------------------------------------------- PDF and pictures (rows 11, 12, 13)
def _encrypted(password: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(make.pdf([["secret words"]])))
    writer.encrypt(password, "owner", algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def test_encrypted_files_say_so() -> None:
    """Row 12. Fails when a password error is not told from damage."""
    assert "encrypted" in refused(_encrypted("pass"), "a.pdf")
    assert "secret words" in whole(read(_encrypted(""), "a.pdf"))  # readable by everyone, only changes are locked
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le") + bytes(100)
    for name in ("a.docx", "a.xlsx", "a.pptx"):
        assert "encrypted" in refused(ole, name)
    manifest = {"META-INF/manifest.xml": "<m><encryption-data/></m>"}
    assert "encrypted" in refused(make.open_document("<text:p>x</text:p>", extra=manifest), "a.odt")
    locked = {
        "META-INF/encryption.xml": '<e><EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/></e>'
    }
    assert "encrypted" in refused(make.epub(["<p>x</p>"], extra=locked), "a.epub")
    data = bytearray(make.zipped({"[Content_Types].xml": "x", "word/document.xml": "x"}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(mark) + place] |= 1
    assert "encrypted" in refused(bytes(data), "a.docx")


def test_only_the_text_of_a_pdf_is_taken() -> None:
    """Row 12. Fails when scripts, launch actions or embedded files come along."""
    script = b"/OpenAction << /S /JavaScript /JS (app.alert('SCRIPT')) >> /AA << /WC << /S /Launch /F (x.exe) >> >>"
    data = make.pdf([["plain words of the page"]]).replace(b"/Type /Catalog", b"/Type /Catalog " + script)
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    writer.add_attachment("evil.txt", b"EMBEDDED")
    file = io.BytesIO()
    writer.write(file)
    assert whole(read(file.getvalue(), "a.pdf")) == "plain words of the page"


def test_pdf_loops_and_nonsense_are_damaged_or_empty() -> None:
    """Row 11. Fails when pdfium's errors are not turned into ours."""
    loop = make.pdf([["x"]]).replace(b"/Kids [5 0 R]", b"/Kids [2 0 R]")
    assert refused(loop, "a.pdf")
    assert "damaged" in refused(b"%PDF-1.7\n" + b"nonsense " * 100, "a.pdf")
    assert refused(make.pdf([["x"]])[:300], "a.pdf")
    assert "damaged" in refused(b"not a pdf", "a.pdf")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (make.png_header(50_000, 50_000), "a.png"),
        (b"BM" + bytes(12) + struct.pack("<Iii", 40, 50_000, -50_000) + bytes(20), "a.bmp"),
        (b"\xff\xd8\xff\xe0\x00\x04xx\xff\xc0\x00\x11\x08\xff\xff\xff\xff" + bytes(20), "a.jpg"),
        (b"RIFF\xff\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00" + bytes(4) + b"\xff\xff\xff" * 2 + bytes(20), "a.webp"),
        (b"II*\x00\x08\x00\x00\x00\x02\x00" + struct.pack("<HHIIHHII", 256, 4, 1, 50_000, 257, 4, 1, 50_000), "a.tiff"),
    ],
)
def test_pixel_floods_are_refused_by_their_header(data: bytes, name: str) -> None:
    """Row 13. Fails without `picture_size`; nothing is unpacked, with or without the OCR extra."""
    assert "megapixels" in refused(data, name, ocr=True)
    assert "damaged" in refused(data[:12], name, ocr=True)


# ---------------------------------------------------------------- tables (row 14)
def test_csv_with_a_huge_field_is_cut_with_a_note() -> None:
    """Row 14. Fails when `csv.Error` is not caught, or cells have no bound."""
    parsed = read(b'a,b\nx,"' + b"y" * (10 << 20) + b'"\nlast,1\n', "a.csv")
    assert len(whole(parsed)) < 50_000
    assert "a: last; b: 1" in whole(parsed)
    assert any("were cut" in note for note in parsed.notes)


def test_csv_with_a_million_columns_is_cut_with_a_note() -> None:
    """Row 14. Fails without MAX_COLUMNS."""
    parsed = read(",".join(map(str, range(1_000_000))) + "\nx,y\n", "a.csv")
    assert len(whole(parsed)) < 20_000
    assert "Only the first 500 columns were read." in parsed.notes


@pytest.mark.parametrize("unit", [b"word ", b"w,"])
def test_csv_without_line_ends_is_cut_with_a_note(unit: bytes) -> None:
    """Row 14. Fails without MAX_LINE: a line of a hundred megabytes becomes as many objects."""
    parsed = read(unit * (5_000_000 // len(unit)), "a.csv")
    assert len(whole(parsed)) <= LIMIT
    assert "Lines of more than 1,000,000 characters were cut." in parsed.notes


def test_a_quote_that_is_never_closed_does_not_swallow_the_rest() -> None:
    """Row 14. Fails when the first `csv.Error` ends the reading."""
    rows = "".join(f"row {number},{number}\n" for number in range(20_000))
    parsed = read(f'name,count\n"open,1\n{rows}', "a.csv")
    assert "row 19999" in whole(parsed)
    assert any("never closed" in note for note in parsed.notes)


def test_csv_stops_at_the_limit() -> None:
    """Row 14. Fails when all rows are read before any is counted."""
    started = time.process_time()
    parsed = load(b"a,b\n" + b"x,1\n" * 2_000_000, "a.csv", ocr=False, limit=10_000)
    assert len(whole(parsed)) <= 10_000
    assert "first 10,000 characters" in parsed.notes[0]
    assert time.process_time() - started < 2


def test_repeated_cells_of_open_document_tables_are_taken_once() -> None:
    """Rows 6 and 14. Fails when repetitions that a few bytes declare are carried out."""
    cell = "<table:table-cell table:number-columns-repeated='1000000'><text:p>x</text:p></table:table-cell>"
    row = f"<table:table-row table:number-rows-repeated='1000000'>{cell}{cell}</table:table-row>"
    assert len(whole(read(make.open_document(f"<table:table>{row}</table:table>"), "a.odt"))) < 100


# ---------------------------------------------------------------- what it is and what it says it is (rows 17, 24)
PDF_AND_ZIP = make.pdf([["words of the page"]]) + make.zipped({"a.txt": "x"})


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (b"MZ\x90\x00\x03\x00\x00\x00", "a.pdf", "holds EXE"),
        (b"\x7fELF\x02\x01\x01\x00", "a.docx", "holds ELF"),
        (b"\x7fELF\x02\x01\x01\x00", "a.txt", "holds ELF"),
        (make.zipped({"a": "b"}), "a.txt", "holds ZIP"),
        (make.zipped({"a": "b"}), "a.docx", "holds ZIP"),
        (make.zipped({"a": "b"}), "a.zip", "not unpacked"),
        (make.word(), "a.pdf", "holds DOCX"),
        (make.word(), "a.xlsx", "holds DOCX"),
        (make.pdf([["x"]]), "a.md", "holds PDF"),
        (PDF_AND_ZIP, "a.docx", "holds PDF"),
        (make.png_header(9, 9), "a.txt", "holds PNG"),
        (b"GIF89a" + bytes(20), "a.png", "holds GIF"),
        (b"\x1f\x8b\x08" + bytes(20), "a.csv", "holds GZIP"),
        (b"SQLite format 3\x00" + bytes(80), "a.db", "not read"),
        (b"plain words", "a.docx", "damaged"),
        (b"plain words", "a.png", "damaged"),
        (b"\x00\x01\x02\x03\x00\x00\xff\x00" * 99, "a.txt", "does not hold text"),
        (b"\x00\x01\x02\x03\x00\x00\xff\x00" * 99, "a.weird", "not read"),
        (b"words", "a.weird", "not read"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(data: bytes, name: str, said: str) -> None:
    """Row 17. Fails when the name alone, or the content alone, decides."""
    assert said in refused(data, name)


def test_polyglots_are_read_as_what_both_say() -> None:
    """Row 17. Fails when a ZIP behind a PDF is looked into."""
    assert whole(read(PDF_AND_ZIP, "a.pdf")) == "words of the page"
    assert whole(read(make.word(), "letter.doc")).startswith("A night")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("import pathlib; pathlib.Path('/tmp/kvasir-pwned').touch()",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "name", ["a.pkl", "a.pickle", "a.joblib", "a.pt", "index.faiss", "a.npy", "a.bin", "a.txt", "a"]
)
def test_pickles_are_refused_or_are_mere_text(name: str, protocol: int) -> None:
    """Row 24. Fails when a pickle is accepted by name or by content, or is ever loaded."""
    try:
        read(pickle.dumps(Evil(), protocol), name)
    except DocumentError as error:
        assert protocol < 2 or "Pickled" in str(error)  # noqa: PT017  # the old ones are plain ASCII
    assert not Path("/tmp/kvasir-pwned").exists()


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "joblib", "pt", "faiss", "npy", "safetensors"])
def test_names_of_pickles_and_models_are_refused(suffix: str) -> None:
    """Row 24. Fails when the name no longer counts."""
    assert "Pickled" in refused("plain words", f"a.{suffix}")


def test_pickles_in_disguise_are_refused() -> None:
    """Row 24. Fails when model files in ZIP or NumPy form pass."""
    assert "Pickled" in refused(make.zipped({"archive/data.pkl": b"\x80\x02.", "archive/version": "3"}), "a.docx")
    assert "Pickled" in refused(b"\x93NUMPY\x01\x00v\x00{'descr': '|O'}", "a.txt")
    assert "Pickled" in refused(b"IxF2" + bytes(40), "a.csv")


def test_no_code_of_ours_unpickles() -> None:
    """Row 24. Fails when anything under `core` imports a way to load pickles."""
    ways = re.compile(
        r"^\s*(?:import|from)\s+(?:c?[pP]ickle|dill|joblib|shelve|marshal)\b|torch\.load|allow_pickle=True", re.M
    )
    root = Path(core.__file__).parent
    assert [path.name for path in root.rglob("*.py") if ways.search(path.read_text(encoding="utf-8"))] == []


# ---------------------------------------------------------------- harmless to show (row 18)
def test_scripts_in_pages_are_not_text() -> None:
    """Row 18. Fails when scripts, styles or event handlers come along as text."""
    frame = "<iframe srcdoc='EVIL'></iframe>"
    page = f"<p onclick='EVIL()'>Hi<script>EVIL()</script></p><svg><script>EVIL()</script></svg>{frame}"
    assert whole(read(page, "a.html")) == "Hi"
    assert "EVIL" not in whole(
        read("<svg xmlns='http://www.w3.org/2000/svg'><script>EVIL</script><text>x</text></svg>", "a.svg")
    )
    assert "EVIL" not in whole(read("text\n\n<!-- EVIL\n-->\n\nmore", "a.md"))


# ---------------------------------------------------------------- time (row 67)
@pytest.mark.parametrize("suffix", ["md", "rst", "txt", "csv", "srt", "html", "rtf", "json", "xml"])
@pytest.mark.parametrize(
    "unit", ["```\n", "=\n", "| a |\n|---|\n", "[", "<a ", '"', "a::\n", "{\\", "<p>", "a\n-\n", " "]
)
def test_hostile_texts_take_no_time(suffix: str, unit: str) -> None:
    """Row 67. Fails when a loader takes the square of its input."""
    begin = "{\\rtf1 " if suffix == "rtf" else ""
    with suppress(DocumentError):
        read(begin + unit, f"a.{suffix}")  # what it imports takes time, too
    data = begin + unit * (20_000 // len(unit))
    started = time.process_time()
    try:
        read(data, f"a.{suffix}")
    except DocumentError as error:
        assert str(error)  # noqa: PT017  # refused is as good as read
    assert time.process_time() - started < 0.5


def test_front_matter_with_aliases_does_not_grow() -> None:
    """Row 10. Fails when nested values of YAML are written out."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]" for n in range(9)]
    parsed = read("---\n" + "\n".join(lines) + "\n---\ntext", "a.md")
    assert parsed.metadata == {"a": "x, x, x, x, x, x, x, x, x"}
    assert read("---\n!!python/object/apply:os.system ['true']\n---\ntext", "a.md").metadata == {}


def test_damaged_members_are_damaged() -> None:
    """Fails when an error of zlib or the XML parser comes through."""
    data = bytearray(make.word())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo("word/document.xml")
    start = info.header_offset + 30 + len(info.filename)
    data[start + 20 : start + 60] = bytes(40)
    assert refused(bytes(data), "a.docx")
    for name, (build, member) in OFFICE.items():
        assert refused(make.zipped({**make.unzipped(build()), member: b"<not xml"}), name)
        assert refused(build()[: len(build()) // 2], name)
