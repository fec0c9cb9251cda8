"""Documents: upload, list, read, download, delete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import FileResponse, Response

from admin.deps import CallerDep, KvasirDep
from admin.html import to_html
from admin.multipart import MultipartFiles
from admin.schemas import ChunkOut, Chunks, DocumentOut, Documents, Given, ListedOut, NotTaken, Out, Uploaded
from core import egress
from core.access import Action
from core.blobs import Original
from core.errors import UserError
from core.indexing.ingest import Incoming, Ticket
from core.kb.documents import Listed, Sort, Wanted
from core.texts import place_of, spoken, tell
from core.types import Chunk, Language

router = APIRouter(tags=["documents"])

MOST_FILES: Final = 1000
_AROUND: Final = 3
_FETCH_SECONDS: Final = 60.0
_LONGEST_SOURCE: Final = 2000
_ANYTHING: Final = "application/octet-stream"
BYTES: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {_ANYTHING: {}}}}
_OF_LISTED: Final = ("by", "source_id", "is_live", "copies", "versions", "changes", "changes_lost")
_OF_INFO: Final = tuple(name for name in ListedOut.model_fields if name not in _OF_LISTED)
_DOWNLOAD_POLICY: Final = "default-src 'none'; sandbox"


class Address(Given):
    url: Annotated[str, Field(max_length=4096)]


class CountOut(Out):
    value: str
    name: str
    documents: int


class SummaryOut(Out):
    documents: int
    bytes: int
    max_documents: int
    max_bytes: int
    version_bytes: int
    """Bytes of former versions; they do not count against the limit."""
    duplicates: int
    """Documents whose bytes another one has too."""
    statuses: Sequence[CountOut]
    kinds: Sequence[CountOut]
    sources: Sequence[CountOut]


class CopyOut(Out):
    id: str
    name: str


class DocumentWhole(ListedOut):
    metadata: dict[str, Any]
    """What the file says of itself."""
    same: Sequence[CopyOut]
    """The other documents of its knowledge base with the same bytes."""


@router.get("/kbs/{name}/documents")
async def list_documents(
    name: str,
    caller: CallerDep,
    kvasir: KvasirDep,
    status: Annotated[str, Query(max_length=16, pattern="^[a-z]*$")] = "",
    kind: Annotated[str, Query(max_length=100)] = "",
    source: Annotated[str, Query(max_length=64)] = "",
    text: Annotated[str, Query(max_length=200)] = "",
    duplicates: bool = False,
    sort: Sort = "name",
    descending: bool = False,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> Documents:
    """A page of the documents of a knowledge base; `duplicates` shows those whose bytes another one has too."""
    kb = await caller.kb(name, Action.READ)
    wanted = Wanted(status, printable(kind), printable(source), printable(text), duplicates)
    items, total = await kvasir.documents.page(
        kb.name, wanted, sort=sort, descending=descending, limit=limit, offset=offset
    )
    return Documents(items=[listed(item) for item in items], total=total)


@router.get("/kbs/{name}/documents/summary")
async def summary(name: str, caller: CallerDep, kvasir: KvasirDep) -> SummaryOut:
    """What there is in a knowledge base by status, kind and source, and how much more may be."""
    kb = await caller.kb(name, Action.READ)
    return SummaryOut.model_validate(await kvasir.documents.summary(kb.name))


@router.post("/kbs/{name}/documents/url", status_code=202)
async def add_address(name: str, address: Address, caller: CallerDep, kvasir: KvasirDep) -> Uploaded:
    """Fetch a page or file from the public internet and take it in; again: its newest state."""
    kb = await caller.kb(name, Action.WRITE)
    most = kvasir.settings.ingest.max_file_mb << 20
    page = await egress.fetch(address.url.strip(), max_bytes=most, timeout=_FETCH_SECONDS)

    async def incoming() -> AsyncIterator[Incoming]:
        yield Incoming(page.name, lambda: page.data, page.url[:_LONGEST_SOURCE])

    return uploaded(await kvasir.ingest.submit(kb.name, incoming(), by=caller.person.name))


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

    return uploaded(await kvasir.ingest.submit(kb.name, incoming(), by=caller.person.name))


@router.get("/documents/{document_id}")
async def document(document_id: str, caller: CallerDep, kvasir: KvasirDep) -> DocumentWhole:
    """A document with all that is known of it."""
    found = await caller.document(document_id, Action.READ)
    whole = await kvasir.documents.get(found.id)
    same = [CopyOut(id=key, name=name) for key, name in await kvasir.documents.copies(found.id)]
    return DocumentWhole(**listed(whole).model_dump(), metadata=dict(whole.metadata), same=same)


@router.delete("/documents/{document_id}", status_code=204)
async def delete_document(document_id: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Delete a document, its earlier versions and all its chunks."""
    document = await caller.document(document_id, Action.WRITE)
    await kvasir.knowledge.delete_document(document.id)


@router.get("/documents/{document_id}/original", response_class=Response, responses=BYTES)
async def original(document_id: str, caller: CallerDep, kvasir: KvasirDep) -> Response:
    """The bytes as they were given, to be kept and never shown: they may be anything."""
    document = await caller.document(document_id, Action.READ)
    return download(await kvasir.knowledge.original(document.id), document.name)


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


def download(original: Original, name: str) -> Response:
    """Bytes that may be anything: to be saved under a name and never shown."""
    headers = {"content-disposition": attachment(name), "content-security-policy": _DOWNLOAD_POLICY}
    if isinstance(original.held, bytes):
        return Response(original.held, media_type=_ANYTHING, headers=headers)
    return FileResponse(original.held, media_type=_ANYTHING, headers=headers)


def listed(item: Listed) -> ListedOut:
    shared = {key: getattr(item, key) for key in _OF_LISTED}
    return ListedOut(**{key: getattr(item.info, key) for key in _OF_INFO}, **shared)


def uploaded(ticket: Ticket) -> Uploaded:
    return Uploaded(
        job_id=ticket.job.id,
        documents=[DocumentOut.model_validate(item) for item in ticket.documents],
        unchanged=[NotTaken.model_validate(item) for item in ticket.unchanged],
        refused=[NotTaken.model_validate(item) for item in ticket.refused],
    )


def printable(text: str) -> str:
    return "".join(char for char in text if char.isprintable())


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
