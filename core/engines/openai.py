"""The `openai` engine: any server that speaks OpenAI's chat completions, over httpx2."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

import httpx2

from core.deadline import Deadline
from core.egress import trusted
from core.engines.openai_quirks import PRESETS, PROVIDERS, Quirks, adapted, provider_of, request_body
from core.engines.openai_stream import EventReader, NotOurDialect, Piece, ThoughtFilter, clipped
from core.errors import ConfigError, EngineBroke, EngineUnavailable
from core.ports import EngineInfo
from core.retrying import pause, retry_after
from core.settings import OpenAISettings, Settings
from core.texts import say
from core.types import Ended, Language, Prompt, Queued, Sampling

logger = logging.getLogger(__name__)

__all__ = ["CHOICES", "PRESETS", "OpenAIEngine", "open_engine"]

CHOICES: Final = {"provider": ("auto", *PROVIDERS)}
ATTEMPTS: Final = 3
LONGEST_WAIT: Final = 20.0
"""Seconds a server may tell us to wait before we say that it is busy."""
WORKER_ENDED: Final = "worker_ended"
"""What a worker of ours (`core/serving`) says when it ends with everything that it does."""
RETRIED: Final = frozenset({429, 500, 502, 503, 504, 529})
_REFUSAL_BYTES: Final = 64 * 1024
_HEALTH_SECONDS: Final = 5.0
_CONTEXT_WORDS: Final = ("context_length", "context length", "maximum context", "context size", "too many tokens")


async def open_engine(settings: Settings, **_: object) -> OpenAIEngine:
    """An engine for the server that the settings name; nothing is sent before the first question."""
    return OpenAIEngine(settings.openai)


class OpenAIEngine:
    """Streams chat completions. Tries again only before the server has begun to answer."""

    def __init__(
        self,
        settings: OpenAISettings,
        *,
        backoff: float = 0.5,
        transport: httpx2.AsyncBaseTransport | None = None,
        retried: frozenset[int] = RETRIED,
        is_ours: bool = False,
    ) -> None:
        """`transport`: another way there than by the network, to a process of this machine.

        `is_ours`: a worker of Kvasir's, which hears, as a number, whose question it is. `retried`: refusals after which
        it tries again; after a broken connection it does so where 502 is among them.
        """
        self._settings = settings
        self._base = _checked(settings)
        self._quirks = _quirks(settings)
        self._backoff = backoff
        self._retried = retried
        self._is_ours = is_ours
        self._secrets = [
            value for value in (settings.api_key.get_secret_value(), *settings.headers.values()) if len(value) > 3
        ]
        self._host = urlsplit(self._base).netloc.rpartition("@")[2]
        self._client = httpx2.AsyncClient(
            headers=self._headers(),
            timeout=httpx2.Timeout(
                connect=settings.connect_timeout_seconds,
                read=None,  # every read is timed below
                write=settings.first_token_timeout_seconds,
                pool=settings.first_token_timeout_seconds,
            ),
            follow_redirects=False,
            verify=trusted(),
            transport=transport,
        )

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("openai", self._settings.model, True, self._settings.context_size)

    def count_tokens(self, text: str) -> int:
        """An estimate on the high side: one token for 3.2 ASCII characters, and one for every other character."""
        ascii_count = len(text.encode("ascii", "ignore"))
        return len(text) - ascii_count + -(-ascii_count * 10 // 32)

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[str | Queued, None]:
        """The answer's text piece by piece; a model's thoughts are left out."""
        language = prompt.language
        clock = asyncio.get_running_loop()
        begin_by = clock.time() + self._settings.first_token_timeout_seconds
        response = await self._begun(prompt, sampling, begin_by)
        try:
            thoughts = ThoughtFilter()
            any_text, ended = False, Ended()
            async with aclosing(self._pieces(response, begin_by, language)) as pieces:
                async for piece in pieces:
                    self._check(piece, language)
                    if piece.place is not None:
                        yield Queued(piece.place)
                        continue
                    ended = _told(ended, piece)
                    text = thoughts.feed(piece.text)
                    text = text if any_text else text.lstrip()
                    if text:
                        any_text = True
                        yield text
            rest = thoughts.close()
            if rest:
                yield rest
            elif not any_text:
                raise EngineUnavailable(say("engine_empty", language, host=self._host))
            if prompt.on_end is not None:
                prompt.on_end(ended)
        finally:
            await response.aclose()

    async def health(self) -> str:
        """Empty when the server lists its models, or does not know how to."""
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                response = await self._client.get(f"{self._base}/models")
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError):
            return say("engine_no_connection", "en", host=self._host)
        if response.status_code in (401, 403) or response.status_code >= 500 or response.is_redirect:
            return str(self._refused(response.status_code, "", response, "en"))
        return ""

    async def close(self) -> None:
        await self._client.aclose()

    # ------------------------------------------------------------ before the first byte
    async def _begun(self, prompt: Prompt, sampling: Sampling, begin_by: float) -> httpx2.Response:
        """The response whose stream has begun; tries again where that can help."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = await self._post(prompt, sampling, begin_by)
            except (httpx2.TransportError, httpx2.InvalidURL) as error:
                failure: EngineUnavailable = self._broken(error, prompt.language)
                wait = pause(attempt, self._backoff)
                is_bad = isinstance(error, (httpx2.InvalidURL, httpx2.UnsupportedProtocol))
                if is_bad or httpx2.codes.BAD_GATEWAY not in self._retried:
                    raise failure from error
            else:
                if response.status_code == httpx2.codes.OK:
                    return response
                text, code = await self._refusal(response, begin_by)
                failure = self._refused(response.status_code, text, response, prompt.language)
                if code == WORKER_ENDED:
                    failure = EngineBroke(text)
                if self._learned(response.status_code, text):
                    continue
                if response.status_code not in self._retried or _quota_used_up(text):
                    raise failure
                wait = retry_after(response.headers.get("retry-after", ""), pause(attempt, self._backoff))
            late = asyncio.get_running_loop().time() + wait > begin_by
            if attempt == ATTEMPTS or wait > LONGEST_WAIT or late:
                raise failure
            logger.info("asking %s again in %.1f s", self._host, wait)
            await asyncio.sleep(wait)
        raise EngineUnavailable(say("engine_garbage", prompt.language, host=self._host))

    async def _post(self, prompt: Prompt, sampling: Sampling, begin_by: float) -> httpx2.Response:
        body = request_body(self._settings.model, prompt.turns, sampling, self._quirks)
        if self._is_ours and prompt.asker:
            body["user"] = sha256(prompt.asker.encode()).hexdigest()[:16]
        request = self._client.build_request("POST", f"{self._base}/chat/completions", json=body)
        try:
            async with asyncio.timeout_at(begin_by):
                return await self._client.send(request, stream=True)
        except TimeoutError as error:
            raise self._slow_to_begin(prompt.language) from error

    async def _refusal(self, response: httpx2.Response, begin_by: float) -> tuple[str, str]:
        """What the server says about its refusal, as one line without our secrets; and its own code for that."""
        received = b""
        try:
            async with asyncio.timeout_at(min(begin_by, asyncio.get_running_loop().time() + _HEALTH_SECONDS)):
                async for part in response.aiter_bytes():
                    received += part
                    if len(received) > _REFUSAL_BYTES:
                        break
        except (httpx2.HTTPError, httpx2.StreamError, TimeoutError):
            logger.debug("the refusal of %s could not be read", self._host)
        finally:
            await response.aclose()
        reader = EventReader()
        try:
            stated = [piece for piece in (*reader.feed(received), *reader.close()) if piece.error]
        except NotOurDialect:
            stated = []
        return (self._scrubbed(stated[0].error), stated[0].code) if stated else ("", "")

    def _learned(self, status: int, refusal: str) -> bool:
        """Whether a refusal taught how to ask better; then the next attempt does."""
        if status not in (400, 422):
            return False
        better = adapted(self._quirks, refusal)
        if better is None:
            return False
        self._quirks = better
        return True

    # ------------------------------------------------------------ the stream itself
    async def _pieces(self, response: httpx2.Response, begin_by: float, language: Language) -> AsyncGenerator[Piece]:
        """What the server sends, each waited for no longer than the settings say."""
        clock = asyncio.get_running_loop()
        reader = EventReader()
        received = aiter(response.aiter_bytes())
        deadline, begun, ended = Deadline(begin_by - clock.time(), TimeoutError()), False, False
        try:
            while not ended:
                try:
                    part = await self._next(received, deadline, language)
                except TimeoutError as error:
                    raise self._stalled(language) if begun else self._slow_to_begin(language) from error
                ended = part is None
                pieces = self._read(reader, part, language)
                for piece in pieces:
                    if piece.done:
                        return
                    yield piece
                if any(piece.text or piece.reasoning for piece in pieces):
                    begun = True
                    deadline.move(self._settings.token_timeout_seconds)
        finally:
            deadline.close()

    async def _next(self, received: AsyncIterator[bytes], deadline: Deadline, language: Language) -> bytes | None:
        """The next bytes; None at the end."""
        try:
            return await deadline.wait(anext(received, None))
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise EngineBroke(say("engine_broke", language, host=self._host)) from error

    def _read(self, reader: EventReader, part: bytes | None, language: Language) -> list[Piece]:
        try:
            pieces = reader.close() if part is None else reader.feed(part)
        except NotOurDialect as error:
            logger.info("%s sent no chat completion: %s", self._host, self._scrubbed(str(error)))
            raise EngineUnavailable(say("engine_garbage", language, host=self._host)) from error
        if part is None and not reader.seen:
            raise EngineBroke(say("engine_broke", language, host=self._host))
        return pieces

    def _check(self, piece: Piece, language: Language) -> None:
        """Raises where the server says in its stream that it failed."""
        if piece.error:
            raise self._stated(self._scrubbed(piece.error), piece.code, language)
        if piece.finish in ("content_filter", "sensitive"):
            raise EngineUnavailable(say("engine_filtered", language))
        if piece.finish in ("error", "network_error", "insufficient_system_resource"):
            raise EngineUnavailable(say("engine_broke", language, host=self._host))

    # ------------------------------------------------------------ sentences
    def _refused(
        self, status: int, said: str, response: httpx2.Response | None, language: Language
    ) -> EngineUnavailable:
        values = {"host": self._host, "model": self._settings.model, "status": status, "said": said or "-"}
        if response is not None and response.is_redirect:
            target = urlsplit(response.headers.get("location", "")).netloc.rpartition("@")[2] or self._host
            return EngineUnavailable(say("engine_moved", language, host=self._host, target=clipped(target, 100)))
        if status in (401, 403):
            return EngineUnavailable(say("engine_key", language, **values))
        if any(words in said.lower() for words in _CONTEXT_WORDS):
            return EngineUnavailable(say("engine_context", language, **values))
        if status == httpx2.codes.NOT_FOUND:
            return EngineUnavailable(say("engine_no_model", language, **values))
        if status == httpx2.codes.TOO_MANY_REQUESTS:
            return EngineUnavailable(say("engine_busy", language, **values))
        return EngineUnavailable(say("engine_failed", language, **values))

    def _stated(self, said: str, code: str, language: Language) -> EngineUnavailable:
        """The sentence for an error that came with status 200."""
        text = f"{code} {said}".lower()
        if code == WORKER_ENDED:
            return EngineBroke(said)
        if code == "1004" or any(
            word in text for word in ("invalid_api_key", "invalidapikey", "api key", "unauthorized", "401")
        ):
            return self._refused(401, "", None, language)
        if code == "1002" or any(
            word in text for word in ("rate limit", "rate_limit", "throttling", "429", "1302", "quota")
        ):
            return self._refused(429, said, None, language)
        if "model" in text and ("not found" in text or "not exist" in text or "not_found" in text):
            return self._refused(404, said, None, language)
        return self._refused(200, said, None, language)

    def _broken(self, error: Exception, language: Language) -> EngineUnavailable:
        if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.InvalidURL)):
            return EngineBroke(say("engine_no_connection", language, host=self._host))
        if isinstance(error, httpx2.UnsupportedProtocol):
            return EngineUnavailable(say("engine_no_connection", language, host=self._host))
        if isinstance(error, httpx2.TimeoutException):
            return self._slow_to_begin(language)
        return EngineBroke(say("engine_broke", language, host=self._host))

    def _slow_to_begin(self, language: Language) -> EngineUnavailable:
        seconds = f"{self._settings.first_token_timeout_seconds:g}"
        return EngineUnavailable(say("engine_slow", language, host=self._host, seconds=seconds))

    def _stalled(self, language: Language) -> EngineUnavailable:
        seconds = f"{self._settings.token_timeout_seconds:g}"
        return EngineUnavailable(say("engine_stalled", language, host=self._host, seconds=seconds))

    def _scrubbed(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return clipped(text)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "text/event-stream, application/json", "Accept-Encoding": "identity"}
        key = self._settings.api_key.get_secret_value()
        if key:
            name = self._quirks.key_header
            headers[name] = f"Bearer {key}" if name == "Authorization" else key
        return {**headers, **self._settings.headers}


