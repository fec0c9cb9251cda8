"""How far each server and private chat was heard, so that what was said in a gap can be read from the history."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from bots.memory import Memory

logger = logging.getLogger(__name__)

KEY: Final = "heard"
PRIVATE: Final = "dm:"
"""Begins the name of a private chat; servers go by their id."""
_WORTH_KEEPING: Final = 30_000 << 22
"""Half a minute, in ids; an older mark only means that more is read again."""


@dataclass(slots=True)
class _Scope:
    kept: int = 0
    """What the database says."""
    done: int = 0
    """The newest message that was dealt with."""
    pending: set[int] = field(default_factory=set)
    """Messages being dealt with."""
    since: int | None = None
    """There is a gap that begins here; the mark stays until it is filled."""
    begun: bool = True
    """It is known from when on it is heard."""

    @property
    def mark(self) -> int:
        if self.since is not None:
            return self.since
        return min(self.pending) - 1 if self.pending else self.done


class Heard:
    """Marks by scope: every message up to its mark is safely stored, or was nothing to us."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._scopes: dict[str, _Scope] = {}

    async def load(self, of: Callable[[str], bool]) -> None:
        """Begin where the last process left off, with what belongs to a shard that is ours now."""
        for name, mark in (await self._memory.all(KEY)).items():
            if of(name) and mark.isdigit():
                self._scopes[name] = _Scope(kept=int(mark), done=int(mark))

    def begin(self, name: str, since: int) -> None:
        """A place that was never heard before is heard from then on, and is to be read back to there."""
        scope = self._scopes.setdefault(name, _Scope(begun=False))
        if not scope.begun:
            scope.since, scope.done, scope.begun = since, max(scope.done, since), True

    @contextmanager
    def hearing(self, name: str, message: int) -> Iterator[None]:
        """The message counts as heard when this is left without an error."""
        scope = self._scopes.setdefault(name, _Scope(begun=name.startswith(PRIVATE)))
        scope.pending.add(message)
        yield
        scope.pending.discard(message)
        scope.done = max(scope.done, message)

    def gap(self, names: Sequence[str]) -> None:
        """What comes now does not follow on what was heard."""
        for name in names:
            scope = self._scopes[name]
            if scope.since is None and scope.mark:
                scope.since = scope.mark

    def since(self, name: str) -> int | None:
        """Where the gap begins; None: there is none, or it was never heard at all."""
        scope = self._scopes.get(name)
        return scope.since if scope is not None else None

    def filled(self, name: str) -> None:
        self._scopes[name].since = None

    def is_begun(self, name: str) -> bool:
        scope = self._scopes.get(name)
        return scope is not None and scope.begun

    def drop(self, of: Callable[[str], bool]) -> None:
        """Another process hears these from now on."""
        self._scopes = {name: scope for name, scope in self._scopes.items() if not of(name)}

    @property
    def names(self) -> Sequence[str]:
        return tuple(self._scopes)

    async def keep(self, *, everything: bool = False, of: Callable[[str], bool] = lambda _: True) -> None:
        """Write down the marks that moved by more than a little; `everything`: all that moved."""
        least = 0 if everything else _WORTH_KEEPING
        for name, scope in [(name, scope) for name, scope in self._scopes.items() if of(name)]:
            mark = scope.mark
            if scope.begun and mark > scope.kept + least:
                await self._memory.put(KEY, str(mark), name)
                scope.kept = mark
