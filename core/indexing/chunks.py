"""The chunks of a document as people read and better them; what they change is kept as overrides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.db import documents
from core.db.session import Database
from core.db.tables import ChunkOverrideRow, DocumentRow, GenerationRow, KnowledgeBaseRow
from core.errors import Conflict, NotFound, UserError
from core.indexing.bulk import CURATED
from core.kb.knowledge import generation_of
from core.kb.overrides import Action, shared_start
from core.ports import KnownEmbedders, VectorStore
from core.texts import tell
from core.types import Chunk, Locator
from core.work.jobs import Job, Jobs, job_of

LONGEST: Final = 20_000
"""Characters of a chunk that a person writes, at most."""
MOST: Final = 500
"""Overrides of one document at most."""

Counter = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Override:
    """A change as its owner sees it."""

    id: str
    action: str
    original: str
    text: str
    applied: bool
    """False: its chunk was not found when the document was last indexed."""
    place: int | None
    by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ShownChunk:
    """A chunk in its place, or one that is left out of the index where it would stand."""

    number: int | None
    """None: it is disabled."""
    text: str
    headings: tuple[str, ...]
    locator: Locator
    content_hash: str
    tokens: int
    overlap: int
    """Characters at the beginning that repeat the end of the chunk before it."""
    override: Override | None
    """The change that made it what it is."""


@dataclass(frozen=True, slots=True)
class ChunkPage:
    items: Sequence[ShownChunk]
    total: int
    chunk_size: int
    """Tokens of a chunk at most, as the knowledge base says."""


class Chunks:
    """Shows and changes the chunks of documents."""

    def __init__(
        self,
        db: Database,
        store: VectorStore,
        jobs: Jobs,
        embedders: KnownEmbedders,
        counter: Callable[[str], Counter],
    ) -> None:
        """`counter` gives for the path of a vocabulary what counts the tokens of a text."""
        self._db = db
        self._store = store
        self._jobs = jobs
        self._embedders = embedders
        self._counter = counter

    # ------------------------------------------------------------ looking
    async def page(self, document_id: str, *, limit: int = 50, offset: int = 0) -> ChunkPage:
        """Chunks in order, as they are indexed now, disabled ones between them. Raises NotFound."""
        async with self._db.read() as session:
            _, base = await _document(session, document_id)
            changes = await _overrides(session, document_id)
            chunk_size = base.chunk_size
        found, vocabulary = await self._indexed(base, document_id)
        places = _placed(found, changes)
        near = places[max(0, offset - 1) : offset + limit]
        shown = await asyncio.to_thread(self._shown, near, vocabulary)
        return ChunkPage(shown[1 if offset else 0 :], len(places), chunk_size)

    async def overrides(self, document_id: str) -> Sequence[Override]:
        """All changes of a document, in the order they were made in."""
        async with self._db.read() as session:
            return await _overrides(session, document_id)

    async def _indexed(self, base: KnowledgeBaseRow, document_id: str) -> tuple[Sequence[Chunk], str]:
        """The chunks of the live index, and the vocabulary that they are counted by."""
        if base.live_generation_id is None:
            return (), ""
        async with self._db.read() as session:
            row = await session.get(GenerationRow, base.live_generation_id)
        if row is None:
            return (), ""
        generation = generation_of(row)
        embedder = await self._embedders.maker(generation.embedder) if generation.dimension else None
        return await self._store.chunks(generation, document_id), embedder.info.vocabulary if embedder else ""

    def _shown(self, places: Sequence[_Place], vocabulary: str) -> list[ShownChunk]:
        count = self._counter(vocabulary)
        before = ""
        found = []
        for chunk, change in places:
            if chunk is None and change is not None:
                text = change.original
                found.append(ShownChunk(None, text, (), Locator(), "", count(text), 0, change))
            elif chunk is not None:
                overlap = shared_start(before, chunk.text)
                where = (chunk.headings, chunk.locator, chunk.content_hash)
                found.append(ShownChunk(chunk.number, chunk.text, *where, count(chunk.text), overlap, change))
                before = chunk.text
        return found

    # ------------------------------------------------------------ changing
    async def edit(self, document_id: str, number: int, seen: str, text: str, *, by: str) -> Job:
        """Give a chunk another text; the job indexes the document again.

        `seen` is the content hash of the chunk as the person saw it. Raises Conflict where it is another one now, or
        where the document cannot be changed at present.
        """
        return await self._change(document_id, number, seen, "edit", _checked(text), by)

    async def remove(self, document_id: str, number: int, seen: str, *, for_good: bool, by: str) -> Job:
        """Leave a chunk out of the index; `for_good`: it is not shown in its place any more either.

        One that a person added is gone then. Raises as `edit`.
        """
        return await self._change(document_id, number, seen, "delete" if for_good else "disable", "", by)

    async def add(self, document_id: str, after: int | None, seen: str, text: str, *, by: str) -> Job:
        """Put a new chunk behind that of number `after`, or at the end. Raises as `edit`."""
        text = _checked(text)
        original = ""
        if after is not None:
            chunk, change = await self._seen(document_id, after, seen)
            original = _original(chunk, change) if change is None or change.action == "edit" else change.original
        row = ChunkOverrideRow(
            document_id=document_id, action="add", original=original, text=text, place=after, by=by
        )  # fmt: skip
        return await self._write(document_id, new=row)

    async def undo(self, document_id: str, override_id: str) -> Job:
        """Take a change back. Raises NotFound."""
        return await self._write(document_id, gone=override_id)

    async def _change(self, document_id: str, number: int, seen: str, action: Action, text: str, by: str) -> Job:
        chunk, change = await self._seen(document_id, number, seen)
        if change is not None and change.action == "add":
            if action != "edit":
                return await self._write(document_id, gone=change.id)
            row = ChunkOverrideRow(
                document_id=document_id, action="add", original=change.original, text=text, place=change.place, by=by,
                created_at=change.created_at,
            )  # fmt: skip
            return await self._write(document_id, new=row, gone=change.id)
        gone = change.id if change else ""
        original = _original(chunk, change)
        if action == "edit" and " ".join(text.split()) == " ".join(original.split()):
            if not gone:
                raise UserError(tell("chunk_same"))
            return await self._write(document_id, gone=gone)
        row = ChunkOverrideRow(
            document_id=document_id, action=action, original=original, text=text, place=number, by=by
        )  # fmt: skip
        return await self._write(document_id, new=row, gone=gone)

    async def _seen(self, document_id: str, number: int, seen: str) -> tuple[Chunk, Override | None]:
        """The chunk that the person saw, and the change that made it."""
        async with self._db.read() as session:
            _, base = await _document(session, document_id)
            changes = await _overrides(session, document_id)
        found, _ = await self._indexed(base, document_id)
        if number >= len(found):
            raise NotFound(tell("no_such_chunk"))
        if found[number].content_hash != seen:
            raise Conflict(tell("chunk_changed"))
        of_chunk = {chunk.number: change for chunk, change in _placed(found, changes) if chunk is not None}
        return found[number], of_chunk[number]

    async def _write(self, document_id: str, *, new: ChunkOverrideRow | None = None, gone: str = "") -> Job:
        """Change and document in one step: whatever stops us, the next worker indexes it with the change."""
        async with self._db.session() as session:
            document, base = await _document(session, document_id, lock=True)
            _check(document)
            if gone:
                row = await session.get(ChunkOverrideRow, gone)
                if row is None or row.document_id != document_id:
                    raise NotFound(tell("no_such_override"))
                await session.delete(row)
            elif await _number(session, document_id) >= MOST:
                raise UserError(tell("too_many_overrides", most=MOST))
            if new is not None:
                session.add(new)
            job = self._jobs.new_row("ingest", {"kb": base.name}, claimed=True)
            session.add(job)
            await documents.queue(session, job.id, [document.id])
        return job_of(job)


# ---------------------------------------------------------------- where each change is
_Place = tuple[Chunk | None, Override | None]
"""A chunk with the change that made it, or a disabled one's change alone."""


