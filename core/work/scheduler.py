"""The process that leads says when schedules are due; APScheduler wakes it, and keeps nothing."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from core import cron
from core.db.tables import now
from core.errors import KvasirError, Unavailable
from core.work.leases import Leases, this_process
from core.work.schedules import LEAD, Planned, Schedules

if TYPE_CHECKING:  # it takes longer to import than most commands take
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

logger = logging.getLogger(__name__)

_BEAT: Final = 5.0
"""Seconds between two looks at the lease and the definitions."""


class Scheduler:
    """Stands for election, and while it leads, starts what is due."""

    def __init__(self, schedules: Schedules, leases: Leases, *, beat: float = _BEAT) -> None:
        self._schedules = schedules
        self._leases = leases
        self._beat = beat
        self.holder = this_process()

    async def run(self) -> None:
        """Until cancelled; whoever waits takes over when the leader has not been heard of for the length of a lease."""
        gone = False
        while True:
            try:
                fence = await self._leases.take(LEAD, self.holder)
                gone = False
                if fence is not None:
                    await self._lead(fence)
            except Unavailable as error:
                if not gone:
                    logger.info("the schedules wait: %s", error)
                gone = True
            await asyncio.sleep(self._beat)

    async def _lead(self, fence: int) -> None:
        """Until another process has the lease."""
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        clock = AsyncIOScheduler(timezone="UTC", job_defaults={"coalesce": True, "misfire_grace_time": None})
        known: dict[str, Planned] = {}
        logger.info("this process leads the schedules")
        clock.start()
        try:
            while await self._leases.renew(LEAD, self.holder, fence):
                await self._look(clock, known, fence)
                await asyncio.sleep(self._beat)
            logger.info("another process leads the schedules now")
        except asyncio.CancelledError:
            await asyncio.shield(self._step_down(fence))
            raise
        finally:
            clock.shutdown(wait=False)

    async def _step_down(self, fence: int) -> None:
        try:
            await self._leases.give_back(LEAD, self.holder, fence)
        except KvasirError as error:
            logger.info("the lead could not be given back: %s", error)

    async def _look(self, clock: AsyncIOScheduler, known: dict[str, Planned], fence: int) -> None:
        """Learn what was added, changed or taken away, and start what was missed."""
        planned = {item.id: item for item in await self._schedules.planned()}
        for gone in known.keys() - planned.keys():
            del known[gone]
            if clock.get_job(gone):
                clock.remove_job(gone)
        for item in planned.values():
            before = known.get(item.id)
            if before is None or (before.cron, before.timezone) != (item.cron, item.timezone):
                self._plan(clock, item, fence)
                known[item.id] = item
            if item.next_at is None or item.next_at <= now():
                await self._fire(item.id, fence)

    def _plan(self, clock: AsyncIOScheduler, item: Planned, fence: int) -> None:
        try:
            trigger = cron.parse(item.cron, item.timezone).trigger()
        except KvasirError as error:  # a time zone that this machine does not know; `fire` turns the schedule off
            logger.warning("schedule %s: %s", item.id, error)
            return
        clock.add_job(self._fire, trigger, args=(item.id, fence), id=item.id, replace_existing=True, max_instances=1)

    async def _fire(self, schedule_id: str, fence: int) -> None:
        try:
            if await self._schedules.fire(schedule_id, holder=self.holder, fence=fence):
                logger.info("schedule %s: a run was queued", schedule_id)
        except Unavailable as error:  # the next look makes up for it
            logger.warning("schedule %s: %s", schedule_id, error)
