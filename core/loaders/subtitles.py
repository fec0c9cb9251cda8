"""SRT and WebVTT subtitles: what is said, in stretches of about a minute, each with its times."""

from __future__ import annotations

import re
from typing import Final

from core.loaders.decoding import decode
from core.loaders.options import Options, problem
from core.types import Locator, Parsed, Section

_TIMES = re.compile(
    r"(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[.,]\d{1,3} {0,3}--> {0,3}(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[.,]\d{1,3}"
)
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,100}>|\{\\[^{}]{0,100}\}")
_STRETCH: Final = 60
"""Seconds."""


class SubtitlesLoader:
    def __init__(self, options: Options) -> None:
        self._options = options

    def load(self, data: bytes, name: str) -> Parsed:
        text, notes = decode(data)
        sections: list[Section] = []
        said: list[str] = []
        start = end = -1
        for first, last, words in _cues(text):
            if said and first - start >= _STRETCH:
                sections.append(_section(said, start, end))
                said = []
            if not said:
                start = first
            end = max(last, first)
            said.append(words)
        if said:
            sections.append(_section(said, start, end))
        if not sections:
            raise problem("damaged", kind="SRT")
        return Parsed(tuple(sections), notes=notes)


def _cues(text: str) -> list[tuple[int, int, str]]:
    """(start, end, words) of each subtitle, times in seconds."""
    cues: list[tuple[int, int, str]] = []
    for block in re.split(r"\n[ \t]*\n", text):
        lines = block.strip().split("\n")
        for number, line in enumerate(lines[:3]):
            match = _TIMES.match(line.strip())
            if match:
                words = " ".join(_TAG.sub("", part).strip() for part in lines[number + 1 :])
                if words.strip():
                    cues.append((_seconds(*match.groups()[:3]), _seconds(*match.groups()[3:]), " ".join(words.split())))
                break
    return cues


def _seconds(hours: str | None, minutes: str | None, seconds: str | None) -> int:
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)


def _section(said: list[str], start: int, end: int) -> Section:
    return Section(" ".join(said), "text", (), Locator("part", f"{_clock(start)}–{_clock(end)}"))


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
