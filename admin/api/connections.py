"""Connections to chat platforms: their tokens and options, how they are, and messages to try them with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field, SecretStr
from starlette.responses import Response

from admin.deps import CallerDep, KvasirDep, is_id
from admin.schemas import Given, Out, Text
from core import registry
from core.access import Action
from core.app import Kvasir
from core.chats.connections import Connection
from core.chats.outbox import Posting
from core.chats.platform_options import Kind, Origin
from core.chats.reports import State
from core.errors import NotFound
from core.ports import Finding
from core.texts import tell
from core.types import Place

router = APIRouter(prefix="/connections", tags=["connections"])

Word = Annotated[str, Field(max_length=4000)]
Value = bool | int | Word | Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=1000)] | None
Values = Annotated[Mapping[Annotated[str, Field(max_length=64)], Value], Field(max_length=50)]
Secrets = Annotated[
    Mapping[Annotated[str, Field(max_length=64)], Annotated[SecretStr, Field(max_length=4000)] | None],
    Field(max_length=50),
]
Id = Annotated[str, Field(max_length=255)]


class TriedConnection(Given):
    values: Values = Field(default_factory=dict)
    """Options by name; null sets one back to what it was at first."""
    secrets: Secrets = Field(default_factory=dict)
    """The same for those of the kind `secret`; those that are not named stay as they are."""


class ChangedConnection(TriedConnection):
    enabled: bool | None = None
    unchecked: bool = False
    """Keep them without trying them at the platform first."""


class OptionOut(Out):
    name: str
    kind: Kind
    description: str
    default: Any
    value: Any
    """Null where it is a secret, which is never given, and where nothing is set."""
    origin: Origin
    """console, settings (a variable or the settings file, which go first), or empty: it is not set."""
    variable: str


class ReportOut(Out):
    process: str
    state: Literal["connecting", "connected", "standby", "refused", "stopped"]
    since: datetime
    at: datetime
    last_event_at: datetime | None
    error: str
    error_at: datetime | None
    is_silent: bool
    """Nothing was heard of its process for long: it is dead, or cannot reach the database."""


class ConnectionOut(Out):
    platform: str
    state: State
    enabled: bool
    is_kept: bool
    """Something is set in the console."""
    is_configured: bool
    trouble: str
    """Why what is kept cannot be used; else empty."""
    options: Sequence[OptionOut]
    reports: Sequence[ReportOut]
    """What each process says that runs the platform."""
    waiting: int
    working: int
    """Questions."""
    has_manifest: bool
    """There is a file to make the platform's app of."""
    public_url: str
    updated_by: str
    updated_at: datetime | None


class ConnectionsOut(Out):
    items: Sequence[ConnectionOut]
    total: int


class FindingOut(Out):
    what: str
    ok: bool
    says: str
    field: str
    """The option to be changed; `*`: some of them; empty: it works all the same."""


class Findings(Out):
    items: Sequence[FindingOut]


class SavedConnection(Out):
    connection: ConnectionOut
    findings: Sequence[FindingOut]


class WorkspaceOut(Out):
    id: str
    name: str
    since: datetime


class Workspaces(Out):
    items: Sequence[WorkspaceOut]
    total: int


class NewMessage(Given):
    channel: Id
    """Its id at the platform; at Slack also `#name`, at Telegram also `@name`."""
    workspace: Id = ""
    """Empty: the only one there is."""
    thread: Id = ""
    text: Annotated[Text, Field(max_length=4000)] = ""
    """CommonMark; empty: a sentence that says what it is."""


class MessageOut(Out):
    id: str
    workspace: str
    channel: str
    thread: str
    text: str
    purpose: str
    state: Literal["waiting", "sending", "sent", "failed"]
    error: str
    created_at: datetime
    sent_at: datetime | None


class Messages(Out):
    items: Sequence[MessageOut]
    total: int


@router.get("")
async def list_connections(caller: CallerDep, kvasir: KvasirDep) -> ConnectionsOut:
    """Every chat platform there is, connected or not, and how it is."""
    caller.require(Action.MANAGE)
    found = [_out(kvasir, one) for one in await kvasir.connections.list()]
    return ConnectionsOut(items=found, total=len(found))


@router.get("/{platform}")
async def get_connection(platform: str, caller: CallerDep, kvasir: KvasirDep) -> ConnectionOut:
    """One of them."""
    caller.require(Action.MANAGE)
    return _out(kvasir, await kvasir.connections.get(platform))


@router.patch("/{platform}")
async def change_connection(
    platform: str, given: ChangedConnection, caller: CallerDep, kvasir: KvasirDep
) -> SavedConnection:
    """Keeps tokens and options, after they were tried at the platform, and switches it on or off."""
    caller.require(Action.MANAGE)
    findings = await kvasir.connections.change(
        platform, caller.person.key, _values(given), enabled=given.enabled, unchecked=given.unchecked
    )
    connection = _out(kvasir, await kvasir.connections.get(platform))
    return SavedConnection(connection=connection, findings=[_finding(one) for one in findings])


