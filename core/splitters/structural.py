"""Cuts a parsed document into chunks along its structure, never longer than the knowledge base's chunk size.

sections of one heading path -> paragraphs, tables, code -> sentences, rows, lines -> runs of words: each step is taken
only for a piece that does not fit as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import NamedTuple, TypeAlias

from core.analyzer import terms, token_text
from core.ports import SplitterSpec
from core.splitters.counting import TokenCounter
from core.splitters.packing import Lines, pack, render
from core.splitters.pieces import Cutter, Piece, measure
from core.splitters.prose import Prose, Words, read
from core.splitters.prose import pack as pack_prose
from core.types import Chunk, Locator, Parsed, Section

VERSION = "2"
"""Part of an index's fingerprint: it changes whenever the same document could get other chunks."""

HEADER_TOKENS = 34
"""Tokens of title and headings in `embed_text` at most: 220 of text, these and BERT's two special ones make 256."""

_WORDLESS = re.compile(r"[\d\W_]*")
_SEPARATORS = re.compile(r"[\s_.-]+")
_BETWEEN = " > "

RunPiece: TypeAlias = tuple[str, str, bytes, str, int | None, int | None]
"""Text, search tokens and their terms, content hash, and the locator's numbers of a chunk."""
_Text: TypeAlias = tuple[str, str, bytes, int | None, int | None]
"""Text, its search tokens with a space before each, their terms, and the locator's numbers."""


class Run(NamedTuple):
    """Chunks that follow one another under one heading path."""

    headings: tuple[str, ...]
    prefix: str
    """What stands before each chunk's text in its `embed_text`."""
    place: Locator
    """Where they stand, but for the numbers, which each piece has of its own."""
    pieces: Iterator[RunPiece]


@dataclass(slots=True)
class _Group:
    """Neighbouring sections that may share a chunk."""

    sections: list[Section]
    headings: tuple[str, ...]
    tokens: int
    leads: tuple[str, ...] = ()
    """For each section the heading to put before it, where small brothers were merged."""

    def goes_on_with(self, section: Section) -> bool:
        return self.headings == section.headings and _place(self.sections[-1]) == _place(section)

    def is_brother_of(self, other: _Group) -> bool:
        return (
            bool(self.headings and other.headings)
            and self.headings[:-1] == other.headings[:-1]
            and _place(self.sections[0]) == _place(other.sections[0])
        )


