"""Export and import of one knowledge base: its settings and originals, and what people made of them, as one zip file.

Neither secrets nor people go with it: sources come without what they log in with, and who was let in stays behind.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.blobs import Blobs, Original
from core.db.tables import (
    ChunkOverrideRow,
    CuratedRow,
    DocumentRow,
    EvaluationQuestionRow,
    EvaluationSetRow,
    KnowledgeBaseRow,
    SourceRow,
    new_id,
    now,
)
from core.errors import ConfigError, Conflict, KvasirError, TooLarge, UserError
from core.indexing.ingest import Incoming, Outcome, Ticket
from core.kb.kb_settings import FIELDS, PARTS
from core.kb.knowledge import checked_kb_name, kb_row
from core.quality.curated import FOLDER as CURATED_FOLDER
from core.quality.curated import STATES as CURATED_STATES
from core.quality.evaluate import Line
from core.sources.register import NewSource
from core.texts import tell
from core.upkeep.archive import FORMAT, called, manifest_of, new_file, opened
from core.upkeep.archive_index import damage_told
from core.work.jobs import run_job

if TYPE_CHECKING:
    from core.app import Kvasir

_PIECE: Final = 1 << 20
_LARGE: Final = 1 << 30
_LONGEST: Final = 200_000
"""Characters of a text that somebody wrote."""
_MOST: Final = 100_000
"""Sources, curated answers, changes of chunks, or questions."""
_SOURCES: Final = ("url", "sitemap", "git", "rss", "folder")
_ACTIONS: Final = ("edit", "disable", "delete", "add")


# ---------------------------------------------------------------- out
@dataclass(frozen=True, slots=True)
class Export:
    """What is going to be written."""

    blobs: Blobs
    manifest: Mapping[str, Any]
    hashes: tuple[str, ...]

    @property
    def documents(self) -> int:
        return len(self.manifest["documents"])


async def prepare_export(kvasir: Kvasir, kb: str) -> Export:
    """Raises NotFound."""
    async with kvasir.db.read() as session:
        base = await kb_row(session, kb)
        rows = list(
            await session.scalars(
                select(DocumentRow)
                .where(DocumentRow.kb_id == base.id, DocumentRow.status != "deleting")
                .order_by(DocumentRow.name)
            )
        )
        there = await asyncio.to_thread(kvasir.blobs.there, [row.content_hash for row in rows])
        rows = [row for row in rows if row.content_hash in there]
        manifest = {
            "format": FORMAT,
            "kvasir": version("kvasir"),
            "kb": {field: getattr(base, field) for field in FIELDS} | {"name": base.name},
            **await _made(session, base, rows),
        }
    return Export(kvasir.blobs, manifest, tuple(sorted({row.content_hash for row in rows})))


async def _made(session: AsyncSession, base: KnowledgeBaseRow, rows: Sequence[DocumentRow]) -> dict[str, Any]:
    """The documents, and what people made of them; each names the others, since ids are of this place."""
    names = {row.id: row.name for row in rows}
    sources = list(await session.scalars(select(SourceRow).where(SourceRow.kb_id == base.id).order_by(SourceRow.name)))
    brought = {source.id: source.name for source in sources}
    curated = await session.scalars(select(CuratedRow).where(CuratedRow.kb_id == base.id).order_by(CuratedRow.id))
    sets = await session.scalars(
        select(EvaluationSetRow).where(EvaluationSetRow.kb_id == base.id).order_by(EvaluationSetRow.name)
    )
    changes = await session.scalars(
        select(ChunkOverrideRow)
        .join(DocumentRow, DocumentRow.id == ChunkOverrideRow.document_id)
        .where(DocumentRow.kb_id == base.id)
        .order_by(ChunkOverrideRow.created_at, ChunkOverrideRow.id)
    )
    return {
        "documents": [
            {
                "name": row.name,
                "hash": row.content_hash,
                "source": row.source,
                "disabled": row.status == "disabled",
                "from": brought.get(row.source_id or ""),
            }
            for row in rows
        ],
        "sources": [{"name": one.name, "kind": one.kind, "settings": one.settings} for one in sources],
        "overrides": [
            {
                "document": names[one.document_id],
                "action": one.action,
                "original": one.original,
                "text": one.text,
                "place": one.place,
            }
            for one in changes
            if one.document_id in names
        ],
        "curated": [
            {
                "question": one.question,
                "paraphrases": one.paraphrases,
                "text": one.text,
                "state": one.state,
                "reason": one.reason,
                "expires_at": one.expires_at.isoformat() if one.expires_at else None,
                "document": names.get(one.document_id or ""),
                "rests_on": [[names[key], content] for key, content, *_ in one.rests_on if key in names],
            }
            for one in curated
        ],
        "evaluation_sets": [{"name": one.name, "questions": await _questions(session, one.id)} for one in sets],
    }


async def _questions(session: AsyncSession, set_id: str) -> list[dict[str, Any]]:
    rows = await session.scalars(
        select(EvaluationQuestionRow)
        .where(EvaluationQuestionRow.set_id == set_id)
        .order_by(EvaluationQuestionRow.created_at, EvaluationQuestionRow.id)
    )
    return [{"question": row.question, "answers": row.answers, "document": row.document} for row in rows]


def exported(export: Export) -> Iterator[bytes]:
    """The zip file piece by piece; for a thread. An original that went meanwhile is left out."""
    outlet = _Outlet()
    gone: set[str] = set()
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_DEFLATED) as archive:
        for content_hash in export.hashes:
            original = export.blobs.get(content_hash)
            if original is None:
                gone.add(content_hash)
                continue
            large = not isinstance(original.held, bytes) and original.held.stat().st_size > _LARGE
            with archive.open(f"originals/{content_hash}", "w", force_zip64=large) as part:
                for piece in _pieces(original):
                    part.write(piece)
                    yield from outlet.taken()
        documents = [document for document in export.manifest["documents"] if document["hash"] not in gone]
        manifest = {**export.manifest, "documents": documents}
        archive.writestr("manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False))
        yield from outlet.taken()
    yield from outlet.taken()


def _pieces(original: Original) -> Iterator[bytes]:
    if isinstance(original.held, bytes):
        yield original.held
        return
    with original.held.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


class _Outlet:
    """What a zip file writes into, which cannot go back."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """It is no file."""

    def taken(self) -> Iterator[bytes]:
        pieces, self._pieces = self._pieces, []
        if pieces:
            yield b"".join(pieces)


async def export_kb(kvasir: Kvasir, kb: str, file: Path) -> int:
    """Write it into `file`, whole or not at all; gives the number of documents. Raises as `archive.new_file`."""
    export = await prepare_export(kvasir, kb)

    def write() -> None:
        with new_file(file) as target:
            for piece in exported(export):
                target.write(piece)

    await asyncio.to_thread(write)
    return export.documents


# ---------------------------------------------------------------- in
@dataclass(frozen=True, slots=True)
class _Listed:
    name: str
    content_hash: str
    source: str
    disabled: bool
    brought_by: str
    """Name of a source; may be empty."""


async def import_kb(kvasir: Kvasir, file: Path, name: str | None) -> tuple[str, list[Outcome]]:
    """Make a knowledge base of what `export_kb` wrote; gives its name and the outcome of each document."""
    made, ticket = await begin_import(kvasir, file, name)
    await run_job(kvasir.jobs, ticket.job, kvasir.run_job)
    return made, [*ticket.refused, *ticket.unchanged, *await kvasir.ingest.outcomes(ticket.job.id)]


async def begin_import(kvasir: Kvasir, file: Path | BinaryIO, name: str | None, *, by: str = "") -> tuple[str, Ticket]:
    """Make the knowledge base, and a job that is claimed for its documents; `file` is needed no more then.

    The file may be hostile: sizes and hashes are checked before anything is made, and whatever fails later takes the
    knowledge base away again. Raises UserError, TooLarge, Conflict or KvasirError.
    """
    with opened(file) as archive:
        manifest = await asyncio.to_thread(manifest_of, archive, file)
        if not isinstance(manifest.get("kb"), dict) or not isinstance(manifest.get("documents"), list):
            raise UserError(tell("not_an_export", file=called(file)))
        with damage_told():
            listed = [_listed(document) for document in manifest["documents"]]
            _check_totals(kvasir, archive, listed)
            await asyncio.to_thread(_check_originals, archive, listed)
            made_of_it = await asyncio.to_thread(_Made.read, manifest)
        base = checked_kb_name(name or str(manifest["kb"].get("name", "")))
        made = await kvasir.knowledge.create(base, **await _settings(kvasir, manifest["kb"]))
        try:
            ticket = await _enter(kvasir, archive, made.name, listed, made_of_it, by)
        except BaseException:
            await asyncio.shield(kvasir.knowledge.delete(made.name))
            raise
    return made.name, ticket


async def _enter(
    kvasir: Kvasir, archive: zipfile.ZipFile, kb: str, listed: Sequence[_Listed], made: _Made, by: str
) -> Ticket:
    async def incoming() -> AsyncIterator[Incoming]:
        for one in listed:
            part = archive.getinfo(f"originals/{one.content_hash}")  # its size is known before it is unpacked
            read = functools.partial(archive.read, part)
            yield Incoming(made.renamed.get(one.name, one.name), read, one.source, part.file_size)

    ticket = await kvasir.ingest.submit(kb, incoming(), claimed=True, by=by)
    sources: dict[str, str] = {}
    left_out: list[Outcome] = []
    for name, kind, settings in made.sources:
        try:
            sources[name] = (await kvasir.sources.create(NewSource(kb, name, kind, settings))).id
        except (UserError, ConfigError, Conflict) as error:  # e.g. a folder that is not to be read here
            left_out.append(Outcome(name, "failed", 0, str(error)))
    async with kvasir.db.session() as session:
        base = await kb_row(session, kb)
        rows = await session.execute(select(DocumentRow.name, DocumentRow.id).where(DocumentRow.kb_id == base.id))
        await made.write(session, base.id, dict(iter(rows)), by)
        await _mark(session, base.id, [(made.renamed.get(one.name, one.name), one) for one in listed], sources)
    for name, lines in made.sets:
        found = await kvasir.evaluations.create(kb, name)
        await kvasir.evaluations.bring_in(found.id, lines)
    return replace(ticket, refused=(*ticket.refused, *left_out))


async def _mark(
    session: AsyncSession, kb_id: str, documents: Sequence[tuple[str, _Listed]], sources: Mapping[str, str]
) -> None:
    """Documents (by the name they have here) that a source brought, and those that are disabled."""
    of_name = update(DocumentRow).where(DocumentRow.kb_id == kb_id)
    for name, one in documents:
        values: dict[str, Any] = {"source_id": sources[one.brought_by]} if one.brought_by in sources else {}
        if one.disabled:
            values |= {"status": "disabled", "job_id": None}
        if values:
            await session.execute(of_name.where(DocumentRow.name == name).values(**values))


async def _settings(kvasir: Kvasir, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the export; an engine, embedder or reranker that is not there is left to the settings."""
    found = {field: given[field] for field in FIELDS if field in given}
    for field, kind in PARTS.items():
        if found.get(field) and found[field] not in await kvasir.knowledge.part_names(kind):
            del found[field]
    if isinstance(found.get("fallbacks"), list):
        there = await kvasir.knowledge.part_names("engine")
        found["fallbacks"] = [name for name in found["fallbacks"] if name in there]
    return found


