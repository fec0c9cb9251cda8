"""The last lines that were logged about each model, kept in memory, without its secrets."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from core.db.tables import now

LINES: Final = 200
_LONGEST: Final = 500
_SHORTEST_SECRET: Final = 4


@dataclass(frozen=True, slots=True)
class Line:
    at: datetime
    level: str
    text: str


class ModelLog:
    """Takes in whatever is logged between `heard` and its end, by tasks that were begun there too."""

    def __init__(self) -> None:
        self.secrets: Sequence[str] = ()
        """They are left out of every line."""
        self._lines: deque[Line] = deque(maxlen=LINES)

    @property
    def lines(self) -> Sequence[Line]:
        """The oldest first."""
        return tuple(self._lines)

    def add(self, text: str, level: str = "INFO") -> None:
        for secret in sorted(self.secrets, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "…")
        text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        self._lines.append(Line(now(), level, text[:_LONGEST]))

    @contextmanager
    def heard(self) -> Iterator[None]:
        token = _listening.set(self)
        try:
            yield
        finally:
            _listening.reset(token)


_listening: ContextVar[ModelLog | None] = ContextVar("_listening", default=None)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log = _listening.get()
        if log is not None:
            log.add(record.getMessage(), record.levelname)


@contextmanager
def listening() -> Iterator[None]:
    """Have what is logged reach the logs of the models."""
    handler = _Handler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
