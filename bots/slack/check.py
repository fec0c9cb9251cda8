"""`kvasir doctor slack`: what is missing at Slack, in one sentence each."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from bots.slack.entry import is_on
from core.ports import Finding
from core.texts import tell

if TYPE_CHECKING:
    from core.settings import Settings, SlackSettings

_SECONDS: Final = 15
_MOST_SKEW: Final = 120.0
"""Seconds our clock may differ from Slack's; at 300, signed requests are refused."""


async def check(settings: Settings) -> AsyncIterator[Finding]:
    """The findings one by one; nothing is posted or changed."""
    slack = settings.slack
    if not is_on(slack):
        yield Finding(tell("slack_check_settings"), False, tell("slack_check_off"), "*")
        return
    yield Finding(tell("slack_check_settings"), True, tell("doctor_works"))
    if slack.bot_token is not None:
        async for finding in _bot(slack, slack.bot_token.get_secret_value().strip()):
            yield finding
    if slack.app_token is not None:
        yield await _app(slack, slack.app_token.get_secret_value().strip())
    else:
        public = settings.web.public_url.startswith("https://")
        says = tell("slack_check_http") if public else tell("slack_check_no_url")
        yield Finding(tell("slack_check_events"), public, says)
    if slack.client_id:
        complete = bool(slack.client_secret and slack.signing_secret and settings.web.public_url)
        says = tell("doctor_works") if complete else tell("slack_check_oauth")
        yield Finding(tell("slack_check_install"), complete, says)


def manifest() -> str:
    """What Slack makes an app of, as JSON: the entry point of `kvasir.manifests`."""
    return files("bots.slack").joinpath("manifest.json").read_text("utf-8")


def scopes_wanted() -> frozenset[str]:
    """The rights that the manifest asks for."""
    return frozenset(json.loads(manifest())["oauth_config"]["scopes"]["bot"])


async def _bot(slack: SlackSettings, token: str) -> AsyncIterator[Finding]:
    what = tell("slack_check_bot")
    if not token.startswith("xoxb-"):
        yield Finding(what, False, tell("slack_check_bot_kind"), "bot_token")
        return
    said = await _ask(slack, "auth.test", token)
    if said.error:
        yield Finding(what, False, tell("slack_check_refused", error=said.error), "bot_token")
        return
    yield Finding(what, True, tell("slack_check_team", team=said.team))
    missing = sorted(scopes_wanted() - said.scopes)
    says = tell("slack_check_scopes", scopes=", ".join(missing)) if missing else tell("doctor_works")
    if said.scopes:
        yield Finding(tell("slack_check_rights"), not missing, says)
    if said.skew is not None:
        good = abs(said.skew) < _MOST_SKEW
        says = tell("doctor_works") if good else tell("slack_check_clock", seconds=int(abs(said.skew)))
        yield Finding(tell("slack_check_time"), good, says)


async def _app(slack: SlackSettings, token: str) -> Finding:
    what = tell("slack_check_socket")
    if not token.startswith("xapp-"):
        return Finding(what, False, tell("slack_check_app_kind"), "app_token")
    said = await _ask(slack, "apps.connections.open", token)
    if said.error:
        return Finding(what, False, tell("slack_check_socket_refused", error=said.error), "app_token")
    return Finding(what, True, tell("doctor_works"))


class _Said:
    """What Slack said to a call, and what its headers tell besides."""

    def __init__(self) -> None:
        self.error = ""
        self.team = ""
        self.scopes: frozenset[str] = frozenset()
        self.skew: float | None = None


async def _ask(slack: SlackSettings, method: str, token: str) -> _Said:
    import aiohttp

    url = (slack.base_url or "https://slack.com/api/").rstrip("/") + f"/{method}"
    said = _Said()
    try:
        async with (
            asyncio.timeout(_SECONDS),
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
            session.post(url, proxy=slack.proxy or None) as response,
        ):
            scopes = response.headers.get("X-OAuth-Scopes", "").replace(" ", "").split(",")
            said.scopes = frozenset(filter(None, scopes))
            said.skew = _skew(response.headers.get("Date", ""))
            told = await response.json(content_type=None)
            said.error = "" if told.get("ok") else str(told.get("error") or response.status)
            said.team = str(told.get("team", ""))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, AttributeError) as error:
        said.error = type(error).__name__
    return said


def _skew(date: str) -> float | None:
    """Seconds by which our clock is ahead of the server's."""
    try:
        return time.time() - parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return None
