"""Writes blocks as Markdown again, so that every reader of CommonMark sees in it what was read. Pure.

Slack and Discord differ in few signs (`Signs`). Emphasis is written only where it will be read as such: punctuation at
its ends that would hinder that is moved out of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from bots.rendering.addresses import APART
from bots.rendering.blocks import HARD_BREAK, Block, Box, Run, Runs, is_punctuation, joined

_BLANKS: Final = re.compile(r"^[ \t]+", re.MULTILINE)
# Where the beginning of a line would be taken for the sign of a list, heading, quote or table.
_LINE_START: Final = re.compile(
    r"^(?=#{1,6}(?:\s|\Z)|-#|[-+*](?:\s|\Z)|>|=+[ \t]*$|~~~|(?=[:| \t]*-)[-:| \t]+$)", re.MULTILINE
)
_NUMBERED: Final = re.compile(r"^(\d{1,9})([.)])(?=\s|\Z)", re.MULTILINE)
_WORD: Final = re.compile(r"[A-Za-z0-9_+.#-]{1,40}")
_NESTABLE: Final = re.compile(r"\[[^\[\]]*\]")
_BRACKETS: Final = re.compile(r"(?<!\\)[\[\]]")


@dataclass(frozen=True, slots=True)
class Signs:
    """How one platform's Markdown differs."""

    escaped: Callable[[str], str]
    """Text that is no markup."""
    link: Callable[[str, str, str], str]
    """From the label as written, the label as read, and the address."""
    code: Callable[[str], str]
    """Code inside a line, with its backticks."""
    fenced: Callable[[Sequence[str], str], list[str]]
    """Lines of code, and their language or nothing."""
    heading: Callable[[int], str]
    """What begins a heading of this level; empty: it is bold text."""
    table: Callable[[Sequence[Sequence[Runs]]], list[str]]
    """The lines of a table."""
    hard_break: str = "\n"
    rule: str = "---"
    marker: Callable[[str], str] = lambda marker: marker
    """How a list's own marker is written."""
    bold: str = "**"
    italic: str = "*"
    struck: str = "~~"
    simple: bool = False
    """Quotes do not nest, and code stands in no list."""
    backslashes: bool = True
    """A backslash takes a sign's meaning. Else nothing does, and emphasis needs blanks around it."""


def write(blocks: Sequence[Block], signs: Signs) -> str:
    """The blocks as one text. What goes on in an item that began in an earlier part is not indented any more."""
    made: list[str] = []
    begun: set[int] = set()
    before: tuple[Block, list[Box]] | None = None
    for block in blocks:
        first_open = len(block.boxes) - block.opens
        begun |= {box.id for box in block.boxes[first_open:]}
        boxes = _shown([box for box in block.boxes if not box.marker or box.id in begun], signs)
        if before is not None:
            made.append(_between(before, (block, boxes), signs))
        made.append("\n".join(_lines(block, boxes, signs)))
        before = block, boxes
    return "".join(made)


def alone(block: Block, signs: Signs) -> str:
    """The longest form of a block, line ends before it included."""
    boxes = _shown(block.boxes, signs)
    return "\n".join(["  ", _prefix(boxes, ()), *_lines(block, boxes, signs)])


