"""Reads the files of a multipart upload as they stream in; nothing is kept in memory but the piece at hand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Literal

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from core.texts import tell

_MAX_HEADERS: Final = 8
_MAX_HEADER_BYTES: Final = 8192
_MAX_JUNK: Final = 4096
"""Bytes before the first part, after the last, or in fields that are not files."""


@dataclass(frozen=True, slots=True)
class _Event:
    kind: Literal["begin", "header", "ready", "data", "end", "over"]
    name: bytes = b""
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class File:
    name: str
    """As the browser sent it."""
    pieces: AsyncIterator[bytes]
    """To be read before the next file; what is left unread is passed over."""


class MultipartFiles:
    """The files in field `field` of a request's body. Raises HTTP 400, 413 or 415 at the first sign of a bad one."""

    def __init__(self, body: AsyncIterator[bytes], content_type: str, *, field: str, most: int) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:
            raise HTTPException(415, tell("not_multipart"))
        self._body = body
        self._field = field.encode()
        self._most = most
        self._parts = 0
        self._junk = 0
        self._events: deque[_Event] = deque()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part,
                "on_header_field": lambda data, start, end: self._add("header", name=data[start:end]),
                "on_header_value": lambda data, start, end: self._add("header", data=data[start:end]),
                "on_header_end": lambda: self._add("header"),
                "on_headers_finished": lambda: self._add("ready"),
                "on_part_data": lambda data, start, end: self._add("data", data=data[start:end]),
                "on_part_end": lambda: self._add("end"),
                "on_end": lambda: self._add("over"),
            },
            max_header_count=_MAX_HEADERS,
            max_header_size=_MAX_HEADER_BYTES,
        )

    async def __aiter__(self) -> AsyncIterator[File]:
        disposition = _Header(b"content-disposition")
        name: str | None = None
        while (event := await self._next()).kind != "over":
            if event.kind == "begin":
                disposition, name = _Header(b"content-disposition"), None
            elif event.kind == "header":
                disposition.take(event)
            elif event.kind == "ready":
                name = self._file_name(disposition.value)
                if name is not None:
                    yield File(name, self._pieces())
            elif event.kind == "data" and name is None:
                self._count_junk(len(event.data))

    async def _pieces(self) -> AsyncIterator[bytes]:
        while (event := await self._next()).kind == "data":
            yield event.data

    async def _next(self) -> _Event:
        """The next event; reads on where there is none."""
        while not self._events:
            try:
                piece = await anext(self._body)
            except StopAsyncIteration:
                raise _broken() from None  # it ended before its last boundary
            before = self._parts
            try:
                self._parser.write(piece)
            except FormParserError as error:
                raise _broken() from error
            if before == 0 == self._parts:
                self._count_junk(len(piece))
            await asyncio.sleep(0)  # parsing is work for the CPU; others get their turn after each piece
        return self._events.popleft()

    def _on_part(self) -> None:
        self._parts += 1
        if self._parts > self._most:
            raise HTTPException(413, tell("too_many_files", most=self._most))
        self._add("begin")

    def _add(
        self, kind: Literal["begin", "header", "ready", "data", "end", "over"], *, name: bytes = b"", data: bytes = b""
    ) -> None:
        self._events.append(_Event(kind, name, data))

    def _count_junk(self, size: int) -> None:
        self._junk += size
        if self._junk > _MAX_JUNK:
            raise _broken()

    def _file_name(self, disposition: bytes) -> str | None:
        """The file's name; None where the part is not one of the wanted field."""
        _, options = parse_options_header(disposition)
        name = options.get(b"filename")
        if name is None or options.get(b"name") != self._field:
            return None
        return name.decode("utf-8", "replace")


class _Header:
    """Collects one header of a part from the pieces it comes in."""

    def __init__(self, wanted: bytes) -> None:
        self._wanted = wanted
        self._name = b""
        self._value = b""
        self.value = b""

    def take(self, event: _Event) -> None:
        if event.name or event.data:
            self._name += event.name
            self._value += event.data
            return
        if self._name.lower() == self._wanted:
            self.value = self._value
        self._name = self._value = b""


def _broken() -> HTTPException:
    return HTTPException(400, tell("multipart_broken"))
