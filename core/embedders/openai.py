"""The `openai` embedder: any server that speaks OpenAI's embeddings, over httpx2."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import numpy as np

from core.egress import trusted
from core.embedders.lanes import halved
from core.errors import ConfigError, EmbedderUnavailable
from core.inference.sections import Preset
from core.ports import Embedder, EmbedderInfo
from core.retrying import pause, retry_after
from core.settings import EmbedderSettings, Settings
from core.texts import tell
from core.types import Matrix, Vector

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 4
LONGEST_WAIT: Final = 30.0
_RETRIED: Final = frozenset({429, 500, 502, 503, 504, 529})
_CONNECT_SECONDS: Final = 10.0
_AT_ONCE: Final = 4
"""Requests at a time; a server with one card gains nothing from more."""
_REFUSAL_BYTES: Final = 64 << 10
_BYTES_A_NUMBER: Final = 40
_LARGEST: Final = 256 << 20
_BLANK: Final = "."
"""In the place of a text without words: servers refuse one that is empty."""
_UNRELATED: Final = (
    "The harbour office opens at seven on weekdays.",
    "Whisk the eggs with sugar until they are pale.",
    "A prime number has exactly two divisors.",
    "打印机缺纸时会亮起黄灯。",
    "春天的时候候鸟飞回北方。",
    "Invoices are paid within thirty days.",
)
"""What the cosine of texts is that have nothing to do with each other, is measured by these."""


def _preset(name: str, title: str, url: str, *models: str, needs_key: bool = True, **values: Any) -> Preset:
    return Preset(name, title, {"base_url": url, **values}, needs_key, models)


PRESETS: Final[tuple[Preset, ...]] = (
    _preset("openai", "OpenAI", "https://api.openai.com/v1", "text-embedding-3-small", max_tokens=8191),
    _preset("azure", "Azure OpenAI", "https://YOUR-RESOURCE.openai.azure.com/openai/v1", max_tokens=8191),
    _preset(
        "dashscope", "DashScope / 通义千问", "https://dashscope.aliyuncs.com/compatible-mode/v1",
        "text-embedding-v4", max_tokens=8192, batch=10,
    ),
    _preset("zhipu", "Zhipu / 智谱", "https://open.bigmodel.cn/api/paas/v4", "embedding-3", max_tokens=3072),
    _preset("ollama", "Ollama", "http://127.0.0.1:11434/v1", "bge-m3", "nomic-embed-text", needs_key=False),
    _preset("vllm", "vLLM", "http://127.0.0.1:8000/v1", needs_key=False),
    _preset("tei", "Text Embeddings Inference", "http://127.0.0.1:8080/v1", needs_key=False),
    _preset("tabbyapi", "TabbyAPI", "http://127.0.0.1:5000/v1"),
    _preset("llama-server", "llama.cpp (llama-server)", "http://127.0.0.1:8080/v1", needs_key=False),
    _preset("generic", "OpenAI-compatible", "", needs_key=False),
)  # fmt: skip
"""In the order of a list to choose from; what is written large in an address is to be filled in."""


async def open_embedder(
    settings: Settings, progress: Callable[[str, float], None] | None = None, *, backoff: float = 0.5
) -> Embedder:
    """The embedder of the settings, after its server has shown that it is there and what vectors it gives.

    Raises EmbedderUnavailable where it cannot be reached or asked, ConfigError where its address or model is missing.
    """
    report = progress or (lambda _stage, _done: None)
    report("connect", 0.0)
    server = _Server(settings.embedder, backoff)
    try:
        info = await _looked_at(server, settings.embedder)
    except BaseException:
        await server.close()
        raise
    report("connect", 1.0)
    logger.info("embedding with %s at %s, %s dimensions", info.name, server.host, info.dimension)
    return OpenAIEmbedder(server, info, settings.embedder)


class OpenAIEmbedder:
    """Sends texts in batches, a few at a time, and asks again only while the server has not begun to answer."""

    def __init__(self, server: _Server, info: EmbedderInfo, settings: EmbedderSettings) -> None:
        self._server = server
        self._settings = settings
        self._places = asyncio.Semaphore(_AT_ONCE)
        self.info = info

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        size = self._settings.batch
        batches = [texts[start : start + size] for start in range(0, len(texts), size)]
        if not batches:
            return np.empty((0, self.info.dimension), np.float32)
        try:
            async with asyncio.TaskGroup() as tasks:
                asking = [tasks.create_task(self._batch(batch), name="embed-batch") for batch in batches]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return np.concatenate([task.result() for task in asking])

    async def embed_query(self, text: str) -> Vector:
        rows = await self._server.embed([self._ready(self._settings.query_prefix, text)], self.info.dimension)
        vector: Vector = rows[0]
        return vector

    async def close(self) -> None:
        await self._server.close()

    async def _batch(self, texts: Sequence[str]) -> Matrix:
        async with self._places:
            prefix = self._settings.document_prefix
            return await self._server.embed([self._ready(prefix, text) for text in texts], self.info.dimension)

    def _ready(self, prefix: str, text: str) -> str:
        return prefix + (cut(readable(text), self.info.max_tokens) or _BLANK)


class _Server:
    """The server, asked for vectors."""

    def __init__(self, settings: EmbedderSettings, backoff: float) -> None:
        self._settings = settings
        self._backoff = backoff
        self.url = _checked(settings)
        address = urlsplit(self.url)
        self.host = address.netloc.rpartition("@")[2]
        self._key = settings.api_key.get_secret_value()
        self.asks_dimension = False
        self._client = httpx2.AsyncClient(
            headers=self._headers(address.hostname or ""),
            timeout=httpx2.Timeout(settings.timeout_seconds, connect=min(_CONNECT_SECONDS, settings.timeout_seconds)),
            follow_redirects=False,
            verify=trusted(),
        )

    async def embed(self, texts: Sequence[str], dimension: int = 0) -> Matrix:
        """One normalised row a text, at the precision that is kept. Raises EmbedderUnavailable."""
        body: dict[str, Any] = {"model": self._settings.model, "input": list(texts)}
        if self.asks_dimension:
            body["dimensions"] = self._settings.dimension
        received = await self._received(body, len(texts))
        rows = await asyncio.to_thread(_rows, received, len(texts))
        if rows is None:
            raise EmbedderUnavailable(tell("embed_garbage", host=self.host))
        if dimension and rows.shape[1] != dimension:
            raise self._other_dimension(rows.shape[1], dimension)
        return rows

    async def close(self) -> None:
        await self._client.aclose()

    def _other_dimension(self, found: int, wanted: int) -> EmbedderUnavailable:
        return EmbedderUnavailable(tell("embed_dimension", host=self.host, found=found, wanted=wanted))

    async def _received(self, body: dict[str, Any], texts: int) -> bytes:
        for attempt in range(1, ATTEMPTS + 1):
            wait = pause(attempt, self._backoff)
            failure: EmbedderUnavailable
            try:
                response = await self._sent(body)
            except (httpx2.TransportError, TimeoutError) as error:
                failure = self._broken(error)
                if isinstance(error, httpx2.UnsupportedProtocol):
                    raise failure from error
            except httpx2.InvalidURL as error:
                raise EmbedderUnavailable(tell("embed_no_connection", host=self.host)) from error
            else:
                try:
                    if response.status_code == httpx2.codes.OK:
                        return await self._read(response, min(_LARGEST, (texts * 8192 * _BYTES_A_NUMBER) + (1 << 16)))
                    failure = await self._refused(response)
                finally:
                    await response.aclose()
                if response.status_code not in _RETRIED or "insufficient_quota" in str(failure):
                    raise failure
                wait = retry_after(response.headers.get("retry-after", ""), wait)
            if attempt == ATTEMPTS or wait > LONGEST_WAIT:
                raise failure
            logger.info("asking %s for embeddings again in %.1f s", self.host, wait)
            await asyncio.sleep(wait)
        raise AssertionError  # the last attempt raises

    async def _sent(self, body: dict[str, Any]) -> httpx2.Response:
        request = self._client.build_request("POST", self.url, json=body)
        async with asyncio.timeout(self._settings.timeout_seconds):
            return await self._client.send(request, stream=True)

    async def _read(self, response: httpx2.Response, most: int) -> bytes:
        received = bytearray()
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                async for part in response.aiter_bytes():
                    received += part
                    if len(received) > most:
                        raise EmbedderUnavailable(tell("embed_garbage", host=self.host))
        except (httpx2.HTTPError, httpx2.StreamError, TimeoutError) as error:
            raise self._broken(error) from error
        return bytes(received)

    # ------------------------------------------------------------ sentences
    async def _refused(self, response: httpx2.Response) -> EmbedderUnavailable:
        status, host = response.status_code, self.host
        if response.is_redirect:
            target = urlsplit(response.headers.get("location", "")).netloc.rpartition("@")[2] or host
            return EmbedderUnavailable(tell("embed_moved", host=host, target=_clipped(target)))
        if status in (401, 403):
            return EmbedderUnavailable(tell("embed_key", host=host))
        try:
            said = self._scrubbed(_stated(await self._read(response, _REFUSAL_BYTES)))
        except EmbedderUnavailable:
            said = "-"
        if status == httpx2.codes.NOT_FOUND:
            return EmbedderUnavailable(tell("embed_no_model", host=host, model=self._settings.model))
        if status == httpx2.codes.TOO_MANY_REQUESTS:
            return EmbedderUnavailable(tell("embed_busy", host=host, said=said))
        return EmbedderUnavailable(tell("embed_failed", host=host, status=status, said=said))

    def _broken(self, error: Exception) -> EmbedderUnavailable:
        if isinstance(error, (TimeoutError, httpx2.TimeoutException)) and not isinstance(error, httpx2.ConnectTimeout):
            seconds = f"{self._settings.timeout_seconds:g}"
            return EmbedderUnavailable(tell("embed_slow", host=self.host, seconds=seconds))
        return EmbedderUnavailable(tell("embed_no_connection", host=self.host))

    def _scrubbed(self, text: str) -> str:
        return _clipped(text.replace(self._key, "…") if len(self._key) > 3 else text)

    def _headers(self, host: str) -> dict[str, str]:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            is_azure = host.endswith(".azure.com")
            headers["api-key" if is_azure else "Authorization"] = self._key if is_azure else f"Bearer {self._key}"
        return headers


async def _looked_at(server: _Server, settings: EmbedderSettings) -> EmbedderInfo:
    """What the embedder is, by what its server gives for a few texts."""
    texts = [settings.document_prefix + text for text in _UNRELATED]
    rows = await server.embed(texts[: settings.batch])
    if settings.dimension and rows.shape[1] != settings.dimension:
        server.asks_dimension = True
        rows = await server.embed(texts[: settings.batch], settings.dimension)
    cosines = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    made_of = (server.url, settings.model, settings.query_prefix, settings.document_prefix, settings.max_tokens)
    seed = json.dumps([*made_of, int(rows.shape[1])]).encode()
    return EmbedderInfo(
        name=settings.model,
        fingerprint=hashlib.sha256(seed).hexdigest(),
        dimension=int(rows.shape[1]),
        max_tokens=settings.max_tokens,
        scripts=frozenset(settings.scripts),
        weight=settings.weight,
        background=min(0.9, max(0.0, float(cosines.mean()))) if len(cosines) else 0.0,
    )


def readable(text: str) -> str:
    """The text as JSON and servers take it: without NUL, lone surrogates and blanks around it."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8").strip()


