"""Backup and restore of everything, and export and import of one knowledge base; one zip file each, no pickle.

A backup holds every table as JSON lines, so that it can be restored into another kind of database, and the originals
of all documents; indexes are built again from these, or copied where the store can.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, Boolean, delete, func, insert, select, update
from sqlalchemy import Table as SqlTable
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncSession

import core.db.migrate
from core.blobs import Blobs
from core.db.session import Database
from core.db.tables import DocumentRow, GenerationRow, JobRow, KnowledgeBaseRow, Table, UtcDateTime, new_id, now
from core.errors import ConfigError, Conflict, KvasirError, StorageFull, UserError
from core.ingest import Incoming, Outcome
from core.jobs import run_job
from core.knowledge import checked_kb_name, kb_row
from core.settings import Settings
from core.texts import tell

if TYPE_CHECKING:
    from core.app import Kvasir

_FORMAT = 1
_LEFT_OUT = frozenset({"sessions", "one_time_tokens", "login_failures", "platform_state"})
"""Tables that no backup needs: logins are made anew, here and with the platforms."""
_PAGE = 500
_STORE_FILE = "index.db"


# ---------------------------------------------------------------- everything
async def backup(kvasir: Kvasir, file: Path) -> int:
    """Write everything into `file`, whole or not at all; gives the number of documents."""
    with _new_archive(file) as archive:
        return await _write_everything(kvasir, archive)


async def _write_everything(kvasir: Kvasir, archive: zipfile.ZipFile) -> int:
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
    with closing(Blobs(kvasir.settings.data_dir / "blobs")) as blobs:
        for content_hash in sorted(hashes):
            await asyncio.to_thread(_write_original, archive, blobs, content_hash)
    copy = getattr(kvasir.store, "backup", None)
    if copy is not None:
        with tempfile.TemporaryDirectory(dir=kvasir.settings.data_dir) as folder:
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
    """Bring a backup into an empty place; gives the number of documents. Raises Conflict where it is not empty.

    Stopped before its end, it leaves no rows, and can be run again.
    """
    with _opened(file) as archive:
        manifest = _manifest(archive, file)
        if "rows" not in manifest:
            raise UserError(tell("backup_is_export", file=file))
        _make_folder(settings.data_dir)
        with _store_file(archive, manifest, settings) as store_file:
            db = Database(settings.database_url)
            try:
                await core.db.migrate.upgrade(db)
                await _refuse_unless_empty(db)
                count = await _restore_everything(db, archive, settings, has_store=store_file is not None)
            finally:
                await db.close()
            if store_file is not None:  # last: were it missing, its documents would come in again
                store_file.rename(settings.data_dir / _STORE_FILE)
    return count


async def _restore_everything(db: Database, archive: zipfile.ZipFile, settings: Settings, *, has_store: bool) -> int:
    with closing(Blobs(settings.data_dir / "blobs")) as blobs, _damage_told():
        for name in archive.namelist():
            if name.startswith("originals/"):
                await asyncio.to_thread(_restore_original, archive, name, blobs)
        async with db.session() as session:
            for table in _tables():
                await _restore_rows(session, table, archive)
            if not has_store:
                await _index_again(session)
            return await session.scalar(select(func.count()).select_from(DocumentRow)) or 0


async def _refuse_unless_empty(db: Database) -> None:
    async with db.read() as session:
        for table in _tables():
            if await session.scalar(select(func.count()).select_from(table)):
                raise Conflict(tell("restore_not_empty"))


def _write_original(archive: zipfile.ZipFile, blobs: Blobs, content_hash: str) -> None:
    """Where it is there."""
    original = blobs.get(content_hash)
    if original is None:
        return
    name = f"originals/{content_hash}"
    if isinstance(original.held, bytes):
        archive.writestr(name, original.held)
    else:
        archive.write(original.held, name)


def _restore_original(archive: zipfile.ZipFile, name: str, blobs: Blobs) -> None:
    blob = blobs.put(archive.read(name))
    if blob.content_hash != name.removeprefix("originals/"):
        raise KvasirError(tell("backup_part_damaged", name=name))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(tell("data_dir_refused", folder=folder, reason=error.strerror or error)) from error


@contextmanager
def _store_file(archive: zipfile.ZipFile, manifest: dict[str, Any], settings: Settings) -> Iterator[Path | None]:
    """The index of the backup beside where it belongs, or None where it must be built anew. Raises Conflict."""
    if manifest.get("store") != settings.store.kind or settings.store.kind != "local":
        yield None
        return
    target = settings.data_dir / _STORE_FILE
    if target.exists():
        _refuse_unless_bare(target)
        for path in (target, target.with_name(f"{_STORE_FILE}-wal"), target.with_name(f"{_STORE_FILE}-shm")):
            path.unlink(missing_ok=True)
    partial = target.with_name(f"{_STORE_FILE}.partial")
    try:
        with _damage_told(), archive.open("store/local") as source, partial.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        yield partial
    except OSError as error:
        raise StorageFull(tell("cannot_store", reason=error.strerror or error)) from error
    finally:
        partial.unlink(missing_ok=True)


def _refuse_unless_bare(index: Path) -> None:
    try:
        with closing(sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            holds = connection.execute("SELECT EXISTS (SELECT 1 FROM documents)").fetchone()[0]
    except sqlite3.Error:
        holds = True
    if holds:
        raise Conflict(tell("restore_not_empty"))


async def _restore_rows(session: AsyncSession, table: SqlTable, archive: zipfile.ZipFile) -> None:
    name = f"tables/{table.name}.jsonl"
    if name not in archive.namelist():
        return
    lines = [line for line in archive.read(name).decode().split("\n") if line]  # texts may hold other line ends
    for start in range(0, len(lines), _PAGE):
        rows = [_from_json(table, json.loads(line)) for line in lines[start : start + _PAGE]]
        await session.execute(insert(table), rows)


async def _index_again(session: AsyncSession) -> None:
    """Without its store every document has to come in again: a job for each knowledge base waits for «kvasir up»."""
    await session.execute(delete(GenerationRow))
    for base in list(await session.scalars(select(KnowledgeBaseRow))):
        base.live_generation_id = None
        job = JobRow(id=new_id(), kind="ingest", payload={"kb": base.name}, state="queued", progress={}, attempts=0,
                     fence=0, cancel_requested=False, created_at=now())  # fmt: skip
        session.add(job)
        await session.execute(
            update(DocumentRow)
            .where(DocumentRow.kb_id == base.id, DocumentRow.status != "deleting")
            .values(status="queued", stage="stored", live_hash=None, job_id=job.id)
        )


# ---------------------------------------------------------------- one knowledge base
async def export_kb(kvasir: Kvasir, name: str, file: Path) -> int:
    """Write a knowledge base's settings and originals into `file`; gives the number of documents."""
    async with kvasir.db.read() as session:
        base = await kb_row(session, name)
        rows = list(
            await session.scalars(
                select(DocumentRow)
                .where(DocumentRow.kb_id == base.id, DocumentRow.status != "deleting")
                .order_by(DocumentRow.name)
            )
        )
    with closing(Blobs(kvasir.settings.data_dir / "blobs")) as blobs:
        return await _write_export(base, rows, blobs, file)


