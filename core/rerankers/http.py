"""The `http` reranker: a server that speaks the `/rerank` of Cohere and Jina, or that of Text Embeddings Inference."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from core.egress import trusted
from core.embedders.openai import cut, readable
from core.engines.openai_stream import clipped
from core.errors import ConfigError, Unavailable
from core.inference.sections import Preset
from core.retrying import pause, retry_after
from core.settings import RerankerSettings, Settings
from core.texts import tell
from core.types import Passage

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 2
LONGEST_WAIT: Final = 2.0
"""An answer waits for it; better the order that there is than a late one."""
_RETRIED: Final = frozenset({429, 500, 502, 503, 504, 529})
_CONNECT_SECONDS: Final = 5.0
_LARGEST: Final = 4 << 20
_BLANK: Final = "."


def _preset(name: str, title: str, url: str, *models: str, needs_key: bool = True, **values: Any) -> Preset:
    return Preset(name, title, {"base_url": url, **values}, needs_key, models)


PRESETS: Final[tuple[Preset, ...]] = (
    _preset("cohere", "Cohere", "https://api.cohere.com/v2", "rerank-v3.5", max_tokens=4000),
    _preset("jina", "Jina AI", "https://api.jina.ai/v1", "jina-reranker-v2-base-multilingual", max_tokens=1000),
    _preset("siliconflow", "SiliconFlow / 硅基流动", "https://api.siliconflow.cn/v1", "BAAI/bge-reranker-v2-m3"),
    _preset("vllm", "vLLM", "http://127.0.0.1:8000/v1", needs_key=False),
    _preset("llama-server", "llama.cpp (llama-server)", "http://127.0.0.1:8080/v1", needs_key=False),
    _preset("tei", "Text Embeddings Inference", "http://127.0.0.1:8080", needs_key=False, dialect="tei", model="-"),
    _preset("xinference", "Xinference", "http://127.0.0.1:9997/v1", "bge-reranker-v2-m3", needs_key=False),
    _preset("generic", "/rerank", "", needs_key=False),
)
"""In the order of a list to choose from."""


async def open_reranker(settings: Settings, **_: object) -> HttpReranker:
    """The reranker of the settings; nothing is sent before the first question. Raises ConfigError."""
    return HttpReranker(settings.reranker)


class HttpReranker:
    """Asks for all passages in one request."""

    def __init__(self, settings: RerankerSettings, *, backoff: float = 0.2) -> None:
        self._settings = settings
        self._url = _checked(settings)
        self._host = urlsplit(self._url).netloc.rpartition("@")[2]
        self._key = settings.api_key.get_secret_value()
        self._backoff = backoff
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        seconds = settings.timeout_seconds
        timeout = httpx2.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds))
        self._client = httpx2.AsyncClient(headers=headers, timeout=timeout, follow_redirects=False, verify=trusted())

    async def rerank(self, query: str, passages: Sequence[Passage]) -> Sequence[Passage]:
        """The passages by the server's judgement. Raises Unavailable where that cannot be had."""
        if not passages:
            return ()
        longest = self._settings.max_tokens
        texts = [cut(readable(passage.text), longest) or _BLANK for passage in passages]
        question = cut(readable(query), longest) or _BLANK
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                received = await self._received(self._body(question, texts))
        except TimeoutError as error:
            raise self._slow() from error
        scores = scores_of(received, len(texts))
        if scores is None:
            raise Unavailable(tell("rerank_garbage", host=self._host))
        judged = [replace(passage, rerank_score=score) for passage, score in zip(passages, scores, strict=True)]
        return sorted(judged, key=lambda passage: passage.rerank_score or 0.0, reverse=True)

    async def close(self) -> None:
        await self._client.aclose()

    def _body(self, query: str, texts: Sequence[str]) -> dict[str, Any]:
        if self._settings.dialect == "tei":
            return {"query": query, "texts": texts, "truncate": True}
        return {"model": self._settings.model, "query": query, "documents": texts, "top_n": len(texts)}

    async def _received(self, body: dict[str, Any]) -> bytes:
        for attempt in range(1, ATTEMPTS + 1):
            wait = pause(attempt, self._backoff)
            try:
                async with self._client.stream("POST", self._url, json=body) as response:
                    if response.status_code == httpx2.codes.OK:
                        return await self._read(response)
                    failure = await self._refused(response)
                    if response.status_code not in _RETRIED:
                        raise failure
                    wait = retry_after(response.headers.get("retry-after", ""), wait)
            except httpx2.InvalidURL as error:
                raise Unavailable(tell("rerank_no_connection", host=self._host)) from error
            except (httpx2.HTTPError, httpx2.StreamError) as error:
                slow = isinstance(error, httpx2.TimeoutException) and not isinstance(error, httpx2.ConnectTimeout)
                failure = self._slow() if slow else Unavailable(tell("rerank_no_connection", host=self._host))
                if slow:
                    raise failure from error
            if attempt == ATTEMPTS or wait > LONGEST_WAIT:
                raise failure
            logger.info("asking %s to rerank again in %.1f s", self._host, wait)
            await asyncio.sleep(wait)
        raise AssertionError  # the last attempt raises

    async def _read(self, response: httpx2.Response) -> bytes:
        received = bytearray()
        async for part in response.aiter_bytes():
            received += part
            if len(received) > _LARGEST:
                raise Unavailable(tell("rerank_garbage", host=self._host))
        return bytes(received)

    async def _refused(self, response: httpx2.Response) -> Unavailable:
        if response.status_code in (401, 403):
            return Unavailable(tell("rerank_key", host=self._host))
        said = _stated(await self._read(response))
        said = said.replace(self._key, "…") if len(self._key) > 3 else said
        return Unavailable(
            tell("rerank_failed", host=self._host, status=response.status_code, said=clipped(said) or "-")
        )

    def _slow(self) -> Unavailable:
        return Unavailable(tell("rerank_slow", host=self._host, seconds=f"{self._settings.timeout_seconds:g}"))


def scores_of(received: bytes, count: int) -> list[float] | None:
    """A score of 0..1 for every text; None where the answer is no judgement of all of them.

    Some servers give logits; they go through the logistic function.
    """
    try:
        found: Any = json.loads(received)
        if isinstance(found, dict):
            found = found.get("results") or found.get("data")
        scores = {int(one["index"]): float(one.get("relevance_score", one.get("score"))) for one in found}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None
    if sorted(scores) != list(range(count)) or not all(math.isfinite(score) for score in scores.values()):
        return None
    if any(not 0 <= score <= 1 for score in scores.values()):
        scores = {index: _logistic(score) for index, score in scores.items()}
    return [scores[index] for index in range(count)]


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def _stated(received: bytes) -> str:
    """What an error's body says."""
    try:
        said: Any = json.loads(received)
    except (ValueError, RecursionError):
        return ""
    if isinstance(said, dict):
        said = said.get("message") or said.get("error") or said.get("detail") or ""
    if isinstance(said, dict):
        said = said.get("message") or said.get("code") or ""
    return str(said)


def _checked(settings: RerankerSettings) -> str:
    base = settings.base_url.strip().rstrip("/").removesuffix("/rerank")
    if not base or not settings.model:
        raise ConfigError(tell("rerank_not_set"))
    address = urlsplit(base)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError(tell("model_bad_address", field="base_url"))
    return f"{base}/rerank"
