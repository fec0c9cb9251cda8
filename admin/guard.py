"""What stands before everything that speaks HTTP: who may call from where, how much, how slowly, with which headers."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin.problem import OPENAI_FOLDER, problem
from core.errors import ConfigError
from core.settings import Settings, WebSettings
from core.texts import speaking, system_language, tell
from core.types import Language

logger = logging.getLogger(__name__)

Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"
Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

UPLOAD_PATH: Final = re.compile(r"/api/v1/kbs/(?:[^/]+/documents|import)")
IMPORT_PATH: Final = re.compile(r"/api/v1/evaluation-sets/[^/]+/import")
LANGUAGE_COOKIE: Final = "kvasir_language"
"""What was chosen on a page, for what the server says itself: en or zh."""
_DATA: Final = ("/api/", OPENAI_FOLDER)
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST: Final = re.compile(r"(?P<name>[a-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request's body."""

    size: int
    seconds: float
    """For the whole of it."""
    silence: float
    """Between two pieces."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the guard holds people to; made from the settings."""

    hosts: frozenset[str]
    any_address: bool
    """The page listens on every address, so any IP address is a name of this machine (a DNS name is not)."""
    public_origin: str
    proxies: tuple[Network, ...]
    body: Limits
    upload: Limits
    messages: Limits
    """Of programs: whole conversations, and many texts to embed; and of evaluation sets that are brought in."""
    language: Language
    """For those who name none of ours."""

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """Raises ConfigError where a setting is no address."""
        web, public = settings.web, urlsplit(settings.web.public_url)
        if web.public_url and not (public.scheme in ("http", "https") and public.hostname):
            raise ConfigError(tell("bad_public_url", url=web.public_url))
        wildcard = web.host in ("0.0.0.0", "::", "")  # noqa: S104  compared, not bound
        hosts = {web.host.lower(), (public.hostname or "").lower(), *_LOOPBACK_NAMES}
        if wildcard:
            hosts.add(socket.gethostname().lower())
        return cls(
            hosts=frozenset(hosts - {"", "0.0.0.0", "::"}),  # noqa: S104  compared, not bound
            any_address=wildcard,
            public_origin=f"{public.scheme}://{public.netloc}".lower() if public.netloc else "",
            proxies=tuple(_network(item) for item in web.trusted_proxies),
            body=Limits(size=(64 << 10) + 12 * web.max_question_chars, seconds=30, silence=15),
            upload=Limits(size=settings.ingest.max_kb_mb << 20, seconds=web.upload_timeout_seconds, silence=60),
            messages=Limits(size=4 << 20, seconds=60, silence=15),
            language=system_language() if settings.language == "auto" else settings.language,
        )


