"""The models that are open in this process: each opened once, queued for, and closed when its last answer has ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, Protocol, TypeAlias, TypeVar

from core.errors import KvasirError, NotFound, Unavailable
from core.gate import Gate
from core.inference import sections
from core.inference.modellog import Line, ModelLog
from core.inference.models import Model, Models
from core.inference.sections import Kind
from core.ports import InProcess
from core.settings import Settings
from core.texts import tell

logger = logging.getLogger(__name__)

State: TypeAlias = Literal["idle", "loading", "ready", "failed", "off"]
Progress: TypeAlias = Callable[[str, float], None]

_RETRY_SECONDS: Final = 10.0
_LONGEST_RETRY: Final = 300.0
_CLOSE_SECONDS: Final = 10.0


class Part(Protocol):
    """What engines, embedders and rerankers have in common."""

    async def close(self) -> None: ...


P = TypeVar("P", bound=Part)
Open: TypeAlias = Callable[[Model, Settings, Progress], Awaitable[P]]


@dataclass(slots=True, eq=False)
class Running(Generic[P]):
    """One model in this process, as it was set when it was opened."""

    model: Model
    log: ModelLog
    gate: Gate
    most: int = 0
    """Inside at all, where what is behind it has a queue of its own; 0: no bound."""
    state: State = "idle"
    stage: str = ""
    progress: float = 0.0
    reason: str = ""
    part: P | None = None
    opening: asyncio.Task[P] | None = None
    failure: KvasirError | None = None
    failures: int = 0
    """In a row."""
    retry_at: float = 0.0
    is_retired: bool = False
    """Another one took its place; it closes when it is idle."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a model is doing in this process."""

    state: State = "idle"
    stage: str = ""
    progress: float = 0.0
    reason: str = ""
    """Why it failed."""
    active: int = 0
    """Answers being written."""
    waiting: int = 0
    ending: int = 0
    """Answers that end on what was there before a change."""


