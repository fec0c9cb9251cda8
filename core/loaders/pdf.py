"""PDF: the text of each page by pdfium, lines joined to paragraphs; scanned pages by OCR.

Headings come from the document's outline where it has one, else from lines in larger type.
"""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from core.errors import MissingExtra
from core.loaders import ocr
from core.loaders.office import real_title
from core.loaders.options import Options, problem, sentence
from core.loaders.outline import Outline
from core.types import Locator, Parsed

MAX_PAGES: Final = 5000
MAX_OCR_PAGES: Final = 300
MAX_BOOKMARKS: Final = 5000
_PASSWORD_ERROR: Final = 4
_TEXT_LAYER: Final = 8
"""Letters and digits at least that make a text layer."""
_HYPHENS: Final = ("\u00ad", "\ufffe", "\x02")
"""What pdfium puts where a word was cut at the end of a line."""
_LINE = re.compile("[^\n\ufffe]*[\n\ufffe]|[^\n\ufffe]+")
_MARKS = str.maketrans("", "", "".join(_HYPHENS))
_BULLET = re.compile(r"(?:[-•·*–▪◦●○■□➢✓]|\(?\d{1,3}[.)、]|[a-z][.)])\s")
_ENDS: Final = (".", "!", "?", ":", ";", "。", "！", "？", "：", "；", "”", "」", ".)", "!)")
_WIDE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")
_NUMBER = re.compile(r"\d+")

_OBJECTS: Final = 500
"""Things drawn on a page that are looked at to tell a scan."""
_MAX_HEADING: Final = 150
_LARGER: Final = 1.12
"""Type of a heading against that of the text."""

_Bookmarks: TypeAlias = dict[int, list[tuple[int, str]]]
_Line: TypeAlias = tuple[str, float]
"""Text and size of its type; 0 where that is not known."""


class PdfLoader:
    def __init__(self, options: Options) -> None:
        self._options = options

    def load(self, data: bytes, name: str) -> Parsed:
        import pypdfium2 as pdfium  # imported late: a native library that only PDFs need

        try:
            document = pdfium.PdfDocument(data)
        except pdfium.PdfiumError as error:
            if error.err_code == _PASSWORD_ERROR:
                raise problem("encrypted") from error
            raise problem("damaged", kind="PDF") from error
        try:
            return self._read(document, pdfium.PdfiumError)
        finally:
            document.close()

    def _read(self, document: Any, failure: type[Exception]) -> Parsed:
        notes: dict[str, str] = {}
        count = len(document)
        if count > MAX_PAGES:
            notes["pages"] = sentence("note_pages", count=f"{MAX_PAGES:,}")
        pages: list[list[_Line]] = []
        characters = 0
        for number in range(min(count, MAX_PAGES)):
            pages.append(_page_lines(document, number, failure))
            characters += sum(len(text) for text, _ in pages[-1])
            if characters > self._options.limit:
                break
        scans = [number for number, lines in enumerate(pages) if not _has_text(lines)]
        if scans:
            self._read_scans(document, pages, scans, notes, failure)
        title = real_title(str(document.get_metadata_dict().get("Title", "")))
        outline = Outline()
        bookmarks = _bookmarks(document, failure)
        levels = {} if bookmarks else _levels(pages)
        for number, lines in enumerate(_without_margins(pages)):
            outline.at(Locator("page", "", number + 1, number + 1))
            _tell(lines, bookmarks.get(number, []), levels, outline)
            if number == 0 and levels and not title:
                title = outline.headings[0] if outline.headings else ""
        return Parsed(outline.sections(), title, notes=tuple(notes.values()))

    def _read_scans(
        self, document: Any, pages: list[list[_Line]], scans: list[int], notes: dict[str, str], failure: type[Exception]
    ) -> None:
        """Fill in what OCR reads on the pages without a text layer; where it cannot, say so."""
        pictured = [number for number in scans if _is_scan(document, number, bool(pages[number]), failure)]
        if not pictured:
            return
        if not self._options.ocr:
            if len(scans) == len(pages):
                raise problem("scan_off")
            notes["scans"] = sentence("note_scans_off", count=len(pictured))
            return
        try:
            read = ocr.picture_reader(self._options.ocr_begins)
        except MissingExtra as error:
            if len(scans) == len(pages):
                raise problem("scan", extra="ocr") from error
            notes["scans"] = sentence("note_scans", count=len(pictured))
            return
        end = time.monotonic() + self._options.ocr_seconds
        for done, number in enumerate(pictured):
            if done == MAX_OCR_PAGES or time.monotonic() > end:
                notes["scans"] = sentence("note_scan_pages", count=done)
                break
            pages[number] = [(line, 0.0) for line in read(_render(document, number))]


