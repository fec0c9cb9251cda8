"""What only one process may do at a time, held by a row that runs out when its holder is gone."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.session import Database
from core.db.tables import LeaseRow, now

LEASE: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Holder:
    name: str
    """Machine and process, for people."""
    until: datetime
    is_there: bool
    """False: it has not been heard of for too long."""


def this_process() -> str:
    """A name that no other process has; containers may share machine name and number."""
    return f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(3)}"[:255]


class Leases:
    """Leases by name. A fence grows with every new holder, so that a former one can be told from the present one."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def take(self, name: str, holder: str) -> int | None:
        """The fence of a lease taken or taken over; None while another holds it."""
        moment = now()
        row = {"name": name, "holder": holder, "fence": 1, "until": moment + LEASE}
        async with self._db.session() as session:
            found: int | None = await session.scalar(
                self._db.insert(LeaseRow)
                .values(row)
                .on_conflict_do_update(
                    index_elements=["name"],
                    set_={"holder": holder, "fence": LeaseRow.fence + 1, "until": moment + LEASE},
                    where=or_(LeaseRow.until < moment, LeaseRow.holder == holder),
                )
                .returning(LeaseRow.fence)
            )
        return found

    async def renew(self, name: str, holder: str, fence: int) -> bool:
        """False where somebody else has it now."""
        async with self._db.session() as session:
            result = await session.execute(
                update(LeaseRow)
                .where(LeaseRow.name == name, LeaseRow.holder == holder, LeaseRow.fence == fence)
                .values(until=now() + LEASE)
            )
        return bool(getattr(result, "rowcount", 0))

    async def give_back(self, name: str, holder: str, fence: int) -> None:
        """Let the next one have it at once."""
        async with self._db.session() as session:
            await session.execute(
                update(LeaseRow)
                .where(LeaseRow.name == name, LeaseRow.holder == holder, LeaseRow.fence == fence)
                .values(until=now() - timedelta(seconds=1))
            )

    async def holder(self, name: str) -> Holder | None:
        """Who has it, or had it last."""
        return (await self.holders(name)).get(name)

    async def holders(self, begins: str) -> Mapping[str, Holder]:
        """Who has each lease whose name begins so, or had it last."""
        async with self._db.read() as session:
            rows = await session.scalars(select(LeaseRow).where(LeaseRow.name.startswith(begins, autoescape=True)))
            return {row.name: Holder(row.holder, row.until, row.until >= now()) for row in rows}

    async def free(self, holders: str) -> None:
        """Let others have at once what all holders have whose name begins so: they are known to be gone."""
        async with self._db.session() as session:
            await session.execute(
                update(LeaseRow)
                .where(LeaseRow.holder.startswith(holders, autoescape=True), LeaseRow.until >= now())
                .values(until=now() - timedelta(seconds=1))
            )


async def is_held(session: AsyncSession, name: str, holder: str, fence: int) -> bool:
    """Whether it still is, inside a session that writes on the strength of it."""
    found = await session.scalar(
        select(LeaseRow.until).where(LeaseRow.name == name, LeaseRow.holder == holder, LeaseRow.fence == fence)
    )
    return found is not None and found >= now()
