"""From files to an index: store the bytes, read and split in child processes, embed, store, switch live.

A document's row says how far it is; whatever is killed goes on from there (`recover`, or the next ingestion), and a
search sees the old version of a document until the new one is complete.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias, cast

from sqlalchemy import Table as SqlTable
from sqlalchemy import bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.blobs import Blob, Blobs
from core.db import curated, documents, overrides, versions
from core.db.direct import Statement
from core.db.session import Database
from core.db.tables import DocumentRow, KnowledgeBaseRow, new_id, now
from core.errors import KvasirError, TooLarge, UserError
from core.indexing.indexes import Changes, Indexes, changed
from core.indexing.recovery import Recovery
from core.kb.knowledge import DocumentInfo, Knowledge, kb_row
from core.kb.overrides import index_hash
from core.ports import Parser, ParseResult, ParseTask, SplitterSpec, VectorStore
from core.settings import IngestSettings
from core.texts import tell
from core.types import Generation, IndexedDocument
from core.work.jobs import Job, Jobs, job_of

logger = logging.getLogger(__name__)

SOURCE_PREFIX = "source:"
"""The key of a source is this with its id."""
_FILES_AT_ONCE = 256
GROUP_BYTES = 2 << 20
_FIRST_GROUP = 64
_LARGEST_GROUP = 128
_QUICK_SECONDS = 0.5
_WATCH_SECONDS = 0.25
_END_SECONDS = 10.0
"""A store that takes longer to write is left; what it wrote is put right at the next start."""
_STAGES = ("stored", "parsed", "split", "embedded", "live")
_NAME_LIMIT = 1024
_Target: TypeAlias = tuple[Generation, SplitterSpec]
_HEAD = 4096
_BASES = cast(SqlTable, KnowledgeBaseRow.__table__)
_LIVE = select(_BASES.c.live_generation_id).where(_BASES.c.name == bindparam("kb")).with_for_update()
_IS_LIVE = Statement(
    select(_BASES.c.id).where(_BASES.c.name == bindparam("kb"), _BASES.c.live_generation_id == bindparam("generation"))
)


@dataclass(frozen=True, slots=True)
class IngestEvent:
    """One document has come one step further."""

    document_id: str
    name: str
    stage: str
    status: str
    reason: str | None
    chunks: int
    done: int
    """Documents of the job that have ended, well or badly."""
    total: int


@dataclass(frozen=True, slots=True)
class Incoming:
    """A file on its way in: its name in the knowledge base, and how to get its bytes."""

    name: str
    read: Callable[[], bytes] | AsyncIterable[bytes]
    source: str = "upload"
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one document ended."""

    name: str
    status: str
    """indexed, unchanged, or failed."""
    chunks: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Ticket:
    """Files that are stored and wait for their job."""

    job: Job
    documents: tuple[DocumentInfo, ...]
    unchanged: tuple[Outcome, ...] = ()
    refused: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class _Taken:
    """A file whose bytes are stored."""

    blob: Blob
    media_type: str
    source: str

    def values(self, job_id: str, by: str) -> dict[str, Any]:
        """What its row says from now on."""
        return {
            "by": by,
            "source_id": by.removeprefix(SOURCE_PREFIX) if by.startswith(SOURCE_PREFIX) else None,
            "size": self.blob.size,
            "content_hash": self.blob.content_hash,
            "media_type": self.media_type,
            "source": self.source,
            "status": "queued",
            "stage": "stored",
            "reason": None,
            "job_id": job_id,
        }


@dataclass(slots=True)
class _Group:
    """Documents that go through the stages together."""

    job_id: str
    rows: list[documents.Waiting]
    hashes: list[str]
    """Content hash of each as an index is to have it."""
    results: list[ParseResult] = field(default_factory=list)
    places: dict[str, int | None] = field(default_factory=dict)
    """Where each override of theirs is now."""


