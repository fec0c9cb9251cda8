"""Socket Mode: the library's connection, with an end to its patience and without its log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from slack_sdk.errors import SlackApiError
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.web.async_client import AsyncWebClient

from bots.errors import Refused, Unreachable
from bots.slack.client import translated

logger = logging.getLogger(__name__)
_silent: Final = logging.getLogger(f"{__name__}.library")
_silent.setLevel(logging.CRITICAL + 1)  # it writes whole messages, and a traceback every few seconds without a network

_PING_SECONDS: Final = 5
_LOOK_SECONDS: Final = 1.0
_PATIENCE: Final = 60.0
"""Seconds without a connection, after which all is begun anew."""
_CLOSE_SECONDS: Final = 1.5

Handle = Callable[[AsyncBaseSocketModeClient, SocketModeRequest], Awaitable[None]]


class _Client(SocketModeClient):
    """Knows when Slack will not have us at all; the library would ask again for ever."""

    refused: Refused | None = None

    async def issue_new_wss_url(self) -> str:
        try:
            url: str = await super().issue_new_wss_url()
        except SlackApiError as error:
            said = translated(error)
            if isinstance(said, Refused):
                self.refused = said
                self.closed = True
            raise
        return url


async def listen(
    app_token: str, web: AsyncWebClient, handle: Handle, proxy: str | None, say: Callable[[bool], None]
) -> None:
    """Be connected until cancelled, and say whenever that changes.

    Raises Refused for a bad token, Unreachable without a connection for long.
    """
    async with _connected(app_token, web, handle, proxy) as client:
        say(True)
        loop = asyncio.get_running_loop()
        lost: float | None = None
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if client.refused is not None:
                raise client.refused
            if await client.is_connected():
                if lost is not None:
                    say(True)
                    logger.info("connected to Slack again")
                lost = None
            elif lost is None:
                lost = loop.time()
                say(False)
                logger.warning("the connection to Slack is gone; it is tried again")
            elif loop.time() - lost > _PATIENCE:
                raise Unreachable("no connection to Slack")


@asynccontextmanager
async def _connected(app_token: str, web: AsyncWebClient, handle: Handle, proxy: str | None) -> AsyncIterator[_Client]:
    client = _Client(app_token, _silent, web, proxy=proxy, ping_interval=_PING_SECONDS)
    client.socket_mode_request_listeners.append(handle)
    try:
        try:
            async with asyncio.timeout(_PATIENCE):
                client.wss_uri = await client.issue_new_wss_url()
                await client.connect()  # type: ignore[no-untyped-call]  # the library has no types here
        except SlackApiError as error:
            raise translated(error) from error
        except OSError as error:  # TimeoutError too
            raise Unreachable(f"Socket Mode: {type(error).__name__}") from error
        logger.info("connected to Slack")
        yield client
    finally:
        await _close(client)


async def _close(client: _Client) -> None:
    """Within two seconds, and leaving no task behind."""
    client.closed = True
    client.auto_reconnect_enabled = False
    tasks = [client.message_processor, client.current_session_monitor, client.message_receiver]
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            if client.current_session is not None:
                await client.current_session.close()
    except TimeoutError:
        logger.debug("Slack did not say good-bye")
    await client.aiohttp_client_session.close()
