"""Python runs this in every process of such a test run, since the folder is on PYTHONPATH; it needs nothing of ours.

A data directory's database is named for it, and copied from the one that is migrated when it is first asked for.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

SERVER = "TESTS_ON_POSTGRES"
"""Environment variable with the folder of the server's socket; not one of KVASIR_…, which tests take away."""
TEMPLATE = "migrated"


def prefix() -> str:
    """What the names of this test process's databases begin with."""
    return f"own_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_"


def name_for(folder: Path) -> str:
    """Of the database in place of the file in this data directory."""
    return prefix() + hashlib.md5(os.fsencode(folder), usedforsecurity=False).hexdigest()


@cache
def address_for(folder: Path, template: str = TEMPLATE) -> str:
    """Of that database; made if need be."""
    import psycopg
    from psycopg.errors import DuplicateDatabase, UniqueViolation

    name, place = name_for(folder), os.environ[SERVER]
    with (
        suppress(DuplicateDatabase, UniqueViolation),  # another process was here first
        psycopg.connect(host=place, user="postgres", dbname="postgres", autocommit=True) as server,
    ):
        server.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    return f"postgresql+asyncpg://postgres@/{name}?host={place}"


def install(settings: ModuleType) -> None:
    """Have the settings say so where they name no database."""

    def database_url(self: Any) -> str:
        given = self.database.url.get_secret_value() if self.database.url else ""
        return given or address_for(Path(self.data_dir))

    settings.Settings.database_url = property(database_url)


class _After(importlib.abc.MetaPathFinder):
    """Waits for the settings to be imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if name != "core.settings":
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            install(module)

        spec.loader.exec_module = exec_module
        return spec


if SERVER in os.environ and "core.settings" not in sys.modules:
    sys.meta_path.insert(0, _After())
