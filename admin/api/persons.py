"""What is kept about a person, whether they have an account or not: looked up, given out, erased."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from starlette.responses import Response

from admin.api.documents import attachment
from admin.deps import CallerDep, KvasirDep
from admin.schemas import Out, ShortText, Text
from core.access import Action


async def for_people(caller: CallerDep) -> None:
    """Raises NotAllowed."""
    caller.require(Action.PEOPLE)


router = APIRouter(prefix="/persons", tags=["persons"], dependencies=[Depends(for_people)])

Key = Annotated[Text, Field(max_length=255)]


class PersonOut(Out):
    key: str
    name: str
    answers: int
    last_at: datetime


class PersonsOut(Out):
    items: Sequence[PersonOut]
    total: int


class KeptOut(Out):
    """How much there is of a person."""

    person: str
    name: str
    conversations: int
    answers: int
    ratings: int
    messages: int
    posts: int
    grants: int
    escalations: int
    files: int
    has_account: bool


@router.get("")
async def list_persons(
    kvasir: KvasirDep,
    text: ShortText = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 25,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> PersonsOut:
    """Everybody who asked something, by part of their key or name."""
    items, total = await kvasir.persons.find(text.strip(), limit=limit, offset=offset)
    return PersonsOut(items=[PersonOut.model_validate(item) for item in items], total=total)


@router.get("/{person}")
async def read_person(person: Key, kvasir: KvasirDep) -> KeptOut:
    """How much is kept about somebody."""
    return KeptOut.model_validate(await kvasir.persons.kept(person))


@router.get("/{person}/export.json", response_class=Response, responses={200: {"content": {"application/json": {}}}})
async def export_person(person: Key, caller: CallerDep, kvasir: KvasirDep) -> Response:
    """All that is kept about somebody, as one JSON file; that it was given out is written down."""
    found = await kvasir.persons.export(person)
    await kvasir.audit.note(caller.person, "persons.export_person", kind="persons", object=person)
    body = await asyncio.to_thread(json.dumps, found, ensure_ascii=False, indent=1)
    headers = {"content-disposition": attachment(f"{person}.json"), "cache-control": "no-store"}
    return Response(body.encode(), media_type="application/json", headers=headers)


@router.delete("/{person}")
async def erase_person(person: Key, kvasir: KvasirDep) -> KeptOut:
    """Erases all of it but the account; gives what there was."""
    return KeptOut.model_validate(await kvasir.persons.erase(person))
