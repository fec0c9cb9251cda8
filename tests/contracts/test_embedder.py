"""What every embedder promises; a new one is a subclass with its fixture."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from core.embedders import openai
from core.embedders.builtin import open_embedder
from core.embedders.cache import CachedEmbedder
from core.ports import Embedder
from core.settings import EmbedderSettings, Settings
from tests.fakes.builder import forked_builder
from tests.fakes.embedder import HashEmbedder, StubEmbedder
from tests.fakes.embedding_server import embedding_server
from tests.fakes.model import model_dir, tiny_model

__all__ = ["forked_builder", "model_dir"]  # fixtures, found by their names here

pytestmark = pytest.mark.anyio

TEXTS = [
    "Annual leave is 28 days a year.",
    "The office is closed on public holidays!",
    "How do I hand in an expense claim?",
    "年假为二十八天。",
    "Überstunden werden vergütet; ça va, наверное.",
]
ODD = [
    "",
    " \n\t ",
    "a\0b",
    "half a pair: \ud83d",
    "\ud83d\ude00 👩‍👩‍👧",
    "\u202eesrever\u202c",
    "[SEP] [CLS] <|x|>",
    "\x1b[0m",
]


class EmbedderContract:
    nearness = 0.0
    """By which the vectors of a text may differ that is embedded beside others; more than none where it is padded."""

    @pytest.fixture
    def leaving(self, embedder: Embedder) -> Embedder:
        """One to be closed: another, where the tests share theirs."""
        return embedder

    def same(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> None:
        np.testing.assert_allclose(one, other, rtol=0, atol=self.nearness)

    async def test_it_says_what_it_is(self, embedder: Embedder) -> None:
        info = embedder.info
        assert info.name
        assert len(info.fingerprint) >= 16
        assert info.dimension > 0
        assert info.max_tokens > 0
        assert info.scripts
        assert 0 <= info.weight <= 1

    async def test_one_normalised_row_a_text(self, embedder: Embedder) -> None:
        rows = await embedder.embed_documents(TEXTS)
        assert rows.shape == (len(TEXTS), embedder.info.dimension)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=2e-3)

    async def test_a_query_is_one_normalised_vector(self, embedder: Embedder) -> None:
        vector = await embedder.embed_query(TEXTS[0])
        assert vector.shape == (embedder.info.dimension,)
        assert vector.dtype == np.float32
        assert abs(float(np.linalg.norm(vector)) - 1) < 2e-3

    async def test_no_texts_no_rows(self, embedder: Embedder) -> None:
        rows = await embedder.embed_documents([])
        assert rows.shape == (0, embedder.info.dimension)

    async def test_a_vector_depends_on_its_text_alone(self, embedder: Embedder) -> None:
        rows = await embedder.embed_documents(TEXTS)
        backwards = await embedder.embed_documents(TEXTS[::-1])
        alone = np.concatenate([await embedder.embed_documents([text]) for text in TEXTS])
        twice = await embedder.embed_documents([TEXTS[0], TEXTS[1], TEXTS[0]])
        self.same(rows, backwards[::-1])
        self.same(rows, alone)
        self.same(twice, rows[[0, 1, 0]])

    async def test_it_survives_half_precision(self, embedder: Embedder) -> None:
        rows = await embedder.embed_documents(TEXTS)
        np.testing.assert_array_equal(rows, rows.astype(np.float16).astype(np.float32))

    async def test_a_very_long_text_is_cut(self, embedder: Embedder) -> None:
        rows = await embedder.embed_documents(["word " * 50_000, " " * 200_000 + "end", "x" * 200_000])
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=2e-3)

    async def test_any_text_will_do(self, embedder: Embedder) -> None:
        rows = await embedder.embed_documents(ODD)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=2e-3)
        for text in ODD:
            assert np.isfinite(await embedder.embed_query(text)).all()

    async def test_calls_at_once_do_not_mix(self, embedder: Embedder) -> None:
        texts = [f"{text} {number}" for number in range(4) for text in TEXTS]
        expected = await embedder.embed_documents(texts)
        vectors = [await embedder.embed_query(text) for text in texts]
        results = await asyncio.gather(*(embedder.embed_documents(texts[start:]) for start in range(0, 20, 3)))
        queries = await asyncio.gather(*(embedder.embed_query(text) for text in texts))
        for start, rows in zip(range(0, 20, 3), results, strict=True):
            self.same(rows, expected[start:])
        self.same(np.stack(queries), np.stack(vectors))

    async def test_a_cancelled_call_harms_no_other(self, embedder: Embedder) -> None:
        doomed = asyncio.create_task(embedder.embed_documents(TEXTS * 20))
        await asyncio.sleep(0)
        other = asyncio.create_task(embedder.embed_documents(TEXTS))
        doomed.cancel()
        rows = await other
        self.same(rows, await embedder.embed_documents(TEXTS))
        await asyncio.gather(doomed, return_exceptions=True)

    async def test_closing_twice_is_fine(self, leaving: Embedder) -> None:
        await leaving.close()
        await leaving.close()


class MeaningContract(EmbedderContract):
    """For embedders whose vectors mean something."""

    async def test_near_texts_have_near_vectors(self, embedder: Embedder) -> None:
        rows = await embedder.embed_documents(TEXTS)
        query = await embedder.embed_query("How many days of annual leave are there?")
        assert int(np.argmax(rows @ query)) == 0


class TestHash(MeaningContract):
    @pytest.fixture
    async def embedder(self) -> HashEmbedder:
        return HashEmbedder()


class TestStub(EmbedderContract):
    @pytest.fixture
    async def embedder(self) -> StubEmbedder:
        return StubEmbedder()


class TestCached(MeaningContract):
    @pytest.fixture
    async def embedder(self, tmp_path: Path) -> AsyncIterator[Embedder]:
        embedder = CachedEmbedder(HashEmbedder(), tmp_path / "embeddings.db")
        yield embedder
        await embedder.close()


class TestOpenAI(MeaningContract):
    """The real client against a server on the wire."""

    @pytest.fixture
    async def embedder(self, tmp_path: Path) -> AsyncIterator[Embedder]:
        async with embedding_server() as server:
            wanted = EmbedderSettings(kind="openai", base_url=server.base_url, model="m", batch=4)
            embedder = await openai.open_embedder(Settings(data_dir=tmp_path, embedder=wanted))
            yield embedder
            await embedder.close()


@pytest.fixture(scope="module")
def tiny_settings(tmp_path_factory: pytest.TempPathFactory, forked_builder: None) -> Settings:
    """The folder that holds the built tiny model is made once and shared."""
    folder = tmp_path_factory.mktemp("tiny")
    return Settings(
        data_dir=folder / "data", embedder=EmbedderSettings(model_dir=tiny_model(folder / "model"), threads=2)
    )


class TestBuiltinTiny(EmbedderContract):
    """The real builder and runtime on random weights."""

    @pytest.fixture
    async def embedder(self, tiny_settings: Settings) -> AsyncIterator[Embedder]:
        embedder = await open_embedder(tiny_settings)
        yield embedder
        await embedder.close()


@pytest.fixture(scope="module")
def default_settings(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("default")
    return Settings(data_dir=folder, embedder=EmbedderSettings(model_dir=model_dir, threads=2))


@pytest.fixture(scope="module")
def default(default_settings: Settings) -> Iterator[Embedder]:
    """One for all tests: it takes longer to read than they."""
    embedder = asyncio.run(open_embedder(default_settings))
    yield embedder
    asyncio.run(embedder.close())


class TestBuiltin(MeaningContract):
    @pytest.fixture
    def embedder(self, default: Embedder) -> Embedder:
        return default

    @pytest.fixture
    async def leaving(self, default_settings: Settings) -> Embedder:
        return await open_embedder(default_settings)
