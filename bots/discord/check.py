"""`kvasir doctor discord`: what is missing at Discord, in one sentence each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from core.db.tables import now
from core.ports import Finding
from core.texts import tell

if TYPE_CHECKING:
    from core.settings import DiscordSettings, Settings

_API: Final = "https://discord.com/api/v10"
_SECONDS: Final = 15.0
_MOST_SKEW: Final = 60.0
_FEW: Final = 50
"""Connections a day of which so few are left that something is wrong."""
_CONTENT: Final = (1 << 18) | (1 << 19)
"""Flags of an application that may read message content, approved or not yet in need of it."""
_NEEDED: Final = {
    "View Channels": 1 << 10,
    "Send Messages": 1 << 11,
    "Read Message History": 1 << 16,
    "Send Messages in Threads": 1 << 38,
}
_WANTED: Final = {
    **_NEEDED,
    "Add Reactions": 1 << 6,
    "Embed Links": 1 << 14,
    "Attach Files": 1 << 15,
    "Create Public Threads": 1 << 35,
}
_ADMINISTRATOR: Final = 1 << 3


class _Refused(Exception):
    """Discord answered with this status."""


async def check(settings: Settings) -> AsyncIterator[Finding]:
    """The findings one by one; nothing is posted or changed, and a running bot is not disturbed."""
    what, token = tell("discord_check_token"), settings.discord.token
    if token is None or not token.get_secret_value().strip():
        yield Finding(what, False, tell("discord_check_off"), "token")
        return
    headers = {"Authorization": f"Bot {token.get_secret_value().strip()}"}
    async with aiohttp.ClientSession(headers=headers, cookie_jar=aiohttp.DummyCookieJar()) as session:
        asked = _Asked(session, settings.discord)
        try:
            async with asyncio.timeout(_SECONDS):
                async for finding in _findings(asked, settings.discord):
                    yield finding
        except _Refused as error:
            yield Finding(what, False, tell("discord_token_refused") if "401" in str(error) else str(error), "token")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            yield Finding(what, False, tell("discord_check_unreachable", reason=type(error).__name__), "*")


async def _findings(asked: _Asked, discord: DiscordSettings) -> AsyncIterator[Finding]:
    me = await asked.get("/users/@me")
    yield Finding(tell("discord_check_token"), True, tell("discord_check_bot", name=me.get("username", "")))
    yield _clock(asked.skew)
    application = await asked.get("/oauth2/applications/@me")
    yield _intent(discord, int(application.get("flags") or 0))
    yield await _servers(asked, application)
    yield await _commands(asked, application)
    yield _sessions(await asked.get("/gateway/bot"))


def _clock(skew: float) -> Finding:
    off = abs(skew) > _MOST_SKEW
    return Finding(
        tell("discord_check_clock"),
        not off,
        tell("discord_check_skew", seconds=round(skew)) if off else tell("doctor_works"),
    )


def _intent(discord: DiscordSettings, flags: int) -> Finding:
    what = tell("discord_check_intent")
    if not discord.message_content:
        return Finding(what, True, tell("discord_check_no_intent"))
    if flags & _CONTENT:
        return Finding(what, True, tell("doctor_works"))
    return Finding(what, False, tell("discord_intent_off"), "message_content")


async def _servers(asked: _Asked, application: dict[str, Any]) -> Finding:
    """Whether it is on a server, and may do there what it must; a channel may still take that away."""
    what, guilds = tell("discord_check_servers"), await asked.get("/users/@me/guilds")
    if not guilds:
        wanted = (
            f"client_id={application.get('id')}&scope=bot%20applications.commands&permissions={sum(_WANTED.values())}"
        )
        return Finding(
            what, False, tell("discord_check_no_server", url=f"https://discord.com/oauth2/authorize?{wanted}")
        )
    for guild in guilds:
        may = int(guild.get("permissions") or 0)
        missing = [] if may & _ADMINISTRATOR else [name for name, bit in _NEEDED.items() if not may & bit]
        if missing:
            says = tell("discord_check_missing", server=guild.get("name", ""), missing=", ".join(missing))
            return Finding(what, False, says)
    return Finding(what, True, tell("discord_check_some_servers", count=len(guilds)))


async def _commands(asked: _Asked, application: dict[str, Any]) -> Finding:
    what = tell("discord_check_commands")
    if application.get("interactions_endpoint_url"):
        return Finding(what, False, tell("discord_check_endpoint"))
    count = len(await asked.get(f"/applications/{application['id']}/commands"))
    says = tell("discord_check_some_commands", count=count) if count else tell("discord_check_no_commands")
    return Finding(what, True, says)


def _sessions(gateway: dict[str, Any]) -> Finding:
    limit = gateway["session_start_limit"]
    numbers = {"left": limit["remaining"], "total": limit["total"]}
    if limit["remaining"] < _FEW:
        minutes = round(limit["reset_after"] / 60_000)
        return Finding(
            tell("discord_check_sessions"), False, tell("discord_check_few_sessions", minutes=minutes, **numbers)
        )
    return Finding(tell("discord_check_sessions"), True, tell("discord_check_enough_sessions", **numbers))


class _Asked:
    """Discord's REST API, which is only read."""

    def __init__(self, session: aiohttp.ClientSession, discord: DiscordSettings) -> None:
        self._session = session
        self._base = discord.api_base.rstrip("/") or _API
        self._proxy = discord.proxy or None
        self.skew = 0.0
        """Seconds by which our clock is ahead of Discord's."""

    async def get(self, path: str) -> Any:
        async with self._session.get(self._base + path, proxy=self._proxy, allow_redirects=False) as response:
            if date := response.headers.get("Date"):
                self.skew = (now() - parsedate_to_datetime(date)).total_seconds()
            if response.status != 200:
                raise _Refused(f"HTTP {response.status}")
            return await response.json(content_type=None)
