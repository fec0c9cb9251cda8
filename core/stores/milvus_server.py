"""The connection to Milvus: a server, or Milvus Lite inside this process; every call has a limit of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from core.errors import ConfigError, KvasirError, MissingExtra, StoreUnavailable
from core.settings import MilvusSettings
from core.texts import tell

OLDEST: Final = (2, 4)
_CONNECT_SECONDS: Final = 10.0
_ABSENT: Final = ("does not exist", "can't find collection", "collection not found", "not exist")
_REFUSED: Final = ("unauthenticated", "auth check failure", "permission deny", "permission denied", "privilege")
_AWAY: Final = ("fail connecting", "unavailable", "connection refused", "deadline exceeded", "should create connection")

_lite: Counter[str] = Counter()
"""Stores of this process that use a file: Milvus Lite serves each file once in a process, for all of them."""

T = TypeVar("T")


class Absent(Exception):
    """The collection that was asked for is not there."""


class Server:
    def __init__(self, settings: MilvusSettings, data_dir: Path) -> None:
        """Raises ConfigError or MissingExtra."""
        self.address = settings.uri or str(data_dir / "milvus.db")
        self.is_lite = "://" not in self.address
        if self.is_lite and not self.address.endswith(".db"):
            raise ConfigError(tell("milvus_lite_path", uri=self.address))
        if not self.is_lite and not self.address.startswith(("http://", "https://")):
            raise ConfigError(tell("milvus_lite_path", uri=self.address))
        needed = ("pymilvus", "milvus_lite") if self.is_lite else ("pymilvus",)
        if not all(map(importlib.util.find_spec, needed)):
            raise MissingExtra("The store «milvus»", "milvus")
        self._settings = settings
        self._client: Any = None
        self._walker: Any = None
        self._lock = asyncio.Lock()

    async def call(self, work: Callable[[Any], Awaitable[T]], seconds: float) -> T:
        """What `work` makes of the client, within `seconds`. Raises Absent, StoreUnavailable or ConfigError."""
        try:
            async with asyncio.timeout(seconds):
                return await work(await self._connected())
        except TimeoutError as error:
            raise StoreUnavailable(tell("milvus_slow", uri=self.address, seconds=f"{seconds:g}")) from error
        except Exception as error:
            raise self._meaning(error) from error

    async def walk(self, walk: Callable[[Any], T], seconds: float) -> T:
        """As `call`, in a thread and with the client that can go through a whole collection."""

        async def work(_client: Any) -> T:
            return await asyncio.to_thread(lambda: walk(self._walking()))

        return await self.call(work, seconds)

    @property
    def is_there(self) -> bool:
        """False: a path where nothing is yet."""
        return not self.is_lite or Path(self.address).expanduser().exists()

    async def version(self) -> str:
        async def ask(client: Any) -> str:
            return str(await client.get_server_version())

        return await self.call(ask, self._settings.search_seconds)

    async def close(self) -> None:
        async with self._lock:
            client, self._client, walker, self._walker = self._client, None, self._walker, None
            if walker is not None:
                await asyncio.to_thread(walker.close)
            if client is not None:
                await client.close()
                if self.is_lite:
                    await asyncio.to_thread(_release, self.address)

    async def _connected(self) -> Any:
        if self._client is None:
            async with self._lock:
                if self._client is None:
                    self._client = await self._made()
        return self._client

    async def _made(self) -> Any:
        client = await asyncio.to_thread(self._opened)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await client.get_server_version()
        except BaseException:
            await client.close()
            if self.is_lite:
                await asyncio.to_thread(_release, self.address)
            raise
        return client

    def _opened(self) -> Any:
        from pymilvus import AsyncMilvusClient

        # What they log has texts and filters in it, and Kvasir tells by itself what went wrong.
        for name in ("pymilvus", "milvus_lite", "faiss", *(["grpc._server"] if self.is_lite else [])):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if not self.is_lite:
            return AsyncMilvusClient(**self._given())
        path = Path(self.address).expanduser().absolute()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _lite[str(path)] += 1
        try:
            return AsyncMilvusClient(**self._given())
        except BaseException:
            _release(self.address)
            raise

    def _walking(self) -> Any:
        """The client without `async`, which alone has iterators."""
        from pymilvus import MilvusClient

        if self._walker is None:
            self._walker = MilvusClient(**self._given())
        return self._walker

    def _given(self) -> dict[str, Any]:
        token = self._settings.token.get_secret_value() if self._settings.token else ""
        uri = str(Path(self.address).expanduser().absolute()) if self.is_lite else self.address
        given = {"uri": uri, "token": token, "db_name": self._settings.database, "timeout": _CONNECT_SECONDS}
        if self.is_lite:  # it takes a sign of life every ten seconds for an attack
            given["grpc_options"] = {"grpc.keepalive_time_ms": 1 << 30}
        return {**given, "dedicated": True}

    def _meaning(self, error: Exception) -> Exception:
        """The error in our words."""
        if isinstance(error, KvasirError | Absent):
            return error
        text = str(error)
        lowered = text.casefold()
        if "open local milvus failed" in lowered:
            return StoreUnavailable(tell("milvus_lite_in_use", path=self.address))
        if any(words in lowered for words in _ABSENT):
            return Absent(text)
        if any(words in lowered for words in _REFUSED):
            return StoreUnavailable(tell("milvus_refused", uri=self.address))
        if any(words in lowered for words in _AWAY) or isinstance(error, OSError):
            return StoreUnavailable(tell("milvus_unreachable", uri=self.address))
        reason = " ".join(text.split())[:300] or type(error).__name__
        return StoreUnavailable(tell("milvus_failed", uri=self.address, reason=reason))


def _release(address: str) -> None:
    """The last one that goes closes the file, so that other processes can have it."""
    from milvus_lite.server_manager import server_manager_instance

    path = str(Path(address).expanduser().absolute())
    _lite[path] -= 1
    if _lite[path] <= 0:
        del _lite[path]
        server_manager_instance.release_server(path)
