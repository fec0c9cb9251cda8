"""The stores whose packages are too heavy for the environment of all other tests: `make test-stores`."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import SecretStr

from core.ports import VectorStore
from core.settings import LancedbSettings, MilvusSettings, Settings
from core.stores.lancedb import open_store as open_lancedb
from core.stores.milvus import open_store as open_milvus
from tests.contracts.test_vector_store import GENERATION, OTHER, WORDLESS, Open, VectorStoreContract
from tests.weaviate_server import free_ports

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not all(map(find_spec, ("lancedb", "pymilvus", "milvus_lite"))),
        reason="the packages of the stores «lancedb» and «milvus» are 600 MB: make test-stores",
    ),
]


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


@pytest.fixture(scope="module")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """That of KVASIR_TEST_MILVUS_URL, else Milvus Lite as a server of its own, so that several processes can use it."""
    if url := os.environ.get("KVASIR_TEST_MILVUS_URL"):
        yield url
        return
    (port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("milvus")
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder / "data"), "--host", "127.0.0.1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log)
    try:
        wait_for(port, process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def milvus_settings(folder: Path) -> Settings:
    """Address and token are in the folder, whose name is the beginning of the collections' names."""
    uri, token = (folder / "milvus").read_text(encoding="utf-8").split("\n")
    prefix = "T" + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Settings(data_dir=folder, milvus=MilvusSettings(uri=uri, prefix=prefix, token=SecretStr(token)))


class TestMilvusStore(VectorStoreContract):
    @pytest.fixture
    def opened(self, milvus_server: str, folder: Path) -> Open:
        token = os.environ.get("KVASIR_TEST_MILVUS_TOKEN", "")
        (folder / "milvus").write_text(f"{milvus_server}\n{token}", encoding="utf-8")
        return lambda: open_milvus(milvus_settings(folder))

    @pytest.fixture
    async def store(self, opened: Open) -> AsyncIterator[VectorStore]:
        store = await opened()
        for generation in (GENERATION, OTHER, WORDLESS):
            await store.ensure_generation(generation)
        yield store
        for generation in (GENERATION, OTHER, WORDLESS):
            await store.drop_generation(generation)
        await store.close()

    WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from core.stores.milvus import open_store
from tests.contracts.test_stores_extra import milvus_settings
from tests.contracts.test_vector_store import GENERATION, document, spelt

async def main():
    store = await open_store(milvus_settings(Path(sys.argv[1])))
    for batch in itertools.count():
        pages = [f"tea {spelt(int(sys.argv[2]))} page"] * 4
        await store.put(GENERATION, [document(f"r{sys.argv[2]}-{batch}-{n}", *pages) for n in range(5)])
        print(batch + 1, flush=True)

asyncio.run(main())
"""
