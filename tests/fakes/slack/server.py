"""The server itself: `async with SlackServer() as slack`, then point the client library at `slack.base_url`."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from tests.fakes.slack.delivery import Delivery, Socket
from tests.fakes.slack.faults import Faults, Refusal, refusal_body
from tests.fakes.slack.methods import METHODS, Call
from tests.fakes.slack.people import People
from tests.fakes.slack.world import JSON, SCOPES, Channel, Clock, Message, SlackError, Workspace, check_blocks

_LOGIN_PAGE = "<!DOCTYPE html><html><title>Sign in to Slack</title></html>"


@dataclass
class _Response:
    """What a `response_url` leads to."""

    workspace: Workspace
    channel: Channel
    person: str
    source: Message | None
    uses: int = 5
    until: float = field(default_factory=lambda: time.monotonic() + 30 * 60)


class SlackServer:
    """A Slack on loopback with one workspace «Acme», a channel C1, a private one G1, and two people, U1 and U2."""

    def __init__(self, *, app_token: str = "xapp-1-app") -> None:
        self.app_token = app_token
        self.client_id, self.client_secret = "1.2", "client-secret"
        self.faults, self.delivery, self.clock = Faults(), Delivery(), Clock()
        self.calls: list[Call] = []
        """Every call of the Web API, those that were refused included."""
        self.workspace = Workspace()
        self.workspaces = {self.workspace.id: self.workspace}
        self.installing = "T2"
        """The workspace whose owner says yes to an installation."""
        self.url = ""
        self._codes: dict[str, str] = {}
        self._responses: dict[str, _Response] = {}
        self._runner: web.AppRunner | None = None
        everybody = {self.workspace.bot_user, *self.workspace.people}
        for name in ("C1", "G1"):
            self.workspace.channels[name] = Channel(name, "group" if name == "G1" else "channel", set(everybody))

    async def __aenter__(self) -> SlackServer:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/api/{method}", self._api)
        app.router.add_get("/link/", self._link)
        app.router.add_post("/response/{name}", self._respond)
        app.router.add_get("/files/{file}/{rest:.*}", self._file)
        app.router.add_get("/oauth/v2/authorize", self._authorize)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.people = self.people_of(self.workspace)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.delivery.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        return f"{self.url}/api/"

    @property
    def channel(self) -> Channel:
        """The channel most tests need."""
        return self.workspace.channels["C1"]

    def people_of(self, workspace: Workspace) -> People:
        return People(workspace, self.delivery, self.clock, self._response_url, files_url=f"{self.url}/files")

    def called(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    # ------------------------------------------------------------ Web API
    async def _api(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        args = await _args(request)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ") or str(args.get("token", ""))
        await asyncio.sleep(self.faults.slow.get(method, self.faults.slow.get("*", 0)))
        if refusal := self.faults.answer_instead(method):
            self._note(method, args, token)
            return _refuse(refusal)
        lost = self.faults.is_lost(method)
        try:
            answer = {"ok": True, **self._answer(request, method, args, token)}
        except SlackError as error:
            answer = error.answer
        if lost and request.transport is not None:
            request.transport.close()
        scopes = next((w.scopes for w in self.workspaces.values() if w.token == token), set())
        return web.json_response(answer, headers={"X-OAuth-Scopes": ",".join(sorted(scopes))} if scopes else None)

    def _note(self, method: str, args: JSON, token: str) -> Call:
        workspace = next((w for w in self.workspaces.values() if w.token == token), self.workspace)
        call = Call(method, args, workspace, self.clock, self.faults, self.url, time.monotonic())
        self.calls.append(call)
        return call

    def _answer(self, request: web.Request, method: str, args: JSON, token: str) -> JSON:
        call = self._note(method, args, token)
        if method == "apps.connections.open":
            return self._connection(token)
        if method == "oauth.v2.access":
            return self._access(request, args)
        if token != call.workspace.token:
            raise SlackError("invalid_auth" if token else "not_authed")
        if call.workspace.revoked:
            raise SlackError(call.workspace.revoked)
        if method not in METHODS:
            raise SlackError("unknown_method")
        run, scope = METHODS[method]
        if scope and scope not in call.workspace.scopes:
            raise SlackError("missing_scope", needed=scope, provided=",".join(sorted(call.workspace.scopes)))
        answer: JSON = run(call)
        return answer

    # ------------------------------------------------------------ Socket Mode
    def _connection(self, token: str) -> JSON:
        if token != self.app_token:
            raise SlackError("invalid_auth" if token.startswith("xapp-") else "not_allowed_token_type")
        ticket = secrets.token_hex(8)
        return {"url": f"ws{self.url.removeprefix('http')}/link/?ticket={ticket}&app_id=A1"}

    async def _link(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(autoping=False)
        await ws.prepare(request)
        socket = Socket(ws)
        self.delivery.arrived(socket)
        connections = len(self.delivery.live)
        await socket.send({"type": "hello", "num_connections": connections, "connection_info": {"app_id": "A1"}})
        await socket.serve()
        return ws

    # ------------------------------------------------------------ answers to commands and buttons
    def _response_url(self, workspace: Workspace, channel: Channel, person: str, source: Message | None) -> str:
        name = secrets.token_hex(8)
        self._responses[name] = _Response(workspace, channel, person, source)
        return f"{self.url}/response/{name}"

    async def _respond(self, request: web.Request) -> web.Response:
        known = self._responses.get(request.match_info["name"])
        if known is None or known.until < time.monotonic():
            return web.json_response({"ok": False, "error": "expired_url"}, status=404)
        if known.uses == 0:
            return web.json_response({"ok": False, "error": "used_url"}, status=404)
        known.uses -= 1
        said: JSON = await request.json()
        try:
            self._said_by_response(known, said)
        except SlackError as error:
            return web.json_response(error.answer, status=400)
        return web.Response(text="ok")

    def _said_by_response(self, known: _Response, said: JSON) -> None:
        blocks, text = list(said.get("blocks") or ()), str(said.get("text") or "")
        check_blocks(blocks)
        if said.get("delete_original") and known.source is not None:
            known.source.deleted = True
        elif said.get("replace_original") and known.source is not None:
            known.source.history.append(known.source.body)
            known.source.text, known.source.blocks, known.source.chunks = text, blocks, []
        elif not (text or blocks):
            raise SlackError("no_text")
        else:
            private = said.get("response_type", "ephemeral") == "ephemeral"
            known.channel.messages.append(
                Message(
                    ts=self.clock.ts(),
                    channel=known.channel.id,
                    user=known.workspace.bot_user,
                    bot_id=known.workspace.bot_id,
                    text=text,
                    blocks=blocks,
                    thread_ts=str(said.get("thread_ts") or ""),
                    ephemeral_to=known.person if private else "",
                    unfurl=(bool(said.get("unfurl_links", True)), bool(said.get("unfurl_media", True))),
                )
            )

    # ------------------------------------------------------------ files
    async def _file(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        workspace = next((w for w in self.workspaces.values() if w.token == token), None)
        found = workspace.files.get(request.match_info["file"]) if workspace and not workspace.revoked else None
        if found is None:
            return web.Response(text=_LOGIN_PAGE, content_type="text/html")
        return web.Response(body=found[1], content_type=str(found[0]["mimetype"]))

    # ------------------------------------------------------------ installation
    async def _authorize(self, request: web.Request) -> web.Response:
        query = request.query
        if query.get("client_id") != self.client_id:
            return web.Response(text="invalid_client_id", status=400)
        code = secrets.token_hex(8)
        self._codes[code] = self.installing
        back = urlencode({"code": code, "state": query.get("state", "")})
        raise web.HTTPFound(f"{query['redirect_uri']}?{back}")

    def _access(self, request: web.Request, args: JSON) -> JSON:
        basic = request.headers.get("Authorization", "").removeprefix("Basic ")
        given = base64.b64decode(basic).decode() if basic else f"{args.get('client_id')}:{args.get('client_secret')}"
        if given != f"{self.client_id}:{self.client_secret}":
            raise SlackError("invalid_client_id")
        team = self._codes.pop(str(args.get("code", "")), "")
        if not team:
            raise SlackError("invalid_code")
        workspace = self.workspaces.get(team) or self.add_workspace(team)
        return {
            "app_id": "A1",
            "authed_user": {"id": "U1"},
            "scope": ",".join(SCOPES),
            "token_type": "bot",
            "access_token": workspace.token,
            "bot_user_id": workspace.bot_user,
            "team": {"id": workspace.id, "name": workspace.name},
            "enterprise": None,
            "is_enterprise_install": False,
        }

    def add_workspace(self, team: str) -> Workspace:
        """A further workspace, with its own token and a channel C1."""
        bot = f"UBOT{team}"
        workspace = Workspace(team, f"Team {team}", f"xoxb-{team}-bot", bot, f"BBOT{team}")
        workspace.channels["C1"] = Channel("C1", "channel", {bot, *workspace.people})
        self.workspaces[team] = workspace
        return workspace


def _refuse(refusal: Refusal) -> web.Response:
    headers = {} if refusal.retry_after is None else {"Retry-After": refusal.retry_after}
    if refusal.body is not None:
        return web.Response(text=refusal.body, status=refusal.status, content_type="text/html", headers=headers)
    return web.json_response(refusal_body(refusal), status=refusal.status, headers=headers)


async def _args(request: web.Request) -> JSON:
    """What was asked, from query, form and JSON body; parts that are JSON within a form are read too."""
    args: dict[str, Any] = dict(request.query)
    if request.content_type == "application/json":
        args |= await request.json()
    elif request.method == "POST":
        args |= _strings(await request.post())
    for key in ("blocks", "chunks", "metadata", "view", "prompts"):
        if isinstance(args.get(key), str):
            args[key] = json.loads(args[key])
    return args


def _strings(form: Mapping[str, object]) -> dict[str, str]:
    return {key: value for key, value in form.items() if isinstance(value, str)}
