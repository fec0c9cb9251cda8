"""The one thread of a worker that touches the model: it loads, steps and closes the driver.

It hears of jobs through an inbox, and tells the event loop what became of them in batches.
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
    Piece,
    Poisoned,
    Refused,
    TextDriver,
    Tokenizer,
    VectorDriver,
)

logger = logging.getLogger(__name__)

Cause: TypeAlias = Literal["cannot_load", "out_of_memory", "poisoned", "failed"]

STATUS: Final[dict[Cause, int]] = {"failed": 70, "out_of_memory": 71, "poisoned": 75, "cannot_load": 78}
"""What the process exits with, by what ended it; 0: it was unloaded."""
_GATHER: Final = 0.08
"""Seconds for which words are gathered that come faster than that: so often a text is seen to grow steadily."""
_SLICE: Final = 32
"""Texts that are embedded in one step."""


@dataclass(frozen=True, slots=True)
class Fatal:
    """The end of the model in this process."""

    cause: Cause
    sentence: str


@dataclass(frozen=True, slots=True)
class Begun:
    job_id: str


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


Work: TypeAlias = Job | VectorJob


@dataclass(frozen=True, slots=True)
class Progress:
    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class _Cancel:
    job_id: str


News: TypeAlias = Event | Begun | Computed | Card | Fatal | Progress


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


class ModelThread:
    def __init__(
        self, make: Callable[[], Driver], loop: asyncio.AbstractEventLoop, hear: Callable[[Sequence[News]], None]
    ) -> None:
        self._make = make
        self._loop = loop
        self._hear = hear
        self._inbox: queue.SimpleQueue[Work | _Cancel] = queue.SimpleQueue()
        self._news: deque[News] = deque()
        self._is_called = False
        self._heard_at = 0.0
        self._again: asyncio.TimerHandle | None = None
        self._at_work: set[str] = set()
        self._silent: set[str] = set()
        """Of these, those that have said no word yet."""
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
                    self._forget(event.job_id)
            if events:
                self._say(*events)

    def _take_in(self, driver: TextDriver | _Vectors) -> None:
        """What has come; waits for something where there is nothing to do."""
        while not self._at_work or not self._inbox.empty():
            wanted = self._inbox.get()
            if isinstance(wanted, _Cancel):
                if wanted.job_id in self._at_work:
                    driver.cancel(wanted.job_id)
                    self._forget(wanted.job_id)
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
            self._silent.add(wanted.id)
            self._say(Begun(wanted.id))

    def _forget(self, job_id: str) -> None:
        self._at_work.discard(job_id)
        self._silent.discard(job_id)

    def _report(self, stage: str, done: int, total: int) -> None:
        self._alive_at = time.monotonic()
        self._say(Progress(stage, done, total))

    def _say(self, *news: News) -> None:
        """Wakes the event loop, but for words that it will come for by itself.

        What each word costs beside the model is to be woken, in both processes.
        """
        self._news.extend(news)
        is_urgent = any(self._is_urgent(one) for one in news)
        if is_urgent or not self._is_called:
            self._is_called = True
            self._loop.call_soon_threadsafe(self._listen)

    def _is_urgent(self, one: News) -> bool:
        """All but words that follow upon others."""
        if not isinstance(one, Piece):
            return True
        is_first = one.job_id in self._silent
        self._silent.discard(one.job_id)
        return is_first

    def _listen(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._is_called = False
        heard = []
        while self._news:
            heard.append(self._news.popleft())
        if not heard:
            return
        now = self._loop.time()
        if now - self._heard_at < 1.5 * _GATHER:
            self._is_called = True
            self._again = self._loop.call_later(_GATHER, self._listen)
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
