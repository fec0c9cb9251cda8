"""Conversations of the caller, each its owner's alone, and the questions asked in them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from admin.api.documents import attachment
from admin.chat.platform import WebPlatform, source_out
from admin.deps import CallerDep, KvasirDep, may_ask, take_turn
from admin.html import to_html
from admin.schemas import (
    Ask,
    ChangedConversation,
    ConversationOut,
    Conversations,
    ConversationWhole,
    Exchange,
    NewConversation,
    RatingOut,
)
from admin.stream import EventStream
from core.access import Action
from core.answering.conversation import Conversation
from core.answering.conversation import Exchange as Record
from core.db.tables import new_id
from core.errors import UserError
from core.texts import spoken, tell
from core.types import Language, Mention

router = APIRouter(prefix="/conversations", dependencies=[Depends(may_ask)])

PLATFORM: Final = "web"


@router.get("")
async def list_conversations(caller: CallerDep, kvasir: KvasirDep) -> Conversations:
    """The caller's own, the latest first."""
    found = await kvasir.conversations.list(caller.person.key)
    return Conversations(items=[ConversationOut.model_validate(item) for item in found])


@router.post("", status_code=201)
async def create_conversation(
    given: NewConversation, caller: CallerDep, kvasir: KvasirDep, request: Request
) -> ConversationOut:
    """A new conversation, without a question yet; its knowledge base may be named."""
    kb = (await caller.kb(given.kb, Action.ASK)).name if given.kb else None
    await take_turn(request.app.state.conversations, caller, request)
    made = await kvasir.conversations.start(PLATFORM, caller.person.key, kb=kb)
    return ConversationOut.model_validate(made)


async def own_conversation(conversation_id: str, caller: CallerDep) -> Conversation:
    """The caller's conversation of that id. Raises NotFound for anybody else's."""
    return await caller.conversation(conversation_id)


Own = Annotated[Conversation, Depends(own_conversation)]


@router.get("/{conversation_id}")
async def read_conversation(conversation: Own, caller: CallerDep, kvasir: KvasirDep) -> ConversationWhole:
    """One of the caller's own, with all its questions and answers."""
    records = await kvasir.conversations.exchanges(conversation.id, caller.person.key)
    language = spoken()
    shown = await asyncio.to_thread(lambda: [_exchange(record, language) for record in records])
    return ConversationWhole(id=conversation.id, title=conversation.title, kb=conversation.kb, exchanges=shown)


@router.patch("/{conversation_id}")
async def change_conversation(
    given: ChangedConversation, conversation: Own, caller: CallerDep, kvasir: KvasirDep
) -> ConversationOut:
    """Rename it, or choose its knowledge base: an empty one means all that the caller may ask."""
    person = caller.person.key
    if "kb" in given.model_fields_set:
        kb = (await caller.kb(given.kb, Action.ASK)).name if given.kb else None
        conversation = await kvasir.conversations.choose_kb(conversation.id, person, kb)
    if given.title is not None:
        conversation = await kvasir.conversations.rename(conversation.id, person, given.title)
    return ConversationOut.model_validate(conversation)


@router.delete("/{conversation_id}", status_code=204)
async def delete_conversation(conversation: Own, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Delete one of the caller's own, with all that was asked and answered in it."""
    await kvasir.conversations.delete(conversation.id, caller.person.key)


@router.get("/{conversation_id}/export.md")
async def export(conversation: Own, caller: CallerDep, kvasir: KvasirDep) -> Response:
    """A conversation as Markdown, with the sources of its answers."""
    text = await kvasir.conversations.markdown(conversation.id, caller.person.key, spoken())
    headers = {"content-disposition": attachment(f"{conversation.title or 'Kvasir'}.md")}
    return Response(text, media_type="text/markdown; charset=utf-8", headers=headers)


@router.post("/{conversation_id}/questions")
async def ask(given: Ask, conversation: Own, caller: CallerDep, kvasir: KvasirDep, request: Request) -> EventStream:
    """The answer as events `status`, `sources`, `delta`, and at last `finished` or `error`; hanging up stops it."""
    text = given.text.strip()
    most = kvasir.settings.web.max_question_chars
    if not text:
        raise UserError(tell("question_empty"))
    if len(text) > most:
        raise UserError(tell("question_long", most=most))
    kbs = ((await caller.kb(given.kb, Action.ASK)).name,) if given.kb else ()
    if given.regenerate is not None:
        await caller.own_answer(given.regenerate, conversation.id)
    await take_turn(request.app.state.questions, caller, request)
    mention = Mention(
        place=conversation.place,
        message_id=new_id(),
        person=caller.person,
        text=text,
        conversation_id=conversation.id,
        kbs=kbs,
        regenerate=given.regenerate,
        alone=True,
    )
    platform: WebPlatform = request.app.state.platform
    return EventStream(platform.ask(mention))


def _exchange(record: Record, language: Language) -> Exchange:
    return Exchange(
        answer_id=record.answer_id,
        question=record.question,
        html=to_html(record.text),
        text=record.text,
        answered=record.answered,
        state=record.state,
        notice=record.notice or record.error,
        sources=[source_out(source, language) for source in record.sources],
        rating=RatingOut(value=record.rating.value, reason=record.rating.reason) if record.rating else None,
        created_at=record.created_at,
    )