def _placed(chunks: Sequence[Chunk], changes: Sequence[Override]) -> list[_Place]:
    """The chunks in order with their changes, and the disabled ones where they would stand."""
    made: dict[int, Override] = {}
    absent: dict[int, list[Override]] = {}
    for change in changes:
        if change.action == "disable" and change.applied:
            absent.setdefault(min(change.place or 0, len(chunks)), []).append(change)
        elif change.action in ("edit", "add") and change.applied:
            holds = [one.number for one in chunks if one.number not in made and change.text in one.text]
            if holds:
                made[min(holds, key=lambda number: abs(number - (change.place or 0)))] = change
    places: list[_Place] = []
    for chunk in chunks:
        places += [(None, change) for change in absent.get(chunk.number, ())]
        places.append((chunk, made.get(chunk.number)))
    return places + [(None, change) for change in absent.get(len(chunks), ())]


def _original(chunk: Chunk, change: Override | None) -> str:
    """The chunk's text as it was read, before it was changed."""
    return chunk.text.replace(change.text, change.original, 1) if change else chunk.text


def _checked(text: str) -> str:
    text = text.strip()
    if not text:
        raise UserError(tell("chunk_needs_text"))
    if len(text) > LONGEST:
        raise UserError(tell("chunk_too_long", most=LONGEST))
    return text


def _check(document: DocumentRow) -> None:
    """Raises Conflict where its chunks cannot be changed at present."""
    reason = ""
    if document.source == CURATED:
        reason = "document_of_curated"
    elif document.status == "disabled":
        reason = "document_is_disabled"
    elif document.status == "failed":
        reason = "chunks_not_now"
    elif document.live_hash is None:
        reason = "chunks_not_yet"
    if reason:
        raise Conflict(tell(reason))


# ---------------------------------------------------------------- statements
async def _document(
    session: AsyncSession, document_id: str, *, lock: bool = False
) -> tuple[DocumentRow, KnowledgeBaseRow]:
    document = await session.get(DocumentRow, document_id)
    base = await session.get(KnowledgeBaseRow, document.kb_id, with_for_update=lock) if document else None
    if document is None or base is None or document.status == "deleting":
        raise NotFound(tell("no_such_document"))
    if lock:
        await session.refresh(document)
    return document, base


async def _overrides(session: AsyncSession, document_id: str) -> list[Override]:
    row = ChunkOverrideRow
    rows = await session.scalars(select(row).where(row.document_id == document_id).order_by(row.created_at, row.id))
    return [
        Override(one.id, one.action, one.original, one.text, one.applied, one.place, one.by, one.created_at)
        for one in rows
    ]


async def _number(session: AsyncSession, document_id: str) -> int:
    row = ChunkOverrideRow
    return await session.scalar(select(func.count()).select_from(row).where(row.document_id == document_id)) or 0
