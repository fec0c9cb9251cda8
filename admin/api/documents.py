"""Documents: upload, list, read, download, delete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Final
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, Response

from admin.deps import CallerDep, KvasirDep
from admin.html import to_html
from admin.multipart import MultipartFiles
from admin.schemas import ChunkOut, Chunks, DocumentOut, Documents, NotTaken, Uploaded
from core.access import Action
from core.errors import UserError
from core.ingest import Incoming
from core.texts import place_of, spoken, tell
from core.types import Chunk, Language

router = APIRouter()

MOST_FILES: Final = 1000
_AROUND: Final = 3
_DOWNLOAD_POLICY: Final = "default-src 'none'; sandbox"


@router.get("/kbs/{name}/documents")
async def list_documents(
    name: str,
    caller: CallerDep,
    kvasir: KvasirDep,
    status: Annotated[str | None, Query(max_length=16, pattern="^[a-z]+$")] = None,
    text: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> Documents:
    kb = await caller.kb(name, Action.READ)
    wanted = "".join(char for char in text or "" if char.isprintable()) or None
    items, total = await kvasir.knowledge.documents(kb.name, status=status, text=wanted, limit=limit, offset=offset)
    return Documents(items=[DocumentOut.model_validate(item) for item in items], total=total)


@router.post("/kbs/{name}/documents", status_code=202)
async def upload(name: str, request: Request, caller: CallerDep, kvasir: KvasirDep) -> Uploaded:
    """Take the files in as they stream; a job does the rest, see `/jobs/{id}/events`."""
    kb = await caller.kb(name, Action.WRITE)
    content_type = request.headers.get("content-type", "")
    files = MultipartFiles(request.stream(), content_type, field="files", most=MOST_FILES)

    async def incoming() -> AsyncIterator[Incoming]:
        count = 0
        async for file in files:
            count += 1
            yield Incoming(file.name, file.pieces)
        if not count:
            raise UserError(tell("no_files"))

    ticket = await kvasir.ingest.submit(kb.name, incoming())
    return Uploaded(
        job_id=ticket.job.id,
        documents=[DocumentOut.model_validate(item) for item in ticket.documents],
        unchanged=[NotTaken.model_validate(item) for item in ticket.unchanged],
        refused=[NotTaken.model_validate(item) for item in ticket.refused],
    )


@router.delete("/documents/{document_id}", status_code=204)
async def delete_document(document_id: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    document = await caller.document(document_id, Action.WRITE)
    await kvasir.knowledge.delete_document(document.id)


@router.get("/documents/{document_id}/original")
async def original(document_id: str, caller: CallerDep, kvasir: KvasirDep) -> Response:
    """The bytes as they were given, to be kept and never shown: they may be anything."""
    document = await caller.document(document_id, Action.READ)
    held = (await kvasir.knowledge.original(document.id)).held
    headers = {"content-disposition": attachment(document.name), "content-security-policy": _DOWNLOAD_POLICY}
    if isinstance(held, bytes):
        return Response(held, media_type="application/octet-stream", headers=headers)
    return FileResponse(held, media_type="application/octet-stream", headers=headers)


@router.get("/documents/{document_id}/chunks")
async def chunks(
    document_id: str,
    caller: CallerDep,
    kvasir: KvasirDep,
    around: Annotated[int, Query(ge=0, le=100_000_000)] = 0,
) -> Chunks:
    """The document's chunk of that number, with its neighbours."""
    document = await caller.document(document_id, Action.READ)
    found = await kvasir.knowledge.chunks(document.id)
    near = found[max(0, around - _AROUND) : around + _AROUND + 1]
    return Chunks(items=await asyncio.to_thread(_shown, near, spoken()))


def attachment(name: str) -> str:
    """A Content-Disposition that saves under the last part of `name` (RFC 6266), whatever stands in it."""
    name = "".join(char for char in name.replace("\\", "/").rpartition("/")[2] if char.isprintable()) or "document"
    plain = "".join(char if char.isascii() and (char.isalnum() or char in " ._-()") else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _shown(found: Sequence[Chunk], language: Language) -> list[ChunkOut]:
    return [
        ChunkOut(
            number=chunk.number,
            text=chunk.text,
            headings=chunk.headings,
            locator=place_of(chunk.locator, (), language),
            html=to_html(chunk.text),
        )
        for chunk in found
    ]
