"""The `tiangong` engine: Kunlun's Tiangong by its own API, whose requests are signed, and which answers in JSON lines.

Source: the worker for Tiangong that Langchain-Chatchat has; the service has no public reference any more.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from core.egress import trusted
from core.engines.openai_stream import clipped
from core.errors import ConfigError, EngineUnavailable
from core.ports import EngineInfo
from core.retrying import pause, retry_after
from core.settings import Settings, TiangongSettings
from core.texts import say
from core.types import Language, Prompt, Sampling

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 3
LONGEST_WAIT: Final = 20.0
_RETRIED: Final = frozenset({429, 500, 502, 503, 504})
_LINE_BYTES: Final = 1 << 20
_HEALTH_SECONDS: Final = 5.0


async def open_engine(settings: Settings, **_: object) -> TiangongEngine:
    """The engine of the settings; nothing is sent before the first question."""
    return TiangongEngine(settings.tiangong)


class TiangongEngine:
    """Streams answers. Tries again only before the server has begun to answer."""

    def __init__(self, settings: TiangongSettings, *, backoff: float = 0.5) -> None:
        self._settings = settings
        self._key, self._secret = settings.app_key.get_secret_value(), settings.app_secret.get_secret_value()
        if not self._key or not self._secret:
            raise ConfigError("Set KVASIR_TIANGONG__APP_KEY and KVASIR_TIANGONG__APP_SECRET to your app's of Tiangong.")
        address = urlsplit(settings.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigError("KVASIR_TIANGONG__BASE_URL must be an address that begins with http:// or https://.")
        self._host = address.netloc.rpartition("@")[2]
        self._backoff = backoff
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(settings.first_token_timeout_seconds, connect=settings.connect_timeout_seconds),
            follow_redirects=False,
            verify=trusted(),
        )

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("tiangong", self._settings.model, True, self._settings.context_size)

    def count_tokens(self, text: str) -> int:
        """An estimate on the high side, as the `openai` engine's."""
        ascii_count = len(text.encode("ascii", "ignore"))
        return len(text) - ascii_count + -(-ascii_count * 10 // 32)

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[str, None]:  # noqa: ARG002  it takes none
        """The answer's text piece by piece."""
        language, clock = prompt.language, asyncio.get_running_loop()
        begin_by = clock.time() + self._settings.first_token_timeout_seconds
        response = await self._begun(prompt, begin_by)
        any_text = False
        try:
            async for reply in self._replies(response, begin_by, language):
                any_text = any_text or bool(reply.strip())
                yield reply
            if not any_text:
                raise EngineUnavailable(say("engine_empty", language, host=self._host))
        finally:
            await response.aclose()

    async def health(self) -> str:
        """Empty when something answers at its address; whether the key is right, only a question tells."""
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                response = await self._client.get(self._settings.base_url)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError):
            return say("engine_no_connection", "en", host=self._host)
        return "" if response.status_code < 500 else str(self._failed(response.status_code, "", "en"))

    async def close(self) -> None:
        await self._client.aclose()

    # ------------------------------------------------------------ before the first byte
    async def _begun(self, prompt: Prompt, begin_by: float) -> httpx2.Response:
        """The response whose stream has begun; tries again where that can help."""
        attempt = 0
        while True:
            attempt += 1
            wait = pause(attempt, self._backoff)
            try:
                response = await self._post(prompt, begin_by)
            except (httpx2.TransportError, httpx2.InvalidURL) as error:
                failure = self._broken(error, prompt.language)
            else:
                if response.status_code == httpx2.codes.OK:
                    return response
                await response.aclose()
                failure = self._failed(response.status_code, "", prompt.language)
                if response.status_code not in _RETRIED:
                    raise failure
                wait = retry_after(response.headers.get("retry-after", ""), wait)
            late = asyncio.get_running_loop().time() + wait > begin_by
            if attempt == ATTEMPTS or wait > LONGEST_WAIT or late:
                raise failure
            logger.info("asking %s again in %.1f s", self._host, wait)
            await asyncio.sleep(wait)

    async def _post(self, prompt: Prompt, begin_by: float) -> httpx2.Response:
        messages = [{"role": turn.role, "content": turn.text} for turn in prompt.turns]
        body = {"messages": messages, "model": self._settings.model}
        headers = {**signed(self._key, self._secret, int(time.time())), "stream": "true"}
        request = self._client.build_request("POST", self._settings.base_url, json=body, headers=headers)
        try:
            async with asyncio.timeout_at(begin_by):
                return await self._client.send(request, stream=True)
        except TimeoutError as error:
            raise self._slow(prompt.language) from error

    # ------------------------------------------------------------ the stream itself
    async def _replies(self, response: httpx2.Response, begin_by: float, language: Language) -> AsyncIterator[str]:
        clock, deadline, begun, rest = asyncio.get_running_loop(), begin_by, False, b""
        received = aiter(response.aiter_bytes())
        ended = False
        while not ended:
            try:
                async with asyncio.timeout_at(deadline):
                    part = await anext(received, None)
            except TimeoutError as error:
                raise self._stalled(language) if begun else self._slow(language) from error
            except (httpx2.HTTPError, httpx2.StreamError) as error:
                raise EngineUnavailable(say("engine_broke", language, host=self._host)) from error
            ended = part is None
            *lines, rest = (rest + (part or b"\n")).split(b"\n")
            if len(rest) > _LINE_BYTES:
                raise self._garbage(language)
            for line in lines:
                if line.strip() and (reply := self._reply(line, language)):
                    begun = True
                    yield reply
                    deadline = clock.time() + self._settings.token_timeout_seconds

    def _reply(self, line: bytes, language: Language) -> str:
        """The next piece of the answer. Raises where the line says that it failed."""
        try:
            said: Any = json.loads(line.decode("utf-8", "replace").strip().removeprefix("data:"))
        except (ValueError, RecursionError) as error:
            raise self._garbage(language) from error
        if not isinstance(said, dict) or "code" not in said:
            raise self._garbage(language)
        if said["code"] not in (200, "200"):
            raise self._failed(said["code"], str(said.get("code_msg") or ""), language)
        data = said.get("resp_data")
        reply = data.get("reply") if isinstance(data, dict) else None
        return reply if isinstance(reply, str) else ""

    # ------------------------------------------------------------ sentences
    def _failed(self, status: object, said: str, language: Language) -> EngineUnavailable:
        if status in (401, 403):
            return EngineUnavailable(say("engine_key", language, host=self._host))
        if status == httpx2.codes.TOO_MANY_REQUESTS:
            return EngineUnavailable(say("engine_busy", language, host=self._host))
        for secret in (self._key, self._secret):
            said = said.replace(secret, "…")
        values = {"host": self._host, "status": clipped(str(status), 20), "said": clipped(said) or "-"}
        return EngineUnavailable(say("engine_failed", language, **values))

    def _broken(self, error: Exception, language: Language) -> EngineUnavailable:
        if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.InvalidURL)):
            return EngineUnavailable(say("engine_no_connection", language, host=self._host))
        if isinstance(error, httpx2.TimeoutException):
            return self._slow(language)
        return EngineUnavailable(say("engine_broke", language, host=self._host))

    def _garbage(self, language: Language) -> EngineUnavailable:
        return EngineUnavailable(say("engine_other_dialect", language, host=self._host))

    def _slow(self, language: Language) -> EngineUnavailable:
        seconds = f"{self._settings.first_token_timeout_seconds:g}"
        return EngineUnavailable(say("engine_slow", language, host=self._host, seconds=seconds))

    def _stalled(self, language: Language) -> EngineUnavailable:
        seconds = f"{self._settings.token_timeout_seconds:g}"
        return EngineUnavailable(say("engine_stalled", language, host=self._host, seconds=seconds))


def signed(key: str, secret: str, at: int) -> dict[str, str]:
    """The headers of a request made at that second, as Tiangong wants it signed."""
    sign = hashlib.md5(f"{key}{secret}{at}".encode(), usedforsecurity=False).hexdigest()
    return {"app_key": key, "timestamp": str(at), "sign": sign}
