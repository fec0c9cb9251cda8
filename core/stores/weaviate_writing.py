"""Documents into and out of an index on a Weaviate server, each call as one step (see `weaviate_changes`)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from core.errors import DocumentError, StoreUnavailable
from core.settings import WeaviateSettings
from core.stores import weaviate_schema as schema
from core.stores.weaviate_changes import COMING, DONE, SWEPT, TORN, Change, State, left_over
from core.stores.weaviate_filters import labels
from core.stores.weaviate_index import Index, ask
from core.stores.weaviate_server import Absent, Refused, Server, T, is_missing
from core.stores.writing import chunk_row
from core.texts import tell
from core.types import Generation, IndexedDocument

if TYPE_CHECKING:
    from weaviate.collections.classes.batch import BatchObjectReturn
    from weaviate.collections.classes.data import DataObject

    Objects = Sequence[DataObject[Any, Any]]

logger = logging.getLogger(__name__)

_BATCH: Final = 100
_ABREAST: Final = 2
"""Batches on their way at once: while one is being made, the server works on the other."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_CALL_SECONDS: Final = 45.0
_WALK_SECONDS: Final = 900.0
"""For looking at every object of an index, which is done only after something was killed."""
_UNDO_SECONDS: Final = 20.0
_RENEWED: Final = 60.0
_FINISHED: Final = 8
"""Notes of changes that are done; every search reads them, and to forget some takes as long as to write one."""
_HOPELESS: Final = ("invalid", "length mismatch", "vector lengths", "schema")
"""Words in what the server says of an object that another try would not change."""


@dataclass(frozen=True, slots=True)
class Coming:
    """A document that is to be written."""

    document: IndexedDocument
    key: str
    digest: str
    edition: str


