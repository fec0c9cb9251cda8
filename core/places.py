"""The channels of all chat platforms: those that something was set for, and those where somebody only asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import and_, func, or_, select, tuple_, union
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import aliased

from core.channels import values_of
from core.connections import WORKSPACE_KEY
from core.db.session import Database
from core.db.tables import ChannelRow, ConversationRow, InboxRow, PlatformStateRow, new_id, now
from core.types import Place

CHANNEL_KEY: Final = "channel:"
"""Of `PlatformStateRow`, before a channel's id: its name at the platform."""
_LONGEST_CHANNEL: Final = 64 - len(CHANNEL_KEY)
_ASKED_AGAIN: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Spot:
    """A place with what is known of it."""

    place: Place
    """With an empty channel: a whole workspace; with an empty workspace too: a platform."""
    name: str
    """As people know it; may be empty."""
    platform_name: str
    """As the platform calls it, where that is known."""
    workspace_name: str
    values: Mapping[str, Any]
    """The fields of `ChannelSettings` that were set for this place itself."""
    questions: int
    """In the last ninety days."""
    last_at: datetime | None
    """When somebody last talked to us there."""
    updated_by: str
    updated_at: datetime | None


class Places:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def list(
        self, platforms: Sequence[str], *, text: str = "", limit: int = 50, offset: int = 0
    ) -> tuple[Sequence[Spot], int]:
        """A page of them, those used last first, and how many there are; `text` is part of an id or name."""
        seen = (
            select(
                ConversationRow.platform,
                ConversationRow.workspace,
                ConversationRow.channel,
                func.max(ConversationRow.updated_at).label("last_at"),
            )
            .where(ConversationRow.platform.in_(platforms), ConversationRow.channel != "")
            .group_by(ConversationRow.platform, ConversationRow.workspace, ConversationRow.channel)
            .subquery()
        )
        row = ChannelRow
        keys = union(
            select(seen.c.platform, seen.c.workspace, seen.c.channel),
            select(row.platform, row.workspace, row.channel).where(row.platform.in_(platforms)),
        ).subquery()
        same = [and_(*(keys.c[name] == part.c[name] for name in _KEY)) for part in (seen, row.__table__)]
        named = PlatformStateRow
        of_workspace = and_(
            named.platform == keys.c.platform, named.workspace == keys.c.workspace, named.key == WORKSPACE_KEY
        )
        called = aliased(PlatformStateRow)
        of_channel = and_(
            called.platform == keys.c.platform,
            called.workspace == keys.c.workspace,
            called.key == CHANNEL_KEY + keys.c.channel,
        )
        found = (
            select(keys.c.platform, keys.c.workspace, keys.c.channel, seen.c.last_at, named.value, called.value, row)
            .select_from(keys)
            .outerjoin(seen, same[0])
            .outerjoin(row, same[1])
            .outerjoin(named, of_workspace)
            .outerjoin(called, of_channel)
        )
        if text:
            like = f"%{text.replace('!', '!!').replace('%', '!%').replace('_', '!_')}%"
            parts = (keys.c.workspace, keys.c.channel, row.name, named.value, called.value)
            found = found.where(or_(*(part.ilike(like, escape="!") for part in parts)))
        order = (seen.c.last_at.is_(None), seen.c.last_at.desc(), *(keys.c[name] for name in _KEY))
        async with self._db.read() as session:
            total = await session.scalar(select(func.count()).select_from(found.subquery())) or 0
            rows = (await session.execute(found.order_by(*order).limit(limit).offset(offset))).all()
            asked = tuple_(InboxRow.platform, InboxRow.workspace, InboxRow.channel)
            counts = (
                select(InboxRow.platform, InboxRow.workspace, InboxRow.channel, func.count())
                .where(asked.in_([(one[0], one[1], one[2]) for one in rows]))
                .group_by(InboxRow.platform, InboxRow.workspace, InboxRow.channel)
            )
            questions = {tuple(one[:3]): one[3] for one in await session.execute(counts)} if rows else {}
        return [_spot(one, questions) for one in rows], total

    async def nameless(self, platform: str, *, limit: int) -> Sequence[Place]:
        """Channels where somebody asked, and of which the platform's name is not known or was asked for long ago."""
        place = (ConversationRow.workspace, ConversationRow.channel)
        known = and_(
            PlatformStateRow.platform == platform,
            PlatformStateRow.workspace == ConversationRow.workspace,
            PlatformStateRow.key == CHANNEL_KEY + ConversationRow.channel,
            PlatformStateRow.updated_at > now() - _ASKED_AGAIN,
        )
        query = (
            select(*place)
            .outerjoin(PlatformStateRow, known)
            .where(
                ConversationRow.platform == platform,
                ConversationRow.channel != "",
                func.length(ConversationRow.channel) < _LONGEST_CHANNEL,
                PlatformStateRow.id.is_(None),
            )
            .group_by(*place)
            .limit(limit)
        )
        async with self._db.read() as session:
            return [Place(platform, workspace, channel) for workspace, channel in await session.execute(query)]

    async def name(self, place: Place, name: str) -> None:
        """Keep what the platform calls a channel; empty: it has no name."""
        insert = sqlite.insert if self._db.is_sqlite else postgresql.insert
        key = {"platform": place.platform, "workspace": place.workspace, "key": CHANNEL_KEY + place.channel}
        kept = {"value": "".join(char for char in name if char.isprintable())[:255], "updated_at": now()}
        async with self._db.session() as session:
            row = insert(PlatformStateRow).values({"id": new_id(), **key, **kept})
            await session.execute(row.on_conflict_do_update(index_elements=list(key), set_=kept))


_KEY = ("platform", "workspace", "channel")


def _spot(found: Any, questions: Mapping[tuple[str, ...], int]) -> Spot:
    platform, workspace, channel, last_at, workspace_name, platform_name, row = found
    return Spot(
        place=Place(platform, workspace, channel),
        name=row.name if row is not None else "",
        platform_name=platform_name or "",
        workspace_name=workspace_name or "",
        values=values_of(row) if row is not None else {},
        questions=questions.get((platform, workspace, channel), 0),
        last_at=last_at,
        updated_by=row.updated_by if row is not None else "",
        updated_at=row.updated_at if row is not None else None,
    )
