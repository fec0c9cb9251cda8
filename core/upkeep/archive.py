"""Backup and restore of everything; one zip file, no pickle.

A backup holds every table as JSON lines, so that it can be restored into another kind of database, and the originals
of all documents. Indexes go along as the file of the `local` store, or with `with_index` in a form that every store
takes; what has gone along neither way is built again from the originals.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from sqlalchemy import JSON, Boolean, delete, func, insert, select, update
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncSession

import core.db.migrate
from core.blobs import Blobs, open_blobs
from core.db.session import Database
from core.db.tables import (
    DocumentRow,
    DocumentVersionRow,
    GenerationRow,
    JobRow,
    KnowledgeBaseRow,
    Table,
    UtcDateTime,
    new_id,
    now,
)
from core.errors import ConfigError, Conflict, KvasirError, StorageFull, UserError
from core.settings import Settings
from core.texts import tell
from core.upkeep.archive_index import (
    STORE_FILE,
    OnDocuments,
    OpenStore,
    Source,
    damage_told,
    refuse_unless_bare,
    rows_of,
    write_index,
)
from core.vault import Vault

if TYPE_CHECKING:
    from core.app import Kvasir

FORMAT: Final = 1
_LARGEST_MANIFEST: Final = 64 << 20
_LEFT_OUT = frozenset({"sessions", "one_time_tokens", "login_failures", "platform_state", "leases", "outbox"})
"""Tables that no backup needs: logins are made anew, here and with the platforms; what waited to be posted was."""
_PAGE = 500
_NAMES_OF_INDEXES: Final = ("live_generation_id", "generation_id")
"""Columns that name an index."""


# ---------------------------------------------------------------- everything
async def backup(kvasir: Kvasir, file: Path, *, with_index: bool = False) -> int:
    """Write everything into `file`, whole or not at all; gives the number of documents.

    `with_index`: with what every knowledge base is searched in, whatever store that is in.
    """
    with _new_archive(file) as archive:
        return await _write_everything(kvasir, archive, with_index=with_index)


async def _write_everything(kvasir: Kvasir, archive: zipfile.ZipFile, *, with_index: bool) -> int:
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
        hashes |= set(await session.scalars(select(DocumentVersionRow.content_hash)))
    for content_hash in sorted(hashes):
        await asyncio.to_thread(_write_original, archive, kvasir.blobs, content_hash)
    indexes = []
    if with_index:
        names = [base.name for base in await kvasir.knowledge.list(temporary=True)]
        for base in await kvasir.knowledge.live(names):
            indexes.append(await write_index(archive, kvasir.store, base.generation))  # noqa: PERF401 - one at a time
    copy = None if with_index else getattr(kvasir.store.home, "backup", None)
    if copy is not None:
        with tempfile.TemporaryDirectory(dir=kvasir.settings.data_dir) as folder:
            await copy(Path(folder, "store"))
            await asyncio.to_thread(archive.write, Path(folder, "store"), f"store/{kvasir.settings.store.kind}")
    manifest = {
        "format": FORMAT,
        "kvasir": version("kvasir"),
        "revision": core.db.migrate.newest_revision(),
        "store": kvasir.settings.store.kind if copy else "",
        "rows": counts,
        "indexes": [kept.as_json() for kept in indexes],
    }
    archive.writestr("manifest.json", json.dumps(manifest, indent=2))
    return counts["documents"]


@dataclass(frozen=True, slots=True)
class Restored:
    documents: int
    waiting: int
    """Of them, those that are not in an index yet: a process with the role `jobs` reads them."""
    secrets_lost: int
    """Tokens and keys that were encrypted with a key that is not here; they must be entered again."""


async def restore(settings: Settings, file: Path, open_store: OpenStore, on_documents: OnDocuments) -> Restored:
    """Bring a backup into an empty place. Raises Conflict where it is not empty.

    Stopped before its end, it leaves no rows, and can be run again. `on_documents` hears of those of the indexes.
    """
    with opened(file) as archive:
        manifest = manifest_of(archive, file)
        if "rows" not in manifest:
            raise UserError(tell("backup_is_export", file=file))
        _make_folder(settings.data_dir)
        _check_room(archive, settings.data_dir)
        with _store_file(archive, manifest, settings) as store_file:
            db = Database(settings.database_url)
            try:
                await core.db.migrate.upgrade(db)
                await _refuse_unless_empty(db)
                await _restore_originals(archive, settings)
                source = Source(archive, manifest, settings, open_store)
                brought = {} if store_file is not None else await source.bring(on_documents)
                kept = settings.store.kind if store_file is not None else None
                restored = await _restore_everything(db, archive, settings, brought, kept=kept)
            finally:
                await db.close()
            if store_file is not None:  # last: were it missing, its documents would come in again
                store_file.rename(settings.data_dir / STORE_FILE)
    return restored


def _check_room(archive: zipfile.ZipFile, folder: Path) -> None:
    """Before anything is unpacked. Raises StorageFull."""
    needed, free = sum(part.file_size for part in archive.infolist()), shutil.disk_usage(folder).free
    if needed > free:
        raise StorageFull(tell("backup_no_room", needed=(needed >> 20) + 1, free=free >> 20, folder=folder))


async def _restore_originals(archive: zipfile.ZipFile, settings: Settings) -> None:
    with closing(open_blobs(settings)) as blobs, damage_told():
        for name in archive.namelist():
            if name.startswith("originals/"):
                await asyncio.to_thread(_restore_original, archive, name, blobs)


async def _restore_everything(
    db: Database, archive: zipfile.ZipFile, settings: Settings, brought: Mapping[str, str], *, kept: str | None
) -> Restored:
    """`brought`: new ids of the indexes that have come along, by the former ones; `kept`: or the store they are in."""
    with damage_told():
        async with db.session() as session:
            for table in _tables():
                await _restore_rows(session, table, archive, brought, settings.store.kind)
            await _index_again(session, kept=kept, brought=frozenset(brought.values()))
            counted = select(func.count()).select_from(DocumentRow)
            count = await session.scalar(counted) or 0
            waiting = await session.scalar(counted.where(DocumentRow.status == "queued")) or 0
            lost = await _forget_secrets(session, Vault(settings.data_dir, settings.secret_key))
            return Restored(count, waiting, lost)


async def _forget_secrets(session: AsyncSession, vault: Vault) -> int:
    """Empty what cannot be read here: the key of the other place is no part of a backup; gives how many."""
    lost = 0
    for table in _tables():
        if "secrets" not in table.columns:
            continue
        (key,) = table.primary_key.columns
        kept = await session.execute(select(key, table.columns["secrets"]).where(table.columns["secrets"] != ""))
        for row, secrets in kept.all():
            try:
                vault.decrypt(secrets)
            except ConfigError:
                await session.execute(update(table).where(key == row).values(secrets=""))
                lost += 1
    return lost


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
    if manifest.get("store") != "local" or settings.store.kind != "local":
        yield None
        return
    target = settings.data_dir / STORE_FILE
    if target.exists():
        refuse_unless_bare(target)
        for path in (target, target.with_name(f"{STORE_FILE}-wal"), target.with_name(f"{STORE_FILE}-shm")):
            path.unlink(missing_ok=True)
    partial = target.with_name(f"{STORE_FILE}.partial")
    try:
        with damage_told(), archive.open("store/local") as source, partial.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        yield partial
    except OSError as error:
        raise StorageFull(tell("cannot_store", reason=error.strerror or error)) from error
    finally:
        partial.unlink(missing_ok=True)


async def _restore_rows(
    session: AsyncSession, table: SqlTable, archive: zipfile.ZipFile, brought: Mapping[str, str], store: str
) -> None:
    every = rows_of(archive, table.name)
    for start in range(0, len(every), _PAGE):
        rows = [_from_json(table, _under_new_ids(table, row, brought, store)) for row in every[start : start + _PAGE]]
        await session.execute(insert(table), rows)


def _under_new_ids(table: SqlTable, row: dict[str, Any], brought: Mapping[str, str], store: str) -> dict[str, Any]:
    """The row with the ids and the store that the indexes have here."""
    if table is GenerationRow.__table__ and row.get("id") in brought:
        return {**row, "id": brought[row["id"]], "store": store}
    changed = {name: brought[row[name]] for name in _NAMES_OF_INDEXES if row.get(name) in brought}
    return {**row, **changed} if changed else row


async def _index_again(session: AsyncSession, *, kept: str | None, brought: frozenset[str]) -> None:
    """What is not in the store that came along has to come in again: a job for each such base waits for «kvasir up»."""
    bases = select(KnowledgeBaseRow)
    lost = delete(GenerationRow).where(GenerationRow.id.not_in(brought))
    if kept is not None:
        lost = lost.where(GenerationRow.store != kept)
    if kept is not None or brought:
        bases = bases.where(
            KnowledgeBaseRow.live_generation_id.is_(None)
            | KnowledgeBaseRow.live_generation_id.not_in(select(GenerationRow.id))
        )
    await session.execute(lost)
    for base in list(await session.scalars(bases)):
        base.live_generation_id = None
        job = JobRow(id=new_id(), kind="ingest", payload={"kb": base.name}, state="queued", progress={}, attempts=0,
                     fence=0, cancel_requested=False, created_at=now())  # fmt: skip
        session.add(job)
        await session.execute(
            update(DocumentRow)
            .where(DocumentRow.kb_id == base.id, DocumentRow.status.not_in(("deleting", "disabled")))
            .values(status="queued", stage="stored", live_hash=None, job_id=job.id)
        )


# ---------------------------------------------------------------- shared
def _tables() -> Iterator[SqlTable]:
    """In an order that foreign keys allow."""
    return (table for table in Table.metadata.sorted_tables if table.name not in _LEFT_OUT)


@contextmanager
def _new_archive(file: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file as `new_file` makes it."""
    with new_file(file) as target, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        yield archive


