"""The indexes of knowledge bases: which one is live, how it is made, and how a new one takes its place.

An index generation is named by a fingerprint of all that shapes it (embedder, analyzer, splitter). A new one is built
beside the live one and takes over in one step, when both hold the same documents.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from sqlalchemy import Table as SqlTable
from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core import analyzer
from core.blobs import Blobs
from core.db import overrides
from core.db.direct import Statement
from core.db.session import Database
from core.db.tables import DocumentRow, GenerationRow, KnowledgeBaseRow, new_id, now
from core.errors import ConfigError, EmbedderUnavailable, KvasirError, NotFound, StoreUnavailable
from core.kb.knowledge import generation_of, kb_row
from core.kb.overrides import Override, apply, index_hash
from core.ports import Embedder, KnownEmbedders, Parser, ParseResult, ParseTask, SplitterSpec, VectorStore
from core.texts import tell
from core.types import Generation, IndexedDocument, Matrix

logger = logging.getLogger(__name__)

_GROUP = 64
_GROUP_BYTES = 2 << 20
_EMBED_SLICE = 128
_SLICES_AT_ONCE = 2
_DOCUMENTS = cast(SqlTable, DocumentRow.__table__)
_WITHOUT_VECTORS = Statement(
    select(KnowledgeBaseRow.embedder)
    .join(GenerationRow, GenerationRow.id == KnowledgeBaseRow.live_generation_id)
    .where(KnowledgeBaseRow.name == bindparam("kb"), GenerationRow.dimension == 0)
)
_CHUNKS = update(_DOCUMENTS).where(_DOCUMENTS.c.id == bindparam("of_id")).values(chunks=bindparam("of_chunks"))

Changes: TypeAlias = Mapping[str, Sequence[Override]]
"""What people changed in the chunks of documents, by document."""


class Indexes:
    """Builds index generations and says which is live."""

    def __init__(
        self,
        db: Database,
        store: VectorStore,
        blobs: Blobs,
        parser: Parser,
        embedders: KnownEmbedders,
        splitter_version: str,
        home: str | None = None,
    ) -> None:
        """`home` is the kind of the store in which new knowledge bases begin."""
        self._db = db
        self._store = store
        self._blobs = blobs
        self._parser = parser
        self._embedders = embedders
        self._splitter_version = splitter_version
        self.home = home

    def _profile(self, base: KnowledgeBaseRow, embedder: Embedder | None) -> dict[str, Any]:
        return {
            "embedder": embedder.info.fingerprint if embedder else "",
            "analyzer": analyzer.VERSION,
            "splitter": self._splitter_version,
            "chunk_size": base.chunk_size,
            "chunk_overlap": base.chunk_overlap,
            "title_enhance": base.title_enhance,
        }

    def _new_generation(self, base: KnowledgeBaseRow, state: str, live: GenerationRow | None) -> GenerationRow:
        """In the store of the live one."""
        embedder = self._embedders.named(base.embedder)
        profile = self._profile(base, embedder)
        return GenerationRow(
            id=new_id(),
            kb_id=base.id,
            fingerprint=fingerprint_of(profile),
            dimension=embedder.info.dimension if embedder else 0,
            embedder=embedder.info.name if embedder else "",
            profile=profile,
            state=state,
            store=live.store if live else self.home,
        )

    async def target(self, kb_name: str) -> tuple[Generation, SplitterSpec]:
        """The live index of a knowledge base and how it is split; an empty one is made anew as the settings are now.

        What is set for the next index, and cannot be had, holds up nobody who brings documents into this one. Raises
        EmbedderUnavailable where the embedder of this one cannot be had.
        """
        async with self._db.read() as session:
            base = await kb_row(session, kb_name)
            is_empty = base.live_generation_id is None or await _is_empty(session, base.id)
        if is_empty:
            await self._embedders.ready(base.embedder)
        async with self._db.session() as session:
            base = await kb_row(session, kb_name, lock=True)  # another process may be making it, or filling it
            row = await session.get(GenerationRow, base.live_generation_id) if base.live_generation_id else None
            wanted = fingerprint_of(self._profile(base, self._embedders.named(base.embedder)))
            if row is None or (row.fingerprint != wanted and await _is_empty(session, base.id)):
                stale = row
                row = self._new_generation(base, "live", stale)
                session.add(row)
                base.live_generation_id = row.id
                if stale is not None:
                    stale.state = "retired"
            generation, profile = generation_of(row), dict(row.profile)
        if generation.dimension and await self._embedders.maker(generation.embedder) is None:
            raise EmbedderUnavailable(tell("other_embedder"))
        await self._store.ensure_generation(generation)
        return generation, await self._spec(generation, profile)

    async def _spec(self, generation: Generation, profile: Mapping[str, Any]) -> SplitterSpec:
        """How the documents of an index are split."""
        embedder = await self._embedders.maker(generation.embedder)
        vocabulary = embedder.info.vocabulary if embedder and generation.dimension else ""
        return SplitterSpec(profile["chunk_size"], profile["chunk_overlap"], profile["title_enhance"], vocabulary)

    async def needs_vectors(self, kb_name: str) -> bool:
        """Whether the live index has no vectors though there is an embedder."""
        [found] = await self._db.fetch(_WITHOUT_VECTORS(kb=kb_name))
        return found.first is not None and self._embedders.named(found.first.embedder) is not None

    async def needs_reindex(self, kb_name: str) -> bool:
        """Whether a re-index now would give another index than the live one."""
        async with self._db.read() as session:
            base = await kb_row(session, kb_name)
            row = await session.get(GenerationRow, base.live_generation_id) if base.live_generation_id else None
        if row is None:
            return False
        if base.embedder and self._embedders.named(base.embedder) is None:
            await self._embedders.maker(str(row.profile.get("embedder", "")))  # it may not have been opened yet
        return row.fingerprint != fingerprint_of(self._profile(base, self._embedders.named(base.embedder)))

    async def reindex(self, kb_name: str, on_documents: Callable[[int, int], None] | None = None) -> None:
        """Build a new index beside the live one from the originals; switch when both hold the same documents.

        Goes on where an earlier one was stopped. Raises KvasirError when documents cannot be read any more.
        """
        generation = await self.begin(kb_name)
        unreadable: dict[str, str] = {}
        while True:
            await self.bring_level(kb_name, generation.id, unreadable, on_documents)
            if await self.go_live(kb_name, generation, unreadable):
                return

    async def begin(self, kb_name: str, *, beside: bool = False) -> Generation:
        """The next index as the settings are now: one that was begun before, or a new one.

        `beside` says that the live one stays; then it may also be complete already, and all others that wait to be
        switched to are given up.
        """
        await self._ready(kb_name)
        async with self._db.session() as session:
            base = await kb_row(session, kb_name, lock=True)
            live = await session.get(GenerationRow, base.live_generation_id) if base.live_generation_id else None
            row = self._new_generation(base, "building", live)
            waiting = ("building", "ready") if beside else ("building",)
            others = list(
                await session.scalars(
                    select(GenerationRow).where(GenerationRow.kb_id == base.id, GenerationRow.state.in_(waiting))
                )
            )
            started = next((other for other in others if other.fingerprint == row.fingerprint), None)
            if started is None:
                session.add(row)
            for other in others if beside else ():
                other.state = "building" if other is started else "retired"
            generation = generation_of(started or row)
        await self._store.ensure_generation(generation)
        return generation

    async def bring_level(
        self,
        kb_name: str,
        generation_id: str,
        unreadable: dict[str, str],
        on_documents: Callable[[int, int], None] | None = None,
    ) -> Generation:
        """Let an index hold what the live one holds, by reading what it lacks; `unreadable` tells what stays out.

        That is the ids of documents with the reason; they are not tried again. Raises NotFound where the index is gone.
        """
        while True:
            generation, spec, missing, total, changes = await self._behind(kb_name, generation_id, unreadable)
            done = total - len(missing)
            for group in _groups(missing):
                if on_documents:
                    on_documents(done, total)
                unreadable |= await self._rebuild(generation, spec, group, changes)
                done += len(group)
            if not missing:
                return generation

    async def contents(self, kb_name: str) -> Mapping[str, str]:
        """What every index is to hold: the live documents, each with the content hash that an index has it under."""
        async with self._db.read() as session:
            return await contents_of(session, (await kb_row(session, kb_name)).id)

    async def _behind(
        self, kb_name: str, generation_id: str, unreadable: Mapping[str, str]
    ) -> tuple[Generation, SplitterSpec, list[_Row], int, Changes]:
        """The documents that an index lacks, how many there are in all, and what people changed in them.

        Those it should no longer have are taken out.
        """
        async with self._db.read() as session:
            base = await kb_row(session, kb_name)
            made = await session.get(GenerationRow, generation_id)
            if made is None or made.kb_id != base.id or made.state == "retired":
                raise NotFound(tell("no_such_index"))
            generation, profile = generation_of(made), made.profile
        indexed = {document_id: content for document_id, content, _ in await self._store.documents(generation)}
        async with self._db.read() as session:
            changes = await overrides.of_base(session, base.id)
            rows = [row for row in await _rows(session, base.id) if _wanted(row, indexed, changes)]
        wanted = {row.id for row in rows}
        if surplus := indexed.keys() - wanted:
            await self._store.delete(generation, sorted(surplus))
        missing = [row for row in rows if indexed.get(row.id) != _hash_of(row, changes) and row.id not in unreadable]
        return generation, await self._spec(generation, profile), missing, len(rows), changes

    async def _rebuild(
        self, generation: Generation, spec: SplitterSpec, rows: Sequence[_Row], changes: Changes
    ) -> dict[str, str]:
        """Index the live bytes of these documents into `generation`; gives why others cannot be read, by id."""
        sources = await asyncio.to_thread(self._blobs.sources, [row.live_hash or "" for row in rows])
        tasks = [ParseTask(source, row.name, spec) for source, row in zip(sources, rows, strict=True)]
        results = [ParseResult(error=tell("was_not_read"))] * len(tasks)
        async for index, result in self._parser.parse(tasks):
            results[index] = result
        results, places = await changed([row.id for row in rows], results, changes)
        good = [(row, result) for row, result in zip(rows, results, strict=True) if not result.error]
        vectors = await self.embed(generation, [result for _, result in good], lambda _n: None)
        await self._store.put(
            generation,
            [
                IndexedDocument(
                    row.id,
                    row.name,
                    result.title,
                    _hash_of(row, changes),
                    result.chunks,
                    matrix,
                    result.metadata,
                    result.terms,
                )
                for (row, result), matrix in zip(good, vectors, strict=True)
            ],
        )
        if places:
            async with self._db.session() as session:
                await overrides.keep_places(session, places)
        return {row.id: result.error for row, result in zip(rows, results, strict=True) if result.error}

    async def go_live(
        self,
        kb_name: str,
        generation: Generation,
        unreadable: Mapping[str, str],
        *,
        keep_former: bool = False,
        give_up: bool = False,
    ) -> bool:
        """Switch when the index holds exactly the live documents; False when some came in between.

        `keep_former` says to keep the one that was live, as the only former one. Where documents are `unreadable`, the
        index before stays and KvasirError is raised, unless `give_up` says to count them as failed.
        """
        indexed = {
            document_id: (content, chunks) for document_id, content, chunks in await self._store.documents(generation)
        }
        async with self._db.session() as session:
            base = await session.scalar(
                select(KnowledgeBaseRow).where(KnowledgeBaseRow.name == kb_name).with_for_update()
            )
            if base is None:
                raise NotFound(tell("kb_deleted", kb=kb_name))
            changes = await overrides.of_base(session, base.id)
            contents = {document_id: content for document_id, (content, _) in indexed.items()}
            rows = [row for row in await _rows(session, base.id) if _wanted(row, contents, changes)]
            readable = {row.id: _hash_of(row, changes) for row in rows if row.id not in unreadable}
            if readable != contents:
                return False
            stuck = [row for row in rows if row.id in unreadable]
            if stuck and not give_up:
                names = ", ".join(sorted(row.name for row in stuck)[:5])
                raise KvasirError(tell("unreadable_again", count=len(stuck), kb=kb_name, names=names))
            for row in stuck:
                await _take_out(session, row, unreadable[row.id])
            for row in rows:
                if row.live_hash is None:
                    await _bring_back(session, row)
            await _count(session, rows, {document_id: chunks for document_id, (_, chunks) in indexed.items()})
            if not await _switched(session, base, generation.id, keep_former=keep_former):
                raise NotFound(tell("no_such_index"))
        await self.drop_retired()
        return True

    async def embed(
        self, generation: Generation, results: Sequence[ParseResult], on_chunks: Callable[[int], None]
    ) -> list[Matrix | None]:
        """A matrix for each document, or None in an index without vectors."""
        if generation.dimension == 0:
            on_chunks(sum(len(result.chunks) for result in results))
            return [None] * len(results)
        embedder = await self._embedders.maker(generation.embedder)
        if embedder is None:
            raise EmbedderUnavailable(tell("other_embedder"))
        texts = [chunk.embed_text or chunk.text for result in results for chunk in result.chunks]
        matrix = await _embedded(embedder, texts, generation.dimension, on_chunks)
        found, start = [], 0
        for result in results:
            found.append(matrix[start : start + len(result.chunks)])
            start += len(result.chunks)
        return list(found)

    async def _ready(self, kb_name: str) -> None:
        """Wait for the knowledge base's own embedder. Raises EmbedderUnavailable where it cannot be had."""
        async with self._db.read() as session:
            name = (await kb_row(session, kb_name)).embedder
        await self._embedders.ready(name)

    async def drop_retired(self) -> None:
        async with self._db.read() as session:
            retired = [
                generation_of(row)
                for row in await session.scalars(select(GenerationRow).where(GenerationRow.state == "retired"))
            ]
        for generation in retired:
            try:
                await self._store.drop_generation(generation)
            except StoreUnavailable as error:  # another store is not held up by this one; it is dropped another time
                logger.warning("an index that nobody needs is still there: %s", error)
                continue
            async with self._db.session() as session:
                await session.execute(delete(GenerationRow).where(GenerationRow.id == generation.id))