async def _write_export(base: KnowledgeBaseRow, rows: Sequence[DocumentRow], blobs: Blobs, file: Path) -> int:
    there = [row for row in rows if await asyncio.to_thread(blobs.has, row.content_hash)]
    manifest = {
        "format": _FORMAT,
        "kvasir": version("kvasir"),
        "kb": {key: getattr(base, key) for key in _KB_SETTINGS} | {"name": base.name},
        "documents": [{"name": row.name, "hash": row.content_hash, "source": row.source} for row in there],
    }
    with _new_archive(file) as archive:
        for content_hash in sorted({row.content_hash for row in there}):
            await asyncio.to_thread(_write_original, archive, blobs, content_hash)
        archive.writestr("manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False))
    return len(there)


_KB_SETTINGS: dict[str, type] = {
    "description": str, "private": bool, "chunk_size": int, "chunk_overlap": int, "title_enhance": bool,
}  # fmt: skip


async def import_kb(kvasir: Kvasir, file: Path, name: str | None) -> tuple[str, list[Outcome]]:
    """Make a knowledge base of what `export_kb` wrote; gives its name and the outcome of each document."""
    with _opened(file) as archive:
        manifest = _manifest(archive, file)
        if not isinstance(manifest.get("kb"), dict) or not isinstance(manifest.get("documents"), list):
            raise UserError(tell("not_an_export", file=file))
        given = {key: manifest["kb"][key] for key in _KB_SETTINGS if key in manifest["kb"]}
        if any(type(value) is not _KB_SETTINGS[key] for key, value in given.items()):
            raise UserError(tell("not_an_export", file=file))
        with _damage_told():
            listed = [_listed(document) for document in manifest["documents"]]
            await asyncio.to_thread(_check_originals, archive, listed)
        made = await kvasir.knowledge.create(checked_kb_name(name or str(manifest["kb"].get("name", ""))), **given)

        async def incoming() -> AsyncIterator[Incoming]:
            for document, content_hash, source in listed:
                part = archive.getinfo(f"originals/{content_hash}")  # its size is known before it is unpacked
                yield Incoming(document, functools.partial(archive.read, part), source, part.file_size)

        try:
            ticket = await kvasir.ingest.submit(made.name, incoming(), claimed=True)
        except BaseException:
            await asyncio.shield(kvasir.knowledge.delete(made.name))
            raise
    await run_job(kvasir.jobs, ticket.job, kvasir.run_job)
    return made.name, [*ticket.refused, *ticket.unchanged, *await kvasir.ingest.outcomes(ticket.job.id)]


def _listed(document: Any) -> tuple[str, str, str]:
    """(name, content hash, source) as the manifest has them."""
    return str(document["name"]), str(document["hash"]), str(document.get("source", ""))


def _check_originals(archive: zipfile.ZipFile, listed: Sequence[tuple[str, str, str]]) -> None:
    """Before anything is made: every original is there and what it says it is."""
    for name, content_hash, _ in listed:
        with archive.open(f"originals/{content_hash}") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != content_hash:  # type: ignore[arg-type]
                raise KvasirError(tell("backup_part_damaged", name=name))


# ---------------------------------------------------------------- shared
def _tables() -> Iterator[SqlTable]:
    """In an order that foreign keys allow."""
    return (table for table in Table.metadata.sorted_tables if table.name not in _LEFT_OUT)


@contextmanager
def _new_archive(file: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file that only its owner can read, and that stands under its name only when it is complete.

    Raises Conflict where the name is taken.
    """
    if file.exists():
        raise Conflict(tell("file_exists", file=file))
    partial = file.with_name(f".{file.name}.partial")
    try:
        try:
            with (
                open(partial, "wb", opener=_private) as target,
                zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive,
            ):
                yield archive
            partial.rename(file)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(tell("file_not_written", file=file, reason=error.strerror or error)) from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _opened(file: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except FileNotFoundError as error:
        raise UserError(tell("no_such_file", file=file)) from error
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(tell("not_a_backup", file=file)) from error


@contextmanager
def _damage_told() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, StatementError) as error:
        raise UserError(tell("backup_part_damaged", name=str(error)[:80])) from error


def _manifest(archive: zipfile.ZipFile, file: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(archive.read("manifest.json"))
    except (KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(tell("not_a_backup", file=file)) from error
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise UserError(tell("not_a_backup", file=file))
    if manifest["format"] != _FORMAT or not _is_known(manifest.get("revision")):
        raise UserError(tell("backup_other_version"))
    return manifest


def _is_known(revision: str | None) -> bool:
    """Rows of a newer database would not fit; an export has none."""
    return revision is None or revision == core.db.migrate.newest_revision()


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