def _listed(document: Any) -> _Listed:
    return _Listed(
        str(document["name"]),
        str(document["hash"]),
        str(document.get("source", "")),
        document.get("disabled") is True,
        str(document.get("from") or ""),
    )


def _check_totals(kvasir: Kvasir, archive: zipfile.ZipFile, listed: Sequence[_Listed]) -> None:
    """Before anything is unpacked. Raises TooLarge, and KeyError where an original is not there."""
    limits = kvasir.settings.ingest
    if len(listed) > limits.max_documents:
        raise TooLarge(tell("import_too_many", most=limits.max_documents))
    hashes = {one.content_hash for one in listed}
    size = sum(archive.getinfo(f"originals/{content_hash}").file_size for content_hash in hashes)
    if size > limits.max_kb_mb << 20:
        raise TooLarge(tell("import_too_large", most=limits.max_kb_mb))


def _check_originals(archive: zipfile.ZipFile, listed: Sequence[_Listed]) -> None:
    """Before anything is made: every original is what it says it is."""
    for content_hash in dict.fromkeys(one.content_hash for one in listed):
        with archive.open(f"originals/{content_hash}") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != content_hash:  # type: ignore[arg-type]
                raise KvasirError(tell("backup_part_damaged", name=content_hash[:80]))


@dataclass(frozen=True, slots=True)
class _Made:
    """What people made of the documents, as the file has it."""

    overrides: tuple[Mapping[str, Any], ...]
    sources: tuple[tuple[str, str, Mapping[str, Any]], ...]
    """Name, kind, settings."""
    curated: tuple[Mapping[str, Any], ...]
    """With the `id` each gets here."""
    sets: tuple[tuple[str, list[Line]], ...]
    renamed: Mapping[str, str]
    """Documents that hold a curated answer are named by its id."""

    @classmethod
    def read(cls, manifest: Mapping[str, Any]) -> _Made:
        """Raises KeyError, TypeError or ValueError for what cannot be so."""
        curated: tuple[dict[str, Any], ...] = tuple(
            {
                "id": new_id(),
                "question": _text(one["question"]),
                "paraphrases": [_text(item) for item in one["paraphrases"]],
                "text": _text(one["text"]),
                "state": _one_of(one["state"], CURATED_STATES),
                "reason": _text(one.get("reason", "")),
                "expires_at": _time(one.get("expires_at")),
                "document": one.get("document"),
                "rests_on": [(_text(name), _text(content)) for name, content in one.get("rests_on", ())],
            }
            for one in _entries(manifest, "curated")
        )
        return cls(
            overrides=tuple(
                {
                    "document": _text(one["document"]),
                    "action": _one_of(one["action"], _ACTIONS),
                    "original": _text(one["original"]),
                    "text": _text(one["text"]),
                    "place": one["place"] if isinstance(one.get("place"), int) else None,
                }
                for one in _entries(manifest, "overrides")
            ),
            sources=tuple(
                (_text(one["name"]), _one_of(one["kind"], _SOURCES), dict(one["settings"]))
                for one in _entries(manifest, "sources")
            ),
            curated=curated,
            sets=tuple(
                (
                    _text(one["name"]),
                    [
                        Line(_text(line["question"]), tuple(map(_text, line["answers"])), _text(line["document"]))
                        for line in one["questions"]
                    ],
                )
                for one in _entries(manifest, "evaluation_sets")
            ),
            renamed={one["document"]: f"{CURATED_FOLDER}/{one['id']}.md" for one in curated if one["document"]},
        )

    async def write(self, session: AsyncSession, kb_id: str, ids: Mapping[str, str], by: str) -> None:
        """Changes of chunks, and curated answers; `ids` are those of the documents by name."""
        moment = now()
        for number, one in enumerate(self.overrides):
            if one["document"] in ids:
                values = {key: value for key, value in one.items() if key != "document"}
                at = moment + timedelta(microseconds=number)  # their order counts
                session.add(ChunkOverrideRow(document_id=ids[one["document"]], by=by, created_at=at, **values))
        for one in self.curated:
            values = {key: value for key, value in one.items() if key != "document"}
            values["rests_on"] = [[ids[name], content] for name, content in one["rests_on"] if name in ids]
            document = ids.get(self.renamed.get(one["document"] or "", ""))
            session.add(CuratedRow(kb_id=kb_id, document_id=document, created_by=by, **values))


def _entries(manifest: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = manifest.get(key, [])
    if not isinstance(found, list) or len(found) > _MOST or not all(isinstance(one, dict) for one in found):
        raise ValueError(key)
    return found


def _text(value: Any) -> str:
    """With neither NUL, which PostgreSQL does not take, nor half a character."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError("text")
    return value.replace("\0", "").encode("utf-8", "replace").decode()


def _one_of(value: Any, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ValueError(str(value)[:40])
    return str(value)


def _time(value: Any) -> datetime | None:
    if value is None:
        return None
    at = datetime.fromisoformat(value)
    if at.tzinfo is None:
        raise ValueError("time")
    return at
