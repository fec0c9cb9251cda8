"""What is done again and again: definitions, the history of their runs, and the one step that starts a run.

Whatever time it is, a run is started by `fire`: its row, unique for the time it was due, and its job are written
together. So two schedulers start it once, and what was missed while nobody ran is caught up with once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core import cron
from core.db.session import Database
from core.db.tables import JobRow, ScheduleRow, ScheduleRunRow, new_id, now
from core.errors import NotFound, UserError
from core.texts import tell
from core.work.jobs import Job, Jobs
from core.work.leases import Holder, Leases, is_held

logger = logging.getLogger(__name__)

LEAD: Final = "schedules"
"""Name of the lease of whoever leads."""
GRACE: Final = timedelta(days=1)
"""What was due longer ago is not made up for."""
_KEPT_RUNS: Final = 100
_CHANGEABLE: Final = frozenset({"name", "target", "settings", "cron", "timezone", "enabled"})
_NAME_LIMIT: Final = 100


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a schedule."""

    id: str
    job_id: str
    due: datetime | None
    """None: a person started it."""
    state: str
    """That of its job; `gone` where that was cleared away."""
    result: str
    """What came of it, or why it failed: one sentence."""
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Schedule:
    id: str
    name: str
    kind: str
    target: str
    settings: Mapping[str, Any]
    cron: str
    timezone: str
    enabled: bool
    next_at: datetime | None
    created_by: str
    created_at: datetime
    last: Run | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """What a scheduler needs to know of a schedule."""

    id: str
    cron: str
    timezone: str
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewSchedule:
    kind: str
    cron: str
    name: str = ""
    """Empty: the kind's."""
    timezone: str = "UTC"
    target: str = ""
    settings: Mapping[str, Any] | None = None
    enabled: bool = True


