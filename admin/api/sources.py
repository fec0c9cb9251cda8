"""Sources: places that documents of a knowledge base come from, again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field, SecretStr

from admin.api.jobs import JobProgress, JobsOut, progress_of, shown
from admin.api.schedules import ScheduleOut, Started, Times, schedule_out
from admin.deps import Caller, CallerDep, KvasirDep, is_id
from admin.schemas import Given, Out, ShortText
from core.access import Action
from core.app import Kvasir
from core.errors import KvasirError, NotFound
from core.sources.git_command import executable
from core.sources.register import KIND, NewSource, Preview, SourceInfo
from core.texts import tell
from core.work.schedules import NewSchedule, Schedule

router = APIRouter(prefix="/sources", tags=["sources"])

KindName = Literal["url", "sitemap", "git", "rss", "folder"]
Line = Annotated[str, Field(max_length=4096)]
Settings = Annotated[
    Mapping[str, Line | bool | int | Annotated[Sequence[Line], Field(max_length=200)]], Field(max_length=20)
]
Token = Annotated[SecretStr, Field(max_length=1000)]


class GivenSource(Given):
    kb: ShortText
    name: ShortText
    kind: KindName
    settings: Settings
    token: Token = SecretStr("")
    """Of a git repository that is not public."""


class ChangedSource(Given):
    name: ShortText | None = None
    settings: Settings | None = None
    token: Token | None = None
    """Empty: none any more. Not given: as it is, unless the address changes."""


class LookedAt(Given):
    kb: ShortText
    kind: KindName
    settings: Settings
    token: Token = SecretStr("")


class LookedAtAgain(Given):
    settings: Settings | None = None


class GivenTimes(Given):
    cron: Times
    timezone: Annotated[str, Field(max_length=64)] = "UTC"
    enabled: bool = True


class SourceOut(Out):
    id: str
    kb: str
    name: str
    kind: str
    settings: Mapping[str, Line | bool | int | Sequence[Line]]
    has_token: bool
    state: str
    """new, queued, running, done, or failed."""
    reason: str | None
    """Why it failed, or what was left out."""
    documents: int
    synced_at: datetime | None
    job_id: str | None
    """Of the synchronisation under way."""
    progress: JobProgress
    schedule: ScheduleOut | None
    created_at: datetime


class SourcesOut(Out):
    items: Sequence[SourceOut]
    total: int


class SourceKindOut(Out):
    kind: KindName
    problem: str
    """Why there can be none of this kind here; empty: there can."""


class SourceKinds(Out):
    items: Sequence[SourceKindOut]
    folders: Sequence[str]
    """Folders of the server that sources may be in or below."""


class PreviewItemOut(Out):
    name: str
    address: str


class PreviewOut(Out):
    items: Sequence[PreviewItemOut]
    """The first of them."""
    total: int
    is_complete: bool
    """False: there is more, which the limit leaves out."""
    notes: Sequence[str]
    problem: str
    """Why the first of them cannot be read; empty: it can."""


class Deleted(Out):
    documents: int


@router.get("")
async def list_sources(
    caller: CallerDep,
    kvasir: KvasirDep,
    kb: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> SourcesOut:
    """A page of the sources of those knowledge bases that the caller may edit, or of one of them."""
    caller.require(Action.WRITE)
    kbs = [(await caller.kb(kb, Action.WRITE)).name] if kb else await caller.kb_names(Action.WRITE)
    found, total = await kvasir.sources.list(kbs=kbs, limit=limit, offset=offset)
    return SourcesOut(items=await _shown(kvasir, found), total=total)


@router.post("", status_code=201)
async def create_source(given: GivenSource, caller: CallerDep, kvasir: KvasirDep) -> SourceOut:
    """A new source; the first synchronisation is started by hand or by its schedule."""
    await caller.kb(given.kb, Action.WRITE)
    token = given.token.get_secret_value()
    _require(caller, given.kind, token)
    made = await kvasir.sources.create(NewSource(given.kb, given.name, given.kind, given.settings, token))
    return await _one(kvasir, made)


@router.get("/kinds")
async def source_kinds(caller: CallerDep, kvasir: KvasirDep) -> SourceKinds:
    """The kinds of sources, and which of them can be used here by the caller."""
    caller.require(Action.WRITE)
    folders = [str(folder) for folder in kvasir.settings.sources.folders] if caller.may(Action.MANAGE) else []
    problems = {"git": _git_problem(), "folder": "" if folders else tell("source_no_folders")}
    if not caller.may(Action.MANAGE):
        problems["folder"] = tell("source_folder_admin")
    kinds: tuple[KindName, ...] = ("url", "sitemap", "rss", "git", "folder")
    return SourceKinds(
        items=[SourceKindOut(kind=kind, problem=problems.get(kind, "")) for kind in kinds], folders=folders
    )


@router.post("/preview")
async def preview_source(given: LookedAt, caller: CallerDep, kvasir: KvasirDep) -> PreviewOut:
    """What would come from a source that is set like this; nothing is kept."""
    await caller.kb(given.kb, Action.WRITE)
    token = given.token.get_secret_value()
    _require(caller, given.kind, token)
    return _preview(await kvasir.sources.preview(given.kind, given.settings, token))


@router.get("/{source_id}")
async def get_source(source_id: str, caller: CallerDep, kvasir: KvasirDep) -> SourceOut:
    """One source."""
    return await _one(kvasir, await _source(source_id, caller))


@router.patch("/{source_id}")
async def change_source(source_id: str, given: ChangedSource, caller: CallerDep, kvasir: KvasirDep) -> SourceOut:
    """Changes what is given. A new address loses the token, unless a new one comes with it."""
    source = await _source(source_id, caller)
    token = given.token.get_secret_value() if given.token is not None else None
    _require(caller, source.kind, token or "")
    changed = await kvasir.sources.update(source_id, name=given.name, settings=given.settings, token=token)
    return await _one(kvasir, changed)


@router.delete("/{source_id}")
async def delete_source(source_id: str, caller: CallerDep, kvasir: KvasirDep, documents: bool = False) -> Deleted:
    """Deletes it with its schedule, and with its documents too where `documents` says so."""
    source = await _source(source_id, caller)
    _require(caller, source.kind, "")
    return Deleted(documents=await kvasir.sources.delete(source_id, documents=documents))


@router.post("/{source_id}/preview")
async def preview_source_again(
    source_id: str, given: LookedAtAgain, caller: CallerDep, kvasir: KvasirDep
) -> PreviewOut:
    """What would come from it now, or with other settings."""
    source = await _source(source_id, caller)
    _require(caller, source.kind, "")
    return _preview(await kvasir.sources.preview_again(source_id, given.settings))


@router.post("/{source_id}/sync", status_code=202)
async def sync_source(source_id: str, caller: CallerDep, kvasir: KvasirDep) -> Started:
    """Starts a synchronisation."""
    await _source(source_id, caller)
    return Started(job_id=(await kvasir.sources.start(source_id)).id)


@router.get("/{source_id}/runs")
async def source_runs(
    source_id: str,
    caller: CallerDep,
    kvasir: KvasirDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> JobsOut:
    """A page of its synchronisations, the newest first."""
    await _source(source_id, caller)
    found, total = await kvasir.sources.runs(source_id, limit=limit, offset=offset)
    return JobsOut(items=await shown(kvasir, found), total=total)


@router.put("/{source_id}/schedule")
async def schedule_source(source_id: str, given: GivenTimes, caller: CallerDep, kvasir: KvasirDep) -> SourceOut:
    """Sets when it is synchronised by itself."""
    source = await _source(source_id, caller)
    there = await _schedules(kvasir, [source])
    if source_id in there:
        await kvasir.schedules.update(there[source_id].id, **given.model_dump())
    else:
        new = NewSchedule(
            KIND, given.cron, name=source.name, timezone=given.timezone, target=source.id,
            settings={"kb": source.kb}, enabled=given.enabled,
        )  # fmt: skip
        await kvasir.schedules.create(new, by=caller.person.key)
    return await _one(kvasir, source)


@router.delete("/{source_id}/schedule")
async def unschedule_source(source_id: str, caller: CallerDep, kvasir: KvasirDep) -> SourceOut:
    """From now on it is synchronised by hand only."""
    source = await _source(source_id, caller)
    await kvasir.schedules.delete_for(KIND, source_id)
    return await _one(kvasir, source)


async def _source(source_id: str, caller: Caller) -> SourceInfo:
    """Raises NotFound for one of a knowledge base that the caller may not edit."""
    unknown = NotFound(tell("no_such_source"))
    caller.require(Action.WRITE)
    if not is_id(source_id):
        raise unknown
    source = await caller.kvasir.sources.get(source_id)
    if source.kb not in await caller.kb_names(Action.WRITE):
        raise unknown
    return source


def _require(caller: Caller, kind: str, token: str) -> None:
    """What reads the server's own files, or holds a secret, is the administrators'. Raises NotAllowed."""
    if kind == "folder" or token:
        caller.require(Action.MANAGE)


async def _one(kvasir: Kvasir, source: SourceInfo) -> SourceOut:
    return (await _shown(kvasir, [source]))[0]


async def _shown(kvasir: Kvasir, sources: Sequence[SourceInfo]) -> list[SourceOut]:
    schedules = await _schedules(kvasir, sources)
    names = {source.id: source.name for source in sources}
    return [_out(source, schedules.get(source.id), names) for source in sources]


async def _schedules(kvasir: Kvasir, sources: Sequence[SourceInfo]) -> Mapping[str, Schedule]:
    """The next to come of each, by source."""
    ids = [source.id for source in sources]
    found, _ = await kvasir.schedules.list(kind=KIND, targets=ids, limit=1000)
    return {schedule.target: schedule for schedule in reversed(found)}


def _out(source: SourceInfo, schedule: Schedule | None, names: Mapping[str, str]) -> SourceOut:
    return SourceOut(
        id=source.id,
        kb=source.kb,
        name=source.name,
        kind=source.kind,
        settings=source.settings,
        has_token=source.has_secret,
        state=source.state,
        reason=source.reason,
        documents=source.documents,
        synced_at=source.synced_at,
        job_id=source.job_id,
        progress=progress_of(source.progress),
        schedule=schedule_out(schedule, names) if schedule else None,
        created_at=source.created_at,
    )


def _preview(found: Preview) -> PreviewOut:
    return PreviewOut(
        items=[PreviewItemOut(name=item.name, address=item.address) for item in found.items],
        total=found.total,
        is_complete=found.is_complete,
        notes=list(found.notes),
        problem=found.problem,
    )


def _git_problem() -> str:
    try:
        executable()
    except KvasirError as error:
        return str(error)
    return ""
