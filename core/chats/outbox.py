"""Messages to be posted on a chat platform by whatever process runs it: kept first, posted at most once.

A message is `sending` before it leaves. A sender that dies then leaves it so; when its time is over it counts as
failed, since nobody can know whether it was posted, and posting twice is worse than saying so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import and_, func, or_, select, update

from core.db.batches import delete_in_batches
from core.db.session import Database
from core.db.tables import OutboxRow, new_id, now
from core.errors import NotFound, UserError
from core.texts import tell
from core.types import Place

LEASE: Final = timedelta(seconds=60)
"""Time in which a message that is being sent must be through."""
SEND_SECONDS: Final = 40.0
"""Time a sender takes at most, well within the lease."""
LONGEST: Final = 8000
_TEST_WAITS: Final = timedelta(minutes=5)
"""A test message is of no use later."""
_OTHERS_WAIT: Final = timedelta(hours=24)
_KEPT: Final = timedelta(days=30)

Purpose = Literal["test", "digest", "reply"]
State = Literal["waiting", "sending", "sent", "failed"]


@dataclass(frozen=True, slots=True)
class Posting:
    """A message on its way to a platform."""

    id: str
    place: Place
    text: str
    purpose: str
    state: State
    error: str
    """Why it failed, in one sentence."""
    created_at: datetime
    sent_at: datetime | None
    lease_until: datetime | None = None


class Outbox:
    def __init__(self, db: Database) -> None:
        self._db = db

    # ------------------------------------------------------------ in
    async def add(self, place: Place, text: str, purpose: Purpose, *, id: str = "") -> str:
        """Have CommonMark posted in a place; gives the message's id, empty where `id` was added before.

        Raises UserError where there is nothing to say or no channel.
        """
        if not place.channel.strip() or not place.platform:
            raise UserError(tell("outbox_no_channel"))
        words = text.replace("\x00", "").strip()[:LONGEST]
        if not words:
            raise UserError(tell("outbox_no_text"))
        row = {
            "id": id or new_id(), "platform": place.platform, "workspace": place.workspace, "channel": place.channel,
            "thread": place.thread, "text": words, "purpose": purpose, "state": "waiting", "created_at": now(),
        }  # fmt: skip
        async with self._db.session() as session:
            done: Any = await session.execute(self._db.insert(OutboxRow).values(row).on_conflict_do_nothing())
        return str(row["id"]) if done.rowcount else ""

    async def get(self, posting_id: str) -> Posting:
        """Raises NotFound."""
        async with self._db.read() as session:
            row = await session.get(OutboxRow, posting_id)
        if row is None:
            raise NotFound(tell("no_such_posting"))
        return _posting(row)

    async def list(self, platform: str = "", *, limit: int = 20, offset: int = 0) -> tuple[Sequence[Posting], int]:
        """The newest first, and how many there are."""
        mine = (OutboxRow.platform == platform,) if platform else ()
        query = select(OutboxRow).where(*mine).order_by(OutboxRow.created_at.desc(), OutboxRow.id)
        async with self._db.read() as session:
            rows = (await session.scalars(query.limit(limit).offset(offset))).all()
            total = await session.scalar(select(func.count()).select_from(OutboxRow).where(*mine))
        return [_posting(row) for row in rows], total or 0

    # ------------------------------------------------------------ out
    async def waiting(self) -> frozenset[str]:
        """Platforms that have something to post."""
        async with self._db.read() as session:
            return frozenset(await session.scalars(select(OutboxRow.platform).where(*_claimable()).distinct()))

    async def claim(self, platform: str) -> Posting | None:
        """The oldest message for a platform, now this caller's to send; None: there is none."""
        query = (
            select(OutboxRow)
            .where(OutboxRow.platform == platform, *_claimable())
            .order_by(OutboxRow.created_at, OutboxRow.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        async with self._db.session() as session:
            row = await session.scalar(query)
            if row is None:
                return None
            row.state, row.lease_until = "sending", now() + LEASE
            return _posting(row)

    async def sent(self, posting: Posting) -> None:
        """It stands there."""
        await self._end(posting, state="sent", sent_at=now(), error=None)

    async def failed(self, posting: Posting, reason: str) -> None:
        """It was not posted, or nobody knows whether it was: `reason` says which, in one sentence."""
        await self._end(posting, state="failed", error=reason)

    async def put_back(self, posting: Posting) -> None:
        """It was certainly not posted, and may be tried again."""
        await self._end(posting, state="waiting")

    async def forget_old(self) -> None:
        await delete_in_batches(self._db, OutboxRow, OutboxRow.created_at < now() - _KEPT)

    async def _end(self, posting: Posting, **values: Any) -> None:
        """Only its one sender can: nobody claims a message twice unless it was put back, which ends this lease."""
        held = (OutboxRow.id == posting.id, OutboxRow.state == "sending", OutboxRow.lease_until == posting.lease_until)
        async with self._db.session() as session:
            await session.execute(update(OutboxRow).where(*held).values(lease_until=None, **values))


def _claimable() -> Sequence[Any]:
    test = OutboxRow.purpose == "test"
    young = or_(
        and_(test, OutboxRow.created_at > now() - _TEST_WAITS), and_(~test, OutboxRow.created_at > now() - _OTHERS_WAIT)
    )
    return OutboxRow.state == "waiting", young


def _posting(row: OutboxRow) -> Posting:
    """As it stands; what a dead sender left and what nobody fetched is failed by itself."""
    state, error = row.state, row.error or ""
    if state == "sending" and row.lease_until is not None and row.lease_until < now():
        state, error = "failed", tell("outbox_unknown")
    elif state == "waiting" and row.created_at < now() - (_TEST_WAITS if row.purpose == "test" else _OTHERS_WAIT):
        state, error = "failed", tell("outbox_nobody", platform=row.platform)
    return Posting(
        row.id, Place(row.platform, row.workspace, row.channel, row.thread), row.text, row.purpose, state,  # type: ignore[arg-type]  # what the column holds
        error, row.created_at, row.sent_at, row.lease_until,
    )  # fmt: skip
