"""The embedders: that of the settings, which may come later than everything else, and those that were added."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

from core.errors import EmbedderUnavailable, KvasirError, Unavailable
from core.inference import sections
from core.inference.modellog import ModelLog
from core.inference.models import Models
from core.inference.pool import Open, Pool, Progress, Running
from core.ports import Embedder, EmbedderInfo
from core.settings import Settings
from core.texts import tell
from core.types import Matrix, Vector

logger = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 15.0
_LONGEST_RETRY: Final = 300.0
OpenSlot: TypeAlias = Callable[[Settings, Progress], Awaitable[Embedder]]


@dataclass(slots=True)
class EmbedderState:
    """How far the embedder is; `reason` says in one sentence why it is not there."""

    ready: bool = False
    stage: str = ""
    progress: float = 0.0
    reason: str = ""


class EmbedderSlot:
    """Holds the settings' embedder from when it is there."""

    def __init__(self, settings: Settings, open_embedder: OpenSlot) -> None:
        self._settings = settings
        self._open_embedder = open_embedder
        self._opening = asyncio.Lock()
        self._failures = 0
        self._retry_at = 0.0
        self.state = EmbedderState()
        self.embedder: Embedder | None = None
        self.log = ModelLog()

    async def open(self, progress: Progress | None = None, *, fetch: bool = True) -> None:
        """Load it, fetching and building it first where need be; a failure is kept in `state`."""
        wanted = self._settings.embedder
        if wanted.kind == "none":
            self.state.reason = tell("embedder_off")
            return

        def follow(stage: str, done: float) -> None:
            self.state.stage, self.state.progress = stage, done
            if progress:
                progress(stage, done)

        settings = self._settings.model_copy(
            update={"embedder": wanted.model_copy(update={"fetch": wanted.fetch and fetch})}
        )
        async with self._opening:
            if self.embedder is not None:
                return
            self.log.secrets = sections.secrets_of(settings, "embedder", wanted.kind)
            self.log.add(tell("log_opening"))
            try:
                with self.log.heard():
                    self.use(await self._open_embedder(settings, follow))
            except EmbedderUnavailable as error:
                self._failed(error, fetch)
            else:
                self.log.add(tell("log_open"))

    async def retry(self) -> bool:
        """Open it after a failure, when enough time has passed; whether it is there now and was not before."""
        waits = self.embedder is None and bool(self.state.reason) and self._settings.embedder.kind != "none"
        if not waits or self._opening.locked() or time.monotonic() < self._retry_at:
            return False
        await self.open()
        return self.embedder is not None

    def _failed(self, error: EmbedderUnavailable, fetch: bool) -> None:
        is_told = fetch or self._settings.embedder.kind != "builtin"
        self.state.reason = str(error) if is_told else tell("embedder_not_fetched")
        self.log.add(self.state.reason, "ERROR")
        if fetch:
            if not self._failures:
                logger.warning("no embedder: %s", error)
            self._failures += 1
        self._retry_at = time.monotonic() + min(_LONGEST_RETRY, _RETRY_SECONDS * (1 << min(self._failures, 8)))

    def use(self, embedder: Embedder) -> None:
        self.embedder, self.state.ready, self.state.reason = embedder, True, ""

    async def close(self) -> None:
        if self.embedder is not None:
            await self.embedder.close()


class Embedders:
    """The house's embedder, and all others by name or by what they have made."""

    def __init__(self, settings: Settings, models: Models, slot: EmbedderSlot, open_embedder: Open[Embedder]) -> None:
        self.slot = slot
        self.pool: Pool[Embedder] = Pool("embedder", models, open_embedder)
        self._own = "" if settings.embedder.kind == "none" else settings.embedder.kind
        self._models = models
        models.on_change(self.pool.sync)

    # ------------------------------------------------------------ the house's
    @property
    def state(self) -> EmbedderState:
        """How far the house's is."""
        chosen = self._models.chosen("embedder")
        if chosen is None:
            return self.slot.state
        standing = self.pool.standing(chosen)
        stage = standing.stage or "load"
        return EmbedderState(standing.state == "ready", stage, standing.progress, standing.reason)

    def current(self) -> Embedder | None:
        """The house's, where it is there."""
        chosen = self._models.chosen("embedder")
        return self._open(chosen.name) if chosen else self.slot.embedder

    def use(self, embedder: Embedder) -> None:
        self.slot.use(embedder)

    # ------------------------------------------------------------ all of them (`KnownEmbedders`)
    def named(self, name: str | None) -> Embedder | None:
        if name is None:
            return self.current()
        return self.slot.embedder if self._is_slot(name) else self._open(name) if name else None

    async def ready(self, name: str | None) -> Embedder | None:
        wanted = self._models.chosen("embedder") if name is None else None
        name = wanted.name if wanted else name
        if not name:
            return self.named(name)
        if self._is_slot(name):
            if self.slot.embedder is None:
                raise EmbedderUnavailable(tell("api_no_embedder", reason=self.slot.state.reason))
            return self.slot.embedder
        try:
            return _Used(self.pool, await self.pool.get(name))
        except EmbedderUnavailable:
            raise
        except KvasirError as error:
            raise EmbedderUnavailable(str(error)) from error

    async def maker(self, fingerprint: str) -> Embedder | None:
        if not fingerprint:
            return None
        found = self._made(fingerprint)
        if found is None and await self.pool.open_added():
            found = self._made(fingerprint)
        return found

    def open_by_name(self) -> dict[str, Embedder]:
        """Those that are open, the house's first."""
        found = {self._models.default("embedder") or "none": self.current(), self._own or "none": self.slot.embedder}
        found |= {one.model.name: _Used(self.pool, one) for one in self.pool.parts()}
        return {name: embedder for name, embedder in found.items() if embedder is not None}

    async def open_added(self) -> bool:
        """Open those that are not; whether one of them is now. What fails stands in its state, and is tried again."""
        found = await self.slot.retry()
        return await self.pool.open_added() or found

    async def close(self) -> None:
        await self.pool.close()

    def _is_slot(self, name: str) -> bool:
        return bool(name) and name == self._own and not self._models.find("embedder", name).is_added

    def _open(self, name: str) -> Embedder | None:
        running = self.pool.peek(name)
        return _Used(self.pool, running) if running is not None and running.part is not None else None

    def _made(self, fingerprint: str) -> Embedder | None:
        own = self.slot.embedder
        if own is not None and own.info.fingerprint == fingerprint:
            return own
        for running in self.pool.parts():
            if running.part is not None and running.part.info.fingerprint == fingerprint:
                return _Used(self.pool, running)
        return None


class _Used:
    """An embedder that is not closed while somebody uses it."""

    def __init__(self, pool: Pool[Embedder], running: Running[Embedder]) -> None:
        assert running.part is not None  # noqa: S101 - it was opened
        self._pool = pool
        self._running = running
        self._embedder: Embedder = running.part

    @property
    def info(self) -> EmbedderInfo:
        return self._embedder.info

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        with self._held():
            return await self._embedder.embed_documents(texts)

    async def embed_query(self, text: str) -> Vector:
        with self._held():
            return await self._embedder.embed_query(text)

    async def close(self) -> None:
        """It stays open for others."""

    @contextmanager
    def _held(self) -> Iterator[None]:
        running = self._running
        if running.is_retired and not running.gate.inside:
            raise EmbedderUnavailable(tell("model_changed", name=running.model.name))
        running.gate.inside += 1
        try:
            with running.log.heard():
                yield
        except Unavailable as error:
            running.log.add(str(error), "ERROR")
            raise
        finally:
            self._pool.left(running)
