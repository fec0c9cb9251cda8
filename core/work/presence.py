"""Which processes of Kvasir there are: each says every few seconds that it is there, and what its parts are like."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, delete, select

from core.db.direct import AnyRow, Statement
from core.db.session import Database
from core.db.tables import ProcessRow, now
from core.errors import KvasirError
from core.ports import Finding
from core.settings import Settings
from core.texts import tell
from core.work.leases import LEASE, this_process

logger = logging.getLogger(__name__)

BEAT_SECONDS: Final = LEASE.total_seconds() / 6
ALIVE: Final = LEASE * 5 / 6
"""A process that was not heard of for so long counts as gone."""
_LAST_WORDS: Final = 3.0
_FORGOTTEN: Final = timedelta(days=1)
_WELL: Final = frozenset({"connected", "standby", "off"})
OUT_OF_WORK: Final = frozenset({"", "off", "connecting", "refused", "stopped"})
"""What a part is like that takes no share of the work, or not yet."""

_SAY: Final = Statement(
    lambda insert: (new := insert(ProcessRow)).on_conflict_do_update(
        index_elements=["id"], set_={"roles": new.excluded.roles, "seen_at": new.excluded.seen_at}
    )
)
_LIVING: Final = Statement(
    select(ProcessRow).where(ProcessRow.seen_at >= bindparam("since")).order_by(ProcessRow.started_at, ProcessRow.id)
)
_LEAVE: Final = Statement(delete(ProcessRow).where(ProcessRow.id == bindparam("process")))
_FORGET: Final = Statement(delete(ProcessRow).where(ProcessRow.seen_at < bindparam("before")))


@dataclass(frozen=True, slots=True)
class Process:
    id: str
    machine: str
    number: int
    roles: Mapping[str, Mapping[str, str]]
    """Each role it runs, and what its parts are like."""
    started_at: datetime
    seen_at: datetime

    def shares(self, role: str, part: str) -> bool:
        """Whether it does its share of that part's work."""
        return self.roles.get(role, {}).get(part, "") not in OUT_OF_WORK


class Presence:
    """This process among all. What others say is as old as the last beat."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._roles: dict[str, Mapping[str, str]] = {}
        self._started = now()
        self._known: Sequence[Process] = ()
        self.id = this_process()
        """Also the name under which it holds leases."""

    async def belongs_to(self, house: str) -> None:
        """Begin this process' name so: what those of the same house leave behind is known as theirs."""
        await self.leave()
        self.id = f"{house} {this_process()}"[:255]

    def say(self, role: str, parts: Mapping[str, str]) -> None:
        """What the parts of a role are like; heard by others with the next beat."""
        self._roles[role] = dict(parts)

    def others(self, role: str, part: str) -> Sequence[Process]:
        """Living ones that share that part's work with this process, the eldest first."""
        since = now() - ALIVE
        return [one for one in self._known if one.id != self.id and one.seen_at >= since and one.shares(role, part)]

    def others_run(self, role: str) -> bool:
        """Whether other processes have this role."""
        since = now() - ALIVE
        return any(one.id != self.id and one.seen_at >= since and role in one.roles for one in self._known)

    async def beat(self) -> None:
        """Say that this process is there, and hear who else is. Raises Unavailable."""
        at = now()
        say = _SAY(
            id=self.id, machine=socket.gethostname(), number=os.getpid(), roles=self._roles,
            started_at=self._started, seen_at=at,
        )  # fmt: skip
        _, living = await self._db.run(say, _LIVING(since=at - ALIVE))
        self._known = [_process(row) for row in living.rows]

    async def keep(self) -> None:
        """Until cancelled, and say good-bye then."""
        gone, tidy = False, False
        try:
            while True:
                try:
                    await self.beat()
                    tidy = tidy or bool(await self._db.run(_FORGET(before=now() - _FORGOTTEN)))
                    gone = False
                except KvasirError as error:
                    if not gone:
                        logger.warning("this process cannot say that it is there: %s", error)
                    gone = True
                await asyncio.sleep(BEAT_SECONDS)
        finally:
            await asyncio.shield(self.leave())

    async def leave(self) -> None:
        """Be gone at once for all others."""
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._db.run(_LEAVE(process=self.id))
        except (KvasirError, TimeoutError) as error:
            logger.info("this process could not say good-bye: %s", error)


async def on_this_machine(db: Database, role: str) -> Sequence[Process]:
    """Processes that run a role here, the one heard of last first; those that ended without a word among them.

    Raises Unavailable.
    """
    machine: Any = ProcessRow.machine
    async with db.read() as session:
        rows = await session.scalars(
            select(ProcessRow).where(machine == socket.gethostname()).order_by(ProcessRow.seen_at.desc())
        )
        return [one for one in map(_process, rows) if role in one.roles]


async def examine_role(settings: Settings, role: str) -> AsyncIterator[Finding]:
    """Whether this machine's processes of a role live, and whether the platforms they run are connected.

    Nothing is opened but the database, and nothing changed. Raises Unavailable.
    """
    database = Database(settings.database_url, settings.database)
    try:
        found = await on_this_machine(database, role)
    finally:
        await database.close()
    last = {one.number: one for one in reversed(found)}  # a process that took another name may have left its first row
    processes = [one for one in last.values() if _is_running(one.number)]
    if not processes:
        yield Finding(tell("doctor_role", role=role), False, tell("doctor_role_nobody"))
    for one in processes:
        yield _living(one, role)
        for part, state in sorted(one.roles[role].items()):
            yield Finding(part, state in _WELL, tell(f"connection_{state}"))


def _living(one: Process, role: str) -> Finding:
    silent = now() - one.seen_at
    key = "doctor_role_lives" if silent < ALIVE else "doctor_role_silent"
    says = tell(key, number=one.number, seconds=max(0, int(silent.total_seconds())))
    return Finding(tell("doctor_role", role=role), silent < ALIVE, says)


def _is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _process(row: AnyRow | ProcessRow) -> Process:
    return Process(row.id, row.machine, row.number, row.roles, row.started_at, row.seen_at)