@dataclass
class Pool(Generic[P]):
    """The open models of one kind."""

    kind: Kind
    models: Models
    open_part: Open[P]
    _running: dict[str, Running[P]] = field(default_factory=dict)
    _retired: set[Running[P]] = field(default_factory=set)
    _closing: set[asyncio.Task[None]] = field(default_factory=set)

    async def get(self, name: str) -> Running[P]:
        """The model of that name, opened. Raises ConfigError, Unavailable or MissingExtra where it cannot be."""
        running = self.of(self.models.usable(self.kind, name))
        if running.part is None:
            await self._opened(running)
        return running

    def begin(self, name: str) -> None:
        """Begin to open it, again where that failed; how that goes, its state tells. Raises as `Models.usable`."""
        running = self.of(self.models.usable(self.kind, name))
        if running.part is None and running.opening is None:
            running.failure, running.failures = None, 0
            self._start(running)
        elif (own := _in_process(running.part)) is not None and own.process.state == "failed":
            own.revive()

    def of(self, model: Model) -> Running[P]:
        """Where it stands, opened or not; one that was changed since takes the place of the former."""
        running = self._running.get(model.name)
        if running is not None and (running.model is model or _is_same(running.model, model)):
            running.model = model
            return running
        if running is not None:
            self._retire(running)
        running = self._running[model.name] = Running(model, ModelLog(), Gate(0))
        return running

    def peek(self, name: str) -> Running[P] | None:
        return self._running.get(name)

    def standing(self, model: Model) -> Standing:
        ending = sum(one.gate.inside for one in self._retired if one.model.name == model.name)
        if not model.enabled:
            return Standing("off", ending=ending)
        running = self._running.get(model.name)
        if running is None:
            return Standing(ending=ending)
        state, reason = running.state, running.reason
        own = _in_process(running.part)
        if own is not None and own.process.state != "ready":
            state, reason = "failed" if own.process.state == "failed" else "loading", own.process.reason
        return Standing(
            state, running.stage, running.progress, reason, running.gate.inside, running.gate.waiting, ending
        )

    def log(self, name: str) -> Sequence[Line]:
        """Its last lines, the oldest first; also those from before a change, while that ends."""
        former = [line for one in self._retired if one.model.name == name for line in one.log.lines]
        running = self._running.get(name)
        return [*former, *(running.log.lines if running else ())]

    def parts(self) -> list[Running[P]]:
        return [one for one in self._running.values() if one.part is not None]

    def drop(self, name: str) -> None:
        """Close it as soon as its last answer has ended."""
        running = self._running.pop(name, None)
        if running is not None:
            self._retire(running)

    async def open_added(self) -> bool:
        """Open those that were added, are switched on and not open; whether one of them is now."""
        names = [model.name for model in self.models.all(self.kind) if model.is_added and model.enabled]
        closed = [name for name in names if (running := self._running.get(name)) is None or running.part is None]
        results = await asyncio.gather(*(self.get(name) for name in closed), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, KvasirError):
                raise result
        return any(not isinstance(result, BaseException) for result in results)

    async def sync(self) -> None:
        """Take leave of what was changed, switched off or removed."""
        for name, running in list(self._running.items()):
            try:
                model = self.models.find(self.kind, name)
            except NotFound:
                self.drop(name)
                continue
            if not model.enabled or not _is_same(model, running.model):
                self.drop(name)
            else:
                running.model = model

    def left(self, running: Running[P]) -> None:
        """An answer has ended."""
        running.gate.leave()
        if running.is_retired:
            self._close_when_idle(running)

    async def close(self) -> None:
        everything = [*self._running.values(), *self._retired]
        self._running.clear()
        self._retired.clear()
        for running in everything:
            running.is_retired = True
            if running.opening is not None:
                running.opening.cancel()
                await asyncio.wait({running.opening})
            if running.part is not None:
                await running.part.close()
        if self._closing:
            await asyncio.wait(self._closing)

    # ------------------------------------------------------------ parts
    async def _opened(self, running: Running[P]) -> P:
        if running.part is not None:
            return running.part
        if running.opening is None and running.failure is not None and time.monotonic() < running.retry_at:
            raise running.failure.with_traceback(None)  # it is raised again and again
        opening, task = running.opening or self._start(running), asyncio.current_task()
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if opening.cancelled() and task is not None and not task.cancelling():
                raise Unavailable(tell("model_changed", name=running.model.name)) from None
            raise

    def _start(self, running: Running[P]) -> asyncio.Task[P]:
        running.state = "loading"
        running.opening = asyncio.create_task(self._open(running), name=f"open-{running.model.name}")
        running.opening.add_done_callback(_looked_at)
        return running.opening

    async def _open(self, running: Running[P]) -> P:
        model = running.model

        def follow(stage: str, done: float) -> None:
            running.stage, running.progress = stage, done

        running.state, running.stage, running.progress, running.reason = "loading", "", 0.0, ""
        try:
            part = await self._part(running, follow)
        except asyncio.CancelledError:
            running.state = "idle"
            raise
        except KvasirError as error:
            self._failed(running, error)
            raise
        except Exception as error:  # whatever an adapter raises, the question gets a sentence
            logger.exception("the model %s could not be opened", model.name)
            failure = Unavailable(tell("our_error", kind=type(error).__name__, detail="-"))
            self._failed(running, failure)
            raise failure from error
        finally:
            running.opening = None
        if running.is_retired:
            await part.close()
            raise Unavailable(tell("model_is_off", name=model.name))
        if running.failures:
            logger.info("the model %s could be opened now", model.name)
        running.part, running.state, running.progress, running.failures = part, "ready", 1.0, 0
        running.log.add(tell("log_open"))
        return part

    async def _part(self, running: Running[P], progress: Progress) -> P:
        model = running.model
        settings = self.models.settings_for(model)
        running.log.secrets = sections.secrets_of(settings, model.kind, model.adapter)
        running.gate.limit, running.most = _limits(settings, model)
        running.log.add(tell("log_opening"))
        with running.log.heard():
            return await self.open_part(model, settings, progress)

    def _failed(self, running: Running[P], error: KvasirError) -> None:
        if not running.failures and running.model.is_added:
            logger.warning("the model %s cannot be opened: %s", running.model.name, error)
        running.state, running.reason, running.failure = "failed", str(error), error
        running.retry_at = time.monotonic() + min(_LONGEST_RETRY, _RETRY_SECONDS * (1 << min(running.failures, 8)))
        running.failures += 1
        running.log.add(str(error), "ERROR")

    def _retire(self, running: Running[P]) -> None:
        if running.is_retired:
            return
        running.is_retired = True
        self._retired.add(running)
        self._close_when_idle(running)

    def _close_when_idle(self, running: Running[P]) -> None:
        if running.gate.inside or running not in self._retired:
            return
        if running.opening is not None:
            running.opening.cancel()
        self._retired.discard(running)
        task = asyncio.create_task(self._close(running), name=f"close-{running.model.name}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, running: Running[P]) -> None:
        if running.part is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await running.part.close()
        except TimeoutError:
            logger.warning("the model %s did not close in time", running.model.name)
        except Exception:
            logger.exception("the model %s did not close", running.model.name)


def _in_process(part: object) -> InProcess | None:
    return part if isinstance(part, InProcess) else None


def _limits(settings: Settings, model: Model) -> tuple[int, int]:
    """Answers at a time, others wait here; or those at a time and those that wait in the engine's own queue."""
    parallel = int(sections.value_of(settings, model.kind, model.adapter, "parallel") or 0)
    queue = int(sections.value_of(settings, model.kind, model.adapter, "queue") or 0)
    return (0, parallel + queue) if queue else (parallel, 0)


def _is_same(one: Model, other: Model) -> bool:
    """Whether they are opened alike; which is the house's makes no difference."""
    return (one.adapter, one.values, one.sealed) == (other.adapter, other.values, other.sealed)


def _looked_at(task: asyncio.Task[Part]) -> None:
    """What went wrong stands in its state, also where nobody waited for it."""
    if not task.cancelled():
        task.exception()
