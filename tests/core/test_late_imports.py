"""What a command does without is not imported: a start is mostly imports."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from core.db import migrate
from core.db.session import Database

_LATE = (
    *("httpx2", "sqlalchemy.dialects.postgresql", "alembic.command", "apscheduler", "rich.markdown"),
    *("core.sources.web", "core.egress", "core.serving.client", "fastapi", "sqladmin", "uvicorn"),
    *("slack_sdk", "discord", "aiogram"),
)
_LISTS = """
import sys
from core.cli import main
sys.argv = ["kvasir", "kb", "list", "--json"]
try:
    main()
finally:
    print(*sorted(name for name in LATE if name in sys.modules), file=sys.stderr)
"""


def test_a_command_imports_only_what_it_works_with(tmp_path: Path) -> None:
    environment = {**os.environ, "KVASIR_DATA_DIR": str(tmp_path), "KVASIR_EMBEDDER__KIND": "none"}
    environment["KVASIR_DATABASE__URL"] = address = f"sqlite+aiosqlite:///{tmp_path / 'kvasir.db'}"
    asyncio.run(_make(address))
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"LATE = {list(_LATE)!r}\n{_LISTS}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip().startswith(("[", "{"))
    assert done.stderr.split() == []


async def _make(address: str) -> None:
    database = Database(address)
    await migrate.upgrade(database)
    await database.close()
