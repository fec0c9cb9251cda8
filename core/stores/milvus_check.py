"""`kvasir doctor milvus`: whether it can be used, in one sentence each."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from core.errors import KvasirError
from core.ports import Finding
from core.settings import Settings
from core.stores.milvus import MilvusStore
from core.stores.milvus_server import OLDEST, Server
from core.texts import tell


async def check(settings: Settings) -> AsyncIterator[Finding]:
    """The findings one by one; nothing is written or changed."""
    what = tell("milvus_check")
    try:
        server = Server(settings.milvus, settings.data_dir)
    except KvasirError as error:
        yield Finding(what, False, str(error), "uri")
        return
    if server.is_there:
        async for finding in _inside(server, settings):
            yield finding
    else:
        yield Finding(what, True, tell("store_check_none", path=server.address))
    used = settings.store.kind == "milvus"
    says = tell("store_check_used") if used else tell("store_check_unused", kind="milvus")
    yield Finding(tell("store_check_use"), True, says)


async def _inside(server: Server, settings: Settings) -> AsyncIterator[Finding]:
    what = tell("milvus_check")
    try:
        version = await server.version()
        numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
        if numbers < OLDEST and not server.is_lite:
            needed = ".".join(map(str, OLDEST))
            yield Finding(what, False, tell("milvus_check_old", version=version, needed=needed), "uri")
        else:
            yield Finding(what, True, tell("milvus_check_good", version=version, uri=server.address))
        count = await MilvusStore(server, settings.milvus).indexes()
        yield Finding(tell("milvus_check_made"), True, tell("milvus_check_counted", count=count))
    except KvasirError as error:
        yield Finding(what, False, str(error), "*")
    finally:
        await server.close()
