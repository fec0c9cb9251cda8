"""What every kind of source does: list what there is, and read one thing of it, if it has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from core.errors import UserError
from core.settings import SourcesSettings
from core.texts import CATALOGUE, tell

if TYPE_CHECKING:
    from core.sources.visit import Visit

Mark: TypeAlias = Mapping[str, str]
"""By what a version is known again, e.g. an etag."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing at the source that becomes a document."""

    key: str
    """The same in every listing: an address, a path, an id."""
    name: str
    """What its document is called, below the name of the source; empty: `Content` says it."""
    address: str
    """Where people find it."""
    mark: Mark = field(default_factory=dict)
    """Equal to that of the last time: it has not changed, and is not read. Empty: only reading tells."""


@dataclass(frozen=True, slots=True)
class Listing:
    items: Sequence[Item]
    is_complete: bool = True
    """False: there is more at the source, so that what is missing here is not gone."""
    notes: tuple[str, ...] = ()
    """What was left out, each a sentence."""


@dataclass(frozen=True, slots=True)
class Content:
    data: bytes
    name: str = ""
    known: Mark = field(default_factory=dict)
    """Handed to `read` the next time."""


class Source(Protocol):
    """A source that is open, for one synchronisation."""

    async def list(self) -> Listing:
        """What there is now, at most as much as the settings allow. Raises KvasirError where that cannot be said."""

    async def read(self, item: Item, known: Mark) -> Content | None:
        """Its bytes; None: it is what it was when `known` was given. Raises Gone, or another KvasirError."""


class Spec(BaseModel):
    """What is set for a source of one kind."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


@dataclass(frozen=True, slots=True)
class Tools:
    """What a source works with."""

    visit: Visit
    settings: SourcesSettings
    max_file_bytes: int
    readable: frozenset[str]
    """Suffixes of files that can be read, lower-case and with their dot."""


OpenSource: TypeAlias = "Callable[[Any, Mapping[str, str], Tools], AbstractAsyncContextManager[Source]]"
"""From what is set and the secrets; everything that was opened is closed at the end of the block."""


State: TypeAlias = "Callable[[Any, Mapping[str, str], Tools], Awaitable[str]]"


@dataclass(frozen=True, slots=True)
class SourceKind:
    spec: type[Spec]
    open: OpenSource
    forgets: Callable[[Any], bool] = lambda _spec: True
    """Whether documents go that are no longer at the source."""
    check: Callable[[Any, SourcesSettings], None] = lambda _spec, _settings: None
    """Raises UserError for what this machine does not allow or cannot do."""
    secrets: frozenset[str] = frozenset()
    check_secrets: Callable[[Any, SourcesSettings], None] = lambda _spec, _settings: None
    """Raises UserError where a secret must not be sent to where the settings say."""
    state: State | None = None
    """Equal to that of the last time: there is nothing to be done; None or empty: a listing tells."""


_MAX_PATTERN: Final = 200


def _pattern(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters")
    return text


Pattern = Annotated[str, Field(min_length=1, max_length=_MAX_PATTERN), AfterValidator(_pattern)]
Patterns = Annotated[tuple[Pattern, ...], Field(max_length=50)]
Address = Annotated[str, Field(min_length=1, max_length=4096)]


def spec_of(kind: SourceKind, settings: Mapping[str, Any]) -> Spec:
    """Raises UserError, which names the first field that cannot be used as people know it."""
    try:
        return kind.spec.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        key = f"source_field_{name}"
        label = tell(key) if key in CATALOGUE else name[:40]
        limit = first.get("ctx", {})
        if first["type"] == "extra_forbidden":
            raise UserError(tell("source_no_field", field=name[:40])) from error
        if {"ge", "le"} & limit.keys():
            least, most = _range(kind.spec, name)
            raise UserError(tell("schedule_field_range", field=label, least=least, most=most)) from error
        missing = first["type"] in ("missing", "string_too_short", "too_short")
        raise UserError(tell("source_field_missing" if missing else "schedule_field_bad", field=label)) from error


def _range(spec: type[Spec], name: str) -> tuple[Any, Any]:
    limits = {
        key: getattr(item, key)
        for item in spec.model_fields[name].metadata
        for key in ("ge", "le")
        if hasattr(item, key)
    }
    return limits.get("ge", 0), limits.get("le", "∞")
