"""What is put right where a process was killed, or where two wrote in turn: database and store agree again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from sqlalchemy import select

from core.blobs import Blobs
from core.db import documents, overrides
from core.db.session import Database
from core.db.tables import DocumentRow, DocumentVersionRow, GenerationRow
from core.errors import NotFound, StoreUnavailable
from core.indexing.indexes import Indexes
from core.kb.knowledge import Knowledge, generation_of, kb_row
from core.kb.overrides import index_hash
from core.ports import VectorStore
from core.types import Generation
from core.work.jobs import Jobs

logger = logging.getLogger(__name__)


class Recovery:
    """Makes store and database agree."""

    def __init__(
        self, db: Database, store: VectorStore, blobs: Blobs, jobs: Jobs, knowledge: Knowledge, indexes: Indexes
    ) -> None:
        self._db = db
        self._store = store
        self._blobs = blobs
        self._jobs = jobs
        self._knowledge = knowledge
        self._indexes = indexes

    async def recover(self) -> None:
        """Put right what a killed process left: half deletions, retired indexes, and stores that disagree."""
        await self._indexes.drop_retired()
        for base in await self._knowledge.list(temporary=True):
            try:
                await self.reconcile(base.name)
            except StoreUnavailable as error:
                if any(
                    one.generation.store in ("", self._indexes.home) for one in await self._knowledge.live([base.name])
                ):
                    raise
                logger.warning("%s: what is in another store is not looked after: %s", base.name, error)
            except NotFound:
                logger.info("%s was deleted meanwhile", base.name)
        async with self._db.read() as session:
            wanted = set(await session.scalars(select(DocumentRow.content_hash)))
            wanted |= {item for item in await session.scalars(select(DocumentRow.live_hash)) if item}
            wanted |= set(await session.scalars(select(DocumentVersionRow.content_hash)))
        await asyncio.to_thread(self._blobs.remove_all_but, wanted, older_than=time.time() - 86_400)

    async def reconcile(self, kb_name: str) -> None:
        """Make store and database agree on one knowledge base.

        What the store lacks, or has in another version than the database says is live, comes in again. What others
        change meanwhile is left to them: each finding is looked at again before anything is done about it.
        """
        async with self._db.read() as session:
            base = await kb_row(session, kb_name)
            row = await session.get(GenerationRow, base.live_generation_id) if base.live_generation_id else None
            if row is None:
                return
            generation = generation_of(row)
            every = [
                generation_of(item)
                for item in await session.scalars(select(GenerationRow).where(GenerationRow.kb_id == base.id))
            ]
            known = {
                document_id: (status, live)
                for document_id, status, live in await session.execute(
                    select(DocumentRow.id, DocumentRow.status, DocumentRow.live_hash).where(
                        DocumentRow.kb_id == base.id
                    )
                )
            }
            changes = await overrides.of_base(session, base.id)
        await self._store.ensure_generation(generation)
        indexed = {document_id: content for document_id, content, _ in await self._store.documents(generation)}
        half_deleted = [key for key, (status, _) in known.items() if status == "deleting"]
        if half_deleted:
            await self._knowledge.finish_deleting(every, half_deleted)
        gone = {key for key, (status, live) in known.items() if live is None and status in ("failed", "disabled")}
        if orphans := await self._unknown(base.id, [key for key in indexed if key not in known or key in gone]):
            logger.warning("%s: %s documents in the store that no one knows are removed", kb_name, len(orphans))
            await self._store.delete(generation, orphans)
        lost = [key for key, (status, live) in known.items() if live and status != "deleting" and key not in indexed]
        other = [
            (key, live)
            for key, (status, live) in known.items()
            if live
            and status == "indexed"
            and key in indexed
            and indexed[key] != index_hash(live, changes.get(key, ()))
        ]
        if lost or other:
            await self._queue_again(kb_name, generation, lost, other)

    async def _unknown(self, kb_id: str, document_ids: Sequence[str]) -> Sequence[str]:
        """Those of them that no index of the knowledge base is to hold."""
        if not document_ids:
            return ()
        async with self._db.read() as session:
            rows = await session.execute(
                select(DocumentRow.id, DocumentRow.status, DocumentRow.live_hash).where(DocumentRow.kb_id == kb_id)
            )
            wanted = {key for key, status, live in rows if live or status not in ("failed", "disabled")}
        return sorted(set(document_ids) - wanted)

    async def _queue_again(
        self, kb_name: str, generation: Generation, lost: Sequence[str], other: Sequence[tuple[str, str]]
    ) -> None:
        """A job for documents that are not in the live index, and for those in it in another version than the live one.

        Without those that were changed, deleted or moved meanwhile; none where another index is live by now.
        """
        async with self._db.session() as session:
            base = await kb_row(session, kb_name, lock=True)
            if base.live_generation_id != generation.id:
                return
            job = self._jobs.new_row("ingest", {"kb": kb_name})
            session.add(job)
            is_live = (
                DocumentRow.kb_id == base.id, DocumentRow.live_hash.is_not(None), DocumentRow.status != "deleting",
            )  # fmt: skip
            await documents.queue(session, job.id, lost, *is_live, live_hash=None)
            for key, live in other:
                is_same = (DocumentRow.live_hash == live, DocumentRow.status == "indexed")
                await documents.queue(session, job.id, [key], *is_same)
        if lost:
            logger.warning("%s: %s documents are missing in the store and come in again", kb_name, len(lost))
        if other:
            logger.warning(
                "%s: %s documents are in the store as they were before, and come in again", kb_name, len(other)
            )
        self._jobs.wake()
