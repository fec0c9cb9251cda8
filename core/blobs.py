"""The original bytes of documents, stored once each under the hash of their content.

Small ones that come at hand stand together in one SQLite file, since making a file for each would cost more than all
else that is done to a small document; larger ones, and those that stream in, are files named by their hash. Where
several machines share the folder, each is a file: SQLite's log cannot be shared over a network. `blobs_s3` keeps them
in a bucket instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from core.db.tables import new_id
from core.db.wal import use_wal
from core.errors import ConfigError, StorageFull, TooLarge, Unavailable
from core.texts import tell

if TYPE_CHECKING:
    from core.settings import Settings

_HASH = re.compile(r"[0-9a-f]{64}")
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

SMALL: Final = 64 << 10
"""Bytes up to which an original is small."""
_FRESH_BYTES: Final = 2 << 20
_BUSY_SECONDS: Final = 30
_PAGE: Final = 250
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS originals (
    hash BLOB PRIMARY KEY,        -- sha256
    at INTEGER NOT NULL,          -- Unix time of its being stored
    bytes BLOB NOT NULL
)
"""
_PUT: Final = (
    "INSERT INTO originals (hash, at, bytes) VALUES (?, ?, ?)"
    " ON CONFLICT (hash) DO UPDATE SET at = excluded.at WHERE at < excluded.at - 3600"
)
"""One that is there already is young again, so that no clean-up takes it from under whoever names it next."""


@dataclass(frozen=True, slots=True)
class Blob:
    content_hash: str
    """Hex sha256."""
    size: int


@dataclass(frozen=True, slots=True)
class Original:
    """Bytes as they were given: here where they are few, else in a file."""

    content_hash: str
    held: bytes | Path

    @property
    def size(self) -> int:
        return len(self.held) if isinstance(self.held, bytes) else self.held.stat().st_size

    def read_bytes(self) -> bytes:
        return self.held if isinstance(self.held, bytes) else self.held.read_bytes()

    def head(self, size: int) -> bytes:
        """Its first bytes."""
        if isinstance(self.held, bytes):
            return self.held[:size]
        with self.held.open("rb") as file:
            return file.read(size)


def open_blobs(settings: Settings) -> Blobs:
    """Where the settings say that originals are. Raises ConfigError, MissingExtra."""
    url, own = settings.originals.url, settings.data_dir / "blobs"
    is_shared = not settings.database_url.startswith("sqlite")
    if url.startswith("s3:"):
        from core.blobs_s3 import S3Blobs

        return S3Blobs(own, settings.originals)
    if not url:
        return Blobs(own, apart=is_shared)
    folder = Path(unquote(urlsplit(url).path)) if url.startswith("file://") else Path(url)
    if not folder.is_absolute():
        raise ConfigError(tell("originals_bad_url"))
    return Blobs(folder, apart=True)


