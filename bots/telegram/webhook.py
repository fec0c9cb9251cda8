"""Updates by webhook: Telegram calls us, and takes an update for delivered only after it was dealt with."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
from typing import TYPE_CHECKING, Any, Final

from aiogram.methods import SetWebhook
from aiohttp import web

from bots.memory import Memory
from bots.telegram.client import Client
from bots.telegram.events import UPDATES
from bots.telegram.polling import Take, persistently
from core.errors import Unavailable

if TYPE_CHECKING:
    from core.settings import Settings

logger = logging.getLogger(__name__)

PATH: Final = "/hooks/telegram"
SECRET_HEADER: Final = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105  a header's name
_KEPT_SECRET: Final = "webhook_secret"  # noqa: S105  the name it is kept under
_LARGEST: Final = 1 << 20
_AT_ONCE: Final = 20
_TAKE_SECONDS: Final = 20.0


async def listen(client: Client, settings: Settings, memory: Memory, take: Take) -> None:
    """Have Telegram call us until cancelled. What comes while nobody listens stays with Telegram."""
    secret = await secret_of(settings, memory)
    application = web.Application(client_max_size=_LARGEST)
    application.router.add_post(PATH, Hook(secret, take).called)
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.web.host, settings.telegram.webhook_port).start()
        url = url_of(settings)
        hook = SetWebhook(url=url, secret_token=secret, allowed_updates=list(UPDATES), max_connections=_AT_ONCE)
        await persistently(client, hook)
        logger.info("Telegram calls %s", url)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def url_of(settings: Settings) -> str:
    """What Telegram is to call."""
    return settings.web.public_url.rstrip("/") + PATH


async def secret_of(settings: Settings, memory: Memory) -> str:
    """That of the settings, or one that is made once and kept; there is always one."""
    if settings.telegram.webhook_secret is not None and (given := settings.telegram.webhook_secret.get_secret_value()):
        return given
    kept = await memory.get_secret(_KEPT_SECRET)
    if kept is None:
        kept = await memory.settle_secret(_KEPT_SECRET, secrets.token_urlsafe(32))
    return kept


class Hook:
    def __init__(self, secret: str, take: Take) -> None:
        self._secret = secret.encode()
        self._take = take

    async def called(self, request: web.Request) -> web.Response:
        """401 without our secret, 503 where the update could not be kept: Telegram brings it again then."""
        if not hmac.compare_digest(request.headers.get(SECRET_HEADER, "").encode(), self._secret):
            return web.Response(status=401)
        try:
            update: Any = json.loads(await request.read())
        except ValueError:
            return web.Response(status=400)
        if not isinstance(update, dict) or not isinstance(update.get("update_id"), int):
            return web.Response(status=400)
        try:
            async with asyncio.timeout(_TAKE_SECONDS):
                await self._take(update)
        except (Unavailable, TimeoutError) as error:
            logger.warning("an update of Telegram cannot be kept (%s); it comes again", error)
            return web.Response(status=503)
        return web.Response()
