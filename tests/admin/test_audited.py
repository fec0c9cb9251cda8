"""Every change that goes through the API is written down, and nothing else."""

from __future__ import annotations

import pytest

from core.types import Role
from tests.admin.conftest import Site

pytestmark = pytest.mark.anyio


async def test_a_change_is_written_down_with_who_what_and_from_where(site: Site) -> None:
    await site.person("ann", Role.ADMIN)
    ann = await site.log_in("ann")
    assert (await ann.post("/api/v1/kbs", json={"name": "hr", "private": True})).status_code == 201
    assert (await ann.delete("/api/v1/kbs/hr")).status_code == 204
    items, _ = await site.kvasir.audit.list()
    assert [(item.name, item.action, item.object, item.address) for item in items] == [
        ("ann", "kbs.delete_kb", "hr", "127.0.0.1"),
        ("ann", "kbs.create_kb", "hr", "127.0.0.1"),
        ("ann", "me.log_in", "", "127.0.0.1"),
    ]
    assert items[1].changes == {"name": "hr", "private": True}


async def test_what_was_refused_or_only_read_is_not(site: Site) -> None:
    await site.person("eve", Role.VIEWER)
    eve = await site.log_in("eve")
    assert (await eve.post("/api/v1/kbs", json={"name": "hr"})).status_code == 403
    assert (await eve.get("/api/v1/kbs")).status_code == 200
    assert (await eve.post("/api/v1/conversations", json={})).status_code == 201
    items, _ = await site.kvasir.audit.list()
    assert [item.action for item in items] == ["me.log_in"]


async def test_a_password_is_never_in_it(site: Site) -> None:
    await site.person("ann", Role.OWNER)
    await site.log_in("ann")
    items, _ = await site.kvasir.audit.list()
    assert "horse" not in str([item.changes for item in items])
