"""The engines and rerankers that are open in this process, with a queue before each engine."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from core.errors import ConfigError, EngineUnavailable, KvasirError
from core.inference import sections
from core.inference.models import Models
from core.inference.pool import Open, Pool, Running
from core.ports import Engine, EngineInfo, Reranker
from core.texts import tell
from core.types import Prompt, Queued, Sampling


class Engines:
    """The engines by name; an empty name is the house's."""

    def __init__(self, models: Models, open_engine: Open[Engine]) -> None:
        self.pool: Pool[Engine] = Pool("engine", models, open_engine)
        self._models = models
        models.on_change(self.pool.sync)

    async def get(self, name: str) -> Engine:
        """Raises ConfigError where there is no such engine or it lacks something, Unavailable where it is off."""
        running = await self.pool.get(name or self._models.default("engine"))
        return _Pooled(self.pool, running)

    async def open_added(self) -> bool:
        """As `Pool.open_added`, and the house's where it is a model of this machine, which takes long to load."""
        found = await self.pool.open_added()
        try:
            house = self._models.usable("engine", self._models.default("engine"))
            values = self._models.settings_for(house)
            if sections.value_of(values, "engine", house.adapter, "start_timeout_seconds") is not None:
                await self.pool.get(house.name)
        except KvasirError:  # its state tells, and it is tried again
            return found
        return found

    async def close(self) -> None:
        await self.pool.close()


class _Pooled:
    """An engine as an answer meets it: with a queue before it; one that was replaced sends new answers on."""

    def __init__(self, pool: Pool[Engine], running: Running[Engine]) -> None:
        assert running.part is not None  # noqa: S101 - it was opened
        self._pool = pool
        self._running = running
        self._engine: Engine = running.part
        self.info: EngineInfo = replace(running.part.info, name=running.model.name)

    def count_tokens(self, text: str) -> int:
        return self._engine.count_tokens(text)

    async def health(self) -> str:
        return await self._engine.health()

    async def close(self) -> None:
        """It stays open for others."""

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[str | Queued, None]:
        one, place = self, 0
        while True:
            one = await one._current()
            async with aclosing(one._running.gate.enter(prompt.asker)) as places:
                async for place in places:
                    yield Queued(place)
            if not one._running.is_retired:
                break
            self._pool.left(one._running)
        try:
            if place:
                yield Queued(0)
            async with aclosing(one._said(prompt, sampling)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._pool.left(one._running)

    async def _current(self) -> _Pooled:
        """It, or the one that has taken its place meanwhile. Raises EngineUnavailable where that takes no more in."""
        one = self
        if one._running.is_retired:
            try:
                one = _Pooled(self._pool, await self._pool.get(self._running.model.name))
            except ConfigError as error:
                raise EngineUnavailable(str(error)) from error
        most = one._running.most
        if most and one._running.gate.inside >= most:
            raise EngineUnavailable(tell("model_busy", name=one._running.model.name, most=most))
        return one

    async def _said(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[str | Queued, None]:
        log = self._running.log
        begun, pieces = time.monotonic(), 0
        stream = self._engine.stream(prompt, sampling)
        try:
            while True:
                with log.heard():
                    piece = await anext(stream, None)
                if piece is None:
                    break
                pieces += isinstance(piece, str)
                yield piece
        except EngineUnavailable as error:
            log.add(str(error), "ERROR")
            raise
        finally:
            await _ended(stream)
            log.add(tell("log_answer", seconds=f"{time.monotonic() - begun:.1f}", pieces=pieces))


class Rerankers:
    """The rerankers by name."""

    def __init__(self, models: Models, open_reranker: Open[Reranker]) -> None:
        self.pool: Pool[Reranker] = Pool("reranker", models, open_reranker)
        models.on_change(self.pool.sync)

    async def get(self, name: str) -> Reranker:
        """Raises as `Engines.get` does."""
        running = await self.pool.get(name)
        assert running.part is not None  # noqa: S101 - it was opened
        return running.part

    async def close(self) -> None:
        await self.pool.close()


async def _ended(stream: AsyncIterator[str | Queued]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
