"""The stores whose packages are too heavy for the environment of all other tests: `make test-stores`."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("lancedb", reason="the store «lancedb» is tested by make test-stores")

from core.settings import LancedbSettings, Settings
from core.stores.lancedb import open_store as open_lancedb
from tests.contracts.test_vector_store import Open, VectorStoreContract

pytestmark = pytest.mark.anyio


class TestLancedbStore(VectorStoreContract):
    @pytest.fixture
    def opened(self, folder: Path) -> Open:
        return lambda: open_lancedb(Settings(data_dir=folder, lancedb=LancedbSettings(index_from=1000)))

    WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from core.settings import Settings
from core.stores.lancedb import open_store
from tests.contracts.test_vector_store import GENERATION, document, spelt

async def main():
    store = await open_store(Settings(data_dir=Path(sys.argv[1])))
    for batch in itertools.count():
        pages = [f"tea {spelt(int(sys.argv[2]))} page"] * 4
        await store.put(GENERATION, [document(f"r{sys.argv[2]}-{batch}-{n}", *pages) for n in range(5)])
        print(batch + 1, flush=True)

asyncio.run(main())
"""
