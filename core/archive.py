"""Backup and restore of everything, and export and import of one knowledge base; one zip file each, no pickle.

A backup holds every table as JSON lines, so that it can be restored into another kind of database, and the originals
of all documents; indexes are built again from these, or copied where the store can.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, Boolean, func, insert, select
from sqlalchemy import Table as SqlTable

import core.db.migrate
from core.blobs import Blobs
from core.db.session import Database
from core.db.tables import DocumentRow, KnowledgeBaseRow, Table, UtcDateTime
from core.errors import Conflict, KvasirError, UserError
from core.ingest import Incoming, Outcome
from core.jobs import run_job
from core.knowledge import checked_kb_name, kb_row
from core.settings import Settings

if TYPE_CHECKING:
    from core.app import Kvasir

_FORMAT = 1
_LEFT_OUT = frozenset({"sessions", "one_time_tokens", "login_failures"})
"""Tables that no backup needs: logins are made anew."""
_PAGE = 500


# ---------------------------------------------------------------- everything
async def backup(kvasir: Kvasir, file: Path) -> int:
    """Write everything into `file`, whole or not at all; gives the number of documents."""
    if file.exists():
        raise Conflict(f"{file} exists already; name another file.")
    partial = file.with_name(f".{file.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            count = await _write_everything(kvasir, archive)
        partial.rename(file)
    except OSError as error:
        raise KvasirError(f"The backup could not be written to {file} ({error.strerror}).") from error
    finally:
        partial.unlink(missing_ok=True)
    return count


async def _write_everything(kvasir: Kvasir, archive: zipfile.ZipFile) -> int:
    blobs = Blobs(kvasir.settings.data_dir / "blobs")
    hashes: set[str] = set()
    async with kvasir.db.read() as session:
        counts: dict[str, int] = {}
        for table in _tables():
            lines = [
                json.dumps({key: _to_json(value) for key, value in row.items()}, ensure_ascii=False)
                for row in (await session.execute(select(table))).mappings()
            ]
            archive.writestr(f"tables/{table.name}.jsonl", "\n".join(lines))
            counts[table.name] = len(lines)
        for content, live in await session.execute(select(DocumentRow.content_hash, DocumentRow.live_hash)):
            hashes |= {item for item in (content, live) if item}
    for content_hash in sorted(hashes):
        if blobs.has(content_hash):
            await asyncio.to_thread(archive.write, blobs.path(content_hash), f"originals/{content_hash}")
    copy = getattr(kvasir.store, "backup", None)
    if copy is not None:
        with tempfile.TemporaryDirectory() as folder:
            await copy(Path(folder, "store"))
            await asyncio.to_thread(archive.write, Path(folder, "store"), f"store/{kvasir.settings.store.kind}")
    manifest = {
        "format": _FORMAT,
        "kvasir": version("kvasir"),
        "revision": core.db.migrate.newest_revision(),
        "store": kvasir.settings.store.kind if copy else "",
        "rows": counts,
    }
    archive.writestr("manifest.json", json.dumps(manifest, indent=2))
    return counts["documents"]


async def restore(settings: Settings, file: Path) -> int:
    """Bring a backup into an empty place; gives the number of documents. Raises Conflict where it is not empty."""
    with _opened(file) as archive:
        manifest = _manifest(archive)
        if "rows" not in manifest:
            raise UserError(f"{file} is not a backup; bring an exported knowledge base in with «kvasir kb import».")
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        db = Database(settings.database_url)
        try:
            await core.db.migrate.upgrade(db)
            await _refuse_unless_empty(db)
            blobs = Blobs(settings.data_dir / "blobs")
            for name in archive.namelist():
                if name.startswith("originals/"):
                    await asyncio.to_thread(_restore_original, archive, name, blobs)
            _restore_store(archive, manifest, settings)
            async with db.session() as session:
                for table in _tables():
                    await _restore_rows(session, table, archive)
                if manifest.get("store") != settings.store.kind:
                    await _index_again(session)
                return await session.scalar(select(func.count()).select_from(DocumentRow)) or 0
        finally:
            await db.close()


async def _refuse_unless_empty(db: Database) -> None:
    async with db.read() as session:
        for table in _tables():
            if await session.scalar(select(func.count()).select_from(table)):
                raise Conflict(
                    "There is data already; restore into an empty data directory (--data-dir) and an empty database."
                )


def _restore_original(archive: zipfile.ZipFile, name: str, blobs: Blobs) -> None:
    blob = blobs.put(archive.read(name))
    if blob.content_hash != name.removeprefix("originals/"):
        raise KvasirError(f"The backup is damaged: {name} does not match its hash.")


def _restore_store(archive: zipfile.ZipFile, manifest: dict[str, Any], settings: Settings) -> None:
    if manifest.get("store") != settings.store.kind or settings.store.kind != "local":
        return
    target = settings.data_dir / "index.db"
    if target.exists():
        raise Conflict(f"{target} exists already; restore into an empty data directory (--data-dir).")
    partial = target.with_suffix(".partial")
    with archive.open("store/local") as source, partial.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    partial.rename(target)


async def _restore_rows(session: Any, table: SqlTable, archive: zipfile.ZipFile) -> None:
    name = f"tables/{table.name}.jsonl"
    if name not in archive.namelist():
        return
    lines = [line for line in archive.read(name).decode().splitlines() if line]
    for start in range(0, len(lines), _PAGE):
        rows = [_from_json(table, json.loads(line)) for line in lines[start : start + _PAGE]]
        await session.execute(insert(table), rows)


async def _index_again(session: Any) -> None:
    """Without its store a document has to come in again; `recover` queues what the store lacks."""
    for row in await session.scalars(select(KnowledgeBaseRow)):
        row.live_generation_id = None
    for row in await session.scalars(select(DocumentRow)):
        row.status, row.stage = "queued", "stored"


# ---------------------------------------------------------------- one knowledge base
async def export_kb(kvasir: Kvasir, name: str, file: Path) -> int:
    """Write a knowledge base's settings and originals into `file`; gives the number of documents."""
    if file.exists():
        raise Conflict(f"{file} exists already; name another file.")
    async with kvasir.db.read() as session:
        base = await kb_row(session, name)
        rows = list(
            await session.scalars(
                select(DocumentRow)
                .where(DocumentRow.kb_id == base.id, DocumentRow.status != "deleting")
                .order_by(DocumentRow.name)
            )
        )
    blobs = Blobs(kvasir.settings.data_dir / "blobs")
    there = [row for row in rows if blobs.has(row.content_hash)]
    manifest = {
        "format": _FORMAT,
        "kvasir": version("kvasir"),
        "kb": {key: getattr(base, key) for key in _KB_SETTINGS} | {"name": base.name},
        "documents": [{"name": row.name, "hash": row.content_hash, "source": row.source} for row in there],
    }
    partial = file.with_name(f".{file.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            for content_hash in sorted({row.content_hash for row in there}):
                await asyncio.to_thread(archive.write, blobs.path(content_hash), f"originals/{content_hash}")
            archive.writestr("manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False))
        partial.rename(file)
    except OSError as error:
        raise KvasirError(f"The export could not be written to {file} ({error.strerror}).") from error
    finally:
        partial.unlink(missing_ok=True)
    return len(there)


_KB_SETTINGS = ("description", "private", "chunk_size", "chunk_overlap", "title_enhance")


async def import_kb(kvasir: Kvasir, file: Path, name: str | None) -> tuple[str, list[Outcome]]:
    """Make a knowledge base of what `export_kb` wrote; gives its name and the outcome of each document."""
    with _opened(file) as archive:
        manifest = _manifest(archive)
        if not isinstance(manifest.get("kb"), dict):
            raise UserError(f"{file} is not an exported knowledge base.")
        given = manifest["kb"]
        made = await kvasir.knowledge.create(
            checked_kb_name(name or str(given.get("name", ""))),
            **{key: given[key] for key in _KB_SETTINGS if key in given},
        )

        async def incoming() -> AsyncIterator[Incoming]:
            for document in manifest.get("documents", []):
                data = await asyncio.to_thread(archive.read, f"originals/{document['hash']}")
                if hashlib.sha256(data).hexdigest() != document["hash"]:
                    raise KvasirError(f"The file is damaged: «{document['name']}» does not match its hash.")
                yield Incoming(str(document["name"]), lambda data=data: data, str(document.get("source", "")))  # type: ignore[misc]

        ticket = await kvasir.ingest.submit(made.name, incoming(), claimed=True)
    await run_job(kvasir.jobs, ticket.job, kvasir.run_job)
    return made.name, [*ticket.refused, *ticket.unchanged, *await kvasir.ingest.outcomes(ticket.job.id)]


# ---------------------------------------------------------------- shared
def _tables() -> Iterator[SqlTable]:
    """In an order that foreign keys allow."""
    return (table for table in Table.metadata.sorted_tables if table.name not in _LEFT_OUT)


def _opened(file: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {file}.") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is not a backup of Kvasir, or it is damaged.") from error


def _manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    try:
        manifest = json.loads(archive.read("manifest.json"))
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError("The file has no manifest of Kvasir; it is damaged or something else.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise UserError("Another version of Kvasir wrote this file; use that version to read it.")
    return manifest


def _to_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _from_json(table: SqlTable, row: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for column in table.columns:
        value = row.get(column.name)
        if value is not None and isinstance(column.type, UtcDateTime):
            value = datetime.fromisoformat(value)
        elif value is not None and isinstance(column.type, Boolean):
            value = bool(value)
        elif value is None and isinstance(column.type, JSON):
            value = {}
        found[column.name] = value
    return found
