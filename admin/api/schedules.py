"""Schedules: what is done again and again, when, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from admin.deps import Caller, CallerDep, KvasirDep, is_id
from admin.schemas import Given, Out, ShortText
from core import cron, scheduled
from core.access import Action
from core.app import Kvasir
from core.db.tables import now
from core.errors import NotFound
from core.texts import tell
from core.work.schedules import NewSchedule, Run, Schedule

router = APIRouter(prefix="/schedules", tags=["schedules"])

Setting = Annotated[str, Field(max_length=1000)] | bool | int
Times = Annotated[str, Field(max_length=100)]


class GivenSchedule(Given):
    kind: Annotated[str, Field(max_length=32)]
    cron: Times
    """Five fields, or hourly, daily, weekly, monthly."""
    name: ShortText = ""
    timezone: Annotated[str, Field(max_length=64)] = "UTC"
    target: Annotated[str, Field(max_length=64)] = ""
    settings: Annotated[Mapping[str, Setting], Field(max_length=20)] = {}
    enabled: bool = True


class ChangedSchedule(Given):
    name: ShortText | None = None
    cron: Times | None = None
    timezone: Annotated[str, Field(max_length=64)] | None = None
    target: Annotated[str, Field(max_length=64)] | None = None
    settings: Annotated[Mapping[str, Setting], Field(max_length=20)] | None = None
    enabled: bool | None = None


class RunOut(Out):
    id: str
    job_id: str
    due: datetime | None
    """When it was due; null where a person started it."""
    state: str
    """That of its job: queued, running, done, failed, cancelled, or gone."""
    result: str
    created_at: datetime
    finished_at: datetime | None


class ScheduleOut(Out):
    id: str
    name: str
    kind: str
    kind_title: str
    target: str
    target_name: str
    settings: Mapping[str, Setting]
    cron: str
    when: str
    """The times in words, where there are some."""
    timezone: str
    enabled: bool
    next_at: datetime | None
    last: RunOut | None
    created_at: datetime


class SchedulesOut(Out):
    items: Sequence[ScheduleOut]
    total: int


class RunsOut(Out):
    items: Sequence[RunOut]
    total: int


class TargetOut(Out):
    id: str
    name: str
    kb: str


class FieldOut(Out):
    name: str
    label: str
    kind: Literal["number", "checkbox", "text", "select"]
    default: Setting
    least: int
    most: int
    options: Sequence[TargetOut]
    """What can be chosen."""


class KindOut(Out):
    kind: str
    title: str
    about: str
    fields: Sequence[FieldOut]
    needs_target: bool
    targets: Sequence[TargetOut]


class LeaderOut(Out):
    name: str
    """Machine and process."""
    until: datetime
    is_there: bool


class ScheduleKinds(Out):
    items: Sequence[KindOut]
    presets: Mapping[str, str]
    """Word → five fields."""
    leader: LeaderOut | None
    """The process that starts what is due; null where there never was one."""
    notice: str
    """What a person should know: that nobody minds the schedules; else empty."""


class Upcoming(Out):
    when: str
    times: Sequence[datetime]


class Started(Out):
    job_id: str


@router.get("")
async def list_schedules(
    caller: CallerDep,
    kvasir: KvasirDep,
    kind: Annotated[str | None, Query(max_length=32)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> SchedulesOut:
    """A page of schedules, those that come next first."""
    caller.require(Action.MANAGE)
    found, total = await kvasir.schedules.list(kind=kind, limit=limit, offset=offset)
    names = await _target_names(kvasir, {item.kind for item in found})
    return SchedulesOut(items=[schedule_out(item, names) for item in found], total=total)


@router.post("", status_code=201)
async def create_schedule(given: GivenSchedule, caller: CallerDep, kvasir: KvasirDep) -> ScheduleOut:
    """A new schedule."""
    caller.require(Action.MANAGE)
    if given.kind not in scheduled.KINDS:
        kinds = ", ".join(sorted(scheduled.KINDS))
        raise NotFound(tell("schedule_bad_kind", kind=given.kind, there=kinds))
    target = await scheduled.target_of(kvasir, given.kind, given.target)
    new = NewSchedule(
        given.kind,
        given.cron,
        name=given.name or (target.name if target else ""),
        timezone=given.timezone,
        target=target.id if target else "",
        settings=_kept(scheduled.checked(given.kind, given.settings), target.kb if target else ""),
        enabled=given.enabled,
    )
    return await _shown(kvasir, await kvasir.schedules.create(new, by=caller.person.key))


@router.get("/kinds")
async def schedule_kinds(caller: CallerDep, kvasir: KvasirDep) -> ScheduleKinds:
    """What can be scheduled and how it is set, and who minds the schedules."""
    caller.require(Action.MANAGE)
    leader = await kvasir.schedules.leader()
    return ScheduleKinds(
        items=[await _kind(kvasir, name, kind) for name, kind in scheduled.KINDS.items()],
        presets=cron.PRESETS,
        leader=LeaderOut(name=leader.name, until=leader.until, is_there=leader.is_there) if leader else None,
        notice="" if leader and leader.is_there else tell("schedule_leader_none"),
    )


@router.get("/upcoming")
async def upcoming(
    caller: CallerDep,
    cron_text: Annotated[str, Query(max_length=100, alias="cron")],
    timezone: Annotated[str, Query(max_length=64)] = "UTC",
) -> Upcoming:
    """The times in words and the next five of them, to look before a schedule is saved."""
    caller.require(Action.WRITE)
    times = cron.parse(cron_text, timezone)
    return Upcoming(when=cron.in_words(times.text), times=times.upcoming(now(), 5))


@router.get("/{schedule_id}")
async def get_schedule(schedule_id: str, caller: CallerDep, kvasir: KvasirDep) -> ScheduleOut:
    """One schedule."""
    return await _shown(kvasir, await _schedule(schedule_id, caller))


@router.patch("/{schedule_id}")
async def change_schedule(
    schedule_id: str, given: ChangedSchedule, caller: CallerDep, kvasir: KvasirDep
) -> ScheduleOut:
    """Changes what is given."""
    item = await _schedule(schedule_id, caller)
    changes = {key: value for key, value in given.model_dump(exclude_unset=True).items() if value is not None}
    kb = str(item.settings.get("kb", ""))
    if "target" in changes:
        target = await scheduled.target_of(kvasir, item.kind, changes["target"])
        changes["target"], kb = (target.id, target.kb) if target else ("", "")
    if changes.keys() & {"settings", "target"}:
        settings = scheduled.checked(item.kind, _settings(item) | changes.get("settings", {}))
        changes["settings"] = _kept(settings, kb)
    return await _shown(kvasir, await kvasir.schedules.update(schedule_id, **changes))


@router.delete("/{schedule_id}", status_code=204)
async def delete_schedule(schedule_id: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Deletes it with its history; a run that is under way goes on."""
    await _schedule(schedule_id, caller)
    await kvasir.schedules.delete(schedule_id)


