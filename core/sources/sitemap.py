"""All pages that a site's sitemap names, as far as its robots.txt lets us."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Annotated, Final
from urllib.parse import unquote

from pydantic import Field

from core import egress
from core.db.tables import now
from core.errors import UserError
from core.settings import SourcesSettings
from core.sources import feeds
from core.sources.patterns import is_wanted
from core.sources.port import Address, Content, Item, Listing, Mark, Patterns, SourceKind, Spec, Tools
from core.sources.web import page_item, read_page
from core.texts import tell

_MAX_BYTES: Final = 50 << 20
_MAX_SITEMAPS: Final = 200
_SETTLED: Final = timedelta(days=2)
"""A date this long ago says for sure that a page is as it was then; many sites give days, not times."""


class SitemapSpec(Spec):
    url: Address
    include: Patterns = ()
    exclude: Patterns = ()
    limit: Annotated[int, Field(ge=1, le=100_000)] = 500


class Site:
    def __init__(self, spec: SitemapSpec, tools: Tools) -> None:
        self._spec = spec
        self._tools = tools
        self._host = _bare(egress.parse(spec.url).host)
        self._skipped = {"robots": 0, "elsewhere": 0}

    async def list(self) -> Listing:
        limit = min(self._spec.limit, self._tools.settings.max_documents)
        items: dict[str, Item] = {}
        waiting = [*await self._first()]
        seen = set(waiting)
        is_complete = True
        while waiting and is_complete:
            found = await self._sitemap(waiting.pop(0))
            for page in found.pages:
                if page.url in items or not await self._is_ours(page.url):
                    continue
                if len(items) >= limit:
                    is_complete = False
                    break
                items[page.url] = page_item(page.url, _mark(page.lastmod))
            fresh = [url for url in found.sitemaps if url not in seen and self._is_here(url)]
            is_complete = is_complete and len(seen) + len(fresh) <= _MAX_SITEMAPS
            seen.update(fresh)
            waiting += fresh
        return Listing(list(items.values()), is_complete, self._notes(limit, is_complete))

    async def read(self, item: Item, known: Mark) -> Content | None:
        return await read_page(item, known, self._tools)

    async def _first(self) -> Sequence[str]:
        """The address given; for a front page, the sitemaps that its robots.txt names, or where one is by habit."""
        parsed = egress.parse(self._spec.url)
        if parsed.path not in ("", "/") or parsed.query:
            return [self._spec.url]
        named = [url for url in (await self._tools.visit.robots(self._spec.url)).sitemaps if self._is_here(url)]
        return named or [str(parsed.join("/sitemap.xml"))]

    async def _sitemap(self, url: str) -> feeds.Sitemap:
        found = await self._tools.visit.fetch(url, _MAX_BYTES)
        return feeds.sitemap(feeds.unpacked(found.data, _MAX_BYTES))

    async def _is_ours(self, url: str) -> bool:
        """Whether a page is of this site, wanted, and open to programs."""
        try:
            parsed = egress.parse(url)
        except UserError:
            return False
        if _bare(parsed.host) != self._host:
            self._skipped["elsewhere"] += 1
            return False
        if not is_wanted(unquote(parsed.path), self._spec.include, self._spec.exclude):
            return False
        if not (await self._tools.visit.robots(url)).allows(parsed.raw_path.decode("ascii")):
            self._skipped["robots"] += 1
            return False
        return True

    def _is_here(self, url: str) -> bool:
        try:
            return _bare(egress.parse(url).host) == self._host
        except UserError:
            return False

    def _notes(self, limit: int, is_complete: bool) -> tuple[str, ...]:
        notes = [] if is_complete else [tell("source_limit", most=limit)]
        notes += [tell(f"source_skipped_{why}", count=count) for why, count in self._skipped.items() if count]
        return tuple(notes)


def _bare(host: str) -> str:
    return host.removeprefix("www.")


def _mark(lastmod: str) -> Mark:
    """Only a date that is some time ago spares us a look."""
    try:
        day = date.fromisoformat(lastmod[:10])
    except ValueError:
        return {}
    return {"lastmod": lastmod[:40]} if day <= (now() - _SETTLED).date() else {}


@asynccontextmanager
async def open_site(spec: SitemapSpec, _secrets: Mapping[str, str], tools: Tools) -> AsyncIterator[Site]:
    yield Site(spec, tools)


def _check(spec: SitemapSpec, _settings: SourcesSettings) -> None:
    egress.parse(spec.url)


SITEMAP = SourceKind(SitemapSpec, open_site, check=_check)
