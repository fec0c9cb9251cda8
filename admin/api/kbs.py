"""Knowledge bases: list, make, look at, change, delete, and take elsewhere."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, BinaryIO, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import StreamingResponse

from admin.api.documents import attachment
from admin.deps import Caller, CallerDep, KvasirDep
from admin.multipart import MultipartFiles
from admin.schemas import Given, NotTaken, Out, ShortText, Text
from core.access import Action
from core.answering.sampling import MOST_RULES
from core.app import Kvasir
from core.errors import StorageFull, UserError
from core.kb.contents import contents
from core.kb.kb_settings import FIELDS, LONGEST_DESCRIPTION, LONGEST_INSTRUCTIONS, MOST_FALLBACKS, PARTS
from core.kb.knowledge import KnowledgeBase
from core.texts import tell
from core.upkeep import exports

router = APIRouter(prefix="/kbs", tags=["knowledge bases"])

Name = Annotated[str, Field(max_length=200)]
PartName = Annotated[str, Field(max_length=64)]


class KbOut(Out):
    name: str
    description: str
    private: bool
    documents: int
    """Those that answers can come from."""
    chunks: int
    size: int
    """Bytes of all originals."""
    waiting: int
    """Documents on their way in."""
    failed: int
    vectors: bool
    embedder: str
    """Of the index that answers come from; empty: keywords alone."""
    indexes: Sequence[str]
    """States of the indexes beside the live one: building, ready, former."""
    can_edit: bool
    """Whether the caller may change its documents."""
    updated_at: datetime


class KbsOut(Out):
    items: Sequence[KbOut]
    total: int


class KbValues(Given):
    """What can be set; null stands for what the settings say."""

    description: Annotated[Text, Field(max_length=LONGEST_DESCRIPTION)] = ""
    private: bool = False
    chunk_size: int | None = None
    chunk_overlap: int | None = None
    title_enhance: bool | None = None
    mode: Literal["hybrid", "vector", "keyword"] | None = None
    top_k: Annotated[int, Field(ge=1, le=50)] | None = None
    dense_weight: Annotated[float, Field(ge=0, le=1)] | None = None
    min_evidence: Annotated[float, Field(ge=0, le=1)] | None = None
    reranker: PartName | None = None
    """Empty: none."""
    embedder: PartName | None = None
    """Of its next index; empty: none, keywords alone."""
    engine: PartName | None = None
    fallbacks: Annotated[list[PartName], Field(max_length=MOST_FALLBACKS)] | None = None
    """Engines to be tried in turn where `engine` is down before its first word; empty: none."""
    sampling: Annotated[list[Annotated[Text, Field(max_length=200)]], Field(max_length=MOST_RULES)] | None = None
    """The answer preset: `temperature=0.2` holds unless a program asks otherwise, `temperature=0.2!` always, and
    `stop+=END` is added to what it asks."""
    instructions: Annotated[Text, Field(max_length=LONGEST_INSTRUCTIONS)] | None = None
    max_documents: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    max_mb: Annotated[int, Field(ge=1, le=10_000_000)] | None = None


class NewKb(KbValues):
    name: Name


class Defaults(Out):
    """What a setting that is null stands for."""

    mode: str
    top_k: int
    dense_weight: float | None
    """Null: what suits the embedder and the script of the question."""
    min_evidence: float
    reranker: str
    embedder: str
    engine: str
    fallbacks: Sequence[str]
    instructions: str
    max_documents: int
    max_mb: int


class Choices(Out):
    engine: Sequence[str]
    embedder: Sequence[str]
    reranker: Sequence[str]


class KbSettings(Out):
    name: str
    values: Mapping[str, bool | int | float | str | Sequence[str] | None]
    defaults: Defaults
    choices: Choices
    needs_reindex: bool
    """Whether what was set would make another index than the live one."""
    can_change: bool


class ContentsOut(Out):
    documents: int
    size: int
    channels: Sequence[str]
    chunks: int
    versions: int
    overrides: int
    sources: int
    curated: int
    evaluation_sets: int
    grants: int


class Imported(Out):
    name: str
    job_id: str
    documents: int
    refused: Sequence[NotTaken]


@router.get("")
async def list_kbs(
    caller: CallerDep,
    kvasir: KvasirDep,
    text: Annotated[str, Query(max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 500,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> KbsOut:
    """A page of those the caller may ask, by name; `text` is part of name or description."""
    found = await caller.kbs(Action.ASK)
    if wanted := text.strip().lower():
        found = [kb for kb in found if wanted in kb.name.lower() or wanted in kb.description.lower()]
    states = await kvasir.generations.states()
    page = found[offset : offset + limit]
    return KbsOut(items=[_shown(caller, kb, states) for kb in page], total=len(found))


@router.post("", status_code=201)
async def create_kb(given: NewKb, caller: CallerDep, kvasir: KvasirDep) -> KbOut:
    """A new, empty knowledge base."""
    caller.require(Action.MANAGE)
    return _shown(caller, await kvasir.knowledge.create(**given.model_dump(exclude_unset=True)), {})


@router.post("/import", status_code=202)
async def import_kb(
    request: Request,
    caller: CallerDep,
    kvasir: KvasirDep,
    name: Annotated[ShortText | None, Query()] = None,
) -> Imported:
    """Makes a knowledge base of an exported file (multipart, field `files`, one); a job reads its documents."""
    caller.require(Action.MANAGE)
    files = MultipartFiles(request.stream(), request.headers.get("content-type", ""), field="files", most=1)
    async with _received(kvasir, files) as file:
        made, ticket = await exports.begin_import(kvasir, file, name or None, by=caller.person.key)
    await kvasir.jobs.release(ticket.job)
    kvasir.jobs.wake()
    return Imported(
        name=made,
        job_id=ticket.job.id,
        documents=len(ticket.documents),
        refused=[NotTaken.model_validate(item) for item in ticket.refused],
    )


@router.get("/{name}")
async def get_kb(name: str, caller: CallerDep, kvasir: KvasirDep) -> KbOut:
    """One, with its counts."""
    kb = await caller.kb(name, Action.READ)
    return _shown(caller, kb, await kvasir.generations.states())


@router.get("/{name}/settings")
async def get_settings(name: str, caller: CallerDep) -> KbSettings:
    """Everything that can be set for it, with what stands there where nothing is."""
    return await _settings(caller, await caller.kb(name, Action.WRITE))


@router.patch("/{name}")
async def change_kb(name: str, given: KbValues, caller: CallerDep, kvasir: KvasirDep) -> KbSettings:
    """Changes the settings that are sent. What shapes an index counts from its next re-index on."""
    kb = await caller.kb(name, Action.MANAGE)
    return await _settings(caller, await kvasir.knowledge.change(kb.name, **given.model_dump(exclude_unset=True)))


@router.get("/{name}/contents")
async def get_contents(name: str, caller: CallerDep, kvasir: KvasirDep) -> ContentsOut:
    """All that would be lost with it."""
    kb = await caller.kb(name, Action.MANAGE)
    return ContentsOut.model_validate(await contents(kvasir.db, kb.name))


@router.delete("/{name}", status_code=204)
async def delete_kb(name: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Deletes it with all that is in it."""
    kb = await caller.kb(name, Action.MANAGE)
    await kvasir.knowledge.delete(kb.name)