@router.post("/{schedule_id}/run", status_code=202)
async def run_schedule(schedule_id: str, caller: CallerDep, kvasir: KvasirDep) -> Started:
    """Starts a run at once; where one is under way, its job is given."""
    await _schedule(schedule_id, caller)
    return Started(job_id=(await kvasir.schedules.run_now(schedule_id)).id)


@router.get("/{schedule_id}/runs")
async def schedule_runs(
    schedule_id: str,
    caller: CallerDep,
    kvasir: KvasirDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> RunsOut:
    """A page of its history, the newest first."""
    await _schedule(schedule_id, caller)
    found, total = await kvasir.schedules.runs(schedule_id, limit=limit, offset=offset)
    return RunsOut(items=[run_out(run) for run in found], total=total)


async def _schedule(schedule_id: str, caller: Caller) -> Schedule:
    caller.require(Action.MANAGE)
    if not is_id(schedule_id):
        raise NotFound(tell("no_such_schedule"))
    return await caller.kvasir.schedules.get(schedule_id)


async def _shown(kvasir: Kvasir, item: Schedule) -> ScheduleOut:
    return schedule_out(item, await _target_names(kvasir, {item.kind}))


async def _target_names(kvasir: Kvasir, kinds: set[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for kind in kinds & scheduled.KINDS.keys():
        targets = scheduled.KINDS[kind].targets
        if targets is not None:
            found |= {target.id: target.name for target in await targets(kvasir)}
    return found


def schedule_out(item: Schedule, names: Mapping[str, str]) -> ScheduleOut:
    return ScheduleOut(
        id=item.id,
        name=item.name,
        kind=item.kind,
        kind_title=scheduled.title(item.kind),
        target=item.target,
        target_name=names.get(item.target, ""),
        settings=_settings(item),
        cron=item.cron,
        when=cron.in_words(item.cron),
        timezone=item.timezone,
        enabled=item.enabled,
        next_at=item.next_at,
        last=run_out(item.last) if item.last else None,
        created_at=item.created_at,
    )


def run_out(run: Run) -> RunOut:
    return RunOut.model_validate(run)


def _kept(settings: dict[str, int | bool | str], kb: str) -> dict[str, int | bool | str]:
    """With the knowledge base that its jobs are about."""
    return settings | ({"kb": kb} if kb else {})


def _settings(item: Schedule) -> dict[str, Setting]:
    """Those that its kind has now; another version may have known more."""
    kind = scheduled.KINDS.get(item.kind)
    names = {field.name for field in kind.fields} if kind else set()
    return {key: value for key, value in item.settings.items() if key in names}


async def _kind(kvasir: Kvasir, name: str, kind: scheduled.Kind) -> KindOut:
    targets = await kind.targets(kvasir) if kind.targets else ()
    return KindOut(
        kind=name,
        title=scheduled.title(name),
        about=tell(f"schedule_{name}_about"),
        fields=[await _field(kvasir, name, field) for field in kind.fields],
        needs_target=kind.targets is not None,
        targets=[TargetOut.model_validate(item) for item in targets],
    )


async def _field(kvasir: Kvasir, kind: str, field: scheduled.Field) -> FieldOut:
    options = await field.options(kvasir) if field.options else ()
    return FieldOut(
        name=field.name,
        label=tell(f"schedule_{kind}_{field.name}"),
        kind=field.kind,
        default=field.default,
        least=field.least,
        most=field.most,
        options=[TargetOut.model_validate(item) for item in options],
    )
