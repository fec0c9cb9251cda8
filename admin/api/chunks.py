"""The chunks of a document, and what people change in them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from admin.api.documents import listed
from admin.deps import CallerDep, KvasirDep
from admin.schemas import Given, ListedOut, Out, Text
from core.access import Action
from core.app import Kvasir
from core.indexing.chunks import LONGEST, Override, ShownChunk
from core.texts import place_of, spoken
from core.types import Language
from core.work.jobs import Job

router = APIRouter(prefix="/documents/{document_id}", tags=["documents"])

Number = Annotated[int, Path(ge=0, le=100_000_000)]
Seen = Annotated[str, Field(max_length=128, pattern="^[0-9a-f]*$")]
"""Content hash of the chunk as the caller saw it."""
Written = Annotated[Text, Field(max_length=2 * LONGEST)]


class ChangedChunk(Given):
    seen: Seen
    text: Written


class NewChunk(Given):
    after: Annotated[int, Field(ge=0, le=100_000_000)] | None = None
    """Number of the chunk it comes behind; null: at the end."""
    seen: Seen = ""
    text: Written


class OverrideOut(Out):
    id: str
    action: str
    """edit, disable, delete, or add."""
    original: str
    """The chunk's text as it was read; of an added one, that of the chunk before it."""
    text: str
    applied: bool
    """False: its chunk was not found when the document was last read."""
    by: str
    created_at: datetime


class OverridesOut(Out):
    items: Sequence[OverrideOut]
    total: int


class ShownChunkOut(Out):
    number: int | None
    """null: it is disabled."""
    text: str
    headings: Sequence[str]
    locator: str
    content_hash: str
    tokens: int
    overlap: int
    """Characters at the beginning that repeat the end of the chunk before it."""
    override: OverrideOut | None
    """The change that made it what it is."""


class ChunkPageOut(Out):
    items: Sequence[ShownChunkOut]
    total: int
    chunk_size: int
    """Tokens of a chunk at most, as the knowledge base says."""


@router.get("/text")
async def text(
    document_id: str,
    caller: CallerDep,
    kvasir: KvasirDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=100_000_000)] = 0,
) -> ChunkPageOut:
    """The text of a document as it is searched, chunk by chunk, with the disabled ones in their places."""
    document = await caller.document(document_id, Action.READ)
    page = await kvasir.chunks.page(document.id, limit=limit, offset=offset)
    language = spoken()
    items = [_chunk(one, language) for one in page.items]
    return ChunkPageOut(items=items, total=page.total, chunk_size=page.chunk_size)


@router.post("/chunks", status_code=201)
async def add_chunk(document_id: str, chunk: NewChunk, caller: CallerDep, kvasir: KvasirDep) -> ListedOut:
    """Put a chunk of one's own behind another one, or at the end."""
    document = await caller.document(document_id, Action.WRITE)
    job = await kvasir.chunks.add(document.id, chunk.after, chunk.seen, chunk.text, by=caller.person.name)
    return await _read(kvasir, document.id, job)


@router.patch("/chunks/{number}")
async def edit_chunk(
    document_id: str, number: Number, chunk: ChangedChunk, caller: CallerDep, kvasir: KvasirDep
) -> ListedOut:
    """Give a chunk another text; it is kept when the document is read again."""
    document = await caller.document(document_id, Action.WRITE)
    job = await kvasir.chunks.edit(document.id, number, chunk.seen, chunk.text, by=caller.person.name)
    return await _read(kvasir, document.id, job)


@router.delete("/chunks/{number}")
async def remove_chunk(
    document_id: str,
    number: Number,
    caller: CallerDep,
    kvasir: KvasirDep,
    seen: Annotated[str, Query(max_length=128, pattern="^[0-9a-f]*$")],
    for_good: bool = False,
) -> ListedOut:
    """Leave a chunk out of the index; `for_good`: it is not shown in its place any more either."""
    document = await caller.document(document_id, Action.WRITE)
    job = await kvasir.chunks.remove(document.id, number, seen, for_good=for_good, by=caller.person.name)
    return await _read(kvasir, document.id, job)


@router.get("/overrides")
async def list_overrides(document_id: str, caller: CallerDep, kvasir: KvasirDep) -> OverridesOut:
    """All that people changed in a document, in the order they did it in."""
    document = await caller.document(document_id, Action.READ)
    found = await kvasir.chunks.overrides(document.id)
    return OverridesOut(items=[OverrideOut.model_validate(one) for one in found], total=len(found))


@router.delete("/overrides/{override_id}")
async def undo_override(
    document_id: str,
    override_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")],
    caller: CallerDep,
    kvasir: KvasirDep,
) -> ListedOut:
    """Take a change back."""
    document = await caller.document(document_id, Action.WRITE)
    job = await kvasir.chunks.undo(document.id, override_id)
    return await _read(kvasir, document.id, job)


async def _read(kvasir: Kvasir, document_id: str, job: Job) -> ListedOut:
    """The document once it was read again, or still waiting for it where that takes long."""
    await kvasir.at_once(job)
    return listed(await kvasir.documents.get(document_id))


def _chunk(one: ShownChunk, language: Language) -> ShownChunkOut:
    return ShownChunkOut(
        number=one.number,
        text=one.text,
        headings=one.headings,
        locator=place_of(one.locator, (), language),
        content_hash=one.content_hash,
        tokens=one.tokens,
        overlap=one.overlap,
        override=_override(one.override),
    )


def _override(one: Override | None) -> OverrideOut | None:
    return None if one is None else OverrideOut.model_validate(one)
