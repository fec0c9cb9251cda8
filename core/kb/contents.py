"""What is in a knowledge base and rests on it: all that goes with it when it is deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select

from core.db.session import Database
from core.db.tables import (
    ChannelRow,
    ChunkOverrideRow,
    CuratedRow,
    DocumentRow,
    DocumentVersionRow,
    EvaluationSetRow,
    KbGrantRow,
    SourceRow,
)
from core.kb.knowledge import kb_row


@dataclass(frozen=True, slots=True)
class Contents:
    documents: int
    size: int
    """Bytes of all originals."""
    channels: tuple[str, ...]
    """Those that ask it, in words."""
    chunks: int
    versions: int
    """Former ones of documents."""
    overrides: int
    """Changes of chunks."""
    sources: int
    curated: int
    evaluation_sets: int
    grants: int


async def contents(db: Database, kb: str) -> Contents:
    """Raises NotFound."""
    async with db.read() as session:
        row = await kb_row(session, kb)
        document = DocumentRow.kb_id == row.id
        ids = select(DocumentRow.id).where(document)
        counts = {
            "documents": _count(document & (DocumentRow.status != "deleting")),
            "size": select(func.coalesce(func.sum(DocumentRow.size), 0)).where(document),
            "chunks": select(func.coalesce(func.sum(DocumentRow.chunks), 0)).where(document),
            "versions": _count(DocumentVersionRow.document_id.in_(ids)),
            "overrides": _count(ChunkOverrideRow.document_id.in_(ids)),
            "sources": _count(SourceRow.kb_id == row.id),
            "curated": _count(CuratedRow.kb_id == row.id),
            "evaluation_sets": _count(EvaluationSetRow.kb_id == row.id),
            "grants": _count(KbGrantRow.kb_id == row.id),
        }
        found = (await session.execute(select(*(query.scalar_subquery() for query in counts.values())))).one()
        channels = await session.execute(
            select(ChannelRow.platform, ChannelRow.name, ChannelRow.channel, ChannelRow.kbs).where(
                ChannelRow.kbs.is_not(None)
            )
        )
        bound = [f"{platform}: {title or key or '*'}" for platform, title, key, kbs in channels if kb in kbs]
    return Contents(channels=tuple(sorted(bound)), **dict(zip(counts, map(int, found), strict=True)))


def _count(which: ColumnElement[bool]) -> Any:
    return select(func.count()).where(which)
