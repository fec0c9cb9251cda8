"""Former versions of a document: listed, given out, and put back in the place of the newest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.blobs import Blobs, Original
from core.db import documents, versions
from core.db.session import Database
from core.db.tables import DocumentRow, DocumentVersionRow, KnowledgeBaseRow
from core.errors import Conflict, NotFound
from core.indexing.ingest import check_quota
from core.settings import IngestSettings
from core.texts import tell
from core.work.jobs import Job, Jobs, job_of

_HEAD: Final = 4096


@dataclass(frozen=True, slots=True)
class Version:
    number: int
    """From 1, the oldest."""
    size: int
    by: str
    """Who put it in, where that is known."""
    replaced_at: datetime
    content_hash: str


class Versions:
    """Looks after the former versions of documents."""

    def __init__(
        self,
        db: Database,
        blobs: Blobs,
        jobs: Jobs,
        settings: IngestSettings,
        media_type: Callable[[bytes, str], str],
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._jobs = jobs
        self._settings = settings
        self._media_type = media_type

    async def list(self, document_id: str) -> Sequence[Version]:
        """The newest first."""
        row = DocumentVersionRow
        query = (
            select(row)
            .join(DocumentRow, DocumentRow.id == row.document_id)
            .where(row.document_id == document_id, row.content_hash != DocumentRow.content_hash)
            .order_by(row.number.desc())
        )
        async with self._db.read() as session:
            return [_version(one) for one in await session.scalars(query)]

    async def original(self, document_id: str, number: int) -> Original:
        """Its bytes. Raises NotFound."""
        async with self._db.read() as session:
            row = await _row(session, document_id, number)
        found = await asyncio.to_thread(self._blobs.get, row.content_hash)
        if found is None:
            raise NotFound(tell("no_original_left"))
        return found

    async def restore(self, document_id: str, number: int, *, by: str, claimed: bool = False) -> Job:
        """Give a document its former bytes again, and queue a job for it; what it has now becomes a version.

        Raises NotFound, Conflict where it is disabled, TooLarge where the knowledge base has no room.
        """
        original = await self.original(document_id, number)
        async with self._db.session() as session:
            version = await _row(session, document_id, number)
            document = await session.get(DocumentRow, document_id)
            if document is None or document.status == "deleting":
                raise NotFound(tell("no_such_document"))
            base = await session.get(KnowledgeBaseRow, document.kb_id, with_for_update=True)
            if base is None or version.content_hash != original.content_hash:
                raise NotFound(tell("no_such_version"))
            if document.status == "disabled":
                raise Conflict(tell("document_is_disabled"))
            if document.content_hash == version.content_hash and document.live_hash == version.content_hash:
                raise Conflict(tell("version_is_current"))
            count, size = await documents.totals(session, base.id)
            check_quota(base, count, size - document.size + version.size, self._settings)
            job = self._jobs.new_row("ingest", {"kb": base.name}, claimed=claimed)
            session.add(job)
            head = await asyncio.to_thread(original.head, _HEAD)
            values = {
                "content_hash": version.content_hash,
                "size": version.size,
                "media_type": self._media_type(head, document.name),
                "by": by,
            }
            if document.live_hash == document.content_hash:
                former = versions.Former(
                    document.id, document.content_hash, document.size, document.by, version.content_hash
                )
                await versions.keep(session, [former], self._settings.keep_versions)
            else:
                await session.delete(version)
            await documents.queue(session, job.id, [document.id], **values)
        self._jobs.wake()
        return job_of(job)


async def _row(session: AsyncSession, document_id: str, number: int) -> DocumentVersionRow:
    row = DocumentVersionRow
    found = await session.scalar(select(row).where(row.document_id == document_id, row.number == number))
    if found is None:
        raise NotFound(tell("no_such_version"))
    return found


def _version(row: DocumentVersionRow) -> Version:
    return Version(row.number, row.size, row.by, row.created_at, row.content_hash)
