"""The `http` reranker against a server that speaks both dialects, with the faults that real ones have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from core.errors import ConfigError, Unavailable
from core.rerankers.http import PRESETS, HttpReranker, scores_of
from core.settings import RerankerSettings
from tests.core.library import passage
from tests.fakes.llm_server import MODES, Exchange, LlmServer, llm_server

pytestmark = pytest.mark.anyio

KEY = "rr-very-secret-key"
SHELF = [
    passage("Trains leave at nine.", document="trains.md", score=0.9),
    passage("Fresh fish is served on Friday.", document="food.md", score=0.5),
    passage("\ud800 \0", document="odd.md", score=0.1),
]
QUESTION = "When is fish served?"


def judged(exchange: Exchange, name: str, scale: float = 1.0) -> list[dict[str, Any]]:
    body = exchange.request.body
    texts: list[str] = body["texts"] if "texts" in body else body["documents"]
    assert all(text.strip() for text in texts)
    scores = [(0.9 if "fish" in text else 0.2) * scale for text in texts]
    return [{"index": number, name: score} for number, score in enumerate(scores)]


async def cohere(exchange: Exchange) -> None:
    await exchange.json(200, {"results": sorted(judged(exchange, "relevance_score"), key=str), "meta": {}})


async def voyage(exchange: Exchange) -> None:
    await exchange.json(200, {"object": "list", "data": judged(exchange, "relevance_score")})


async def tei(exchange: Exchange) -> None:
    await exchange.json(200, judged(exchange, "score"))


async def logits(exchange: Exchange) -> None:
    results = judged(exchange, "relevance_score", 8.0)
    results[0]["relevance_score"] = -900.0
    await exchange.json(200, {"results": results})


async def one_left_out(exchange: Exchange) -> None:
    await exchange.json(200, {"results": judged(exchange, "relevance_score")[1:]})


async def unprocessable(exchange: Exchange) -> None:
    await exchange.json(422, {"message": f"no such model for {KEY}"})


async def failing_once(exchange: Exchange) -> None:
    await (cohere(exchange) if len(exchange.server.requests) > 1 else exchange.json(503, {"error": "starting"}))


@pytest.fixture(autouse=True)
def modes(monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in (cohere, voyage, tei, logits, one_left_out, unprocessable, failing_once):
        monkeypatch.setitem(MODES, f"rerank_{mode.__name__}", mode)


@asynccontextmanager
async def opened(mode: str, **changes: object) -> AsyncIterator[tuple[HttpReranker, LlmServer]]:
    async with llm_server(mode) as server:
        values = {"base_url": server.base_url, "api_key": SecretStr(KEY), "model": "tiny", **changes}
        reranker = HttpReranker(RerankerSettings.model_validate(values), backoff=0.01)
        try:
            yield reranker, server
        finally:
            await reranker.close()


@pytest.mark.parametrize(
    ("mode", "dialect"),
    [
        ("rerank_cohere", "cohere"), ("rerank_voyage", "cohere"), ("rerank_tei", "tei"), ("rerank_logits", "cohere"),
        ("rerank_failing_once", "cohere"),
    ],
)  # fmt: skip
async def test_the_best_passage_comes_first(mode: str, dialect: str) -> None:
    async with opened(mode, dialect=dialect) as (reranker, server):
        ranked = await reranker.rerank(QUESTION, SHELF)
        assert await reranker.rerank(QUESTION, []) == ()
    assert ranked[0].document == "food.md"
    assert {one.document for one in ranked} == {one.document for one in SHELF}
    scores = [one.rerank_score for one in ranked]
    assert all(score is not None and 0 <= score <= 1 for score in scores)
    assert scores == sorted(scores, key=lambda score: score or 0.0, reverse=True)
    request = server.requests[-1]
    assert (request.path, request.headers["authorization"]) == ("/v1/rerank", f"Bearer {KEY}")
    texts = ["Trains leave at nine.", "Fresh fish is served on Friday.", "?"]
    if dialect == "tei":
        assert request.body == {"query": QUESTION, "texts": texts, "truncate": True}
    else:
        assert request.body == {"model": "tiny", "query": QUESTION, "documents": texts, "top_n": 3}


@pytest.mark.parametrize(
    ("mode", "words", "requests"),
    [
        ("rerank_one_left_out", "no score for every passage", 1),
        ("rerank_unprocessable", "status 422): no such model for …", 1),
        ("garbage", "no score for every passage", 1),
        ("wrong_key", "refuses the key", 1),
        ("moved", "status 307", 1),
        ("failing", "engine died", 2),
        ("busy_for_long", "status 429", 1),
        ("stall_before_headers", "within 0.2 seconds", 1),
        ("break_mid_stream", "cannot be reached", 2),
    ],
)
async def test_a_fault_ends_as_one_clear_sentence(mode: str, words: str, requests: int) -> None:
    changes = {"timeout_seconds": 0.2} if "stall" in mode else {}
    async with opened(mode, **changes) as (reranker, server):
        with pytest.raises(Unavailable) as caught:
            await reranker.rerank(QUESTION, SHELF)
        assert words in str(caught.value)
        assert KEY not in str(caught.value)
        assert len(server.requests) == requests


@pytest.mark.parametrize(
    "received",
    [
        b"", b"null", b"[]", b"[1]", b'{"results": 5}', b'[{"index": 0}]', b'[{"index": 0, "score": "NaN"}]',
        b'[{"index": 0, "score": 1}, {"index": 1, "score": 1}]', b'[{"index": 1, "score": 1}]', b"[" * 100_000,
    ],
)  # fmt: skip
async def test_what_judges_nothing_is_none(received: bytes) -> None:
    assert scores_of(received, 1) is None


async def test_nobody_listening_is_said() -> None:
    async with opened("ok") as (_, server):
        pass
    reranker = HttpReranker(RerankerSettings(base_url=server.base_url, model="tiny"), backoff=0.01)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await reranker.rerank(QUESTION, SHELF)
    await reranker.close()


@pytest.mark.parametrize("values", [{"base_url": "http://x"}, {"model": "m"}, {"base_url": "ftp://x", "model": "m"}])
async def test_unusable_settings_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        HttpReranker(RerankerSettings.model_validate(values))


async def test_the_presets_fit_the_settings() -> None:
    for preset in PRESETS:
        values = {"model": "m", **preset.values}
        if values["base_url"]:
            await HttpReranker(RerankerSettings.model_validate(values)).close()
