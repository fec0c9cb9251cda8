"""Protection against N+1: a page of ten rows costs as many statements as one of three."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import Boolean, Column, DateTime, Float, Integer, UniqueConstraint, event, insert
from sqlalchemy import Table as SqlTable

from admin.console.records import RECORDS
from core.db.session import Database
from core.db.tables import Table, now
from core.types import Role
from tests.admin.conftest import Site

pytestmark = pytest.mark.anyio

KB = "kb-0"
VALUES: Mapping[tuple[str, str], Any] = {
    ("users", "role"): "viewer",
    ("users", "everywhere"): True,
    ("sessions", "expires_at"): now() + timedelta(days=1),
    ("api_keys", "scopes"): ["ask"],
    ("answers", "kbs"): [KB],
    ("answers", "platform"): "slack",
    ("answers", "state"): "complete",
    ("conversations", "platform"): "slack",
    ("documents", "kb_id"): f"{0:032x}",
    ("documents", "status"): "indexed",
    ("documents", "live_hash"): "0" * 64,
    ("documents", "content_hash"): "0" * 64,
    ("document_versions", "content_hash"): "0" * 64,
    ("ratings", "value"): -1,
    ("knowledge_bases", "chunk_size"): 200,
    ("knowledge_bases", "chunk_overlap"): 40,
    ("generations", "state"): "live",
    ("jobs", "kind"): "ingest",
    ("jobs", "payload"): {"kb": KB},
    ("jobs", "state"): "done",
    ("schedules", "kind"): "backup",
    ("schedules", "cron"): "0 3 * * *",
    ("schedules", "settings"): {"keep": 7},
    ("schedule_runs", "slot"): "now-0",
    ("sources", "kb_id"): f"{0:032x}",
    ("sources", "kind"): "url",
    ("sources", "settings"): {"url": "https://example.org/"},
    ("models", "kind"): "engine",
    ("models", "adapter"): "extractive",
    ("channels", "platform"): "slack",
    ("curated_answers", "kb_id"): f"{0:032x}",
    ("evaluation_sets", "kb_id"): f"{0:032x}",
    ("evaluation_questions", "set_id"): f"{0:032x}",
    ("evaluation_runs", "set_id"): f"{0:032x}",
    ("connections", "platform"): None,
}
"""Of columns where not every text will do."""
NAMED: Mapping[str, str] = {"name": KB, "kb": KB, "kb_name": KB, "set_id": f"{0:032x}", "document_id": f"{0:032x}",
                            "schedule_id": f"{0:032x}", "source_id": f"{0:032x}"}  # fmt: skip
"""What stands for a parameter in a path."""
NO_LISTS = ("/events", ".json", "/export", "/original", "/oidc")
LEFT_OUT = frozenset({"connections", "leases", "platform_state", "one_time_tokens", "login_failures"})
"""Tables that are no lists: as many rows as there are platforms, or read by key alone."""


def value(column: Column[Any], number: int) -> Any:
    table = column.table.name
    if (table, column.name) in VALUES:
        return VALUES[table, column.name]
    if column.foreign_keys or (column.primary_key and column.name == "id"):
        return f"{number:032x}"
    if column.name == "name" and table == "knowledge_bases":
        return f"kb-{number}"
    if isinstance(column.type, DateTime) or column.name.endswith("_at"):
        return None if column.nullable else now() - timedelta(minutes=number)
    if not is_unique(column) and (column.nullable or column.default is not None):
        return None
    if isinstance(column.type, (Integer, Float, Boolean)):
        return number
    return f"{column.name}-{number}"


def is_unique(column: Column[Any]) -> bool:
    found = [one for one in column.table.constraints if isinstance(one, UniqueConstraint)]
    return any(column.name in one.columns for one in found)


def row(table: SqlTable, number: int) -> dict[str, Any]:
    found = {column.name: value(column, number) for column in table.columns}
    return {name: one for name, one in found.items() if one is not None}


async def fill(db: Database, numbers: range) -> None:
    """As many rows in every table, each of them belonging to the one of the same number in the others."""
    async with db.session() as session:
        for table in Table.metadata.sorted_tables:
            if table.name not in LEFT_OUT:
                await session.execute(insert(table), [row(table, number) for number in numbers])


@contextmanager
def counted(db: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Statements by what they begin with, on both doors of the database."""
    found: Counter[str] = Counter()

    def of_the_orm(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        found[statement[:200]] += 1

    genuine = db.fetch

    async def direct(*steps: Any) -> Any:
        for step in steps:
            found[step.statement.on_sqlite.sql[:200]] += 1
        return await genuine(*steps)

    event.listen(db.engine.sync_engine, "before_cursor_execute", of_the_orm)
    with monkeypatch.context() as patched:
        patched.setattr(db, "fetch", direct)
        yield found
    event.remove(db.engine.sync_engine, "before_cursor_execute", of_the_orm)


def lists(site: Site) -> Iterator[str]:
    """Every address below the API and in the records that gives a list, whatever routes there are."""
    for route in iter_route_contexts(site.app.routes):
        path = str(route.path)
        if "GET" in (route.methods or ()) and path.startswith("/api/v1/") and not path.endswith(NO_LISTS):
            names = [part[1:-1].partition(":")[0] for part in path.split("/") if part.startswith("{")]
            if all(name in NAMED for name in names):
                yield path.format(**NAMED)
    yield from (f"/console/{view.identity}/list" for view in RECORDS)


async def readable(site: Site, browser: httpx2.AsyncClient) -> list[str]:
    """Those that are lists indeed; each has been read once."""
    found = []
    for path in lists(site):
        first = await browser.get(path)
        assert first.status_code < 500, (path, first.text)
        is_json = first.headers.get("content-type") == "application/json"
        if path.startswith("/console/") or (is_json and "items" in first.json()):
            found.append(path)
    return found


async def costs(
    site: Site, browser: httpx2.AsyncClient, paths: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Counter[str]]:
    found = {}
    for path in paths:
        with counted(site.kvasir.db, monkeypatch) as statements:
            answer = await browser.get(path)
        assert answer.status_code < 500, (path, answer.text)
        found[path] = statements
    return found


async def test_lists_cost_the_same_for_three_rows_and_for_ten(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await site.person("ann", Role.OWNER)
    await fill(site.kvasir.db, range(3))
    paths = await readable(site, browser)
    assert len(paths) > 20
    few = await costs(site, browser, paths, monkeypatch)
    await fill(site.kvasir.db, range(3, 10))
    many = await costs(site, browser, paths, monkeypatch)
    dear = {path: many[path] - few[path] for path in few if many[path].total() > few[path].total()}
    assert not dear, "\n".join(f"{path}: {statements}" for path, statements in dear.items())
