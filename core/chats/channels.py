"""What was set for a channel of a chat platform: which knowledge bases answer there, and how."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal, get_args

from sqlalchemy import and_, bindparam, delete, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.chats import digests
from core.db.direct import AnyRow, Statement
from core.db.session import Database
from core.db.tables import ChannelRow, KnowledgeBaseRow, new_id, now
from core.errors import NotFound, UserError
from core.settings import ChannelsSettings
from core.texts import tell
from core.types import Language, Place

Mode = Literal["mention", "auto", "off"]
"""Answer mentions; also questions without a mention; nothing."""

Digest = Literal["off", "daily", "weekly"]

Origin = Literal["channel", "workspace", "platform", "settings"]

LONGEST_INSTRUCTIONS: Final = 8000
_MOST_PEOPLE: Final = 50
_LONGEST_NAME: Final = 255
_CACHE_SECONDS: Final = 3.0
_MOST_CACHED: Final = 10_000


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """How questions in a channel are answered."""

    kbs: tuple[str, ...] = ()
    """Empty: those of the settings."""
    engine: str | None = None
    instructions: str | None = None
    """For the language model, in the place of those of the settings."""
    mode: Mode = "mention"
    language: Language | None = None
    """None: that of the question."""
    feedback: bool = True
    """Whether answers have thumbs."""
    follow_ups: bool = False
    """Whether a thread that Kvasir is in is answered without a mention."""
    managers: tuple[str, ...] = ()
    """Keys of people who may change this, besides the platform's own administrators."""
    helpers: tuple[str, ...] = ()
    """Whom «ask a human» calls, as the platform names them."""
    askers: tuple[str, ...] = ()
    """Who is answered: ids or keys of people, and of groups where the platform tells them; empty: everybody."""
    digest: Digest = "off"
    """How often a summary of what was asked is posted there."""
    is_set: bool = False
    """Something was set for the channel, its workspace or its platform."""


@dataclass(frozen=True, slots=True)
class SetPlace:
    """What was set for one place, without what holds there from wider ones."""

    place: Place
    """With an empty channel: a whole workspace; with an empty workspace too: a platform."""
    name: str
    """As people know it; may be empty."""
    values: Mapping[str, Any]
    """The fields of `ChannelSettings` that were set."""
    updated_by: str
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Holding:
    """What holds in a place for one field, and where it was set."""

    value: Any
    origin: Origin
    wider_value: Any
    """What would hold if nothing was set for the place itself."""
    wider_origin: Origin
    is_own: bool
    """Set for the place itself."""


FIELDS: Final = (
    "kbs", "engine", "instructions", "mode", "language", "feedback", "follow_ups", "managers", "helpers", "askers",
    "digest",
)  # fmt: skip
"""What can be set."""

_OF_PLACE: Final = Statement(
    select(ChannelRow).where(
        ChannelRow.platform == bindparam("on"),
        or_(
            and_(ChannelRow.workspace == bindparam("within"), ChannelRow.channel.in_((bindparam("at"), literal("")))),
            and_(ChannelRow.workspace == "", ChannelRow.channel == ""),
        ),
    )
)


