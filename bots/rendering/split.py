"""Packs blocks into parts that are no longer than a platform allows. Pure, and linear in the text's length.

Whole blocks where they fit; code is cut between lines, a table between rows with its head repeated, a text after a
sentence or word. Nothing is lost but the blanks at a cut, and a link or code in a line is cut only where it is longer
than a part.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, groupby, takewhile
from typing import Final, TypeAlias
from unicodedata import combining

from bots.rendering.blocks import HARD_BREAK, Block, Run, Runs, joined, length_up_to

Cost: TypeAlias = Callable[[Block], int]

_WORTH_FILLING: Final = 4
"""A block that must be cut begins in a part of which one part in so many is free."""
_ENDS: Final = (
    re.compile(r"[\n\v]"),
    re.compile(r"[。！？]|[.!?][\"')\]]?(?=\s)"),
    re.compile(r"\s|[，、；：]"),
)
"""After what a text is cut, best first."""
_LONGEST_CLUSTER: Final = 40
"""Characters that are looked at to keep a sign and its marks together."""
_CLINGING: Final = re.compile("[\u200d\ufe0f\U0001f3fb-\U0001f3ff]")
_FLAG: Final = re.compile("[\U0001f1e6-\U0001f1ff]*\\Z")


def split(blocks: Sequence[Block], limit: int, cost: Cost) -> list[list[Block]]:
    """The blocks of each part. `cost` says what a block takes of the limit at most, with the line ends before it."""
    parts: list[list[Block]] = [[]]
    free = limit
    waiting = deque(blocks)
    while waiting:
        block = waiting.popleft()
        size = cost(block) if length_up_to(block, limit) <= limit + 1 else limit + 1
        if size <= free:
            parts[-1].append(block)
            free -= size
            continue
        head, rest = None, [block]
        if size > limit and (not parts[-1] or free * _WORTH_FILLING >= limit):
            head, rest = _cut(block, free, limit, cost, whole=not parts[-1])
        waiting.extendleft(reversed(rest))
        if head is not None:
            parts[-1].append(head)
        elif parts[-1]:
            waiting.extendleft(reversed(_headings_at_end(parts[-1])))
        if parts[-1]:
            parts.append([])
            free = limit
    return [part for part in parts if part]


def _headings_at_end(part: list[Block]) -> list[Block]:
    """Take the headings off the end of a part that has more than them: they belong to what follows."""
    at = len(part)
    while at and part[at - 1].kind == "heading":
        at -= 1
    taken = part[at:] if at else []
    if taken:
        del part[at:]
    return taken


def _cut(block: Block, room: int, limit: int, cost: Cost, *, whole: bool) -> tuple[Block | None, list[Block]]:
    """A beginning that takes no more than `room`, and the rest; None: begin in a new part. `whole`: this is one."""
    if block.kind == "code":
        return _cut_code(block, room, cost, whole=whole)
    if block.kind == "table":
        return _cut_table(block, room, cost, whole=whole)
    return _cut_text(block, room, limit, cost, whole=whole)


def _fitting(most: int, room: int, cost: Callable[[int], int]) -> int:
    """How many of `most` things fit into `room`; perhaps a few less, 0 where not even one does."""
    number = most
    while number and (size := cost(number)) > room:
        number = min(number - 1, number * room // size)
    return number


# ---------------------------------------------------------------- code
def _cut_code(block: Block, room: int, cost: Cost, *, whole: bool) -> tuple[Block | None, list[Block]]:
    lines = block.lines
    most = sum(1 for _ in takewhile(lambda size: size <= room, accumulate(len(line) + 1 for line in lines)))
    number = _fitting(most, room, lambda number: cost(replace(block, lines=lines[:number])))
    if number:
        return replace(block, lines=lines[:number]), [_rest(replace(block, lines=lines[number:]))]
    if not whole:
        return None, [block]
    line = lines[0]
    number = _fitting(min(len(line), room), room, lambda number: cost(replace(block, lines=(line[:number],))))
    number = _before_clinging(line, max(1, number))
    rest = _rest(replace(block, lines=(line[number:], *lines[1:])))
    return replace(block, lines=(line[:number],)), [rest]


def _rest(block: Block) -> Block:
    return replace(block, opens=0, apart=True)


# ---------------------------------------------------------------- tables
def _cut_table(block: Block, room: int, cost: Cost, *, whole: bool) -> tuple[Block | None, list[Block]]:
    head, rows = block.rows[0], block.rows[1:]
    sizes = accumulate(sum(len(run.text) for cell in row for run in cell) + 1 for row in rows)
    most = sum(1 for _ in takewhile(lambda size: size <= room, sizes))
    number = _fitting(most, room, lambda number: cost(replace(block, rows=(head, *rows[:number]))))
    if number:
        rest = [_rest(replace(block, rows=(head, *rows[number:])))] if rows[number:] else []
        return replace(block, rows=(head, *rows[:number])), rest
    return None, _flat(block) if whole else [block]


def _flat(table: Block) -> list[Block]:
    """A table with a row that is longer than a part, as texts."""
    made: list[Block] = []
    for row in table.rows:
        runs = [run for cell in row for run in (*cell, Run(" | "))][:-1]
        made.append(Block("text", joined(runs), boxes=table.boxes, apart=not made, opens=0 if made else table.opens))
    return made


# ---------------------------------------------------------------- texts
def _cut_text(block: Block, room: int, limit: int, cost: Cost, *, whole: bool) -> tuple[Block | None, list[Block]]:
    window = _first(block.runs, room + _LONGEST_CLUSTER)
    text = "".join(run.text for run in window)
    number = min(len(text), room)
    place = 0
    while True:
        number = _fitting(number, room, lambda number: cost(replace(block, runs=_first(window, number))))
        place = _place(block, text, number, limit, cost)
        if place and cost(replace(block, runs=_first(window, place))) > room:
            number = place - 1
            continue
        break
    if not place:
        if not whole:
            return None, [block]
        place = max(1, number)
    head, rest = _first(block.runs, place), _after(block.runs, place)
    return replace(block, runs=_stripped(head)), [_rest(replace(block, runs=rest))] if rest else []


def _place(block: Block, text: str, number: int, limit: int, cost: Cost) -> int:
    """The best place for a cut after at most `number` characters; 0: none but inside what should stay whole."""
    if number <= 0:
        return 0
    place = _after_words(text, number)
    begin, length, runs = _around(block.runs, place)
    if runs and begin < place < begin + length:
        kept = replace(block, runs=runs)
        if length <= limit and cost(kept) <= limit:
            return begin
    return _before_clinging(text, place)


def _after_words(text: str, number: int) -> int:
    """The last end of a line, sentence or word in the second half of the first `number` characters."""
    for end in _ENDS:
        last = 0
        for found in end.finditer(text, number // 2, number):
            last = found.end()
        if last:
            return last
    return number


def _around(runs: Runs, place: int) -> tuple[int, int, Runs]:
    """The link or code in which the place is: where it begins, its length, its runs."""
    begin = 0
    for (url, code), together in groupby(runs, key=lambda run: (run.url, run.code and not run.url)):
        group = tuple(together)
        length = sum(len(run.text) for run in group)
        if begin + length > place:
            return (begin, length, group) if url or code else (begin, length, ())
        begin += length
    return begin, 0, ()


def _before_clinging(text: str, place: int) -> int:
    """The place, or a little before it where it would tear a character from its marks."""
    if not 0 < place < len(text):
        return place
    for at in range(place, max(1, place - _LONGEST_CLUSTER), -1):
        following, before = text[at], text[at - 1]
        if combining(following) or _CLINGING.match(following) or before == "\u200d":
            continue
        flags = _FLAG.search(text, max(0, at - _LONGEST_CLUSTER), at)
        if "\U0001f1e6" <= following <= "\U0001f1ff" and flags and len(flags[0]) % 2:
            continue
        return at
    return place


def _first(runs: Sequence[Run], number: int) -> Runs:
    """The first `number` characters."""
    made: list[Run] = []
    for run in runs:
        if number <= 0:
            break
        made.append(run if len(run.text) <= number else run.saying(run.text[:number]))
        number -= len(run.text)
    return tuple(made)


def _after(runs: Runs, number: int) -> Runs:
    """What comes after the first `number` characters, without the blanks it begins with."""
    for at, run in enumerate(runs):
        if number >= len(run.text):
            number -= len(run.text)
            continue
        text = run.text[number:] if run.code else run.text[number:].lstrip()
        number = 0
        if text:
            return (run.saying(text), *runs[at + 1 :])
    return ()


def _stripped(runs: Runs) -> Runs:
    """Without the blanks at the end."""
    if not runs or runs[-1].code:
        return runs
    return joined((*runs[:-1], runs[-1].saying(runs[-1].text.rstrip(f" \t\n{HARD_BREAK}"))))
