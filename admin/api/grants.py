"""Who was let into a knowledge base."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from admin.deps import CallerDep, KvasirDep
from admin.schemas import Given, Out
from core.access import Action

router = APIRouter(prefix="/kbs/{name}/grants", tags=["knowledge bases"])

Person = Annotated[str, Path(max_length=255)]


class GrantOut(Out):
    person: str
    """Key of an account or of a person of a chat platform; with `*` at its end: everybody of a workspace."""
    name: str
    """Of the account; else empty."""
    right: Literal["ask", "edit"]
    created_at: datetime


class GrantsOut(Out):
    items: Sequence[GrantOut]
    total: int


class Rights(Given):
    right: Literal["ask", "edit"] = "ask"


@router.get("")
async def list_grants(
    name: str,
    caller: CallerDep,
    kvasir: KvasirDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> GrantsOut:
    """A page of those let in by name; besides them everybody for whom it is not private."""
    kb = await caller.kb(name, Action.MANAGE)
    found, total = await kvasir.grants.page(kb.name, limit=limit, offset=offset)
    return GrantsOut(items=[GrantOut.model_validate(grant) for grant in found], total=total)


@router.put("/{person:path}")
async def let_in(name: str, person: Person, given: Rights, caller: CallerDep, kvasir: KvasirDep) -> GrantOut:
    """Lets in an account (by name or key), a person of a chat platform, or everybody of a workspace."""
    kb = await caller.kb(name, Action.MANAGE)
    return GrantOut.model_validate(await kvasir.grants.allow(kb.name, person, given.right))


@router.delete("/{person:path}", status_code=204)
async def take_back(name: str, person: Person, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Takes it back."""
    kb = await caller.kb(name, Action.MANAGE)
    await kvasir.grants.disallow(kb.name, person)
