"""Finds adapters, services and commands by name through entry points, and imports them when they are wanted."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any

from core.errors import ConfigError


def names(group: str) -> list[str]:
    """What is installed under e.g. `kvasir.engines`, sorted."""
    return sorted({point.name for point in _points(group)})


def load(group: str, name: str) -> Any:
    """The object of that name. Raises ConfigError with the names there are, or with what is missing to import it."""
    found = [point for point in _points(group) if point.name == name]
    if not found:
        kind = group.removeprefix("kvasir.").rstrip("s")
        raise ConfigError(f"There is no {kind} named «{name}»; there are: {', '.join(names(group)) or 'none'}.")
    return _import(found[0])


def beside(group: str, name: str, attribute: str, otherwise: Any = None) -> Any:
    """What the module of that object has under the name `attribute`. Raises as `load` does."""
    return getattr(sys.modules[load(group, name).__module__], attribute, otherwise)


@cache
def _points(group: str) -> EntryPoints:
    """Kept by group as well: to select looks at each point of each package."""
    found: EntryPoints = _installed().select(group=group)
    return found


@cache
def _installed() -> Any:  # before Python 3.12 it has another type, with the same `select`
    """What was there when it was first asked for: to look reads a file of every package that is installed."""
    return entry_points()


def _import(point: EntryPoint) -> Any:
    try:
        return point.load()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"«{point.name}» needs the package {error.name}, which is not installed; README says which extra brings it."
        ) from error
