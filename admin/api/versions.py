"""Former versions of a document."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from admin.api.documents import BYTES, download, listed
from admin.deps import CallerDep, KvasirDep
from admin.schemas import ListedOut, Out
from core.access import Action

router = APIRouter(prefix="/documents/{document_id}/versions", tags=["documents"])

Number = Annotated[int, Path(ge=1, le=2_000_000_000)]


class VersionOut(Out):
    number: int
    size: int
    by: str
    """Who put it in; empty where that is not known."""
    replaced_at: datetime


class VersionsOut(Out):
    items: Sequence[VersionOut]
    total: int


@router.get("")
async def list_versions(document_id: str, caller: CallerDep, kvasir: KvasirDep) -> VersionsOut:
    """The former versions that are kept, the newest first."""
    document = await caller.document(document_id, Action.READ)
    found = await kvasir.versions.list(document.id)
    return VersionsOut(items=[VersionOut.model_validate(one) for one in found], total=len(found))


@router.get("/{number}/original", response_class=Response, responses=BYTES)
async def version_original(document_id: str, number: Number, caller: CallerDep, kvasir: KvasirDep) -> Response:
    """The bytes of a former version, to be kept and never shown."""
    document = await caller.document(document_id, Action.READ)
    return download(await kvasir.versions.original(document.id, number), document.name)


@router.post("/{number}/restore")
async def restore_version(document_id: str, number: Number, caller: CallerDep, kvasir: KvasirDep) -> ListedOut:
    """Put a former version in the place of the newest, which becomes a version itself."""
    document = await caller.document(document_id, Action.WRITE)
    job = await kvasir.versions.restore(document.id, number, by=caller.person.name, claimed=True)
    await kvasir.at_once(job)
    return listed(await kvasir.documents.get(document.id))
