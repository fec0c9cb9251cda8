"""`kvasir doctor lancedb`: whether the place can be used, in one sentence each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

from core.errors import KvasirError
from core.ports import Finding
from core.settings import Settings
from core.stores.lancedb import LanceStore, address
from core.texts import tell


async def check(settings: Settings) -> AsyncIterator[Finding]:
    """The findings one by one; nothing is written or changed."""
    what = tell("lancedb_check")
    uri = address(settings.lancedb, settings.data_dir)
    try:
        store = LanceStore(settings.lancedb, settings.data_dir)
        if "://" not in uri and not Path(uri).exists():
            yield Finding(what, True, tell("store_check_none", path=uri))
        else:
            count = await _count(store)
            yield Finding(what, True, tell("lancedb_check_good", uri=uri, count=count, version=version("lancedb")))
    except KvasirError as error:
        yield Finding(what, False, str(error), "uri")
        return
    used = settings.store.kind == "lancedb"
    says = tell("store_check_used") if used else tell("store_check_unused", kind="lancedb")
    yield Finding(tell("store_check_use"), True, says)


async def _count(store: LanceStore) -> int:
    try:
        await store.open()
        return await store.tables()
    finally:
        await store.close()