def _page_lines(document: Any, number: int, failure: type[Exception]) -> list[_Line]:
    import pypdfium2.raw as pdfium

    try:
        page = document.get_page(number)
    except failure:
        return []
    try:
        text_page = page.get_textpage()
        try:
            lines = []
            at = 0
            for line in _LINE.findall(str(text_page.get_text_range())):
                size = pdfium.FPDFText_GetFontSize(text_page, at) if line.strip() else 0.0
                lines.append((line.strip(), round(float(size), 1)))
                at += len(line)
            return _trim(lines)
        finally:
            text_page.close()
    except failure:
        return []
    finally:
        page.close()


def _trim(lines: list[_Line]) -> list[_Line]:
    start, end = 0, len(lines)
    while start < end and not lines[start][0]:
        start += 1
    while start < end and not lines[end - 1][0]:
        end -= 1
    return lines[start:end]


def _has_text(lines: Sequence[_Line]) -> bool:
    return sum(sum(map(str.isalnum, text)) for text, _ in lines[:100]) >= _TEXT_LAYER


def _levels(pages: Sequence[Sequence[_Line]]) -> dict[float, int]:
    """Level of heading by size of type, for sizes clearly above that of the text; empty where that tells nothing."""
    sizes: Counter[float] = Counter()
    for page in pages:
        for text, size in page:
            sizes[size] += len(text)
    if not sizes:
        return {}
    usual = sizes.most_common(1)[0][0]
    larger = sorted((size for size in sizes if usual and size >= _LARGER * usual), reverse=True)
    if sum(sizes[size] for size in larger) * 4 > sizes.total():
        return {}
    levels: dict[float, int] = {}
    level, last = 0, 0.0
    for size in larger:
        if not level or size < 0.95 * last:
            level, last = level + 1, size
        levels[size] = min(level, 4)
    return levels


def _is_scan(document: Any, number: int, has_words: bool, failure: type[Exception]) -> bool:
    """Whether a page shows a picture, or drawings and no text at all: an empty or nearly empty page needs no OCR."""
    import pypdfium2.raw as pdfium

    try:
        page = document.get_page(number)
    except failure:
        return False
    try:
        kinds = {item.type for item in itertools.islice(page.get_objects(max_depth=3), _OBJECTS)}
    except failure:
        return False
    finally:
        page.close()
    return pdfium.FPDF_PAGEOBJ_IMAGE in kinds or bool(kinds and not has_words)


def _render(document: Any, number: int) -> Any:
    """The page as an array of RGB pixels, at 200 dpi or what keeps it under 12 megapixels."""
    page = document.get_page(number)
    try:
        width, height = page.get_size()
        scale = min(200 / 72, (12_000_000 / max(1.0, width * height)) ** 0.5)
        bitmap = page.render(scale=scale, rev_byteorder=True)
        try:
            return bitmap.to_numpy()[:, :, :3].copy()
        finally:
            bitmap.close()
    finally:
        page.close()


def _bookmarks(document: Any, failure: type[Exception]) -> _Bookmarks:
    """(level from 1, title) of the outline's entries, by page."""
    found: _Bookmarks = {}
    try:
        for number, bookmark in enumerate(document.get_toc(max_depth=6)):
            if number >= MAX_BOOKMARKS:
                break
            target = bookmark.get_dest()
            page = target.get_index() if target is not None else None
            title = " ".join(bookmark.get_title().replace("\x00", "").split())
            if page is not None and page >= 0 and title:
                found.setdefault(page, []).append((bookmark.level + 1, title))
    except failure:
        return found
    return found


