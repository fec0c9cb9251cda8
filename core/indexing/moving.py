"""Moves the live index of a knowledge base into another store, as it is: nothing is read or embedded anew.

A copy is made beside the live index, which answers meanwhile, is compared with it, and takes its place in one step.
Whatever is stopped goes on with the next try: what is copied already is seen in the store itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
from sqlalchemy import bindparam, select, update

from core.db.direct import Statement
from core.db.session import Database
from core.db.tables import EvaluationRunRow, GenerationRow, JobRow, KnowledgeBaseRow, new_id, now
from core.errors import Conflict, KvasirError
from core.indexing.indexes import Indexes, contents_of
from core.kb.knowledge import generation_of, kb_row
from core.ports import VectorStore
from core.texts import tell
from core.types import Chunk, Generation, IndexedDocument, SearchResult, Vector

_CHUNKS_AT_ONCE: Final = 500
_DOCUMENTS_AT_ONCE: Final = 64
_SAMPLES: Final = 8
_TRIES: Final = 3
"""A difference may be a change that is just being made; one that is there so often is one."""
_FOUND: Final = 10
_PAUSE: Final = 0.5
_REST_SECONDS: Final = 60.0
_GRACE_SECONDS: Final = 2.0
"""Questions that have asked just before where the index is are still searched in the former one."""

_BEGUN_KEPT: Final = timedelta(days=1)
"""How long a copy that nobody goes on with waits for somebody who does."""

OnDocuments = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of a knowledge base that was to be moved."""

    kb: str
    store: str
    documents: int
    chunks: int
    is_moved: bool
    """False: it was there already, or has no index yet (then `store` is empty)."""


