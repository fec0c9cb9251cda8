"""Keeps a worker process alive: starts it, follows its loading, sees that it steps, puts a fresh one in its place."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import httpx2

from core.serving import client as worker
from core.serving import memory, process
from core.serving.client import Address, LoadFailed, Lost
from core.serving.driver import Card
from core.serving.plan import Plan, Trouble

logger = logging.getLogger(__name__)

State: TypeAlias = Literal["starting", "ready", "away", "failed", "closed"]
Progress: TypeAlias = Callable[[str, float], None]

_WINDOW: Final = 600.0
_MOST_FAILURES: Final = 5
_LONGEST_PAUSE: Final = 60.0
_CHECKS: Final = 6
"""Looks at a worker within the time after which it counts as stalled."""
_EXIT_SECONDS: Final = 2.0
_HEALTH_SECONDS: Final = 5.0


class Supervisor:
    """One worker, over all its lives. The socket that it serves on stays open between them: who asks then, waits."""

    def __init__(
        self,
        plan: Plan,
        address: Address,
        fd: int,
        progress: Progress,
        told: Callable[[], None] = lambda: None,
        *,
        may_end: bool = False,
    ) -> None:
        """`told` is called with each change of its state; `may_end`: others can unload it for good."""
        self._plan = plan
        self._address = address
        self._fd = fd
        self._progress = progress
        self._told = told
        self._may_end = may_end
        self._client: httpx2.AsyncClient = address.client()
        self._keeping: asyncio.Task[None] | None = None
        self._failures: list[float] = []
        self._process: process.Process | None = None
        self._changed = asyncio.Event()
        self._revived = asyncio.Event()
        self.state: State = "starting"
        self.life = 0
        """Of which life the worker is; counts up with each."""
        self.trouble: Trouble | None = None
        """What ended its last life, or keeps it from the next."""
        self.card: Card | None = None

    async def start(self) -> Trouble | None:
        """Wait for the first life to be ready; what keeps it from that."""
        self._keeping = asyncio.create_task(self._keep(), name=f"worker-{self._plan.kind}")
        while self.state in ("starting", "away"):
            await self._next_change()
        return None if self.state == "ready" else self.trouble or Trouble("worker_lost")

    async def ready(self, seconds: float) -> Trouble | None:
        """Wait until it can be asked, so long at most; what keeps it from that."""
        self._try_once_more()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.state in ("starting", "away"):
                    await self._next_change()
        if self.state == "ready":
            return None
        return self.trouble if self.state == "failed" and self.trouble else Trouble("worker_not_ready")

    async def ended(self, life: int, seconds: float) -> Trouble | None:
        """Why that life has ended; None where it goes on after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.life == life and self.state == "ready":
                    await self._next_change()
        return None if self.life == life and self.state == "ready" else self.trouble or Trouble("worker_lost")

    async def over(self) -> Trouble | None:
        """Wait until it was unloaded or given up, and for what."""
        while self.state not in ("failed", "closed"):
            await self._next_change()
        return self.trouble if self.state == "failed" else None

    def revive(self) -> None:
        """Try again after it was given up."""
        self._failures.clear()
        self._revived.set()

    async def stop(self, drain_seconds: float) -> None:
        """Let its answers end for so long, then end it. Ended at once where this is cancelled."""
        self._set("closed")
        try:
            if self._process is not None and not self._process.ended.done() and drain_seconds > 0:
                is_heard = await worker.unload(self._client, drain_seconds)
                wait = drain_seconds + _EXIT_SECONDS if is_heard else 0
                await asyncio.wait({self._process.ended}, timeout=wait)
        finally:
            if self._keeping is not None:
                self._keeping.cancel()
                await asyncio.wait({self._keeping})
            await self._client.aclose()

    # ------------------------------------------------------------ lives
    async def _keep(self) -> None:
        try:
            while self.state != "closed":
                trouble = await self._one_life()
                if trouble is None or self._is_closed():
                    self._set("closed")
                    return
                await self._pause(trouble)
        except Exception:  # the outermost loop of the worker's life
            logger.exception("the worker is not looked after any more")
            self.trouble = Trouble("worker_lost")
            self._set("failed")

    async def _pause(self, trouble: Trouble) -> None:
        """Between two lives, longer each time; until somebody wants it again after too many."""
        now = time.monotonic()
        self._failures = [at for at in self._failures if now - at < _WINDOW] + [now]
        logger.warning("%s", trouble.say("en"))
        is_final = trouble.is_final and not self.life
        if not is_final and len(self._failures) < _MOST_FAILURES:
            self.trouble = trouble
            self._set("away")
            pause = self._plan.pause_seconds * 2 ** (len(self._failures) - 1)
            await asyncio.sleep(min(_LONGEST_PAUSE, pause))
            return
        if not is_final:
            lines = self._process.last_lines if self._process else "-"
            values = {"times": len(self._failures), "why": trouble, "lines": lines}
            trouble = Trouble("worker_gave_up", values)
        self.trouble = trouble
        self._revived.clear()
        self._set("failed")
        await self._revived.wait()

    async def _one_life(self) -> Trouble | None:
        """Why it ended; None where it was asked to."""
        self._set("starting")
        if (trouble := await memory.lacking(self._plan)) is not None:
            return trouble
        try:
            one = self._process = await process.start(self._plan, self._address.key, self._fd)
        except process.CannotStart as error:
            return error.trouble
        try:
            loading = asyncio.create_task(self._load(), name="worker-load")
            try:
                trouble = await self._loaded(one, loading)
            finally:
                loading.cancel()
            if trouble is None:
                trouble = await self._watch(one)
        finally:
            await one.end()
        is_wanted = self._is_closed() or (self._may_end and one.ended.result() == 0)
        return trouble or (None if is_wanted else one.trouble())

    async def _load(self) -> Card:
        self._progress("start", 0.0)
        while True:
            try:
                return await worker.load(self._client, self._progress)
            except Lost:
                await asyncio.sleep(0.05)  # its process tells more, when it ends

    async def _loaded(self, one: process.Process, loading: asyncio.Task[Card]) -> Trouble | None:
        """What kept it from being loaded."""
        await asyncio.wait({one.ended, loading}, timeout=self._plan.start_seconds, return_when="FIRST_COMPLETED")
        if loading.done():
            try:
                self.card = loading.result()
            except LoadFailed as error:
                return error.trouble
            self.life += 1
            self._progress("ready", 1.0)
            self._set("ready")
            return None
        if one.ended.done():
            return one.trouble()
        return Trouble("worker_slow_load", {"seconds": f"{self._plan.start_seconds:g}"}, is_final=True)

    async def _watch(self, one: process.Process) -> Trouble | None:
        """Look that it steps while it works, until it ends; why it is to be ended."""
        stall = self._plan.stall_seconds
        heard_at = time.monotonic()
        while not one.ended.done():
            await asyncio.wait({one.ended}, timeout=stall / _CHECKS)
            if one.ended.done() or self._is_closed():
                break
            try:
                found = await worker.health(self._client, min(_HEALTH_SECONDS, stall))
            except Lost:
                silence = time.monotonic() - heard_at
            else:
                heard_at = time.monotonic()
                silence = float(found.get("last_step_age") or 0)
            if silence > stall:
                return Trouble("worker_hung", {"seconds": f"{stall:g}"})
        await asyncio.wait({one.ended})
        return None

    def _try_once_more(self) -> None:
        """What was given up is tried again when somebody asks, after a while."""
        if self.state == "failed" and self._failures and time.monotonic() - self._failures[-1] > _WINDOW:
            self.revive()
            self._set("starting")

    def _is_closed(self) -> bool:
        return self.state == "closed"

    def _set(self, state: State) -> None:
        if self.state != "closed":
            self.state = state
        self._told()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _next_change(self) -> None:
        await self._changed.wait()
