"""Finds the curated answer to a question, from memory; the database is asked again only when one has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import select

from core.answering.sameness import Asked, normalised, same
from core.db.session import Database
from core.db.tables import CuratedRow, DocumentRow, KnowledgeBaseRow, now
from core.types import Locator, Passage

logger = logging.getLogger(__name__)

GIVEN: Final = ("active", "review")
"""States of curated answers that are given."""
_MOST_SOURCES: Final = 20
_PAGE: Final = 500
_EMBED_SECONDS: Final = 10.0
_MOST_OPEN: Final = 8
"""Questions that are compared word by word with an embedder."""


class Version(NamedTuple):
    """Changes whenever a curated answer of a knowledge base does."""

    answers: int
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Rest:
    """A document that a curated answer rests on."""

    document_id: str
    name: str
    title: str


@dataclass(frozen=True, slots=True)
class Given:
    """A curated answer as it is given."""

    id: str
    kb: str
    text: str
    document_id: str
    is_marked: bool
    """A document it rests on has changed since it was written."""
    expires_at: datetime | None
    rests_on: tuple[Rest, ...]

    def passages(self, title: str) -> tuple[Passage, ...]:
        """What it cites: itself under this title, then what it rests on."""
        own = Passage(self.kb, self.document_id, f"curated/{self.id}.md", title, 0, self.text, (), Locator(), 1.0)
        rest = [
            Passage(self.kb, one.document_id, one.name, one.title or one.name, 0, "", (), Locator(), 1.0)
            for one in self.rests_on[:_MOST_SOURCES]
        ]
        return (own, *rest)


@dataclass(frozen=True, slots=True)
class _Base:
    """What is remembered of one knowledge base."""

    version: Version
    exact: Mapping[str, Given]
    asked: Mapping[tuple[object, ...], Sequence[tuple[Asked, Given]]]
    """By what must be equal, `Asked.marks`."""
    expiring: Sequence[Given]


class CuratedMatch:
    """The curated answers of each knowledge base that was asked, as they were when they last changed."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._bases: dict[str, _Base] = {}

    async def find(self, question: str, versions: Mapping[str, Version]) -> Given | None:
        """The answer that was written for this question in one of the knowledge bases."""
        there = [await self._base(kb, version) for kb, version in versions.items() if version.answers]
        if not there:
            return None
        normal = normalised(question)
        moment = now()
        for base in there:
            found = base.exact.get(normal)
            if found is not None and not _is_over(found, moment):
                return found
        asked = Asked(question)
        if not asked.is_comparable:
            return None
        for base in there:
            if (found := _alike(asked, base, moment)) is not None:
                return found
        return None

    async def ended(self, versions: Mapping[str, Version]) -> frozenset[str]:
        """Ids of the documents of those that have expired: until the next check they can be found still."""
        moment = now()
        there = [await self._base(kb, version) for kb, version in versions.items() if version.answers]
        return frozenset(one.document_id for base in there for one in base.expiring if _is_over(one, moment))

    async def _base(self, kb: str, version: Version) -> _Base:
        known = self._bases.get(kb)
        if known is None or known.version != version:
            known = self._bases[kb] = await self._load(kb, version)
        return known

    async def _load(self, kb: str, version: Version) -> _Base:
        query = (
            select(CuratedRow)
            .join(KnowledgeBaseRow, KnowledgeBaseRow.id == CuratedRow.kb_id)
            .where(KnowledgeBaseRow.name == kb, CuratedRow.state.in_(GIVEN))
            .order_by(CuratedRow.created_at.desc(), CuratedRow.id)
        )
        async with self._db.read() as session:
            rows = list(await session.scalars(query))
            wanted = sorted({key for row in rows for key, *_ in row.rests_on})
            documents: dict[str, Rest] = {}
            for start in range(0, len(wanted), _PAGE):
                page = select(DocumentRow.id, DocumentRow.name, DocumentRow.title).where(
                    DocumentRow.id.in_(wanted[start : start + _PAGE]), DocumentRow.status != "deleting"
                )
                documents |= {key: Rest(key, name, title) for key, name, title in await session.execute(page)}
        return await asyncio.to_thread(_base, kb, version, rows, documents)


def _base(kb: str, version: Version, rows: Sequence[CuratedRow], documents: Mapping[str, Rest]) -> _Base:
    exact: dict[str, Given] = {}
    asked: dict[tuple[object, ...], list[tuple[Asked, Given]]] = {}
    for row in rows:
        rests_on = tuple(documents[key] for key, *_ in row.rests_on if key in documents)
        given = Given(row.id, kb, row.text, row.document_id or "", row.state == "review", row.expires_at, rests_on)
        for text in (row.question, *row.paraphrases):
            one = Asked(text)
            exact.setdefault(one.normal, given)  # of two answers to one question the newer is given
            if one.is_comparable:
                asked.setdefault(one.marks, []).append((one, given))
    expiring = {given.id: given for given in exact.values() if given.expires_at is not None}
    return _Base(version, exact, asked, tuple(expiring.values()))


def _alike(asked: Asked, base: _Base, moment: datetime) -> Given | None:
    """The one answer to a question that is the same in other words; None also where there are two."""
    near = base.asked.get(asked.marks, ())
    found = {given.id: given for other, given in near if not _is_over(given, moment) and same(asked, other)}
    return next(iter(found.values())) if len(found) == 1 else None


def _is_over(given: Given, moment: datetime) -> bool:
    return given.expires_at is not None and given.expires_at <= moment