class _Pace:
    """How many documents make a group: few while each takes its time, so that the first are found soon; more while a
    group is over in a moment, since each group has its own writes.
    """

    def __init__(self) -> None:
        self.documents = _FIRST_GROUP
        self.is_quick = False
        """Whether the last one was over in a moment; then nobody would see the stages in between."""

    def took(self, seconds: float) -> None:
        self.is_quick = seconds < _QUICK_SECONDS
        if self.is_quick:
            self.documents = min(4 * self.documents, _LARGEST_GROUP)
        else:
            self.documents = max(self.documents // 4, _FIRST_GROUP)


def clean_name(name: str) -> str:
    """A document's name as text: POSIX separators, no control characters; it never becomes a path of ours.

    Blanks at its ends stay: two files whose names differ by them are two documents.
    """
    name = name.replace("\\", "/")
    parts = ["".join(c for c in part if c.isprintable()) for part in name.split("/")]
    cleaned = "/".join(part for part in parts if part.strip() not in ("", ".", ".."))[-_NAME_LIMIT:]
    if not cleaned.strip():
        raise UserError(tell("document_needs_name"))
    return cleaned


class Ingest:
    """Brings documents in."""

    def __init__(
        self,
        db: Database,
        store: VectorStore,
        blobs: Blobs,
        jobs: Jobs,
        knowledge: Knowledge,
        indexes: Indexes,
        parser: Parser,
        settings: IngestSettings,
        media_type: Callable[[bytes, str], str],
    ) -> None:
        self._db = db
        self._store = store
        self._blobs = blobs
        self._jobs = jobs
        self._knowledge = knowledge
        self._indexes = indexes
        self._parser = parser
        self._settings = settings
        self._media_type = media_type
        self._recovery = Recovery(db, store, blobs, jobs, knowledge, indexes)

    # ------------------------------------------------------------ taking files in
    async def submit(self, kb: str, files: AsyncIterable[Incoming], *, claimed: bool = False, by: str = "") -> Ticket:
        """Store the files and queue a job for them; those whose bytes are indexed already need nothing.

        `by` names who brings them in; they belong to the source of that key, if it is one's. Bytes that were live are
        kept as a version. A disabled document takes its new bytes and stays disabled. Raises UserError where a quota is
        full: then no row was written. A single file that is too large or cannot be read is refused alone.
        """
        taken: dict[str, _Taken] = {}
        refused: list[Outcome] = []
        at_hand: list[Incoming] = []

        async def flush() -> None:
            stored, not_stored = await asyncio.to_thread(self._store_files, at_hand)
            taken.update(stored)
            refused.extend(not_stored)
            at_hand.clear()

        async for file in files:
            if not isinstance(file.read, AsyncIterable):
                at_hand.append(file)
                if len(at_hand) == _FILES_AT_ONCE:
                    await flush()
                continue
            name = clean_name(file.name)
            try:
                blob = await self._blobs.put_stream(file.read, limit=self._settings.max_file_mb << 20, name=name)
            except TooLarge as error:
                refused.append(Outcome(name, "failed", 0, str(error)))
            else:
                original = await asyncio.to_thread(self._blobs.get, blob.content_hash)
                head = b"" if original is None else await asyncio.to_thread(original.head, _HEAD)
                taken[name] = _Taken(blob, self._media_type(head, name), file.source)
        await flush()
        return await self._enter(kb, taken, refused, claimed, by)

    async def upload(self, kb: str, files: Sequence[tuple[str, AsyncIterator[bytes]]]) -> Ticket:
        """As `submit`, for uploads that stream in."""

        async def incoming() -> AsyncIterator[Incoming]:
            for name, pieces in files:
                yield Incoming(name, pieces)

        return await self.submit(kb, incoming())

    def _store_files(self, files: Sequence[Incoming]) -> tuple[dict[str, _Taken], list[Outcome]]:
        """Runs in a thread, many files a call: a thread's round trip costs more than a small file."""
        taken: dict[str, _Taken] = {}
        read: list[tuple[str, str, bytes]] = []
        size = 0
        refused: list[Outcome] = []
        limit = self._settings.max_file_mb << 20
        for file in files:
            name = clean_name(file.name)
            assert not isinstance(file.read, AsyncIterable)  # noqa: S101  `submit` keeps the kinds apart
            try:
                data = b"" if file.size is not None and file.size > limit else file.read()
            except OSError as error:
                reason = tell("file_unreadable", name=name, reason=error.strerror or error)
                refused.append(Outcome(name, "failed", 0, reason))
                continue
            if (file.size or 0) > limit or len(data) > limit:
                refused.append(Outcome(name, "failed", 0, tell("file_too_large", name=name, limit=limit >> 20)))
            else:
                read.append((name, file.source, data))
                size += len(data)
                if size > GROUP_BYTES:
                    taken |= self._put(read)
                    read, size = [], 0
        return taken | self._put(read), refused

    def _put(self, files: Sequence[tuple[str, str, bytes]]) -> dict[str, _Taken]:
        """Store (name, source, bytes) of each."""
        blobs = self._blobs.put_all([data for _, _, data in files])
        return {
            name: _Taken(blob, self._media_type(data[:_HEAD], name), source)
            for blob, (name, source, data) in zip(blobs, files, strict=True)
        }

    async def _enter(
        self, kb: str, taken: Mapping[str, _Taken], refused: list[Outcome], claimed: bool, by: str
    ) -> Ticket:
        """Job and documents in one step, so that no worker ever sees the one without the others."""
        unchanged: list[Outcome] = []
        fresh: list[dict[str, Any]] = []
        again: list[tuple[tuple[str, str | None], dict[str, Any]]] = []
        former: list[versions.Former] = []
        infos: list[DocumentInfo] = []
        moment = now()
        async with self._db.session() as session:
            base = await kb_row(session, kb, lock=True)  # one entry at a time: names and quotas are looked up first
            there = await documents.known(session, base.id, list(taken))
            await self._check_quota(session, base, taken, there)
            job = self._jobs.new_row("ingest", {"kb": kb}, claimed=claimed)
            session.add(job)
            for name, file in taken.items():
                values = file.values(job.id, by)
                old = there.get(name)
                if old is None:
                    row = dict(values, id=new_id(), kb_id=base.id, name=name, title="", chunks=0, meta={},
                               live_hash=None, created_at=moment, updated_at=moment)  # fmt: skip
                    fresh.append(row)
                elif old.live_hash == file.blob.content_hash and old.status == "indexed":
                    unchanged.append(Outcome(name, "unchanged", old.chunks, old.reason))
                    continue
                else:
                    if old.live_hash == old.content_hash != file.blob.content_hash:
                        former.append(versions.Former(old.id, old.live_hash, old.size, old.by, file.blob.content_hash))
                    if old.status == "disabled":
                        unchanged.append(Outcome(name, "unchanged", 0, tell("document_stays_disabled")))
                        values |= {"status": "disabled", "job_id": None}
                        again.append(((old.id, old.content_hash), values))
                        continue
                    row = dict(values, id=old.id, title="", chunks=old.chunks, created_at=old.created_at)
                    again.append(((old.id, old.content_hash), values))
                infos.append(_info(kb, name, row, moment))
            await documents.add(session, fresh)
            await versions.keep(session, former, self._settings.keep_versions)
            await documents.change(session, [key for key, _ in again], [values for _, values in again])
        self._jobs.wake()
        return Ticket(job_of(job), tuple(infos), tuple(unchanged), tuple(refused))

    async def _check_quota(
        self,
        session: AsyncSession,
        base: KnowledgeBaseRow,
        taken: Mapping[str, _Taken],
        there: Mapping[str, documents.Known],
    ) -> None:
        count, size = await documents.totals(session, base.id)
        count += len(taken.keys() - there.keys())
        size += sum(file.blob.size for file in taken.values())
        size -= sum(there[name].size for name in taken if name in there)
        check_quota(base, count, size, self._settings)

    # ------------------------------------------------------------ doing the work
    async def run(self, job: Job, on_chunks: Callable[[int], None] | None = None) -> None:
        """Work off the documents of a claimed job; `on_chunks` hears how many chunks were embedded each time."""
        kb_name = str(job.payload["kb"])
        await self.reconcile(kb_name)
        started = time.monotonic()
        groups: asyncio.Queue[_Group | None] = asyncio.Queue(maxsize=2)
        pace = _Pace()
        target = await self._indexes.target(kb_name)
        changes = await overrides.of_job(self._db, job.id)

        async def read() -> None:
            async for rows in self._groups(job, pace):
                group = _group(job, rows, changes)
                await self._parse(group, target, changes)
                if not pace.is_quick:
                    await self._mark(group, "split")
                await groups.put(group)
            await groups.put(None)

        async def index() -> None:
            nonlocal target
            while (group := await groups.get()) is not None:
                begun = time.monotonic()
                target = await self._index(group, target, kb_name, pace, on_chunks or (lambda _n: None))
                pace.took(time.monotonic() - begun)

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(read(), name="ingest-read")
                tasks.create_task(index(), name="ingest-index")
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        logger.info("job %s: ingested into %s in %.1f s", job.id, kb_name, time.monotonic() - started)

    async def _groups(self, job: Job, pace: _Pace) -> AsyncIterator[list[documents.Waiting]]:
        """The job's waiting documents, in groups of a size that one round trip is worth; each row is seen once."""
        rows: list[documents.Waiting] = []
        after = ""
        while True:
            if len(rows) < pace.documents:
                rows += await documents.waiting(self._db, job.id, after, 2 * pace.documents)
            if not rows:
                return
            after = rows[-1].name
            size = 0
            group: list[documents.Waiting] = []
            for row in rows[: pace.documents]:
                if group and size + row.size > GROUP_BYTES:
                    break
                group.append(row)
                size += row.size
            rows = rows[len(group) :]
            yield group

    async def _parse(self, group: _Group, target: _Target, changes: Changes) -> None:
        sources = await asyncio.to_thread(self._blobs.sources, [row.content_hash for row in group.rows])
        tasks = [ParseTask(source, row.name, target[1]) for source, row in zip(sources, group.rows, strict=True)]
        group.results = [ParseResult(error=tell("was_not_read"))] * len(tasks)
        async for index, result in self._parser.parse(tasks):
            group.results[index] = result
        if changes:
            group.results, group.places = await changed([row.id for row in group.rows], group.results, changes)

    async def _index(
        self, group: _Group, target: _Target, kb_name: str, pace: _Pace, on_chunks: Callable[[int], None]
    ) -> _Target:
        """Embed, store, and switch live; once more when the knowledge base got another live index meanwhile.

        Gives the index that they are in.
        """
        good = [one for one in zip(group.rows, group.hashes, group.results, strict=True) if not one[2].error]
        for _ in range(3):
            generation = target[0]
            vectors = await self._indexes.embed(generation, [result for *_, result in good], on_chunks)
            if await self._is_live(kb_name, generation):
                if good and not pace.is_quick:
                    await self._mark(group, "embedded")
                indexed = [
                    IndexedDocument(
                        row.id,
                        row.name,
                        result.title,
                        content_hash,
                        result.chunks,
                        matrix,
                        result.metadata,
                        result.terms,
                    )
                    for (row, content_hash, result), matrix in zip(good, vectors, strict=True)
                ]
                if await _to_the_end(self._bring_in(kb_name, generation, group, indexed)):
                    return target
            target = await self._indexes.target(kb_name)
        raise KvasirError(tell("index_restless", kb=kb_name))

    async def _is_live(self, kb_name: str, generation: Generation) -> bool:
        """False when another index became live meanwhile."""
        [live] = await self._db.fetch(_IS_LIVE(kb=kb_name, generation=generation.id))
        return live.first is not None

    async def _bring_in(
        self, kb_name: str, generation: Generation, group: _Group, indexed: Sequence[IndexedDocument]
    ) -> bool:
        if indexed:
            await self._store.put(generation, indexed)
        return await self._switch(kb_name, generation, group)

    async def _switch(self, kb_name: str, generation: Generation, group: _Group) -> bool:
        """Make the group live in the database; False when another index became live in between.

        Documents that were taken from this job meanwhile (cancelled, deleted, moved, read again) are left as they are,
        and what the store holds of them is put right.
        """
        async with self._db.session() as session:
            live = await session.scalar(_LIVE, {"kb": kb_name})
            if live != generation.id:
                return False
            ours = await documents.of_job(session, group.job_id, [row.id for row in group.rows])
            ended = [one for one in zip(group.rows, group.results, strict=True) if one[0].id in ours]
            good = [(row, result) for row, result in ended if not result.error]
            failed = [(row, result.error) for row, result in ended if result.error]
            await documents.finish(session, group.job_id, [(row, _live(row, result)) for row, result in good])
            await documents.finish(
                session,
                group.job_id,
                [(row, {"status": "failed", "reason": _with_former(row, error)}) for row, error in failed],
            )
            await overrides.keep_places(session, group.places)
            replaced = [row.id for row, _ in good if row.live_hash not in (None, row.content_hash)]
            await curated.documents_changed(session, replaced)
        if len(ended) < len(group.rows):
            await self.reconcile(kb_name)
        return True

    async def _mark(self, group: _Group, stage: str) -> None:
        ids = [row.id for row, result in zip(group.rows, group.results, strict=True) if not result.error]
        async with self._db.session() as session:
            await documents.mark(session, group.job_id, ids, status="working", stage=stage)

    async def give_up(self, job: Job, reason: str) -> None:
        """The job's unfinished documents end as failed, with the reason of the job."""
        async with self._db.session() as session:
            await session.execute(
                update(DocumentRow)
                .where(DocumentRow.job_id == job.id, DocumentRow.status.in_(("queued", "working")))
                .values(status="failed", reason=reason, updated_at=now())
            )

    async def queue_failed(self, job_id: str) -> None:
        """The job's failed documents wait for it again."""
        async with self._db.session() as session:
            await session.execute(
                update(DocumentRow)
                .where(DocumentRow.job_id == job_id, DocumentRow.status == "failed")
                .values(status="queued", stage="stored", reason=None, updated_at=now())
            )

    # ------------------------------------------------------------ watching
    async def watch(self, job_id: str) -> AsyncIterator[IngestEvent]:
        """Every step of the job's documents from now on, by whatever process they are done; ends with the job."""
        seen: dict[str, tuple[str, str]] = {}
        since = None
        while True:
            state = (await self._jobs.get(job_id)).state
            async with self._db.read() as session:
                query = select(DocumentRow).where(DocumentRow.job_id == job_id)
                if since is not None:
                    query = query.where(DocumentRow.updated_at >= since)
                rows = list(await session.scalars(query.order_by(DocumentRow.updated_at)))
                ended = DocumentRow.status.in_(("indexed", "failed"))
                of_job = select(func.count()).select_from(DocumentRow).where(DocumentRow.job_id == job_id)
                total = await session.scalar(of_job) or 0
                done = await session.scalar(of_job.where(ended)) or 0
            for row in rows:
                since = row.updated_at
                before = seen.get(row.id)
                if before == (row.stage, row.status):
                    continue
                seen[row.id] = (row.stage, row.status)
                for stage in _passed(before[0] if before else "", row.stage):
                    yield IngestEvent(row.id, row.name, stage, "working", None, row.chunks, done, total)
                yield IngestEvent(row.id, row.name, row.stage, row.status, row.reason, row.chunks, done, total)
            if state not in ("queued", "running"):
                return
            await asyncio.sleep(_WATCH_SECONDS)

    async def outcomes(self, job_id: str) -> Sequence[Outcome]:
        """How the documents of an ended job came out, by name."""
        rows = await documents.outcomes(self._db, job_id)
        return [
            Outcome(name, status, chunks, reason)
            if status in ("indexed", "failed")
            else Outcome(name, "failed", chunks, tell("was_not_finished"))
            for name, status, chunks, reason in rows
        ]

    # ------------------------------------------------------------ after a crash
    async def recover(self) -> None:
        """As `Recovery.recover`."""
        await self._recovery.recover()

    async def reconcile(self, kb_name: str) -> None:
        """As `Recovery.reconcile`."""
        await self._recovery.reconcile(kb_name)


def check_quota(base: KnowledgeBaseRow, count: int, size: int, settings: IngestSettings) -> None:
    """Raises TooLarge where a knowledge base may not hold so many documents or bytes."""
    if count > settings.max_documents:
        raise TooLarge(tell("too_many_documents", kb=base.name, most=settings.max_documents))
    if size > settings.max_kb_mb << 20:
        raise TooLarge(tell("too_many_bytes", kb=base.name, most=settings.max_kb_mb))
    if base.max_documents is not None and count > base.max_documents:
        raise TooLarge(tell("kb_full", kb=base.name, most=base.max_documents))
    if base.max_mb is not None and size > base.max_mb << 20:
        raise TooLarge(tell("kb_full_bytes", kb=base.name, most=base.max_mb))


async def _to_the_end(work: Coroutine[Any, Any, bool]) -> bool:
    """What it gives. Whoever is cancelled meanwhile waits for its end, so that nothing is left half done."""
    task = asyncio.create_task(work, name="ingest-bring-in")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_END_SECONDS)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


