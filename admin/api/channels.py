"""Channels of chat platforms: which knowledge bases answer there and how, and where that is set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query
from pydantic import Field

from admin.deps import CallerDep, KvasirDep
from admin.schemas import Given, Out
from core.access import Action
from core.app import Kvasir
from core.chats.channels import FIELDS, LONGEST_INSTRUCTIONS, Digest, Mode, Origin
from core.errors import NotFound, UserError
from core.texts import tell
from core.types import Language, Place

router = APIRouter(prefix="/channels", tags=["channels"])

Id = Annotated[str, Field(max_length=255)]
Word = Annotated[str, Field(max_length=LONGEST_INSTRUCTIONS + 1)]
Setting = bool | Word | Annotated[list[Id], Field(max_length=200)] | None


class PlaceGiven(Given):
    platform: Annotated[str, Field(max_length=32)]
    workspace: Id = ""
    """Empty, with an empty channel: the whole platform."""
    channel: Id = ""
    """Empty: the whole workspace."""


class ChangedChannels(Given):
    places: Annotated[list[PlaceGiven], Field(min_length=1, max_length=200)]
    values: Annotated[Mapping[Annotated[str, Field(max_length=32)], Setting], Field(max_length=20)] = {}
    """Fields by name; null sets one back to what holds in the wider place."""
    name: Annotated[str, Field(max_length=255)] | None = None
    """What people call the place; for one place only."""
    within: bool = False
    """The narrower places inside shall not say otherwise: what they say about these fields is set back."""


class SpotOut(Out):
    platform: str
    workspace: str
    channel: str
    name: str
    """Given by a person."""
    platform_name: str
    workspace_name: str
    values: Mapping[str, Any]
    """What was set for the place itself."""
    questions: int
    """In the last ninety days."""
    last_at: datetime | None
    updated_by: str
    updated_at: datetime | None


class Spots(Out):
    items: Sequence[SpotOut]
    total: int


class HoldingOut(Out):
    value: Any
    origin: Origin
    wider_value: Any
    """What would hold if nothing was set for the place itself."""
    wider_origin: Origin
    is_own: bool


class ExplainedOut(Out):
    platform: str
    workspace: str
    channel: str
    fields: Mapping[str, HoldingOut]
    """What holds there, and where it was set."""


class KbChoice(Out):
    name: str
    private: bool


class Options(Out):
    platforms: Sequence[str]
    kbs: Sequence[KbChoice]
    engines: Sequence[str]
    modes: Sequence[str]
    languages: Sequence[str]
    digests: Sequence[str]
    default_kb: str
    default_engine: str


class Changed(Out):
    changed: int
    notices: Sequence[str]
    """What a person should know, e.g. that members of the platform can ask a private knowledge base now."""


PlatformName = Annotated[str, Query(max_length=32)]
IdOf = Annotated[str, Query(max_length=255)]


@router.get("")
async def list_channels(
    caller: CallerDep,
    kvasir: KvasirDep,
    platform: PlatformName = "",
    text: Annotated[str, Query(max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Spots:
    """Places that something was set for or where somebody asked, those used last first."""
    caller.require(Action.MANAGE)
    there = kvasir.connections.platforms()
    if platform and platform not in there:
        raise NotFound(tell("channel_no_platform", name=platform, there=", ".join(there)))
    found, total = await kvasir.places.list(
        [platform] if platform else there, text=_word(text), limit=limit, offset=offset
    )
    items = [
        SpotOut(
            platform=one.place.platform,
            workspace=one.place.workspace,
            channel=one.place.channel,
            name=one.name,
            platform_name=one.platform_name,
            workspace_name=one.workspace_name,
            values=one.values,
            questions=one.questions,
            last_at=one.last_at,
            updated_by=one.updated_by,
            updated_at=one.updated_at,
        )
        for one in found
    ]
    return Spots(items=items, total=total)


@router.get("/options")
async def channel_options(caller: CallerDep, kvasir: KvasirDep) -> Options:
    """What can be chosen for a place."""
    caller.require(Action.MANAGE)
    return Options(
        platforms=kvasir.connections.platforms(),
        kbs=[KbChoice(name=kb.name, private=kb.private) for kb in await kvasir.knowledge.names()],
        engines=kvasir.channels.engines(),
        modes=get_args(Mode),
        languages=get_args(Language),
        digests=get_args(Digest),
        default_kb=kvasir.settings.channels.default_kb,
        default_engine=kvasir.models.default("engine"),
    )


@router.get("/at")
async def explain_channel(
    caller: CallerDep, kvasir: KvasirDep, platform: PlatformName, workspace: IdOf = "", channel: IdOf = ""
) -> ExplainedOut:
    """What holds in one place, and where each part of it was set."""
    caller.require(Action.MANAGE)
    place = _place(kvasir, platform, workspace, channel)
    fields = await kvasir.channels.explain(place)
    return ExplainedOut(
        platform=place.platform,
        workspace=place.workspace,
        channel=place.channel,
        fields={name: HoldingOut.model_validate(one) for name, one in fields.items()},
    )


@router.patch("")
async def change_channels(given: ChangedChannels, caller: CallerDep, kvasir: KvasirDep) -> Changed:
    """Sets fields for one place or several."""
    caller.require(Action.MANAGE)
    places = [_place(kvasir, one.platform, one.workspace, one.channel) for one in given.places]
    if given.name is not None and len(places) > 1:
        raise UserError(tell("channel_one_name"))
    if unknown := given.values.keys() - set(FIELDS):
        raise UserError(tell("channel_no_setting", name=min(unknown), there=", ".join(FIELDS)))
    values: dict[str, Any] = {name: _typed(name, value) for name, value in given.values.items()}
    if given.name is not None:
        await kvasir.channels.change(places[0], caller.person.key, name=given.name)
    changed = await kvasir.channels.change_all(places, caller.person.key, within=given.within, **values)
    private = {kb.name for kb in await kvasir.knowledge.names() if kb.private}
    notices = [tell("channel_private_kb", kb=name) for name in values.get("kbs") or () if name in private]
    return Changed(changed=len(changed), notices=notices)


@router.delete("", status_code=204)
async def clear_channel(
    caller: CallerDep, kvasir: KvasirDep, platform: PlatformName, workspace: IdOf = "", channel: IdOf = ""
) -> None:
    """Forgets what was set for the place itself; the wider ones hold there again."""
    caller.require(Action.MANAGE)
    place = _place(kvasir, platform, workspace, channel)
    if not await kvasir.channels.clear(place):
        raise NotFound(tell("channel_not_set", place=f"{platform}:{workspace}:{channel}".rstrip(":")))


_LISTS = frozenset({"kbs", "managers", "helpers", "askers"})
_SWITCHES = frozenset({"feedback", "follow_ups"})


def _typed(name: str, value: Setting) -> Setting:
    """Raises UserError where it is of another kind than the field."""
    kind = list if name in _LISTS else bool if name in _SWITCHES else str
    if value is not None and not isinstance(value, kind):
        raise UserError(tell("channel_bad_value", name=name))
    if isinstance(value, list):
        return [text for one in value if (text := _word(one))]
    return value


def _place(kvasir: Kvasir, platform: str, workspace: str, channel: str) -> Place:
    there = kvasir.connections.platforms()
    if platform not in there:
        raise NotFound(tell("channel_no_platform", name=platform, there=", ".join(there)))
    if not (workspace + channel).isprintable() or (workspace, channel) != (workspace.strip(), channel.strip()):
        raise UserError(tell("channel_bad_place", place=f"{platform}:{_word(workspace)}:{_word(channel)}"))
    return Place(platform, workspace, channel)


def _word(text: str) -> str:
    return "".join(char for char in text if char.isprintable()).strip()
