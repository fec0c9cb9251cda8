"""The sources of knowledge bases: what is set for each, how it stands, and what would come from it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import defer

from core.db.session import Database
from core.db.tables import DocumentRow, GenerationRow, KnowledgeBaseRow, SourceRow, new_id
from core.errors import Conflict, KvasirError, NotFound, Unavailable, UserError
from core.kb.knowledge import Knowledge, generation_of, kb_row
from core.settings import Settings
from core.sources.kinds import kind_named
from core.sources.port import SourceKind, Spec, Tools, spec_of
from core.texts import tell
from core.vault import Vault
from core.work.jobs import Job, Jobs
from core.work.schedules import Schedules

if TYPE_CHECKING:
    from core.sources.visit import Manners

logger = logging.getLogger(__name__)

KIND: Final = "sync"
"""Of its jobs and schedules."""
_NAME_LIMIT: Final = 100
_PREVIEW_SECONDS: Final = 60.0
_PREVIEW_ITEMS: Final = 50
_LOOKS: Final = 2
"""Previews at a time."""
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class SourceInfo:
    id: str
    kb: str
    name: str
    kind: str
    settings: Mapping[str, Any]
    has_secret: bool
    state: str
    """new, done, or failed: how the last synchronisation ended; queued or running where one is under way."""
    reason: str | None
    documents: int
    synced_at: datetime | None
    created_at: datetime
    job_id: str | None = None
    """Of the synchronisation under way."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """How far that is."""


@dataclass(frozen=True, slots=True)
class NewSource:
    kb: str
    name: str
    kind: str
    settings: Mapping[str, Any]
    token: str = ""


@dataclass(frozen=True, slots=True)
class PreviewItem:
    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What would come from a source."""

    items: Sequence[PreviewItem]
    """The first of them."""
    total: int
    is_complete: bool
    notes: Sequence[str]
    problem: str
    """Why the first of them cannot be read; empty: it can."""


