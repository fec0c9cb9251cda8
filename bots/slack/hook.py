"""Events over HTTP, and the installation in further workspaces."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import logging
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urljoin

import aiohttp
from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError

from bots.errors import DeliveryError
from bots.slack.check import scopes_wanted
from bots.slack.client import Web, translated
from bots.slack.workspaces import Installation
from core.texts import tell

if TYPE_CHECKING:
    from bots.slack.platform import Slack

logger = logging.getLogger(__name__)

PATH: Final = "/hooks/slack"
_MOST_BYTES: Final = 2 << 20
_COOKIE: Final = "kvasir_slack"
_STATE_SECONDS: Final = 600
_HEADERS: Final = {"Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store"}


async def listen(slack: Slack, app: AsyncApp, say: Callable[[bool], None]) -> None:
    """Serve Slack's requests until cancelled, and say when that begins. Raises OSError where the port is taken."""
    site = _Site(slack, app)
    server = web.Application(client_max_size=_MOST_BYTES)
    if slack.settings.signing_secret is not None:  # without it anybody could sign
        server.router.add_post(PATH, site.event)
    if slack.settings.client_id:
        server.router.add_get(f"{PATH}/install", site.install)
        server.router.add_get(f"{PATH}/oauth", site.installed)
    runner = web.AppRunner(server, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        host, port = slack.kvasir.settings.web.host, slack.settings.events_port
        await web.TCPSite(runner, host, port).start()
        say(True)
        logger.info("Slack's events arrive on %s:%s%s", host, port, PATH)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


class _Site:
    def __init__(self, slack: Slack, app: AsyncApp) -> None:
        self._slack = slack
        self._app = app

    async def event(self, request: web.Request) -> web.Response:
        """An event, command or press of a button; Bolt refuses what Slack did not sign."""
        return await to_aiohttp_response(await self._app.async_dispatch(await to_bolt_request(request)))

    # ------------------------------------------------------------ installation
    async def install(self, request: web.Request) -> web.Response:  # noqa: ARG002  aiohttp gives it
        """To Slack's page that asks whether the app may come in; only this browser may come back from it."""
        state = f"{secrets.token_urlsafe(24)}.{int(time.time())}"
        state = f"{state}.{self._signed(state)}"
        settings = self._slack.settings
        query = {
            "client_id": settings.client_id,
            "scope": ",".join(sorted(scopes_wanted())),
            "state": state,
            "redirect_uri": self._redirect(),
        }
        url = urljoin(self._slack.workspaces.base_url, "../oauth/v2/authorize") + "?" + urlencode(query)
        response = web.Response(status=302, headers={"Location": url, **_HEADERS})
        secure = self._redirect().startswith("https://")
        response.set_cookie(
            _COOKIE, state, max_age=_STATE_SECONDS, path=PATH, secure=secure, httponly=True, samesite="Lax"
        )
        return response

    async def installed(self, request: web.Request) -> web.Response:
        """Back from Slack: the code is exchanged for a token, which is kept encrypted."""
        if error := request.query.get("error"):
            return _page(tell("slack_not_installed", reason=error[:100]), 400)
        if not self._is_ours(request):
            return _page(tell("slack_not_installed", reason="state"), 400)
        try:
            installation = await self._exchanged(request.query.get("code", ""))
        except DeliveryError as error:
            logger.warning("an installation came to nothing: %s", error)
            return _page(tell("slack_not_installed", reason=str(error)), 400)
        await self._slack.workspaces.put(installation)
        response = _page(tell("slack_installed", team=installation.name))
        response.del_cookie(_COOKIE, path=PATH)
        return response

    def _is_ours(self, request: web.Request) -> bool:
        state = request.query.get("state", "")
        signed, _, signature = state.rpartition(".")
        begun = signed.rpartition(".")[2]
        return (
            hmac.compare_digest(state.encode(), request.cookies.get(_COOKIE, "").encode())
            and hmac.compare_digest(signature.encode(), self._signed(signed).encode())
            and begun.isdecimal()
            and time.time() - int(begun) < _STATE_SECONDS
        )

    def _signed(self, state: str) -> str:
        secret = self._slack.settings.client_secret
        key = secret.get_secret_value() if secret else ""
        return hmac.new(f"kvasir state {key}".encode(), state.encode(), hashlib.sha256).hexdigest()

    def _redirect(self) -> str:
        return self._slack.kvasir.settings.web.public_url.rstrip("/") + f"{PATH}/oauth"

    async def _exchanged(self, code: str) -> Installation:
        settings, workspaces = self._slack.settings, self._slack.workspaces
        given = {
            "client_id": settings.client_id,
            "client_secret": settings.client_secret.get_secret_value() if settings.client_secret else "",
            "code": code,
            "redirect_uri": self._redirect(),
        }
        try:
            access = (await workspaces.client().api_call("oauth.v2.access", data=given)).data
        except SlackApiError as error:
            raise translated(error) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise DeliveryError(type(error).__name__) from error
        token = str(access["access_token"]) if isinstance(access, dict) else ""
        about = await Web(workspaces.client(token)).call("auth.test")
        return Installation(
            team=str(about["team_id"]),
            token=token,
            bot_user=str(about["user_id"]),
            bot_id=str(about.get("bot_id", "")),
            name=str(about.get("team", "")),
        )


def _page(sentence: str, status: int = 200) -> web.Response:
    text = f"<!doctype html><meta charset=utf-8><title>Kvasir</title><p>{html.escape(sentence)}</p>"
    return web.Response(text=text, status=status, content_type="text/html", headers=_HEADERS)