def cut(text: str, tokens: int) -> str:
    """The beginning of the text that has no more tokens than that, by an estimate on the high side.

    That is one token for three ASCII characters, and one for every other character.
    """
    text = text[: 3 * tokens]
    if text.isascii():
        return text
    left = 3 * tokens
    for place, char in enumerate(text):
        left -= 1 if char.isascii() else 3
        if left < 0:
            return text[:place]
    return text


def _rows(received: bytes, texts: int) -> Matrix | None:
    """The vectors in the order of the texts; None where the answer holds anything else."""
    try:
        data = json.loads(received)["data"]
        ordered = sorted(data, key=lambda item: int(item["index"]))
        if [int(item["index"]) for item in ordered] != list(range(texts)):
            return None
        rows = np.array([item["embedding"] for item in ordered], np.float32)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if rows.ndim != 2 or not rows.shape[1] or not np.isfinite(rows).all():
        return None
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return None if (lengths == 0).any() else halved(rows / lengths)


def _stated(received: bytes) -> str:
    """What an error's body says."""
    try:
        body = json.loads(received)
    except ValueError:
        return ""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message") or error.get("code") or ""
    return str(error)


def _clipped(text: str) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line[:300] or "-"


def _checked(settings: EmbedderSettings) -> str:
    base = settings.base_url.strip().rstrip("/").removesuffix("/embeddings")
    if not base or not settings.model:
        raise ConfigError(tell("embed_not_set"))
    address = urlsplit(base)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError(tell("model_bad_address", field="base_url"))
    return f"{base}/embeddings"
