"""The one thread of a worker that touches the model, and the queue before it.

Everything but `_Thread` lives on the event loop, so nothing here is locked: jobs wait there, are handed over when there
is room, and hear of what becomes of them in batches.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from core.serving.driver import (
    Broke,
    CannotLoad,
    Card,
    Done,
    Driver,
    DriverError,
    Event,
    Job,
    OutOfMemory,
    Poisoned,
    Refused,
    TextDriver,
    Tokenizer,
    VectorDriver,
)

logger = logging.getLogger(__name__)

State: TypeAlias = Literal["idle", "loading", "ready", "draining", "failed"]
Cause: TypeAlias = Literal["cannot_load", "out_of_memory", "poisoned", "failed"]

STATUS: Final[dict[Cause, int]] = {"failed": 70, "out_of_memory": 71, "poisoned": 75, "cannot_load": 78}
"""What the process exits with, by what ended it; 0: it was unloaded."""
_GAP: Final = 0.01
"""Seconds between two looks at what is said fast."""
_SLICE: Final = 32
"""Texts that are embedded in one step."""
_VECTOR_JOBS: Final = 16
"""Taken in together, so that a question goes before a long document."""


class Full(Exception):
    """The queue takes no more; `waiting` are in it."""

    def __init__(self, waiting: int) -> None:
        super().__init__(waiting)
        self.waiting = waiting


@dataclass(frozen=True, slots=True)
class Fatal:
    """The end of the model in this process."""

    cause: Cause
    sentence: str


@dataclass(frozen=True, slots=True)
class Begun:
    job_id: str


@dataclass(frozen=True, slots=True)
class Waits:
    position: int
    """From 1: how many are to begin until it does."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What an embedding or reranking job gave."""

    job_id: str
    rows: Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class VectorJob:
    id: str
    texts: Sequence[str]
    query: str | None = None
    """With it, the texts are reranked; without it, embedded."""
    is_query: bool = False


Told: TypeAlias = Event | Begun | Waits | Computed | Fatal
Work: TypeAlias = Job | VectorJob


class Ticket:
    """One job as whoever asked for it sees it. Close it, whatever happened."""

    def __init__(self, work: Work, user: str, close: Callable[[Ticket], None]) -> None:
        self.work = work
        self.user = user
        self.position = 0
        self.round = 0
        self.is_closed = False
        self._close = close
        self._told: list[Told] = []
        self._wake = asyncio.Event()

    def tell(self, told: Told) -> None:
        self._told.append(told)
        self._wake.set()

    async def take(self, seconds: float) -> list[Told]:
        """What came since, at least one thing; nothing after so many seconds, or when it is closed."""
        if not self._told and not self.is_closed:
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return []
        self._wake.clear()
        told, self._told = self._told, []
        return told

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._close(self)
            self._wake.set()


@dataclass(frozen=True, slots=True)
class Standing:
    state: State
    stage: str
    done: int
    total: int
    active: int
    queued: int
    step_age: float
    """Seconds since the model's last sign of life while it works; 0 while it does not."""
    sentence: str
    """Why it failed."""


