"""Several stores as one: an index is looked for in the store that it names, which is opened when it is first needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from core.errors import KvasirError, StoreUnavailable
from core.ports import QueryVector, VectorStore
from core.settings import Settings
from core.texts import tell
from core.types import Chunk, Filter, Generation, IndexedDocument, SearchResult, StoreCount

logger = logging.getLogger(__name__)

Opener = Callable[[str], Awaitable[VectorStore]]
"""Opens the store of a kind."""


def is_set_up(settings: Settings, kind: str) -> bool:
    """Whether the settings say enough of it to be used: a server has an address, a file is on the only machine."""
    if kind == settings.store.kind:
        return True
    if kind == "local":
        return settings.database_url.startswith("sqlite")
    if kind == "pgvector" and not settings.database_url.startswith("sqlite"):
        return True
    section = getattr(settings, kind, None)
    return section is not None and bool(section.model_fields_set)


class Stores:
    """A `VectorStore` over all stores there are."""

    def __init__(self, kind: str, home: VectorStore, opener: Opener) -> None:
        """`home`, of that kind, is where indexes are that name no store."""
        self.home = home
        self._opener = opener
        self._there = {"": home, kind: home}
        self._opening = asyncio.Lock()

    @classmethod
    async def open(cls, kind: str, opener: Opener) -> Stores:
        """Raises what opening the store of that kind raises."""
        return cls(kind, await opener(kind), opener)

    async def close(self) -> None:
        async with self._opening:
            for store in {id(store): store for store in self._there.values()}.values():
                await store.close()

    async def usable(self, kind: str) -> None:
        """Open it, where it is not. Raises ConfigError, MissingExtra or StoreUnavailable."""
        async with self._opening:
            if kind not in self._there:
                self._there[kind] = await self._opener(kind)

    async def prepare(self, kinds: Sequence[str]) -> None:
        """Open those that are used, so that no question waits for it; one that cannot be is told when it is asked."""
        for kind in kinds:
            try:
                await self.usable(kind)
            except KvasirError as error:
                logger.warning("%s", error)

    async def ensure_generation(self, generation: Generation) -> None:
        await (self._there.get(generation.store) or await self._opened(generation)).ensure_generation(generation)

    async def drop_generation(self, generation: Generation) -> None:
        await (self._there.get(generation.store) or await self._opened(generation)).drop_generation(generation)

    async def put(self, generation: Generation, documents: Sequence[IndexedDocument]) -> None:
        await (self._there.get(generation.store) or await self._opened(generation)).put(generation, documents)

    async def delete(self, generation: Generation, document_ids: Sequence[str]) -> None:
        await (self._there.get(generation.store) or await self._opened(generation)).delete(generation, document_ids)

    async def search(
        self,
        generation: Generation,
        *,
        vector: QueryVector,
        tokens: Sequence[str],
        limit: int,
        filter: Filter | None = None,
    ) -> SearchResult:
        store = self._there.get(generation.store) or await self._opened(generation)
        return await store.search(generation, vector=vector, tokens=tokens, limit=limit, filter=filter)

    async def chunks(self, generation: Generation, document_id: str) -> Sequence[Chunk]:
        return await (self._there.get(generation.store) or await self._opened(generation)).chunks(
            generation, document_id
        )

    async def read(self, generation: Generation, document_ids: Sequence[str]) -> Sequence[IndexedDocument]:
        return await (self._there.get(generation.store) or await self._opened(generation)).read(
            generation, document_ids
        )

    async def documents(self, generation: Generation) -> Sequence[tuple[str, str, int]]:
        return await (self._there.get(generation.store) or await self._opened(generation)).documents(generation)

    async def count(self, generation: Generation) -> StoreCount:
        return await (self._there.get(generation.store) or await self._opened(generation)).count(generation)

    async def mirror(self, live: Sequence[Generation]) -> None:
        """Tell the stores that keep a note of it which indexes are live. Raises StoreUnavailable."""
        for kind, store in list(self._there.items()):
            note = getattr(store, "mirror", None)
            if kind and note is not None:
                await note([one for one in live if self._there.get(one.store) is store])

    async def _opened(self, generation: Generation) -> VectorStore:
        """Tried again each time, so that a store that comes back is used. Raises StoreUnavailable."""
        try:
            await self.usable(generation.store)
        except KvasirError as error:
            raise StoreUnavailable(tell("store_not_open", store=generation.store, reason=error)) from error
        return self._there[generation.store]
