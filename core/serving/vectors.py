"""Asks a worker for vectors and scores; what a process took with it when it ended is asked again of the next."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Sequence
from typing import Any, Final

import httpx2
import numpy as np

from core.errors import Unavailable
from core.ports import ProcessState
from core.serving.client import Address
from core.serving.driver import Card
from core.serving.plan import Plan, Trouble
from core.serving.workers import Progress, RunningWorker, worker_of
from core.texts import spoken, tell
from core.types import Matrix

logger = logging.getLogger(__name__)

_ATTEMPTS: Final = 3
_EXIT_SECONDS: Final = 3.0
_BATCH: Final = 64
_AT_ONCE: Final = 2
_SILENCE: Final = 30.0
_BUSY_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 5.0
_READY_SECONDS: Final = 600.0


class Vectors:
    """A worker whose model embeds or reranks. Raises Unavailable where it cannot."""

    def __init__(self, plan: Plan, running: RunningWorker) -> None:
        self._plan = plan
        self._worker = running
        self._client: httpx2.AsyncClient | None = None
        self._asked: Address | None = None
        self._places = asyncio.Semaphore(_AT_ONCE)

    @classmethod
    async def open(cls, plan: Plan, progress: Progress) -> Vectors:
        """With its model loaded. Raises Unavailable where it cannot be."""
        found = cls(plan, worker_of(plan, progress))
        try:
            trouble = await found._worker.open()
        except BaseException:
            await found.close()
            raise
        if trouble is not None:
            await found.close()
            raise Unavailable(trouble.say(spoken()))
        return found

    @property
    def card(self) -> Card:
        return self._worker.card or Card("")

    @property
    def process(self) -> ProcessState:
        return self._worker.state

    def revive(self) -> None:
        self._worker.revive()

    async def embed(self, texts: Sequence[str], *, query: bool) -> Matrix:
        """A row per text."""
        batches = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
        if not batches:
            return np.empty((0, self.card.dimension), np.float32)
        try:
            async with asyncio.TaskGroup() as group:
                asking = [group.create_task(self._rows(batch, query), name="embed") for batch in batches]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return np.concatenate([one.result() for one in asking])

    async def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """A score per text."""
        answer = await self._posted("/v1/rerank", {"query": query, "documents": list(texts)})
        scores = {int(one["index"]): float(one["relevance_score"]) for one in answer["results"]}
        return [scores[place] for place in range(len(texts))]

    async def close(self) -> None:
        try:
            await self._worker.close()
        finally:
            if self._client is not None:
                await self._client.aclose()

    async def _rows(self, texts: Sequence[str], query: bool) -> Matrix:
        kind = "query" if query else "document"
        body = {"input": list(texts), "input_type": kind, "encoding_format": "base64"}
        if query:
            answer = await self._posted("/v1/embeddings", body)
        else:
            async with self._places:
                answer = await self._posted("/v1/embeddings", body)
        rows = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer["data"]]
        return np.stack(rows)

    async def _posted(self, path: str, body: dict[str, Any]) -> Any:
        told = ""
        for _ in range(_ATTEMPTS):
            trouble = await self._worker.ready(_READY_SECONDS)
            if trouble is not None:
                raise Unavailable(trouble.say(spoken()))
            life = self._worker.life
            try:
                return await self._answer(path, body)
            except _Gone as error:
                why = await self._worker.ended(life, _EXIT_SECONDS) or error.trouble
                told = why.say(spoken())
                logger.info("asking again: %s", told)
        raise Unavailable(told)

    async def _answer(self, path: str, body: dict[str, Any]) -> Any:
        while True:
            try:
                response = await self._asking().post(path, content=json.dumps(body), headers=_JSON)
                if response.status_code == httpx2.codes.OK:
                    return response.json()
            except (httpx2.TransportError, ValueError) as error:
                raise _Gone(Trouble("worker_lost")) from error
            if response.status_code != httpx2.codes.TOO_MANY_REQUESTS:
                break
            await asyncio.sleep(_BUSY_SECONDS)
        said = _error(response)
        if response.status_code == httpx2.codes.SERVICE_UNAVAILABLE:
            raise _Gone(Trouble("worker_cannot_load", {"said": said}))
        raise Unavailable(tell("engine_failed", host=self._plan.kind, status=response.status_code, said=said))

    def _asking(self) -> httpx2.AsyncClient:
        """The client of where the worker is now."""
        address = self._worker.address
        if self._client is None or self._asked != address:
            self._client, self._asked = address.client(), address
            silence = self._plan.start_seconds + self._plan.stall_seconds + _SILENCE
            self._client.timeout = httpx2.Timeout(silence, connect=_CONNECT_SECONDS)
        return self._client


class _Gone(Exception):
    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.key)
        self.trouble = trouble


_JSON: Final = {"Content-Type": "application/json"}


def _error(response: httpx2.Response) -> str:
    try:
        return str(response.json()["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return "-"