@router.delete("/{platform}", status_code=204)
async def remove_connection(platform: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Forgets the tokens and options that were set in the console."""
    caller.require(Action.MANAGE)
    await kvasir.connections.remove(platform, caller.person.key)


@router.post("/{platform}/check")
async def check_connection(platform: str, given: TriedConnection, caller: CallerDep, kvasir: KvasirDep) -> Findings:
    """Tries the connection, with these values in the place of those kept; nothing is changed."""
    caller.require(Action.MANAGE)
    found = await kvasir.connections.examine(platform, _values(given))
    return Findings(items=[_finding(one) for one in found])


@router.post("/{platform}/restart")
async def restart_connection(platform: str, caller: CallerDep, kvasir: KvasirDep) -> ConnectionOut:
    """Has its processes connect anew."""
    caller.require(Action.MANAGE)
    await kvasir.connections.restart(platform, caller.person.key)
    return _out(kvasir, await kvasir.connections.get(platform))


@router.get("/{platform}/workspaces")
async def list_workspaces(platform: str, caller: CallerDep, kvasir: KvasirDep) -> Workspaces:
    """The workspaces that let Kvasir in, as far as the platform tells."""
    caller.require(Action.MANAGE)
    found = [WorkspaceOut.model_validate(one) for one in await kvasir.connections.workspaces(platform)]
    return Workspaces(items=found, total=len(found))


@router.get("/{platform}/manifest", response_class=Response)
async def get_manifest(platform: str, caller: CallerDep) -> Response:
    """The file to make the platform's app of, where it takes one."""
    caller.require(Action.MANAGE)
    if platform not in registry.names(_MANIFESTS):
        raise NotFound(tell("no_manifest"))
    text: str = registry.load(_MANIFESTS, platform)()
    headers = {"content-disposition": f'attachment; filename="kvasir-{platform}.json"', "cache-control": "no-store"}
    return Response(text, media_type="application/json", headers=headers)


# ---------------------------------------------------------------- messages
@router.get("/{platform}/messages")
async def list_messages(
    platform: str,
    caller: CallerDep,
    kvasir: KvasirDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Messages:
    """What was posted besides answers, and what became of it; the newest first."""
    caller.require(Action.MANAGE)
    await kvasir.connections.get(platform)
    found, total = await kvasir.outbox.list(platform, limit=limit, offset=offset)
    return Messages(items=[_message(one) for one in found], total=total)


@router.post("/{platform}/messages", status_code=201)
async def post_message(platform: str, given: NewMessage, caller: CallerDep, kvasir: KvasirDep) -> MessageOut:
    """Has a test message posted by the process that runs the platform; its state says what came of it."""
    caller.require(Action.MANAGE)
    await kvasir.connections.get(platform)
    place = Place(platform, _word(given.workspace), _word(given.channel), _word(given.thread))
    posting_id = await kvasir.outbox.add(place, given.text.strip() or tell("outbox_test"), "test")
    return _message(await kvasir.outbox.get(posting_id))


@router.get("/{platform}/messages/{message_id}")
async def get_message(platform: str, message_id: str, caller: CallerDep, kvasir: KvasirDep) -> MessageOut:
    """What became of a message."""
    caller.require(Action.MANAGE)
    found = await kvasir.outbox.get(message_id) if is_id(message_id) else None
    if found is None or found.place.platform != platform:
        raise NotFound(tell("no_such_posting"))
    return _message(found)


_MANIFESTS = "kvasir.manifests"


def _values(given: TriedConnection) -> dict[str, Any]:
    secrets = {name: value.get_secret_value() if value else None for name, value in given.secrets.items()}
    return {**given.values, **secrets}


def _word(text: str) -> str:
    return "".join(char for char in text if char.isprintable()).strip()


def _finding(one: Finding) -> FindingOut:
    return FindingOut(what=one.what, ok=one.ok, says=one.says, field=one.field)


def _message(one: Posting) -> MessageOut:
    place: Place = one.place
    return MessageOut(
        id=one.id, workspace=place.workspace, channel=place.channel, thread=place.thread, text=one.text,
        purpose=one.purpose, state=one.state, error=one.error, created_at=one.created_at, sent_at=one.sent_at,
    )  # fmt: skip


def _out(kvasir: Kvasir, one: Connection) -> ConnectionOut:
    return ConnectionOut(
        platform=one.platform,
        state=one.state,
        enabled=one.enabled,
        is_kept=one.is_kept,
        is_configured=one.is_configured,
        trouble=one.trouble,
        options=[OptionOut.model_validate(field) for field in one.fields],
        reports=[ReportOut.model_validate(report) for report in one.reports],
        waiting=one.waiting,
        working=one.working,
        has_manifest=one.platform in registry.names(_MANIFESTS),
        public_url=kvasir.settings.web.public_url,
        updated_by=one.updated_by,
        updated_at=one.updated_at,
    )
