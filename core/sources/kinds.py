"""The kinds of sources there are, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from core.errors import UserError
from core.sources.folder import FOLDER
from core.sources.git import GIT
from core.sources.port import SourceKind
from core.sources.rss import RSS
from core.sources.sitemap import SITEMAP
from core.sources.web import URL
from core.texts import tell

KINDS: Final[Mapping[str, SourceKind]] = {"url": URL, "sitemap": SITEMAP, "git": GIT, "rss": RSS, "folder": FOLDER}


def kind_named(name: str) -> SourceKind:
    """Raises UserError."""
    if name not in KINDS:
        raise UserError(tell("source_bad_kind", kind=name[:40], there=", ".join(KINDS)))
    return KINDS[name]
