"""Calls of Slack's web API. Every failure becomes one of `bots/errors.py`, here and nowhere else."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bots.errors import DeliveryError, Gone, Limited, Refused, Unreachable
from core.types import JSON
from core.work.limits import Limits

TIMEOUT: Final = 15
"""Seconds for one call."""
_GONE: Final = frozenset(
    {
        "message_not_found",
        "message_not_in_streaming_state",
        "cant_update_message",
        "cant_delete_message",
        "edit_window_closed",
    }
)
_LATER: Final = frozenset(
    {"internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org", "timeout"}
)
_LIMITED: Final = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
DEAD: Final = frozenset(
    {
        "invalid_auth",
        "not_authed",
        "token_revoked",
        "token_expired",
        "account_inactive",
        "org_login_required",
        "app_uninstalled",
        "team_access_not_granted",
    }
)
"""Errors that no other call of this workspace will be spared."""
_BY_CHANNEL: Final = frozenset({"chat.postMessage", "chat.postEphemeral"})
_UNSAID_WAIT: Final = 2.0
"""Seconds to wait where Slack does not say how long."""


class Web:
    """The web API as one bot token may use it."""

    def __init__(self, client: AsyncWebClient, limits: Limits | None = None, team: str = "") -> None:
        """`limits`: what other processes were told of this workspace holds here, too."""
        self.client = client
        self._limits = limits
        self._team = team
        self._closed_until: dict[tuple[str, str], float] = {}
        """When a method may be called again, by the loop's clock; messages are limited in each channel by itself."""

    async def call(self, method: str, **args: Any) -> JSON:
        """The answer to a call; arguments that are None are left out. Raises DeliveryError in Slack's word."""
        return await self._send(method, str(args.get("channel", "")), json=_given(args))

    async def ask(self, method: str, **args: Any) -> JSON:
        """As `call`, for methods that only read: they take no JSON."""
        return await self._send(method, "", http_verb="GET", params=_given(args))

    async def _send(self, method: str, channel: str, **how: Any) -> JSON:
        limit = (method, channel if method in _BY_CHANNEL else "")
        loop = asyncio.get_running_loop()
        shared = "/".join(("slack", self._team, *limit))
        elsewhere = self._limits.frozen(shared) if self._limits is not None else 0.0
        if (left := max(elsewhere, self._closed_until.get(limit, 0.0) - loop.time())) > 0:
            raise Limited(left)
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self.client.api_call(method, **how)
        except SlackApiError as error:
            said = translated(error)
            if isinstance(said, Limited):
                self._closed_until[limit] = loop.time() + said.seconds
                if self._limits is not None:
                    self._limits.freeze(shared, said.seconds)
            raise said from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{method}: {type(error).__name__}") from error
        return dict(response.data) if isinstance(response.data, dict) else {}


def _given(args: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in args.items() if value is not None}


def translated(error: SlackApiError) -> DeliveryError:
    """Slack's refusal as one of our errors; its text is Slack's word for it."""
    response = error.response
    status = int(getattr(response, "status_code", 200) or 200)
    code = str(response.get("error") or "") if hasattr(response, "get") else ""
    if status == 429 or code in _LIMITED:
        return Limited(_seconds(getattr(response, "headers", None) or {}))
    if status >= 500 or code in _LATER or not code:
        return Unreachable(code or f"status {status}")
    if code in _GONE:
        return Gone(code)
    return Refused(code)


def _seconds(headers: Any) -> float:
    for name, value in headers.items():
        if str(name).lower() == "retry-after":
            try:
                return max(0.0, float(value[0] if isinstance(value, list) else value))
            except ValueError:
                return _UNSAID_WAIT
    return _UNSAID_WAIT
