"""The embedder `openai` against a server on the wire: what is sent, and what is said when it goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.embedders.openai import cut, open_embedder
from core.errors import ConfigError, EmbedderUnavailable
from core.ports import Embedder
from core.settings import EmbedderSettings, Settings
from tests.fakes.embedding_server import EmbeddingServer, embedding_server

pytestmark = pytest.mark.anyio
KEY = "sk-embedding-0001"


@pytest.fixture
async def server() -> AsyncIterator[EmbeddingServer]:
    async with embedding_server() as running:
        yield running


async def opened(server: EmbeddingServer, **given: Any) -> Embedder:
    wanted: dict[str, Any] = {"kind": "openai", "base_url": server.base_url, "model": "m", "api_key": KEY}
    embedder = EmbedderSettings(**{**wanted, "timeout_seconds": 5, **given})
    return await open_embedder(Settings(data_dir=Path("/nowhere"), embedder=embedder), backoff=0.01)


async def test_texts_go_in_batches_with_their_prefixes(server: EmbeddingServer) -> None:
    embedder = await opened(server, batch=3, query_prefix="query: ", document_prefix="passage: ")
    server.requests.clear()
    await embedder.embed_documents([f"text {n}" for n in range(7)])
    await embedder.embed_query("who?")
    await embedder.close()
    assert sorted(len(request.body["input"]) for request in server.requests) == [1, 1, 3, 3]
    assert sorted(server.texts) == sorted([*(f"passage: text {n}" for n in range(7)), "query: who?"])
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}


async def test_what_shapes_a_vector_shapes_the_fingerprint(server: EmbeddingServer) -> None:
    seen = set()
    differences: list[dict[str, Any]] = [
        {},
        {"model": "n"},
        {"query_prefix": "q"},
        {"document_prefix": "d"},
        {"dimension": 32},
    ]
    for given in differences:
        embedder = await opened(server, **given)
        seen.add(embedder.info.fingerprint)
        await embedder.close()
    embedder = await opened(server, batch=2, weight=0.1, api_key="another")
    seen.add(embedder.info.fingerprint)
    await embedder.close()
    assert len(seen) == 5


async def test_a_smaller_vector_is_asked_for_only_where_it_must_be(server: EmbeddingServer) -> None:
    own = await opened(server, dimension=64)
    smaller = await opened(server, dimension=32)
    assert (own.info.dimension, smaller.info.dimension) == (64, 32)
    server.requests.clear()
    await own.embed_query("who?")
    await smaller.embed_query("who?")
    assert [request.body.get("dimensions") for request in server.requests] == [None, 32]
    await own.close()
    await smaller.close()


async def test_the_order_is_that_of_the_texts(server: EmbeddingServer) -> None:
    embedder = await opened(server)
    expected = await embedder.embed_documents(["a b", "c d", "e f"])
    server.mode = "disordered"
    np.testing.assert_array_equal(await embedder.embed_documents(["a b", "c d", "e f"]), expected)
    await embedder.close()


@pytest.mark.parametrize("mode", ["failing_then_ok", "busy_then_ok", "breaking_then_ok"])
async def test_it_asks_again_where_that_helps(server: EmbeddingServer, mode: str) -> None:
    embedder = await opened(server)
    server.requests.clear()
    server.mode = mode
    assert (await embedder.embed_documents(["a"])).shape == (1, 64)
    assert len(server.requests) == 2
    await embedder.close()


@pytest.mark.parametrize(
    ("mode", "words", "requests"),
    [
        ("one_missing", "no list of embeddings", 1),
        ("not_a_number", "no list of embeddings", 1),
        ("nothing_but_zeros", "no list of embeddings", 1),
        ("garbage", "no list of embeddings", 1),
        ("endless", "no list of embeddings", 1),
        ("wrong_key", "refuses the key", 1),
        ("refusing_aloud", "too much for", 1),
        ("no_model", "knows no model", 1),
        ("moved", "elsewhere.example", 1),
        ("busy_for_long", "slow down", 1),
        ("breaking_half_way", "cannot be reached", 1),
    ],
)
async def test_what_is_wrong_is_said_once_without_the_key(
    server: EmbeddingServer, mode: str, words: str, requests: int
) -> None:
    embedder = await opened(server)
    server.requests.clear()
    server.mode = mode
    with pytest.raises(EmbedderUnavailable) as failure:
        await embedder.embed_documents(["a"])
    await embedder.close()
    assert words in str(failure.value)
    assert KEY not in str(failure.value)
    assert len(server.requests) == requests


async def test_a_silent_server_is_not_waited_for(server: EmbeddingServer) -> None:
    server.mode = "silent"
    with pytest.raises(EmbedderUnavailable, match=r"within 0\.1 seconds"):
        await opened(server, timeout_seconds=0.1)


async def test_nobody_there(server: EmbeddingServer) -> None:
    with pytest.raises(EmbedderUnavailable, match="cannot be reached"):
        await opened(server, base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError):
        await opened(server, base_url="")
    with pytest.raises(ConfigError):
        await opened(server, base_url="file:///etc")


@pytest.mark.parametrize(
    ("text", "tokens", "kept"),
    [("word " * 10, 4, "word word wo"), ("年假为二十八天", 4, "年假为二"), ("ab年cd", 2, "ab年c")],
)
def test_a_long_text_is_cut(text: str, tokens: int, kept: str) -> None:
    assert cut(text, tokens) == kept


async def test_how_near_unrelated_texts_are_is_measured(server: EmbeddingServer) -> None:
    embedder = await opened(server)
    assert 0 <= embedder.info.background < 0.5
    await embedder.close()
