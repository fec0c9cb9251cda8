"""The kinds of sources there are, by name; each is imported when it is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final

from core.errors import UserError
from core.texts import tell

if TYPE_CHECKING:
    from core.sources.port import SourceKind

_PLACES: Final[Mapping[str, tuple[str, str]]] = {
    "url": ("core.sources.web", "URL"),
    "sitemap": ("core.sources.sitemap", "SITEMAP"),
    "git": ("core.sources.git", "GIT"),
    "rss": ("core.sources.rss", "RSS"),
    "folder": ("core.sources.folder", "FOLDER"),
}
KINDS: Final = tuple(_PLACES)


def kind_named(name: str) -> SourceKind:
    """Raises UserError."""
    if name not in KINDS:
        raise UserError(tell("source_bad_kind", kind=name[:40], there=", ".join(KINDS)))
    module, attribute = _PLACES[name]
    kind: SourceKind = getattr(import_module(module), attribute)
    return kind
