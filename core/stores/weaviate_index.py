"""One index on a Weaviate server, as a client sees it: every call that Kvasir makes there is one method."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, cast

from core.settings import WeaviateSettings
from core.stores import weaviate_aliases
from core.stores import weaviate_schema as schema
from core.stores.weaviate_changes import Change, State, read
from core.stores.weaviate_server import Server, T
from core.types import Generation, Vector

if TYPE_CHECKING:
    from weaviate import WeaviateAsyncClient
    from weaviate.collections import CollectionAsync
    from weaviate.collections.classes.batch import BatchObjectReturn
    from weaviate.collections.classes.data import DataObject
    from weaviate.collections.classes.filters import _Filters

_PAGE: Final = 1000
_FEW: Final = 64
_AT_ONCE: Final = 16
_READ: Final = 5000
"""Chunks with a word that are read to be counted, in some 30 ms; among more, one or two make no difference."""
_NOTE: Final = ("state", "born", "dead", "since")
_DOCUMENT: Final = ("key", "edition", "digest", "chunks", "document", "name", "title", "content_hash", "metadata")
_FIRST: Final = ("key", "edition", "noted", "document", "name", "title")
CHUNK: Final = (
    "document",
    "name",
    "title",
    "number",
    "text",
    "tokens",
    "content_hash",
    "headings",
    "locator",
    "edition",
)


class Index:
    def __init__(self, client: WeaviateAsyncClient, settings: WeaviateSettings, generation: Generation) -> None:
        self._client = client
        self._settings = settings
        self._generation = generation

    @cached_property
    def _chunks(self) -> CollectionAsync[Any, Any]:
        return self._tenant(schema.chunks_name(self._settings, self._generation), self._settings.write_consistency)

    @cached_property
    def _documents(self) -> CollectionAsync[Any, Any]:
        return self._tenant(schema.documents_name(self._settings), self._settings.write_consistency)

    @cached_property
    def _searched(self) -> CollectionAsync[Any, Any]:
        return self._tenant(schema.chunks_name(self._settings, self._generation), self._settings.read_consistency)

    def _tenant(self, name: str, level: str) -> CollectionAsync[Any, Any]:
        from weaviate.classes.config import ConsistencyLevel

        tenant = self._client.collections.use(name).with_tenant(self._generation.id)
        return tenant.with_consistency_level(ConsistencyLevel[level])

    # ---------------------------------------------------------------- the collections and the tenant
    async def ensure(self) -> None:
        """Make what is missing; somebody else may be doing the same."""
        for config in (
            schema.documents_config(self._settings), schema.chunks_config(self._settings, self._generation)
        ):  # fmt: skip
            if not await self._client.collections.exists(config["name"]):
                await self._create(config)
            tenants = self._client.collections.use(config["name"]).tenants
            if not await tenants.exists(self._generation.id):
                await tenants.create([self._generation.id])

    async def _create(self, config: Mapping[str, Any]) -> None:
        from weaviate.exceptions import UnexpectedStatusCodeError

        try:
            await self._client.collections.create(**config)
        except UnexpectedStatusCodeError:
            if not await self._client.collections.exists(config["name"]):
                raise

    async def complete(self) -> bool:
        """Add what the collection of chunks lacks because an earlier version made it; False where there is none."""
        from weaviate.exceptions import UnexpectedStatusCodeError, WeaviateInvalidInputError

        config = self._client.collections.use(schema.chunks_name(self._settings, self._generation)).config
        try:
            there = {one.name for one in (await config.get(simple=True)).properties}
        except UnexpectedStatusCodeError as error:
            if error.status_code == 404:
                return False
            raise
        for own in schema.of_first():
            if own.name not in there:
                try:
                    await config.add_property(own)
                except (UnexpectedStatusCodeError, WeaviateInvalidInputError):  # somebody else may have been quicker
                    if own.name not in {one.name for one in (await config.get(simple=True)).properties}:
                        raise
        return True

    async def drop(self) -> None:
        """The tenant goes; its collection too where it was the last one and nobody else's alias points at it."""
        for name in (schema.documents_name(self._settings), schema.chunks_name(self._settings, self._generation)):
            if not await self._client.collections.exists(name):
                continue
            tenants = self._client.collections.use(name).tenants
            if await tenants.exists(self._generation.id):
                await tenants.remove([self._generation.id])
        if await self._client.collections.exists(name) and not await tenants.get():
            is_free = await weaviate_aliases.release(self._client, self._settings, name)
            if is_free and not await tenants.get():
                await self._client.collections.delete(name)

    async def rest(self) -> None:
        """Let the server give back the memory of this index; the next search wakes it."""
        for name in (schema.documents_name(self._settings), schema.chunks_name(self._settings, self._generation)):
            await self._client.collections.use(name).tenants.deactivate(self._generation.id)

    # ---------------------------------------------------------------- notes
    async def state(self) -> State:
        from weaviate.classes.query import Filter as Where

        found = await self._documents.query.fetch_objects(
            filters=Where.by_property("kind").equal("change"), limit=_PAGE, return_properties=list(_NOTE)
        )
        return read(found.objects)

    async def note(self, change: Change) -> None:
        from weaviate.classes.data import DataObject

        done = await self._documents.data.insert_many([DataObject(properties=change.properties(), uuid=change.id)])
        if done.errors:
            raise ConnectionError("; ".join(error.message for error in done.errors.values()))

    async def forget(self, changes: Sequence[Change]) -> None:
        from weaviate.classes.query import Filter as Where

        if changes:
            await self._documents.data.delete_many(where=Where.by_id().contains_any([one.id for one in changes]))

    # ---------------------------------------------------------------- documents
    async def editions(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """What is noted of the documents with these keys, of editions that do not count too."""
        alone, with_chunks = await asyncio.gather(
            self._with_keys(self._documents, _DOCUMENT, keys), self._with_keys(self._chunks, _FIRST, keys)
        )
        return [*alone, *with_chunks]

    async def look(self, keys: Sequence[str]) -> tuple[State, list[dict[str, Any]]]:
        """Both `state` and `editions`, in few calls: most often there is little but chunks."""
        from weaviate.classes.query import Filter as Where

        # All there is; without a filter the server would walk past everything that was ever deleted.
        every = Where.by_property("kind").contains_any(["change", "document"])
        few, with_chunks = await asyncio.gather(
            self._documents.query.fetch_objects(
                filters=every, limit=_FEW, return_properties=["kind", *_NOTE, *_DOCUMENT]
            ),
            self._with_keys(self._chunks, _FIRST, keys),
        )
        if len(few.objects) == _FEW:
            state, alone = await asyncio.gather(self.state(), self._with_keys(self._documents, _DOCUMENT, keys))
        else:
            state = read(one for one in few.objects if one.properties["kind"] == "change")
            wanted = set(keys)
            alone = [dict(one.properties) for one in few.objects if one.properties["key"] in wanted]
        return state, [*alone, *with_chunks]

    async def _with_keys(
        self, collection: CollectionAsync[Any, Any], names: Sequence[str], keys: Sequence[str]
    ) -> list[dict[str, Any]]:
        from weaviate.classes.query import Filter as Where

        found: list[dict[str, Any]] = []
        for first in range(0, len(keys), _PAGE // 2):
            wanted = Where.by_property("key").contains_any(list(keys[first : first + _PAGE // 2]))
            page = await collection.query.fetch_objects(filters=wanted, limit=_PAGE * 5, return_properties=list(names))
            found += [_noted(one.properties) for one in page.objects]
        return found

    async def walk_documents(self) -> AsyncIterator[Mapping[str, Any]]:
        """All that have an object of their own, those that do not count too."""
        wanted = ["kind", "document", "content_hash", "chunks", "edition"]
        async for found in self._walk(self._documents, wanted):
            if found["kind"] == "document":
                yield found

    async def walk_firsts(self, beginning: str = "") -> AsyncIterator[Mapping[str, Any]]:
        """All that are noted on their first chunk and whose key begins so, those that do not count too."""
        from weaviate.classes.query import Filter as Where

        page = await self._chunks.query.fetch_objects(
            filters=Where.by_property("key").like(f"{beginning}*"), limit=_PAGE, return_properties=list(_FIRST)
        )
        if len(page.objects) < _PAGE or len(beginning) == schema.KEY_DIGITS:
            for one in page.objects:
                yield _noted(one.properties)
            return
        for digit in "0123456789abcdef":
            async for found in self.walk_firsts(beginning + digit):
                yield found

    async def walk_chunks(self) -> AsyncIterator[Mapping[str, Any]]:
        async for found in self._walk(self._chunks, ["document", "number", "content_hash", "edition"]):
            yield found

    async def _walk(self, collection: CollectionAsync[Any, Any], wanted: list[str]) -> AsyncIterator[Mapping[str, Any]]:
        async for one in self._objects(collection, wanted):
            yield one.properties

    async def _objects(self, collection: CollectionAsync[Any, Any], wanted: list[str]) -> AsyncIterator[Any]:
        after = None
        while True:
            page = await collection.query.fetch_objects(limit=_PAGE, after=after, return_properties=wanted)
            for one in page.objects:
                yield one
            if len(page.objects) < _PAGE:
                return
            after = page.objects[-1].uuid

    async def chunks_of(self, edition: str, first: int, last: int, *, vectors: bool = False) -> list[Any]:
        """The objects with these numbers, `last` not among them, in order."""
        from weaviate.classes.query import Filter as Where

        number = Where.by_property("number")
        page = await self._chunks.query.fetch_objects(
            filters=Where.all_of(
                [
                    Where.by_property("edition").equal(edition),
                    number.greater_or_equal(first),
                    Where.by_property("number").less_than(last),
                ]
            ),
            limit=last - first,
            include_vector=[schema.VECTOR] if vectors else False,
            return_properties=list(CHUNK),
        )
        return sorted(page.objects, key=lambda one: int(one.properties["number"]))

    # ---------------------------------------------------------------- search
    async def by_words(self, words: str, limit: int, wanted: _Filters | None) -> list[str]:
        """Ids of the best."""
        found = await self._searched.query.bm25(
            words, query_properties=["tokens"], limit=limit, filters=wanted, return_properties=False
        )
        return [str(one.uuid) for one in found.objects]

    async def by_vector(self, vector: Vector, limit: int, wanted: _Filters | None) -> list[str]:
        """Ids of the nearest."""
        numbers = cast("Sequence[float]", vector)  # it takes arrays too, and looks at each number of a list by itself
        found = await self._searched.query.near_vector(
            numbers, target_vector=schema.VECTOR, limit=limit, filters=wanted, return_properties=False
        )
        return [str(one.uuid) for one in found.objects]

    async def objects(self, ids: Sequence[str], *, vectors: bool) -> Sequence[Any]:
        """The chunks with these ids, as far as they are there."""
        found = await self._searched.query.fetch_objects_by_ids(
            ids,
            limit=len(ids),
            include_vector=[schema.VECTOR] if vectors else False,
            return_properties=list(CHUNK),
        )
        return found.objects

    async def totals(self, visible: _Filters | None) -> tuple[int, int]:
        """How many chunks, and how many tokens in all of them."""
        from weaviate.classes.aggregate import Metrics
        from weaviate.classes.query import Filter as Where

        async def summed(collection: CollectionAsync[Any, Any], length: str) -> tuple[int, int]:
            # By a filter, with which the server reads each object that passes: what it has counted itself is wrong
            # once it was killed. By this one, which only those pass that have the numbers.
            own = Where.by_property(length).greater_or_equal(0)
            found = await collection.aggregate.over_all(
                filters=own if visible is None else visible & own,
                return_metrics=[Metrics("chunks").integer(sum_=True), Metrics(length).integer(sum_=True)],
            )
            chunks, tokens = (getattr(found.properties.get(name), "sum_", None) for name in ("chunks", length))
            return int(chunks or 0), int(tokens or 0)

        sums = await asyncio.gather(summed(self._searched, "length"), summed(self._documents, "tokens"))
        chunks, tokens = (sum(each) for each in zip(*sums, strict=True))
        return chunks, tokens

    async def frequencies(self, tokens: Sequence[str], state: State) -> dict[str, int]:
        """In how many chunks each token stands; where entries may be left of others, in which one or two would tell,
        the chunks are counted and not their entries.
        """
        from weaviate.classes.aggregate import Metrics
        from weaviate.classes.query import Filter as Where

        free = asyncio.Semaphore(_AT_ONCE)

        async def ask(token: str) -> int:
            wanted = state.visible(Where.by_property("tokens").equal(token))
            async with free:
                found = await self._searched.aggregate.over_all(filters=wanted, total_count=True)
                entries = found.total_count or 0
                if not state.is_torn or not 0 < entries <= _READ:
                    return entries
                read = await self._searched.aggregate.over_all(
                    filters=wanted, return_metrics=[Metrics("number").integer(count=True)]
                )
                return int(getattr(read.properties.get("number"), "count", None) or 0)

        return dict(zip(tokens, await asyncio.gather(*map(ask, tokens)), strict=True))

    # ---------------------------------------------------------------- writing
    async def insert_chunks(self, objects: Sequence[DataObject[Any, Any]]) -> BatchObjectReturn:
        return await self._chunks.data.insert_many(objects)

    async def insert_documents(self, objects: Sequence[DataObject[Any, Any]]) -> BatchObjectReturn:
        return await self._documents.data.insert_many(objects)

    async def counted(self, editions: Sequence[str], keys: Sequence[str], *, alone: bool) -> tuple[int, int]:
        """How many chunks these editions have and how many documents they are, as the filters find them that are used.

        `alone`: some documents are objects of their own.
        """
        from weaviate.classes.query import Filter as Where

        born, keyed = (
            Where.by_property(name).contains_any(list(values))
            for name, values in (("edition", editions), ("key", keys))
        )
        asked = [(self._chunks, born), (self._chunks, born & keyed), (self._documents, born & keyed)]
        asked = asked if alone else asked[:2]
        found = await asyncio.gather(*(one.aggregate.over_all(filters=by, total_count=True) for one, by in asked))
        chunks, *documents = (one.total_count or 0 for one in found)
        return chunks, sum(documents)

    async def forget_chunks(self, ids: Sequence[str]) -> None:
        """Take them out by their ids, also those that no filter finds."""
        await self._forget(self._chunks, ids)

    async def forget_documents(self, ids: Sequence[str]) -> None:
        """As `forget_chunks`; notes too."""
        await self._forget(self._documents, ids)

    async def _forget(self, collection: CollectionAsync[Any, Any], ids: Sequence[str]) -> None:
        free = asyncio.Semaphore(_AT_ONCE)

        async def remove(key: str) -> None:
            async with free:
                await collection.data.delete_by_id(key)

        await asyncio.gather(*map(remove, ids))

    async def remove_unseen(self, editions: Sequence[str]) -> None:
        """Take out what `remove` has not found: a server that was killed while it wrote may have objects without
        their entries in the index of words and filters, and writes none for the same object again. Looks at them all.
        """
        gone = set(editions)
        if not gone:
            return
        for collection in (self._chunks, self._documents):
            every = self._objects(collection, ["edition"])
            await self._forget(collection, [str(one.uuid) async for one in every if one.properties["edition"] in gone])

    async def remove(self, editions: Sequence[str]) -> None:
        """The server takes out some thousands at once."""
        from weaviate.classes.query import Filter as Where

        if not editions:
            return
        wanted = Where.by_property("edition").contains_any(list(editions))
        for collection in (self._chunks, self._documents):
            while True:
                done = await collection.data.delete_many(where=wanted)
                if done.failed:
                    raise ConnectionError(f"{done.failed} objects were not deleted")
                if not done.matches:
                    break


async def ask(
    server: Server,
    settings: WeaviateSettings,
    generation: Generation,
    work: Callable[[Index], Awaitable[T]],
    seconds: float,
) -> T:
    """What `work` gives, of a collection that has what this version needs. Raises as `Server.call` does."""
    name = schema.chunks_name(settings, generation)

    async def done(client: WeaviateAsyncClient) -> T:
        index = Index(client, settings, generation)
        if name not in server.complete and await index.complete():
            server.complete.add(name)
        return await work(index)

    return await server.call(done, seconds)


def _noted(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is noted of a document, wherever."""
    return {**found, **json.loads(str(found["noted"]))} if found.get("noted") else dict(found)
