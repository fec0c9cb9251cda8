"""Models: engines, embedders and rerankers, those of the settings and those that were added; how each is doing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError
from pydantic import Field, SecretStr

from admin.deps import CallerDep, KvasirDep
from admin.schemas import Given, Out
from core.access import Action
from core.app import Kvasir
from core.inference import tending
from core.inference.sections import KINDS, BadField, Kind
from core.inference.tending import Tended

router = APIRouter(prefix="/models", tags=["models"])

Word = Annotated[str, Field(max_length=4000)]
Name = Annotated[str, Field(max_length=64)]

Value = bool | int | float | Word | Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=50)] | None
Values = Annotated[Mapping[Name, Value], Field(max_length=100)]
Secret = Annotated[SecretStr, Field(max_length=4000)]
Secrets = Annotated[
    Mapping[Name, Secret | Annotated[Mapping[Name, Secret], Field(max_length=50)] | None], Field(max_length=50)
]


class ChangedModel(Given):
    settings: Values = Field(default_factory=dict)
    """By the names of the adapter's fields; null means the default."""
    secrets: Secrets = Field(default_factory=dict)
    """The same for those that are secret; null or an empty text forgets one, what is not named stays as it is."""


class NewModel(ChangedModel):
    kind: Kind
    name: Name
    adapter: Name


class Trial(ChangedModel):
    kind: Kind
    adapter: Name
    kept: Name = ""
    """The model whose secrets are used, where they are not given."""


class Use(Given):
    unload_former: bool = False
    """Close the one that was used until now, when its last answer has ended."""


class StandingOut(Out):
    state: Literal["idle", "loading", "ready", "failed", "off"]
    stage: str
    progress: float
    reason: str
    """Why it failed, in one sentence."""
    active: int
    """Answers being written."""
    waiting: int
    """Answers that wait for their turn."""
    ending: int
    """Answers that end on what was there before a change."""


class ModelOut(Out):
    kind: Kind
    name: str
    adapter: str
    added: bool
    """False: an adapter as the settings file sets it; it cannot be changed here."""
    enabled: bool
    default: bool
    """The one of its kind that is used where none is named."""
    settings: Mapping[str, Any]
    secrets: Sequence[str]
    """Names of the secrets that are set; they are never given."""
    standing: StandingOut
    runs: str
    where: str
    memory: int
    parallel: int
    dimension: int
    used_by: Sequence[str]
    """Knowledge bases and channels that name it."""
    indexes: Sequence[str]
    """Knowledge bases that are searched by what this embedder has made."""


class ModelsOut(Out):
    items: Sequence[ModelOut]
    total: int


class FieldOut(Out):
    name: str
    kind: Literal["text", "secret", "number", "checkbox", "select", "list", "pairs"]
    description: str
    default: Any
    is_needed: bool
    is_secret: bool
    is_common: bool
    choices: Sequence[str]
    least: float | None
    most: float | None
    is_whole: bool


class PresetOut(Out):
    name: str
    title: str
    values: Mapping[str, Any]
    needs_key: bool
    models: Sequence[str]


class AdapterOut(Out):
    kind: Kind
    name: str
    fields: Sequence[FieldOut]
    presets: Sequence[PresetOut]


class AdaptersOut(Out):
    items: Sequence[AdapterOut]
    total: int


class TriedOut(Out):
    ok: bool
    error: str
    first_ms: float | None
    total_ms: float
    text: str
    details: Mapping[str, Any]


class LineOut(Out):
    at: datetime
    level: str
    text: str


class LinesOut(Out):
    items: Sequence[LineOut]
    total: int


