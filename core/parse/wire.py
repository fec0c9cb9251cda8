"""What the parser processes say to each other: frames of a little JSON and a run of plain text, which costs the least.

A request is a list of tasks, with the bytes of small files behind it; the answer is any number of frames, each a list
of events: `[task, "chunks", terms, headings, prefix, kind, label, numbers]` for chunks under one heading path,
`[task, "done", title, metadata, notes, error]`, `[task, "ocr"]`, and at last `["end", wants_rest]`. Of each chunk its
text, search tokens and content hash stand in the run of text, and four numbers in `numbers`: how long text and tokens
are, and the locator's two (-1 for none). Their terms stand behind all text; `terms` says how many bytes they are.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, BinaryIO, Final

from core.ports import ParseTask, SplitterSpec
from core.splitters.structural import RunPiece
from core.types import Chunk, Language, Locator, Metadata

HEAD: Final = struct.Struct(">III")
"""Bytes of JSON, bytes of text, bytes of anything else."""
MAX_FRAME: Final = 64 << 20
FRAME_TARGET: Final = 256 << 10
"""Bytes after which a child sends what it has: the parent's event loop decodes a frame in about a millisecond."""
_KINDS: Final = frozenset({"", "page", "slide", "sheet", "rows", "lines", "cell", "part"})


HASH_LONG: Final = 40
"""Characters of a content hash."""
_LONGEST_PREFIX: Final = 4000
_LARGEST: Final = 1 << 40


class Nonsense(ValueError):
    """The other side sent what it should not."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a child is told when it starts."""

    memory_mb: int
    seconds: int
    ocr_seconds: int
    ocr: bool
    characters: int
    file_mb: int
    language: Language
    parent: int
    """Process id; a child whose parent is gone ends."""


def pack(message: object, texts: Sequence[str] = (), rest: Sequence[bytes] = ()) -> bytes:
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    text = "".join(texts).encode("utf-8", "replace")
    return b"".join((HEAD.pack(len(body), len(text), sum(map(len, rest))), body, text, *rest))


def rules_message(rules: Rules) -> bytes:
    return pack(asdict(rules))


def read_message(stream: BinaryIO) -> tuple[Any, bytes] | None:
    """The next message of a blocking stream, and the bytes that came with it; None at its end."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    long, text_long, rest_long = HEAD.unpack(head)
    return json.loads(stream.read(long)), stream.read(text_long + rest_long)


def request_message(tasks: Sequence[ParseTask]) -> bytes:
    items = [[task.name, *_source_item(task.source), *_spec_item(task.splitter)] for task in tasks]
    return pack(items, rest=[task.source for task in tasks if isinstance(task.source, bytes)])


def _spec_item(spec: SplitterSpec) -> tuple[int, int, bool, str]:
    return spec.chunk_size, spec.chunk_overlap, spec.title_enhance, spec.vocabulary


def _source_item(source: bytes | str) -> tuple[str, int]:
    return ("", len(source)) if isinstance(source, bytes) else (source, 0)


def tasks_of(request: Sequence[Sequence[Any]], data: bytes) -> list[ParseTask]:
    tasks = []
    start = 0
    for name, path, size, *spec in request:
        tasks.append(ParseTask(path or data[start : start + size], name, SplitterSpec(*spec)))
        start += size
    return tasks


def chunk_parts(piece: RunPiece, numbers: list[int], texts: list[str], terms: list[bytes]) -> int:
    """Add a chunk to the numbers, texts and terms of a message, which gets longer by about so many bytes."""
    text, tokens, its_terms, content_hash, first, last = piece
    texts += (text, tokens, content_hash)
    terms.append(its_terms)
    long, tokens_long = len(text), len(tokens)
    numbers += (long, tokens_long, -1 if first is None else first, -1 if last is None else last)
    return long + tokens_long + len(its_terms) + 60


class Frame:
    """A frame as it came: its events, and the texts of its chunks, to be taken in order."""

    def __init__(self, body: bytes, text: bytes, terms: bytes = b"") -> None:
        """Raises Nonsense where the outer shape is wrong, or a text holds what no database takes."""
        try:
            self.events: list[list[Any]] = json.loads(body)
            self._text = text.decode()
        except (ValueError, RecursionError) as error:
            raise Nonsense("no frame") from error
        if type(self.events) is not list or not all(type(event) is list and len(event) > 1 for event in self.events):
            raise Nonsense("no list of events")
        if "\x00" in self._text:
            raise Nonsense("bad characters")
        if b"\\ud" in body or b"\\u00" in body:
            _refuse_bad_characters(self.events)
        self._at = 0
        self._terms = terms
        self._terms_at = 0

    def terms(self, long: object) -> bytes:
        """The next so many bytes of terms. Raises Nonsense."""
        if type(long) is not int or not 0 <= long <= len(self._terms) - self._terms_at:
            raise Nonsense("no terms of that length")
        self._terms_at += long
        return self._terms[self._terms_at - long : self._terms_at]

    def chunks(self, values: Sequence[Any], number: int) -> list[Chunk]:
        """Those of a "chunks" event, counted from `number` on. Raises Nonsense for anything but what a child makes."""
        headings, prefix, kind, label, numbers = values
        if type(headings) is not list or not all(type(heading) is str for heading in headings):
            raise Nonsense("no headings")
        if type(prefix) is not str or len(prefix) > _LONGEST_PREFIX:
            raise Nonsense("no prefix")
        if kind not in _KINDS or type(label) is not str:
            raise Nonsense("no locator")
        if type(numbers) is not list or set(map(type, numbers)) != {int} or len(numbers) % 4:
            raise Nonsense("no numbers")
        longs, tokens_longs, firsts, lasts = (numbers[column::4] for column in range(4))
        if min(longs) < 0 or min(tokens_longs) < 0 or min(numbers) < -1 or max(numbers) > _LARGEST:
            raise Nonsense("no numbers that can be")
        at = self._at
        everything = self._text
        self._at += sum(longs) + sum(tokens_longs) + HASH_LONG * len(longs)
        if self._at > len(everything):
            raise Nonsense("no text of that length")
        path = tuple(headings)
        found = []
        for long, tokens_long, first, last in zip(longs, tokens_longs, firsts, lasts, strict=True):
            middle = at + long
            behind = middle + tokens_long
            text = everything[at:middle]
            at = behind + HASH_LONG
            place = _place(kind, label, first, last)
            found.append(
                Chunk(number, text, everything[middle:behind], everything[behind:at], path, place, prefix + text)
            )
            number += 1
        return found


@lru_cache(maxsize=1024)
def _place(kind: Any, label: str, first: int, last: int) -> Locator:
    return Locator(kind, label, None if first < 0 else first, None if last < 0 else last)


def text_of(value: object, longest: int = 2000) -> str:
    if type(value) is not str:
        raise Nonsense("no text")
    return value[:longest]


def texts_of(value: object) -> tuple[str, ...]:
    if type(value) is not list:
        raise Nonsense("no list of texts")
    return tuple(text_of(item) for item in value[:100])


def metadata_of(value: object) -> Metadata:
    if not isinstance(value, Mapping) or len(value) > 1000:
        raise Nonsense("no metadata")
    for key, entry in value.items():
        if type(key) is not str or type(entry) not in (str, int, float, bool):
            raise Nonsense("no metadata")
    return dict(value)


def _refuse_bad_characters(value: object) -> None:
    """A frame with escapes that may stand for NUL or half a character is looked through, string by string."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if "\x00" in item or any("\ud800" <= char <= "\udfff" for char in item):
                raise Nonsense("bad characters")
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