class Schedules:
    """`kinds` says what can be scheduled; `clock` what time it is."""

    def __init__(
        self, db: Database, jobs: Jobs, leases: Leases, kinds: Collection[str], clock: Callable[[], datetime] = now
    ) -> None:
        self._db = db
        self._jobs = jobs
        self._leases = leases
        self._kinds = kinds
        self._clock = clock

    # ------------------------------------------------------------ definitions
    async def create(self, given: NewSchedule, *, by: str = "") -> Schedule:
        """Raises UserError where the kind, the times or the name cannot be used."""
        if given.kind not in self._kinds:
            raise UserError(tell("schedule_bad_kind", kind=given.kind[:40], there=", ".join(sorted(self._kinds))))
        times = cron.parse(given.cron, given.timezone)
        row = ScheduleRow(
            id=new_id(),
            name=_checked_name(given.name or tell(f"schedule_{given.kind}")),
            kind=given.kind,
            target=given.target,
            settings=dict(given.settings or {}),
            cron=times.text,
            timezone=given.timezone,
            enabled=given.enabled,
            next_at=times.next(self._clock()) if given.enabled else None,
            created_by=by,
        )
        async with self._db.session() as session:
            session.add(row)
        return _schedule(row, None)

    async def update(self, schedule_id: str, **changes: Any) -> Schedule:
        """Change what `changes` names. Raises as `create` does, and NotFound."""
        if unknown := changes.keys() - _CHANGEABLE:
            raise UserError(tell("schedule_bad_setting", names=", ".join(sorted(unknown))))
        async with self._db.session() as session:
            row = await _row(session, schedule_id)
            times = cron.parse(changes.get("cron", row.cron), changes.get("timezone", row.timezone))
            if "name" in changes:
                changes["name"] = _checked_name(changes["name"])
            moved = times.text != row.cron or {"timezone", "enabled"} & changes.keys()
            for key, value in (changes | {"cron": times.text}).items():
                setattr(row, key, value)
            if moved:
                row.next_at = times.next(self._clock()) if row.enabled else None
        return await self.get(schedule_id)

    async def delete(self, schedule_id: str) -> None:
        """With its history; a run that is under way goes on."""
        async with self._db.session() as session:
            await session.delete(await _row(session, schedule_id))

    async def delete_for(self, kind: str, target: str) -> None:
        """Those of something that is gone."""
        async with self._db.session() as session:
            for row in await session.scalars(select(ScheduleRow).filter_by(kind=kind, target=target)):
                await session.delete(row)

    # ------------------------------------------------------------ looking
    async def get(self, schedule_id: str) -> Schedule:
        async with self._db.read() as session:
            row = await _row(session, schedule_id)
            last = await _last_runs(session, [row.id])
        return _schedule(row, last.get(row.id))

    async def list(
        self,
        *,
        kind: str | None = None,
        targets: Collection[str] | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[Schedule], int]:
        """Those that come next first, and how many there are in all; `targets`: only those of these."""
        where = []
        if kind:
            where.append(ScheduleRow.kind == kind)
        if targets is not None:
            where.append(ScheduleRow.target.in_(list(targets)))
        async with self._db.read() as session:
            total = await session.scalar(select(func.count()).select_from(ScheduleRow).where(*where)) or 0
            order = (ScheduleRow.next_at.is_(None), ScheduleRow.next_at, ScheduleRow.name, ScheduleRow.id)
            rows = list(
                await session.scalars(select(ScheduleRow).where(*where).order_by(*order).limit(limit).offset(offset))
            )
            last = await _last_runs(session, [row.id for row in rows])
        return [_schedule(row, last.get(row.id)) for row in rows], total

    async def runs(self, schedule_id: str, *, limit: int = 20, offset: int = 0) -> tuple[Sequence[Run], int]:
        """Its history, the newest first, and how many runs are remembered."""
        async with self._db.read() as session:
            await _row(session, schedule_id)
            of_it = ScheduleRunRow.schedule_id == schedule_id
            total = await session.scalar(select(func.count()).select_from(ScheduleRunRow).where(of_it)) or 0
            rows = await session.execute(
                select(ScheduleRunRow, JobRow)
                .outerjoin(JobRow, JobRow.id == ScheduleRunRow.job_id)
                .where(of_it)
                .order_by(ScheduleRunRow.created_at.desc(), ScheduleRunRow.id)
                .limit(limit)
                .offset(offset)
            )
            return [_run(run, job) for run, job in rows], total

    async def leader(self) -> Holder | None:
        """The process that says when; None where there never was one."""
        return await self._leases.holder(LEAD)

    # ------------------------------------------------------------ starting runs
    async def run_now(self, schedule_id: str) -> Job:
        """Queue a run at once; where one is under way, its job is given instead of a second one."""
        async with self._db.session() as session:
            row = await _row(session, schedule_id, lock=True)
            under_way = await _under_way(session, row.id)
            if under_way is None:
                run_id = new_id()
                job = self._start(session, row, run_id, f"now-{run_id}")
        if under_way is not None:
            return await self._jobs.get(under_way)
        self._jobs.wake()
        return await self._jobs.get(job.id)

    async def planned(self) -> Sequence[Planned]:
        """Those that are on, with the next time of each."""
        columns = (ScheduleRow.id, ScheduleRow.cron, ScheduleRow.timezone, ScheduleRow.next_at)
        async with self._db.read() as session:
            rows = await session.execute(select(*columns).where(ScheduleRow.enabled).order_by(ScheduleRow.id))
            return [Planned(*row) for row in rows]

    async def fire(self, schedule_id: str, *, holder: str, fence: int) -> bool:
        """Start the run that is due, if one is and the holder of the lease asks; whether it was started.

        What was due more than once meanwhile is done once; what was due longer than GRACE ago is left out. Where the
        run before is not over, this one is written down as left out.
        """
        try:
            async with self._db.session() as session:
                if not await is_held(session, LEAD, holder, fence):
                    return False
                row = await session.get(ScheduleRow, schedule_id, with_for_update=True)
                started = await self._fire(session, row) if row is not None and row.enabled else False
        except IntegrityError:
            logger.debug("another scheduler has started schedule %s", schedule_id)
            return False
        if started:
            self._jobs.wake()
        return started

    async def _fire(self, session: AsyncSession, row: ScheduleRow) -> bool:
        moment = self._clock()
        due = row.next_at
        if due is not None and due > moment:
            return False
        try:
            row.next_at = cron.parse(row.cron, row.timezone).next(moment)
        except UserError:  # a time zone that this machine does not know
            row.enabled, row.next_at = False, None
            logger.warning("the schedule «%s» was turned off: its times cannot be used", row.name)
            return False
        if due is None or due < moment - GRACE:
            return False
        slot = due.isoformat(timespec="seconds")
        under_way = await _under_way(session, row.id)
        if under_way is not None:
            result = tell("schedule_still_running")
            session.add(ScheduleRunRow(schedule_id=row.id, slot=slot, job_id=under_way, result=result))
            return False
        self._start(session, row, new_id(), slot)
        await session.flush()
        return True

    def _start(self, session: AsyncSession, row: ScheduleRow, run_id: str, slot: str) -> JobRow:
        payload = {"target": row.target, "settings": row.settings, "run": run_id, "name": row.name}
        if isinstance(row.settings.get("kb"), str):
            payload["kb"] = row.settings["kb"]
        job = self._jobs.new_row(row.kind, payload)
        session.add(job)
        session.add(ScheduleRunRow(id=run_id, schedule_id=row.id, slot=slot, job_id=job.id))
        return job

    async def note(self, job: Job, result: str) -> None:
        """Keep what came of a job that a schedule started, and forget the oldest runs of it."""
        run_id = str(job.payload.get("run") or "")
        if not run_id:
            return
        async with self._db.session() as session:
            await session.execute(update(ScheduleRunRow).where(ScheduleRunRow.id == run_id).values(result=result))
            schedule_id = await session.scalar(select(ScheduleRunRow.schedule_id).where(ScheduleRunRow.id == run_id))
            old = select(ScheduleRunRow).where(ScheduleRunRow.schedule_id == schedule_id)
            for row in await session.scalars(old.order_by(ScheduleRunRow.created_at.desc()).offset(_KEPT_RUNS)):
                await session.delete(row)


