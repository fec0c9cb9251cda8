"""Which paths of a source are taken."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


def is_wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a path fits one of `include` (none: all do) and none of `exclude`; `*` stands also for slashes."""
    return (not include or _fits_any(path, include)) and not _fits_any(path, exclude)


def _fits_any(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) or fnmatchcase(path, f"*/{pattern.lstrip('/')}") for pattern in patterns)
