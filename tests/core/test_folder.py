"""On PostgreSQL two data directories with an index each do not run on one database: whoever comes second is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from core.app import Kvasir
from core.errors import ConfigError
from core.settings import Settings, load
from tests.databases import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]


@pytest.fixture
async def machine(postgres: Postgres, tmp_path: Path) -> AsyncIterator[Callable[..., Settings]]:
    """The settings of a machine, by name, with the kind of its store."""
    async with postgres.database(migrated=True) as url:

        def made(name: str, kind: str = "local") -> Settings:
            return load(
                data_dir=tmp_path / name, database={"url": url}, store={"kind": kind}, embedder={"kind": "none"}
            )

        yield made


async def test_a_second_data_directory_is_refused_while_the_first_is_in_use(machine: Callable[..., Settings]) -> None:
    async with Kvasir.open(machine("one")) as first, Kvasir.open(machine("two")) as second:
        keeping = asyncio.create_task(first.folder.keep(await first.folder.take()))
        await asyncio.sleep(0)
        for refused in (second.folder.check, second.folder.take):
            with pytest.raises(ConfigError, match="data directory of its own"):
                await refused()
        with pytest.raises(ConfigError, match="kvasir kb move"):
            async with Kvasir.open(machine("two")):
                pass
        async with Kvasir.open(machine("one")) as beside:
            assert await beside.folder.take()
        fence = await first.folder.take()
        keeping.cancel()
        await asyncio.wait({keeping})
        with pytest.raises(ConfigError):
            await second.folder.take()  # another process of the first directory has it still
        await asyncio.wait({ending := asyncio.create_task(first.folder.keep(fence))}, timeout=0.01)
        ending.cancel()
        await asyncio.wait({ending})
        assert await second.folder.take()


async def test_one_that_comes_while_it_was_not_heard_of_has_it(
    machine: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.work.folder._BEAT", 0.01)
    async with Kvasir.open(machine("one")) as first, Kvasir.open(machine("two")) as second:
        assert await second.folder.take()
        async with asyncio.timeout(10):
            with pytest.raises(ConfigError):
                await first.folder.keep(1)


async def test_with_a_shared_store_every_machine_has_its_own(machine: Callable[..., Settings]) -> None:
    async with Kvasir.open(machine("one", "pgvector")) as first, Kvasir.open(machine("two", "pgvector")) as second:
        assert await first.folder.take() == await second.folder.take() == 0
    async with Kvasir.open(machine("one")) as before:
        await before.knowledge.create("kb")
        await before.indexes.target("kb")
    async with Kvasir.open(machine("one", "pgvector")) as first, Kvasir.open(machine("two", "pgvector")) as second:
        assert await first.folder.take(), "a knowledge base is in a file of this machine yet"
        with pytest.raises(ConfigError):
            await second.folder.check()
