"""Chats and plain completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from admin.api.v1.replies import Form, streamed, whole
from admin.api.v1.saying import saying
from admin.api.v1.schemas import Asked, Chat, Message, Text
from admin.deps import Caller, CallerDep, may_ask, take_turn

router = APIRouter(dependencies=[Depends(may_ask)])


@router.post("/chat/completions")
async def chat(given: Chat, caller: CallerDep, request: Request) -> Response:
    """What a language model says to the messages; from `kb:<name>`, the answer to the last, those before as history."""
    return await _reply("chat", given, given.messages, caller, request)


@router.post("/completions")
async def complete(given: Text, caller: CallerDep, request: Request) -> Response:
    """The same for one prompt, which a chat model takes as a user's message."""
    return await _reply("text", given, [Message(role="user", content=given.prompt)], caller, request)


async def _reply(
    kind: Literal["chat", "text"], given: Asked, messages: Sequence[Message], caller: Caller, request: Request
) -> Response:
    said = await saying(given, messages, caller, caller.kvasir)
    await take_turn(request.app.state.questions, caller, request)
    form = Form(kind, given.model)
    if given.stream:
        return await streamed(request, said, form, with_usage=given.with_usage)
    return await whole(request, said, form)
