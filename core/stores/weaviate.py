"""The `weaviate` store: a Weaviate server, for many machines and more chunks than one computer's memory holds.

`weaviate_server` is the connection, `weaviate_schema` what is made there, `weaviate_index` the calls,
`weaviate_changes` how each of our own comes in one step, `weaviate_writing` and `weaviate_search` the two directions.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from core.errors import StoreUnavailable
from core.ports import QueryVector
from core.settings import Settings, WeaviateSettings
from core.stores.asked import asked_vector
from core.stores.weaviate_aliases import aliases_of, mirror
from core.stores.weaviate_changes import State
from core.stores.weaviate_filters import condition
from core.stores.weaviate_index import Index, ask
from core.stores.weaviate_schema import VECTOR, document_key
from core.stores.weaviate_search import Memory, Wanted, chunk_of, search
from core.stores.weaviate_server import Absent, Server, T
from core.stores.weaviate_writing import Writer
from core.stores.writing import check
from core.texts import tell
from core.types import Chunk, Filter, Generation, IndexedDocument, SearchResult, StoreCount

if TYPE_CHECKING:
    from weaviate import WeaviateAsyncClient

logger = logging.getLogger(__name__)

_PAGE: Final = 1000
_PAUSE: Final = 0.05
_REMEMBERED: Final = 32
_CLOSE_SECONDS: Final = 5.0


async def open_store(settings: Settings) -> WeaviateStore:
    """The store of the section `weaviate`. A server that is away is no error yet. Raises ConfigError, MissingExtra."""
    store = WeaviateStore(settings.weaviate)
    try:
        await store.open()
    except BaseException:
        await store.close()
        raise
    return store


class WeaviateStore:
    def __init__(self, settings: WeaviateSettings) -> None:
        self._settings = settings
        self._server = Server(settings)
        self._memories: dict[str, Memory] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._used: dict[str, tuple[Generation, float]] = {}
        self._later: set[asyncio.Task[None]] = set()
        self._mirrored: Mapping[str, str] | None = None
        self._resting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        try:
            version = await self._server.version()
        except StoreUnavailable as error:
            logger.warning("%s", error)
        else:
            logger.info("weaviate %s at %s", version, self._server.address)
        if self._settings.idle_minutes:
            self._resting = asyncio.create_task(self._rest())

    async def close(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            await asyncio.wait([self._resting])
        if self._later:
            await asyncio.wait(self._later, timeout=_CLOSE_SECONDS)
        await self._server.close()

    async def ensure_generation(self, generation: Generation) -> None:
        await self._call(generation, Index.ensure, self._settings.write_seconds)
        async with self._lock(generation):
            try:
                await Writer(self._server, self._settings, generation).begin()
            except Absent as error:
                raise StoreUnavailable(tell("store_no_generation")) from error

    async def drop_generation(self, generation: Generation) -> None:
        async with self._lock(generation):
            await self._call(generation, Index.drop, self._settings.write_seconds)
        for kept in (self._memories, self._locks, self._used):
            kept.pop(generation.id, None)

    async def mirror(self, live: Sequence[Generation]) -> None:
        """Let an alias for each knowledge base name the collection of its live index. Raises StoreUnavailable."""
        wanted = aliases_of(self._settings, live)
        if wanted != self._mirrored:
            await self._server.call(lambda client: mirror(client, self._settings, wanted), self._settings.write_seconds)
            self._mirrored = wanted

    async def put(self, generation: Generation, documents: Sequence[IndexedDocument]) -> None:
        wanted = list({document.id: document for document in documents}.values())
        for document in wanted:
            check(generation, document)
        if wanted:
            async with self._lock(generation):
                try:
                    await Writer(self._server, self._settings, generation).put(wanted, self._afterwards)
                except Absent as error:
                    raise StoreUnavailable(tell("store_no_generation")) from error

    async def delete(self, generation: Generation, document_ids: Sequence[str]) -> None:
        if document_ids:
            async with self._lock(generation):
                try:
                    await Writer(self._server, self._settings, generation).delete(document_ids)
                except Absent:
                    return

    async def search(
        self,
        generation: Generation,
        *,
        vector: QueryVector,
        tokens: Sequence[str],
        limit: int,
        filter: Filter | None = None,
    ) -> SearchResult:
        where = None if filter is None else condition(filter)
        wanted = Wanted(await asked_vector(generation, vector), tuple(dict.fromkeys(tokens)), limit, where)
        memory = self._memory(generation)
        try:
            return await self._call(
                generation, lambda index: search(index, memory, wanted), self._settings.search_seconds
            )
        except Absent:
            self._memories.pop(generation.id, None)
            return SearchResult((), 0, dict.fromkeys(tokens, 0))

    async def chunks(self, generation: Generation, document_id: str) -> Sequence[Chunk]:
        key = _key_or_none(document_id)
        return await self._steady(generation, partial(_chunks, key=key), []) if key else []

    async def read(self, generation: Generation, document_ids: Sequence[str]) -> Sequence[IndexedDocument]:
        keys = [key for one in dict.fromkeys(document_ids) if (key := _key_or_none(one)) is not None]
        return (
            await self._steady(generation, partial(_read, keys=keys, dimension=generation.dimension), [])
            if keys
            else []
        )

    async def documents(self, generation: Generation) -> Sequence[tuple[str, str, int]]:
        return await self._steady(generation, _documents, [])

    async def count(self, generation: Generation) -> StoreCount:
        return await self._steady(generation, _count, StoreCount(0, 0, "0" * 32))

    async def _steady(self, generation: Generation, look: Callable[[Index, State], Awaitable[T]], otherwise: T) -> T:
        """What is seen where nothing new came while we looked; `otherwise` where there is no such index."""

        async def looked(index: Index) -> T:
            before = await index.state()
            while True:
                found = await look(index, before)
                after = await index.state()
                if after == before:
                    return found
                before = after
                await asyncio.sleep(_PAUSE)

        try:
            return await self._call(generation, looked, self._settings.write_seconds)
        except Absent:
            return otherwise

    async def _call(self, generation: Generation, work: Callable[[Index], Awaitable[T]], seconds: float) -> T:
        self._used[generation.id] = (generation, time.monotonic())
        return await ask(self._server, self._settings, generation, work, seconds)

    def _memory(self, generation: Generation) -> Memory:
        """Of the indexes that were searched last."""
        memory = self._memories.pop(generation.id, None) or Memory()
        self._memories[generation.id] = memory
        if len(self._memories) > _REMEMBERED:
            self._memories.pop(next(iter(self._memories)))
        return memory

    def _lock(self, generation: Generation) -> asyncio.Lock:
        return self._locks.setdefault(generation.id, asyncio.Lock())

    def _afterwards(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _rest(self) -> None:
        idle = self._settings.idle_minutes * 60
        while True:
            await asyncio.sleep(min(idle / 2, 60))
            await self.rest_unused(idle)

    async def rest_unused(self, seconds: float) -> None:
        """Indexes that this process has used, but not for so long, give back their memory until they are asked."""
        for generation, used in list(self._used.values()):
            if time.monotonic() - used < seconds:
                continue
            try:
                await self._server.call(partial(self._let_rest, generation), self._settings.search_seconds)
            except (StoreUnavailable, Absent) as error:
                logger.info("an idle index stays as it is: %s", error)
            self._used.pop(generation.id, None)

    async def _let_rest(self, generation: Generation, client: WeaviateAsyncClient) -> None:
        await Index(client, self._settings, generation).rest()


async def _counting(index: Index, state: State, keys: Sequence[str]) -> list[dict[str, Any]]:
    hidden = set(state.hidden)
    return [one for one in await index.editions(keys) if one["edition"] not in hidden]


async def _chunks(index: Index, state: State, key: str) -> Sequence[Chunk]:
    found: list[Chunk] = []
    for document in await _counting(index, state, [key]):
        for first in range(0, int(document["chunks"]), _PAGE):
            page = await index.chunks_of(document["edition"], first, first + _PAGE)
            found += [chunk_of(one.properties) for one in page]
    return found


async def _read(index: Index, state: State, keys: Sequence[str], *, dimension: int) -> Sequence[IndexedDocument]:
    noted = {one["key"]: one for one in await _counting(index, state, keys)}
    return [await _whole(index, noted[key], dimension=dimension) for key in keys if key in noted]


async def _whole(index: Index, noted: Mapping[str, Any], *, dimension: int) -> IndexedDocument:
    objects: list[Any] = []
    for first in range(0, int(noted["chunks"]), _PAGE):
        objects += await index.chunks_of(noted["edition"], first, first + _PAGE, vectors=dimension > 0)
    vectors = None
    if dimension:
        vectors = np.array([one.vector[VECTOR] for one in objects], np.float32).reshape(len(objects), dimension)
    return IndexedDocument(
        noted["document"],
        noted["name"],
        noted["title"],
        noted["content_hash"],
        tuple(chunk_of(one.properties) for one in objects),
        vectors,
        json.loads(noted["metadata"] or "{}"),
    )


async def _documents(index: Index, state: State) -> Sequence[tuple[str, str, int]]:
    hidden = set(state.hidden)
    return sorted(
        [
            (one["document"], one["content_hash"], int(one["chunks"]))
            for walked in (index.walk_documents(), index.walk_firsts())
            async for one in walked
            if one["edition"] not in hidden
        ]
    )


async def _count(index: Index, state: State) -> StoreCount:
    """Counted from the chunks themselves, so that it tells what is there."""
    hidden = set(state.hidden)
    listed = {one["document"] async for one in index.walk_documents() if one["edition"] not in hidden}
    chunks = digest = 0
    async for one in index.walk_chunks():
        if one["edition"] in hidden:
            continue
        document = one["document"]
        listed.add(document)
        chunks += 1
        line = f"{len(document)} {document} {int(one['number'])} {one['content_hash']}".encode()
        digest += int.from_bytes(hashlib.blake2b(line, digest_size=16).digest(), "big")
    return StoreCount(len(listed), chunks, f"{digest % (1 << 128):032x}")


def _key_or_none(document_id: str) -> str | None:
    try:
        return document_key(document_id)
    except UnicodeEncodeError:  # no such document was ever stored
        return None
