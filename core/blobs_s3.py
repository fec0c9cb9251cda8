"""Originals in a bucket that speaks S3, for machines that share no folder.

The bucket holds them under the same names as the folder does. What is read is kept for a while in a cache of files in
the data directory, since parsers read files; what still lies in the folder from before is found there, too. Two
Kvasirs in one bucket need a prefix each: what one has no document for it takes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import time
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from core.blobs import SMALL, Blob, Blobs, Original
from core.errors import ConfigError, MissingExtra, Unavailable
from core.settings import OriginalsSettings
from core.texts import tell

if TYPE_CHECKING:
    from obstore.store import S3Store

logger = logging.getLogger(__name__)

_NAME: Final = re.compile(r"[0-9a-f]/([0-9a-f]{64})")
_AT_ONCE: Final = 8
_WHOLE: Final = 32 << 20
"""Bytes up to which an object is put in one request, which is refused where it is there already."""
_PART: Final = 8 << 20
_YOUNG: Final = 3600.0
"""Seconds after which an original that comes again is made young again, so that no clean-up takes it away."""
_USED: Final = 3600.0
"""Seconds for which a cached file stays, whatever its room, since somebody may still be reading it."""
_TRIES: Final = 3
_CONNECT: Final = timedelta(seconds=5)
_LONGEST: Final = timedelta(minutes=15)
"""For one request with its bytes; how long it may stand still is a setting."""
_MANY: Final = 50
"""From so many on, the bucket is listed in place of being asked for each."""

T = TypeVar("T")
S = TypeVar("S")


class Bucket:
    """The objects under one prefix; threads may share it. Every method raises Unavailable or ConfigError."""

    def __init__(self, settings: OriginalsSettings) -> None:
        self.url = settings.url
        self._store = _opened(settings)

    def put(self, name: str, data: bytes | Path, size: int) -> bool:
        """Store it, where it is not there; False where it was, and then it is young again."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError

        with self._told():
            if size <= _WHOLE:
                try:
                    obstore.put(self._store, name, data, mode="create")
                except AlreadyExistsError:
                    if not self._is_old(name):
                        return False
                except NotSupportedError:  # a server without conditional writes: the same bytes do no harm
                    logger.debug("%s knows no conditional writes", self.url)
                else:
                    return True
            elif self._size(name) == size and not self._is_old(name):
                return False
            obstore.put(self._store, name, data, use_multipart=size > _WHOLE, chunk_size=_PART, max_concurrency=4)
            return True

    def get(self, name: str) -> Iterator[bytes] | None:
        """Its bytes piece by piece; None where it is not there."""
        import obstore

        with self._told():
            try:
                return self._pieces(obstore.get(self._store, name).stream(min_chunk_size=1 << 20))
            except FileNotFoundError as error:
                if _code(error) in ("NoSuchKey", ""):  # any other is no word about the object
                    return None
                raise

    def has(self, name: str) -> bool:
        with self._told():
            return self._size(name) is not None

    def names(self) -> Iterator[tuple[str, float]]:
        """Each object's name, and when it was written (seconds since 1970)."""
        import obstore

        with self._told():
            for page in obstore.list(self._store, chunk_size=1000):
                for one in page:
                    yield one["path"], one["last_modified"].timestamp()

    def remove(self, names: Sequence[str]) -> None:
        import obstore

        with self._told():
            for first in range(0, len(names), 1000):
                obstore.delete(self._store, list(names[first : first + 1000]))

    def check(self) -> None:
        """Write, read and remove something small. Raises where one of these cannot be done."""
        name = f"check/{time.time_ns():x}"
        self.put(name, b"kvasir", 6)
        if b"".join(self.get(name) or ()) != b"kvasir":
            raise Unavailable(tell("s3_unreachable", url=self.url, reason=tell("s3_other_bytes")))
        self.remove([name])

    def _size(self, name: str) -> int | None:
        import obstore

        try:
            return obstore.head(self._store, name)["size"]
        except FileNotFoundError:
            return None

    def _is_old(self, name: str) -> bool:
        import obstore

        try:
            written = obstore.head(self._store, name)["last_modified"].timestamp()
        except FileNotFoundError:
            return True
        return written < time.time() - _YOUNG

    def _pieces(self, stream: Iterable[Any]) -> Iterator[bytes]:
        with self._told():
            for piece in stream:
                yield bytes(piece)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns the library's errors into ours."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except FileNotFoundError as error:
            key = "s3_refused" if "User" in _code(error) else "s3_no_bucket"
            raise ConfigError(tell(key, url=self.url)) from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise ConfigError(tell("s3_refused", url=self.url)) from error
        except BaseError as error:
            raise Unavailable(tell("s3_unreachable", url=self.url, reason=_reason(error))) from error