@contextmanager
def new_file(file: Path) -> Iterator[BinaryIO]:
    """A file that only its owner can read, and that stands under its name only when it is complete.

    Raises Conflict where the name is taken, UserError where it cannot be written.
    """
    if file.exists():
        raise Conflict(tell("file_exists", file=file))
    partial = file.with_name(f".{file.name}.partial")
    try:
        try:
            with open(partial, "wb", opener=_private) as target:
                yield target
            partial.rename(file)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(tell("file_not_written", file=file, reason=error.strerror or error)) from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def opened(file: Path | BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except FileNotFoundError as error:
        raise UserError(tell("no_such_file", file=file)) from error
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(tell("not_a_backup", file=called(file))) from error


def called(file: Path | BinaryIO) -> str:
    """What a person knows it by."""
    return file.name if isinstance(file, Path) else tell("uploaded_file")


def manifest_of(archive: zipfile.ZipFile, file: Path | BinaryIO) -> dict[str, Any]:
    try:
        part = archive.getinfo("manifest.json")
        if part.file_size > _LARGEST_MANIFEST:
            raise UserError(tell("not_a_backup", file=called(file)))
        manifest = json.loads(archive.read(part))
    except (KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # encrypted or odd parts
        raise UserError(tell("not_a_backup", file=called(file))) from error
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise UserError(tell("not_a_backup", file=called(file)))
    if manifest["format"] != FORMAT or not _is_known(manifest.get("revision")):
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