async def contents_of(session: AsyncSession, kb_id: str) -> Mapping[str, str]:
    """As `Indexes.contents`."""
    changes = await overrides.of_base(session, kb_id)
    rows = await session.execute(
        select(DocumentRow.id, DocumentRow.live_hash).where(
            DocumentRow.kb_id == kb_id, DocumentRow.live_hash.is_not(None), DocumentRow.status != "deleting"
        )
    )
    return {key: index_hash(live or "", changes.get(key, ())) for key, live in rows}


async def changed(
    document_ids: Sequence[str], results: Sequence[ParseResult], changes: Changes
) -> tuple[list[ParseResult], dict[str, int | None]]:
    """What was read, with the changes that people made to it; and where each of these is now."""
    made = list(results)
    places: dict[str, int | None] = {}
    for number, document_id in enumerate(document_ids):
        if document_id in changes:
            overridden = await asyncio.to_thread(apply, made[number], changes[document_id])
            made[number] = overridden.result
            places |= overridden.places
    return made, places


async def _embedded(
    embedder: Embedder, texts: Sequence[str], dimension: int, on_chunks: Callable[[int], None]
) -> Matrix:
    """The rows of all texts, slice by slice; the next one is always there, so that no thread of the embedder waits.

    Raises ConfigError where the embedder gives others than it says.
    """
    matrix = np.empty((len(texts), dimension), np.float32)
    starts = iter(range(0, len(texts), _EMBED_SLICE))

    async def embed() -> None:
        for start in starts:
            one = texts[start : start + _EMBED_SLICE]
            rows = await embedder.embed_documents(one)
            if rows.shape != (len(one), dimension):
                raise ConfigError(tell("store_wrong_vectors", expected=(len(one), dimension), found=rows.shape))
            matrix[start : start + len(one)] = rows
            on_chunks(len(one))

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_SLICES_AT_ONCE):
                tasks.create_task(embed(), name="embed")
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return matrix