class Guard:
    """Pure ASGI, outermost. Lets through what keeps the policy, and gives every response its headers."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # nothing here speaks it
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        behind_proxy(scope, self._policy.proxies)
        headers = Headers(scope=scope)
        request_id = secrets.token_hex(8)
        reply = _Reply(send, scope, request_id)
        body = _Body(receive, self._limits(scope), reply)
        with speaking(self._language(headers)):
            try:
                refused = self._refusal(scope, headers, body)
                if refused is not None:
                    status, key = refused
                    await problem(status, tell(key))(scope, receive, reply)
                else:
                    await self._app(scope, body, reply)
            except HTTPException as error:  # from `_Body`, past whoever read it
                if reply.started:
                    raise
                await problem(error.status_code, error.detail, headers=error.headers)(scope, receive, reply)
            except Exception:
                logger.exception("request %s failed: %s %s", request_id, scope["method"], scope["path"])
                if reply.started:
                    raise
                await problem(500, tell("internal_error", id=request_id))(scope, receive, reply)

    def _limits(self, scope: Scope) -> Limits:
        if scope["path"].startswith(OPENAI_FOLDER) or IMPORT_PATH.fullmatch(scope["path"]):
            return self._policy.messages
        is_upload = scope["method"] == "POST" and UPLOAD_PATH.fullmatch(scope["path"])
        return self._policy.upload if is_upload else self._policy.body

    def _refusal(self, scope: Scope, headers: Headers, body: _Body) -> tuple[int, str] | None:
        """Status and sentence of the first rule that is broken."""
        if not known_host(headers, self._policy):
            return 421, "unknown_host"
        if not same_origin(scope, headers, self._policy):
            return 403, "cross_site"
        if body.is_declared_too_large(headers):
            return 413, "body_too_large"
        return None

    def _language(self, headers: Headers) -> Language:
        chosen = cookie_parser(headers.get("cookie", "")).get(LANGUAGE_COOKIE, "")
        return (
            accepted_language(chosen) or accepted_language(headers.get("accept-language", "")) or self._policy.language
        )


# ---------------------------------------------------------------- rules
def known_host(headers: Headers, policy: Policy) -> bool:
    """Whether the request is for one of our names; others come from a rebound DNS name or a forged header."""
    given = headers.getlist("host")
    match = _HOST.fullmatch(given[0].lower()) if len(given) == 1 else None
    if match is None:
        return False
    name = match["name"].strip("[]")
    if name in policy.hosts:
        return True
    return policy.any_address and _address(name) is not None


def same_origin(scope: Scope, headers: Headers, policy: Policy) -> bool:
    """Whether the request may come from where it does.

    Whatever changes something must come from our own pages. A request with an API key needs no such proof: no browser
    adds one by itself, and such a request's cookies are not looked at.
    """
    site = headers.get("sec-fetch-site")
    if scope["method"] in _SAFE:
        is_data = scope["path"].startswith(_DATA)
        return not (is_data and site == "cross-site" and headers.get("sec-fetch-mode") != "navigate")
    if "authorization" in headers:
        return True
    origin = headers.get("origin")
    if site is not None:
        return site == "same-origin" and (origin in (None, "null") or _is_ours(origin or "", scope, headers, policy))
    return _is_ours(origin if origin is not None else headers.get("referer", ""), scope, headers, policy)


def _is_ours(url: str, scope: Scope, headers: Headers, policy: Policy) -> bool:
    try:
        parts = urlsplit(url.lower())
    except ValueError:
        return False
    origin = f"{parts.scheme}://{parts.netloc}"
    own = f"{scope['scheme']}://{headers.get('host', '').lower()}"
    return bool(parts.netloc) and origin in (own, policy.public_origin)


def behind_proxy(scope: Scope, proxies: tuple[Network, ...]) -> None:
    """Believe X-Forwarded-For and -Proto where a trusted proxy wrote them; then, and else, take them out."""
    headers = Headers(scope=scope)
    client = _address(scope["client"][0]) if scope.get("client") else None
    if client is not None and _trusted(client, proxies):
        forwarded = [item.strip() for value in headers.getlist("x-forwarded-for") for item in value.split(",")]
        for item in reversed(forwarded):
            hop = _address(item)
            if hop is None:
                break
            scope["client"] = (str(hop), 0)
            if not _trusted(hop, proxies):
                break
        protocol = headers.get("x-forwarded-proto", "").strip().lower()
        if protocol in ("http", "https"):
            scope["scheme"] = protocol
    scope["headers"] = [
        (name, value)
        for name, value in scope["headers"]
        if not (name.startswith(b"x-forwarded-") or name == b"forwarded")
    ]


def accepted_language(header: str) -> Language | None:
    """The one of our languages that an Accept-Language header puts first."""
    best: tuple[float, Language] | None = None
    for item in header[:1000].split(","):
        tag, _, weight = item.partition(";")
        name = tag.strip().lower()[:2]
        if name not in ("en", "zh"):
            continue
        quality = _quality(weight)
        if quality > 0 and (best is None or quality > best[0]):
            best = (quality, "zh" if name == "zh" else "en")
    return best[1] if best else None


def is_https(scope: Scope, web: WebSettings) -> bool:
    return bool(scope["scheme"] == "https") or web.public_url.lower().startswith("https://")


def _quality(weight: str) -> float:
    match = re.fullmatch(r"\s*q=([01](?:\.[0-9]{0,3})?)\s*", weight)
    return float(match[1]) if match else 1.0 if not weight else 0.0


def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigError(tell("bad_proxy", text=text)) from error


def _trusted(address: Address, proxies: tuple[Network, ...]) -> bool:
    return any(address in network for network in proxies)


# ---------------------------------------------------------------- bodies and replies
class _Body:
    """The request's body under its limits. Breaking one ends the request: with 413 or 408 while that can be said."""

    def __init__(self, receive: Receive, limits: Limits, reply: _Reply) -> None:
        self._receive = receive
        self._limits = limits
        self._reply = reply
        self._left = limits.size
        self._deadline: float | None = None
        self._is_read = False

    def is_declared_too_large(self, headers: Headers) -> bool:
        declared = headers.get("content-length", "")
        return declared.isdigit() and int(declared[:20]) > self._limits.size

    async def __call__(self) -> Message:
        if self._is_read:
            return await self._receive()  # waits for the client to go
        now = asyncio.get_running_loop().time()
        self._deadline = self._deadline or now + self._limits.seconds
        try:
            async with asyncio.timeout(min(self._limits.silence, self._deadline - now)):
                message = await self._receive()
        except TimeoutError:
            return self._end(408, "body_too_slow")
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            self._is_read = not message.get("more_body", False)
        return message if self._left >= 0 else self._end(413, "body_too_large")

    def _end(self, status: int, key: str) -> Message:
        if self._reply.started:
            return {"type": "http.disconnect"}
        raise HTTPException(status, tell(key), {"connection": "close"})


class _Reply:
    """The response with the headers that every response has."""

    def __init__(self, send: Send, scope: Scope, request_id: str) -> None:
        self._send = send
        self._scope = scope
        self._request_id = request_id
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers["x-request-id"] = self._request_id
            if self._scope["path"].startswith(_DATA):
                headers.setdefault("cache-control", "no-store")
            if self._scope["scheme"] == "https":
                headers.setdefault("strict-transport-security", "max-age=31536000")
        await self._send(message)
