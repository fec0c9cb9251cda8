"""The indexes of a knowledge base: the live one, and those that are built beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field

from admin.deps import Caller, CallerDep, KvasirDep, is_id
from admin.schemas import Given, Out
from core.access import Action
from core.app import Kvasir
from core.errors import Conflict, NotFound, UserError
from core.indexing import reindex
from core.indexing.generations import Index
from core.kb.knowledge import KnowledgeBase
from core.texts import tell
from core.work.jobs import Job

router = APIRouter(prefix="/kbs/{name}", tags=["knowledge bases"])


class FiguresOut(Out):
    documents: int
    chunks: int
    words: int
    """Search words, of all chunks together."""


class MeasuredOut(Out):
    set_id: str
    name: str
    figures: Mapping[str, float]
    at: datetime


class FailedOut(Out):
    name: str
    reason: str


class IndexOut(Out):
    id: str
    state: str
    """live, ready, building, or former."""
    embedder: str
    dimension: int
    chunk_size: int
    chunk_overlap: int
    title_enhance: bool
    documents: int
    chunks: int
    counted: FiguresOut | None
    live_then: FiguresOut | None
    seconds: float | None
    failed: Sequence[FailedOut]
    """Documents that it could not read."""
    behind: int
    """Documents that are read into it before a switch."""
    created_at: datetime
    switched_at: datetime | None
    kept_until: datetime | None
    measured: Sequence[MeasuredOut]


class IndexJob(Out):
    id: str
    kind: str
    state: str
    done: int | None
    total: int | None
    note: str
    """What it is at, besides reading documents; may be empty."""


class IndexesOut(Out):
    items: Sequence[IndexOut]
    total: int
    needs_reindex: bool
    """Whether what is set for the knowledge base would make another index than the live one."""
    job: IndexJob | None
    """What builds, switches or moves one just now, or waits to."""
    failure: str
    """Why the last such job failed, where none came after it."""
    store: str
    """Where the live one is; empty: there is none yet."""
    stores: Sequence[str]
    """Where it can be moved to: the other stores that are set up."""
    can_change: bool


class Build(Given):
    beside: bool = True
    """Let it wait to be compared; else it is switched to when it is complete."""


class Switch(Given):
    give_up: bool = False
    """Let documents that it cannot read be lost."""


class Move(Given):
    store: Annotated[str, Field(min_length=1, max_length=64)]
    """Kind of the store, one of `stores`."""


class Switched(Out):
    job_id: str | None
    """What reads first what came in meanwhile; null: it is done."""


@router.get("/indexes")
async def list_indexes(name: str, caller: CallerDep) -> IndexesOut:
    """The live one first; and what is being done about them."""
    return await _shown(caller, await caller.kb(name, Action.WRITE))


@router.post("/indexes", status_code=202)
async def build_index(name: str, given: Build, caller: CallerDep, kvasir: KvasirDep) -> IndexJob:
    """Builds an index as the settings are now, beside the live one."""
    kb = await caller.kb(name, Action.MANAGE)
    await _refuse_two(kvasir, kb)
    return _job(await kvasir.jobs.add("reindex", {"kb": kb.name, "beside": given.beside}))


@router.post("/indexes/{index_id}/switch", responses={202: {"model": Switched, "description": "A job does it."}})
async def switch_index(
    name: str, index_id: str, given: Switch, response: Response, caller: CallerDep, kvasir: KvasirDep
) -> Switched:
    """Answers come from this index from now on; the one before is kept for some days for a way back.

    At once, or, where documents came in meanwhile, when a job has read those.
    """
    kb = await caller.kb(name, Action.MANAGE)
    await _refuse_two(kvasir, kb)
    _check_id(index_id)
    if await kvasir.generations.is_level(kb.name, index_id):
        await kvasir.generations.switch(kb.name, index_id, give_up=given.give_up)
        return Switched(job_id=None)
    job = await kvasir.jobs.add("switch", {"kb": kb.name, "generation": index_id, "give_up": given.give_up})
    response.status_code = 202
    return Switched(job_id=job.id)


@router.delete("/indexes/{index_id}", status_code=204)
async def discard_index(name: str, index_id: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Gives up one that is not live, also while it is built."""
    kb = await caller.kb(name, Action.MANAGE)
    _check_id(index_id)
    found = await kvasir.generations.list(kb.name)
    building = next((one.id for one in found if one.state == "building"), None)
    await kvasir.generations.discard(kb.name, index_id)
    job = await reindex.latest(kvasir.jobs, kb.name)
    if job is not None and reindex.is_busy(job) and index_id in (building, job.payload.get("generation")):
        await kvasir.jobs.cancel(job.id)


@router.post("/move", status_code=202)
async def move_index(name: str, given: Move, caller: CallerDep, kvasir: KvasirDep) -> IndexJob:
    """Takes the live index to another store as it is; a job does it, and questions are answered meanwhile."""
    kb = await caller.kb(name, Action.MANAGE)
    await _refuse_two(kvasir, kb)
    there = await kvasir.stores_set_up()
    if given.store not in there:
        raise UserError(tell("move_not_set_up", store=given.store, names=", ".join(there)))
    await kvasir.store.usable(given.store)
    return _job(await kvasir.jobs.add("move", {"kb": kb.name, "store": given.store}))


async def _refuse_two(kvasir: Kvasir, kb: KnowledgeBase) -> None:
    if reindex.is_busy(await reindex.latest(kvasir.jobs, kb.name)):
        raise Conflict(tell("index_busy", kb=kb.name))


def _check_id(index_id: str) -> None:
    if not is_id(index_id):
        raise NotFound(tell("no_such_index"))


async def _shown(caller: Caller, kb: KnowledgeBase) -> IndexesOut:
    kvasir = caller.kvasir
    found = await kvasir.generations.list(kb.name)
    job = await reindex.latest(kvasir.jobs, kb.name)
    store = await kvasir.moving.store_of(kb.name)
    items = [
        IndexOut(
            **{field: getattr(one, field) for field in IndexOut.model_fields if field not in ("failed", "measured")},
            failed=[FailedOut(name=document, reason=reason) for document, reason in one.failed],
            measured=[MeasuredOut.model_validate(figures) for figures in one.measured],
        )
        for one in found
    ]
    return IndexesOut(
        items=items,
        total=len(items),
        needs_reindex=await kvasir.indexes.needs_reindex(kb.name),
        job=_job(job) if job and reindex.is_busy(job) else None,
        failure=_failure(job, found),
        store=store,
        stores=[one for one in await kvasir.stores_set_up() if store and one != store],
        can_change=caller.may(Action.MANAGE, kb),
    )


def _failure(job: Job | None, found: Sequence[Index]) -> str:
    """Why the last one failed, while that still says something: until its index was given up."""
    if job is None or job.state != "failed":
        return ""
    started = job.kind in ("switch", "move") or any(one.state == "building" for one in found)
    return (job.error or "") if started else ""


def _job(job: Job) -> IndexJob:
    done, total = job.progress.get("done"), job.progress.get("total")
    note = str(job.progress.get("note", ""))
    return IndexJob(id=job.id, kind=job.kind, state=job.state, done=done, total=total, note=note)