class Moving:
    """Moves knowledge bases from store to store."""

    def __init__(self, db: Database, store: VectorStore, indexes: Indexes, home: str) -> None:
        """`store` serves all kinds; `home` is the kind of those indexes that name none."""
        self._db = db
        self._store = store
        self._indexes = indexes
        self._home = home

    async def move(self, kb: str, kind: str, on_documents: OnDocuments | None = None) -> Moved:
        """Copy, compare, switch; the index in the former store is dropped then.

        Raises NotFound; Conflict where its documents do not come to rest; KvasirError where the copy differs, and then
        it answers as before; StoreUnavailable.
        """
        last, differing = time.monotonic(), 0
        while True:
            pair = await self._begin(kb, kind)
            if not isinstance(pair, tuple):
                return Moved(kb, kind if pair else "", 0, 0, False)
            source, target = pair
            await self._store.ensure_generation(target)
            if await self._copy(source, target, on_documents):
                last = time.monotonic()
            differs = await self._difference(source, target)
            if not differs and await self._switch(kb, source, target):
                break
            differing = differing + 1 if differs else 0
            if differing == _TRIES:
                await self._give_up(target)
                raise KvasirError(tell("move_differs", kb=kb, store=kind, what=differs))
            if time.monotonic() - last > _REST_SECONDS:
                raise Conflict(tell("move_restless", kb=kb))
            await asyncio.sleep(_PAUSE)
        count = await self._store.count(target)
        await asyncio.sleep(_GRACE_SECONDS)
        await self._indexes.drop_retired()
        return Moved(kb, kind, count.documents, count.chunks, True)

    async def store_of(self, kb: str) -> str:
        """The kind of the store that its live index is in; empty where it has none. Raises NotFound."""
        async with self._db.read() as session:
            base = await kb_row(session, kb)
            live = await session.get(GenerationRow, base.live_generation_id) if base.live_generation_id else None
            return (live.store or self._home) if live else ""

    async def kinds(self) -> frozenset[str]:
        """The stores that indexes are in."""
        async with self._db.read() as session:
            return frozenset({store or self._home for store in await session.scalars(select(GenerationRow.store))})

    async def abandon(self, kb: str) -> None:
        """Give up a copy that was begun; where it answers from stays as it is. Raises NotFound."""
        async with self._db.session() as session:
            base = await kb_row(session, kb)
            begun = update(GenerationRow).where(GenerationRow.kb_id == base.id, GenerationRow.state == "moving")
            await session.execute(begun.values(state="retired"))
        await self._indexes.drop_retired()

    async def drop_abandoned(self) -> int:
        """Give up copies whose job was cancelled, and those that nobody goes on with for a day; gives how many."""
        names = select(KnowledgeBaseRow.id, KnowledgeBaseRow.name, GenerationRow.created_at).join(
            GenerationRow, GenerationRow.kb_id == KnowledgeBaseRow.id
        )
        dropped = 0
        async with self._db.read() as session:
            begun = list(await session.execute(names.where(GenerationRow.state == "moving")))
            if not begun:
                return 0
            latest = {
                str(payload.get("kb")): state
                for payload, state in await session.execute(
                    select(JobRow.payload, JobRow.state).where(JobRow.kind == "move").order_by(JobRow.created_at)
                )
            }
        for _, name, created_at in begun:
            state = latest.get(name)
            if state == "cancelled" or (state not in ("queued", "running") and created_at < now() - _BEGUN_KEPT):
                await self.abandon(name)
                dropped += 1
        return dropped

    async def _begin(self, kb: str, kind: str) -> tuple[Generation, Generation] | bool:
        """The live index and the one it is copied into, also one that was begun before; whether it is there already.

        Others that were begun, e.g. before it was built anew, are given up.
        """
        async with self._db.session() as session:
            base = await kb_row(session, kb, lock=True)
            live = await session.get(GenerationRow, base.live_generation_id) if base.live_generation_id else None
            begun = list(await session.scalars(select(GenerationRow).filter_by(kb_id=base.id, state="moving")))
            is_there = live is not None and (live.store or self._home) == kind
            wanted = live.fingerprint if live and not is_there else ""
            row = next((one for one in begun if (one.store, one.fingerprint) == (kind, wanted)), None)
            for other in begun:
                if other is not row:
                    other.state = "retired"
            if live is None or is_there:
                return is_there
            if row is None:
                row = _copied(live, kind)
                session.add(row)
            return generation_of(live), generation_of(row)

    async def _copy(self, source: Generation, target: Generation, on_documents: OnDocuments | None) -> int:
        """Let the target hold what the source holds; gives how many documents were copied."""
        wanted = _held(await self._store.documents(source))
        held = _held(await self._store.documents(target))
        if surplus := sorted(held.keys() - wanted.keys()):
            await self._store.delete(target, surplus)
        missing = [(key, found[1]) for key, found in wanted.items() if held.get(key) != found]
        done = len(wanted) - len(missing)
        for group in groups(missing):
            if on_documents:
                on_documents(done, len(wanted))
            documents = await self._store.read(source, group)
            await self._store.put(target, documents)
            done += len(group)
        if on_documents:
            on_documents(done, len(wanted))
        return len(missing)

    async def _difference(self, source: Generation, target: Generation) -> str:
        """What is not the same in both, also where one of them is just being changed; empty: nothing."""
        if await self._store.count(source) != await self._store.count(target):
            return tell("move_count")
        keys = [key for key, _, chunks in await self._store.documents(source) if chunks]
        sample = keys[:: max(1, len(keys) // _SAMPLES)][:_SAMPLES]
        for key in sample:
            ours, theirs = await self._store.read(source, [key]), await self._store.read(target, [key])
            if not ours:  # it has gone meanwhile, which the caller sees
                continue
            if not theirs or not _same(ours[0], theirs[0]):
                return tell("move_sample", name=ours[0].name)
            for vector, tokens in _questions(ours[0]):
                found = [
                    await self._store.search(one, vector=vector, tokens=tokens, limit=_FOUND)
                    for one in (source, target)
                ]
                if not _agree(*found):
                    return tell("move_sample", name=ours[0].name)
        return ""

    async def _give_up(self, target: Generation) -> None:
        async with self._db.session() as session:
            ours = update(GenerationRow).where(GenerationRow.id == target.id, GenerationRow.state == "moving")
            await session.execute(ours.values(state="retired"))
        await self._indexes.drop_retired()

    async def _switch(self, kb: str, source: Generation, target: Generation) -> bool:
        """Let it answer from the copy; False where documents came in or went in between, or it has another index."""
        wanted = await self._indexes.contents(kb)
        held = _held(await self._store.documents(target))
        if surplus := sorted(held.keys() - wanted.keys()):  # they are just being brought in, and come in again
            await self._store.delete(target, surplus)
        contents = {key: content for key, (content, _) in held.items() if key in wanted}
        async with self._db.session() as session:
            base = await session.scalar(
                select(KnowledgeBaseRow).where(KnowledgeBaseRow.id == source.kb_id).with_for_update()
            )
            rows = await session.get(GenerationRow, source.id), await session.get(GenerationRow, target.id)
            live, copy = rows
            if base is None or live is None or copy is None or copy.state != "moving":
                return False
            if base.live_generation_id != source.id or await contents_of(session, base.id) != contents:
                return False
            live.state, copy.state = "retired", "live"
            copy.switched_at = now()
            base.live_generation_id = target.id
            measured = update(EvaluationRunRow).where(EvaluationRunRow.generation_id == source.id)
            await session.execute(measured.values(generation_id=target.id))
        return True


_SETTLE: Final = Statement(update(GenerationRow).where(GenerationRow.store.is_(None)).values(store=bindparam("home")))
_LIVE = select(KnowledgeBaseRow.live_generation_id).where(KnowledgeBaseRow.live_generation_id.is_not(None))
_IN_USE: Final = Statement(select(GenerationRow.store).where(GenerationRow.id.in_(_LIVE)).distinct())


async def settle(db: Database, home: str) -> Sequence[str]:
    """Indexes that name no store are in that of the settings, also when these change later; gives the stores in use."""
    _, found = await db.run(_SETTLE(home=home), _IN_USE())
    return sorted(kind for (kind,) in found.rows if kind)


def _copied(live: GenerationRow, kind: str) -> GenerationRow:
    return GenerationRow(
        id=new_id(),
        kb_id=live.kb_id,
        fingerprint=live.fingerprint,
        dimension=live.dimension,
        embedder=live.embedder,
        profile=dict(live.profile),
        figures=dict(live.figures),
        state="moving",
        store=kind,
    )


def _held(documents: Sequence[tuple[str, str, int]]) -> Mapping[str, tuple[str, int]]:
    return {key: (content, chunks) for key, content, chunks in documents}


def groups(documents: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    """Documents, each with its number of chunks, as many at a time as one likes to hold in memory."""
    group: list[str] = []
    size = 0
    for key, chunks in documents:
        if group and (len(group) == _DOCUMENTS_AT_ONCE or size + chunks > _CHUNKS_AT_ONCE):
            yield group
            group, size = [], 0
        group.append(key)
        size += chunks
    if group:
        yield group


def _same(one: IndexedDocument, other: IndexedDocument) -> bool:
    """But for the exactness of their vectors."""
    if (one.name, one.title, one.content_hash, one.metadata) != (
        other.name,
        other.title,
        other.content_hash,
        other.metadata,
    ):
        return False
    if [_told(chunk) for chunk in one.chunks] != [_told(chunk) for chunk in other.chunks]:
        return False
    if one.vectors is None or other.vectors is None:
        return one.vectors is other.vectors
    return bool(np.allclose(one.vectors, other.vectors, atol=5e-3))


def _told(chunk: Chunk) -> tuple[object, ...]:
    return (chunk.number, chunk.text, chunk.tokens, chunk.content_hash, chunk.headings, chunk.locator)


def _questions(document: IndexedDocument) -> Iterator[tuple[Vector | None, Sequence[str]]]:
    """The chunk in its middle, by its words and by its vector."""
    number = len(document.chunks) // 2
    if words := list(dict.fromkeys(document.chunks[number].tokens.split()))[:32]:
        yield None, words
    if document.vectors is not None:
        yield document.vectors[number], ()


def _agree(one: SearchResult, other: SearchResult) -> bool:
    """Whether both counted the same and put the same first; ties may fall either way, and scores differ a little."""
    if one.chunk_count != other.chunk_count or bool(one.hits) != bool(other.hits):
        return False
    return not one.hits or _best(one) in {hit.chunk.text for hit in other.hits}


def _best(found: SearchResult) -> str:
    return max(found.hits, key=lambda hit: (hit.vector_score or 0.0) + (hit.keyword_score or 0.0)).chunk.text