class Sources:
    """Keeps the sources; `sync.run` brings in what they have."""

    def __init__(
        self,
        db: Database,
        jobs: Jobs,
        knowledge: Knowledge,
        schedules: Schedules,
        vault: Vault,
        settings: Settings,
        readable: frozenset[str],
    ) -> None:
        self._db = db
        self._jobs = jobs
        self._knowledge = knowledge
        self._schedules = schedules
        self._vault = vault
        self._settings = settings
        self._readable = readable
        self._looks = asyncio.Semaphore(_LOOKS)

    @cached_property
    def _manners(self) -> Manners:
        from core.sources.visit import Manners

        return Manners()

    # ------------------------------------------------------------ definitions
    async def create(self, given: NewSource) -> SourceInfo:
        """Raises UserError for settings that cannot be used, Conflict where the knowledge base has one of this name."""
        kind = kind_named(given.kind)
        spec = await self._checked(kind, given.settings)
        row = SourceRow(
            id=new_id(),
            name=_checked_name(given.name),
            kind=given.kind,
            settings=spec.model_dump(mode="json"),
            secrets=self._sealed(kind, spec, given.token),
            cursor={},
            state="new",
            documents=0,
        )
        try:
            async with self._db.session() as session:
                row.kb_id = (await kb_row(session, given.kb)).id
                session.add(row)
        except IntegrityError as error:
            raise Conflict(tell("source_exists", name=row.name, kb=given.kb)) from error
        return await self.get(row.id)

    async def update(
        self,
        source_id: str,
        *,
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
        token: str | None = None,
    ) -> SourceInfo:
        """Change what is given; a new address loses the token, unless there comes a new one with it.

        Raises as `create`.
        """
        before = await self._row(source_id)
        kind = kind_named(before.kind)
        spec = await self._checked(kind, {**before.settings, **(settings or {})})
        values: dict[str, Any] = {"settings": spec.model_dump(mode="json")}
        if name is not None:
            values["name"] = _checked_name(name)
        if token is not None:
            values["secrets"] = self._sealed(kind, spec, token)
        elif before.secrets and values["settings"].get("url") != before.settings.get("url"):
            values["secrets"] = ""
        try:
            async with self._db.session() as session:
                await session.execute(update(SourceRow).where(SourceRow.id == source_id).values(**values))
        except IntegrityError as error:
            raise Conflict(tell("source_exists", name=str(values["name"]), kb="")) from error
        return await self.get(source_id)

    async def delete(self, source_id: str, *, documents: bool) -> int:
        """Remove it with its schedules, and with its documents or without; gives how many documents went."""
        for job in await self._active():
            if job.payload.get("target") == source_id:
                await self._jobs.cancel(job.id)
        await self._schedules.delete_for(KIND, source_id)
        async with self._db.session() as session:
            row = await session.get(SourceRow, source_id)
            if row is None:
                raise NotFound(tell("no_such_source"))
            kb_id = row.kb_id
            of_it = DocumentRow.source_id == source_id
            ids = list(await session.scalars(select(DocumentRow.id).where(of_it))) if documents else []
            if not documents:
                await session.execute(update(DocumentRow).where(of_it).values(source_id=None))
            await session.delete(row)
        await self.delete_documents(kb_id, ids)
        return len(ids)

    # ------------------------------------------------------------ looking
    async def get(self, source_id: str) -> SourceInfo:
        async with self._db.read() as session:
            found = (await session.execute(_with_kb().where(SourceRow.id == source_id))).one_or_none()
        if found is None:
            raise NotFound(tell("no_such_source"))
        return _info(found[0], found[1], await self._active())

    async def find(self, kb: str, name: str) -> SourceInfo:
        async with self._db.read() as session:
            where = (KnowledgeBaseRow.name == kb, SourceRow.name == name)
            found = (await session.execute(_with_kb().where(*where))).one_or_none()
        if found is None:
            raise NotFound(tell("no_source_named", name=name[:100], kb=kb[:100]))
        return _info(found[0], found[1], await self._active())

    async def list(
        self, *, kbs: Collection[str] | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[Sequence[SourceInfo], int]:
        """A page of sources by knowledge base and name, and how many there are; `kbs`: only those of these."""
        where = [] if kbs is None else [KnowledgeBaseRow.name.in_(list(kbs))]
        count = select(func.count()).select_from(SourceRow).join(KnowledgeBaseRow).where(*where)
        async with self._db.read() as session:
            total = await session.scalar(count) or 0
            query = _with_kb().where(*where).order_by(KnowledgeBaseRow.name, SourceRow.name)
            rows = (await session.execute(query.limit(limit).offset(offset))).all()
        active = await self._active() if rows else ()
        return [_info(row, kb, active) for row, kb in rows], total

    async def names(self) -> Sequence[tuple[str, str, str]]:
        """(id, name, knowledge base) of all."""
        query = select(SourceRow.id, SourceRow.name, KnowledgeBaseRow.name).join(KnowledgeBaseRow)
        async with self._db.read() as session:
            rows = await session.execute(query.order_by(KnowledgeBaseRow.name, SourceRow.name))
            return [(source_id, name, kb) for source_id, name, kb in rows]

    async def runs(self, source_id: str, *, limit: int = 20, offset: int = 0) -> tuple[Sequence[Job], int]:
        """Its synchronisations, the newest first, and how many are remembered."""
        return await self._jobs.page(kind=KIND, target=source_id, limit=limit, offset=offset)

    async def preview(self, kind_name: str, settings: Mapping[str, Any], token: str = "") -> Preview:
        """What would come from a source that is set like this; nothing is kept. Raises KvasirError."""
        kind = kind_named(kind_name)
        spec = await self._checked(kind, settings)
        if token:
            kind.check_secrets(spec, self._settings.sources)
        try:
            async with asyncio.timeout(_PREVIEW_SECONDS), self._looks:
                return await self._look(kind, spec, {"token": token} if token else {})
        except TimeoutError as error:
            raise Unavailable(tell("source_preview_slow", seconds=f"{_PREVIEW_SECONDS:g}")) from error

    async def preview_again(self, source_id: str, settings: Mapping[str, Any] | None = None) -> Preview:
        """The same for one that is kept, with its secrets, as long as the address is that for which they were given."""
        row = await self._row(source_id)
        merged = {**row.settings, **(settings or {})}
        is_same = merged.get("url") == row.settings.get("url")
        return await self.preview(row.kind, merged, self.secrets_of(row).get("token", "") if is_same else "")

    async def _look(self, kind: SourceKind, spec: Spec, secrets: Mapping[str, str]) -> Preview:
        async with kind.open(spec, secrets, self.tools()) as source:
            listing = await source.list()
            problem = ""
            if listing.items:
                try:
                    await source.read(listing.items[0], {})
                except KvasirError as error:
                    problem = str(error)
        shown = [PreviewItem(item.name or item.address, item.address) for item in listing.items[:_PREVIEW_ITEMS]]
        return Preview(shown, len(listing.items), listing.is_complete, listing.notes, problem)

    # ------------------------------------------------------------ synchronising
    async def start(self, source_id: str, *, claimed: bool = False) -> Job:
        """Queue a synchronisation; `claimed`: the caller does it. Raises Conflict where one is under way."""
        found = await self.get(source_id)
        if found.job_id:
            raise Conflict(tell("source_under_way", name=found.name))
        payload = {"target": found.id, "settings": {}, "run": "", "name": found.name, "kb": found.kb}
        return await self._jobs.add(KIND, payload, claimed=claimed)

    def tools(self) -> Tools:
        """For one visit to a source."""
        from core.sources.visit import Visit  # late, as the kinds

        settings = self._settings.sources
        return Tools(Visit(self._manners, settings), settings, self._settings.ingest.max_file_mb << 20, self._readable)

    def secrets_of(self, row: SourceRow) -> Mapping[str, str]:
        """Raises ConfigError where they cannot be decrypted."""
        found: dict[str, str] = json.loads(self._vault.decrypt(row.secrets)) if row.secrets else {}
        return found

    async def delete_documents(self, kb_id: str, document_ids: Sequence[str]) -> None:
        """From database and index."""
        if not document_ids:
            return
        async with self._db.session() as session:
            for start in range(0, len(document_ids), _PAGE):
                some = document_ids[start : start + _PAGE]
                await session.execute(update(DocumentRow).where(DocumentRow.id.in_(some)).values(status="deleting"))
            query = select(GenerationRow).where(GenerationRow.kb_id == kb_id)
            generations = [generation_of(item) for item in await session.scalars(query)]
        for start in range(0, len(document_ids), _PAGE):
            await self._knowledge.finish_deleting(generations, document_ids[start : start + _PAGE])

    async def _active(self) -> Sequence[Job]:
        return await self._jobs.active(KIND)

    async def _row(self, source_id: str) -> SourceRow:
        async with self._db.read() as session:
            row = await session.get(SourceRow, source_id)
        if row is None:
            raise NotFound(tell("no_such_source"))
        return row

    async def _checked(self, kind: SourceKind, settings: Mapping[str, Any]) -> Spec:
        spec = spec_of(kind, settings)
        await asyncio.to_thread(kind.check, spec, self._settings.sources)
        return spec

    def _sealed(self, kind: SourceKind, spec: Spec, token: str) -> str:
        if not token:
            return ""
        if "token" not in kind.secrets:
            raise UserError(tell("source_no_secret"))
        kind.check_secrets(spec, self._settings.sources)
        return self._vault.encrypt(json.dumps({"token": token}))


def _with_kb() -> Any:
    return select(SourceRow, KnowledgeBaseRow.name).join(KnowledgeBaseRow).options(defer(SourceRow.cursor))


def _info(row: SourceRow, kb: str, active: Sequence[Job]) -> SourceInfo:
    job = next((job for job in active if job.payload.get("target") == row.id), None)
    return SourceInfo(
        row.id, kb, row.name, row.kind, row.settings, bool(row.secrets), job.state if job else row.state, row.reason,
        row.documents, row.synced_at, row.created_at, job.id if job else None,
        job.progress if job else {},
    )  # fmt: skip


def _checked_name(name: str) -> str:
    name = " ".join(name.split())
    if not name or len(name) > _NAME_LIMIT or not name.isprintable() or set(name) & set("/\\"):
        raise UserError(tell("source_bad_name", most=_NAME_LIMIT))
    if not name.strip("."):
        raise UserError(tell("source_bad_name", most=_NAME_LIMIT))
    return name
