"""A person's changes to the chunks of a document, made again whenever the document is indexed.

A change names its chunk by the text it had. Where the document is cut differently now, that text is looked for across
neighbouring chunks; where most of it is gone, the change is left out, and its owner is told.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from hashlib import blake2b
from typing import Final, Literal, TypeAlias

from core.analyzer import token_text
from core.ports import ParseResult
from core.types import Chunk

Action: TypeAlias = Literal["edit", "disable", "delete", "add"]

_FOUND_SHARE: Final = 0.8
"""Share of a text's words that must still stand, run by run, for it to be the same text."""
_LEAST_RUN: Final = 4
"""Fewer words in a row are chance."""
_LEAST_SHARED: Final = 3
"""Characters that two chunks share at least; fewer are chance."""
_UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7ff\uf900-\ufaff"
_WORD: Final = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_WORDLESS: Final = re.compile(r"[\W_]*")


@dataclass(frozen=True, slots=True)
class Override:
    """One change."""

    id: str
    action: Action
    original: str
    """Text of the chunk it changes, or behind which it adds one (empty: at the end)."""
    text: str
    """The new text of an edited or added chunk."""
    place: int | None = None
    """Number of its chunk when it was last seen: of several chunks of one text, the nearest is meant."""


@dataclass(frozen=True, slots=True)
class Overridden:
    """A document with its changes made."""

    result: ParseResult
    places: Mapping[str, int | None]
    """For each change the number of the first chunk it touched, of one that is left out the number of the chunk in its
    place; None where its chunk was not found."""


def index_hash(content_hash: str, overrides: Sequence[Override]) -> str:
    """The content hash of a document as it is indexed: that of its bytes, or where there are changes, of both."""
    if not overrides:
        return content_hash
    changes = [[one.action, one.original, one.text] for one in overrides]
    return hashlib.sha256(f"{content_hash} {json.dumps(changes)}".encode()).hexdigest()


def apply(result: ParseResult, overrides: Sequence[Override]) -> Overridden:
    """Make the changes, in their order, in a document that was just read. Pure."""
    if not overrides or result.error:
        return Overridden(result, {})
    slots = [_Slot(chunk, chunk.text) for chunk in result.chunks]
    elsewhere = [one for one in overrides if not _change_exactly(slots, one)]
    lost = {one.id for one in elsewhere if not _change_across(slots, one)}
    at_end = [one for one in elsewhere if one.action == "add" and one.id in lost]
    chunks, places = _chunks(slots, at_end)
    changed = replace(result, chunks=tuple(chunks), terms=b"")
    return Overridden(changed, {one.id: places.get(one.id) for one in overrides})


@dataclass(slots=True)
class _Slot:
    """A chunk as it was read, and what became of it."""

    origin: Chunk
    text: str
    """Empty: it is left out."""
    is_replaced: bool = False
    """Nothing of what was read is left in it."""
    touched: list[str] = field(default_factory=list)
    added: list[Override] = field(default_factory=list)
    """Chunks to come behind it."""
    known: dict[tuple[str, int], set[tuple[str, ...]]] = field(default_factory=dict)

    def marks(self, long: int) -> set[tuple[str, ...]]:
        """`_marks` of its text, found once."""
        if (self.text, long) not in self.known:
            self.known[self.text, long] = _marks(_words(self.text)[0], long)
        return self.known[self.text, long]


def _change_exactly(slots: Sequence[_Slot], one: Override) -> bool:
    """Change the chunk that has the very text; False where there is none."""
    wanted = _plain(one.original)
    same = [
        (abs(number - (one.place or 0)), number)
        for number, slot in enumerate(slots)
        if _plain(slot.origin.text) == wanted and (one.action == "add" or not slot.touched)
    ]
    if not wanted or not same:
        return False
    slot = slots[min(same)[1]]
    if one.action == "add":
        slot.added.append(one)
    else:
        slot.text, slot.is_replaced = (one.text if one.action == "edit" else ""), True
        slot.touched.append(one.id)
    return True


def _change_across(slots: Sequence[_Slot], one: Override) -> bool:
    """Change the stretch that the text takes in other chunks now; False where most of it is not there."""
    stretches = _stretches(slots, one)
    if not stretches:
        return False
    if one.action == "add":
        slots[stretches[-1].number].added.append(one)
        return True
    new = one.text if one.action == "edit" else ""
    for stretch in stretches:
        slot = slots[stretch.number]
        text = f"{slot.text[: stretch.start]}{new}{slot.text[stretch.end :]}".strip()
        slot.text = "" if _WORDLESS.fullmatch(text) else text
        slot.touched.append(one.id)
        new = ""
    return True


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A run of a text's words in a chunk."""

    number: int
    start: int
    end: int
    words: range
    """Which words of the text."""


def _stretches(slots: Sequence[_Slot], one: Override) -> list[_Stretch]:
    """Where most of the text stands: in the chunk that has the longest run of it, and on from there; else nowhere."""
    words, _ = _words(one.original)
    best = _longest(slots, words, one.place or 0)
    if best is None:
        return []
    group = [best]
    while (more := _next(slots, words, group[-1], 1)) is not None:
        group.append(more)
    while (more := _next(slots, words, group[0], -1)) is not None:
        group.insert(0, more)
    covered = {word for stretch in group for word in stretch.words}
    return group if len(covered) >= _FOUND_SHARE * len(words) else []