def _checked(settings: OpenAISettings) -> str:
    base = settings.base_url.strip().rstrip("/").removesuffix("/chat/completions")
    if not base:
        raise ConfigError("Set KVASIR_OPENAI__BASE_URL to the address of your language model's server, ending in /v1.")
    if urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).hostname:
        raise ConfigError("KVASIR_OPENAI__BASE_URL must be an address that begins with http:// or https://.")
    if not settings.model:
        raise ConfigError("Set KVASIR_OPENAI__MODEL to the name of a model that your server knows.")
    return base


def _quirks(settings: OpenAISettings) -> Quirks:
    name = provider_of(settings.base_url) if settings.provider == "auto" else settings.provider
    if name not in PROVIDERS:
        raise ConfigError(f"KVASIR_OPENAI__PROVIDER must be auto or one of {', '.join(PROVIDERS)}.")
    return PROVIDERS[name]


def _told(ended: Ended, piece: Piece) -> Ended:
    """What is known of the end with this piece; some servers count with every one."""
    if piece.finish in ("stop", "length"):
        ended = replace(ended, reason="length" if piece.finish == "length" else "stop")
    if piece.usage is not None:
        ended = replace(ended, prompt_tokens=piece.usage[0], answer_tokens=piece.usage[1])
    return ended


def _quota_used_up(said: str) -> bool:
    """Waiting does not help against an empty account."""
    text = said.lower()
    return "insufficient_quota" in text or "exceeded your current quota" in text or "balance" in text
