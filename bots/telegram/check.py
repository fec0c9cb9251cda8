"""`kvasir doctor telegram`: what is missing at Telegram, in one sentence each."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from core.errors import ConfigError
from core.ports import Finding
from core.texts import tell

if TYPE_CHECKING:
    from aiogram.types import User

    from bots.telegram.client import Client
    from core.settings import Settings

_MOST_SKEW: Final = 60.0
"""Seconds our clock may differ from Telegram's."""


async def check(settings: Settings) -> AsyncIterator[Finding]:
    """The findings one by one; nothing is posted or changed, and a running bot is not disturbed."""
    what, token = tell("telegram_check_token"), settings.telegram.token
    if token is None or not token.get_secret_value().strip():
        yield Finding(what, False, tell("telegram_check_off"), "token")
        return
    from bots.telegram import aiogram_later  # noqa: F401  # first
    from bots.telegram.client import Client

    try:
        client = Client(settings.telegram)
    except ConfigError as error:
        yield Finding(what, False, str(error), "*")
        return
    async with client.connected():
        async for finding in _connected(client, settings):
            yield finding


async def _connected(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    from aiogram.methods import GetMe

    from bots.errors import DeliveryError, Refused

    what = tell("telegram_check_token")
    try:
        me = await client.call(GetMe())
    except Refused as error:
        yield Finding(what, False, tell("telegram_check_refused", error=str(error)), "token")
        return
    except DeliveryError as error:
        yield Finding(tell("telegram_check_reach"), False, tell("telegram_check_unreachable", error=str(error)), "*")
        return
    yield Finding(what, True, tell("telegram_check_bot", name=me.username or ""))
    for finding in _rights(me):
        yield finding
    if (theirs := await client.clock()) is not None:
        skew = abs(time.time() - theirs)
        says = tell("telegram_check_clock", seconds=int(skew)) if skew > _MOST_SKEW else tell("doctor_works")
        yield Finding(tell("telegram_check_time"), skew <= _MOST_SKEW, says)
    yield await _delivery(client, settings)
    everybody = not settings.telegram.allowed
    says = tell("telegram_check_everybody") if everybody else tell("telegram_check_some")
    yield Finding(tell("telegram_check_allowed"), True, says)


def _rights(me: User) -> list[Finding]:
    """What BotFather set for the bot."""
    groups = bool(me.can_join_groups)
    reads = tell("telegram_check_reads_all") if me.can_read_all_group_messages else tell("telegram_check_privacy")
    guest = tell("telegram_check_guest") if me.supports_guest_queries else tell("telegram_check_no_guest")
    return [
        Finding(tell("telegram_check_groups"), groups, reads if groups else tell("telegram_check_no_groups")),
        Finding(tell("telegram_check_guests"), True, guest),
    ]


async def _delivery(client: Client, settings: Settings) -> Finding:
    """By which way updates come, and whether that way is free."""
    from aiogram.methods import GetWebhookInfo

    from bots.errors import DeliveryError
    from bots.telegram.webhook import url_of

    what = tell("telegram_check_updates")
    try:
        hook = await client.call(GetWebhookInfo())
    except DeliveryError as error:
        return Finding(what, False, tell("telegram_check_unreachable", error=str(error)))
    if not settings.telegram.webhook:
        says = tell("telegram_check_other_hook", url=hook.url) if hook.url else tell("telegram_check_polling")
        return Finding(what, not hook.url, says)
    if not settings.web.public_url.startswith("https://"):
        return Finding(what, False, tell("telegram_no_public_url"))
    if hook.url != url_of(settings):
        return Finding(what, False, tell("telegram_check_hook_unset", url=url_of(settings)))
    if hook.last_error_message:
        trouble = tell("telegram_check_hook_error", error=hook.last_error_message, count=hook.pending_update_count)
        return Finding(what, False, trouble)
    return Finding(what, True, tell("telegram_check_hook", url=hook.url))
