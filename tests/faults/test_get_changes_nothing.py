"""A request that only asks changes nothing, whoever lures somebody into making it (fault 36)."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from core.db.tables import Table
from core.types import Place, Role
from tests.admin.conftest import Site, open_site, site
from tests.admin.test_auth import _routes

__all__ = ["open_site", "site"]

pytestmark = pytest.mark.anyio

NOTED = {"sessions": {"seen_at"}}
"""Columns that say when somebody was last there."""


async def _content(site: Site) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    async with site.kvasir.db.read() as session:
        for name, table in Table.metadata.tables.items():
            columns = [column for column in table.columns if column.name not in NOTED.get(name, ())]
            found[name] = sorted(map(tuple, await session.execute(select(*columns))), key=repr)
    return found


async def test_no_get_changes_anything(site: Site) -> None:
    """Protection: every route that changes something is POST, PUT, PATCH or DELETE, which `admin/guard.py` guards."""
    await site.kvasir.knowledge.create("kb")
    anna = await site.person("anna", Role.OWNER)
    user = await site.kvasir.accounts.get("anna")
    conversation = await site.kvasir.conversations.open(Place("web", channel="x"), f"user:{user.id}")
    before = await _content(site)
    asked = 0
    for method, path in _routes(site.app):
        if method == "GET" and not path.endswith("/events"):
            for key in (conversation.id, "0" * 32):
                filled = path.replace("{name}", "kb")
                while "{" in filled:
                    filled = filled[: filled.index("{")] + key + filled[filled.index("}") + 1 :]
                await anna.get(filled, params={"token": "x", "next": "/", "delete": "1", "action": "delete"})
                asked += 1
    assert asked > 20
    assert await _content(site) == before


async def test_what_changes_something_is_refused_from_elsewhere(site: Site) -> None:
    """Protection: `admin/guard.py: same_origin` stands before all routes, those of later days included."""
    anna = await site.person("anna", Role.OWNER)
    elsewhere = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    changing = [(method, path) for method, path in _routes(site.app) if method not in ("GET", "HEAD", "OPTIONS")]
    assert len(changing) > 8
    for method, path in changing:
        refused = await anna.request(method, path.replace("{", "").replace("}", ""), headers=elsewhere, json={})
        assert refused.status_code == 403, (method, path)
