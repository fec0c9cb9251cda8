"""How what is said is sent: whole, or in chunks as server-sent events that end with `[DONE]`."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fastapi import Request
from starlette.responses import JSONResponse, Response

from admin.api.v1.saying import End, Saying
from admin.problem import openai_error, problem_of
from admin.stream import EventStream, while_there, with_heartbeats
from core.db.tables import new_id
from core.errors import KvasirError
from core.texts import tell
from core.types import Queued

logger = logging.getLogger(__name__)

_DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Form:
    """How a chat or a plain completion looks on the wire."""

    kind: Literal["chat", "text"]
    model: str
    id: str = field(default_factory=new_id)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, end: End) -> dict[str, Any]:
        said: dict[str, Any] = {"text": text}
        if self.kind == "chat":
            said = {"message": {"role": "assistant", "content": text, "refusal": None}}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": end.reason}
        return {**self._head(""), "choices": [choice], "usage": usage_of(end), **_extension(end)}

    def chunk(self, text: str, end: End | None, *, first: bool = False) -> dict[str, Any]:
        said: dict[str, Any] = {"text": text}
        if self.kind == "chat":
            role = {"role": "assistant"} if first else {}
            said = {"delta": {**role, **({"content": text} if text or first else {})}}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": end.reason if end else None}
        return {**self._head(".chunk"), "choices": [choice], **_extension(end)}

    def usage(self, end: End) -> dict[str, Any]:
        return {**self._head(".chunk"), "choices": [], "usage": usage_of(end)}

    def _head(self, part: str) -> dict[str, Any]:
        prefix, name = ("chatcmpl-", f"chat.completion{part}") if self.kind == "chat" else ("cmpl-", "text_completion")
        return {"id": prefix + self.id, "object": name, "created": self.created, "model": self.model}


async def whole(request: Request, said: Saying, form: Form) -> Response:
    """All of it at once; a client that goes before ends the work."""
    text, end = await while_there(request, _collected(said))
    return JSONResponse(form.whole(text if end.text is None else end.text, end))


async def streamed(request: Request, said: Saying, form: Form, *, with_usage: bool) -> Response:
    """In chunks. What fails before the first word fails with its own status, unless that takes long."""
    chunks = with_heartbeats(_chunks(said, form, with_usage=with_usage))
    first = await while_there(request, anext(chunks))
    return EventStream(_guarded(chunks), first)


async def _collected(said: Saying) -> tuple[str, End]:
    pieces, end = [], End("stop", 0, 0)
    async with aclosing(said):
        async for piece in said:
            if isinstance(piece, End):
                end = piece
            elif isinstance(piece, str):
                pieces.append(piece)
    return "".join(pieces), end


async def _chunks(said: Saying, form: Form, *, with_usage: bool) -> AsyncGenerator[bytes]:
    first = True
    async with aclosing(said):
        async for piece in said:
            if isinstance(piece, Queued):
                yield f": queue {piece.place}\n\n".encode()
                continue
            if isinstance(piece, str):
                yield _event(form.chunk(piece, None, first=first))
            else:
                yield _event(form.chunk("", piece, first=first))
                if with_usage:
                    yield _event(form.usage(piece))
            first = False
    yield _DONE


async def _guarded(chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The chunks, and in the place of an error what OpenAI's clients raise as one."""
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                yield chunk
        except KvasirError as error:
            yield b"data: " + bytes(problem_of(error).in_openai_form.body) + b"\n\n"
        except Exception:
            number = new_id()
            logger.exception("completion %s came to nothing", number)
            yield _event(openai_error(500, tell("internal_error", id=number)))


def usage_of(end: End) -> dict[str, int]:
    total = end.prompt_tokens + end.completion_tokens
    return {"prompt_tokens": end.prompt_tokens, "completion_tokens": end.completion_tokens, "total_tokens": total}


def _extension(end: End | None) -> dict[str, Any]:
    return {"kvasir": end.kvasir} if end and end.kvasir else {}


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode("utf-8", "replace")
