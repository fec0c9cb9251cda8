"""The entries of a feed, RSS or Atom, with what the feed says of them or with the pages they point to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Final

from pydantic import Field

from core import egress
from core.errors import Unavailable, UserError
from core.settings import SourcesSettings
from core.sources import feeds
from core.sources.port import Address, Content, Item, Listing, Mark, SourceKind, Spec, Tools
from core.sources.web import read_page
from core.texts import tell

_MAX_BYTES: Final = 20 << 20
_NOT_IN_NAMES: Final = re.compile(r"[^\w -]+")


class RssSpec(Spec):
    url: Address
    full_text: bool = False
    """Fetch the page of each entry, for feeds that give beginnings only."""
    limit: Annotated[int, Field(ge=1, le=10_000)] = 200
    forget: bool = False
    """Delete documents of entries that are no longer in the feed."""


class Feed:
    def __init__(self, spec: RssSpec, tools: Tools) -> None:
        self._spec = spec
        self._tools = tools
        self._entries: dict[str, feeds.Entry] = {}

    async def list(self) -> Listing:
        found = await self._tools.visit.fetch(self._spec.url, _MAX_BYTES)
        if "html" in found.media_type and (named := feeds.feed_of(found.data)):
            found = await self._tools.visit.fetch(str(egress.parse(found.url).join(named)), _MAX_BYTES)
        _, entries = feeds.feed(found.data)
        limit = min(self._spec.limit, self._tools.settings.max_documents)
        items: list[Item] = []
        closed = 0
        for entry in entries[:limit]:
            key = entry.id or entry.title
            if not key or key in self._entries:
                continue
            if self._spec.full_text and entry.link and not await self._is_open(entry.link):
                closed += 1
                continue
            self._entries[key] = entry
            items.append(Item(key, _name(entry, key), entry.link or self._spec.url, self._mark(entry)))
        notes = [tell("source_limit", most=limit)] if len(entries) > limit else []
        notes += [tell("source_skipped_robots", count=closed)] if closed else []
        return Listing(items, is_complete=len(entries) <= limit, notes=tuple(notes))

    async def read(self, item: Item, known: Mark) -> Content | None:
        entry = self._entries[item.key]
        if self._spec.full_text and entry.link:
            return await read_page(item, known, self._tools)
        return Content(feeds.page(entry))

    async def _is_open(self, link: str) -> bool:
        """False also where that cannot be known: then keep out."""
        try:
            path = egress.parse(link).raw_path.decode("ascii")
            return (await self._tools.visit.robots(link)).allows(path)
        except (UserError, Unavailable):
            return False

    def _mark(self, entry: feeds.Entry) -> Mark:
        """What the feed says of an entry changes with it; its page is looked at only then, too."""
        return {"hash": hashlib.sha256(feeds.page(entry) + bytes([self._spec.full_text])).hexdigest()[:32]}


def _name(entry: feeds.Entry, key: str) -> str:
    """Readable, and different for entries of the same title."""
    words = " ".join(_NOT_IN_NAMES.sub(" ", entry.title).split())[:100] or "entry"
    return f"{words}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.html"


@asynccontextmanager
async def open_feed(spec: RssSpec, _secrets: Mapping[str, str], tools: Tools) -> AsyncIterator[Feed]:
    yield Feed(spec, tools)


def _check(spec: RssSpec, _settings: SourcesSettings) -> None:
    egress.parse(spec.url)


RSS = SourceKind(RssSpec, open_feed, forgets=lambda spec: bool(spec.forget), check=_check)
