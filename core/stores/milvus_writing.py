"""Documents into and out of an index in Milvus, each call as one step.

Milvus has no transactions. As in the `weaviate` store, whoever writes leaves a note (`weaviate_changes`), and the one
row that says that the change is done makes it count.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar

from core.errors import StoreUnavailable
from core.stores.milvus_index import Index, batches
from core.stores.milvus_server import Absent
from core.stores.weaviate_changes import COMING, DONE, SWEPT, Change, State, left_over
from core.texts import tell

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_RENEWED: Final = 60.0
_UNDO_SECONDS: Final = 20.0

T = TypeVar("T")


class Do(Protocol):
    """Calls the index; raises Absent or StoreUnavailable."""

    def __call__(self, work: Callable[[Index], Awaitable[T]], /) -> Awaitable[T]: ...


class Writer:
    """Writes one index; one writer of it at a time in a process."""

    def __init__(
        self, do: Do, later: Callable[[Coroutine[Any, Any, None]], None], address: str, seconds: float
    ) -> None:
        """`later` takes over what is to be undone after a failure."""
        self._do = do
        self._later = later
        self._address = address
        self._seconds = seconds
        self._until = time.monotonic() + seconds

    async def put(self, heads: list[dict[str, Any]], chunks: list[dict[str, Any]]) -> None:
        state = await self._tidy(await self._do(Index.state))
        hidden = set(state.hidden)
        there = await self._do(lambda index: index.heads([head["key"] for head in heads], hidden))
        born = tuple(str(head["id"]) for head in heads)
        dead = tuple(str(head.number) for head in there)
        change = Change(uuid.uuid4().hex, COMING, born, dead, time.time())
        await self._do(lambda index: index.note(change))
        try:
            await self._write(change, heads, chunks)
        except BaseException:
            self._later(self._undo(change))
            raise
        await self._finish(change, state)

    async def delete(self, digests: Sequence[str]) -> None:
        state = await self._tidy(await self._do(Index.state))
        hidden = set(state.hidden)
        there = await self._do(lambda index: index.heads(digests, hidden))
        if there:
            dead = tuple(str(head.number) for head in there)
            await self._finish(Change(uuid.uuid4().hex, COMING, (), dead, time.time()), state)

    async def _write(self, change: Change, heads: list[dict[str, Any]], chunks: list[dict[str, Any]]) -> None:
        said = time.monotonic()
        for batch in batches(chunks):
            await self._insert(batch)
            self._until = time.monotonic() + self._seconds
            if time.monotonic() - said > _RENEWED:  # else others believe that we were killed
                said = time.monotonic()
                await self._do(lambda index: index.note(change.now(COMING)))
        for batch in batches(heads):
            await self._insert(batch, documents=True)
        pause = _FIRST_PAUSE
        while (found := await self._do(lambda index: index.chunks_in(change.born))) != len(chunks):
            if time.monotonic() + pause > self._until:
                raise StoreUnavailable(self._late(f"{found} / {len(chunks)}"))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _finish(self, change: Change, state: State) -> None:
        """From now on it counts; then what it replaces is taken out, by others where we cannot."""
        change = change.now(DONE if change.dead else SWEPT)
        await self._again(lambda index, _again: index.note(change))  # told twice it says the same
        try:
            if change.dead:
                await self._sweep(change)
            older = {one.id for one in state.changes if one.state == SWEPT}
            await self._do(lambda index: index.forget(older, all_of_them=True))
            await self._do(lambda index: index.forget({change.id}, all_of_them=False))
        except StoreUnavailable as error:
            logger.warning("what was replaced is taken out later: %s", error)

    async def _sweep(self, change: Change) -> None:
        await self._do(lambda index: index.remove(change.dead))
        await self._do(lambda index: index.note(change.now(SWEPT)))

    async def _tidy(self, state: State) -> State:
        """What killed writers left is taken out."""
        found = left_over(state, time.time())
        for change in found:
            if change.state == COMING:
                logger.info("taking out %s documents that were half written", len(change.born))
                await self._take_out(change)
            else:
                await self._sweep(change)
        return await self._do(Index.state) if found else state

    async def _undo(self, change: Change) -> None:
        try:
            async with asyncio.timeout(_UNDO_SECONDS):
                await self._take_out(change)
        except (StoreUnavailable, Absent, TimeoutError) as error:
            logger.info("what was half written is taken out later: %s", error)

    async def _take_out(self, change: Change) -> None:
        await self._do(lambda index: index.remove(change.born))
        await self._do(lambda index: index.forget({change.id}, all_of_them=True))

    async def _insert(self, rows: list[dict[str, Any]], *, documents: bool = False) -> None:
        await self._again(lambda index, again: index.insert(rows, documents=documents, again=again))

    async def _again(self, work: Callable[[Index, bool], Awaitable[None]]) -> None:
        """While there is time; `work` is told whether it has been tried before."""
        pause, again = _FIRST_PAUSE, False

        async def attempt(index: Index) -> None:
            await work(index, again)

        while True:
            try:
                return await self._do(attempt)
            except StoreUnavailable:
                if time.monotonic() + pause > self._until:
                    raise
            again = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _late(self, reason: str) -> str:
        seconds = f"{self._seconds:g}"
        return tell("milvus_not_stored", uri=self._address, seconds=seconds, reason=reason)
