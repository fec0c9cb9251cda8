"""Curated answers: written by a person, and given whenever one of their questions is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, Field

from admin.api.statistics import reviewer
from admin.deps import CallerDep, KvasirDep, is_id
from admin.html import to_html
from admin.schemas import Given, Out, ShortText, Text
from core.access import Action
from core.errors import NotFound
from core.quality.curated import LONGEST, LONGEST_QUESTION, MOST_PARAPHRASES, CuratedAnswer, Rewritten, Written
from core.texts import tell

router = APIRouter(prefix="/curated", tags=["curated answers"], dependencies=[Depends(reviewer)])

Line = Annotated[Text, Field(max_length=LONGEST_QUESTION)]
Lines = Annotated[tuple[Line, ...], Field(max_length=MOST_PARAPHRASES)]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Ids = Annotated[tuple[Id, ...], Field(max_length=50)]
Body = Annotated[Text, Field(max_length=LONGEST)]


class NewCurated(Given):
    kb: ShortText
    question: Line
    text: Body
    """CommonMark."""
    paraphrases: Lines = ()
    rests_on: Ids | None = None
    """Documents of the knowledge base; when one changes, the answer is marked for review."""
    expires_at: AwareDatetime | None = None


class ChangedCurated(Given):
    question: Line | None = None
    text: Body | None = None
    paraphrases: Lines | None = None
    rests_on: Ids | None = None
    expires_at: AwareDatetime | None = None
    """Null: it never expires."""
    on: bool | None = None
    """False: it is not given; true: it is given again."""


class RestsOnOut(Out):
    document_id: str
    name: str
    """Empty where it is gone."""
    state: str
    """same, changed, or gone."""


class CuratedOut(Out):
    id: str
    kb: str
    document_id: str | None
    question: str
    paraphrases: Sequence[str]
    text: str
    html: str
    rests_on: Sequence[RestsOnOut]
    state: str
    """active, review, expired, or off."""
    reason: str
    """Why it is to be reviewed: sentences, one a line."""
    answer_id: str | None
    used: int
    created_by: str
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


class CuratedPage(Out):
    items: Sequence[CuratedOut]
    total: int


@router.get("")
async def list_curated(
    caller: CallerDep,
    kvasir: KvasirDep,
    kb: ShortText | None = None,
    state: Literal["active", "review", "expired", "off"] | None = None,
    text: ShortText = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 25,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> CuratedPage:
    """Those of the knowledge bases that the caller may read, the latest changed first."""
    kbs = await caller.kb_names(Action.REVIEW)
    wanted = [name for name in kbs if kb is None or name == kb]
    items, total = await kvasir.curated.list(wanted, state=state, text=text.strip(), limit=limit, offset=offset)
    return CuratedPage(items=await asyncio.to_thread(lambda: [curated_out(item) for item in items]), total=total)


@router.post("", status_code=201)
async def create_curated(given: NewCurated, caller: CallerDep, kvasir: KvasirDep) -> CuratedOut:
    """A new one; it is given from now on."""
    kb = await caller.kb(given.kb, Action.CURATE)
    written = Written(given.question, given.text, given.paraphrases, given.rests_on, given.expires_at)
    return curated_out(await kvasir.curated.add(kb.name, written, caller.person.name))


async def seen_curated(curated_id: str, caller: CallerDep, kvasir: KvasirDep) -> CuratedAnswer:
    """Raises NotFound, also where the caller may not read its knowledge base."""
    unknown = NotFound(tell("no_such_curated"))
    if not is_id(curated_id):
        raise unknown
    found = await kvasir.curated.get(curated_id)
    try:
        await caller.kb(found.kb, Action.REVIEW)
    except NotFound as error:
        raise unknown from error
    return found


Seen = Annotated[CuratedAnswer, Depends(seen_curated)]


@router.get("/{curated_id}")
async def read_curated(found: Seen) -> CuratedOut:
    """One, with the state of the documents it rests on."""
    return curated_out(found)


@router.patch("/{curated_id}")
async def change_curated(given: ChangedCurated, found: Seen, caller: CallerDep, kvasir: KvasirDep) -> CuratedOut:
    """Changes it; whoever does so has looked at it, so that it needs no review any more."""
    await caller.kb(found.kb, Action.CURATE)
    changed = Rewritten(
        question=given.question,
        text=given.text,
        paraphrases=given.paraphrases,
        rests_on=given.rests_on,
        is_expiry_set="expires_at" in given.model_fields_set,
        expires_at=given.expires_at,
        is_on=given.on,
    )
    return curated_out(await kvasir.curated.change(found.id, changed, caller.person.name))


@router.delete("/{curated_id}", status_code=204)
async def delete_curated(found: Seen, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Deletes it with its document."""
    await caller.kb(found.kb, Action.CURATE)
    await kvasir.curated.delete(found.id)


def curated_out(answer: CuratedAnswer) -> CuratedOut:
    own = {name: getattr(answer, name) for name in CuratedOut.model_fields if name != "html"}
    return CuratedOut.model_validate({**own, "html": to_html(answer.text)})
