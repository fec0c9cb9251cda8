"""The drivers there are, by kind: entry points of the group `kvasir.drivers`, imported when they are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from core.serving.driver import CannotLoad, Driver

GROUP = "kvasir.drivers"


def kinds() -> list[str]:
    """Those that are installed, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def make_driver(kind: str, values: Mapping[str, Any]) -> Driver:
    """A driver of that kind, not loaded yet. Raises CannotLoad where there is none, or it lacks a package."""
    found = list(entry_points(group=GROUP, name=kind))
    if not found:
        raise CannotLoad(f"There is no driver «{kind}» in this environment; there are: {', '.join(kinds()) or 'none'}.")
    try:
        driver: Driver = found[0].load()(values)
    except ModuleNotFoundError as error:
        raise CannotLoad(
            f"«{kind}» needs the package {error.name}, which is not installed; install it with: pip install "
            f"'kvasir[{kind}]'"
        ) from error
    return driver