@router.get("")
async def list_models(
    caller: CallerDep,
    kvasir: KvasirDep,
    kind: Kind | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> ModelsOut:
    """All models, those that are used where none is named first; how they are doing in this process."""
    caller.require(Action.MANAGE)
    found = await tending.look(kvasir, kind)
    return ModelsOut(items=[_out(one) for one in found[offset : offset + limit]], total=len(found))


@router.post("", status_code=201)
async def add_model(given: NewModel, caller: CallerDep, kvasir: KvasirDep) -> ModelOut:
    """Keeps a model, and begins to load it. Secrets are encrypted, and never given back."""
    caller.require(Action.MANAGE)
    with _fields_named():
        await kvasir.models.add(given.kind, given.name, given.adapter, _set(given.settings), _open(given.secrets))
    await tending.load(kvasir, given.kind, given.name)
    return _out(await tending.look_at(kvasir, given.kind, given.name))


@router.get("/adapters")
async def list_adapters(caller: CallerDep, kvasir: KvasirDep) -> AdaptersOut:
    """What models can be made of: each adapter with the fields of its form, and servers to choose from."""
    caller.require(Action.MANAGE)
    found = await asyncio.to_thread(_adapters, kvasir)  # some are imported for it
    return AdaptersOut(items=found, total=len(found))


@router.post("/trials")
async def try_settings(given: Trial, caller: CallerDep, kvasir: KvasirDep) -> TriedOut:
    """Puts a real question to a model that is not kept; nothing is changed."""
    caller.require(Action.MANAGE)
    with _fields_named():
        model = kvasir.models.trial(
            given.kind, given.adapter, _set(given.settings), _open(given.secrets), kept=given.kept
        )
    return TriedOut.model_validate(await tending.test_trial(kvasir, model))


@router.get("/{kind}/{name}")
async def get_model(kind: Kind, name: Name, caller: CallerDep, kvasir: KvasirDep) -> ModelOut:
    """One of them."""
    caller.require(Action.MANAGE)
    return _out(await tending.look_at(kvasir, kind, name))


@router.patch("/{kind}/{name}")
async def change_model(kind: Kind, name: Name, given: ChangedModel, caller: CallerDep, kvasir: KvasirDep) -> ModelOut:
    """Changes it while it runs: new answers go to what it is then, running ones end on what it was."""
    caller.require(Action.MANAGE)
    kvasir.models.find(kind, name)
    with _fields_named():
        model = await kvasir.models.change(name, given.settings, _open(given.secrets))
    if model.enabled:
        await tending.load(kvasir, kind, name)
    return _out(await tending.look_at(kvasir, kind, name))


@router.delete("/{kind}/{name}", status_code=204)
async def remove_model(kind: Kind, name: Name, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Forgets it with its key; refused while anything names it."""
    caller.require(Action.MANAGE)
    await tending.remove(kvasir, kind, name)


@router.post("/{kind}/{name}/load", status_code=202)
async def load_model(kind: Kind, name: Name, caller: CallerDep, kvasir: KvasirDep) -> ModelOut:
    """Switches it on, and begins to load it; its standing says how far it is."""
    caller.require(Action.MANAGE)
    await tending.load(kvasir, kind, name)
    return _out(await tending.look_at(kvasir, kind, name))


@router.post("/{kind}/{name}/unload")
async def unload_model(kind: Kind, name: Name, caller: CallerDep, kvasir: KvasirDep) -> ModelOut:
    """Switches it off; it is closed when its last answer has ended."""
    caller.require(Action.MANAGE)
    await tending.unload(kvasir, kind, name)
    return _out(await tending.look_at(kvasir, kind, name))


@router.post("/{kind}/{name}/use")
async def use_model(kind: Kind, name: Name, given: Use, caller: CallerDep, kvasir: KvasirDep) -> ModelOut:
    """Makes it the one that is used where none is named, as soon as it is loaded."""
    caller.require(Action.MANAGE)
    with _fields_named():
        await tending.use(kvasir, kind, name, unload_former=given.unload_former)
    return _out(await tending.look_at(kvasir, kind, name))


@router.delete("/{kind}/{name}/use", status_code=204)
async def stop_using_model(kind: Kind, name: Name, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Lets the settings file say again what is used where none is named."""
    caller.require(Action.MANAGE)
    await tending.use_none(kvasir, kind, name)


@router.post("/{kind}/{name}/test")
async def test_model(kind: Kind, name: Name, caller: CallerDep, kvasir: KvasirDep) -> TriedOut:
    """Puts a real question to it, or real texts."""
    caller.require(Action.MANAGE)
    return TriedOut.model_validate(await tending.test(kvasir, kind, name))


@router.get("/{kind}/{name}/log")
async def read_log(kind: Kind, name: Name, caller: CallerDep, kvasir: KvasirDep) -> LinesOut:
    """What was last logged about it in this process, the oldest first, without secrets."""
    caller.require(Action.MANAGE)
    lines = tending.log_of(kvasir, kind, name)
    return LinesOut(items=[LineOut.model_validate(line) for line in lines], total=len(lines))


def _adapters(kvasir: Kvasir) -> list[AdapterOut]:
    return [
        AdapterOut(
            kind=kind,
            name=name,
            fields=[FieldOut.model_validate(field) for field in kvasir.adapters.fields(kind, name)],
            presets=[PresetOut.model_validate(preset) for preset in kvasir.adapters.presets(kind, name)],
        )
        for kind in KINDS
        for name in kvasir.adapters.names(kind)
    ]


@contextmanager
def _fields_named() -> Iterator[None]:
    """What cannot be is said of its field."""
    try:
        yield
    except BadField as error:
        raise RequestValidationError([{"loc": ("body", error.field), "msg": str(error)}]) from error


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _open(secrets: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _opened(value) for name, value in secrets.items()}


def _opened(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {key: part.get_secret_value() for key, part in value.items()}
    return ""


def _out(one: Tended) -> ModelOut:
    model = one.model
    return ModelOut(
        kind=model.kind,
        name=model.name,
        adapter=model.adapter,
        added=model.is_added,
        enabled=model.enabled,
        default=model.is_default,
        settings=one.shown,
        secrets=model.secrets,
        standing=StandingOut.model_validate(one.standing),
        runs=one.runs,
        where=one.where,
        memory=one.memory,
        parallel=one.parallel,
        dimension=one.dimension,
        used_by=one.used_by,
        indexes=one.indexes,
    )
