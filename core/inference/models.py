"""Models as data: engines, embedders and rerankers that were added, changed and chosen while Kvasir runs.

A name means first a model that was added, then an adapter as the settings set it. Whoever keeps models open hears of
every change: at once in this process, within a few seconds in others (`watch`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import unicodedata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.session import Database
from core.db.tables import ChannelRow, KnowledgeBaseRow, ModelRow, now
from core.errors import ConfigError, Conflict, NotFound, Unavailable
from core.inference import sections
from core.inference.sections import KINDS, BadField, Kind
from core.settings import Settings
from core.texts import tell
from core.vault import Vault

logger = logging.getLogger(__name__)

WATCH_SECONDS: Final = 2.0
_NAME: Final = re.compile(r"[^\W_][\w .+-]{0,62}[\w+]|[^\W_]")
_HOUSE: Final[Mapping[Kind, str]] = {"engine": "answer", "reranker": "retrieval"}
"""The sections of the settings that name the house's."""

Version: TypeAlias = "tuple[tuple[str, datetime], ...]"


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One that can be used by its name; a change makes another object of it."""

    name: str
    kind: Kind
    adapter: str
    values: Mapping[str, Any] = field(default_factory=dict)
    """What is set, without secrets; empty: all as the settings say."""
    secrets: tuple[str, ...] = ()
    """Names of the secret fields that are set."""
    enabled: bool = True
    is_default: bool = False
    """The house's own choice of its kind."""
    is_added: bool = True
    """False: an adapter as the settings set it."""
    is_set_up: bool = True
    """False: the settings lack something that it needs."""
    sealed: str = field(default="", repr=False)
    """Its secrets as they are kept, encrypted."""


