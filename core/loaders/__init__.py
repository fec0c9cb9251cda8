"""Bytes of a file to its text with headings and places. Called only in the limited child process of `core/parse`."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from core.loaders.bounding import bounded
from core.loaders.decoding import clean
from core.loaders.kinds import SUFFIXES, kind_of, media_type
from core.loaders.options import LANGUAGE, Options, nothing, problem, sentence
from core.ports import Loader
from core.types import Language, Locator, Metadata, Parsed, Section

__all__ = ["SUFFIXES", "load", "media_type"]

_LOADERS: Final[Mapping[str, str]] = {
    "md": "markdown:MarkdownLoader",
    "txt": "plain:TextLoader",
    "code": "plain:CodeLoader",
    "rst": "restructured:RstLoader",
    "html": "html_page:HtmlLoader",
    "mhtml": "html_page:MhtmlLoader",
    "csv": "delimited:DelimitedLoader",
    "tsv": "delimited:DelimitedLoader",
    "json": "json_data:JsonLoader",
    "jsonl": "json_data:JsonLinesLoader",
    "eml": "mail:MailLoader",
    "ipynb": "notebook:NotebookLoader",
    "xml": "markup:XmlLoader",
    "srt": "subtitles:SubtitlesLoader",
    "rtf": "richtext:RtfLoader",
    "pdf": "pdf:PdfLoader",
    "docx": "word:WordLoader",
    "pptx": "slides:SlidesLoader",
    "xlsx": "sheets:SheetsLoader",
    "xls": "sheets:SheetsLoader",
    "ods": "sheets:SheetsLoader",
    "odt": "opendocument:OpenDocumentLoader",
    "odp": "opendocument:OpenDocumentLoader",
    "epub": "epub:EpubLoader",
    "png": "pictures:PictureLoader",
    "jpeg": "pictures:PictureLoader",
    "webp": "pictures:PictureLoader",
    "bmp": "pictures:PictureLoader",
    "tiff": "pictures:PictureLoader",
}
"""Kind of file -> module and class; a module is imported with the first file of its kind."""


def load(
    data: bytes,
    name: str,
    *,
    ocr: bool,
    limit: int,
    language: Language = "en",
    ocr_seconds: float = 900,
    ocr_begins: Callable[[], None] = nothing,
) -> Parsed:
    """What the file says, at most `limit` characters of it.

    Raises DocumentError, its sentence in `language`, where the file is empty, encrypted, damaged, harmful, of a kind
    that is not read, or not of the kind that its name says. `ocr_begins` is called before pictures are read,
    which stops early rather than take more than `ocr_seconds`.
    """
    options = Options(ocr, limit, ocr_seconds, ocr_begins)
    token = LANGUAGE.set(language)
    try:
        if not data:
            raise problem("empty")
        parsed = _loader_class(kind_of(data, name))(options).load(data, name)
        return _finished(parsed, limit)
    finally:
        LANGUAGE.reset(token)


@functools.lru_cache(maxsize=64)
def _loader_class(kind: str) -> Callable[[Options], Loader]:
    module, _, name = _LOADERS[kind].partition(":")
    loader: Callable[[Options], Loader] = getattr(importlib.import_module(f"core.loaders.{module}"), name)
    return loader


def _finished(parsed: Parsed, limit: int) -> Parsed:
    """Text that every database takes, no longer than the limit."""
    sections: list[Section] = []
    left = limit
    for section in parsed.sections:
        text = clean(section.text)
        if len(text) > left:
            text = text[:left]
            parsed = replace(parsed, notes=(*parsed.notes, sentence("note_limit", count=f"{limit:,}")))
        left -= len(text)
        if text.strip():
            sections.extend(bounded(_cleaned(section, text)))
        if left <= 0:
            break
    if not sections:
        raise problem("no_text")
    title = clean(parsed.title).strip()
    return Parsed(tuple(sections), title, _clean_metadata(parsed.metadata), tuple(map(clean, parsed.notes)))


def _cleaned(section: Section, text: str) -> Section:
    headings = tuple(clean(heading) for heading in section.headings)
    if text is section.text and headings == section.headings and not section.locator.label:
        return section
    where = section.locator
    locator = Locator(where.kind, clean(where.label)[:300], where.first, where.last)
    return Section(text, section.kind, headings, locator)


def _clean_metadata(metadata: Metadata) -> Metadata:
    if not metadata:
        return {}
    return {clean(key): clean(value) if isinstance(value, str) else value for key, value in metadata.items()}
