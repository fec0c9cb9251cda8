"""Where a model is asked: the worker of this house, or one elsewhere by its address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from core.ports import ProcessState
from core.serving import client as worker
from core.serving.client import Address, LoadFailed, Lost
from core.serving.driver import Card
from core.serving.house import SharedWorker
from core.serving.plan import Plan, Trouble

Progress = Callable[[str, float], None]


def worker_of(plan: Plan, progress: Progress) -> RunningWorker:
    """The worker of a plan, not opened yet. Raises ConfigError where its folder cannot be made."""
    return RemoteWorker(plan, progress) if plan.base_url else SharedWorker(plan, progress)


class RunningWorker(Protocol):
    """`SharedWorker` of this machine, or `RemoteWorker`."""

    address: Address
    card: Card | None
    """Of the model, when it was opened."""

    @property
    def life(self) -> tuple[int, int]: ...

    @property
    def state(self) -> ProcessState: ...

    async def open(self) -> Trouble | None: ...

    async def ready(self, seconds: float) -> Trouble | None: ...

    async def ended(self, life: tuple[int, int], seconds: float) -> Trouble | None: ...

    def revive(self) -> None: ...

    async def close(self) -> None: ...


class RemoteWorker:
    """The worker of another machine (`kvasir worker`), which looks after itself."""

    life = (0, 0)
    state = ProcessState()

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.address = Address(plan.kind, url=plan.base_url, key=plan.api_key)
        self.card: Card | None = None
        self._progress = progress

    async def open(self) -> Trouble | None:
        async with self.address.client() as asking:
            try:
                self.card = await worker.load(asking, self._progress)
            except LoadFailed as error:
                return Trouble("worker_remote", {"host": self.address.host, "reason": error.trouble.say("en")})
            except Lost:
                return Trouble("engine_no_connection", {"host": self.address.host})
        return None

    async def ready(self, seconds: float) -> Trouble | None:  # noqa: ARG002  whoever asks it waits there
        return None

    async def ended(self, life: tuple[int, int], seconds: float) -> Trouble | None:  # noqa: ARG002  we cannot see it
        return Trouble("engine_no_connection", {"host": self.address.host})

    def revive(self) -> None:
        """Nothing that could be done from here."""

    async def close(self) -> None:
        """It serves others too."""
