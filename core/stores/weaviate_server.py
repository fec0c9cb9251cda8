"""The connection to a Weaviate server: opened when it is first needed, every call with a limit of its own.

The client itself may try again for a minute inside one call; nobody who asked a question waits that long. After a few
failures in a row the server is left alone for some seconds (a circuit breaker), and whoever asks is told at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from core.errors import ConfigError, KvasirError, MissingExtra, StoreUnavailable
from core.settings import WeaviateSettings
from core.stores.weaviate_login import log_in
from core.texts import tell

if TYPE_CHECKING:
    from weaviate import WeaviateAsyncClient

logger = logging.getLogger(__name__)

OLDEST: Final = (1, 33)
"""Version from which on a filter can be negated."""
_CONNECT_SECONDS: Final = 5.0
_GRPC_PORT: Final = 50051
_TROUBLES: Final = 3
"""Failures in a row after which the server is left alone."""
_REST_SECONDS: Final = 5.0
_CLOUD: Final = (".weaviate.cloud", ".weaviate.network")
_AWAY: Final = ("unavailable", "connection refused", "connection reset", "connection is closing")
_MISSING: Final = (
    "tenant not found",
    "tenant not active",
    "could not find class",
    "class not found in schema",
    "not present in schema",
)

T = TypeVar("T")
Work = Callable[["WeaviateAsyncClient"], Awaitable[T]]


class Absent(Exception):
    """What was asked for, a collection or a tenant, is not there."""


class Refused(StoreUnavailable):
    """Another try would end the same."""


class _Heard(logging.Handler):
    """Hears what the client logs, and lets nothing of it out: of objects that were refused it has the texts in it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "Retrying" in record.getMessage()


_heard: Final = _Heard()


def _listen() -> None:
    log = logging.getLogger("weaviate-client")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [_heard]


