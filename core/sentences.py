"""Where sentences begin and end, in English and Chinese text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

# A place where a sentence may end: marks with what closes after them, or a line's end.
# It begins with one set of characters, so that the text in between is passed over fast.
_CANDIDATE: Final = re.compile(
    r"""[\n.!?．。！？；｡…]"""
    r"""(?:(?<=\n)[ \t\r\n]*|(?<=[.!?．])([.!?．]*)[”’"')\]»」』）*_]*|[。！？；｡…]*[”’」』）】》〉"')\]]*)"""
)
LINE_END: Final = re.compile(r"\n[ \t\r\n]*")
_SPACE: Final = re.compile(r"\s+")
_FULL: Final = frozenset("。！？；｡…")
_LAST_WORD: Final = re.compile(r"[^\s(\[\"'“‘]*\Z")
_LINE_START: Final = re.compile(
    r"#{1,6} |[-*+•·] |\d{1,3}[.)、] |\||>|```|~~~|[（(]?[一二三四五六七八九十\d]{1,3}[）)、]"
)
_ALONE: Final = re.compile(r"#{1,6} |\||```|~~~")
_LOOK_BACK: Final = 24
_SHORT_LINE: Final = 48
"""A line no wider than this, before one that begins anew, was broken on purpose and not by wrapping."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ABBREVIATIONS: Final = _words(
    "mr mrs ms dr prof sr jr st mt gen col lt capt sgt maj adm rev hon gov sen rep pres messrs mme fig figs eq eqs sec "
    "ch chap vol vols pp pg ed eds trans art nr op cit approx ca cf vs viz al jan feb mar apr jun jul aug sep sept oct "
    "nov dec mon tue tues wed thu thur thurs fri sat inc ltd co corp bros dept univ est ext tel bldg ave blvd rd ft hr "
    "hrs min lb lbs oz resp incl excl e.g i.e eg ie a.k.a"
)
"""Words that end in a point without ending a sentence."""
_BEFORE_NUMBER: Final = _words("no nos p pp fig art vol ch sec eq c ca")
"""These do so only before a number."""
_MAY_END: Final = _words("inc ltd co corp bros jr sr etc al st ave ft a.m p.m u.s u.k u.n e.u d.c")
"""These also stand at a sentence's end: what follows decides."""
_OPENERS: Final = _words(
    "the a an this that these those it he she they we you i in on at by for from to as and but or if when while after "
    "before although though however there its his her their our my who what where how why no not"
)


_NEVER_PLAIN: Final = _ABBREVIATIONS | _MAY_END | _BEFORE_NUMBER
"""Before a point these need a closer look; any other word of letters just ends the sentence."""


def starts(text: str) -> list[int]:
    """Where each sentence starts; the first one at 0, so that with the white space behind them they are the text."""
    found = [len(text) - len(text.lstrip())]
    last = found[0]
    for end in _ends(text):
        if text[end : end + 1].isspace() and (space := _SPACE.match(text, end)):
            end = space.end()
        if last < end < len(text):
            found.append(end)
            last = end
    found[0] = 0
    return found


_PLAIN: Final = re.compile(r"([A-Za-z0-9]{2,})[.!?]+[\"')\]*_]*\Z")


def can_end(word: str) -> str:
    """The sort of an ASCII word, as it stands between blanks: what it says of the sentences around it.

    `n`: none ends with it; `e`: one does where the next word begins one; `l`: that needs a closer look. Capital: it
    begins with a capital or a digit, so that a sentence may begin with it. `o` and `O`: as `n` and `l`, beginning with
    anything but a letter or a digit.
    """
    first = word[:1]
    if not first.isalnum():
        return "O" if "." in word or "!" in word or "?" in word else "o"
    sort = "n"
    if "." in word or "!" in word or "?" in word:
        plain = _PLAIN.match(word)
        is_plain = plain and not plain[1].isdigit() and plain[1].lower() not in _NEVER_PLAIN
        sort = "e" if is_plain else "l"
    return sort if first.islower() else sort.upper()


def ends_at_word(text: str, start: int, stop: int) -> bool:
    """Whether a sentence ends with the ASCII word that stands there."""
    return any(
        _is_plain(text, *match.span()) or _mark_ends(text, match) for match in _CANDIDATE.finditer(text, start, stop)
    )


def sentences(text: str) -> list[tuple[int, int]]:
    """(start, end) of each sentence, in order, without the white space around it; no other character is left out."""
    spans: list[tuple[int, int]] = []
    start = 0
    for end in _ends(text):
        _append(spans, text, start, end)
        start = end
    _append(spans, text, start, len(text))
    return spans


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    stripped = piece.strip()
    if stripped:
        start += len(piece) - len(piece.lstrip())
        spans.append((start, start + len(stripped)))


def _ends(text: str) -> Iterator[int]:
    line = 0
    for match in _CANDIDATE.finditer(text):
        first, end = match.span()
        char = text[first]
        if char == "\n":
            if ends_at_line(text, line, match):
                yield end
            line = end
        elif char in _FULL or _is_plain(text, first, end) or _mark_ends(text, match):
            yield end


def _is_plain(text: str, point: int, end: int) -> bool:
    """Whether this is the commonest end by far, told in a moment: `word. Next`."""
    if text[end : end + 1] != " ":
        return False
    following = text[end + 1 : end + 2]
    if following.islower() or not following.isalnum():
        return False
    word = text[text.rfind(" ", 0, point) + 1 : point]
    return word.isalnum() and len(word) > 1 and not word.isdigit() and word.lower() not in _NEVER_PLAIN


def _mark_ends(text: str, match: re.Match[str]) -> bool:
    """Whether a Latin full stop, question or exclamation mark ends a sentence."""
    end = match.end()
    is_point = match[0][0] == "." and not match[1]
    following = text[end : end + _LOOK_BACK]
    if following and not following[0].isspace():
        return not is_point and _is_wide(following[0])
    following = following.lstrip()
    if not following:
        return True
    if not is_point:
        return not following[0].islower()
    return not following[0].islower() and not _is_abbreviation(text, match.start(), following)


def _is_abbreviation(text: str, point: int, following: str) -> bool:
    found = _LAST_WORD.search(text[max(0, point - _LOOK_BACK) : point])
    word = found.group().lower() if found else ""
    if word in _BEFORE_NUMBER and following[0].isdigit():
        return True
    begins_anew = re.split(r"[^\w]", following, maxsplit=1)[0].lower() in _OPENERS
    if word in _MAY_END or _is_initials(word):
        return not begins_anew or len(word) == 1
    if word.isdigit():  # «1. Open the lid»: the number belongs to what follows
        line = text.rfind("\n", max(0, point - _LOOK_BACK), point) + 1
        return len(word) <= 3 and text[line : point - len(word)].strip() == "" and (line > 0 or point <= 3)
    return word in _ABBREVIATIONS


def _is_initials(word: str) -> bool:
    """`j`, `u.s`, `d.h.l`: single letters between points."""
    letters = word.split(".")
    return word not in ("i", "") and all(
        len(letter) == 1 and letter.isalpha() and not _is_wide(letter) for letter in letters
    )


def ends_at_line(text: str, line: int, match: re.Match[str]) -> bool:
    """Whether a line's end is a sentence's end: at blank lines, around headings, list items and table rows."""
    if match.group().count("\n") > 1:
        return True
    head = text[line : line + _LOOK_BACK].lstrip()
    after = text[match.end() : match.end() + _LOOK_BACK]
    if not after or _LINE_START.match(after) or _ALONE.match(head):
        return True
    last = text[match.start() - 1 : match.start()]
    if last in (":", "："):
        return True
    wide = _is_wide(last) if last else False
    width = (match.start() - line) * (2 if wide else 1)
    return width <= _SHORT_LINE and not after[0].islower() and last not in (",", "，", "、", "-")


def _is_wide(char: str) -> bool:
    return char >= "\u2e80"
