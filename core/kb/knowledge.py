"""Knowledge bases and their documents: make, look at, change, delete."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, bindparam, case, delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core.answering.retrieve import LiveKb
from core.blobs import Blobs, Original
from core.db.curated import documents_changed
from core.db.direct import Statement
from core.db.session import Database
from core.db.tables import (
    DocumentRow,
    EvaluationSetRow,
    GenerationRow,
    KnowledgeBaseRow,
    ScheduleRow,
    SourceRow,
)
from core.errors import Conflict, NotFound, UserError
from core.kb.kb_settings import FIELDS, PARTS, check_sizes, checked
from core.ports import VectorStore
from core.settings import SplitterSettings
from core.texts import tell
from core.types import Chunk, Generation

_NAME = re.compile(r"[\w][\w .-]{0,98}[\w]|[\w]")
_COUNTS = ("documents", "chunks", "size", "waiting", "failed")
LASTING = KnowledgeBaseRow.expires_at.is_(None)

Parts: TypeAlias = Callable[[str], Awaitable[Sequence[str]]]
"""Gives the names there are of a kind: engine, embedder, or reranker."""

_NAMES = Statement(
    select(KnowledgeBaseRow.name, KnowledgeBaseRow.private).where(LASTING).order_by(KnowledgeBaseRow.name)
)
_NAMED = select(KnowledgeBaseRow).where(KnowledgeBaseRow.name == bindparam("kb"))
_LOCKED = _NAMED.with_for_update()
_LIVE = Statement(
    select(
        GenerationRow.id, GenerationRow.kb_id, GenerationRow.fingerprint, GenerationRow.dimension,
        GenerationRow.profile, GenerationRow.store,
    )
    .select_from(KnowledgeBaseRow)
    .outerjoin(GenerationRow, GenerationRow.id == KnowledgeBaseRow.live_generation_id)
    .where(KnowledgeBaseRow.name == bindparam("kb"))
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KnowledgeBase:
    id: str
    name: str
    description: str
    private: bool
    chunk_size: int
    chunk_overlap: int
    title_enhance: bool
    top_k: int | None
    mode: str | None
    """Of search; this and what follows: None stands for what the settings say."""
    dense_weight: float | None
    min_evidence: float | None
    reranker: str | None
    engine: str | None
    fallbacks: Sequence[str] | None
    """Engines to be tried in turn where that one is not to be had."""
    sampling: Sequence[str] | None
    """The answer preset (`core/answering/sampling.py`); None: none."""
    instructions: str | None
    wanted_embedder: str | None
    """Of its next index; empty: none, keywords alone."""
    max_documents: int | None
    max_mb: int | None
    documents: int
    """Those that answers can come from."""
    chunks: int
    size: int
    """Bytes of all originals."""
    waiting: int
    """Documents on their way in."""
    failed: int
    vectors: bool
    """False: keyword search only."""
    embedder: str
    """Of its live index."""
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    """Set where it holds what was sent in one conversation."""


@dataclass(frozen=True, slots=True)
class KbName:
    name: str
    private: bool


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    id: str
    kb: str
    name: str
    title: str
    media_type: str
    size: int
    status: str
    stage: str
    reason: str | None
    chunks: int
    source: str
    created_at: datetime
    updated_at: datetime


def checked_kb_name(name: str) -> str:
    """The name in its normal form. Raises UserError where it cannot be one."""
    name = unicodedata.normalize("NFC", name).strip()
    if not _NAME.fullmatch(name) or ".." in name:
        raise UserError(tell("bad_kb_name"))
    return name


def generation_of(row: GenerationRow) -> Generation:
    embedder = str(row.profile.get("embedder", ""))
    return Generation(row.id, row.kb_id, row.fingerprint, row.dimension, embedder, row.store or "")


class Knowledge:
    """What there is to answer from."""

    def __init__(
        self,
        db: Database,
        store: VectorStore,
        blobs: Blobs,
        defaults: SplitterSettings,
        parts: Parts | None = None,
    ) -> None:
        """`parts` gives the names of the engines, embedders or rerankers there are; without it, any will do."""
        self._db = db
        self._store = store
        self._blobs = blobs
        self._defaults = defaults
        self._parts = parts

    # ------------------------------------------------------------ knowledge bases
    async def create(self, name: str, **settings: Any) -> KnowledgeBase:
        """A new, empty knowledge base; `settings` as in `change`, and None stands for the default.

        Raises UserError for a bad name or setting, Conflict where the name is taken.
        """
        name = checked_kb_name(name)
        defaults = {"description": "", "private": False, **_splitting(self._defaults)}
        given = await self._checked({key: value for key, value in settings.items() if value is not None})
        row = KnowledgeBaseRow(name=name, **{**defaults, **given})
        check_sizes(row.chunk_size, row.chunk_overlap)
        try:
            async with self._db.session() as session:
                session.add(row)
        except IntegrityError as error:
            raise Conflict(tell("kb_exists", name=name)) from error
        return await self.get(name)

    async def list(self, *, temporary: bool = False) -> Sequence[KnowledgeBase]:
        """All by name; `temporary`: also those that hold the files of one conversation."""
        async with self._db.read() as session:
            rows = (await session.execute(_with_counts(named=False, temporary=temporary))).all()
        return [_knowledge_base(*row) for row in rows]

    async def names(self) -> Sequence[KbName]:
        """What can be asked by name, without the counting that `list` does."""
        (found,) = await self._db.fetch(_NAMES())
        return [KbName(name, private) for name, private in found.rows]

    async def get(self, name: str, *, temporary: bool = False) -> KnowledgeBase:
        """Raises NotFound with the names there are; so for a temporary one that is not asked for."""
        async with self._db.read() as session:
            row = (await session.execute(_with_counts(named=True, temporary=temporary), {"name": name})).one_or_none()
            if row is None:
                raise await _no_such_kb(session, name)
        return _knowledge_base(*row)

    async def get_or_create(self, name: str) -> KnowledgeBase:
        try:
            return await self.get(checked_kb_name(name))
        except NotFound:
            pass
        try:
            return await self.create(name)
        except Conflict:  # another process was faster
            return await self.get(name)

    async def change(self, name: str, **changes: Any) -> KnowledgeBase:
        """Change what `changes` names (`kb_settings.FIELDS`); what shapes an index holds from the next re-index on.

        Raises UserError, and then nothing is changed.
        """
        checked = await self._checked(changes)
        async with self._db.session() as session:
            row = await kb_row(session, name)
            check_sizes(checked.get("chunk_size", row.chunk_size), checked.get("chunk_overlap", row.chunk_overlap))
            for key, value in checked.items():
                setattr(row, key, value)
        return await self.get(name)

    async def _checked(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        found = checked(settings)
        for field, kind in PARTS.items():
            name = found.get(field)
            for one in (name, *(found.get("fallbacks") or ())) if field == "engine" else (name,):
                if one and self._parts is not None and one not in (there := await self._parts(kind)):
                    raise UserError(tell("no_such_part", name=one, kind=kind, there=", ".join(there) or "-"))
        return found

    async def delete(self, name: str) -> None:
        """Remove it with its documents and its index; their bytes go with the next clean-up."""
        async with self._db.session() as session:
            generations = await delete_rows(session, await kb_row(session, name))
        for generation in generations:
            await self._store.drop_generation(generation)

    async def live(self, names: Sequence[str]) -> Sequence[LiveKb]:
        """The live index of each named knowledge base; those without one are left out. Raises NotFound."""
        wanted = list(dict.fromkeys(names))
        if not wanted:
            return []
        live = []
        for name, found in zip(wanted, await self._db.fetch(*(_LIVE(kb=name) for name in wanted)), strict=True):
            if found.first is None:
                async with self._db.read() as session:
                    raise await _no_such_kb(session, name)
            key, kb_id, fingerprint, dimension, profile, store = found.first
            if key is not None:
                embedder = str(profile.get("embedder", ""))
                live.append(LiveKb(name, Generation(key, kb_id, fingerprint, dimension, embedder, store or "")))
        return live

    async def part_names(self, kind: str) -> Sequence[str]:
        """What can be named as `engine`, `embedder` or `reranker` of a knowledge base."""
        return await self._parts(kind) if self._parts is not None else ()

    # ------------------------------------------------------------ documents
    async def documents(
        self, kb: str, *, status: str | None = None, text: str | None = None, limit: int = 100, offset: int = 0
    ) -> tuple[Sequence[DocumentInfo], int]:
        """A page of documents by name, and how many there are in all."""
        async with self._db.read() as session:
            row = await kb_row(session, kb)
            where: tuple[ColumnElement[bool], ...] = (DocumentRow.kb_id == row.id, DocumentRow.status != "deleting")
            if status:
                where += (DocumentRow.status == status,)
            if text:
                where += (DocumentRow.name.icontains(text, autoescape=True),)
            total = await session.scalar(select(func.count()).select_from(DocumentRow).where(*where)) or 0
            rows = await session.scalars(
                select(DocumentRow).where(*where).order_by(DocumentRow.name).limit(limit).offset(offset)
            )
            return [document_info(item, kb) for item in rows], total

    async def document(self, document_id: str) -> DocumentInfo:
        async with self._db.read() as session:
            row, kb = await _document_row(session, document_id)
            return document_info(row, kb.name)

    async def find_document(self, kb: str, name: str) -> DocumentInfo:
        async with self._db.read() as session:
            row = await kb_row(session, kb)
            found = await session.scalar(
                select(DocumentRow).where(DocumentRow.kb_id == row.id, DocumentRow.name == name)
            )
            if found is None or found.status == "deleting":
                raise NotFound(tell("no_document_named", kb=kb, name=name))
            return document_info(found, kb)

    async def chunks(self, document_id: str) -> Sequence[Chunk]:
        """The document as it is indexed now, in order; empty where it is not (yet)."""
        async with self._db.read() as session:
            _, kb = await _document_row(session, document_id)
            generation = await session.get(GenerationRow, kb.live_generation_id) if kb.live_generation_id else None
        return await self._store.chunks(generation_of(generation), document_id) if generation else ()

    async def original(self, document_id: str) -> Original:
        """Its bytes as they were given. Raises NotFound."""
        async with self._db.read() as session:
            row, _ = await _document_row(session, document_id)
        found = await asyncio.to_thread(self._blobs.get, row.content_hash)
        if found is None:
            raise NotFound(tell("no_original"))
        return found

    async def delete_document(self, document_id: str) -> None:
        async with self._db.session() as session:
            row, kb = await _document_row(session, document_id)
            row.status = "deleting"
            generations = [
                generation_of(item)
                for item in await session.scalars(select(GenerationRow).where(GenerationRow.kb_id == kb.id))
            ]
        await self.finish_deleting(generations, [document_id])

    async def finish_deleting(self, generations: Sequence[Generation], document_ids: Sequence[str]) -> None:
        """The second half of a deletion, also after a crash in between."""
        for generation in generations:
            await self._store.delete(generation, document_ids)
        async with self._db.session() as session:
            await documents_changed(session, document_ids, gone=True)
            await session.execute(
                delete(DocumentRow).where(DocumentRow.id.in_(document_ids), DocumentRow.status == "deleting")
            )


# ---------------------------------------------------------------- shared with answers
async def no_such_kb(db: Database, name: str) -> NotFound:
    """To be raised: it names those there are."""
    async with db.read() as session:
        return await _no_such_kb(session, name)


# ---------------------------------------------------------------- shared with ingestion
async def kb_row(session: AsyncSession, name: str, *, lock: bool = False) -> KnowledgeBaseRow:
    """Raises NotFound; with `lock`, others that lock it wait until this session ends."""
    row = await session.scalar(_LOCKED if lock else _NAMED, {"kb": name})
    if row is None:
        raise await _no_such_kb(session, name)
    return row


def document_info(row: DocumentRow, kb: str) -> DocumentInfo:
    return DocumentInfo(
        id=row.id,
        kb=kb,
        name=row.name,
        title=row.title,
        media_type=row.media_type,
        size=row.size,
        status=row.status,
        stage=row.stage,
        reason=row.reason,
        chunks=row.chunks,
        source=row.source,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


async def _document_row(session: AsyncSession, document_id: str) -> tuple[DocumentRow, KnowledgeBaseRow]:
    row = await session.get(DocumentRow, document_id)
    kb = await session.get(KnowledgeBaseRow, row.kb_id) if row else None
    if row is None or kb is None or row.status == "deleting":
        raise NotFound(tell("no_such_document"))
    return row, kb


async def delete_rows(session: AsyncSession, row: KnowledgeBaseRow) -> Sequence[Generation]:
    """Delete the rows of a knowledge base; gives its indexes, which the store is to drop."""
    generations = [
        generation_of(item)
        for item in await session.scalars(select(GenerationRow).where(GenerationRow.kb_id == row.id))
    ]
    targets = [select(table.id).where(table.kb_id == row.id) for table in (SourceRow, EvaluationSetRow)]
    await session.execute(delete(ScheduleRow).where(or_(*(ScheduleRow.target.in_(ids) for ids in targets))))
    await session.execute(delete(DocumentRow).where(DocumentRow.kb_id == row.id))
    await session.execute(delete(GenerationRow).where(GenerationRow.kb_id == row.id))
    await session.delete(row)
    return generations


async def _no_such_kb(session: AsyncSession, name: str) -> NotFound:
    query = select(KnowledgeBaseRow.name).where(LASTING).order_by(KnowledgeBaseRow.name).limit(20)
    names = list(await session.scalars(query))
    return NotFound(tell("no_kb_of", name=name, there=", ".join(names)) if names else tell("no_kb_yet"))


def _splitting(defaults: SplitterSettings) -> dict[str, Any]:
    return {key: getattr(defaults, key) for key in ("chunk_size", "chunk_overlap", "title_enhance")}


@cache
def _with_counts(*, named: bool, temporary: bool) -> Any:
    """Of all by name, or of the one of the `name` that is given to it; to build it takes longer than to run it."""
    has_name = KnowledgeBaseRow.name == bindparam("name")
    live = DocumentRow.live_hash.is_not(None)
    counts = (
        select(
            DocumentRow.kb_id.label("kb_id"),
            func.sum(case((live, 1), else_=0)).label("documents"),
            func.sum(case((live, DocumentRow.chunks), else_=0)).label("chunks"),
            func.sum(DocumentRow.size).label("size"),
            func.sum(case((DocumentRow.status.in_(("queued", "working")), 1), else_=0)).label("waiting"),
            func.sum(case((DocumentRow.status == "failed", 1), else_=0)).label("failed"),
        )
        .where(DocumentRow.status != "deleting")
        .group_by(DocumentRow.kb_id)
    )
    if named:
        counts = counts.where(DocumentRow.kb_id == select(KnowledgeBaseRow.id).where(has_name).scalar_subquery())
    counted = counts.subquery()
    columns = [counted.c[field] for field in _COUNTS]
    query = (
        select(KnowledgeBaseRow, GenerationRow, *columns)
        .outerjoin(counted, counted.c.kb_id == KnowledgeBaseRow.id)
        .outerjoin(GenerationRow, GenerationRow.id == KnowledgeBaseRow.live_generation_id)
    )
    query = query.where(has_name) if named else query.order_by(KnowledgeBaseRow.name)
    return query if temporary else query.where(LASTING)


def _knowledge_base(row: KnowledgeBaseRow, generation: GenerationRow | None, *counts: int | None) -> KnowledgeBase:
    counted: dict[str, Any] = {name: int(count or 0) for name, count in zip(_COUNTS, counts, strict=True)}
    return KnowledgeBase(
        id=row.id,
        name=row.name,
        **{field: getattr(row, field) for field in FIELDS if field != "embedder"},
        **counted,
        wanted_embedder=row.embedder,
        vectors=bool(generation and generation.dimension),
        embedder=generation.embedder if generation else "",
        created_at=row.created_at,
        updated_at=row.updated_at,
        expires_at=row.expires_at,
    )
