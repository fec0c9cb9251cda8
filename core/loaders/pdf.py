"""PDF: the text of each page by pdfium, lines joined to paragraphs, headings from the outline; scanned pages by OCR."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from core.errors import MissingExtra
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
_WRAPPED = re.compile("[\ufffe\x02\u00ad][ \t]*\r?\n[ \t]*")
_MARKS = str.maketrans("", "", "\u00ad\ufffe\x02")
_BULLET = re.compile(r"(?:[-•·*–▪◦●○■□➢✓]|\(?\d{1,3}[.)、]|[a-z][.)])\s")
_ENDS: Final = (".", "!", "?", ":", ";", "。", "！", "？", "：", "；", "”", "」", ".)", "!)")
_WIDE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")
_NUMBER = re.compile(r"\d+")

_Bookmarks = dict[int, list[tuple[int, str]]]


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
        pages: list[str] = []
        characters = 0
        for number in range(min(count, MAX_PAGES)):
            pages.append(_page_text(document, number, failure))
            characters += len(pages[-1])
            if characters > self._options.limit:
                break
        scans = [number for number, text in enumerate(pages) if not _has_text(text)]
        if scans:
            self._read_scans(document, pages, scans, notes, failure)
        outline = Outline()
        bookmarks = _bookmarks(document, failure)
        for number, lines in enumerate(_without_margins([_lines(page) for page in pages])):
            outline.at(Locator("page", "", number + 1, number + 1))
            _tell(lines, bookmarks.get(number, []), outline)
        title = real_title(str(document.get_metadata_dict().get("Title", "")))
        return Parsed(outline.sections(), title, notes=tuple(notes.values()))

    def _read_scans(
        self, document: Any, pages: list[str], scans: list[int], notes: dict[str, str], failure: type[Exception]
    ) -> None:
        """Fill in what OCR reads on the pages without a text layer; where it cannot, say so."""
        if not self._options.ocr:
            if len(scans) == len(pages) and _has_pictures(document, scans, failure):
                raise problem("scan_off")
            return
        pictured = [number for number in scans if _has_pictures(document, [number], failure)]
        if not pictured:
            return
        from core.loaders.ocr import picture_reader

        try:
            read = picture_reader(self._options.ocr_begins)
        except MissingExtra as error:
            if len(scans) == len(pages):
                raise problem("scan", extra="ocr") from error
            notes["scans"] = sentence("note_scans", count=len(pictured))
            return
        for number in pictured[:MAX_OCR_PAGES]:
            pages[number] = "\n".join(read(_render(document, number)))
        if len(pictured) > MAX_OCR_PAGES:
            notes["scans"] = sentence("note_scan_pages", count=MAX_OCR_PAGES)


def _page_text(document: Any, number: int, failure: type[Exception]) -> str:
    try:
        page = document.get_page(number)
    except failure:
        return ""
    try:
        text_page = page.get_textpage()
        try:
            return str(text_page.get_text_bounded())
        finally:
            text_page.close()
    except failure:
        return ""
    finally:
        page.close()


def _has_text(text: str) -> bool:
    return sum(map(str.isalnum, text[:2000])) >= _TEXT_LAYER


def _has_pictures(document: Any, numbers: Sequence[int], failure: type[Exception]) -> bool:
    """Whether one of the first of these pages shows anything: an empty page needs no OCR."""
    for number in numbers[:20]:
        try:
            page = document.get_page(number)
        except failure:
            continue
        try:
            if next(iter(page.get_objects(max_depth=3)), None) is not None:
                return True
        finally:
            page.close()
    return False


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


def _lines(page: str) -> list[str]:
    page = _WRAPPED.sub("", page).translate(_MARKS)
    return [line.strip() for line in page.replace("\r\n", "\n").replace("\r", "\n").split("\n")]


def _without_margins(pages: list[list[str]]) -> list[list[str]]:
    """The pages without the first and last lines that most of them repeat: running titles and page numbers."""
    trimmed = [_trim(page) for page in pages]
    for edge in (0, -1):
        for _ in range(2):
            seen = Counter(_numberless(page[edge]) for page in trimmed if len(page) > 1)
            usual = {line for line, times in seen.items() if times >= 4 and times * 2 >= len(trimmed)}
            for page in trimmed:
                if len(page) > 1 and _numberless(page[edge]) in usual:
                    del page[edge]
    return trimmed


def _trim(page: list[str]) -> list[str]:
    start, end = 0, len(page)
    while start < end and not page[start]:
        start += 1
    while start < end and not page[end - 1]:
        end -= 1
    return page[start:end]


def _numberless(line: str) -> str:
    return _NUMBER.sub("#", line)


def _tell(lines: list[str], bookmarks: list[tuple[int, str]], outline: Outline) -> None:
    """Headings of the outline where their words stand on the page, else at its top; the rest in paragraphs."""
    places = {_key(title): (level, title) for level, title in reversed(bookmarks)}
    standing = {_key(line) for line in lines}
    for level, title in bookmarks:
        if _key(title) not in standing:
            outline.heading(level, title)
    waiting: list[str] = []
    for line in lines:
        found = places.pop(_key(line), None) if places and line else None
        if found is None:
            waiting.append(line)
            continue
        _paragraphs(waiting, outline)
        waiting = []
        outline.heading(*found)
    _paragraphs(waiting, outline)


def _key(line: str) -> str:
    return "".join(line.casefold().split()).lstrip("0123456789.")


def _paragraphs(lines: list[str], outline: Outline) -> None:
    lengths = sorted(_width(line) for line in lines if line)
    usual = lengths[len(lengths) * 4 // 5] if lengths else 0
    paragraph = last = ""
    for line in lines:
        if paragraph and (not line or usual < 40 or _is_end(last, line, usual)):
            outline.paragraph(paragraph)
            paragraph = ""
        if line:
            paragraph = _joined(paragraph, line)
        last = line
    outline.paragraph(paragraph)


def _is_end(last: str, line: str, usual: int) -> bool:
    """Whether a paragraph ends before this line: the last one is short, or this one begins an item."""
    if _BULLET.match(line):
        return True
    if _width(last) < usual // 2:
        return not last.endswith((",", "，", "、", "-"))
    return _width(last) < usual * 4 // 5 and last.endswith(_ENDS)


def _width(line: str) -> int:
    return len(line) + len(_WIDE.findall(line))


def _joined(paragraph: str, line: str) -> str:
    """Both as one; «exam-» + «ple» is a word that was cut, «well-» + «Known» is not."""
    if not paragraph:
        return line
    if _WIDE.match(paragraph[-1]) and _WIDE.match(line[0]):
        return paragraph + line
    if paragraph.endswith("-") and len(paragraph) > 1 and paragraph[-2].isalpha():
        return paragraph[:-1] + line if line[0].islower() else paragraph + line
    return f"{paragraph} {line}"
