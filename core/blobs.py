"""The original bytes of documents, stored once each under the hash of their content."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass
from pathlib import Path

from core.db.tables import new_id
from core.errors import StorageFull, TooLarge, Unavailable
from core.texts import tell

_HASH = re.compile(r"[0-9a-f]{64}")
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Blob:
    content_hash: str
    """Hex sha256."""
    size: int


class Blobs:
    """A folder of files named by hash; a name from outside never becomes a path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ready = False

    def path(self, content_hash: str) -> Path:
        if not _HASH.fullmatch(content_hash):
            raise ValueError("not a content hash")
        return self.folder / content_hash[:1] / content_hash

    def has(self, content_hash: str) -> bool:
        return self.path(content_hash).is_file()

    def put(self, data: bytes) -> Blob:
        """Store bytes at hand. Raises Unavailable when the disk takes no more."""
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
        target = f"{self.folder}/{blob.content_hash[:1]}/{blob.content_hash}"
        if not os.path.exists(target):  # noqa: PTH110  plain strings: a Path costs as much as writing a small file
            partial = self._partial()
            try:
                descriptor = os.open(partial, _NEW_FILE, 0o600)
                try:
                    _write_all(descriptor, data)
                finally:
                    os.close(descriptor)
                self._keep(partial, target)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.unlink(partial)  # noqa: PTH108  as above
                raise _cannot_write(error) from error
        return blob

    async def put_stream(self, pieces: AsyncIterable[bytes], *, limit: int, name: str) -> Blob:
        """Store bytes as they come. Raises TooLarge past `limit` bytes; nothing is left behind then."""
        digest, size, partial = hashlib.sha256(), 0, Path(self._partial())
        try:
            with os.fdopen(os.open(partial, _NEW_FILE, 0o600), "wb") as file:
                async for piece in pieces:
                    size += len(piece)
                    if size > limit:
                        raise TooLarge(tell("file_too_large", name=name, limit=limit >> 20))
                    digest.update(piece)
                    await asyncio.to_thread(file.write, piece)
            blob = Blob(digest.hexdigest(), size)
            await asyncio.to_thread(self._keep, str(partial), str(self.path(blob.content_hash)))
        except OSError as error:
            raise _cannot_write(error) from error
        finally:
            partial.unlink(missing_ok=True)
        return blob

    def remove_all_but(self, wanted: Iterable[str], *, older_than: float) -> int:
        """Delete blobs that nothing names and that were written before `older_than` (seconds since 1970)."""
        keep, removed = set(wanted), 0
        for path in self.folder.glob("*/*"):
            if path.name not in keep and path.stat().st_mtime < older_than:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _partial(self) -> str:
        if not self._ready:
            try:
                (self.folder / "partial").mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _cannot_write(error) from error
            self._ready = True
        return f"{self.folder}/partial/{new_id()}"

    def _keep(self, partial: str, target: str) -> None:
        try:
            os.rename(partial, target)  # noqa: PTH104  as in `put`
        except FileNotFoundError:
            Path(target).parent.mkdir(exist_ok=True)
            Path(partial).rename(target)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _cannot_write(error: OSError) -> Unavailable:
    kind = StorageFull if error.errno in _FULL else Unavailable
    return kind(tell("cannot_store", reason=error.strerror or error))