def _without_margins(pages: list[list[_Line]]) -> list[list[_Line]]:
    """The pages without the first and last lines that most of them repeat: running titles and page numbers."""
    for edge in (0, -1, 0, -1):
        seen = Counter(_numberless(page[edge]) for page in pages if len(page) > 1)
        usual = {line for line, times in seen.items() if times >= 4 and times * 2 >= len(pages)}
        for page in pages:
            if len(page) > 1 and _numberless(page[edge]) in usual:
                del page[edge]
    return pages


def _numberless(line: _Line) -> str:
    return _NUMBER.sub("#", line[0])


def _tell(
    lines: Sequence[_Line], bookmarks: Sequence[tuple[int, str]], levels: Mapping[float, int], outline: Outline
) -> None:
    """Headings of the outline where their words stand on the page, else at its top; the rest in paragraphs."""
    places = {_key(title): (level, title) for level, title in reversed(bookmarks)}
    standing = {_key(text) for text, _ in lines} if places else set()
    for level, title in bookmarks:
        if _key(title) not in standing:
            outline.heading(level, title)
    waiting: list[_Line] = []
    for at, (text, size) in enumerate(lines):
        found = places.pop(_key(text), None) if places and text else None
        if found is None and size in levels and _is_heading(text):
            found = levels[size], text
            if at and lines[at - 1][1] == size and not waiting and _is_heading(lines[at - 1][0]):
                outline.lengthen(text)
                continue
        if found is None:
            waiting.append((text, size))
            continue
        _paragraphs(waiting, outline)
        waiting = []
        outline.heading(*found)
    _paragraphs(waiting, outline)


def _is_heading(text: str) -> bool:
    return len(text) <= _MAX_HEADING and sum(map(str.isalpha, text)) >= 2


def _key(line: str) -> str:
    return "".join(line.casefold().split()).lstrip("0123456789.")


def _paragraphs(lines: Sequence[_Line], outline: Outline) -> None:
    lengths = sorted(_width(text) for text, _ in lines if text)
    usual = lengths[len(lengths) * 4 // 5] if lengths else 0
    paragraph = ""
    last: _Line = ("", 0.0)
    for line in lines:
        if paragraph and (not line[0] or usual < 40 or _is_end(last, line, usual)):
            outline.paragraph(paragraph.translate(_MARKS))
            paragraph = ""
        if line[0]:
            paragraph = _joined(paragraph, line[0])
        last = line
    outline.paragraph(paragraph.translate(_MARKS))


def _is_end(last: _Line, line: _Line, usual: int) -> bool:
    """Whether a paragraph ends before this line: the last is short, or this one begins an item or has other type."""
    if abs(last[1] - line[1]) > 0.08 * max(last[1], line[1]):
        return True
    if last[0].endswith(("-", *_HYPHENS)):
        return False
    if _BULLET.match(line[0]):
        return True
    width = _width(last[0])
    if width < usual // 2:
        return not last[0].endswith((",", "，", "、"))
    return width < usual * 4 // 5 and last[0].endswith(_ENDS)


def _width(line: str) -> int:
    return len(line) + len(_WIDE.findall(line))


def _joined(paragraph: str, line: str) -> str:
    """Both as one; «exam-» + «ple» is a word that was cut, «well-» + «Known» is not."""
    if not paragraph:
        return line
    if paragraph.endswith(_HYPHENS):
        return paragraph[:-1] + line
    if _WIDE.match(paragraph[-1]) and _WIDE.match(line[0]):
        return paragraph + line
    if paragraph.endswith("-") and len(paragraph) > 1 and paragraph[-2].isalpha():
        return paragraph[:-1] + line if line[0].islower() else paragraph + line
    return f"{paragraph} {line}"
