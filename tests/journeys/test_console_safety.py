"""Every page of the console over texts that would like to be markup or a script."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from playwright.sync_api import Page
from sqlalchemy import JSON, String, Text, update

from admin.console.pages import PAGES
from admin.console.records import RECORDS
from core.access import OPERATOR
from core.app import Kvasir
from core.db.tables import Table
from core.settings import load
from tests.admin.things import make_things
from tests.journeys.browsing import NAME, Watch
from tests.journeys.console import CHINESE, Console, console_up, drawn, needs_browser

pytestmark = needs_browser

XSS = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>"
TEXTS = {
    "knowledge_bases": ("description", "instructions"),
    "documents": ("name", "title", "reason", "media_type", "source"),
    "answers": ("question", "standalone_question", "text", "notice", "model", "error"),
    "ratings": ("reason",),
    "conversations": ("title",),
    "curated_answers": ("question", "text", "reason", "created_by"),
    "sources": ("name", "reason"),
    "schedules": ("name", "created_by"),
    "jobs": ("error",),
    "outbox": ("text", "error", "channel"),
    "evaluation_sets": ("name",),
    "evaluation_questions": ("question", "document"),
    "chunk_overrides": ("text", "original", "by"),
    "document_versions": ("by",),
    "api_keys": ("name",),
    "sessions": ("user_agent", "address"),
    "audit": ("name", "object", "action"),
    "channels": ("name", "instructions", "updated_by"),
}
"""Columns that hold what people, documents, models or platforms said."""


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("site")
    with console_up(folder) as it:
        with ThreadPoolExecutor(1) as aside:  # the browser's own loop runs in this thread
            aside.submit(asyncio.run, _fill(folder / "data")).result(60)
        yield it


@pytest.fixture(scope="module")
def walk(console: Console) -> Iterator[tuple[Page, Watch]]:
    """A page that goes from one to the next."""
    with console.page("dashboard", **CHINESE) as (page, watch):
        yield page, watch


async def _fill(data_dir: Path) -> None:
    async with Kvasir.open(load(data_dir=data_dir, embedder={"kind": "none"})) as kvasir:
        await make_things(cast(Any, SimpleNamespace(kvasir=kvasir)), "hostile", by=OPERATOR)
        await kvasir.audit.note(OPERATOR, "x", changes={XSS: XSS})
        tables = Table.metadata.tables
        async with kvasir.db.session() as session:
            for name, columns in TEXTS.items():
                table = tables[name]
                assert all(isinstance(table.c[column].type, (String, Text, JSON)) for column in columns)
                await session.execute(update(table).values(dict.fromkeys(columns, XSS)))


@pytest.mark.parametrize("page_name", [page.name for page in PAGES] + [f"{view.identity}/list" for view in RECORDS])
def test_no_text_becomes_part_of_the_page(walk: tuple[Page, Watch], page_name: str) -> None:
    page, watch = walk
    watch.troubles.clear()  # those of a page that has failed already
    tabs = {
        "people": ("", "?tab=logins", "?tab=keys", "?tab=audit"),
        "playground": ("?kb=hostile", "?kb=hostile&tab=sets"),
    }
    for more in tabs.get(page_name, ("?kb=hostile",)):
        page.goto(f"/console/{page_name}{more}")
        page.locator("#page > *").first.wait_for()
        drawn(page, watch)
        assert page.locator("img[src=x]").count() == 0
        assert page.locator("main script").count() == 0
        assert NAME in page.locator("#foot").inner_text()
        assert watch.troubles == []
