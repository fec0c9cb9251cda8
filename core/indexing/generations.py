"""Indexes of a knowledge base beside the live one: built, compared, switched to, and kept for a way back.

One waits to be switched to at most, and one former is kept. Neither follows what is brought in meanwhile; what they
lack is read before a switch, so that nothing is lost by it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import String, cast, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.session import Database
from core.db.tables import DocumentRow, EvaluationRunRow, EvaluationSetRow, GenerationRow, KnowledgeBaseRow, now
from core.errors import Conflict, NotFound
from core.indexing.indexes import Indexes
from core.kb.knowledge import generation_of, kb_row
from core.ports import VectorStore
from core.texts import tell
from core.types import Generation

KEPT: Final = timedelta(days=7)
"""How long a former index is kept."""
_LISTED: Final = ("live", "ready", "building", "former")
_SWITCHABLE: Final = ("ready", "former")
_READ_AT_ONCE: Final = 16
_NAMES: Final = 5
_MOST_FAILED: Final = 200

OnDocuments = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Figures:
    """What an index holds."""

    documents: int
    chunks: int
    words: int
    """Search words, of all chunks together."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What an evaluation set said of an index."""

    set_id: str
    name: str
    figures: Mapping[str, float]
    """Those of `kvasir eval`."""
    at: datetime


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a knowledge base."""

    id: str
    state: str
    """live, ready, building, or former."""
    embedder: str
    """Its name, for people; empty: keywords alone."""
    store: str
    """Kind of the store that it is in."""
    dimension: int
    chunk_size: int
    chunk_overlap: int
    title_enhance: bool
    documents: int
    chunks: int
    counted: Figures | None
    """As they were when it was complete; None: never counted."""
    live_then: Figures | None
    """The same of the one that was live then."""
    seconds: float | None
    """How long it took to build."""
    failed: Sequence[tuple[str, str]]
    """Documents that it could not read, each with the reason."""
    behind: int
    """Documents of the live index that it lacks or has in a former version; they are read before a switch."""
    created_at: datetime
    switched_at: datetime | None
    kept_until: datetime | None
    """Of a former one."""
    measured: Sequence[Measured] = ()
    """The last figures of each evaluation set."""


class Generations:
    """Builds indexes beside the live ones, and switches."""

    def __init__(self, db: Database, store: VectorStore, indexes: Indexes) -> None:
        self._db = db
        self._store = store
        self._indexes = indexes

    async def list(self, kb: str) -> Sequence[Index]:
        """The live one, then the newest first. Raises NotFound."""
        async with self._db.read() as session:
            base = await kb_row(session, kb)
            rows = list(
                await session.scalars(
                    select(GenerationRow).where(GenerationRow.kb_id == base.id, GenerationRow.state.in_(_LISTED))
                )
            )
            measured = await _measured(session, base.id, [row.id for row in rows])
        rows.sort(key=lambda row: row.created_at, reverse=True)
        rows.sort(key=lambda row: _LISTED.index(row.state))
        contents = await self._indexes.contents(kb) if any(row.state in _SWITCHABLE for row in rows) else {}
        return [await self._index(row, measured.get(row.id, ()), contents) for row in rows]

    async def states(self) -> Mapping[str, frozenset[str]]:
        """Which states the indexes of each knowledge base have, by its id."""
        found: dict[str, set[str]] = {}
        async with self._db.read() as session:
            query = select(GenerationRow.kb_id, GenerationRow.state).where(GenerationRow.state.in_(_LISTED)).distinct()
            for kb_id, state in await session.execute(query):
                found.setdefault(kb_id, set()).add(state)
        return {kb_id: frozenset(states) for kb_id, states in found.items()}

    async def _index(self, row: GenerationRow, measured: Sequence[Measured], contents: Mapping[str, str]) -> Index:
        held = await self._store.documents(generation_of(row))
        figures = dict(row.figures)
        return Index(
            id=row.id,
            state=row.state,
            embedder=row.embedder,
            store=row.store or self._indexes.home or "",
            dimension=row.dimension,
            chunk_size=int(row.profile.get("chunk_size", 0)),
            chunk_overlap=int(row.profile.get("chunk_overlap", 0)),
            title_enhance=bool(row.profile.get("title_enhance", False)),
            documents=len(held),
            chunks=sum(chunks for _, _, chunks in held),
            counted=_figures(figures.get("counted")),
            live_then=_figures(figures.get("live")),
            seconds=figures.get("seconds"),
            failed=[(str(name), str(reason)) for name, reason in figures.get("failed", ())],
            behind=_behind(held, contents) if row.state in _SWITCHABLE else 0,
            created_at=row.created_at,
            switched_at=row.switched_at,
            kept_until=row.switched_at + KEPT if row.state == "former" and row.switched_at else None,
            measured=measured,
        )

    async def find(self, kb: str, generation_id: str) -> Generation:
        """One that can be searched, e.g. to be measured. Raises NotFound."""
        return generation_of(await self._row(kb, generation_id))

    async def waiting(self, kb: str) -> str:
        """The id of the one that waits to be switched to. Raises NotFound."""
        return await self._only(kb, "ready", "no_ready_index")

    async def former(self, kb: str) -> str:
        """The id of the one that was live before. Raises NotFound."""
        return await self._only(kb, "former", "no_former_index")

    async def _only(self, kb: str, state: str, absent: str) -> str:
        async with self._db.read() as session:
            base = await kb_row(session, kb)
            found = await session.scalar(
                select(GenerationRow.id)
                .where(GenerationRow.kb_id == base.id, GenerationRow.state == state)
                .order_by(GenerationRow.created_at.desc())
                .limit(1)
            )
        if found is None:
            raise NotFound(tell(absent, kb=kb))
        return found

    # ------------------------------------------------------------ building
    async def build(self, kb: str, on_documents: OnDocuments | None = None) -> str:
        """Build an index beside the live one as the settings are now, until it waits to be switched to; gives its id.

        Goes on where an earlier one was stopped. What cannot be read any more is left out and told in its figures.
        """
        started = time.monotonic()
        generation = await self._indexes.begin(kb, beside=True)
        unreadable: dict[str, str] = {}
        await self._indexes.bring_level(kb, generation.id, unreadable, on_documents)
        names = await self._names(kb, unreadable)
        figures: dict[str, Any] = {
            "counted": await self._count(generation),
            "failed": sorted([names.get(key, key), reason] for key, reason in unreadable.items())[:_MOST_FAILED],
            "seconds": round(time.monotonic() - started, 1),
        }
        live = await self._live(kb)
        if live is not None:
            figures["live"] = await self._count(live)
        async with self._db.session() as session:
            changed = await session.execute(
                update(GenerationRow)
                .where(GenerationRow.id == generation.id, GenerationRow.state.in_(("building", "ready")))
                .values(state="ready", figures=figures)
            )
        if not getattr(changed, "rowcount", 0):
            raise NotFound(tell("no_such_index"))
        return generation.id

    async def _count(self, generation: Generation) -> dict[str, int]:
        places = asyncio.Semaphore(_READ_AT_ONCE)

        async def words(document_id: str) -> int:
            async with places:
                chunks = await self._store.chunks(generation, document_id)
            return sum(len(chunk.tokens.split()) for chunk in chunks)

        held = await self._store.documents(generation)
        count = 0
        for start in range(0, len(held), 512):
            count += sum(await asyncio.gather(*(words(key) for key, _, _ in held[start : start + 512])))
        return {"documents": len(held), "chunks": sum(chunks for _, _, chunks in held), "words": count}

    async def _live(self, kb: str) -> Generation | None:
        async with self._db.read() as session:
            base = await kb_row(session, kb)
            row = await session.get(GenerationRow, base.live_generation_id) if base.live_generation_id else None
            return generation_of(row) if row else None

    async def _names(self, kb: str, ids: Mapping[str, str]) -> dict[str, str]:
        """The names of documents, by id."""
        if not ids:
            return {}
        async with self._db.read() as session:
            base = await kb_row(session, kb)
            rows = await session.execute(select(DocumentRow.id, DocumentRow.name).where(DocumentRow.kb_id == base.id))
            return {key: name for key, name in rows if key in ids}

    # ------------------------------------------------------------ switching
    async def is_level(self, kb: str, generation_id: str) -> bool:
        """Whether a switch to it is but a moment. Raises NotFound."""
        held = await self._store.documents(await self.find(kb, generation_id))
        return not _behind(held, await self._indexes.contents(kb))

    async def switch(
        self, kb: str, generation_id: str, *, give_up: bool = False, on_documents: OnDocuments | None = None
    ) -> None:
        """Answer from a complete or former index from now on, and keep the one before for a way back.

        What it lacks is read first. Raises NotFound; Conflict where it is neither, and where documents that it cannot
        read would be lost: `give_up` says that they may count as failed.
        """
        row = await self._row(kb, generation_id)
        if row.state not in _SWITCHABLE:
            raise Conflict(tell("index_not_waiting"))
        unreadable: dict[str, str] = {}
        while True:
            generation = await self._indexes.bring_level(kb, generation_id, unreadable, on_documents)
            if unreadable and not give_up:
                names = ", ".join(sorted((await self._names(kb, unreadable)).values())[:_NAMES])
                raise Conflict(tell("switch_would_lose", count=len(unreadable), kb=kb, names=names))
            if await self._indexes.go_live(kb, generation, unreadable, keep_former=True, give_up=give_up):
                return

    async def discard(self, kb: str, generation_id: str) -> None:
        """Give up one that is not live. Raises NotFound, and Conflict for the live one."""
        async with self._db.session() as session:
            base = await kb_row(session, kb, lock=True)
            row = await session.get(GenerationRow, generation_id)
            if row is None or row.kb_id != base.id or row.state == "retired":
                raise NotFound(tell("no_such_index"))
            if generation_id == base.live_generation_id:
                raise Conflict(tell("index_is_live"))
            row.state = "retired"
        await self._indexes.drop_retired()

    async def drop_old(self) -> int:
        """Give up former indexes that were kept long enough; gives the number."""
        async with self._db.session() as session:
            live = select(KnowledgeBaseRow.live_generation_id).where(KnowledgeBaseRow.live_generation_id.is_not(None))
            changed = await session.execute(
                update(GenerationRow)
                .where(
                    GenerationRow.state == "former",
                    GenerationRow.switched_at < now() - KEPT,
                    GenerationRow.id.not_in(live),
                )
                .values(state="retired")
            )
        count: int = getattr(changed, "rowcount", 0)
        if count:
            await self._indexes.drop_retired()
        return count

    async def _row(self, kb: str, generation_id: str) -> GenerationRow:
        async with self._db.read() as session:
            base = await kb_row(session, kb)
            row = await session.get(GenerationRow, generation_id)
            if row is None or row.kb_id != base.id or row.state not in _LISTED:
                raise NotFound(tell("no_such_index"))
            return row


def _behind(held: Sequence[tuple[str, str, int]], contents: Mapping[str, str]) -> int:
    """How many documents an index that holds these lacks, or has otherwise."""
    indexed = {document_id: content for document_id, content, _ in held}
    return sum(indexed.get(document_id) != content for document_id, content in contents.items())


async def _measured(session: AsyncSession, kb_id: str, ids: Sequence[str]) -> Mapping[str, Sequence[Measured]]:
    """The newest complete run of each evaluation set with each of these indexes."""
    newest = (
        select(
            EvaluationRunRow.set_id, EvaluationRunRow.generation_id, func.max(EvaluationRunRow.created_at).label("at")
        )
        .join(EvaluationSetRow, EvaluationSetRow.id == EvaluationRunRow.set_id)
        .where(
            EvaluationSetRow.kb_id == kb_id,
            EvaluationRunRow.generation_id.in_(ids),
            cast(EvaluationRunRow.results, String) != "{}",
        )
        .group_by(EvaluationRunRow.set_id, EvaluationRunRow.generation_id)
        .subquery()
    )
    rows = await session.execute(
        select(EvaluationRunRow, EvaluationSetRow.name)
        .join(
            newest,
            (newest.c.set_id == EvaluationRunRow.set_id)
            & (newest.c.generation_id == EvaluationRunRow.generation_id)
            & (newest.c.at == EvaluationRunRow.created_at),
        )
        .join(EvaluationSetRow, EvaluationSetRow.id == EvaluationRunRow.set_id)
        .order_by(EvaluationSetRow.name)
    )
    found: dict[str, list[Measured]] = {}
    for run, name in rows:
        found.setdefault(run.generation_id or "", []).append(
            Measured(run.set_id, name, dict(run.results), run.created_at)
        )
    return found


def _figures(found: Mapping[str, int] | None) -> Figures | None:
    return Figures(found["documents"], found["chunks"], found["words"]) if found else None
