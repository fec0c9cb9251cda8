"""What the parser processes say to each other: frames of a little JSON and a run of plain text, which costs the least.

A request is a list of tasks, with the bytes of small files behind it; the answer is any number of frames, each a list
of events: `[task, "chunks", [chunk, …]]`, `[task, "done", title, metadata, notes, error]`, `[task, "ocr"]`, and at last
`["end", wants_rest]`. The texts of chunks stand in the run of text, one behind the other; the events tell how long.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any, BinaryIO, Final

from core.ports import ParseTask, SplitterSpec
from core.types import Chunk, Language, Locator, Metadata

HEAD: Final = struct.Struct(">II")
"""Bytes of JSON, bytes of text."""
MAX_FRAME: Final = 64 << 20
FRAME_TARGET: Final = 128 << 10
"""Bytes after which a child sends what it has: the parent's event loop decodes a frame in about a millisecond."""
_KINDS: Final = frozenset({"", "page", "slide", "sheet", "rows", "lines", "cell", "part"})


_NOWHERE: Final = Locator()


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


def pack(message: object, texts: Sequence[str] = ()) -> bytes:
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    text = "".join(texts).encode("utf-8", "replace")
    return b"".join((HEAD.pack(len(body), len(text)), body, text))


def rules_message(rules: Rules) -> bytes:
    return pack(asdict(rules))


def read_message(stream: BinaryIO) -> tuple[Any, bytes] | None:
    """The next message of a blocking stream, and the bytes that came with it; None at its end."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    long, rest_long = HEAD.unpack(head)
    return json.loads(stream.read(long)), stream.read(rest_long)


def request_message(tasks: Sequence[ParseTask]) -> bytes:
    items = [[task.name, *_source_item(task.source), *astuple(task.splitter)] for task in tasks]
    body = json.dumps(items, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    data = [task.source for task in tasks if isinstance(task.source, bytes)]
    return b"".join((HEAD.pack(len(body), sum(map(len, data))), body, *data))


def _source_item(source: bytes | str) -> tuple[str, int]:
    return ("", len(source)) if isinstance(source, bytes) else (source, 0)


def tasks_of(request: Sequence[Sequence[Any]], data: bytes) -> list[ParseTask]:
    tasks = []
    start = 0
    for name, path, size, *spec in request:
        tasks.append(ParseTask(path or data[start : start + size], name, SplitterSpec(*spec)))
        start += size
    return tasks


def chunk_item(chunk: Chunk, texts: list[str]) -> list[Any]:
    """The chunk as a list, its texts added to `texts`.

    Of `embed_text` only what stands before the text goes along, where that is all there is to it.
    """
    text, embedded = chunk.text, chunk.embed_text
    is_prefixed = embedded.endswith(text)
    rest = embedded[: len(embedded) - len(text)] if is_prefixed else embedded
    where = chunk.locator
    texts += (text, chunk.tokens, rest)
    return [
        *(len(text), len(chunk.tokens), len(rest), is_prefixed, chunk.content_hash, chunk.headings),
        *(where.kind, where.label, where.first, where.last),
    ]


class Frame:
    """A frame as it came: its events, and the texts of its chunks, to be taken in order."""

    def __init__(self, body: bytes, text: bytes) -> None:
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

    def chunk(self, item: object, number: int) -> Chunk:
        """Raises Nonsense for anything but what `chunk_item` makes."""
        if type(item) is not list or len(item) != 10:
            raise Nonsense("no chunk")
        long, tokens_long, rest_long, is_prefixed, content_hash, headings, kind, label, first, last = item
        if type(content_hash) is not str or len(content_hash) > 128 or type(headings) is not list:
            raise Nonsense("no chunk")
        for heading in headings:
            if type(heading) is not str:
                raise Nonsense("no heading")
        is_whole = type(long) is type(tokens_long) is type(rest_long) is int
        if not is_whole or long < 0 or tokens_long < 0 or rest_long < 0:
            raise Nonsense("no text of that length")
        start = self._at
        middle = start + long
        behind = middle + tokens_long
        end = self._at = behind + rest_long
        everything = self._text
        if end > len(everything):
            raise Nonsense("no text of that length")
        text, rest = everything[start:middle], everything[behind:end]
        embedded = rest + text if is_prefixed is True else rest
        locator = _locator(kind, label, first, last)
        return Chunk(number, text, everything[middle:behind], content_hash, tuple(headings), locator, embedded)


def _locator(kind: Any, label: object, first: Any, last: Any) -> Locator:
    if kind == "" and label == "" and first is last is None:
        return _NOWHERE
    if kind not in _KINDS or type(label) is not str or not _is_number(first) or not _is_number(last):
        raise Nonsense("no locator")
    return Locator(kind, label, first, last)


def _is_number(value: object) -> bool:
    return value is None or (type(value) is int and 0 <= value < 1 << 40)


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
