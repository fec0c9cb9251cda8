"""Reads what OpenAI-compatible servers send: server-sent events as they really come. Pure: bytes in, plain data out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Final

MAX_EVENT_BYTES: Final = 1 << 20
"""A longer line or event is no answer but a fault."""

_MOST_TOKENS: Final = 1 << 31
"""More than the column of a database holds is no count."""
_BEGIN: Final = re.compile(r"\s*(?:\[\s*)?\{")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_QUEUE: Final = re.compile(r": queue ([0-9]{1,6})")
_FIELDS: Final = ("event:", "id:", "retry:", ":")


class NotOurDialect(Exception):
    """What came is no chat completion; `str(error)` says what it was."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event means."""

    text: str = ""
    reasoning: bool = False
    """It carried thoughts of the model, which nobody is shown, and which prove that it lives."""
    finish: str = ""
    """Why the model ended: `stop`, `length`, `content_filter`, …"""
    error: str = ""
    """What the server says went wrong."""
    code: str = ""
    """Its own code for that."""
    done: bool = False
    usage: tuple[int, int] | None = None
    """Tokens of the prompt and of the answer, as the server counts."""
    place: int | None = None
    """In the queue of a worker of ours."""
    is_whole: bool = False
    """The text is that of a whole message, and not its next piece."""


class EventReader:
    """Cuts a stream of bytes into JSON events.

    Takes what servers send in practice: any line end, `data:` with and without a blank, comments, events without the
    empty line between them, data over several lines, and plain JSON in place of a stream.
    """

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._line_size = 0
        self._data: list[str] = []
        self._stray: list[str] = []
        self._size = 0
        self.seen = False
        """An event was recognised."""
        self._any_piece = False

    def feed(self, received: bytes) -> list[Piece]:
        """The events that `received` completes, in order."""
        if b"\n" not in received and b"\r" not in received:
            self._hold(received)
            return []
        joined = b"".join([*self._line, received])
        self._line, self._line_size = [], 0
        if joined.endswith(b"\r"):  # perhaps half of a line end
            joined, held = joined[:-1], b"\r"
        else:
            held = b""
        *lines, rest = _LINE_END.split(joined)
        self._hold(rest + held)
        return [piece for line in lines for piece in self._take(line)]

    def close(self) -> list[Piece]:
        """The events that the end of the stream completes."""
        rest = b"".join(self._line).rstrip(b"\r")
        self._line, self._line_size = [], 0
        pieces = [*self._take(rest), *self._end_of_event()]
        if not self.seen and self._stray:
            document = _json("\n".join(self._stray))
            if document is None:
                raise NotOurDialect(clipped(" ".join(self._stray)))
            pieces.append(self._meant(document))
        return pieces

    def _meant(self, document: dict[str, Any]) -> Piece:
        """What an event means after those before it: some servers say everything once more at the end."""
        self.seen = True
        piece = meaning(document)
        if piece.is_whole and self._any_piece:
            return replace(piece, text="")
        self._any_piece = self._any_piece or bool(piece.text)
        return piece

    def _hold(self, rest: bytes) -> None:
        self._line_size += len(rest)
        if self._line_size > MAX_EVENT_BYTES:
            raise NotOurDialect(f"a line of more than {MAX_EVENT_BYTES} bytes")
        if rest:
            self._line.append(rest)

    def _take(self, raw: bytes) -> list[Piece]:
        line = raw.decode("utf-8", "replace").removeprefix("\ufeff")
        if not line.strip():
            return self._end_of_event()
        if line.startswith("data:"):
            return self._data_line(line[5:].strip())
        if (place := _QUEUE.fullmatch(line)) is not None:
            return [Piece(place=int(place[1]))]
        if not line.startswith(_FIELDS):
            self._grow(len(raw))
            self._stray.append(line)
        return []

    def _data_line(self, data: str) -> list[Piece]:
        if data == "[DONE]":
            self.seen = True
            self._data.clear()
            return [Piece(done=True)]
        if not self._data and (document := _json(data)) is not None:
            return [self._meant(document)]
        self._grow(len(data))
        self._data.append(data)
        return []

    def _end_of_event(self) -> list[Piece]:
        if not self._data:
            return []
        document = _json("\n".join(self._data))
        text = " ".join(self._data)
        self._data.clear()
        self._size = 0
        if document is None:
            if text.strip():
                raise NotOurDialect(clipped(text))
            return []
        return [self._meant(document)]

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_EVENT_BYTES:
            raise NotOurDialect(f"an event of more than {MAX_EVENT_BYTES} bytes")


