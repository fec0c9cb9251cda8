"""The `lancedb` store: a folder, or a place like s3://bucket/path, for more vectors than memory holds, with no server.

`lancedb_table` is what lies there; words are searched in memory (`outline`), vectors where they lie: one by one, and by
an index of LanceDB's own where there are very many.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import math
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from core.errors import KvasirError, MissingExtra, StoreUnavailable, UserError
from core.ports import QueryVector
from core.settings import LancedbSettings, Settings
from core.stores.asked import asked_vector
from core.stores.counting import counted
from core.stores.database import CHUNK_BITS
from core.stores.lancedb_table import LAST_CHUNK, Table, digest, name_of, prepared, schema_of
from core.stores.outline import Outlines
from core.stores.outlined import Kept, Wanted, search
from core.texts import tell
from core.types import Chunk, Filter, Generation, IndexedDocument, SearchResult, StoreCount

logger = logging.getLogger(__name__)

_KEEP: Final = timedelta(minutes=15)
"""So long a search may go on in a version of a table that was replaced."""
_COMMITS: Final = 20
"""Commits of this process after which small files are looked for."""
_SMALL_FILES: Final = 30
_UNINDEXED: Final = 10
"""An index that misses more than one row in so many is brought up to date."""
_FIRST_PAUSE: Final = 0.05
_CLOSE_SECONDS: Final = 10.0

T = TypeVar("T")


async def open_store(settings: Settings) -> LanceStore:
    """The store at the address of the section `lancedb`. Raises MissingExtra or StoreUnavailable."""
    store = LanceStore(settings.lancedb, settings.data_dir)
    await store.open()
    return store


def address(settings: LancedbSettings, data_dir: Path) -> str:
    return settings.uri or str(data_dir / "lancedb")


def storage_options(settings: LancedbSettings) -> dict[str, str]:
    """For addresses of object stores."""
    secret = settings.secret_access_key.get_secret_value() if settings.secret_access_key else ""
    given = {
        "aws_access_key_id": settings.access_key_id,
        "aws_secret_access_key": secret,
        "aws_region": settings.region,
        "aws_endpoint": settings.endpoint,
        "allow_http": "true" if settings.endpoint.startswith("http://") else "",
        "timeout": f"{settings.seconds:g}s",
    }
    return {name: value for name, value in given.items() if value}


class LanceStore:
    def __init__(self, settings: LancedbSettings, data_dir: Path) -> None:
        if importlib.util.find_spec("lancedb") is None:
            raise MissingExtra("The store «lancedb»", "lancedb")
        self._settings = settings
        self._uri = address(settings, data_dir)
        self._outlines = Outlines(settings.cache_mb << 20, settings.seconds)
        self._kept = Kept()
        self._locks: dict[str, asyncio.Lock] = {}
        self._commits: dict[str, int] = {}
        self._indexed: set[str] = set()
        self._tidying: set[asyncio.Task[None]] = set()
        self._database: Any = None

    async def open(self) -> None:
        lancedb = await asyncio.to_thread(importlib.import_module, "lancedb")  # it takes seconds
        async with self._limited():
            if "://" not in self._uri:
                Path(self._uri).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = await lancedb.connect_async(
                self._uri,
                read_consistency_interval=timedelta(0),
                storage_options=storage_options(self._settings) if "://" in self._uri else None,
            )

    async def close(self) -> None:
        """What has begun to be tidied up is finished, if that is soon."""
        await self._outlines.close()
        if self._tidying:
            _, late = await asyncio.wait(self._tidying, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self._database is not None:
            self._database.close()

    async def ensure_generation(self, generation: Generation) -> None:
        async with self._limited():
            await self._database.create_table(
                name_of(generation), schema=schema_of(generation, uuid.uuid4().hex), exist_ok=True
            )

    async def drop_generation(self, generation: Generation) -> None:
        async with self._lock(generation), self._limited():
            await self._database.drop_table(name_of(generation), ignore_missing=True)
        self._outlines.forget(generation.id)
        self._commits.pop(generation.id, None)
        self._locks.pop(generation.id, None)

    async def put(self, generation: Generation, documents: Sequence[IndexedDocument]) -> None:
        wanted = list({document.id: document for document in documents}.values())
        if not wanted:
            return
        rows, numbers, digests = await _off_loop(prepared, generation, wanted)

        async def put(table: Table, own: Any) -> None:
            nonlocal rows, numbers
            while await table.taken(numbers):  # as good as never
                rows, numbers, _ = await _off_loop(prepared, generation, wanted)
            if await table.heads(digests):
                merge = own.merge_insert("id").when_not_matched_insert_all()
                merge = merge.when_not_matched_by_source_delete(f"document IN ({_quoted(digests)})")
                await merge.execute(rows, on_bad_vectors="null")  # a document's own row has none
            else:
                await own.add(rows)

        async with self._lock(generation):
            await self._change(generation, put)
            self._commits[generation.id] = self._commits.get(generation.id, 0) + 1
        if self._commits[generation.id] % _COMMITS == 1 or self._settings.index_from <= len(rows):
            self._tidy_soon(generation)

    async def delete(self, generation: Generation, document_ids: Sequence[str]) -> None:
        digests = [key for one in dict.fromkeys(document_ids) if (key := _digest_or_none(one))]

        async def delete(table: Table, own: Any) -> None:
            if found := await table.heads(digests):
                await own.delete(f"document IN ({_quoted([digest(head.key) for head in found])})")

        async with self._lock(generation):
            if digests and await self._pinned(generation) is not None:
                await self._change(generation, delete)

    async def search(
        self,
        generation: Generation,
        *,
        vector: QueryVector,
        tokens: Sequence[str],
        limit: int,
        filter: Filter | None = None,
    ) -> SearchResult:
        wanted = Wanted(await asked_vector(generation, vector), tokens, limit, filter)

        async def look(table: Table) -> SearchResult:
            outline = await self._outlines.current(generation.id, table)
            if outline.resident.chunks >= self._settings.index_from and not table.has_index:
                self._index_soon(generation)
            found = await search(outline, generation.id, table, self._kept, wanted)
            if found is None:
                raise StoreUnavailable(tell("lancedb_failed", uri=self._uri, reason="rows are missing"))
            return found

        nothing = SearchResult((), 0, dict.fromkeys(tokens, 0))
        return await self._look(generation, look, nothing, self._settings.search_seconds)

    async def chunks(self, generation: Generation, document_id: str) -> Sequence[Chunk]:
        async def look(table: Table) -> Sequence[Chunk]:
            heads = await table.heads(_digests([document_id]))
            return [row.chunk for row in await table.chunks(heads[0], vectors=False)] if heads else []

        return await self._look(generation, look, [])

    async def read(self, generation: Generation, document_ids: Sequence[str]) -> Sequence[IndexedDocument]:
        async def look(table: Table) -> Sequence[IndexedDocument]:
            heads = {head.key: head for head in await table.heads(_digests(document_ids))}
            found = []
            for head in (heads[key] for key in dict.fromkeys(document_ids) if key in heads):
                rows = await table.chunks(head, vectors=True)
                vectors = None
                if generation.dimension:
                    vectors = np.array([row.vector for row in rows], np.float32).reshape(-1, generation.dimension)
                texts = (head.key, head.name, head.title, head.content_hash)
                found.append(IndexedDocument(*texts, tuple(row.chunk for row in rows), vectors, head.metadata))
            return found

        return await self._look(generation, look, [])

    async def documents(self, generation: Generation) -> Sequence[tuple[str, str, int]]:
        async def look(table: Table) -> Sequence[tuple[str, str, int]]:
            return sorted([(head.key, head.content_hash, head.chunks) for head in await table.every_head()])

        return await self._look(generation, look, [])

    async def count(self, generation: Generation) -> StoreCount:
        """Counted from the rows themselves, so that it tells what is there."""

        async def look(table: Table) -> StoreCount:
            keys = {head.number: head.key for head in await table.every_head()}
            rows = await table.hashes()
            found = ((keys.get(row >> CHUNK_BITS, ""), row & LAST_CHUNK, content) for row, content in rows)
            return await asyncio.to_thread(counted, len(keys), found)

        return await self._look(generation, look, StoreCount(0, 0, "0" * 32))

    async def tables(self) -> int:
        """How many indexes there are."""
        async with self._limited(self._settings.search_seconds):
            page, count = await self._database.list_tables(), 0
            while True:
                count += sum(name.startswith("index_") for name in page.tables)
                if not page.page_token:
                    return int(count)
                page = await self._database.list_tables(page_token=page.page_token)

    # ------------------------------------------------------------ tables
    async def _look(
        self, generation: Generation, look: Callable[[Table], Awaitable[T]], otherwise: T, seconds: float | None = None
    ) -> T:
        """In one unchanging version of the index; `otherwise` where there is none."""
        async with self._limited(seconds):
            table = await self._pinned(generation)
            return otherwise if table is None else await look(table)

    async def _pinned(self, generation: Generation) -> Table | None:
        table = await self._opened(generation)
        if table is None:
            return None
        born = ((await table.schema()).metadata or {}).get(b"born", b"").decode()
        version = await table.version()
        await table.checkout(version)
        has_index = bool(generation.dimension and any("vector" in one.columns for one in await table.list_indices()))
        return Table(table, (born, version), generation.dimension, has_index=has_index)

    async def _opened(self, generation: Generation) -> Any:
        try:
            return await self._database.open_table(name_of(generation))
        except ValueError as error:
            if "was not found" in str(error):
                return None
            raise

    async def _change(self, generation: Generation, change: Callable[[Table, Any], Awaitable[None]]) -> None:
        """In one commit; again where somebody else's commit came in between. Raises StoreUnavailable."""
        until, pause = time.monotonic() + self._settings.seconds, _FIRST_PAUSE
        async with self._limited():
            while True:
                table, own = await self._pinned(generation), await self._opened(generation)
                if table is None or own is None:
                    raise StoreUnavailable(tell("store_no_generation"))
                try:
                    return await change(table, own)
                except (RuntimeError, OSError, ValueError) as error:
                    if not _is_conflict(error) or time.monotonic() + pause > until:
                        raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, 2.0)

    def _lock(self, generation: Generation) -> asyncio.Lock:
        return self._locks.setdefault(generation.id, asyncio.Lock())

    @asynccontextmanager
    async def _limited(self, seconds: float | None = None) -> AsyncIterator[None]:
        """With a limit, and LanceDB's errors as ours."""
        seconds = seconds or self._settings.seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise StoreUnavailable(tell("lancedb_slow", uri=self._uri, seconds=f"{seconds:g}")) from error
        except (UnicodeEncodeError, OverflowError) as error:
            raise UserError(tell("store_bad_value")) from error
        except (RuntimeError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise StoreUnavailable(tell("lancedb_failed", uri=self._uri, reason=reason)) from error

    # ------------------------------------------------------------ small files, and the index of vectors
    def _index_soon(self, generation: Generation) -> None:
        """Once: whoever wrote so much may have ended before the index of its vectors was made."""
        if generation.dimension and generation.id not in self._indexed:
            self._indexed.add(generation.id)
            self._tidy_soon(generation)

    def _tidy_soon(self, generation: Generation) -> None:
        if not self._tidying:
            task = asyncio.create_task(self._tidy(generation), name="lancedb-tidy")
            self._tidying.add(task)
            task.add_done_callback(self._tidying.discard)

    async def _tidy(self, generation: Generation) -> None:
        """Each commit makes files: put small ones together, and index what is new, while documents come and go."""
        try:
            async with self._limited(3600):
                table = await self._opened(generation)
                if table is None:
                    return
                stats = await table.stats()
                rows, small = stats["num_rows"], stats["fragment_stats"]["num_small_fragments"]
                late = max((one.num_unindexed_rows or 0 for one in await table.list_indices()), default=0)
                if small >= _SMALL_FILES or late > rows // _UNINDEXED:
                    await table.optimize(cleanup_older_than=_KEEP)
                if generation.dimension and rows >= self._settings.index_from:
                    await self._index(table)
        except KvasirError as error:  # somebody else does the same, or the next one will
            logger.info("an index was not tidied up: %s", error)

    async def _index(self, table: Any) -> None:
        from lancedb.index import BTree, IvfFlat

        there = {column for one in await table.list_indices() for column in one.columns}
        if "id" not in there:
            await table.create_index("id", config=BTree())
        if "vector" not in there:
            # One of graphs (HNSW) finds no more, and while it is made, all else waits for minutes.
            parts = math.isqrt(await table.count_rows())
            config = IvfFlat(distance_type="dot", num_partitions=parts, sample_rate=32, max_iterations=8)
            await table.create_index("vector", config=config)


async def _off_loop(work: Callable[..., T], *given: Any) -> T:
    try:
        return await asyncio.to_thread(work, *given)
    except (UnicodeEncodeError, OverflowError) as error:
        raise UserError(tell("store_bad_value")) from error


def _is_conflict(error: Exception) -> bool:
    text = str(error).casefold()
    return "conflict" in text or "concurrent" in text


def _quoted(digests: Sequence[str]) -> str:
    return ", ".join(f"'{one}'" for one in digests)  # hex digits only


def _digests(document_ids: Sequence[str]) -> list[str]:
    return [key for one in dict.fromkeys(document_ids) if (key := _digest_or_none(one))]


def _digest_or_none(document_id: str) -> str | None:
    try:
        return digest(document_id)
    except UnicodeEncodeError:  # no such document was ever stored
        return None