class ModelLoop:
    """A model in this process: loaded once, asked by many, never loaded again after its end."""

    def __init__(self, make: Callable[[], Driver], *, queue_size: int, ended: Callable[[Fatal], None]) -> None:
        self._make = make
        self._queue_size = queue_size
        self._ended = ended
        self._waiting: list[Ticket] = []
        self._active: dict[str, Ticket] = {}
        self._now = 0
        """The round that has begun last."""
        self._rounds: dict[str, int] = {}
        """The last one of each user, where it is still to come."""
        self._thread: _Thread | None = None
        self._looked_at: asyncio.Event = asyncio.Event()
        """Set anew with each change of state or progress."""
        self.state: State = "idle"
        self.stage, self.done, self.total = "", 0, 0
        self.card: Card | None = None
        self.fatal: Fatal | None = None

    # ------------------------------------------------------------ loading, and the end
    def load(self) -> None:
        """Begin to load; does nothing where that has begun."""
        if self._thread is None:
            self.state = "loading"
            self._thread = _Thread(self._make, asyncio.get_running_loop(), self._hear)
            self._thread.start()
            self._changed()

    async def changed(self, seconds: float) -> None:
        """Wait for a change of state or progress, so long at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._looked_at.wait()
        except TimeoutError:
            return

    async def loaded(self, seconds: float) -> bool:
        """Whether it is ready; waits while it loads."""
        clock = asyncio.get_running_loop()
        by = clock.time() + seconds
        while self.state in ("idle", "loading") and clock.time() < by:
            await self.changed(by - clock.time())
        return self.state == "ready"

    async def drain(self, seconds: float) -> bool:
        """Take nothing more in, and wait for the end of what is there; whether all ended in time."""
        if self.state == "ready":
            self.state = "draining"
            self._changed()
        clock = asyncio.get_running_loop()
        by = clock.time() + seconds
        while (self._active or self._waiting) and not self.fatal and clock.time() < by:
            await self.changed(by - clock.time())
        return not (self._active or self._waiting)

    @property
    def tokenizer(self) -> Tokenizer:
        assert self._thread is not None  # noqa: S101 - asked for after it was loaded
        assert self._thread.tokenizer is not None  # noqa: S101
        return self._thread.tokenizer

    def standing(self) -> Standing:
        age = self._thread.age() if self._thread is not None and self._active else 0.0
        sentence = self.fatal.sentence if self.fatal else ""
        return Standing(
            self.state, self.stage, self.done, self.total, len(self._active), len(self._waiting), age, sentence
        )

    # ------------------------------------------------------------ jobs
    def submit(self, work: Work, user: str = "") -> Ticket:
        """Let it wait for its turn. Raises Full."""
        ticket = Ticket(work, user, self._left)
        assert self.card is not None  # noqa: S101 - the server waits for `loaded`
        if len(self._active) >= self._room and len(self._waiting) >= self._queue_size:
            raise Full(len(self._waiting))
        ticket.round = self._round(user)
        self._waiting.append(ticket)
        self._begin_next()
        return ticket

    @property
    def _room(self) -> int:
        if self.card is None:
            return 0
        return _VECTOR_JOBS if self.card.features & {"embed", "rerank"} else self.card.parallel

    def _left(self, ticket: Ticket) -> None:
        """Whoever asked is gone, or has all there is."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        elif self._active.pop(ticket.work.id, None) is not None and self._thread is not None:
            self._thread.cancel(ticket.work.id)
        self._begin_next()

    def _begin_next(self) -> None:
        """Hand over as many as there is room for."""
        if self.card is None or self._thread is None or self.fatal:
            return
        while self._waiting and len(self._active) < self._room:
            ticket = self._in_turn()[0]
            self._waiting.remove(ticket)
            self._active[ticket.work.id] = ticket
            self._now = max(self._now, ticket.round)
            self._thread.begin(ticket.work)
        for position, ticket in enumerate(self._in_turn(), start=1):
            if ticket.position != position:
                ticket.position = position
                ticket.tell(Waits(position))
        self._changed()

    def _in_turn(self) -> list[Ticket]:
        """Those that wait in the order in which they begin: round by round, one of each user."""
        return sorted(self._waiting, key=lambda ticket: ticket.round)

    def _round(self, user: str) -> int:
        """The next round in which the user has not been in turn."""
        self._rounds = {name: last for name, last in self._rounds.items() if last > self._now}
        self._rounds[user] = max(self._now, self._rounds.get(user, 0)) + 1
        return self._rounds[user]

    # ------------------------------------------------------------ hearing from the thread
    def _hear(self, news: Sequence[_News]) -> None:
        for one in news:
            match one:
                case _Progress():
                    self.stage, self.done, self.total = one.stage, one.done, one.total
                case Card():
                    self.card, self.state = one, "ready"
                    logger.info("loaded: %s", one.model)
                case Fatal():
                    self._end(one)
                case _:
                    self._pass_on(one)
        self._begin_next()
        self._changed()

    def _pass_on(self, told: Event | Begun | Computed) -> None:
        ticket = self._active.get(told.job_id)
        if ticket is None:
            return
        ticket.tell(told)
        if isinstance(told, (Done, Broke, Computed)):
            del self._active[told.job_id]

    def _end(self, fatal: Fatal) -> None:
        logger.error("%s", fatal.sentence)
        self.fatal, self.state = fatal, "failed"
        for ticket in (*self._active.values(), *self._waiting):
            ticket.tell(fatal)
        self._active.clear()
        self._waiting.clear()
        self._ended(fatal)

    def _changed(self) -> None:
        self._looked_at.set()
        self._looked_at = asyncio.Event()


# ---------------------------------------------------------------- the thread
@dataclass(frozen=True, slots=True)
class _Progress:
    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class _Cancel:
    job_id: str


_News: TypeAlias = Event | Begun | Computed | Card | Fatal | _Progress