class ThoughtFilter:
    """Leaves out `<think>…</think>` at the start of an answer, which some servers send as text."""

    _OPEN: Final = "<think>"
    _CLOSE: Final = "</think>"

    def __init__(self) -> None:
        self._held = ""
        self._state: str = "start"

    def feed(self, text: str) -> str:
        """The part of `text` (and of what was held) that is answer."""
        if self._state == "answer":
            return text
        self._held += text
        if self._state == "start":
            begin = self._held.lstrip()
            if self._OPEN.startswith(begin[: len(self._OPEN)]) and len(begin) < len(self._OPEN):
                return ""
            if not begin.startswith(self._OPEN):
                self._state = "answer"
                return self.close()
            self._state = "thinking"
        before, found, after = self._held.partition(self._CLOSE)
        if not found:
            self._held = before[-len(self._CLOSE) :]
            return ""
        self._state, self._held = "answer", ""
        return after.lstrip()

    def close(self) -> str:
        """What was held and turned out to be answer."""
        held, self._held = self._held, ""
        return held if self._state != "thinking" else ""


def meaning(document: dict[str, Any]) -> Piece:
    """What a chunk, a whole completion, or an error object says."""
    choices, usage = document.get("choices"), _usage(document)
    if failed := _error(document):
        return failed
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return _choice(choices[0], usage)
    if isinstance(choices, list) or "usage" in document or document.get("object") == "chat.completion.chunk":
        return Piece(usage=usage)
    return _stated_error(document) or Piece()


def clipped(text: str, limit: int = 200) -> str:
    """One line of at most `limit` characters, without control characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: limit * 4]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _choice(choice: dict[str, Any], usage: tuple[int, int] | None) -> Piece:
    delta, message = choice.get("delta"), choice.get("message")
    is_whole = not delta and isinstance(message, dict)
    delta = delta or message
    if not isinstance(delta, dict):
        delta = {}
    finish = choice.get("finish_reason")
    return Piece(
        text=_text(delta.get("content")) or _text(choice.get("text")),
        reasoning=bool(delta.get("reasoning_content") or delta.get("reasoning")),
        finish=finish if isinstance(finish, str) else "",
        usage=usage or _usage(choice),
        is_whole=is_whole,
    )


def _usage(document: dict[str, Any]) -> tuple[int, int] | None:
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return None
    asked, said = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(asked) is not int or type(said) is not int or not (0 <= asked < _MOST_TOKENS and 0 <= said < _MOST_TOKENS):
        return None
    return asked, said


def _text(content: Any) -> str:
    """Content is a string, or (some servers) a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _error(document: dict[str, Any]) -> Piece | None:
    error = document.get("error")
    if isinstance(error, dict):
        message = error.get("message") or error.get("code") or error
        return Piece(error=clipped(str(message)), code=str(error.get("code") or error.get("type") or ""))
    if error:
        return Piece(error=clipped(str(error)))
    base = document.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        code = str(base["status_code"])
        return Piece(error=clipped(str(base.get("status_msg") or code)), code=code)
    return None


def _stated_error(document: dict[str, Any]) -> Piece | None:
    for key in ("message", "detail", "msg", "error_msg"):
        if document.get(key):
            return Piece(error=clipped(str(document[key])), code=str(document.get("code") or ""))
    return None


def _json(text: str) -> dict[str, Any] | None:
    if not _BEGIN.match(text):
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, list) and len(document) == 1:  # so an error comes from Gemini
        document = document[0]
    return document if isinstance(document, dict) else None
