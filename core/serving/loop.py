"""The queue before a worker's model: jobs wait their turn, are handed to its thread, and hear what becomes of them.

All of it lives on the event loop, so nothing is locked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from core.serving.driver import Broke, Card, Done, Driver, Event, Tokenizer
from core.serving.thread import Begun, Computed, Fatal, ModelThread, News, Progress, Work

logger = logging.getLogger(__name__)

State: TypeAlias = Literal["idle", "loading", "ready", "draining", "failed"]
_VECTOR_JOBS: Final = 16
"""Taken in together, so that a question goes before a long document."""


class Full(Exception):
    """The queue takes no more; `waiting` are in it."""

    def __init__(self, waiting: int) -> None:
        super().__init__(waiting)
        self.waiting = waiting


@dataclass(frozen=True, slots=True)
class Waits:
    position: int
    """From 1: how many are to begin until it does; 0: it waits no more."""


Told: TypeAlias = Event | Begun | Waits | Computed | Fatal


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
            late = asyncio.get_running_loop().call_later(seconds, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                late.cancel()
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
        self._thread: ModelThread | None = None
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
            self._thread = ModelThread(self._make, asyncio.get_running_loop(), self._hear)
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
            if ticket.position:
                ticket.tell(Waits(0))
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
    def _hear(self, news: Sequence[News]) -> None:
        for one in news:
            match one:
                case Progress():
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
