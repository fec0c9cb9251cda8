"""One synchronisation: what is new or changed at a source comes in, what is gone there goes.

Documents come in by and by, and what was seen is kept with them: stopped anywhere, the next one goes on from there.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select, update

from core.db.tables import DocumentRow, KnowledgeBaseRow, SourceRow, now
from core.errors import Gone, KvasirError, NotFound, TooLarge, Unavailable, UserError
from core.indexing.ingest import SOURCE_PREFIX, Incoming, clean_name
from core.sources.kinds import kind_named
from core.sources.port import Content, Item, Listing, Source, SourceKind, Spec, Tools, spec_of
from core.sources.register import KIND
from core.texts import tell
from core.work.jobs import Job

if TYPE_CHECKING:
    from core.app import Kvasir

logger = logging.getLogger(__name__)

_BATCH: Final = 256
_BATCH_BYTES: Final = 16 << 20
_BATCH_SECONDS: Final = 30.0
_PROGRESS_SECONDS: Final = 1.0
_FAILURES: Final = 8
"""So many in a row, and the source is left alone."""


async def run(kvasir: Kvasir, job: Job) -> str:
    """The job `sync`. Raises KvasirError where nothing could be had; then nothing was removed."""
    source_id = str(job.payload["target"])
    first = next((other for other in await kvasir.jobs.active(KIND) if _is_of(other, source_id)), job)
    if first.id != job.id:
        return tell("sync_left_out")
    try:
        sync = await _Sync.begin(kvasir, job, source_id)
    except NotFound:  # it went with its knowledge base
        await kvasir.schedules.delete_for(KIND, source_id)
        raise
    minutes = kvasir.settings.sources.timeout_minutes
    try:
        async with asyncio.timeout(minutes * 60):
            result = await sync.work()
    except TimeoutError as error:
        await sync.ended("failed", tell("sync_slow", minutes=minutes))
        raise Unavailable(tell("sync_slow", minutes=minutes)) from error
    except KvasirError as error:
        await sync.ended("failed", str(error))
        raise
    await sync.ended("done", sync.left_out)
    return result


def _is_of(job: Job, source_id: str) -> bool:
    return job.state == "running" and job.payload.get("target") == source_id


@dataclass(slots=True)
class _Counts:
    added: int = 0
    changed: int = 0
    same: int = 0
    removed: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Batch:
    """What is at hand, and has not come in yet."""

    files: list[Incoming] = field(default_factory=list)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    size: int = 0
    since: float = field(default_factory=time.monotonic)

    @property
    def is_full(self) -> bool:
        is_old = time.monotonic() - self.since > _BATCH_SECONDS
        return len(self.files) >= _BATCH or self.size >= _BATCH_BYTES or (is_old and bool(self.files))


class _Sync:
    def __init__(self, kvasir: Kvasir, job: Job, row: SourceRow, kb: str, present: dict[str, str]) -> None:
        self._kvasir = kvasir
        self._job = job
        self._row = row
        self._kb = kb
        self._present = present
        """Documents of this source: name → id."""
        self._kind: SourceKind = kind_named(row.kind)
        self._spec: Spec = spec_of(self._kind, row.settings)
        self._tools: Tools = kvasir.sources.tools()
        self._seen: dict[str, dict[str, Any]] = dict(row.cursor.get("items", {}))
        self._counts = _Counts()
        self._batch = _Batch()
        self._said = 0.0
        self._first_failure = ""
        self._notes: tuple[str, ...] = ()

    @classmethod
    async def begin(cls, kvasir: Kvasir, job: Job, source_id: str) -> _Sync:
        async with kvasir.db.read() as session:
            query = select(SourceRow, KnowledgeBaseRow.name).join(KnowledgeBaseRow).where(SourceRow.id == source_id)
            found = (await session.execute(query)).one_or_none()
            if found is None:
                raise NotFound(tell("no_such_source"))
            columns = (DocumentRow.name, DocumentRow.id)
            rows = await session.execute(
                select(*columns).where(DocumentRow.source_id == source_id, DocumentRow.status != "deleting")
            )
            present = {str(name): str(document_id) for name, document_id in rows}
        return cls(kvasir, job, found[0], found[1], present)

    @property
    def left_out(self) -> str | None:
        """What a person should know although it went well."""
        notes = list(self._notes)
        if self._counts.failed:
            notes.append(tell("sync_some_failed", count=self._counts.failed, reason=self._first_failure))
        return " ".join(notes) or None

    async def work(self) -> str:
        self._kind.check(self._spec, self._kvasir.settings.sources)
        secrets = self._kvasir.sources.secrets_of(self._row)
        state = await self._kind.state(self._spec, secrets, self._tools) if self._kind.state else ""
        if state and state == self._row.cursor.get("state") and self._has_all(self._seen):
            return tell("sync_nothing_new", count=len(self._present))
        async with self._kind.open(self._spec, secrets, self._tools) as source:
            listing = await source.list()
            self._notes = listing.notes
            if not listing.items and self._present:
                raise Unavailable(tell("sync_all_gone", count=len(self._present)))
            try:
                gone = await self._read_all(source, listing)
            except KvasirError:
                await self._flush()  # what could be had stays
                raise
        await self._flush()
        await self._forget(listing, gone)
        await self._keep(state="" if self._counts.failed else state)
        counts = self._counts
        return tell("sync_done", added=counts.added, changed=counts.changed, removed=counts.removed, same=counts.same)

    # ------------------------------------------------------------ bringing in
    async def _read_all(self, source: Source, listing: Listing) -> set[str]:
        """Keys of what turned out not to be there."""
        gone: set[str] = set()
        in_a_row = 0
        for number, item in enumerate(listing.items):
            await self._say(number, len(listing.items), item)
            if self._is_same(item):
                self._counts.same += 1
                continue
            try:
                content = await source.read(item, self._known(item))
            except Gone as error:
                gone.add(item.key)
                self._counts.failed += item.key not in self._seen
                self._first_failure = self._first_failure or str(error)
                continue
            except (Unavailable, UserError) as error:
                if isinstance(error, TooLarge) and self._tools.visit.left == 0:
                    raise
                self._counts.failed += 1
                in_a_row += 1
                self._first_failure = self._first_failure or str(error)
                if self._counts.failed == len(listing.items):
                    raise Unavailable(tell("sync_nothing_had", reason=self._first_failure)) from error
                if in_a_row >= _FAILURES:
                    raise Unavailable(tell("sync_gave_up", reason=self._first_failure)) from error
                continue
            in_a_row = 0
            await self._take(item, content)
        if listing.items and len(gone) == len(listing.items):
            if self._present:
                raise Unavailable(tell("sync_all_gone", count=len(self._present)))
            raise Unavailable(self._first_failure)
        return gone

    def _is_same(self, item: Item) -> bool:
        before = self._seen.get(item.key)
        if before is None or not item.mark or before.get("mark") != dict(item.mark):
            return False
        return before["name"] in self._present or bool(before.get("refused"))

    def _known(self, item: Item) -> Mapping[str, str]:
        """Nothing for a document that is missing here: it is to come again."""
        before = self._seen.get(item.key, {})
        return before.get("known", {}) if before.get("name") in self._present else {}

    def _has_all(self, seen: Mapping[str, Mapping[str, Any]]) -> bool:
        return all(entry["name"] in self._present or entry.get("refused") for entry in seen.values())

    async def _take(self, item: Item, content: Content | None) -> None:
        before = self._seen.get(item.key, {})
        if content is None:
            self._counts.same += 1
            self._seen[item.key] = {**before, "mark": dict(item.mark)}
            return
        name = before.get("name") or self._free_name(item, content)
        known = {key: value for key, value in content.known.items() if value}
        self._batch.entries[item.key] = {"name": name, "mark": dict(item.mark), "known": known}
        self._batch.files.append(Incoming(name, partial(_same, content.data), item.address, len(content.data)))
        self._batch.size += len(content.data)
        if self._batch.is_full:
            await self._flush()

    def _free_name(self, item: Item, content: Content) -> str:
        """Below the name of the source; two things of one name get different ones."""
        name = clean_name(f"{self._row.name}/{item.name or content.name}")
        taken = {entry["name"] for entry in (*self._seen.values(), *self._batch.entries.values())}
        if name in taken:
            path = PurePosixPath(name)
            mark = hashlib.sha256(item.key.encode()).hexdigest()[:8]
            name = clean_name(str(path.with_name(f"{path.stem}-{mark}{path.suffix}")))
        return name

    async def _flush(self) -> None:
        """Bring in what is at hand, and keep what was seen."""
        batch, self._batch = self._batch, _Batch()
        if batch.files:
            by = f"{SOURCE_PREFIX}{self._row.id}"
            ticket = await self._kvasir.ingest.submit(self._kb, _each(batch.files), by=by)
            refused = {outcome.name for outcome in ticket.refused}
            for entry in batch.entries.values():
                if entry["name"] in refused:
                    entry["refused"] = True
            for outcome in ticket.refused:
                self._counts.failed += 1
                self._first_failure = self._first_failure or str(outcome.reason)
            for document in ticket.documents:
                if document.name in self._present:
                    self._counts.changed += 1
                else:
                    self._counts.added += 1
                    self._present[document.name] = document.id
            await self._adopt([outcome.name for outcome in ticket.unchanged])
            self._counts.same += len(ticket.unchanged)
        self._seen |= batch.entries
        await self._keep()

    async def _adopt(self, names: Sequence[str]) -> None:
        """Look after documents that were here already, under these names and with the same bytes."""
        if not (strange := [name for name in names if name not in self._present]):
            return
        async with self._kvasir.db.session() as session:
            rows = await session.execute(
                update(DocumentRow)
                .where(DocumentRow.kb_id == self._row.kb_id, DocumentRow.name.in_(strange))
                .values(source_id=self._row.id)
                .returning(DocumentRow.name, DocumentRow.id)
            )
            self._present.update((name, document_id) for name, document_id in rows)

    # ------------------------------------------------------------ letting go
    async def _forget(self, listing: Listing, gone: set[str]) -> None:
        """Remove documents of what is no longer there; never on the strength of half a listing."""
        if not self._kind.forgets(self._spec):
            return
        listed = {item.key for item in listing.items}
        lost = gone if not listing.is_complete else gone | (self._seen.keys() - listed)
        kept = {entry["name"] for key, entry in self._seen.items() if key not in lost}
        if listing.is_complete:
            names = self._present.keys() - kept
        else:
            names = {entry["name"] for key, entry in self._seen.items() if key in lost} - kept
        ids = [self._present[name] for name in names if name in self._present]
        await self._kvasir.sources.delete_documents(self._row.kb_id, ids)
        self._counts.removed = len(ids)
        self._seen = {key: entry for key, entry in self._seen.items() if key not in lost}

    # ------------------------------------------------------------ keeping
    async def _keep(self, state: str = "") -> None:
        """What was seen until now. Raises NotFound where the source was deleted meanwhile."""
        cursor = {"items": self._seen, "state": state}
        async with self._kvasir.db.session() as session:
            result = await session.execute(update(SourceRow).where(SourceRow.id == self._row.id).values(cursor=cursor))
        if not getattr(result, "rowcount", 0):
            raise NotFound(tell("no_such_source"))

    async def ended(self, state: str, reason: str | None) -> None:
        async with self._kvasir.db.session() as session:
            of_it = select(func.count()).where(DocumentRow.source_id == self._row.id, DocumentRow.status != "deleting")
            values: dict[str, Any] = {"state": state, "reason": reason, "documents": await session.scalar(of_it) or 0}
            if state == "done":
                values["synced_at"] = now()
            await session.execute(update(SourceRow).where(SourceRow.id == self._row.id).values(**values))

    async def _say(self, done: int, total: int, item: Item) -> None:
        if time.monotonic() - self._said > _PROGRESS_SECONDS:
            self._said = time.monotonic()
            note = (item.name or item.address)[:200]
            await self._kvasir.jobs.progress(self._job, done=done, total=total, note=note)


def _same(data: bytes) -> bytes:
    return data


async def _each(files: list[Incoming]) -> AsyncIterator[Incoming]:
    for file in files:
        yield file
