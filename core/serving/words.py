"""Makes a job's text of its tokens, for libraries that give no more: whole characters, stop strings, caps."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Sequence
from typing import Final, Literal, Protocol

from core.serving.driver import Done, Event, Job, Piece, Refused

_BROKEN: Final = "\ufffd"
_LONGEST_HELD: Final = 3
"""Bytes of a character that lacks its last one, and so the marks that a decoder may write for them."""
_LONGEST_WINDOW: Final = 64
"""Tokens that are decoded together at most; so many without a whole character are no text."""


class Spelling(Protocol):
    """Tokens to text, one after the other."""

    def feed(self, token: int) -> str:
        """The characters that are whole with this token."""

    def close(self) -> str:
        """What is left, broken as it may be."""


class ByteSpelling:
    """For libraries that know the bytes of a token."""

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        return self._decoder.decode(self._bytes_of(token))

    def close(self) -> str:
        return self._decoder.decode(b"", final=True)


class DecodedSpelling:
    """For libraries that decode several tokens at once, and mark what they cannot with U+FFFD.

    Tokens are decoded with those before them, since many decoders leave out a blank where a text begins.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._known = 0
        """Tokens of the window that came out whole; they are only there for those behind them."""
        self._sent = 0
        """Characters of the window that were given out."""

    def feed(self, token: int) -> str:
        self._window.append(token)
        text = self._decode(self._window)
        held = len(text) - len(text.rstrip(_BROKEN))
        if len(self._window) - self._known > _LONGEST_HELD:  # it is no character; its end may begin one
            held = min(held, _LONGEST_HELD)
        found = text[self._sent : len(text) - held]
        self._sent = max(self._sent, len(text) - held)
        if not held:
            self._move()
        elif len(self._window) > _LONGEST_WINDOW:
            found += text[self._sent :]
            self._window, self._known, self._sent = [], 0, 0
        return found

    def close(self) -> str:
        text = self._decode(self._window)[self._sent :] if self._window else ""
        self._sent += len(text)
        return text

    def _move(self) -> None:
        """The tokens since the last whole character become those that stand before the next."""
        self._window = self._window[self._known :]
        self._known = len(self._window)
        self._sent = len(self._decode(self._window))


class StopStrings:
    """Lets text through up to the first stop string, and holds back what could become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """What can be shown now; nothing once one was `found`."""
        if self.found or not self._stops:
            return "" if self.found else text
        text = self._held + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        keep = self._beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def close(self) -> str:
        """What was held back and became none."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        most = min(self._longest - 1, len(text))
        ends = (size for size in range(most, 0, -1) if any(stop.startswith(text[-size:]) for stop in self._stops))
        return next(ends, 0)


class Words:
    """A job's text as its tokens come; the cap is kept here, whatever the library thinks of it."""

    def __init__(self, job: Job, spelling: Spelling, ends: Collection[int], *, most: int, cached: int = 0) -> None:
        """`ends`: tokens that end a text; `most`: tokens that fit."""
        self._job = job
        self._spelling = spelling
        self._ends = frozenset(ends)
        self._stops = StopStrings(job.stop)
        self._most = min(job.max_tokens, most)
        self.cached = cached
        self._unsaid = 0
        self.count = 0
        self.over = False

    def add(self, token: int) -> list[Event]:
        """What the next token brings; nothing when it is `over`."""
        if self.over:
            return []
        if token in self._ends:
            return self.end("stop")
        self.count += 1
        self._unsaid += 1
        text = self._stops.feed(self._spelling.feed(token))
        if self._stops.found:
            return [*self._piece(text), self._done("stop")]
        if self.count >= self._most:
            return [*self._piece(text), *self.end("length")]
        return self._piece(text)

    def end(self, reason: Literal["stop", "length"]) -> list[Event]:
        """What is left, and that it is over; nothing when it already was."""
        if self.over:
            return []
        text = self._stops.feed(self._spelling.close())
        text += self._stops.close()
        return [*self._piece(text), self._done("stop" if self._stops.found else reason)]

    def _piece(self, text: str) -> list[Event]:
        if not text:
            return []
        tokens, self._unsaid = self._unsaid, 0
        return [Piece(self._job.id, text, tokens)]

    def _done(self, reason: Literal["stop", "length"]) -> Done:
        self.over = True
        return Done(self._job.id, reason, len(self._job.prompt), self.count, self.cached)


def room(job: Job, context_size: int) -> int:
    """Tokens that an answer to the job can have. Raises Refused where its prompt alone is too long, or is none."""
    if not job.prompt:
        raise Refused("The prompt is empty.", code="bad_request")
    left = context_size - len(job.prompt)
    if left < 1:
        raise Refused(
            f"The prompt is {len(job.prompt)} tokens long, and the model reads {context_size} with its answer.",
            code="context_length",
        )
    return min(left, job.max_tokens)