def _longest(slots: Sequence[_Slot], words: Sequence[str], near: int) -> _Stretch | None:
    """The longest run of the words in any chunk; of several, that in the nearest one."""
    least = min(_LEAST_RUN, len(words))
    marks = _marks(words, least) if words else set()
    best: _Stretch | None = None
    for number, slot in enumerate(slots):
        if slot.is_replaced or not slot.text:
            continue
        if marks.isdisjoint(slot.marks(least)):
            continue
        here, spans = _words(slot.text)
        run = SequenceMatcher(None, words, here, autojunk=False).find_longest_match()
        found = _Stretch(number, *_span(slot.text, spans, run.b, run.size), range(run.a, run.a + run.size))
        if best is None or (run.size, -abs(number - near)) > (len(best.words), -abs(best.number - near)):
            best = found
    return best


def _next(slots: Sequence[_Slot], words: Sequence[str], edge: _Stretch, step: int) -> _Stretch | None:
    """The stretch in the neighbouring chunk where the text goes on, forwards or backwards, or is said once more.

    The whole neighbour belongs to the text then, or the text ends in it: anything else is chance.
    """
    number = edge.number + step
    if not 0 <= number < len(slots) or slots[number].is_replaced or not _reaches(slots[edge.number].text, edge, step):
        return None
    here, spans = _words(slots[number].text)
    if step < 0:
        here, words = here[::-1], words[::-1]
    reached = edge.words.stop if step > 0 else len(words) - edge.words.start
    for start in range(reached, max(-1, reached - len(here)), -1):
        size = _equal(words[start:], here)
        if size and size in (len(here), len(words) - start):
            first = 0 if step > 0 else len(here) - size
            begin = start if step > 0 else len(words) - start - size
            return _Stretch(number, *_span(slots[number].text, spans, first, size), range(begin, begin + size))
    return None


def _reaches(text: str, stretch: _Stretch, step: int) -> bool:
    """Whether no word stands between the stretch and the end of its chunk on that side."""
    rest = text[stretch.end :] if step > 0 else text[: stretch.start]
    return _WORDLESS.fullmatch(rest) is not None


def _equal(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words both begin with."""
    size = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        size += 1
    return size


def _span(text: str, spans: Sequence[tuple[int, int]], first: int, size: int) -> tuple[int, int]:
    """From where to where so many words stand, with the mark that ends their sentence."""
    end = spans[first + size - 1][1]
    while end < len(text) and not text[end].isspace() and _WORDLESS.fullmatch(text[end]):
        end += 1
    return spans[first][0], end


def _marks(words: Sequence[str], long: int) -> set[tuple[str, ...]]:
    return set(zip(*(words[start:] for start in range(long)), strict=False))


def _words(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The words, and where each begins and ends."""
    found = list(_WORD.finditer(text))
    return [match[0].lower() for match in found], [match.span() for match in found]


def _chunks(slots: Sequence[_Slot], at_end: Sequence[Override]) -> tuple[list[Chunk], dict[str, int]]:
    """The chunks, counted anew, and where each change is."""
    chunks: list[Chunk] = []
    places: dict[str, int] = {}
    for slot in slots:
        for key in slot.touched:
            places.setdefault(key, len(chunks))
        if slot.text == slot.origin.text:
            chunks.append(slot.origin._replace(number=len(chunks)))
        elif slot.text:
            chunks.append(_remade(slot.origin, slot.text, len(chunks)))
        for one in slot.added:
            places[one.id] = len(chunks)
            chunks.append(_remade(slot.origin, one.text, len(chunks)))
    last = slots[-1].origin if slots else Chunk(0, "", "", "")
    for one in at_end:
        places[one.id] = len(chunks)
        chunks.append(_remade(last, one.text, len(chunks)))
    return chunks, places


def _remade(origin: Chunk, text: str, number: int) -> Chunk:
    """A chunk of another text under the same headings, searched with the same title in front."""
    prefix = origin.embed_text.removesuffix(origin.text) if origin.embed_text.endswith(origin.text) else ""
    own = token_text(origin.text)
    header = origin.tokens.removesuffix(own) if own else origin.tokens
    header = token_text(prefix) if header == origin.tokens and own else header
    return origin._replace(
        number=number,
        text=text,
        tokens=f"{header.strip()} {token_text(text)}".strip(),
        content_hash=blake2b((prefix + text).encode(), digest_size=20).hexdigest(),
        embed_text=prefix + text,
    )


def shared_start(before: str, text: str) -> int:
    """How many characters at the beginning of `text` repeat the end of `before`, as neighbouring chunks do."""
    end = before[-1:]
    at = text.rfind(end, 0, len(before)) if end else -1
    while at >= 0:
        size = at + 1
        first = before[-size - 1 : -size]
        if size >= _LEAST_SHARED and before.endswith(text[:size]) and not (first.isascii() and first.isalnum()):
            return size
        at = text.rfind(end, 0, at)
    return 0


def _plain(text: str) -> str:
    return " ".join(text.split())