class StructuralSplitter:
    """Makes chunks of `spec.chunk_size` tokens at most, as `count` counts."""

    def __init__(self, spec: SplitterSpec, count: TokenCounter) -> None:
        self._title_enhance = spec.title_enhance
        self._count = count
        self._words = Words(count)
        self._size = max(8, spec.chunk_size)
        self._overlap = max(0, min(spec.chunk_overlap, self._size // 2))

    def split(self, parsed: Parsed, name: str) -> list[Chunk]:
        """Pure: the same input always gives the same chunks."""
        chunks: list[Chunk] = []
        for run in self.runs(parsed, name):
            for text, tokens, _terms, content_hash, first, last in run.pieces:
                embed_text = run.prefix + text
                locator = Locator(run.place.kind, run.place.label, first, last)
                chunks.append(Chunk(len(chunks), text, tokens, content_hash, run.headings, locator, embed_text))
        return chunks

    def runs(self, parsed: Parsed, name: str) -> Iterator[Run]:
        """The same chunks, those under one heading path together; to be taken in order."""
        title = parsed.title.strip() or title_of(name)
        for group in self._groups(parsed.sections):
            header = _header(title, group.headings) if self._title_enhance else []
            lead = self._fitting(header)
            found = token_text(" ".join(header))
            prefix = f"{lead}\n" if lead else ""
            yield Run(group.headings, prefix, group.sections[0].locator, self._pieces(group, prefix, found))

    def _pieces(self, group: _Group, prefix: str, found: str) -> Iterator[RunPiece]:
        found_terms = terms(found)
        hasher = blake2b(prefix.encode(), digest_size=20)
        for text, tokens, its_terms, first, last in self._prose(group) or self._texts(group):
            embedded = hasher.copy()
            embedded.update(text.encode())
            yield text, (found + tokens).strip(), found_terms + its_terms, embedded.hexdigest(), first, last

    def _prose(self, group: _Group) -> Iterator[_Text] | None:
        """As `_texts`, where the fast way does."""
        section = group.sections[0]
        if group.tokens <= self._size or len(group.sections) > 1 or section.kind != "text":
            return None
        prose = read(section.text, self._count, self._words)
        cuts = prose and pack_prose(prose, self._size, self._overlap)
        return _cut(section, prose, cuts) if prose and cuts else None

    def _texts(self, group: _Group) -> Iterator[_Text]:
        for text, locator in self._rendered(group):
            tokens = f" {token_text(text)}"
            yield text, tokens, terms(tokens), locator.first, locator.last

    def _rendered(self, group: _Group) -> Iterator[tuple[str, Locator]]:
        if group.tokens <= self._size:
            leads = group.leads or ("",) * len(group.sections)
            everything = [
                Piece(index, 0, len(section.text), 0, lead=lead)
                for index, (section, lead) in enumerate(zip(group.sections, leads, strict=True))
            ]
            yield render(group.sections, everything)
            return
        for pieces in pack(Cutter(group.sections, self._count, self._size), self._size, self._overlap):
            text, locator = render(group.sections, pieces)
            if text:
                yield text, locator

    def _groups(self, sections: Sequence[Section]) -> Iterator[_Group]:
        """Sections under one heading path together, and very small ones with their small brothers."""
        brothers: list[_Group] = []
        for group in self._paths(sections):
            if brothers and not self._belongs(brothers, group):
                yield _merged(brothers)
                brothers = []
            brothers.append(group)
        if brothers:
            yield _merged(brothers)

    def _belongs(self, brothers: Sequence[_Group], group: _Group) -> bool:
        """Whether a group is as small as its brothers before it, and they still fill less than half a chunk."""
        if not group.is_brother_of(brothers[-1]):
            return False
        sizes = [one.tokens + self._count(one.headings[-1]) for one in (*brothers, group)]
        return max(sizes) <= self._size // 8 and sum(sizes) <= self._size // 2

    def _paths(self, sections: Sequence[Section]) -> Iterator[_Group]:
        group: _Group | None = None
        for section in sections:
            if not section.text.strip():
                continue
            tokens = measure(self._count, section.text, enough=self._size)
            if group is not None and group.goes_on_with(section):
                group.sections.append(section)
                group.tokens += tokens
                continue
            if group is not None:
                yield group
            group = _Group([section], section.headings, tokens)
        if group is not None:
            yield group

    def _fitting(self, header: Sequence[str]) -> str:
        """Title and headings in one line of at most HEADER_TOKENS: the outermost and the innermost say the most."""
        parts = list(header)
        while len(parts) > 2 and self._count(_BETWEEN.join(parts)) > HEADER_TOKENS:
            del parts[1]
        line = _BETWEEN.join(parts)
        while line and measure(self._count, line) > HEADER_TOKENS:
            line = line[: len(line) * 3 // 4].rstrip()
        return line


def _cut(section: Section, prose: Prose, cuts: Iterator[tuple[int, int]]) -> Iterator[_Text]:
    whole, begins, words = section.text, prose.begins, prose.words
    lines = Lines(section)
    for first, last in cuts:
        start, end = begins[first], begins[last]
        if text := whole[start:end].strip():
            between = slice(words[first], words[last])
            tokens, hashes = "".join(prose.tokens[between]), b"".join(prose.terms[between])
            yield text, tokens, hashes, *lines.between(start, start + len(text))


def title_of(name: str) -> str:
    """A title for a document without one, from its name: `reports/annual_report-2024.pdf` -> «annual report 2024»."""
    path = PurePosixPath(name)
    words = _SEPARATORS.sub(" ", path.stem).strip()
    if _WORDLESS.fullmatch(words) and path.parent.name:
        words = f"{_SEPARATORS.sub(' ', path.parent.name).strip()} {words}".strip()
    return words or name


def _header(title: str, headings: Sequence[str]) -> list[str]:
    """Title and headings in one list, without empty ones and repetitions."""
    parts: list[str] = []
    for part in (title, *headings):
        words = " ".join(part.split())
        if words and words.casefold() not in (known.casefold() for known in parts):
            parts.append(words)
    return parts


def _merged(brothers: Sequence[_Group]) -> _Group:
    if len(brothers) == 1:
        return brothers[0]
    leads = [group.headings[-1] if index == 0 else "" for group in brothers for index, _ in enumerate(group.sections)]
    return _Group(
        sections=[section for group in brothers for section in group.sections],
        headings=brothers[0].headings[:-1],
        tokens=sum(group.tokens for group in brothers),
        leads=tuple(leads),
    )


def _place(section: Section) -> tuple[str, str]:
    return section.locator.kind, section.locator.label
