"""Logins as the browser sees them, and the gate that lets nobody past without one."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin.guard import is_https
from admin.problem import OPENAI_FOLDER, problem, problem_of
from core.access import Identity
from core.errors import KvasirError
from core.identity.accounts import Accounts
from core.settings import WebSettings
from core.texts import tell
from core.types import Person, Role

OPEN_PATHS: Final = frozenset(
    {
        *("/healthz", "/readyz", "/login", "/setup", "/login/oidc", "/login/oidc/callback"),
        *("/api/v1/login", "/api/v1/setup", "/api/v1/invitations/accept"),
    }
)
"""What needs no login; beside it only what lies below `OPEN_FOLDER`."""
OPEN_FOLDER: Final = "/static/"

GUEST_PREFIX: Final = "web:"
_GUEST_COOKIE: Final = "kvasir_guest"
_GUEST_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{22}")
_LOCAL: Final = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")


class Gate:
    """Pure ASGI. Finds out who is calling; without a login only the open paths go on, whatever routes there are."""

    def __init__(self, app: ASGIApp, accounts: Accounts, web: WebSettings) -> None:
        self._app = app
        self._accounts = accounts
        self._web = web

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            identity = await self._identity(headers, scope)
        except KvasirError as error:
            await problem_of(error)(scope, receive, send)
            return
        if identity is None and self._admits_guests(scope) and "authorization" not in headers:
            identity, send = self._guest(headers, scope, send)
        if identity is None:
            await _refusal(scope)(scope, receive, send)
            return
        scope.setdefault("state", {})["identity"] = identity
        await self._app(scope, receive, send)

    async def _identity(self, headers: Headers, scope: Scope) -> Identity | None:
        authorization = headers.get("authorization")
        if authorization is not None:  # the cookies of such a request count for nothing, see `guard.same_origin`
            scheme, _, token = authorization.partition(" ")
            return await self._accounts.by_key(token.strip()) if scheme.lower() == "bearer" else None
        token = session_token(headers, scope, self._web)
        return await self._accounts.by_session(token) if token else None

    def _admits_guests(self, scope: Scope) -> bool:
        """Programs have keys; and a language model is no free one for whoever comes along."""
        return self._web.anonymous and not scope["path"].startswith(OPENAI_FOLDER)

    def _guest(self, headers: Headers, scope: Scope, send: Send) -> tuple[Identity, Send]:
        """Somebody without an account, known again by a cookie of their own."""
        token = cookie_parser(headers.get("cookie", "")).get(_GUEST_COOKIE, "")
        if _GUEST_TOKEN.fullmatch(token):
            return _guest(token), send
        token = secrets.token_urlsafe(16)
        cookie = Response()
        cookie.set_cookie(
            _GUEST_COOKIE,
            token,
            max_age=self._web.session_hours * 3600,
            httponly=True,
            samesite="lax",
            secure=is_https(scope, self._web),
        )

        async def with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("set-cookie", cookie.headers["set-cookie"])
            await send(message)

        return _guest(token), with_cookie


def is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def is_guest(identity: Identity) -> bool:
    return identity.person.key.startswith(GUEST_PREFIX)


def session_token(headers: Headers, scope: Scope, web: WebSettings) -> str:
    """The login's token; empty where there is none. Over https only a cookie counts that no subdomain can plant."""
    return cookie_parser(headers.get("cookie", "")).get(_cookie_name(secure=is_https(scope, web)), "")


def set_session(response: Response, scope: Scope, web: WebSettings, token: str) -> None:
    secure = is_https(scope, web)
    response.set_cookie(
        _cookie_name(secure=secure),
        token,
        max_age=web.session_hours * 3600,
        httponly=True,
        samesite="lax",
        secure=secure,
    )


def clear_session(response: Response, scope: Scope, web: WebSettings) -> None:
    secure = is_https(scope, web)
    response.delete_cookie(_cookie_name(secure=secure), httponly=True, samesite="lax", secure=secure)


def local_path(wanted: str | None) -> str:
    """`wanted` where it is a path on this site, else the first page."""
    return wanted if wanted and len(wanted) <= 2000 and _LOCAL.fullmatch(wanted) else "/"


def _cookie_name(*, secure: bool) -> str:
    return "__Host-kvasir" if secure else "kvasir_session"


def _guest(token: str) -> Identity:
    return Identity(Person(GUEST_PREFIX + hashlib.sha256(token.encode()).hexdigest()[:32], "", Role.VIEWER))


def _refusal(scope: Scope) -> Response:
    path = scope["path"]
    if path.startswith(("/api/", OPENAI_FOLDER)) or scope["method"] not in ("GET", "HEAD"):
        return problem(401, tell("login_needed"))
    query = scope["query_string"].decode("latin-1")
    here = local_path(path + (f"?{query}" if query else ""))
    return RedirectResponse(f"/login?next={quote(here, safe='')}", 303, {"cache-control": "no-store"})
