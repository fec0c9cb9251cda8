"""The connection to the Bot API: where it is, by which proxy, and what its refusals mean to us."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import PRODUCTION, TelegramAPIServer
from aiogram.exceptions import (
    AiogramError,
    TelegramAPIError,
    TelegramBadRequest,
    TelegramConflictError,
    TelegramEntityTooLarge,
    TelegramMigrateToChat,
    TelegramNetworkError,
    TelegramServerError,
)
from aiogram.methods import GetUpdates, TelegramMethod
from aiogram.utils.token import TokenValidationError
from aiohttp_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError

from bots.errors import DeliveryError, Gone, Limited, Refused, Unreachable
from core.errors import ConfigError, TooLarge
from core.texts import tell

if TYPE_CHECKING:
    from aiogram.methods import Response

    from core.settings import TelegramSettings

logger = logging.getLogger(__name__)

_CALL_SECONDS: Final = 15
_FILE_SECONDS: Final = 120
_UNSAID_WAIT: Final = 5.0
"""Seconds to wait where the Bot API wants us to, and does not say for how long."""
_RETRY: Final = re.compile(r"retry after (\d{1,6})", re.IGNORECASE)
_GONE: Final = re.compile(
    r"message to (?:edit|delete|react) not found|message can't be (?:edited|deleted)|MESSAGE_ID_INVALID"
    r"|query is too old|message thread not found|message to be replied not found",
    re.IGNORECASE,
)
_UNCHANGED: Final = "message is not modified"

T = TypeVar("T")


class NotModified(DeliveryError):
    """The message says that already."""


class Crowded(Unreachable):
    """Another program asks for the same bot's updates."""


class RawUpdates(GetUpdates):
    """Updates as they came: one that the library cannot read must not keep the others from us."""

    __returning__ = list[dict[str, Any]]


class _Session(AiohttpSession):
    """The library's session, which also understands refusals that a proxy in front of the Bot API wrote."""

    async def close(self) -> None:
        """Without the library's pause for TLS: aiohttp itself waits for that."""
        if self._session is not None:
            await self._session.close()

    def check_response(self, bot: Bot, method: TelegramMethod[Any], status_code: int, content: str) -> Response[Any]:
        try:
            told = json.loads(content)
        except ValueError:
            told = None
        if not isinstance(told, dict) or (status_code == HTTPStatus.TOO_MANY_REQUESTS and not told.get("ok")):
            raise _Answered(status_code, told if isinstance(told, dict) else {})
        return super().check_response(bot, method, status_code, content)


class _Answered(Exception):
    """An answer that the library would misread."""

    def __init__(self, status: int, told: dict[str, Any]) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.told = told

    @property
    def seconds(self) -> float:
        parameters = self.told.get("parameters")
        given = parameters.get("retry_after") if isinstance(parameters, dict) else None
        if isinstance(given, int | float):
            return float(given)
        found = _RETRY.search(str(self.told.get("description", "")))
        return float(found[1]) if found else _UNSAID_WAIT


