"""An upgrade of the database that is killed at any step leaves what was before, and the next one completes it (93)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.processes import run

DRILL = """
import asyncio, json, os, signal, sqlite3, sys
from pathlib import Path
from sqlalchemy import event
from core.db import migrate
from core.db.session import Database

folder, every = Path(sys.argv[1]), int(sys.argv[2])
TABLES = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name"


def upgrade(path, kill_at=0):
    '''In a process of its own, which kills itself before its n-th statement; its number of statements, or -9.'''
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        async def work():
            database, count = Database(f"sqlite+aiosqlite:///{path}"), 0

            @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
            def before(*_):
                nonlocal count
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

            await migrate.upgrade(database)
            os.write(theirs, str(count).encode())
            os._exit(0)

        asyncio.run(work())
    os.close(theirs)
    said = os.read(ours, 99)
    os.close(ours)
    os.waitpid(child, 0)
    return int(said) if said else -9


def schema(path):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(TABLES).fetchall()
    finally:
        connection.close()


steps = upgrade(folder / "clean.db")
clean, told = schema(folder / "clean.db"), {"steps": steps, "killed": 0, "half": 0}
path = folder / "killed.db"
for step in range(1, steps + 1, every):
    told["killed"] += upgrade(path, step) == -9
    told["half"] += schema(path) not in ([], clean)
told["whole"] = upgrade(path) > 0 and schema(path) == clean
print(json.dumps(told))
"""


@pytest.mark.slow
def test_an_upgrade_killed_at_any_step_is_made_up_for(tmp_path: Path) -> None:
    """Protection: the upgrade is one transaction (`core/db/migrate.py: upgrade`, `core/db/session.py: _begin`).

    Each upgrade but the first comes after one that was killed, and gets further.
    """
    done = run([sys.executable, "-c", DRILL, str(tmp_path), "11"], timeout=100, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["steps"] > 30
    assert told["killed"] > 8
    assert (told["half"], told["whole"]) == (0, True)
