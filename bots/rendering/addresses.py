"""Words that a platform makes a link or a ping of by itself. Pure."""

from __future__ import annotations

import re
from typing import Final
from unicodedata import normalize

from bots.rendering.blocks import Run, Runs, joined

_REST: Final = r"[^\s<>\"`|\u3000-\u303f\uff00-\uff0f]*"
_ADDRESS: Final = (
    rf"(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9+.-]{{1,20}}://{_REST}"
    rf"|(?<![A-Za-z0-9])www\.{_REST}"
    rf"|(?<=\w\.)[A-Za-z]{{2,24}}(?::\d{{1,5}})?[/?#]{_REST}"
)
_HOST: Final = (
    r"(?:(?<![A-Za-z0-9_.@/-])(?:[A-Za-z0-9_+-]{1,63}[.@/]){0,6}[A-Za-z0-9_+-]{1,63}\.|(?<=\w\.))(?:[a-z]{2,24}|[A-Z]{2,24})(?![A-Za-z0-9_.])"
    rf"(?:(?=[:/?#]){_REST})?"
)
_NAME: Final = r"(?<![A-Za-z0-9_@])[@＠﹫]\w+"
_ADDRESSES: Final = re.compile(_ADDRESS)
_WITH_FILES: Final = re.compile(f"{_ADDRESS}|{_HOST}")
_WITH_NAMES: Final = re.compile(f"{_ADDRESS}|{_HOST}|{_NAME}")


APART: Final = "\u200b"
"""Takes no place, and parts what would have a meaning together."""
_AT: Final = re.compile(r"[@＠﹫](?=(.{1,12}))", re.DOTALL)


def parted(text: str, names: tuple[str, ...]) -> str:
    """The text with every `@` before one of these lower-case names parted from it, however the name is spelled."""

    def sign(found: re.Match[str]) -> str:
        return found[0] + (APART if normalize("NFKC", found[1]).casefold().startswith(names) else "")

    return _AT.sub(sign, text)


def without_addresses(runs: Runs, *, files: bool = False, names: bool = False) -> Runs:
    """Addresses that are no links as code, which leads nowhere; with `files`, `leave.md` too; with `names`, `@name`."""
    text = "".join(run.text for run in runs)
    pattern = _WITH_NAMES if names else _WITH_FILES if files else _ADDRESSES
    spans = [found.span() for found in pattern.finditer(text)]
    if not spans:
        return runs
    made: list[Run] = []
    begin = at = 0
    for run in runs:
        end = begin + len(run.text)
        place = begin
        while at < len(spans) and spans[at][0] < end:
            first, last = max(spans[at][0], begin), min(spans[at][1], end)
            made.append(run.saying(text[place:first]))
            made.append(_inert(run, text[first:last]))
            place = last
            if spans[at][1] > end:
                break
            at += 1
        made.append(run.saying(text[place:end]))
        begin = end
    return joined(made)


def _inert(run: Run, text: str) -> Run:
    return run.saying(text) if run.code or run.url else Run(text, code=True)
