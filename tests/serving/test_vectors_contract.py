"""Embedders in workers keep what every embedder promises: each on a `kvasir worker` that serves all its tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed: make test-models has it")

from core.embedders import instructor, sentence_transformers
from core.inference.sections import settings_with
from core.ports import Embedder
from core.settings import Settings
from tests.contracts.test_embedder import EmbedderContract
from tests.models.bert_dir import write_encoder
from tests.models.t5_dir import write_instructor

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
KEY = "a-key-of-a-worker"


@contextmanager
def served(kind: str, model: Path, folder: Path) -> Iterator[str]:
    """The worker's address."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KVASIR_")}
    own = {"DATA_DIR": str(folder), "WORKER__API_KEY": KEY, "EMBEDDER__MODEL_DIR": str(model), "EMBEDDER__THREADS": "1"}
    command = [sys.executable, "-c", "from core.cli import main; main()", "worker", "--kind", kind, "--port", "0"]
    variables = {**kept, **{f"KVASIR_{name}": value for name, value in own.items()}, "LANG": "en_US.UTF-8"}
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:[0-9]+", process.stdout.readline())
            assert found, "it ended"
            yield found[0]
        finally:
            process.terminate()
            process.stdout.read()


def settings(kind: str, url: str, folder: Path) -> Settings:
    values = {"base_url": url, "api_key": KEY}
    return settings_with(Settings(data_dir=folder), "embedder", kind, values)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("bert")
    with served("sentence-transformers", write_encoder(folder / "tiny-bert"), folder / "data") as url:
        yield url


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("t5")
    with served("instructor", write_instructor(folder / "instructor-tiny"), folder / "data") as url:
        yield url


class TestSentenceTransformers(EmbedderContract):
    nearness = 2e-3

    @pytest.fixture
    async def embedder(self, bert: str, tmp_path: Path) -> AsyncIterator[Embedder]:
        embedder = await sentence_transformers.open_embedder(settings("sentence-transformers", bert, tmp_path))
        yield embedder
        await embedder.close()


class TestInstructor(EmbedderContract):
    nearness = 2e-3

    @pytest.fixture
    async def embedder(self, t5: str, tmp_path: Path) -> AsyncIterator[Embedder]:
        embedder = await instructor.open_embedder(settings("instructor", t5, tmp_path))
        yield embedder
        await embedder.close()
