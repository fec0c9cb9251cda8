"""Conversations of everybody, for those who review them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from admin.api.statistics import Chosen, reviewer
from admin.chat.platform import source_out
from admin.deps import CallerDep, KvasirDep, is_id
from admin.html import to_html
from admin.schemas import Given, Out, ShortText, SourceOut
from core.access import Action
from core.errors import NotFound
from core.quality.records import Entry, Wanted, Whole
from core.texts import spoken, tell
from core.types import Language

router = APIRouter(prefix="/records", tags=["conversations of all"], dependencies=[Depends(reviewer)])

_RATINGS = {"up": 1, "down": -1}


class PlaceOut(Out):
    platform: str
    workspace: str
    channel: str
    thread: str


class FoundOut(Out):
    id: str
    title: str
    place: PlaceOut
    channel: str
    """The channel's name, where it is known."""
    person: str
    name: str
    kbs: Sequence[str]
    question: str
    """The latest that was found in it."""
    count: int
    refused: int
    up: int
    down: int
    last_at: datetime


class FoundPage(Out):
    items: Sequence[FoundOut]
    total: int


class VoteOut(Out):
    person: str
    name: str
    value: int
    reason: str
    at: datetime


class TurnOut(Out):
    role: str
    text: str


class PassageOut(SourceOut):
    vector_score: float | None
    keyword_score: float | None
    rerank_score: float | None
    cited: bool


class EntryOut(Out):
    answer_id: str
    person: str
    name: str
    question: str
    standalone_question: str
    text: str
    html: str
    state: str
    answered: bool
    error: str
    notice: str
    kbs: Sequence[str]
    engine: str
    model: str
    passages: Sequence[PassageOut]
    prompt: Sequence[TurnOut]
    evidence: float | None
    timings_ms: Mapping[str, float]
    prompt_tokens: int | None
    answer_tokens: int | None
    curated_id: str | None
    votes: Sequence[VoteOut]
    asked_for_help: bool
    created_at: datetime


class WholeOut(Out):
    id: str
    title: str
    place: PlaceOut
    channel: str
    created_at: datetime
    entries: Sequence[EntryOut]
    hidden: int
    """Answers from knowledge bases that the caller may not read."""


class ToDelete(Given):
    ids: Annotated[Sequence[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]], Field(min_length=1, max_length=200)]


class DeletedOut(Out):
    answers: int
    conversations: int
    files: int


@router.get("")
async def search(
    kvasir: KvasirDep,
    selection: Chosen,
    text: ShortText = "",
    person: ShortText = "",
    rating: Literal["up", "down"] | None = None,
    answered: bool | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 25,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> FoundPage:
    """Conversations in which something was found, that with the latest find first."""
    wanted = Wanted(selection, text.strip(), person.strip(), _RATINGS.get(rating or ""), answered)
    items, total = await kvasir.records.search(wanted, limit=limit, offset=offset)
    return FoundPage(items=[FoundOut.model_validate(item) for item in items], total=total)


@router.get("/{record_id}")
async def read(record_id: str, caller: CallerDep, kvasir: KvasirDep) -> WholeOut:
    """A conversation with answers, passages, prompts, times and ratings; or a question that stands alone."""
    if not is_id(record_id):
        raise NotFound(tell("no_such_record"))
    whole = await kvasir.records.get(record_id, await caller.seen_kbs(Action.REVIEW))
    return await asyncio.to_thread(_whole, whole, spoken())


@router.delete("/{record_id}", status_code=204)
async def delete(record_id: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Deletes it with its answers, ratings, reviews, and the files that were sent in it."""
    caller.require(Action.PEOPLE)
    if not is_id(record_id):
        raise NotFound(tell("no_such_record"))
    gone = await kvasir.removal.conversations([record_id])
    if not gone.answers and not gone.conversations:
        raise NotFound(tell("no_such_record"))


@router.post("/delete")
async def delete_many(given: ToDelete, caller: CallerDep, kvasir: KvasirDep) -> DeletedOut:
    """Deletes several; those that are not there any more are passed by."""
    caller.require(Action.PEOPLE)
    return DeletedOut.model_validate(await kvasir.removal.conversations(given.ids))


def _whole(whole: Whole, language: Language) -> WholeOut:
    return WholeOut(
        id=whole.id,
        title=whole.title,
        place=PlaceOut.model_validate(whole.place),
        channel=whole.channel,
        created_at=whole.created_at,
        entries=[entry_out(entry, language) for entry in whole.entries],
        hidden=whole.hidden,
    )


def entry_out(entry: Entry, language: Language) -> EntryOut:
    passages = [
        PassageOut(
            **source_out(source, language).model_dump(),
            vector_score=source.passage.vector_score,
            keyword_score=source.passage.keyword_score,
            rerank_score=source.passage.rerank_score,
            cited=source.n in entry.cited,
        )
        for source in entry.passages
    ]
    own = {name: getattr(entry, name) for name in EntryOut.model_fields if name not in ("passages", "html")}
    return EntryOut.model_validate({**own, "passages": passages, "html": to_html(entry.text)})
