"""Limits that processes share: how often a person may ask, when a platform may be called again, whose turn it is.

What one process needs alone costs no statement: whether there are others, `presence.py` knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Final

from sqlalchemy import Double, Integer, bindparam, case, delete, select

from core.db.direct import Statement
from core.db.session import Database
from core.db.tables import LimitRow
from core.errors import KvasirError
from core.work.presence import Presence

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 2.0
_FROZEN: Final = "frozen/"
_MINUTE: Final = 60.0
_KEPT: Final = 3600.0
_LONGEST_NAME: Final = 255

_at, _step = bindparam("at", type_=Double), bindparam("step", type_=Double)
_this, _share = bindparam("this", type_=Integer), bindparam("share", type_=Double)
_most = bindparam("most", type_=Integer)

_TURN: Final = Statement(
    lambda insert: (
        insert(LimitRow)
        .on_conflict_do_update(
            index_elements=["name"], set_={"until": case((LimitRow.until > _at, LimitRow.until), else_=_at) + _step}
        )
        .returning(LimitRow.until)
    )
)
_COUNT: Final = Statement(
    lambda insert: (
        insert(LimitRow)
        .on_conflict_do_update(
            index_elements=["name"],
            set_={
                "before": case(
                    (LimitRow.minute == _this, LimitRow.before), (LimitRow.minute == _this - 1, LimitRow.count), else_=0
                ),
                "count": case((LimitRow.minute == _this, LimitRow.count + 1), else_=1),
                "minute": _this,
            },
            where=case(
                (LimitRow.minute == _this, LimitRow.before * _share + LimitRow.count),
                (LimitRow.minute == _this - 1, LimitRow.count * _share),
                else_=0.0,
            )
            < _most,
        )
        .returning(LimitRow.count)
    )
)
_FREEZE: Final = Statement(
    lambda insert: (new := insert(LimitRow)).on_conflict_do_update(
        index_elements=["name"],
        set_={"until": case((LimitRow.until > new.excluded.until, LimitRow.until), else_=new.excluded.until)},
    )
)
_FROZEN_NOW: Final = Statement(
    select(LimitRow.name, LimitRow.until).where(LimitRow.until > _at, LimitRow.name.startswith(_FROZEN))
)
_FORGET: Final = Statement(delete(LimitRow).where(LimitRow.until < _at, LimitRow.minute < _this))


class Limits:
    """All times are those of the machines' clocks, which must agree within a second or so."""

    def __init__(self, db: Database, presence: Presence) -> None:
        self._db = db
        self._presence = presence
        self._frozen: Mapping[str, float] = {}
        self._said: dict[str, float] = {}
        """What other processes are to hear of."""
        self._news = asyncio.Event()

    def are_shared(self, platform: str) -> bool:
        """Whether other processes run this chat platform, too."""
        return bool(self._presence.others("bots", platform))

    def web_is_shared(self) -> bool:
        """Whether other processes serve the web, too."""
        return self._presence.others_run("web")

    # ------------------------------------------------------------ how often
    async def count(self, name: str, most: int) -> bool:
        """Whether it happened fewer than `most` times within a minute, all processes together; then it counts.

        The minute before counts by the share of it that is less than a minute ago. Raises Unavailable.
        """
        minute, passed = divmod(time.time(), _MINUTE)
        (done,) = await self._db.run(
            _COUNT(name=_short(f"asked/{name}"), until=0.0, minute=int(minute), count=1, before=0,
                   this=int(minute), share=1 - passed / _MINUTE, most=most)
        )  # fmt: skip
        return bool(done.rows)

    def room(self) -> float:
        """Seconds until something can be counted again that cannot be now, at the latest."""
        return _MINUTE - time.time() % _MINUTE

    # ------------------------------------------------------------ whose turn it is
    async def turn(self, name: str, interval: float) -> float:
        """Take the next turn of something that happens every `interval` seconds at most; gives the seconds until then.

        Where the database is away everybody's turn is now.
        """
        at = time.time()
        turn = _TURN(
            name=_short(f"turn/{name}"), until=at + interval, minute=0, count=0, before=0, at=at, step=interval
        )
        try:
            (done,) = await self._db.run(turn)
        except KvasirError as error:
            logger.info("whose turn it is could not be asked: %s", error)
            return 0.0
        return max(0.0, float(done.rows[0].until) - interval - at)

    # ------------------------------------------------------------ not before
    def freeze(self, name: str, seconds: float) -> None:
        """Nothing is to be done under this name for so long; other processes hear of it at once."""
        self._said[_short(_FROZEN + name)] = time.time() + seconds
        self._news.set()

    def frozen(self, name: str) -> float:
        """For how long other processes, or this one, are told to leave it."""
        until = self._frozen.get(_short(_FROZEN + name), 0.0) if self._frozen else 0.0
        return max(0.0, until - time.time()) if until else 0.0

    async def run(self) -> None:
        """Say and hear what is frozen, while there are other processes; until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._news.wait()
            self._news.clear()
            try:
                await self.exchange()
            except KvasirError as error:
                logger.info("limits could not be shared: %s", error)

    async def exchange(self) -> None:
        """Say what was frozen here, and hear what was elsewhere. Raises Unavailable."""
        said, self._said = self._said, {}
        if said:
            steps = [_FREEZE(name=name, until=until, minute=0, count=0, before=0) for name, until in said.items()]
            await self._db.run(*steps)
        if self._presence.others_run("bots"):
            (found,) = await self._db.fetch(_FROZEN_NOW(at=time.time()))
            self._frozen = {row.name: row.until for row in found.rows}
        else:
            self._frozen = {}

    async def forget_old(self) -> None:
        """Remove what nobody needs any more."""
        at = time.time() - _KEPT
        await self._db.run(_FORGET(at=at, this=int(at / _MINUTE)))


def _short(name: str) -> str:
    """A name that the table can hold; what begins it stays."""
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:180]}#{hashlib.sha256(name.encode()).hexdigest()}"
