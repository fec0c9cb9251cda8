"""Documents made in a moment: the smallest honest file of each format, and a few that are not honest at all."""

from __future__ import annotations

import functools
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import docx
import openpyxl
import pptx

Line = tuple[str, int]
"""Text and size of its type."""


def pdf(pages: Sequence[Sequence[Line | str]], *, title: str = "", outline: Sequence[tuple[str, int]] = ()) -> bytes:
    """A PDF with a line under the other; `outline` has (title, page from 0)."""
    objects: list[bytes] = [b"", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    page_ids = []
    for lines in pages:
        commands, y = [b"BT"], 760
        for line in lines:
            text, size = (line, 11) if isinstance(line, str) else line
            safe = text.encode("cp1252", "replace").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
            commands.append(b"/F1 %d Tf 1 0 0 1 60 %d Tm (%s) Tj" % (size, y, safe))
            y -= size + 4
        stream = zlib.compress(b"\n".join([*commands, b"ET"]))
        objects.append(_stream(stream, b"/Filter /FlateDecode"))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        page_ids.append(len(objects))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (
        len(page_ids),
        b" ".join(b"%d 0 R" % n for n in page_ids),
    )
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R%s >>" % _outline(objects, outline, page_ids)
    objects.append(b"<< /Title (%s) >>" % title.encode("latin-1"))
    return pdf_file(objects, b" /Info %d 0 R" % len(objects))


def pdf_file(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """The objects, numbered from 1 (the catalogue), as a file."""
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, start)
    return bytes(out)


def _stream(data: bytes, entries: bytes) -> bytes:
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(data), entries, data)


def _outline(objects: list[bytes], outline: Sequence[tuple[str, int]], page_ids: Sequence[int]) -> bytes:
    if not outline:
        return b""
    root = len(objects) + 1
    first = root + 1
    objects.append(b"<< /Type /Outlines /First %d 0 R /Last %d 0 R >>" % (first, root + len(outline)))
    for index, (title, page) in enumerate(outline):
        following = b" /Next %d 0 R" % (first + index + 1) if index + 1 < len(outline) else b""
        objects.append(
            b"<< /Title (%s) /Parent %d 0 R /Dest [%d 0 R /Fit]%s >>"
            % (title.encode("latin-1"), root, page_ids[page], following)
        )
    return b" /Outlines %d 0 R" % root


def flate_bomb_pdf(megabytes: int) -> bytes:
    """A page whose content is so long, packed twice over."""
    inner, spaces = zlib.compressobj(9, wbits=-15), b" " * (1 << 20)
    block = inner.compress(spaces) + inner.flush(zlib.Z_FULL_FLUSH)  # the same for each megabyte
    check = functools.reduce(lambda before, _: zlib.adler32(spaces, before), range(megabytes), 1)
    packed = b"\x78\xda" + megabytes * block + b"\x03\x00" + check.to_bytes(4, "big")
    return pdf_file(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R >>",
            _stream(zlib.compress(packed, 9), b"/Filter [/FlateDecode /FlateDecode]"),
        ]
    )


@functools.cache
def word(**properties: str) -> bytes:
    """A DOCX with a title, two levels of headings, a list, a table and text."""
    document = docx.Document()
    for key, value in properties.items():
        setattr(document.core_properties, key, value)
    document.add_heading("Travel rules", 0)
    document.add_heading("Hotels", 1)
    document.add_paragraph("A night may cost 120 euros.")
    document.add_paragraph("with breakfast", style="List Bullet")
    document.add_paragraph("without minibar", style="List Bullet")
    document.add_heading("Abroad", 2)
    table = document.add_table(2, 2)
    for row, cells in enumerate((("City", "Limit"), ("Oslo", "180"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    document.add_heading("Trains", 1)
    document.add_paragraph("Second class is the rule.")
    return _saved(document)


@functools.cache
def slides() -> bytes:
    deck = pptx.Presentation()
    first = deck.slides.add_slide(deck.slide_layouts[0])
    first.shapes.title.text = "Quarterly review"
    second = deck.slides.add_slide(deck.slide_layouts[1])
    second.shapes.title.text = "Sales"
    second.placeholders[1].text = "Up by a third\nMostly lamps"
    second.notes_slide.notes_text_frame.text = "Mention the new shop."
    table = second.shapes.add_table(2, 2, 0, 0, 999, 999).table
    for row, cells in enumerate((("Month", "Lamps"), ("May", "31"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    return _saved(deck)


def sheets(tables: Mapping[str, Sequence[Sequence[Any]]], hidden: str = "") -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in tables.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
        if name == hidden:
            sheet.sheet_state = "hidden"
    return _saved(book)


def _saved(document: Any) -> bytes:
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def zipped(members: Mapping[str, str | bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data, zipfile.ZIP_STORED if name == "mimetype" else method)
    return file.getvalue()


def unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def open_document(body: str, *, kind: str = "text", extra: Mapping[str, str] | None = None) -> bytes:
    """An OpenDocument file; its body goes into `<office:{kind}>`."""
    space = "urn:oasis:names:tc:opendocument:xmlns:{}:1.0"
    names = "".join(f' xmlns:{prefix}="{space.format(prefix)}"' for prefix in ("office", "text", "table", "draw"))
    media = {"text": "text", "spreadsheet": "spreadsheet", "presentation": "presentation"}[kind]
    content = (
        f"<office:document-content{names}><office:body><office:{kind}>{body}</office:{kind}></office:body>"
        "</office:document-content>"
    )
    mimetype = f"application/vnd.oasis.opendocument.{media}"
    manifest = (
        '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0">'
        f'<manifest:file-entry manifest:full-path="/" manifest:media-type="{mimetype}"/></manifest:manifest>'
    )
    return zipped({"mimetype": mimetype, "content.xml": content, "META-INF/manifest.xml": manifest, **(extra or {})})


def epub(chapters: Sequence[str], *, title: str = "The lamp book", extra: Mapping[str, str] | None = None) -> bytes:
    items = "".join(
        f'<item id="c{number}" href="chapter%20{number}.xhtml" media-type="application/xhtml+xml"/>'
        for number, _ in enumerate(chapters, 1)
    )
    spine = "".join(f'<itemref idref="c{number}"/>' for number, _ in enumerate(chapters, 1))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        f"<dc:title>{title}</dc:title><dc:creator>A. Writer</dc:creator></metadata>"
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    )
    pages = {f"OEBPS/chapter {number}.xhtml": text for number, text in enumerate(chapters, 1)}
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": container,
            "OEBPS/book.opf": package,
            **pages,
            **(extra or {}),
        }
    )


def png_header(width: int, height: int) -> bytes:
    """The first bytes of a picture of that size, and none of its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
