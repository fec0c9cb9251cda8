"""How a worker says things in OpenAI's dialect, and what job is meant by what was asked. Pure."""

from __future__ import annotations

import base64
import json
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from core.serving.driver import Broke, Card, Done, Job, Piece, Prefilled, Refused
from core.serving.loop import Told, Waits
from core.serving.requests import DEFAULT_TOKENS, Asked, BadRequest
from core.serving.thread import Begun, Computed, Fatal

ENDED: Final = "worker_ended"
"""The code of what goes wrong when the whole process ends by it."""
_SERVER_ERROR: Final = 500


def card_as_json(card: Card) -> dict[str, Any]:
    return {
        "id": card.model,
        "object": "model",
        "context_size": card.context_size,
        "parallel": card.parallel,
        "features": sorted(card.features),
        "details": dict(card.details),
        "dimension": card.dimension,
        "max_tokens": card.max_tokens,
        "fingerprint": card.fingerprint,
    }


# ---------------------------------------------------------------- errors
def error_object(error: BadRequest) -> dict[str, Any]:
    kind = "server_error" if error.status >= _SERVER_ERROR else "invalid_request_error"
    return {"message": str(error), "type": kind, "param": error.param or None, "code": error.code}


def refused(error: Refused) -> BadRequest:
    code = "context_length_exceeded" if error.code == "context_length" else error.code
    return BadRequest(str(error), code=code)


def failed(told: Broke | Fatal) -> BadRequest:
    """What became of a job, as an error."""
    if isinstance(told, Fatal):
        return BadRequest(told.sentence, code=ENDED, status=503)
    codes = {"context_length": ("context_length_exceeded", 400), "bad_request": ("bad_request", 400)}
    code, status = codes.get(told.code, (told.code, 500))
    return BadRequest(told.sentence, code=code, status=status)


# ---------------------------------------------------------------- a job and what it says
def job_of(asked: Asked, prompt: list[int], card: Card) -> Job:
    """Raises BadRequest where it does not fit the context, or asks for what the driver cannot."""
    drawing = asked.drawing
    room = card.context_size - len(prompt)
    if room < 1 or (drawing.max_tokens or 1) > room:
        raise BadRequest(
            f"This model's maximum context length is {card.context_size} tokens; the prompt has {len(prompt)}"
            + (f", and {drawing.max_tokens} were asked for." if drawing.max_tokens else "."),
            "messages" if asked.messages else "prompt",
            code="context_length_exceeded",
        )
    for what, feature in ((drawing.json_schema, "json_schema"), (drawing.regex, "regex")):
        if what and feature not in card.features:
            raise BadRequest(
                f"This model does not follow a grammar ({feature}).", "response_format", code="unsupported"
            )
    return Job(
        id=new_id("chatcmpl" if asked.messages else "cmpl"),
        prompt=tuple(prompt),
        max_tokens=drawing.max_tokens or min(DEFAULT_TOKENS, room),
        temperature=drawing.temperature,
        top_p=drawing.top_p,
        top_k=drawing.top_k,
        min_p=drawing.min_p,
        repetition_penalty=drawing.repetition_penalty,
        frequency_penalty=drawing.frequency_penalty,
        presence_penalty=drawing.presence_penalty,
        seed=drawing.seed,
        stop=drawing.stop,
        json_schema=drawing.json_schema,
        regex=drawing.regex,
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """How one of OpenAI's two ways of generating says things."""

    chunk: str
    whole: str
    is_chat: bool

    def piece(self, text: str) -> str:
        return f'"delta":{{"content":{json.dumps(text)}}}' if self.is_chat else f'"text":{json.dumps(text)}'

    def message(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}} if self.is_chat else {"text": text}


CHAT: Final = Shape("chat.completion.chunk", "chat.completion", is_chat=True)
TEXT: Final = Shape("text_completion", "text_completion", is_chat=False)


@dataclass(slots=True)
class Said:
    """Turns what a job says into OpenAI's JSON."""

    model: str
    created: int
    id: str
    shape: Shape
    counts: bool

    def head(self) -> str:
        return (
            f'"id":"{self.id}","object":"{self.shape.chunk}","created":{self.created},"model":{json.dumps(self.model)}'
        )

    def text(self, text: str) -> bytes:
        part = self.shape.piece(text)
        return f'data: {{{self.head()},"choices":[{{"index":0,{part},"finish_reason":null}}]}}\n\n'.encode()

    def role(self) -> bytes:
        if not self.shape.is_chat:
            return b""
        part = '"delta":{"role":"assistant","content":""}'
        return f'data: {{{self.head()},"choices":[{{"index":0,{part},"finish_reason":null}}]}}\n\n'.encode()

    def end(self, done: Done) -> bytes:
        part = '"delta":{}' if self.shape.is_chat else '"text":""'
        found = f'data: {{{self.head()},"choices":[{{"index":0,{part},"finish_reason":"{done.reason}"}}]}}\n\n'
        if self.counts:
            found += f'data: {{{self.head()},"choices":[],"usage":{json.dumps(_usage(done))}}}\n\n'
        return (found + "data: [DONE]\n\n").encode()

    def whole(self, text: str, done: Done) -> dict[str, Any]:
        choice = {"index": 0, **self.shape.message(text), "finish_reason": done.reason}
        return {
            "id": self.id,
            "object": self.shape.whole,
            "created": self.created,
            "model": self.model,
            "choices": [choice],
            "usage": _usage(done),
        }

    def written(self, told: Sequence[Told]) -> tuple[bytes, bool]:
        """All that was told, as one write; tokens that came together are one chunk."""
        parts: list[bytes] = []
        text: list[str] = []
        for one in told:
            if isinstance(one, Piece):
                text.append(one.text)
                continue
            if text:
                parts.append(self.text("".join(text)))
                text = []
            match one:
                case Done():
                    return b"".join([*parts, self.end(one)]), True
                case Broke() | Fatal():
                    parts.append(f"data: {json.dumps({'error': error_object(failed(one))})}\n\n".encode())
                    return b"".join(parts), True
                case Waits():
                    parts.append(f": queue {one.position}\n\n".encode())
                case Prefilled():
                    parts.append(f": prefill {one.done}/{one.total}\n\n".encode())
                case Begun() | Computed():
                    pass
        if text:
            parts.append(self.text("".join(text)))
        return b"".join(parts), False


def _usage(done: Done) -> dict[str, Any]:
    return {
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.new_tokens,
        "total_tokens": done.prompt_tokens + done.new_tokens,
        "prompt_tokens_details": {"cached_tokens": done.cached_tokens},
    }


def packed(row: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()


def new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(12)}"