class Models:
    """What there is to answer, embed and rerank with."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        settings: Settings,
        adapters: Callable[[Kind], Sequence[str]],
    ) -> None:
        self._db = db
        self._vault = vault
        self._settings = settings
        self._adapters = adapters
        self._added: dict[str, Model] = {}
        self._plain: dict[tuple[Kind, str], Model] = {}
        self._version: Version = ()
        self._house = settings
        self._listeners: list[Callable[[], Awaitable[None]]] = []
        self._changing = asyncio.Lock()
        self._reading = asyncio.Lock()

    # ------------------------------------------------------------ what there is
    def all(self, kind: Kind | None = None) -> list[Model]:
        """Those that were added, by name, then the adapters that none of them hides."""
        found: list[Model] = []
        for one in (kind,) if kind else KINDS:
            added = sorted((model for model in self._added.values() if model.kind == one), key=lambda m: m.name)
            names = {model.name for model in added}
            found += added
            found += [self._adapter(one, name) for name in self._own(one) if name not in names]
        return found

    def names(self, kind: Kind) -> list[str]:
        """Names that can be used, the house's first."""
        default = self.default(kind)
        added = [model for model in self._added.values() if model.kind == kind]
        hidden = {model.name for model in added}
        own = self._adapters(kind) if kind == "engine" else self._own(kind)
        found = sorted([model.name for model in added if model.enabled] + [name for name in own if name not in hidden])
        return sorted(found, key=lambda name: (name != default, name))

    def default(self, kind: Kind) -> str:
        """Name of the house's; empty: none."""
        chosen = self.chosen(kind)
        if chosen is not None:
            return chosen.name
        settings = self._settings
        if kind == "embedder":
            return "" if settings.embedder.kind == "none" else settings.embedder.kind
        return settings.answer.engine if kind == "engine" else settings.retrieval.reranker

    def chosen(self, kind: Kind) -> Model | None:
        """The house's where it was chosen among those that were added; else the settings name it."""
        return next((one for one in self._added.values() if one.kind == kind and one.is_default and one.enabled), None)

    def find(self, kind: Kind, name: str) -> Model:
        """The model of that name. Raises NotFound."""
        added = self._added.get(name)
        if added is not None and added.kind == kind:
            return added
        if name in self._adapters(kind):
            return self._adapter(kind, name)
        raise NotFound(tell(f"no_such_{kind}", name=name, names=", ".join(self.names(kind)) or "-"))

    def usable(self, kind: Kind, name: str) -> Model:
        """As `find`. Raises ConfigError where there is none, and Unavailable where it is switched off."""
        try:
            model = self.find(kind, name)
        except NotFound as error:
            raise ConfigError(str(error)) from error
        if not model.enabled:
            raise Unavailable(tell("model_is_off", name=name))
        return model

    def house(self) -> Settings:
        """The settings, with the engine and the reranker of the house in the place of those that they name."""
        return self._house

    def settings_for(self, model: Model) -> Settings:
        """What its adapter is opened with. Raises ConfigError where its secrets cannot be read."""
        if not model.values and not model.sealed:
            return sections.settings_of(self._settings, model.kind, model.adapter)
        values = {**model.values, **self._unsealed(model.sealed)}
        try:
            return sections.settings_with(self._settings, model.kind, model.adapter, values)
        except BadField as error:
            raise ConfigError(str(error)) from error

    def shown(self, model: Model) -> dict[str, Any]:
        """What is set, without secrets; of an adapter as the settings set it, what they say."""
        if model.values or model.sealed:
            return dict(model.values)
        return sections.values_of(self.settings_for(model), model.kind, model.adapter)

    async def used_by(self) -> dict[tuple[Kind, str], list[str]]:
        """By kind and name: the knowledge bases and channels that name it."""
        base, found = KnowledgeBaseRow, dict[tuple[Kind, str], list[str]]()
        async with self._db.read() as session:
            rows = await session.execute(
                select(base.name, base.engine, base.embedder, base.reranker, base.fallbacks)
                .where(
                    base.expires_at.is_(None),
                    or_(
                        func.coalesce(base.engine, base.embedder, base.reranker).is_not(None),
                        base.fallbacks.is_not(None),
                    ),
                )
                .order_by(base.name)
            )
            for kb, engine, embedder, reranker, fallbacks in rows:
                named: list[tuple[Kind, str]] = [("embedder", embedder), ("reranker", reranker)]
                named += [("engine", name) for name in dict.fromkeys((engine, *(fallbacks or ())))]
                for kind, name in named:
                    if name:
                        found.setdefault((kind, name), []).append(kb)
            channels = await session.execute(
                select(
                    ChannelRow.engine, ChannelRow.platform, ChannelRow.workspace, ChannelRow.channel, ChannelRow.name
                )
                .where(ChannelRow.engine.is_not(None))
                .order_by(ChannelRow.platform, ChannelRow.channel)
            )
            for chosen, platform, workspace, channel, name in channels:
                place = ":".join(part for part in (platform, workspace, channel) if part)
                found.setdefault(("engine", chosen or ""), []).append(name or place)
        return found

    # ------------------------------------------------------------ changes
    async def add(
        self,
        kind: Kind,
        name: str,
        adapter: str,
        values: Mapping[str, Any] | None = None,
        secrets: Mapping[str, Any] | None = None,
    ) -> Model:
        """A new model. Raises BadField for what cannot be, Conflict where the name is taken."""
        name = _checked_name(name)
        if adapter not in self._adapters(kind):
            raise BadField("adapter", tell("no_such_adapter", name=adapter, names=", ".join(self._adapters(kind))))
        values, given = dict(values or {}), _said(secrets or {})
        if values or given or not self._adapter(kind, adapter).is_set_up:
            values = self._check(kind, adapter, values, given)
        row = ModelRow(name=name, kind=kind, adapter=adapter, settings=values, secrets=self._seal(given), enabled=True)
        try:
            async with self._changing, self._db.session() as session:
                session.add(row)
        except IntegrityError as error:
            raise Conflict(tell("model_exists", name=name)) from error
        await self.refresh()
        return self._added[name]

    async def change(
        self, name: str, values: Mapping[str, Any] | None = None, secrets: Mapping[str, Any] | None = None
    ) -> Model:
        """Set what is given anew; an empty secret is forgotten, None in `values` means the default.

        Raises BadField where it cannot be, or where an address is to be changed and its key was not given anew: what
        was trusted to one server is never sent to another.
        """
        async with self._changing, self._db.session() as session:
            row = await self._row(session, name)
            kept = self._unsealed(row.secrets)
            merged = {**row.settings, **(values or {})}
            merged = {key: value for key, value in merged.items() if value is not None}
            given = dict(secrets or {})
            if sections.origin_of(merged) != sections.origin_of(row.settings) and kept.keys() - given.keys():
                raise BadField(min(kept.keys() - given.keys()), tell("model_key_again"))
            together = _said({**kept, **given})
            kind = _kind_of(row)
            merged = self._check(kind, row.adapter, merged, together)
            row.settings, row.secrets, row.updated_at = merged, self._seal(together), now()
        await self.refresh()
        return self._added[name]

    async def enable(self, name: str, enabled: bool) -> Model:
        """Let it be used, or not. Raises Conflict where it is the house's and is to be switched off."""
        async with self._changing, self._db.session() as session:
            row = await self._row(session, name)
            if row.is_default and not enabled:
                raise Conflict(tell("model_is_default", name=name))
            if row.enabled != enabled:
                row.enabled, row.updated_at = enabled, now()
        await self.refresh()
        return self._added[name]

    async def use(self, kind: Kind, name: str) -> Model:
        """Make it the house's: it serves wherever none is named. Raises NotFound, or BadField where it lacks something.

        An adapter that the settings set, and do not name themselves, becomes a model of its own name.
        """
        model = self.find(kind, name)
        if not model.is_set_up:
            raise BadField("name", tell("model_not_set_up", name=name))
        own = not model.is_added and name == self._named_by_settings(kind)
        if not model.is_added and not own:
            await self.add(kind, name, model.adapter)
        async with self._changing, self._db.session() as session:
            await session.execute(
                update(ModelRow)
                .where(ModelRow.kind == kind, ModelRow.is_default, ModelRow.name != name)
                .values(is_default=False, updated_at=now())
            )
            if not own:
                row = await self._row(session, name)
                row.is_default, row.enabled, row.updated_at = True, True, now()
        await self.refresh()
        return self.find(kind, name)

    async def use_none(self, kind: Kind) -> None:
        """Let the settings say again which is the house's."""
        async with self._changing, self._db.session() as session:
            await session.execute(
                update(ModelRow)
                .where(ModelRow.kind == kind, ModelRow.is_default)
                .values(is_default=False, updated_at=now())
            )
        await self.refresh()

    async def remove(self, name: str) -> None:
        """Forget it with its key. Raises Conflict where it is the house's, or knowledge bases or channels name it."""
        used = await self.used_by()
        async with self._changing, self._db.session() as session:
            row = await self._row(session, name)
            if row.is_default:
                raise Conflict(tell("model_is_default", name=name))
            if users := used.get((_kind_of(row), name)):
                raise Conflict(tell("model_is_used", name=name, users=", ".join(users[:5])))
            await session.delete(row)
        await self.refresh()

    def trial(
        self, kind: Kind, adapter: str, values: Mapping[str, Any], secrets: Mapping[str, Any], kept: str = ""
    ) -> Model:
        """A model to be tried out before it is kept; the secrets not given are those of the model named `kept`.

        Raises BadField as `change` does.
        """
        if adapter not in self._adapters(kind):
            raise BadField("adapter", tell("no_such_adapter", name=adapter, names=", ".join(self._adapters(kind))))
        known: dict[str, Any] = {}
        if kept:
            model = self.find(kind, kept)
            known = self._unsealed(model.sealed)
            if sections.origin_of(values) != sections.origin_of(model.values) and known.keys() - secrets.keys():
                raise BadField(min(known.keys() - secrets.keys()), tell("model_key_again"))
        together = _said({**known, **secrets})
        values = {key: value for key, value in values.items() if value is not None}
        values = self._check(kind, adapter, values, together)
        return Model(kept or adapter, kind, adapter, values, tuple(together), sealed=self._seal(together))

    # ------------------------------------------------------------ hearing of changes
    def on_change(self, listener: Callable[[], Awaitable[None]]) -> None:
        """Have it called after every change, in whatever process it was made."""
        self._listeners.append(listener)

    async def refresh(self) -> bool:
        """Read what has changed, and tell the listeners; whether there was anything."""
        async with self._reading:
            return await self._refreshed()

    async def _refreshed(self) -> bool:
        query = select(ModelRow.id, ModelRow.updated_at).order_by(ModelRow.id)
        async with self._db.read() as session:
            version = tuple((key, at) for key, at in await session.execute(query))
            if version == self._version:
                return False
            rows = list(await session.scalars(select(ModelRow)))
        stamps, former = dict(version), dict(self._version)
        self._added = {
            row.name: self._added[row.name]
            if row.name in self._added and former.get(row.id) == stamps.get(row.id)
            else self._model(row)
            for row in rows
        }
        self._version, self._house = version, self._with_defaults()
        for listener in self._listeners:
            await listener()
        return True

    async def watch(self, then: Callable[[], Awaitable[None]]) -> None:
        """Look for changes by other processes again and again, until cancelled; `then` is called after each look."""
        gone = False
        while True:
            try:
                await self.refresh()
                await then()
            except Unavailable as error:
                if not gone:
                    logger.info("changes of models are not heard of: %s", error)
                gone = True
            else:
                gone = False
            await asyncio.sleep(WATCH_SECONDS)

    # ------------------------------------------------------------ parts
    def _own(self, kind: Kind) -> list[str]:
        """The adapters to be listed: those that can be used as the settings are, or that they name."""
        named = self._named_by_settings(kind)
        if kind == "embedder":
            return [named] if named else []
        quiet = {"scripted"} - {named}
        return [name for name in self._adapters(kind) if name not in quiet and self._adapter(kind, name).is_set_up]

    def _named_by_settings(self, kind: Kind) -> str:
        if kind == "embedder":
            return "" if self._settings.embedder.kind == "none" else self._settings.embedder.kind
        return self._settings.answer.engine if kind == "engine" else self._settings.retrieval.reranker

    def _adapter(self, kind: Kind, name: str) -> Model:
        """The same object each time, as long as nothing else is chosen."""
        is_default = name == self.default(kind)
        known = self._plain.get((kind, name))
        if known is None or known.is_default != is_default:
            is_set_up = sections.is_set_up(self._settings, kind, name)
            known = Model(name, kind, name, is_default=is_default, is_added=False, is_set_up=is_set_up)
            self._plain[kind, name] = known
        return known

    def _with_defaults(self) -> Settings:
        changes: dict[str, Any] = {}
        for kind, section in _HOUSE.items():
            if chosen := self.chosen(kind):
                changes[section] = getattr(self._settings, section).model_copy(update={kind: chosen.name})
        return self._settings.model_copy(update=changes) if changes else self._settings

    def _model(self, row: ModelRow) -> Model:
        try:
            secrets = tuple(self._unsealed(row.secrets))
        except ConfigError as error:  # it shows when it is opened; the others go on
            logger.warning("the key of the model %s cannot be read: %s", row.name, error)
            secrets = ()
        return Model(
            row.name, _kind_of(row), row.adapter, dict(row.settings), secrets, row.enabled, row.is_default,
            sealed=row.secrets,
        )  # fmt: skip

    def _check(self, kind: Kind, adapter: str, values: Mapping[str, Any], secrets: Mapping[str, Any]) -> dict[str, Any]:
        """The values as the fields have them. Raises BadField."""
        fields = {one.name: one for one in sections.fields_of(kind, adapter)}
        for name in values:
            if name in fields and fields[name].is_secret:
                raise BadField(name, tell("model_field_secret", field=name))
        for name in secrets:
            if name not in fields or not fields[name].is_secret:
                raise BadField(name, tell("model_no_field", field=name, adapter=adapter))
        made = sections.settings_with(self._settings, kind, adapter, {**values, **secrets})
        return {name: sections.plain(sections.value_of(made, kind, adapter, name)) for name in values}

    def _seal(self, secrets: Mapping[str, Any]) -> str:
        return self._vault.encrypt(json.dumps(secrets)) if secrets else ""

    def _unsealed(self, sealed: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._vault.decrypt(sealed)) if sealed else {}
        return found

    async def _row(self, session: AsyncSession, name: str) -> ModelRow:
        row = await session.scalar(select(ModelRow).where(ModelRow.name == name))
        if row is None:
            raise NotFound(tell("model_not_added", name=name))
        return row


def _said(secrets: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that are empty."""
    return {name: value for name, value in secrets.items() if value}


def _kind_of(row: ModelRow) -> Kind:
    return next(kind for kind in KINDS if kind == row.kind)


def _checked_name(name: str) -> str:
    """The name in its normal form. Raises BadField where it cannot be one."""
    name = unicodedata.normalize("NFC", name).strip()
    if not _NAME.fullmatch(name):
        raise BadField("name", tell("bad_model_name"))
    return name