def _group(job: Job, rows: list[documents.Waiting], changes: Changes) -> _Group:
    return _Group(job.id, rows, [index_hash(row.content_hash, changes.get(row.id, ())) for row in rows])


def _live(row: documents.Waiting, result: ParseResult) -> dict[str, Any]:
    """What a document's row says when it is live."""
    return {
        "status": "indexed",
        "stage": "live",
        "live_hash": row.content_hash,
        "chunks": len(result.chunks),
        "title": result.title,
        "meta": dict(result.metadata),
        "reason": " ".join(result.notes) or None,
    }


def _passed(before: str, now_at: str) -> Sequence[str]:
    """The stages gone through between two looks, so that whoever watches sees every one."""
    first = _STAGES.index(before) + 1 if before in _STAGES else 0
    return _STAGES[first : _STAGES.index(now_at)]


def _with_former(row: documents.Waiting, error: str) -> str:
    return f"{error} {tell('former_version_kept')}" if row.live_hash else error


def _info(kb: str, name: str, row: Mapping[str, Any], moment: datetime) -> DocumentInfo:
    keys = ("id", "title", "media_type", "size", "status", "stage", "reason", "chunks", "source", "created_at")
    return DocumentInfo(kb=kb, name=name, updated_at=moment, **{key: row[key] for key in keys})