class S3Blobs(Blobs):
    """As `Blobs`, with the originals in a bucket; its folder has the cache, and what was there before."""

    def __init__(self, folder: Path, settings: OriginalsSettings) -> None:
        super().__init__(folder, apart=True)
        self.bucket = Bucket(settings)
        self._cache = _Cache(folder / "cache", settings.cache_mb << 20)

    @property
    def place(self) -> str:
        return self.bucket.url

    def has(self, content_hash: str) -> bool:
        name = _name(content_hash)
        return self._cache.find(content_hash) is not None or self.bucket.has(name) or super().has(content_hash)

    def there(self, content_hashes: Iterable[str]) -> set[str]:
        wanted = set(content_hashes)
        if len(wanted) < _MANY:
            every = list(wanted)
            return {one for one, is_there in zip(every, _side_by_side(self.has, every), strict=True) if is_there}
        found = {known[1] for name, _ in self.bucket.names() if (known := _NAME.fullmatch(name))}
        return (wanted & found) | super().there(wanted - found)

    def get(self, content_hash: str) -> Original | None:
        held = self._held(content_hash)
        return super().get(content_hash) if held is None else Original(content_hash, held)

    def sources(self, content_hashes: Sequence[str]) -> list[bytes | str]:
        fresh = self._fresh.take(content_hashes)
        missing = [one for one in dict.fromkeys(content_hashes) if one not in fresh]
        found: dict[str, bytes | str] = dict(fresh)
        lost = []
        for one, held in zip(missing, _side_by_side(self._held, missing), strict=True):
            if held is None:
                lost.append(one)
            else:
                found[one] = held if isinstance(held, bytes) else str(held)
        found |= dict(zip(lost, super().sources(lost), strict=True))
        return [found[one] for one in content_hashes]

    def put_all(self, many: Sequence[bytes]) -> list[Blob]:
        blobs = [Blob(hashlib.sha256(data).hexdigest(), len(data)) for data in many]
        once = {blob.content_hash: data for blob, data in zip(blobs, many, strict=True)}
        _side_by_side(lambda one: self.bucket.put(_name(one[0]), one[1], len(one[1])), list(once.items()))
        self._fresh.keep({one: data for one, data in once.items() if len(data) <= SMALL})
        return blobs

    async def put_stream(self, pieces: AsyncIterable[bytes], *, limit: int, name: str) -> Blob:
        """As it comes it is written to a file here, since its name is the hash of all of it."""
        blob, partial = await self._received(pieces, limit=limit, name=name)
        try:
            await asyncio.to_thread(self.bucket.put, _name(blob.content_hash), partial, blob.size)
            await asyncio.to_thread(self._cache.keep, blob.content_hash, partial)
        finally:
            partial.unlink(missing_ok=True)
        return blob

    def remove_all_but(self, wanted: Iterable[str], *, older_than: float) -> int:
        keep = set(wanted)
        gone = [
            name
            for name, written in self.bucket.names()
            if (known := _NAME.fullmatch(name)) and known[1] not in keep and written < older_than
        ]
        self.bucket.remove(gone)
        return len(gone) + super().remove_all_but(keep, older_than=older_than)

    # ---------------------------------------------------------------- from the folder and back
    def push(self, *, delete: bool, on_originals: Callable[[int, int], None]) -> int:
        """Copy what lies in the folder into the bucket; gives how many there were. With `delete` they go here then."""
        every = sorted(super().hashes())
        done = 0
        for first in range(0, len(every), _AT_ONCE * 4):
            page = every[first : first + _AT_ONCE * 4]
            _side_by_side(self._pushed, page)
            if delete:
                super().discard(page)
            done += len(page)
            on_originals(done, len(every))
        return done

    def pull(self, *, on_originals: Callable[[int, int], None]) -> int:
        """Copy what is in the bucket into the folder; gives how many there are."""
        every = sorted({known[1] for name, _ in self.bucket.names() if (known := _NAME.fullmatch(name))})
        for done, one in enumerate(every, 1):
            if not super().has(one):
                held = self._held(one)
                if held is None:
                    raise Unavailable(tell("s3_lost", url=self.bucket.url, name=one))
                self.adopt(one, held)
            on_originals(done, len(every))
        return len(every)

    def _pushed(self, content_hash: str) -> None:
        original = super().get(content_hash)
        if original is not None:
            self.bucket.put(_name(content_hash), original.held, original.size)

    def _held(self, content_hash: str) -> bytes | Path | None:
        """From the cache or the bucket. Raises Unavailable where its bytes are not those that were put."""
        name = _name(content_hash)
        if (path := self._cache.find(content_hash)) is not None:
            return path
        pieces = self.bucket.get(name)
        if pieces is None:
            return None
        return self._cache.fetch(content_hash, pieces, self._partial(), self.bucket.url)


