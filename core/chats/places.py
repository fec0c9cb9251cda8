"""The channels of all chat platforms: those that something was set for, and those where somebody only asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import and_, cast, func, null, or_, select, tuple_, union_all
from sqlalchemy.orm import aliased

from core.chats.channels import values_of
from core.chats.connections import WORKSPACE_KEY
from core.db.session import Database
from core.db.tables import ChannelRow, ConversationRow, InboxRow, PlatformStateRow, UtcDateTime, new_id, now
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
        row, conversation, named, called = ChannelRow, ConversationRow, PlatformStateRow, aliased(PlatformStateRow)
        asked = (
            select(*(getattr(conversation, name) for name in _KEY), func.max(conversation.updated_at).label("last_at"))
            .where(conversation.platform.in_(platforms), conversation.channel != "")
            .group_by(*(getattr(conversation, name) for name in _KEY))
        )
        never = cast(null(), UtcDateTime()).label("last_at")
        was_set = select(*(getattr(row, name) for name in _KEY), never).where(row.platform.in_(platforms))
        both = union_all(asked, was_set).subquery()
        key = [both.c[name] for name in _KEY]
        spots = select(*key, func.max(both.c.last_at).label("last_at")).group_by(*key).subquery()
        here = and_(
            named.platform == spots.c.platform, named.workspace == spots.c.workspace, named.key == WORKSPACE_KEY
        )
        there = and_(
            called.platform == spots.c.platform,
            called.workspace == spots.c.workspace,
            called.key == CHANNEL_KEY + spots.c.channel,
        )
        found = (
            select(*(spots.c[name] for name in _KEY), spots.c.last_at, named.value, called.value, row)
            .select_from(spots)
            .outerjoin(row, and_(*(spots.c[name] == getattr(row, name) for name in _KEY)))
            .outerjoin(named, here)
            .outerjoin(called, there)
        )
        if text:
            like = f"%{text.replace('!', '!!').replace('%', '!%').replace('_', '!_')}%"
            parts = (spots.c.workspace, spots.c.channel, row.name, named.value, called.value)
            found = found.where(or_(*(part.ilike(like, escape="!") for part in parts)))
        order = (spots.c.last_at.is_(None), spots.c.last_at.desc(), *(spots.c[name] for name in _KEY))
        counted = found.add_columns(func.count().over()).order_by(*order).limit(limit).offset(offset)
        async with self._db.read() as session:
            rows = (await session.execute(counted)).all()
            total = rows[0][-1] if rows else 0
            if not rows and offset:
                total = await session.scalar(select(func.count()).select_from(found.subquery())) or 0
            where = tuple_(*(getattr(InboxRow, name) for name in _KEY))
            counts = (
                select(*(getattr(InboxRow, name) for name in _KEY), func.count())
                .where(where.in_([tuple(one[:3]) for one in rows]))
                .group_by(*(getattr(InboxRow, name) for name in _KEY))
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
        key = {"platform": place.platform, "workspace": place.workspace, "key": CHANNEL_KEY + place.channel}
        kept = {"value": "".join(char for char in name if char.isprintable())[:255], "updated_at": now()}
        async with self._db.session() as session:
            row = self._db.insert(PlatformStateRow).values({"id": new_id(), **key, **kept})
            await session.execute(row.on_conflict_do_update(index_elements=list(key), set_=kept))


_KEY = ("platform", "workspace", "channel")


def _spot(found: Any, questions: Mapping[tuple[str, ...], int]) -> Spot:
    platform, workspace, channel, last_at, workspace_name, platform_name, row, _ = found
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
