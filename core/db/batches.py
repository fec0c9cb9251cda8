"""Many rows deleted a few at a time, so that nobody waits long for the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import InstrumentedAttribute

from core.db.session import Database
from core.db.tables import Table

TOGETHER: Final = 2000
SECONDS: Final = 5.0
"""How long one call goes on; the next one finds what is left."""


async def delete_in_batches(
    db: Database,
    table: type[Table],
    *where: ColumnElement[bool],
    belonging: Sequence[InstrumentedAttribute[Any]] = (),
) -> int:
    """Delete the rows of a table that has an `id`; gives how many. Rows that another process is at are left to it.

    `belonging`: columns of other tables with that id; their rows go along. Between two batches as much time goes by as
    the last one took, for whoever else wants to write.
    """
    key = table.__table__.c.id
    some = select(key).where(*where).limit(TOGETHER).with_for_update(skip_locked=True)
    count, begun = 0, time.monotonic()
    while True:
        started = time.monotonic()
        async with db.session() as session:
            ids = list(await session.scalars(some))
            for column in belonging:
                await session.execute(delete(column.class_).where(column.in_(ids)))
            if ids:
                await session.execute(delete(table).where(key.in_(ids)))
        count += len(ids)
        if len(ids) < TOGETHER or time.monotonic() - begun > SECONDS:
            return count
        await asyncio.sleep(time.monotonic() - started)