class Breaker:
    """Closed: calls go through. Open: they are refused with what was wrong. Half open: one may try."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._until = 0.0
        self._trying = False
        self._sentence = ""

    @property
    def state(self) -> str:
        if self._failures < _TROUBLES:
            return "closed"
        return "open" if self._trying or self._clock() < self._until else "half-open"

    def enter(self) -> None:
        """Raises StoreUnavailable where the server is left alone."""
        state = self.state
        if state == "open":
            raise StoreUnavailable(self._sentence)
        self._trying = state == "half-open"

    def worked(self) -> None:
        if self._failures >= _TROUBLES:
            logger.info("weaviate answers again")
        self._failures, self._trying = 0, False

    def failed(self, sentence: str) -> None:
        self._failures += 1
        self._trying = False
        self._sentence = sentence
        if self._failures >= _TROUBLES:
            if self._failures == _TROUBLES:
                logger.warning("weaviate is left alone for some seconds: %s", sentence)
            self._until = self._clock() + _REST_SECONDS

    def left(self) -> None:
        """The call was given up by its caller: it says nothing about the server."""
        self._trying = False


class Server:
    """One client for the whole process, made when it is first needed."""

    def __init__(self, settings: WeaviateSettings) -> None:
        self._settings = settings
        self._http = _address(settings.url, "url", 443, 80)
        self._grpc = _grpc_address(settings, self._http)
        self._client: WeaviateAsyncClient | None = None
        self._renew_at = math.inf
        self._retired: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        self.breaker = Breaker()
        self.complete: set[str] = set()
        """Collections that are known to have all that this version needs."""

    @property
    def address(self) -> str:
        return f"{'https' if self._http[2] else 'http'}://{self._http[0]}:{self._http[1]}"

    @property
    def grpc_address(self) -> str:
        return f"{self._grpc[0]}:{self._grpc[1]}"

    @property
    def retried(self) -> int:
        """How often the client, here or for another server, has tried a call again without saying so."""
        return _heard.count

    async def call(self, work: Work[T], seconds: float) -> T:
        """What `work` gives within `seconds`. Raises Absent, StoreUnavailable or ConfigError, in a sentence."""
        self.breaker.enter()
        try:
            async with asyncio.timeout(seconds):
                found = await self._done(work, await self._connected())
        except TimeoutError as error:
            sentence = tell("weaviate_slow", url=self.address, seconds=f"{seconds:g}")
            self.breaker.failed(sentence)
            raise StoreUnavailable(sentence) from error
        except asyncio.CancelledError:
            self.breaker.left()
            raise
        except Exception as error:
            raise self._meaning(error) from error
        self.breaker.worked()
        return found

    async def _done(self, work: Work[T], client: WeaviateAsyncClient) -> T:
        """A server that has just started knows its collections and tenants only after a while, and answers before."""
        try:
            return await work(client)
        except Exception as error:
            if not is_missing(str(error)):
                raise
            if not await client.is_ready():
                raise ConnectionError("it has not come up yet") from error
        return await work(client)

    async def version(self) -> str:
        """Of the server. Raises as `call` does."""

        async def ask(client: WeaviateAsyncClient) -> str:
            meta = await client.get_meta()
            return str(meta["version"])

        return await self.call(ask, self._settings.search_seconds)

    async def close(self) -> None:
        async with self._lock:
            client, self._client = self._client, None
            if client is not None:
                await _closed(client)
            for task in (retired := list(self._retired)):
                task.cancel()
            if retired:
                await asyncio.wait(retired)

    async def _connected(self) -> WeaviateAsyncClient:
        if self._client is not None and time.monotonic() < self._renew_at:
            return self._client
        async with self._lock:
            if self._client is None or time.monotonic() >= self._renew_at:
                client, renew_at = self._made(*await self._token())
                try:
                    async with asyncio.timeout(_CONNECT_SECONDS):
                        await client.connect()
                        await self._check_version(client)
                except BaseException:
                    await _closed(client)
                    raise
                if self._client is not None:
                    self._retire(self._client)
                self._client, self._renew_at = client, renew_at
            return self._client

    async def _token(self) -> tuple[str | None, float]:
        """What the server wants to be shown, and when another one is needed."""
        settings = self._settings
        if settings.api_key is not None:
            return settings.api_key.get_secret_value(), math.inf
        if settings.oidc_client_secret is not None:
            token = await log_in(settings, self.address)
            return token.value, token.renew_at
        return (settings.oidc_token.get_secret_value() if settings.oidc_token else None), math.inf

    def _retire(self, client: WeaviateAsyncClient) -> None:
        """Close it when the calls that use it have ended."""

        async def later() -> None:
            try:
                await asyncio.sleep(self._settings.write_seconds)
            finally:
                await _closed(client)

        task = asyncio.create_task(later(), name="weaviate")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def _check_version(self, client: WeaviateAsyncClient) -> None:
        version = str((await client.get_meta())["version"])
        if _numbers(version) < OLDEST:
            needed = ".".join(map(str, OLDEST))
            raise ConfigError(tell("weaviate_old", url=self.address, version=version, needed=needed))

    def _made(self, token: str | None, renew_at: float) -> tuple[WeaviateAsyncClient, float]:
        try:
            from weaviate import use_async_with_custom
            from weaviate.auth import Auth
            from weaviate.config import AdditionalConfig, Timeout
        except ModuleNotFoundError as error:
            raise MissingExtra("The store «weaviate»", "weaviate") from error
        _listen()
        settings = self._settings
        http, grpc = self._http, self._grpc
        client = use_async_with_custom(
            http_host=http[0], http_port=http[1], http_secure=http[2],
            grpc_host=grpc[0], grpc_port=grpc[1], grpc_secure=grpc[2],
            auth_credentials=Auth.api_key(token) if token else None,  # any token: it is sent as a bearer's
            additional_config=AdditionalConfig(
                timeout=Timeout(init=_CONNECT_SECONDS, query=settings.write_seconds, insert=settings.write_seconds)
            ),
            skip_init_checks=True,  # they would also ask the package index for a newer client
        )  # fmt: skip
        return client, renew_at

    def _meaning(self, error: Exception) -> Exception:
        """The error in our words; also tells the breaker."""
        if isinstance(error, KvasirError):
            self.breaker.left()
            return error
        text = str(error)
        if is_missing(text):
            self.breaker.worked()
            return Absent(text)
        if refused := _is_refusal(error, text):
            sentence = tell("weaviate_refused", url=self.address)
        elif _is_connection(error, text):
            which = self.grpc_address if "grpc" in type(error).__name__.casefold() or "grpc" in text else self.address
            sentence = tell("weaviate_unreachable", url=which)
        else:
            self.breaker.worked()  # it has answered
            return StoreUnavailable(tell("weaviate_failed", url=self.address, reason=_short(text)))
        self.breaker.failed(sentence)
        return (Refused if refused else StoreUnavailable)(sentence)


async def _closed(client: WeaviateAsyncClient) -> None:
    """Close it; one that was never connected says that it cannot be."""
    with suppress(AssertionError):
        await client.close()


def _address(url: str, field: str, secure_port: int, port: int) -> tuple[str, int, bool]:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        found = parts.port
    except ValueError:
        found, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https", "grpc", "grpcs") or not parts.hostname:
        raise ConfigError(tell("weaviate_bad_url", field=f"weaviate.{field}"))
    secure = parts.scheme in ("https", "grpcs")
    return parts.hostname, found or (secure_port if secure else port), secure


def _grpc_address(settings: WeaviateSettings, http: tuple[str, int, bool]) -> tuple[str, int, bool]:
    if settings.grpc_url:
        found = _address(settings.grpc_url, "grpc_url", 443, _GRPC_PORT)
        if found[:2] == http[:2]:
            raise ConfigError(tell("weaviate_bad_url", field="weaviate.grpc_url"))
        return found
    if http[0].endswith(_CLOUD):
        return f"grpc-{http[0]}", 443, True
    return http[0], _GRPC_PORT, http[2]


def _numbers(version: str) -> tuple[int, int]:
    parts = [*version.split("-")[0].split("."), "0", "0"][:2]
    return (int(parts[0]), int(parts[1])) if all(map(str.isdigit, parts)) else (0, 0)


def is_missing(text: str) -> bool:
    """Whether the server says so that a collection or a tenant is not there."""
    return any(words in text.casefold() for words in _MISSING)


def _is_refusal(error: Exception, text: str) -> bool:
    lowered = text.casefold()
    status = getattr(error, "status_code", None)
    words = ("unauthenticated", "unauthorized", "permission_denied", "forbidden", "invalid api key")
    named = type(error).__name__ in ("AuthenticationFailedError", "InsufficientPermissionsError", "MissingScopeError")
    return named or status in (401, 403) or any(word in lowered for word in words)


def _is_connection(error: Exception, text: str) -> bool:
    import httpx
    from weaviate import exceptions

    kinds = (
        exceptions.WeaviateConnectionError, exceptions.WeaviateStartUpError, exceptions.WeaviateGRPCUnavailableError,
        exceptions.WeaviateTimeoutError, exceptions.WeaviateRetryError, exceptions.WeaviateClosedClientError,
        httpx.HTTPError, OSError,
    )  # fmt: skip
    if isinstance(error, kinds):
        return True
    status = getattr(error, "status_code", 0)
    lowered = text.casefold()
    return status in (502, 503, 504) or any(words in lowered for words in _AWAY)


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
