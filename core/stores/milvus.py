"""The `milvus` store: a Milvus server, Zilliz Cloud, or Milvus Lite, which is a folder and needs no server.

`milvus_server` is the connection, `milvus_index` the calls, `milvus_writing` how a change comes in one step. Words are
searched in memory (`outline`), vectors there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np

from core.errors import StoreUnavailable, UserError
from core.ports import QueryVector
from core.settings import MilvusSettings, Settings
from core.stores.asked import asked_vector
from core.stores.counting import counted
from core.stores.database import CHUNK_BITS
from core.stores.milvus_index import LAST_CHUNK, Index, digest, prepared, where_of
from core.stores.milvus_server import Absent, Server
from core.stores.milvus_writing import Writer
from core.stores.outline import Head, Outline, Outlines, Restless, Words
from core.stores.outlined import Kept, Row, Wanted, Within, search
from core.stores.weaviate_changes import State
from core.texts import tell
from core.types import Chunk, Filter, Generation, IndexedDocument, SearchResult, StoreCount, Vector

logger = logging.getLogger(__name__)

_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_CLOSE_SECONDS: Final = 5.0
_FEW: Final = 256
"""Documents whose words are asked for one by one."""

T = TypeVar("T")


async def open_store(settings: Settings) -> MilvusStore:
    """The store of the section `milvus`. A server that is away is no error yet. Raises ConfigError, MissingExtra."""
    store = MilvusStore(Server(settings.milvus, settings.data_dir), settings.milvus)
    try:
        await store.open()
    except BaseException:
        await store.close()
        raise
    return store


class MilvusStore:
    def __init__(self, server: Server, settings: MilvusSettings) -> None:
        self._server = server
        self._settings = settings
        self._outlines = Outlines(settings.cache_mb << 20, settings.write_seconds)
        self._kept = Kept()
        self._locks: dict[str, asyncio.Lock] = {}
        self._states: dict[str, State] = {}
        self._loaded: set[str] = set()
        self._later: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        try:
            logger.info("%s at %s", await self._server.version(), self._server.address)
        except StoreUnavailable as error:
            if self._server.is_lite:
                raise
            logger.warning("%s", error)

    async def close(self) -> None:
        await self._outlines.close()
        if self._later:
            await asyncio.wait(self._later, timeout=_CLOSE_SECONDS)
        await self._server.close()

    async def ensure_generation(self, generation: Generation) -> None:
        async with self._lock(generation):
            await self._call(generation, Index.ensure, is_new=True)
            self._loaded.add(generation.id)

    async def drop_generation(self, generation: Generation) -> None:
        async with self._lock(generation):
            await self._call(generation, Index.drop, is_new=True)
        self._forget(generation)
        self._locks.pop(generation.id, None)

    async def put(self, generation: Generation, documents: Sequence[IndexedDocument]) -> None:
        wanted = list({document.id: document for document in documents}.values())
        if not wanted:
            return
        try:
            rows = await asyncio.to_thread(prepared, generation, wanted)
        except (UnicodeEncodeError, OverflowError) as error:
            raise UserError(tell("store_bad_value")) from error
        async with self._lock(generation):
            try:
                await self._writer(generation).put(*rows)
            except Absent as error:
                raise StoreUnavailable(tell("store_no_generation")) from error

    async def delete(self, generation: Generation, document_ids: Sequence[str]) -> None:
        digests = _digests(document_ids)
        async with self._lock(generation):
            try:
                if digests:
                    await self._writer(generation).delete(digests)
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
        wanted = Wanted(await asked_vector(generation, vector), tokens, limit, filter)
        seconds = self._settings.search_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._search(generation, wanted)
        except TimeoutError as error:
            raise StoreUnavailable(tell("milvus_slow", uri=self._server.address, seconds=f"{seconds:g}")) from error
        except Absent:
            self._forget(generation)
            return SearchResult((), 0, dict.fromkeys(tokens, 0))

    async def _search(self, generation: Generation, wanted: Wanted) -> SearchResult:
        """In one state of the index, which was there when, or after, the search began."""
        key, pause = generation.id, _PAUSE
        state, is_fresh = self._states.get(key), False
        if state is None:
            state, is_fresh = await self._state(generation), True
        while True:
            found = outline = None
            with suppress(Restless):
                outline = await self._outline(generation, state)
                found = await search(outline, key, _Rows(self, generation, state), self._kept, wanted)
            after = self._states[key] = await self._state(generation)
            if found is not None and outline is not None:
                same = _is_same(state, after, outline)
                if same or (is_fresh and await self._holds(generation, outline, after)):
                    return found
            if is_fresh:  # so busy that whoever writes is let go on
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                after = self._states[key] = await self._state(generation)
            state, is_fresh = after, True

    async def _holds(self, generation: Generation, outline: Outline, after: State) -> bool:
        """Whether nothing of it is gone; what came in since need not be found."""
        with suppress(Restless):
            return outline.heads.keys() <= (await self._outline(generation, after)).heads.keys()
        return False

    async def chunks(self, generation: Generation, document_id: str) -> Sequence[Chunk]:
        async def look(state: State) -> Sequence[Chunk]:
            heads = await self._heads(generation, [document_id], state)
            if not heads:
                return []
            rows = await self._call(generation, lambda index: index.chunks(heads[0], vectors=False))
            return [row.chunk for row in rows]

        return await self._steady(generation, look, [])

    async def read(self, generation: Generation, document_ids: Sequence[str]) -> Sequence[IndexedDocument]:
        async def look(state: State) -> Sequence[IndexedDocument]:
            heads = {head.key: head for head in await self._heads(generation, document_ids, state)}
            return [await self._whole(generation, heads[key]) for key in dict.fromkeys(document_ids) if key in heads]

        return await self._steady(generation, look, [])

    async def documents(self, generation: Generation) -> Sequence[tuple[str, str, int]]:
        async def look(state: State) -> Sequence[tuple[str, str, int]]:
            heads = await self._walk(generation, lambda index: index.every_head(set(state.hidden)))
            return sorted([(head.key, head.content_hash, head.chunks) for head in heads])

        return await self._steady(generation, look, [])

    async def count(self, generation: Generation) -> StoreCount:
        """Counted from the rows themselves, so that it tells what is there."""

        async def look(state: State) -> StoreCount:
            hidden = set(state.hidden)
            heads = await self._walk(generation, lambda index: index.every_head(hidden))
            rows = await self._walk(generation, Index.hashes)
            keys = {head.number: head.key for head in heads}
            found = (
                (keys.get(row >> CHUNK_BITS, ""), row & LAST_CHUNK, content)
                for row, content in rows
                if str(row >> CHUNK_BITS) not in hidden
            )
            return await asyncio.to_thread(counted, len(keys), found)

        return await self._steady(generation, look, StoreCount(0, 0, "0" * 32))

    # ------------------------------------------------------------ shared
    async def _steady(self, generation: Generation, look: Callable[[State], Awaitable[T]], otherwise: T) -> T:
        """What is seen where nothing new came while we looked; `otherwise` where there is no such index."""
        try:
            before = await self._state(generation)
            while True:
                found = await look(before)
                after = await self._state(generation)
                if after == before:
                    return found
                before = after
                await asyncio.sleep(_PAUSE)
        except Absent:
            return otherwise

    async def _state(self, generation: Generation) -> State:
        return await self._call(generation, Index.state)

    async def _heads(self, generation: Generation, document_ids: Sequence[str], state: State) -> list[Head]:
        digests, hidden = _digests(document_ids), set(state.hidden)
        return await self._call(generation, lambda index: index.heads(digests, hidden)) if digests else []

    async def _whole(self, generation: Generation, head: Head) -> IndexedDocument:
        rows = await self._call(generation, lambda index: index.chunks(head, vectors=generation.dimension > 0))
        vectors = None
        if generation.dimension:
            vectors = np.array([row.vector for row in rows], np.float32).reshape(-1, generation.dimension)
        texts = (head.key, head.name, head.title, head.content_hash)
        return IndexedDocument(*texts, tuple(row.chunk for row in rows), vectors, head.metadata)

    async def _outline(self, generation: Generation, state: State) -> Outline:
        held = self._outlines.held(generation.id)
        # Notes are forgotten in time; what is left of those that are known says nothing new.
        known = held.version if held is not None and isinstance(held.version, frozenset) else frozenset()
        version = known if state.content and state.content <= known else state.content
        return await self._outlines.current(generation.id, _Source(self, generation, state, version))

    async def _call(self, generation: Generation, work: Callable[[Index], Awaitable[T]], *, is_new: bool = False) -> T:
        """Raises Absent or StoreUnavailable."""

        async def call(client: Any) -> T:
            index = Index(client, self._settings.prefix, generation)
            if not is_new and generation.id not in self._loaded:
                await index.load()
                self._loaded.add(generation.id)
            return await work(index)

        try:
            return await self._server.call(call, self._settings.write_seconds)
        except Absent:
            self._loaded.discard(generation.id)
            raise

    async def _walk(self, generation: Generation, walk: Callable[[Index], Callable[[Any], T]]) -> T:
        own = walk(Index(None, self._settings.prefix, generation))
        return await self._server.walk(own, self._settings.write_seconds)

    def _writer(self, generation: Generation) -> Writer:
        do = partial(self._call, generation)
        return Writer(do, self._afterwards, self._server.address, self._settings.write_seconds)

    def _lock(self, generation: Generation) -> asyncio.Lock:
        return self._locks.setdefault(generation.id, asyncio.Lock())

    def _forget(self, generation: Generation) -> None:
        self._outlines.forget(generation.id)
        self._states.pop(generation.id, None)
        self._loaded.discard(generation.id)

    def _afterwards(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="milvus-undo")
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def indexes(self) -> int:
        """How many there are."""

        async def ask(client: Any) -> int:
            names = await client.list_collections()
            return sum(name.startswith(f"{self._settings.prefix}_d_") for name in names)

        return await self._server.call(ask, self._settings.search_seconds)


@dataclass(frozen=True, slots=True)
class _Source:
    """An index as its outline is read from it (`outline.Index`)."""

    store: MilvusStore
    generation: Generation
    state: State
    version: Hashable

    async def numbers(self) -> set[int]:
        hidden = set(self.state.hidden)
        return await self.store._walk(self.generation, lambda index: index.numbers(hidden))

    async def load(self, numbers: Collection[int] | None) -> AsyncIterator[tuple[Sequence[Head], Sequence[Words]]]:
        store, generation = self.store, self.generation
        hidden = set(self.state.hidden)
        if numbers is not None and len(numbers) <= _FEW:
            heads = await store._call(generation, lambda index: index.heads_of(sorted(numbers)))
            words = await store._call(generation, lambda index: index.words(heads))
        else:
            heads = await store._walk(generation, lambda index: index.every_head(hidden))
            wanted = {head.number for head in heads if numbers is None or head.number in numbers}
            heads = [head for head in heads if head.number in wanted]
            words = await store._walk(generation, lambda index: index.every_word(wanted))
        yield heads, words


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of an index in one state (`outlined.Rows`)."""

    store: MilvusStore
    generation: Generation
    state: State

    MOST_LISTED = 5000
    MOST_FOUND = 16_384

    async def nearest(self, vector: Vector, limit: int, within: Within | None) -> Sequence[int]:
        where = where_of(self.state.hidden, within)
        return await self.store._call(self.generation, lambda index: index.nearest(vector, limit, where))

    async def rows(self, ids: Sequence[int], *, vectors: bool) -> Mapping[int, Row]:
        return await self.store._call(self.generation, lambda index: index.rows(ids, vectors=vectors))


def _is_same(before: State, after: State, outline: Outline) -> bool:
    """Whether what was found holds in both: nothing new counts, and nothing that was there has gone."""
    if before == after:
        return True
    if not after.content or not after.content <= before.content:
        return False
    return not any(int(number) in outline.heads for number in after.hidden)


def _digests(document_ids: Sequence[str]) -> list[str]:
    found = []
    for one in dict.fromkeys(document_ids):
        try:
            found.append(digest(one))
        except UnicodeEncodeError:  # no such document was ever stored
            continue
    return found