def _checked_name(name: str) -> str:
    name = "".join(char for char in name if char.isprintable()).strip()
    if not name or len(name) > _NAME_LIMIT:
        raise UserError(tell("schedule_bad_name", most=_NAME_LIMIT))
    return name


async def _row(session: AsyncSession, schedule_id: str, *, lock: bool = False) -> ScheduleRow:
    row = await session.get(ScheduleRow, schedule_id, with_for_update=lock or None)
    if row is None:
        raise NotFound(tell("no_such_schedule"))
    return row


async def _under_way(session: AsyncSession, schedule_id: str) -> str | None:
    """Id of the job of a run that waits or runs."""
    found: str | None = await session.scalar(
        select(JobRow.id)
        .join(ScheduleRunRow, ScheduleRunRow.job_id == JobRow.id)
        .where(ScheduleRunRow.schedule_id == schedule_id, JobRow.state.in_(("queued", "running")))
        .limit(1)
    )
    return found


async def _last_runs(session: AsyncSession, schedule_ids: Sequence[str]) -> Mapping[str, Run]:
    newest = (
        select(ScheduleRunRow.schedule_id, func.max(ScheduleRunRow.created_at).label("at"))
        .where(ScheduleRunRow.schedule_id.in_(schedule_ids))
        .group_by(ScheduleRunRow.schedule_id)
        .subquery()
    )
    rows = await session.execute(
        select(ScheduleRunRow, JobRow)
        .join(
            newest,
            (newest.c.schedule_id == ScheduleRunRow.schedule_id) & (newest.c.at == ScheduleRunRow.created_at),
        )
        .outerjoin(JobRow, JobRow.id == ScheduleRunRow.job_id)
    )
    return {run.schedule_id: _run(run, job) for run, job in rows}


def _run(row: ScheduleRunRow, job: JobRow | None) -> Run:
    by_hand = row.slot.startswith("now-")
    result = row.result or (job.error if job else "") or ""
    state = job.state if job else "gone"
    finished = job.finished_at if job else None
    due = None if by_hand else datetime.fromisoformat(row.slot)
    return Run(row.id, row.job_id, due, state, result, row.created_at, finished)


def _schedule(row: ScheduleRow, last: Run | None) -> Schedule:
    return Schedule(
        row.id, row.name, row.kind, row.target, row.settings, row.cron, row.timezone, row.enabled, row.next_at,
        row.created_by, row.created_at, last,
    )  # fmt: skip
