"""Who changed what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from admin.api.people import printable
from admin.deps import CallerDep, KvasirDep
from admin.schemas import Out
from core.access import Action

router = APIRouter(prefix="/audit")


class ChangeOut(Out):
    id: str
    person: str
    name: str
    action: str
    kind: str
    object: str
    changes: Mapping[str, Any]
    """As they were sent, secrets masked."""
    address: str
    created_at: datetime


class Changes(Out):
    items: Sequence[ChangeOut]
    total: int


@router.get("")
async def list_changes(
    caller: CallerDep,
    kvasir: KvasirDep,
    text: Annotated[str, Query(max_length=200)] = "",
    kind: Annotated[str, Query(max_length=32)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> Changes:
    """The newest first."""
    caller.require(Action.PEOPLE)
    items, total = await kvasir.audit.list(text=printable(text), kind=printable(kind), limit=limit, offset=offset)
    return Changes(items=[ChangeOut.model_validate(item) for item in items], total=total)