class Writer:
    """Writes one index; one writer of it at a time in a process."""

    def __init__(self, server: Server, settings: WeaviateSettings, generation: Generation) -> None:
        self._server = server
        self._settings = settings
        self._generation = generation
        self._until = time.monotonic() + settings.write_seconds
        self._is_shaken = False
        """A call has failed, and nobody knows how much of it was done."""

    async def put(self, documents: Sequence[IndexedDocument], later: Callable[[Awaitable[None]], None]) -> None:
        """`later` takes over what is to be undone after a failure."""
        keys = [schema.document_key(document.id) for document in documents]
        (state, there), digests = await asyncio.gather(
            self._there(keys), asyncio.to_thread(lambda: [_digest(document) for document in documents])
        )
        noted: dict[str, list[dict[str, Any]]] = {key: [] for key in keys}
        for one in there:
            noted[one["key"]].append(one)
        coming = [
            Coming(document, key, digest, uuid.uuid4().hex)
            for document, key, digest in zip(documents, keys, digests, strict=True)
            if [one["digest"] for one in noted[key]] != [digest]
        ]
        if not coming:
            return
        dead = tuple(one["edition"] for new in coming for one in noted[new.key])
        born = tuple(new.edition for new in coming)
        change = Change(str(uuid.uuid4()), COMING, born, dead, time.time())
        _, (objects, rows) = await asyncio.gather(
            self._do(lambda index: index.note(change)), asyncio.to_thread(_objects, self._generation, coming)
        )
        try:
            await self._write(change, objects, rows, state)
        except BaseException:
            later(self._undo(change))
            raise
        await self._finish(change)

    async def delete(self, document_ids: Sequence[str]) -> None:
        keys = [schema.document_key(one) for one in dict.fromkeys(document_ids)]
        state, there = await self._there(keys)
        if dead := tuple(one["edition"] for one in there):
            await self._forget_older(state)
            await self._finish(Change(str(uuid.uuid4()), COMING, (), dead, time.time()))

    async def begin(self) -> None:
        """The first note of an index."""
        if not (await self._do(Index.state)).changes:
            first = Change(str(uuid.uuid4()), SWEPT, (), (), time.time())
            await self._do(lambda index: index.note(first))

    async def _there(self, keys: Sequence[str]) -> tuple[State, list[dict[str, Any]]]:
        """The state, after what killed writers left has been taken out, and what counts of these documents."""
        state, there = await self._do(lambda index: index.look(keys))
        if left_over(state, time.time()):
            state = await self._tidy(state)
            there = await self._do(lambda index: index.editions(keys))
        hidden = set(state.hidden)
        return state, [one for one in there if one["edition"] not in hidden]

    async def _tidy(self, state: State) -> State:
        found = left_over(state, time.time())
        for change in found:
            if change.state == COMING:
                logger.info("taking out %s documents that were half written", len(change.born))
                await self._take_out(change)
            else:
                await self._sweep(change, is_late=True)
        return await self._do(Index.state)

    async def _write(self, change: Change, objects: Objects, rows: Objects, state: State) -> None:
        await _all(self._insert_chunks(change, objects), self._insert_documents(rows), self._forget_older(state))
        until, pause = self._until, _FIRST_PAUSE
        while self._is_shaken and (found := await self._lacking(change.born, objects, rows)):
            if time.monotonic() + pause > until:
                raise StoreUnavailable(self._late(f"{found} / {len(objects)}"))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            await self._mend(change, objects, rows)

    async def _lacking(self, editions: Sequence[str], objects: Objects, rows: Objects) -> tuple[int, int] | None:
        """How many chunks and documents of these filters find, where those are not all."""
        keys = [str(one.properties["key"]) for one in (*objects, *rows) if "key" in one.properties]
        found = await self._do(lambda index: index.counted(editions, keys, alone=bool(rows)))
        return None if found == (len(objects), len(keys)) else found

    async def _mend(self, change: Change, objects: Objects, rows: Objects) -> None:
        """Write editions anew that filters find in part only: a server that was killed while it wrote has objects
        without their entries, and makes these only for an object that it has not.
        """
        for edition in change.born:
            own, row = [[one for one in group if _edition(one) == edition] for group in (objects, rows)]
            if not await self._lacking([edition], own, row):
                continue
            logger.info("writing %s chunks anew, which the server has in part only", len(own))
            for first in range(0, len(own), _BATCH):
                ids = [str(one.uuid) for one in own[first : first + _BATCH]]
                await self._do(partial(Index.forget_chunks, ids=ids))
            await self._do(partial(Index.forget_documents, ids=[str(one.uuid) for one in row]))
            await _all(self._insert_chunks(change, own), self._insert_documents(row))

    async def _insert_chunks(self, change: Change, objects: Objects) -> None:
        said = time.monotonic()
        for start in range(0, len(objects), _BATCH * _ABREAST):
            part = objects[start : start + _BATCH * _ABREAST]
            batches = [part[first : first + _BATCH] for first in range(0, len(part), _BATCH)]
            await _all(*[self._insert(Index.insert_chunks, Index.forget_chunks, batch) for batch in batches])
            if time.monotonic() - said > _RENEWED:
                said = time.monotonic()
                await self._do(lambda index: index.note(change.now(COMING)))
            self._until = time.monotonic() + self._settings.write_seconds

    async def _insert_documents(self, objects: Objects) -> None:
        for first in range(0, len(objects), _BATCH):
            await self._insert(Index.insert_documents, Index.forget_documents, objects[first : first + _BATCH])

    async def _finish(self, change: Change) -> None:
        """From now on it counts; then what it replaces is taken out, by others where we cannot."""
        change = change.now(DONE if change.dead else self._over)
        await self._persist(change)
        try:
            if change.dead:
                await self._sweep(change)
        except StoreUnavailable as error:
            logger.warning("what was replaced is taken out later: %s", error)

    async def _sweep(self, change: Change, *, is_late: bool = False) -> None:
        """`is_late`: somebody else has tried before, and nobody knows how far that came."""
        await self._do(lambda index: index.remove(change.dead))
        if is_late or self._is_shaken:
            await self._remove_unseen(change.dead)
        swept = change.now(TORN if is_late else self._over)
        await self._do(lambda index: index.note(swept))

    @property
    def _over(self) -> str:
        return TORN if self._is_shaken else SWEPT

    async def _forget_older(self, state: State) -> None:
        """The newest stays, so that no state comes twice, and one that is torn; of the others, several go at once."""
        over = sorted((one for one in state.changes if one.is_over), key=lambda one: (one.since, one.id))
        torn = [one for one in over if one.state == TORN][-1:]
        older = [one for one in over[:-1] if one not in torn]
        if len(older) >= _FINISHED:
            await self._do(lambda index: index.forget(older))

    async def _undo(self, change: Change) -> None:
        try:
            async with asyncio.timeout(_UNDO_SECONDS):
                await self._take_out(change, is_known=not self._is_shaken)
        except (StoreUnavailable, Absent, TimeoutError) as error:
            logger.info("what was half written is taken out later: %s", error)

    async def _take_out(self, change: Change, *, is_known: bool = False) -> None:
        """`is_known`: the server was there all the while, and filters find everything."""
        await self._do(lambda index: index.remove(change.born))
        if is_known:
            await self._do(lambda index: index.forget([change]))
        else:
            await self._remove_unseen(change.born)
            torn = change.now(TORN)
            await self._do(lambda index: index.note(torn))

    async def _insert(
        self,
        insert: Callable[[Index, Objects], Awaitable[BatchObjectReturn]],
        forget: Callable[..., Awaitable[None]],
        objects: Objects,
    ) -> None:
        """All of them; what the server did not take is given to it again, by the same ids.

        Before that it is taken out: a server that was killed may have it without all of its entries in the indexes of
        words and vectors, and makes none for an object that it has.
        """

        pause, is_again = _FIRST_PAUSE, False
        while True:
            try:
                if is_again:
                    ids = [str(one.uuid) for one in objects]
                    await self._do(partial(forget, ids=ids))
                is_again, before = True, self._server.retried
                errors = await self._do(partial(_refused, insert=insert, objects=objects))
                if not errors and self._server.retried == before:
                    return
                if not errors:  # the client has sent it twice, and what came of the first time nobody knows
                    continue
                self._is_shaken = True
                reason = next(iter(errors.values()))
                self._check_hope(reason)
                objects = [objects[number] for number in errors]
            except Refused:
                raise
            except StoreUnavailable as error:
                reason = str(error)
            if time.monotonic() + pause > self._until:
                raise StoreUnavailable(self._late(reason))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _check_hope(self, reason: str) -> None:
        """Raises where trying again is in vain."""
        if any(words in reason.casefold() for words in _HOPELESS):
            raise DocumentError(tell("weaviate_failed", url=self._server.address, reason=reason[:300]))

    async def _persist(self, change: Change) -> None:
        """Leave the note, again and again while there is time; it is left when others see it."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._do(lambda index: index.note(change))
                if not self._is_shaken or change in (await self._do(Index.state)).changes:
                    return
                await self._do(partial(Index.forget_documents, ids=[change.id]))
            except Refused:
                raise
            except StoreUnavailable:
                if time.monotonic() + pause > self._until:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _remove_unseen(self, editions: Sequence[str]) -> None:
        await self._do(lambda index: index.remove_unseen(editions), _WALK_SECONDS)

    async def _do(self, work: Callable[[Index], Awaitable[T]], seconds: float = 0) -> T:
        left, before = seconds or max(1.0, min(_CALL_SECONDS, self._until - time.monotonic())), self._server.retried
        try:
            found = await ask(self._server, self._settings, self._generation, work, left)
        except StoreUnavailable:
            self._is_shaken = True
            raise
        self._is_shaken |= self._server.retried != before
        return found

    def _late(self, reason: str) -> str:
        seconds = f"{self._settings.write_seconds:g}"
        return tell("weaviate_not_stored", url=self._server.address, seconds=seconds, reason=reason[:300])


async def _all(*work: Awaitable[None]) -> None:
    """Waits for all of it, so that nothing is still on its way where what failed is undone."""
    for error in await asyncio.gather(*work, return_exceptions=True):
        if error is not None:
            raise error


async def _refused(
    index: Index, *, insert: Callable[[Index, Objects], Awaitable[BatchObjectReturn]], objects: Objects
) -> dict[int, str]:
    """What the server says of the objects that it did not take, by their places."""
    from weaviate.exceptions import WeaviateInsertManyAllFailedError

    try:
        done = await insert(index, objects)
    except WeaviateInsertManyAllFailedError as error:
        found = dict.fromkeys(range(len(objects)), str(error))
    else:
        found = {number: error.message for number, error in done.errors.items()}
    if missing := [message for message in found.values() if is_missing(message)]:
        raise LookupError(missing[0])  # perhaps it has just started, and does not know its collections yet
    return found


def _edition(one: DataObject[Any, Any]) -> str:
    return str(one.properties["edition"])


def _objects(generation: Generation, coming: Sequence[Coming]) -> tuple[Objects, Objects]:
    """The chunks, and the documents that have none."""
    return (
        [found for new in coming for found in chunk_objects(generation, new)],
        [_document_object(generation, new) for new in coming if not new.document.chunks],
    )


def _document_object(generation: Generation, new: Coming) -> DataObject[Any, Any]:
    from weaviate.classes.data import DataObject

    document = new.document
    common = {"document": document.id, "name": document.name, "title": document.title}
    return DataObject(
        uuid=schema.document_id(generation, document.id, new.edition),
        properties={"kind": "document", "edition": new.edition, "key": new.key, **common, **_noted(new)},
    )


def _noted(new: Coming) -> dict[str, Any]:
    document = new.document
    return {
        "metadata": json.dumps(dict(document.metadata), ensure_ascii=False) if document.metadata else "",
        "content_hash": document.content_hash,
        "digest": new.digest,
        "chunks": len(document.chunks),
    }


def chunk_objects(generation: Generation, new: Coming) -> list[DataObject[Any, Any]]:
    """The first one has what is noted of the document with it."""
    from weaviate.classes.data import DataObject

    document = new.document
    common = {
        "edition": new.edition,
        "labels": labels(document),
        "document": document.id,
        "name": document.name,
        "title": document.title,
    }
    vectors = document.vectors.tolist() if generation.dimension and document.vectors is not None else None
    found: list[DataObject[Any, Any]] = []
    for number, chunk in enumerate(document.chunks):
        _, text, tokens, headings, locator, content_hash = chunk_row(number, chunk)
        own = {"text": text, "tokens": tokens, "headings": headings, "locator": locator, "content_hash": content_hash}
        found.append(
            DataObject(
                uuid=schema.chunk_id(generation, document.id, number, content_hash, new.edition),
                properties={**common, "number": number, **own},
                vector=None if vectors is None else {schema.VECTOR: vectors[number]},
            )
        )
    if found:
        sizes = {"chunks": len(found), "length": sum(len(chunk.tokens.split()) for chunk in document.chunks)}
        noted = json.dumps(_noted(new), ensure_ascii=False)
        found[0].properties.update({"key": new.key, "noted": noted, **sizes})
    return found


def _digest(document: IndexedDocument) -> str:
    """Equal for equal documents, whatever they are made of."""
    found = hashlib.blake2b(digest_size=16)
    parts = [document.id, document.name, document.title, document.content_hash, sorted(document.metadata.items())]
    found.update(repr(parts).encode())
    for chunk in document.chunks:
        found.update(repr((chunk.number, chunk.text, chunk.tokens, chunk.content_hash)).encode())
        found.update(repr((chunk.headings, chunk.locator)).encode())
    if document.vectors is not None:
        found.update(document.vectors.tobytes())
    return found.hexdigest()