class Client:
    """The Bot API as our bot may use it. The connection is closed when nobody uses it any more."""

    def __init__(self, settings: TelegramSettings) -> None:
        """Raises ConfigError where the token or the proxy cannot be one."""
        token = settings.token.get_secret_value().strip() if settings.token else ""
        base = settings.api_base
        server = TelegramAPIServer.from_base(base, is_local=settings.local_files) if base else PRODUCTION
        try:
            self._session = _Session(api=server, proxy=settings.proxy or None, timeout=_CALL_SECONDS)
            self.bot = Bot(token, session=self._session)
        except TokenValidationError as error:
            raise ConfigError(tell("telegram_bad_token")) from error
        except ValueError as error:
            raise ConfigError(tell("telegram_bad_proxy")) from error
        self.rich = settings.rich_messages
        """Rich messages are wanted, and were not refused."""
        self.reached = False
        """Whether the Bot API answered the last call."""
        self._users = 0
        self.seconds: float = _CALL_SECONDS
        """Time one call may take."""

    def give_up_rich(self, error: Refused) -> None:
        """Go on with classic messages: this server, or this chat, takes no rich ones."""
        if self.rich:
            logger.warning("rich messages are refused (%s); going on without them", error)
        self.rich = False

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Keeps the connection for the calls inside."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                await self.bot.session.close()

    async def call(self, method: TelegramMethod[T], *, seconds: float | None = None) -> T:
        """What the Bot API gives for it. Raises Limited, Unreachable, Gone, Refused, or NotModified."""
        async with self.connected():
            try:
                return await self._within(method, seconds or self.seconds)
            except TelegramMigrateToChat as error:
                moved = method.model_copy(update={"chat_id": error.migrate_to_chat_id})
            except _FAILURES as error:
                raise self._translated(error) from self._harmless(error)
            try:
                return await self._within(moved, seconds or self.seconds)
            except _FAILURES as error:
                raise self._translated(error) from self._harmless(error)

    async def clock(self) -> float | None:
        """The server's time in seconds since 1970; None where it does not say. Raises Unreachable."""
        url = self.bot.session.api.api_url(self.bot.token, "getMe")
        async with self.connected():
            try:
                session = await self._session.create_session()
                async with asyncio.timeout(self.seconds), session.get(url) as response:
                    return parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
            except ValueError:
                return None
            except (aiohttp.ClientError, *_FAILURES) as error:  # its text may hold the address with the token
                raise Unreachable(type(error).__name__) from None

    def _translated(self, error: Exception) -> DeliveryError:
        """What a failure means to us, in words without the token."""
        if isinstance(error, _Answered):
            busy = error.status == HTTPStatus.TOO_MANY_REQUESTS
            return Limited(error.seconds) if busy else Unreachable(str(error))
        if not isinstance(error, TelegramAPIError):
            return Unreachable(type(error).__name__)
        says = error.message.replace(self.bot.token, "…")
        return meaning(error)(says)

    def _harmless(self, error: Exception) -> Exception | None:
        """The failure, where its words do not hold the token."""
        return None if self.bot.token in str(error) else error

    async def _within(self, method: TelegramMethod[T], seconds: float) -> T:
        try:
            async with asyncio.timeout(seconds):
                answer = await self.bot(method, request_timeout=int(seconds) + 1)
        except _FAILURES as error:
            self.reached = not isinstance(self._translated(error), Unreachable)
            raise
        self.reached = True
        return answer

    async def read(self, path: str, most: int) -> bytes:
        """A file that `getFile` named. Raises TooLarge beyond `most` bytes, or Unreachable."""
        async with self.connected():
            if self.bot.session.api.is_local:
                return await asyncio.to_thread(_read_file, path, most)
            url = self.bot.session.api.file_url(self.bot.token, path)
            got = bytearray()
            try:
                async for piece in self.bot.session.stream_content(url, timeout=_FILE_SECONDS):
                    got += piece
                    if len(got) > most:
                        raise TooLarge(str(len(got)))
            except (aiohttp.ClientError, *_FAILURES) as error:  # its text may hold the address with the token
                raise Unreachable(type(error).__name__) from None
            return bytes(got)


_FAILURES: Final = (_Answered, AiogramError, OSError, ProxyError, ProxyConnectionError, ProxyTimeoutError)


def _read_file(path: str, most: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            got = file.read(most + 1)
    except OSError as error:
        raise Unreachable(type(error).__name__) from error
    if len(got) > most:
        raise TooLarge(str(len(got)))
    return got


def meaning(error: TelegramAPIError) -> type[NotModified | Gone | Refused | Crowded | Unreachable]:
    """What a refusal of the Bot API is to us."""
    if isinstance(error, TelegramEntityTooLarge):
        return Refused
    if isinstance(error, TelegramConflictError):
        return Crowded
    if isinstance(error, TelegramNetworkError | TelegramServerError):
        return Unreachable
    if isinstance(error, TelegramBadRequest):
        if _UNCHANGED in error.message:
            return NotModified
        if _GONE.search(error.message):
            return Gone
    return Refused
