"""The documents of a knowledge base as a person looks after them: found, counted, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import ColumnElement, Executable, case, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.session import Database
from core.db.tables import ChunkOverrideRow, DocumentRow, DocumentVersionRow, KnowledgeBaseRow, SourceRow
from core.kb.knowledge import DocumentInfo, Knowledge, document_info, kb_row
from core.settings import IngestSettings
from core.types import Metadata

Sort: TypeAlias = Literal["name", "size", "chunks", "updated_at", "created_at", "status"]

_PAGE: Final = 500
_FROM_THE_WEB: Final = "web"
_MOST_KINDS: Final = 100


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which documents a list shows; what is empty narrows nothing down."""

    status: str = ""
    kind: str = ""
    """A media type."""
    source: str = ""
    """upload, folder, web, curated, or the id of a source."""
    text: str = ""
    """Part of its name or title."""
    duplicates: bool = False
    """Only those whose bytes another document has too."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A document in a list."""

    info: DocumentInfo
    by: str
    """Who put its newest bytes in, where that is known."""
    source_id: str | None
    is_live: bool
    """Whether it is searched, perhaps in a former version."""
    copies: int
    """Other documents of the knowledge base with the same bytes."""
    versions: int
    """Former versions that are kept."""
    changes: int
    """Overrides of its chunks."""
    changes_lost: int
    """Those whose chunk was not found when it was last indexed."""
    metadata: Metadata
    """What the file says of itself."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many documents share something."""

    value: str
    name: str
    documents: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What there is in a knowledge base, and how much more may be."""

    documents: int
    bytes: int
    max_documents: int
    max_bytes: int
    version_bytes: int
    """Bytes of former versions; they do not count against the limit."""
    duplicates: int
    """Documents whose bytes another one has too."""
    statuses: Sequence[Count]
    kinds: Sequence[Count]
    sources: Sequence[Count]


class Documents:
    """Lists documents."""

    def __init__(self, db: Database, knowledge: Knowledge, settings: IngestSettings) -> None:
        self._db = db
        self._knowledge = knowledge
        self._settings = settings

    async def page(
        self,
        kb: str,
        wanted: Wanted,
        *,
        sort: Sort = "name",
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[Listed], int]:
        """A page of documents, and how many there are in all; the number of statements hangs on nothing."""
        async with self._db.read() as session:
            base = await kb_row(session, kb)
            conditions = where(base.id, wanted)
            total = await session.scalar(select(func.count()).select_from(DocumentRow).where(*conditions)) or 0
            column = getattr(DocumentRow, sort)
            order = [column.desc() if descending else column, DocumentRow.name]
            if wanted.duplicates:
                order.insert(0, DocumentRow.content_hash)
            rows = list(
                await session.scalars(
                    select(DocumentRow).where(*conditions).order_by(*order).limit(limit).offset(offset)
                )
            )
            return await _listed(session, base, rows), total

    async def get(self, document_id: str) -> Listed:
        """One as lists show it. Raises NotFound."""
        info = await self._knowledge.document(document_id)
        async with self._db.read() as session:
            base = await kb_row(session, info.kb)
            row = await session.get_one(DocumentRow, document_id)
            (found,) = await _listed(session, base, [row])
        return found

    async def copies(self, document_id: str) -> Sequence[tuple[str, str]]:
        """Id and name of the other documents of its knowledge base with the same bytes."""
        async with self._db.read() as session:
            row = await session.get_one(DocumentRow, document_id)
            same = await session.execute(
                select(DocumentRow.id, DocumentRow.name)
                .where(
                    DocumentRow.kb_id == row.kb_id,
                    DocumentRow.content_hash == row.content_hash,
                    DocumentRow.status != "deleting",
                    DocumentRow.id != row.id,
                )
                .order_by(DocumentRow.name)
                .limit(_PAGE)
            )
            return [(key, name) for key, name in same]

    async def summary(self, kb: str) -> Summary:
        """Counts by status, kind and source, and the limits."""
        async with self._db.read() as session:
            base = await kb_row(session, kb)
            conditions = where(base.id, Wanted())
            size = await session.scalar(select(func.coalesce(func.sum(DocumentRow.size), 0)).where(*conditions)) or 0
            statuses = await _counts(session, DocumentRow.status, conditions)
            kinds = await _counts(session, DocumentRow.media_type, conditions)
            sources = await _counts(session, _ORIGIN, conditions)
            names = await _by_key(session, select(SourceRow.id, SourceRow.name).where(SourceRow.kb_id == base.id))
            twice = select(func.count()).select_from(DocumentRow).where(*where(base.id, Wanted(duplicates=True)))
            duplicates = await session.scalar(twice) or 0
            kept = select(func.coalesce(func.sum(DocumentVersionRow.size), 0)).join(
                DocumentRow, DocumentRow.id == DocumentVersionRow.document_id
            )
            version_bytes = await session.scalar(kept.where(DocumentRow.kb_id == base.id)) or 0
        settings = self._settings
        return Summary(
            documents=sum(count for _, count in statuses),
            bytes=int(size),
            max_documents=min(settings.max_documents, base.max_documents or settings.max_documents),
            max_bytes=min(settings.max_kb_mb, base.max_mb or settings.max_kb_mb) << 20,
            version_bytes=int(version_bytes),
            duplicates=duplicates,
            statuses=[Count(value, value, count) for value, count in statuses],
            kinds=[Count(value, value, count) for value, count in kinds],
            sources=[Count(value, names.get(value, value), count) for value, count in sources],
        )


# ---------------------------------------------------------------- statements
_ORIGIN: Final = case(
    (DocumentRow.source_id.is_not(None), DocumentRow.source_id),
    (DocumentRow.source.like("http%"), _FROM_THE_WEB),
    else_=DocumentRow.source,
)


def where(kb_id: str, wanted: Wanted) -> tuple[ColumnElement[bool], ...]:
    """The conditions that narrow the documents of a knowledge base down."""
    found: tuple[ColumnElement[bool], ...] = (DocumentRow.kb_id == kb_id, DocumentRow.status != "deleting")
    if wanted.duplicates:
        content_hash = DocumentRow.content_hash
        twice = select(content_hash).where(*found).group_by(content_hash).having(func.count() > 1)
        found += (content_hash.in_(twice),)
    if wanted.status:
        found += (DocumentRow.status == wanted.status,)
    if wanted.kind:
        found += (DocumentRow.media_type == wanted.kind,)
    if wanted.source:
        found += (_ORIGIN.__eq__(wanted.source),)
    if wanted.text:
        name, title = DocumentRow.name, DocumentRow.title
        found += (name.icontains(wanted.text, autoescape=True) | title.icontains(wanted.text, autoescape=True),)
    return found


async def _counts(
    session: AsyncSession, column: Any, conditions: Sequence[ColumnElement[bool]]
) -> Sequence[tuple[str, int]]:
    """The commonest first."""
    each = select(column.label("value")).where(*conditions).subquery()
    number = func.count()
    query = select(each.c.value, number).group_by(each.c.value).order_by(number.desc(), each.c.value)
    return [(value, count) for value, count in await session.execute(query.limit(_MOST_KINDS))]


async def _by_key(session: AsyncSession, query: Executable) -> dict[str, Any]:
    """The second column of what is found by the first."""
    return {row[0]: row[1] for row in await session.execute(query)}


async def _listed(session: AsyncSession, base: KnowledgeBaseRow, rows: Sequence[DocumentRow]) -> list[Listed]:
    ids = [row.id for row in rows]
    same = (
        select(DocumentRow.content_hash, func.count())
        .where(*where(base.id, Wanted()), DocumentRow.content_hash.in_({row.content_hash for row in rows}))
        .group_by(DocumentRow.content_hash)
    )
    copies = await _by_key(session, same)
    version, change = DocumentVersionRow, ChunkOverrideRow
    kept = select(version.document_id, func.count()).where(version.document_id.in_(ids)).group_by(version.document_id)
    versions = await _by_key(session, kept)
    lost = func.sum(case((change.applied, 0), else_=1))
    changed = (
        select(change.document_id, func.count(), lost).where(change.document_id.in_(ids)).group_by(change.document_id)
    )
    changes = {key: (count, int(missing)) for key, count, missing in await session.execute(changed)}
    return [
        Listed(
            info=document_info(row, base.name),
            by=row.by,
            source_id=row.source_id,
            is_live=row.live_hash is not None,
            copies=copies.get(row.content_hash, 1) - 1,
            versions=versions.get(row.id, 0),
            changes=changes.get(row.id, (0, 0))[0],
            changes_lost=changes.get(row.id, (0, 0))[1],
            metadata=row.meta,
        )
        for row in rows
    ]