@dataclass
class _Vectors:
    """A driver of vectors, stepped like one of text: a slice of the job each time that is nearest to its end."""

    driver: VectorDriver
    _jobs: dict[str, VectorJob] = field(default_factory=dict)
    _rows: dict[str, list[Sequence[float]]] = field(default_factory=dict)

    def begin(self, job: VectorJob) -> None:
        self._jobs[job.id], self._rows[job.id] = job, []

    def cancel(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)
        self._rows.pop(job_id, None)

    def step(self) -> Sequence[Computed]:
        job = min(self._jobs.values(), key=lambda one: len(one.texts) - len(self._rows[one.id]))
        rows = self._rows[job.id]
        texts = job.texts[len(rows) : len(rows) + _SLICE]
        if job.query is not None:
            rows += [[score] for score in self.driver.rerank(job.query, texts)]
        elif texts:
            rows += [row.tolist() for row in self.driver.embed(texts, query=job.is_query)]
        if len(rows) < len(job.texts):
            return []
        self.cancel(job.id)
        return [Computed(job.id, rows)]


class _Thread:
    def __init__(
        self, make: Callable[[], Driver], loop: asyncio.AbstractEventLoop, hear: Callable[[Sequence[_News]], None]
    ) -> None:
        self._make = make
        self._loop = loop
        self._hear = hear
        self._inbox: queue.SimpleQueue[Work | _Cancel] = queue.SimpleQueue()
        self._news: deque[_News] = deque()
        self._is_called = False
        self._heard_at = 0.0
        self._at_work: set[str] = set()
        self._alive_at = time.monotonic()
        self.tokenizer: Tokenizer | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="model", daemon=True).start()

    def begin(self, work: Work) -> None:
        if not self._at_work:
            self._alive_at = time.monotonic()
        self._inbox.put(work)

    def cancel(self, job_id: str) -> None:
        self._inbox.put(_Cancel(job_id))

    def age(self) -> float:
        return time.monotonic() - self._alive_at

    # ------------------------------------------------------------ on the thread itself
    def _run(self) -> None:
        try:
            driver = self._make()
            card = driver.load(self._report)
            if "embed" not in card.features and "rerank" not in card.features:
                self.tokenizer = driver.tokenizer  # type: ignore[union-attr]  # it generates
            self._say(card)
            self._work(driver, card)
        except BaseException as error:  # noqa: BLE001  the outermost loop: whatever it was, the process ends by it
            self._say(_fatal(error))

    def _work(self, driver: Driver, card: Card) -> None:
        is_vectors = bool(card.features & {"embed", "rerank"})
        stepped: TextDriver | _Vectors = _Vectors(driver) if is_vectors else driver  # type: ignore[assignment, arg-type]
        while True:
            self._take_in(stepped)
            self._alive_at = time.monotonic()
            if not self._at_work:
                continue
            events = stepped.step()
            self._alive_at = time.monotonic()
            for event in events:
                if isinstance(event, (Done, Broke, Computed)):
                    self._at_work.discard(event.job_id)
            if events:
                self._say(*events)

    def _take_in(self, driver: TextDriver | _Vectors) -> None:
        """What has come; waits for something where there is nothing to do."""
        while True:
            try:
                wanted = self._inbox.get(block=not self._at_work)
            except queue.Empty:
                return
            if isinstance(wanted, _Cancel):
                if wanted.job_id in self._at_work:
                    driver.cancel(wanted.job_id)
                    self._at_work.discard(wanted.job_id)
                continue
            try:
                driver.begin(wanted)  # type: ignore[arg-type]  # the server asks each kind for what it can
            except Refused as error:
                code: Literal["context_length", "bad_request"] = (
                    "context_length" if error.code == "context_length" else "bad_request"
                )
                self._say(Broke(wanted.id, str(error), code))
                continue
            self._at_work.add(wanted.id)
            self._say(Begun(wanted.id))

    def _report(self, stage: str, done: int, total: int) -> None:
        self._alive_at = time.monotonic()
        self._say(_Progress(stage, done, total))

    def _say(self, *news: _News) -> None:
        """Wakes the event loop once for all that is said until it listens.

        While much is said it listens by itself a hundred times a second, which costs less than to be woken, and is more
        than anybody reads.
        """
        self._news.extend(news)
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon_threadsafe(self._listen)

    def _listen(self) -> None:
        self._is_called = False
        heard = []
        while self._news:
            heard.append(self._news.popleft())
        if not heard:
            return
        now = self._loop.time()
        if now - self._heard_at < 1.5 * _GAP:
            self._is_called = True
            self._loop.call_later(_GAP, self._listen)
        self._heard_at = now
        self._hear(heard)


def _fatal(error: BaseException) -> Fatal:
    match error:
        case CannotLoad():
            return Fatal("cannot_load", str(error))
        case OutOfMemory():
            return Fatal("out_of_memory", str(error))
        case MemoryError():
            return Fatal("out_of_memory", "The machine's memory ran out.")
        case Poisoned() | DriverError():
            return Fatal("poisoned", str(error))
    logger.error("the driver failed", exc_info=error)
    return Fatal("failed", f"The driver failed by an error of its own ({type(error).__name__}).")