class Channels:
    """Settings by place: those of a channel go before those of its workspace, its platform, and the settings file."""

    def __init__(self, db: Database, settings: ChannelsSettings, engines: Callable[[], Sequence[str]] = tuple) -> None:
        self._db = db
        self._default = ChannelSettings(follow_ups=settings.follow_ups)
        self._engines = engines
        self._cache: dict[tuple[str, str, str], tuple[float, ChannelSettings]] = {}
        self._writes = 0

    async def get(self, place: Place) -> ChannelSettings:
        """What holds in a place; a change by another process counts after three seconds at most."""
        key = (place.platform, place.workspace, place.channel)
        until, found = self._cache.get(key, (0.0, self._default))
        if time.monotonic() < until:
            return found
        writes = self._writes
        found = await self._read(place)
        if writes == self._writes:  # else it may be what was there before
            if len(self._cache) >= _MOST_CACHED:
                self._cache.clear()
            self._cache[key] = (time.monotonic() + _CACHE_SECONDS, found)
        return found

    def engines(self) -> Sequence[str]:
        """Those that a place may have."""
        return self._engines()

    async def explain(self, place: Place) -> Mapping[str, Holding]:
        """What holds in a place for each field, and where that was set."""
        (there,) = await self._db.fetch(_OF_PLACE(on=place.platform, within=place.workspace, at=place.channel))
        found: dict[str, Holding] = {}
        for field in FIELDS:
            value = getattr(self._default, field)
            found[field] = Holding(value, "settings", value, "settings", False)
        for one in sorted(there.rows, key=_narrowness):
            origin: Origin = "channel" if one.channel else "workspace" if one.workspace else "platform"
            own = (one.workspace, one.channel) == (place.workspace, place.channel)
            for field, value in values_of(one).items():
                wider = found[field]
                wider_value, wider_origin = (wider.value, wider.origin) if own else (value, origin)
                found[field] = Holding(value, origin, wider_value, wider_origin, own)
        return found

    async def change_all(
        self, places: Sequence[Place], by: str, *, within: bool = False, **values: Any
    ) -> Sequence[Place]:
        """As `change`, in several places; gives those that were changed.

        `within`: the narrower places inside them say nothing of their own about these fields any more.
        """
        for place in places:
            await self.change(place, by, **values)
        changed = list(places)
        if within:
            for place in places:
                changed += await self._set_back_within(place, by, list(values))
        return changed

    async def _set_back_within(self, place: Place, by: str, fields: Sequence[str]) -> Sequence[Place]:
        narrower = [ChannelRow.platform == place.platform, or_(ChannelRow.workspace != "", ChannelRow.channel != "")]
        if place.workspace:
            narrower += [ChannelRow.workspace == place.workspace, ChannelRow.channel != ""]
        if place.channel:
            return ()
        async with self._db.session() as session:
            rows = (await session.scalars(select(ChannelRow).where(*narrower))).all()
            said = [row for row in rows if any(getattr(row, field) is not None for field in fields)]
            for row in said:
                for field in fields:
                    setattr(row, field, None)
                row.updated_by = by
        self._forget()
        return [Place(row.platform, row.workspace, row.channel) for row in said]

    async def change(self, place: Place, by: str, *, name: str | None = None, **values: Any) -> None:
        """Set `values`, which are fields of `ChannelSettings`; None sets one back. `name`: what people call the place.

        Raises UserError with a sentence where one of them cannot be; nothing is changed then.
        """
        changes: dict[str, Any] = {"updated_by": by, "updated_at": now()}
        if name is not None:
            changes["name"] = "".join(char for char in name if char.isprintable()).strip()[:_LONGEST_NAME]
        changes |= {field: _kept(field, value, self._engines()) for field, value in values.items()}
        async with self._db.session() as session:
            await _check_kbs(session, changes.get("kbs") or ())
            if changes.get("digest") in ("daily", "weekly"):
                await digests.ensure(session, changes["digest"], self._db.insert)
            key = {"platform": place.platform, "workspace": place.workspace, "channel": place.channel}
            await session.execute(
                self._db.insert(ChannelRow)
                .values({"id": new_id(), **key, **changes})
                .on_conflict_do_update(index_elements=list(key), set_=changes)
            )
        self._forget()

    async def clear(self, place: Place) -> bool:
        """Forget what was set for this place itself; whether there was anything."""
        key = {"platform": place.platform, "workspace": place.workspace, "channel": place.channel}
        async with self._db.session() as session:
            row = await session.scalar(select(ChannelRow).filter_by(**key))
            await session.execute(delete(ChannelRow).filter_by(**key))
        self._forget()
        return row is not None

    async def list(self) -> Sequence[SetPlace]:
        """Every place something was set for."""
        order = (ChannelRow.platform, ChannelRow.workspace, ChannelRow.channel)
        async with self._db.read() as session:
            rows = (await session.scalars(select(ChannelRow).order_by(*order))).all()
        return [
            SetPlace(
                Place(row.platform, row.workspace, row.channel),
                row.name,
                values_of(row),
                row.updated_by,
                row.updated_at,
            )
            for row in rows
        ]

    async def _read(self, place: Place) -> ChannelSettings:
        (there,) = await self._db.fetch(_OF_PLACE(on=place.platform, within=place.workspace, at=place.channel))
        found = self._default
        for one in sorted(there.rows, key=_narrowness):
            values = values_of(one)
            found = replace(found, **values, is_set=found.is_set or bool(values))
        return found

    def _forget(self) -> None:
        self._writes += 1
        self._cache.clear()


def _narrowness(row: AnyRow) -> tuple[bool, bool]:
    return bool(row.channel), bool(row.workspace)


async def _check_kbs(session: AsyncSession, names: Sequence[str]) -> None:
    """Raises NotFound, without naming those there are: whoever looks after a channel need not know them all."""
    row = KnowledgeBaseRow
    there = set(await session.scalars(select(row.name).where(row.name.in_(names), row.expires_at.is_(None))))
    for name in names:
        if name not in there:
            raise NotFound(tell("no_such_kb", name=name))


def _kept(field: str, value: Any, engines: Sequence[str]) -> Any:
    """The value as it is kept; None where it says nothing."""
    if field not in FIELDS:
        raise UserError(tell("channel_no_setting", name=field, there=", ".join(FIELDS)))
    if value is None:
        return None
    match field:
        case "feedback" | "follow_ups":
            return bool(value)
        case "engine" | "mode" | "language" | "digest":
            there = {
                "engine": engines, "mode": get_args(Mode), "language": get_args(Language), "digest": get_args(Digest)
            }[field]  # fmt: skip
            if value not in there:
                raise UserError(tell(f"channel_no_{field}", name=value, there=", ".join(there)))
            return value
        case "instructions":
            if len(value) > LONGEST_INSTRUCTIONS:
                raise UserError(tell("chat_prompt_long", most=LONGEST_INSTRUCTIONS))
            return value.replace("\x00", "").strip() or None
        case "kbs":
            return list(dict.fromkeys(value)) or None
    return _people(value) or None


def values_of(row: ChannelRow | AnyRow) -> dict[str, Any]:
    """What a row says, in the types of `ChannelSettings`."""
    found = {field: getattr(row, field) for field in FIELDS}
    return {
        field: tuple(value) if isinstance(value, list) else value for field, value in found.items() if value is not None
    }


def _people(ids: Sequence[str]) -> Sequence[str]:
    found = list(dict.fromkeys(ids))
    for one in found:
        if not (0 < len(one) <= _LONGEST_NAME and one.isprintable() and " " not in one):
            raise UserError(tell("channel_bad_person", person=one[:_LONGEST_NAME]))
    if len(found) > _MOST_PEOPLE:
        raise UserError(tell("channel_many_people", most=_MOST_PEOPLE))
    return found