def fingerprint_of(profile: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(profile, sort_keys=True).encode()).hexdigest()


def _hash_of(row: _Row, changes: Changes) -> str:
    """The content hash of its live version, else of its newest, as an index has it."""
    return index_hash(row.live_hash or row.content_hash, changes.get(row.id, ()))


async def _is_empty(session: AsyncSession, kb_id: str) -> bool:
    return not await session.scalar(
        select(func.count())
        .select_from(DocumentRow)
        .where(DocumentRow.kb_id == kb_id, DocumentRow.live_hash.is_not(None))
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """What is looked at of a document here; there may be many, and whole rows take their time."""

    id: str
    name: str
    size: int
    content_hash: str
    live_hash: str | None
    status: str
    chunks: int


async def _rows(session: AsyncSession, kb_id: str) -> list[_Row]:
    row = DocumentRow
    columns = (row.id, row.name, row.size, row.content_hash, row.live_hash, row.status, row.chunks)
    found = await session.execute(
        select(*columns).where(row.kb_id == kb_id, row.status != "deleting").order_by(row.name)
    )
    return [_Row(*values) for values in found]


def _wanted(row: _Row, indexed: Mapping[str, str], changes: Changes) -> bool:
    """Whether an index is to hold a document: a live one, or one that it can still read though a later index could not.

    `indexed` are the contents that it holds, by document.
    """
    return row.live_hash is not None or (row.status == "failed" and indexed.get(row.id) == _hash_of(row, changes))


async def _take_out(session: AsyncSession, row: _Row, reason: str) -> None:
    """Its index answers no more from this document, which cannot be read."""
    values: dict[str, Any] = {"live_hash": None, "chunks": 0}
    if row.status == "indexed":
        values |= {"status": "failed", "stage": "stored", "reason": reason}
    await session.execute(update(DocumentRow).where(DocumentRow.id == row.id).values(**values))


async def _bring_back(session: AsyncSession, row: _Row) -> None:
    """Its index answers from this document again, which the one before could not read."""
    values = {"live_hash": row.content_hash, "status": "indexed", "stage": "live", "reason": None}
    await session.execute(update(DocumentRow).where(DocumentRow.id == row.id).values(**values))


async def _count(session: AsyncSession, rows: Sequence[_Row], chunks: Mapping[str, int]) -> None:
    """Write down how many chunks each has now."""
    changed = [
        {"of_id": row.id, "of_chunks": chunks[row.id]} for row in rows if chunks.get(row.id, row.chunks) != row.chunks
    ]
    if changed:
        await (await session.connection()).execute(_CHUNKS, changed)


async def _switched(session: AsyncSession, base: KnowledgeBaseRow, generation_id: str, *, keep_former: bool) -> bool:
    """Make it the live one; False where it is gone."""
    rows = list(await session.scalars(select(GenerationRow).where(GenerationRow.kb_id == base.id)))
    if not any(row.id == generation_id and row.state != "retired" for row in rows):
        return False
    for row in rows:
        if row.id == generation_id:
            row.state, row.switched_at = "live", now()
        elif keep_former and row.id == base.live_generation_id:
            row.state, row.switched_at = "former", now()
        elif not keep_former or row.state == "former":
            row.state = "retired"
    base.live_generation_id = generation_id
    return True


def _groups(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Few enough at a time that whoever watches sees it go on."""
    group: list[_Row] = []
    size = 0
    for row in rows:
        if group and (len(group) == _GROUP or size + row.size > _GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(row)
        size += row.size
    if group:
        yield group
