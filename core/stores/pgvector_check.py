"""`kvasir doctor pgvector`: whether the PostgreSQL can be used, in one sentence each."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator

from core.errors import KvasirError, MissingExtra
from core.ports import Finding
from core.settings import Settings
from core.stores.pgvector import Meaning, address
from core.texts import tell

_SECONDS = 10.0
_OLDEST = (0, 7)
"""The first one with half precision."""


async def check(settings: Settings) -> AsyncIterator[Finding]:
    """The findings one by one; nothing is written or changed."""
    what = tell("pgvector_check")
    try:
        postgres, installed, available = await _versions(settings)
    except KvasirError as error:
        yield Finding(what, False, str(error), "url")
        return
    yield Finding(what, True, tell("pgvector_check_good", version=postgres))
    version = installed or available
    is_new = bool(version) and tuple(map(int, version.split(".")[:2])) >= _OLDEST
    yield Finding(
        "pgvector", is_new, tell("pgvector_check_version" if is_new else "pgvector_check_old", version=version)
    )
    used = settings.store.kind == "pgvector"
    yield Finding(tell("pgvector_check_use"), True, tell("pgvector_check_used" if used else "pgvector_check_unused"))


async def _versions(settings: Settings) -> tuple[str, str, str]:
    """Of PostgreSQL, of pgvector where it was created, and where it could be."""
    if importlib.util.find_spec("asyncpg") is None:
        raise MissingExtra("PostgreSQL", "postgres")
    import asyncpg  # late: it is an extra

    url = address(settings)
    with Meaning(url):
        connection = await asyncpg.connect(url.render_as_string(hide_password=False), timeout=_SECONDS)
        try:
            row = await connection.fetchrow(
                "SELECT current_setting('server_version'),"
                " (SELECT extversion FROM pg_extension WHERE extname = 'vector'),"
                " (SELECT default_version FROM pg_available_extensions WHERE name = 'vector')"
            )
        finally:
            await connection.close(timeout=_SECONDS)
    postgres, installed, available = row
    return str(postgres), installed or "", available or ""