@router.get("/{name}/export", response_class=StreamingResponse)
async def export_kb(name: str, caller: CallerDep, kvasir: KvasirDep) -> StreamingResponse:
    """Its settings and originals, and all that people made of them, as one zip file."""
    kb = await caller.kb(name, Action.MANAGE)
    export = await exports.prepare_export(kvasir, kb.name)
    headers = {"content-disposition": attachment(f"{kb.name}.kvasir.zip"), "content-security-policy": "sandbox"}
    return StreamingResponse(exports.exported(export), media_type="application/zip", headers=headers)


def _shown(caller: Caller, kb: KnowledgeBase, states: Mapping[str, frozenset[str]]) -> KbOut:
    return KbOut(
        **{field: getattr(kb, field) for field in KbOut.model_fields if field not in ("indexes", "can_edit")},
        indexes=sorted(states.get(kb.id, frozenset()) - {"live"}),
        can_edit=caller.may(Action.WRITE, kb),
    )


async def _settings(caller: Caller, kb: KnowledgeBase) -> KbSettings:
    kvasir = caller.kvasir
    house = kvasir.settings
    parts = {kind: await kvasir.knowledge.part_names(kind) for kind in PARTS.values()}
    return KbSettings(
        name=kb.name,
        values={field: getattr(kb, "wanted_embedder" if field == "embedder" else field) for field in FIELDS},
        defaults=Defaults(
            mode="hybrid",
            top_k=house.answer.top_k,
            dense_weight=house.retrieval.dense_weight,
            min_evidence=house.answer.min_evidence,
            reranker=kvasir.models.default("reranker"),
            embedder=kvasir.models.default("embedder"),
            engine=kvasir.models.default("engine"),
            fallbacks=house.answer.fallbacks,
            instructions="",
            max_documents=house.ingest.max_documents,
            max_mb=house.ingest.max_kb_mb,
        ),
        choices=Choices(**parts),
        needs_reindex=await kvasir.indexes.needs_reindex(kb.name),
        can_change=caller.may(Action.MANAGE, kb),
    )


@asynccontextmanager
async def _received(kvasir: Kvasir, files: MultipartFiles) -> AsyncIterator[BinaryIO]:
    """The one file of an upload, on disk without a name while the block runs."""
    count = 0
    try:
        with tempfile.TemporaryFile(dir=kvasir.settings.data_dir) as target:
            async for file in files:
                count += 1
                async for piece in file.pieces:
                    await asyncio.to_thread(target.write, piece)
            if not count:
                raise UserError(tell("no_files"))
            yield target
    except OSError as error:
        raise StorageFull(tell("cannot_store", reason=error.strerror or error)) from error
