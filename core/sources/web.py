"""One or several web pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated

from pydantic import Field

from core import egress
from core.settings import SourcesSettings
from core.sources.port import Address, Content, Item, Listing, Mark, SourceKind, Spec, Tools


class UrlSpec(Spec):
    urls: Annotated[tuple[Address, ...], Field(min_length=1, max_length=200)]


class Pages:
    def __init__(self, spec: UrlSpec, tools: Tools) -> None:
        self._spec = spec
        self._tools = tools

    async def list(self) -> Listing:
        return Listing([page_item(url) for url in dict.fromkeys(self._spec.urls)])

    async def read(self, item: Item, known: Mark) -> Content | None:
        return await read_page(item, known, self._tools)


def page_item(url: str, mark: Mark | None = None) -> Item:
    return Item(url, "", url, mark or {})


async def read_page(item: Item, known: Mark, tools: Tools) -> Content | None:
    """A page that is fetched, unless the server says that it is what it was."""
    found = await tools.visit.fetch(item.address, tools.max_file_bytes, known)
    if found.is_unchanged:
        return None
    return Content(found.data, found.name, {"etag": found.etag, "modified": found.modified})


@asynccontextmanager
async def open_pages(spec: UrlSpec, _secrets: Mapping[str, str], tools: Tools) -> AsyncIterator[Pages]:
    yield Pages(spec, tools)


def _check(spec: UrlSpec, _settings: SourcesSettings) -> None:
    for url in spec.urls:
        egress.parse(url)


URL = SourceKind(UrlSpec, open_pages, check=_check)