class _Cache:
    """Files of originals that were read or written lately; the longest unused go first."""

    def __init__(self, folder: Path, room: int) -> None:
        self._folder = folder
        self._room = room

    def find(self, content_hash: str) -> Path | None:
        path = self._folder / content_hash
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def fetch(self, content_hash: str, pieces: Iterable[bytes], partial: Path, url: str) -> bytes | Path:
        """Small ones are given as they are. Raises Unavailable."""
        digest, start = hashlib.sha256(), b""
        try:
            with partial.open("xb") as file:
                for piece in pieces:
                    digest.update(piece)
                    start = start if len(start) > SMALL else start + piece
                    file.write(piece)
            if digest.hexdigest() != content_hash:
                raise Unavailable(tell("s3_unreachable", url=url, reason=tell("s3_other_bytes")))
            return start if len(start) <= SMALL else self.keep(content_hash, partial)
        except OSError as error:
            raise Unavailable(tell("cannot_store", reason=error.strerror or error)) from error
        finally:
            partial.unlink(missing_ok=True)

    def keep(self, content_hash: str, partial: Path) -> Path:
        """Take the file in. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / content_hash
        partial.replace(path)
        self._trim()
        return path

    def _trim(self) -> None:
        files = []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                known = path.stat()
                files.append((known.st_mtime, known.st_size, path))
        held = sum(size for _, size, _ in files)
        for used, size, path in sorted(files):
            if held <= self._room or used > time.time() - _USED:
                return
            path.unlink(missing_ok=True)
            held -= size


def _name(content_hash: str) -> str:
    name = f"{content_hash[:1]}/{content_hash}"
    if not _NAME.fullmatch(name):
        raise ValueError("not a content hash")
    return name


def _side_by_side(work: Callable[[T], S], many: Sequence[T]) -> list[S]:
    if len(many) < 2:
        return [work(one) for one in many]
    with ThreadPoolExecutor(min(_AT_ONCE, len(many)), thread_name_prefix="s3") as pool:
        return list(pool.map(work, many))


def _opened(settings: OriginalsSettings) -> S3Store:
    """Raises ConfigError, MissingExtra."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ModuleNotFoundError as error:
        raise MissingExtra("Originals in S3", "s3") from error
    bucket, prefix = bucket_of(settings)
    values: dict[str, Any] = {"region": settings.region, "virtual_hosted_style_request": not settings.path_style}
    if settings.endpoint:
        values["endpoint"] = settings.endpoint.rstrip("/") if settings.path_style else _with_bucket(settings, bucket)
    if settings.access_key is not None and settings.secret_key is not None:
        values["access_key_id"] = settings.access_key.get_secret_value()
        values["secret_access_key"] = settings.secret_key.get_secret_value()
    waiting = timedelta(seconds=settings.seconds)
    try:
        return S3Store(
            bucket,
            prefix=prefix or None,
            client_options={
                "connect_timeout": _CONNECT,
                "read_timeout": waiting,
                "timeout": _LONGEST,
                "allow_http": settings.endpoint.startswith("http://"),
            },
            retry_config={"max_retries": _TRIES - 1, "retry_timeout": waiting * _TRIES},
            **values,
        )
    except (BaseError, ValueError) as error:
        raise ConfigError(tell("s3_bad_url", reason=_reason(error))) from error


def bucket_of(settings: OriginalsSettings) -> tuple[str, str]:
    """Bucket and prefix. Raises ConfigError."""
    parts = urlsplit(settings.url)
    if parts.scheme != "s3" or not parts.netloc or parts.query or "@" in parts.netloc:
        raise ConfigError(tell("s3_bad_url", reason="s3://BUCKET/PREFIX"))
    if settings.endpoint and urlsplit(settings.endpoint).scheme not in ("http", "https"):
        raise ConfigError(tell("s3_bad_url", reason="originals.endpoint: https://…"))
    if (settings.access_key is None) != (settings.secret_key is None):
        raise ConfigError(tell("s3_bad_url", reason="originals.access_key, originals.secret_key"))
    return parts.netloc, parts.path.strip("/")


def _with_bucket(settings: OriginalsSettings, bucket: str) -> str:
    scheme, _, host = settings.endpoint.rstrip("/").partition("://")
    return f"{scheme}://{host}" if host.startswith(f"{bucket}.") else f"{scheme}://{bucket}.{host}"


def _code(error: Exception) -> str:
    """What the server calls it; empty: it has not said."""
    found = re.search(r"<Code>(\w{1,60})</Code>", str(error))
    return found[1] if found else ""


def _reason(error: Exception) -> str:
    """One line of it, without what the library adds for those who debug it."""
    words = " ".join(str(error).split("Debug source:")[0].split())
    return _code(error) or words[:200]