def fenced(lines: Sequence[str], language: str) -> list[str]:
    """A fence that is longer than any in the code."""
    longest = max((len(ticks) for line in lines for ticks in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence + one_word(language), *lines, fence]


def one_word(language: str) -> str:
    return language if _WORD.fullmatch(language) else ""


def code(text: str) -> str:
    """Code inside a line."""
    ticks = "`" * (max((len(found) for found in re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or (text[0] == text[-1] == " " and text.strip()) else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


# ---------------------------------------------------------------- lines
def _shown(boxes: Sequence[Box], signs: Signs) -> list[Box]:
    boxes = [replace(box, marker=signs.marker(box.marker)) if box.marker else box for box in boxes]
    if not signs.simple:
        return boxes
    return [box for box in boxes if not box.marker][:1] + [box for box in boxes if box.marker]


def _prefix(boxes: Sequence[Box], opened: Collection[int]) -> str:
    written: list[str] = []
    for box in boxes:
        if not box.marker:
            written.append("> ")
        else:
            written.append(f"{box.marker} " if box.id in opened else " " * (len(box.marker) + 1))
    return "".join(written)


def _between(before: tuple[Block, list[Box]], after: tuple[Block, list[Box]], signs: Signs) -> str:
    """The line ends between two blocks."""
    (last, last_boxes), (block, boxes) = before, after
    if block.kind == last.kind == "text" and boxes == last_boxes and not block.opens and not block.apart:
        return signs.hard_break
    begins_late = len(boxes) > len(last_boxes) and boxes[-1].marker[:-1] not in ("", "1")
    empty = block.kind == "text" and not block.runs  # its lone sign would make a heading of the line before
    if not (block.apart or begins_late or empty):
        return "\n"
    common = [box for box, other in zip(last_boxes, boxes, strict=False) if box == other]
    return f"\n{_prefix(common, ()).rstrip()}\n"


def _lines(block: Block, boxes: Sequence[Box], signs: Signs) -> list[str]:
    opened = {box.id for box in block.boxes[len(block.boxes) - block.opens :]}
    first, rest = _prefix(boxes, opened), _prefix(boxes, ())
    written = _written(block, signs, nested=bool(boxes))
    if signs.simple and block.kind in ("code", "table"):
        quote = _prefix([box for box in boxes if not box.marker], ())
        begun = [first.rstrip()] if any(box.marker and box.id in opened for box in boxes) else []
        return begun + [(quote + line).rstrip() for line in written]
    if not boxes:
        return written
    prefixes = [first, *[rest] * (len(written) - 1)]
    return [prefix + line if line else prefix.rstrip() for prefix, line in zip(prefixes, written, strict=True)]


def _written(block: Block, signs: Signs, *, nested: bool) -> list[str]:
    if block.kind == "code":
        return signs.fenced(block.lines, block.language)
    if block.kind == "table":
        return signs.table(block.rows)
    if block.kind == "rule":
        return ["___" if nested and signs.rule == "---" else signs.rule]
    if block.kind == "heading":
        return [_heading(block, signs)]
    text = _BLANKS.sub("", inline(block.runs, signs).replace(HARD_BREAK, signs.hard_break))
    if signs.backslashes:
        text = _NUMBERED.sub(r"\1\\\2", _LINE_START.sub(r"\\", text))
    return text.split("\n")


def _heading(block: Block, signs: Signs) -> str:
    begin = signs.heading(block.level)
    runs = block.runs if begin else tuple(replace(run, bold=True) for run in block.runs)
    text = " ".join(inline(runs, signs).replace(HARD_BREAK, " ").split("\n"))
    if begin and text.endswith("#"):
        text = f"{text[:-1]}\\#"
    return f"{begin} {text}" if begin else text


# ---------------------------------------------------------------- inside a line
def inline(runs: Runs, signs: Signs) -> str:
    """The runs with their styles and links."""
    made: list[str] = []
    groups = [(url, list(together)) for url, together in groupby(_apart(runs), key=lambda run: run.url)]
    for at, (url, group) in enumerate(groups):
        before = made[-1][-1:] if made else " "
        following = "" if at + 1 == len(groups) else "[" if groups[at + 1][0] else groups[at + 1][1][0].text[:1]
        if not url:
            made.append(_styled(group, before, following, signs))
            continue
        label = "".join(run.text for run in group)
        nestable = bool(_NESTABLE.fullmatch(label))
        written = _styled(group, "[", "" if nestable else "]", signs)
        if signs.backslashes and not nestable:
            written = _BRACKETS.sub(r"\\\g<0>", written)
        made.append(signs.link(written, label, url))
    return "".join(made)


def _apart(runs: Runs) -> Runs:
    """Runs whose signs would touch keep the styles they share only."""
    made: list[Run] = []
    for run in runs:
        if run.code:
            run = replace(run, bold=False, italic=False, struck=False)
        last = made[-1] if made else None
        if last is not None and _touch(last, run):
            bold, italic, struck = last.bold and run.bold, last.italic and run.italic, last.struck and run.struck
            made[-1] = replace(last, bold=bold, italic=italic, struck=struck)
            run = replace(run, bold=bold, italic=italic, struck=struck)
        made.append(run)
    return joined(made)


def _touch(run: Run, following: Run) -> bool:
    styled = (run.bold or run.italic or run.struck) and (following.bold or following.italic or following.struck)
    return styled and run.url == following.url and not run.text[-1].isspace() and not following.text[0].isspace()


def _styled(group: Sequence[Run], before: str, after: str, signs: Signs) -> str:
    made = [""]
    for at, run in enumerate(group):
        previous = made[-1][-1:] or before
        following = _first_sign(group[at + 1]) if at + 1 < len(group) else after
        if run.code:
            made.append(signs.code(run.text))
        else:
            made.append(_emphasised(run, previous, following, signs))
    return "".join(made)


def _first_sign(run: Run) -> str:
    return "`" if run.code else "*" if run.bold or run.italic or run.struck else run.text[0]


def _emphasised(run: Run, before: str, after: str, signs: Signs) -> str:
    beside = (before, run.text[0], run.text[-1], after)
    struck = run.struck and "~" not in beside  # a tilde of the text would be taken for one of the marks
    marks = (signs.struck * struck, signs.bold * run.bold, signs.italic * run.italic)
    begin, end = _inner(run.text, before, after) if any(marks) else (0, 0)
    if begin >= end:
        return _escaped(run.text, after, signs)
    lead, inner, trail = run.text[:begin], run.text[begin:end], run.text[end:]
    written = f"{''.join(marks)}{_escaped(inner, '*', signs)}{''.join(reversed(marks))}"
    if not signs.backslashes:
        written = f"{_gap(lead[-1:] or before)}{written}{_gap(trail[:1] or after)}"
    return _escaped(lead, "*", signs) + written + _escaped(trail, after, signs)


def _inner(text: str, before: str, after: str) -> tuple[int, int]:
    """What of the text emphasis can stand around: no blanks at its ends, and no punctuation between it and a letter."""
    begin, end = 0, len(text)
    while begin < end and (text[begin].isspace() or (is_punctuation(text[begin]) and not _is_open(before))):
        before = text[begin]
        begin += 1
    while begin < end and (text[end - 1].isspace() or (is_punctuation(text[end - 1]) and not _is_open(after))):
        after = text[end - 1]
        end -= 1
    return begin, end


def _gap(neighbour: str) -> str:
    """Parts emphasis from a letter beside it."""
    return APART if neighbour.isalnum() else ""


def _is_open(neighbour: str) -> bool:
    return not neighbour or neighbour.isspace() or is_punctuation(neighbour)


def _escaped(text: str, after: str, signs: Signs) -> str:
    """The text as it is read, whatever comes after it."""
    if not text:
        return ""
    written = signs.escaped(text)
    matters = (text[-1] == "]" and after) or (text[-1] == "!" and after == "[")
    if signs.backslashes and matters and written[-2:-1] != "\\":
        return f"{written[:-1]}\\{text[-1]}"
    return written