class Blobs:
    """A folder of originals, found by hash; a name from outside never becomes a path. Threads may share it.

    `apart`: small ones, too, are files of their own; those that stand together already are found all the same.
    """

    def __init__(self, folder: Path, *, apart: bool = False) -> None:
        self.folder = folder
        self._small_bytes = -1 if apart else SMALL
        self._ready = False
        self._small = _Small(folder / "small.db")
        self._fresh = _Fresh()

    @property
    def place(self) -> str:
        """Where they are, for people."""
        return str(self.folder)

    def close(self) -> None:
        self._small.close()

    def path(self, content_hash: str) -> Path:
        if not _HASH.fullmatch(content_hash):
            raise ValueError("not a content hash")
        return self.folder / content_hash[:1] / content_hash

    def has(self, content_hash: str) -> bool:
        return self.path(content_hash).is_file() or bool(self._small.read([content_hash]))

    def there(self, content_hashes: Iterable[str]) -> set[str]:
        """Those of them that are there."""
        wanted = set(content_hashes)
        small = self._small.read(list(wanted))
        return {one for one in wanted if one in small or self.path(one).is_file()}

    def get(self, content_hash: str) -> Original | None:
        """None where it is not there (any more)."""
        path = self.path(content_hash)
        if small := self._small.read([content_hash]):
            return Original(content_hash, small[content_hash])
        return Original(content_hash, path) if path.is_file() else None

    def sources(self, content_hashes: Sequence[str]) -> list[bytes | str]:
        """For each the bytes, where they are few, else the path of the file that has them, if any has."""
        held = self._fresh.take(content_hashes)
        held |= self._small.read([one for one in content_hashes if one not in held])
        return [held[one] if one in held else str(self.path(one)) for one in content_hashes]

    def put(self, data: bytes) -> Blob:
        """Store bytes at hand. Raises Unavailable when the disk takes no more."""
        return self.put_all([data])[0]

    def put_all(self, many: Sequence[bytes]) -> list[Blob]:
        """As `put`; the small ones of a call are stored in one step."""
        blobs = [Blob(hashlib.sha256(data).hexdigest(), len(data)) for data in many]
        small = {
            blob.content_hash: data for blob, data in zip(blobs, many, strict=True) if blob.size <= self._small_bytes
        }
        if small:
            self._prepare()
            self._small.write(small)
            self._fresh.keep(small)
        for blob, data in zip(blobs, many, strict=True):
            if blob.size > self._small_bytes:
                self._put_file(blob, data)
        return blobs

    def _put_file(self, blob: Blob, data: bytes) -> None:
        target, partial = self.path(blob.content_hash), self._partial()
        try:
            with contextlib.suppress(FileNotFoundError):
                os.utime(target)  # young again, so that no clean-up takes it from under whoever names it next
                return
            with os.fdopen(os.open(partial, _NEW_FILE, 0o600), "wb", 0) as file:
                _write_all(file.fileno(), data)
            self._keep(partial, target)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise _cannot_write(error) from error

    async def put_stream(self, pieces: AsyncIterable[bytes], *, limit: int, name: str) -> Blob:
        """Store bytes as they come. Raises TooLarge past `limit` bytes; nothing is left behind then."""
        blob, partial = await self._received(pieces, limit=limit, name=name)
        try:
            await asyncio.to_thread(self._keep, partial, self.path(blob.content_hash))
        except OSError as error:
            raise _cannot_write(error) from error
        finally:
            partial.unlink(missing_ok=True)
        return blob

    async def _received(self, pieces: AsyncIterable[bytes], *, limit: int, name: str) -> tuple[Blob, Path]:
        """Bytes as they come, in a file without a name of its own yet."""
        digest, size, partial = hashlib.sha256(), 0, self._partial()
        try:
            with os.fdopen(os.open(partial, _NEW_FILE, 0o600), "wb") as file:
                async for piece in pieces:
                    size += len(piece)
                    if size > limit:
                        raise TooLarge(tell("file_too_large", name=name, limit=limit >> 20))
                    digest.update(piece)
                    await asyncio.to_thread(file.write, piece)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise _cannot_write(error) from error
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return Blob(digest.hexdigest(), size), partial

    def remove_all_but(self, wanted: Iterable[str], *, older_than: float) -> int:
        """Delete blobs that nothing names and that were written before `older_than` (seconds since 1970)."""
        keep = set(wanted)
        removed = self._small.remove_all_but(keep, older_than=older_than)
        for path in self.folder.glob("?/*"):
            if path.name not in keep and path.stat().st_mtime < older_than:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def hashes(self) -> set[str]:
        """Of all that are in the folder."""
        return self._small.hashes() | {path.name for path in self.folder.glob("?/*") if _HASH.fullmatch(path.name)}

    def adopt(self, content_hash: str, held: bytes | Path) -> None:
        """Put a copy into the folder. Raises Unavailable."""
        blob = Blob(content_hash, len(held) if isinstance(held, bytes) else held.stat().st_size)
        if isinstance(held, bytes):
            self._put_file(blob, held)
            return
        partial = self._partial()
        try:
            shutil.copyfile(held, partial)
            self._keep(partial, self.path(content_hash))
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise _cannot_write(error) from error

    def discard(self, content_hashes: Sequence[str]) -> None:
        """Delete these from the folder."""
        self._small.discard(content_hashes)
        for one in content_hashes:
            self.path(one).unlink(missing_ok=True)

    def _prepare(self) -> None:
        if not self._ready:
            try:
                (self.folder / "partial").mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _cannot_write(error) from error
            self._ready = True

    def _partial(self) -> Path:
        self._prepare()
        return self.folder / "partial" / new_id()

    def _keep(self, partial: Path, target: Path) -> None:
        try:
            partial.rename(target)
        except FileNotFoundError:
            target.parent.mkdir(exist_ok=True)
            partial.rename(target)


class _Fresh:
    """Originals that were just stored, for whoever reads them soon after."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, bytes] = {}
        self._room = _FRESH_BYTES

    def keep(self, originals: Mapping[str, bytes]) -> None:
        with self._lock:
            for key, data in originals.items():
                if key not in self._held and len(data) <= self._room:
                    self._held[key] = data
                    self._room -= len(data)

    def take(self, content_hashes: Iterable[str]) -> dict[str, bytes]:
        """Those of them that are held; they are not held any more."""
        with self._lock:
            found = {key: self._held.pop(key) for key in dict.fromkeys(content_hashes) if key in self._held}
            self._room += sum(map(len, found.values()))
        return found


class _Small:
    """The small originals; the file is made with the first of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def read(self, content_hashes: Sequence[str]) -> dict[str, bytes]:
        """Those of them that are there. Raises Unavailable."""
        found: dict[str, bytes] = {}
        with self._lock, _told():
            if self._connection is None and not self._path.exists():
                return found
            connection = self._open()
            for start in range(0, len(content_hashes), _PAGE):
                keys = [bytes.fromhex(one) for one in content_hashes[start : start + _PAGE]]
                marks = ", ".join("?" * len(keys))
                rows = connection.execute(f"SELECT hash, bytes FROM originals WHERE hash IN ({marks})", keys)  # noqa: S608 - marks only
                found.update((key.hex(), data) for key, data in rows)
        return found

    def write(self, originals: Mapping[str, bytes]) -> None:
        """All of them, or none. Raises Unavailable."""
        moment = int(time.time())
        rows = [(bytes.fromhex(key), moment, data) for key, data in originals.items()]
        with self._lock, _told():
            connection = self._open()
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(_PUT, rows)

    def remove_all_but(self, wanted: set[str], *, older_than: float) -> int:
        """As `Blobs.remove_all_but`."""
        with self._lock, _told():
            if self._connection is None and not self._path.exists():
                return 0
            connection = self._open()
            old = connection.execute("SELECT hash FROM originals WHERE at < ?", (older_than,)).fetchall()
            gone = [(key,) for (key,) in old if key.hex() not in wanted]
            if gone:
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany("DELETE FROM originals WHERE hash = ?", gone)
            return len(gone)

    def hashes(self) -> set[str]:
        with self._lock, _told():
            if self._connection is None and not self._path.exists():
                return set()
            return {key.hex() for (key,) in self._open().execute("SELECT hash FROM originals")}

    def discard(self, content_hashes: Sequence[str]) -> None:
        with self._lock, _told():
            if self._connection is None and not self._path.exists():
                return
            connection = self._open()
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                gone = [(bytes.fromhex(one),) for one in content_hashes]
                connection.executemany("DELETE FROM originals WHERE hash = ?", gone)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA page_size = 16384")  # a few originals a page, and less to copy
                use_wal(connection, _BUSY_SECONDS)
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(_SCHEMA)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turns SQLite's errors into Kvasir's."""
    try:
        yield
    except sqlite3.Error as error:
        kind = StorageFull if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL else Unavailable
        raise kind(tell("cannot_store", reason=error)) from error
    except OSError as error:
        raise _cannot_write(error) from error


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _cannot_write(error: OSError) -> Unavailable:
    kind = StorageFull if error.errno in _FULL else Unavailable
    return kind(tell("cannot_store", reason=error.strerror or error))
