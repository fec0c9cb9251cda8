"""Login through an identity provider: OpenID Connect's authorization code flow with PKCE.

OpenID Connect Core 1.0 §3.1, RFC 7636 (PKCE), RFC 9700 (best current practice).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from core.db.session import Database
from core.db.tables import OneTimeTokenRow, UserRow, new_id, now
from core.errors import ConfigError, LoginNeeded, MissingExtra, Unavailable
from core.identity.accounts import User, digest, good_name, touched, user_of
from core.settings import OidcSettings
from core.texts import tell
from core.types import Role

_LOGIN: Final = "login"
_LASTS: Final = timedelta(minutes=10)
_SECONDS: Final = 20.0
_KNOWN_FOR: Final = 3600.0
_LONGEST: Final = 1 << 20
_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Of signatures by a provider's own key; `none` and shared secrets prove nothing here."""
_LEEWAY: Final = 60


class NoAccount(LoginNeeded):
    """The provider vouches for the person, whom we do not let in."""


@dataclass(frozen=True, slots=True)
class Begun:
    url: str
    """Where the browser goes."""
    state: str
    """To be kept in the browser's cookie until it comes back."""


@dataclass(frozen=True, slots=True)
class Proven:
    user: User
    next: str
    """Where the person wanted to go."""


class Oidc:
    """The provider of the settings. Every method raises ConfigError where there is none."""

    def __init__(self, db: Database, settings: OidcSettings) -> None:
        self._db = db
        self._settings = settings
        self._found: Mapping[str, Any] = {}
        self._keys: Mapping[str, Any] = {}
        self._until = 0.0

    @property
    def is_on(self) -> bool:
        return bool(self._settings.issuer and self._settings.client_id)

    async def begin(self, redirect_uri: str, next: str) -> Begun:
        """The first step. Raises Unavailable where the provider does not answer."""
        provider = await self._provider()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        async with self._db.session() as session:
            session.add(
                OneTimeTokenRow(
                    token_hash=digest(state),
                    purpose=_LOGIN,
                    payload={"nonce": nonce, "verifier": verifier, "next": next},
                    expires_at=now() + _LASTS,
                )
            )
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = str(provider["authorization_endpoint"])
        return Begun(f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}", state)

    async def finish(self, redirect_uri: str, *, state: str, kept: str, code: str, issuer: str = "") -> Proven:
        """The last step: whose login it is. `kept` is the state from the browser's cookie.

        Raises LoginNeeded where anything does not fit, NoAccount where the person is not let in.
        """
        if not state or not secrets.compare_digest(state.encode(), kept.encode()):
            raise LoginNeeded(tell("oidc_refused"))
        payload = await self._take(state)
        if issuer and issuer != self._settings.issuer:  # RFC 9207: an answer of another provider
            raise LoginNeeded(tell("oidc_refused"))
        claims = await self._claims(redirect_uri, code, payload)
        return Proven(await self._user(claims), str(payload["next"]))

    async def _take(self, state: str) -> Mapping[str, Any]:
        """What was kept for the state, which is used up by it."""
        this = (OneTimeTokenRow.token_hash == digest(state), OneTimeTokenRow.purpose == _LOGIN)
        unused = (OneTimeTokenRow.used_at.is_(None), OneTimeTokenRow.expires_at > now())
        async with self._db.session() as session:
            if await touched(session, update(OneTimeTokenRow).where(*this, *unused).values(used_at=now())) != 1:
                raise LoginNeeded(tell("oidc_over"))
            payload = await session.scalar(select(OneTimeTokenRow.payload).where(*this))
        return payload or {}

    # ------------------------------------------------------------ the provider
    async def _provider(self) -> Mapping[str, Any]:
        """What it says of itself (OpenID Connect Discovery 1.0)."""
        if not self.is_on:
            raise ConfigError(tell("oidc_off"))
        if time.monotonic() < self._until:
            return self._found
        issuer = self._settings.issuer.rstrip("/")
        found = await self._json("GET", f"{issuer}/.well-known/openid-configuration")
        if str(found.get("issuer", "")).rstrip("/") != issuer:
            raise ConfigError(tell("oidc_issuer", issuer=self._settings.issuer))
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            _safe(str(found.get(name, "")))
        self._keys = await self._json("GET", str(found["jwks_uri"]))
        self._found, self._until = found, time.monotonic() + _KNOWN_FOR
        return found

    async def _claims(self, redirect_uri: str, code: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        provider = await self._provider()
        given = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": str(payload["verifier"]),
        }
        secret = self._settings.client_secret.get_secret_value() if self._settings.client_secret else ""
        methods: Sequence[str] = provider.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        basic = (self._settings.client_id, secret) if secret and "client_secret_basic" in methods else None
        if basic is None:
            given["client_id"] = self._settings.client_id
            if secret:
                given["client_secret"] = secret
        answer = await self._json("POST", str(provider["token_endpoint"]), data=given, auth=basic)
        claims = self._checked(str(answer.get("id_token", "")), str(payload["nonce"]))
        if "email" not in claims and provider.get("userinfo_endpoint") and answer.get("access_token"):
            headers = {"authorization": f"Bearer {answer['access_token']}"}
            more = await self._json("GET", _safe(str(provider["userinfo_endpoint"])), headers=headers)
            if more.get("sub") == claims["sub"]:
                claims = {**more, **claims}
        return claims

    def _checked(self, token: str, nonce: str) -> Mapping[str, Any]:
        """The claims of an ID token that is genuine, for us, of now, and of this very login (§3.1.3.7)."""
        try:
            from joserfc import jwk, jwt
            from joserfc.errors import JoseError
        except ImportError as error:
            raise MissingExtra("OpenID Connect", "oidc") from error
        try:
            keys = jwk.KeySet.import_key_set(dict(self._keys))  # type: ignore[arg-type]
            claims = jwt.decode(token, keys, algorithms=_ALGORITHMS).claims
            rules = jwt.JWTClaimsRegistry(
                leeway=_LEEWAY,
                iss={"essential": True, "value": str(self._found["issuer"])},
                aud={"essential": True, "value": self._settings.client_id},
                exp={"essential": True},
                sub={"essential": True},
                nonce={"essential": True, "value": nonce},
            )
            rules.validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            self._until = 0.0  # its keys may have changed
            raise LoginNeeded(tell("oidc_refused")) from error
        audience = claims["aud"]
        if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != self._settings.client_id:
            raise LoginNeeded(tell("oidc_refused"))
        return dict(claims)

    async def _json(self, method: str, url: str, **options: Any) -> Mapping[str, Any]:
        import httpx2  # late: most houses have no provider

        from core.egress import trusted

        _safe(url)
        try:
            async with (
                asyncio.timeout(_SECONDS),
                httpx2.AsyncClient(follow_redirects=False, verify=trusted()) as client,
            ):
                async with client.stream(method, url, **options) as response:
                    data = b""
                    async for piece in response.aiter_bytes():
                        data += piece
                        if len(data) > _LONGEST:
                            raise Unavailable(tell("oidc_away", host=urlsplit(url).netloc))
                if response.status_code >= 500:
                    raise Unavailable(tell("oidc_away", host=urlsplit(url).netloc))
                if response.status_code >= 300:
                    raise LoginNeeded(tell("oidc_refused"))
                found = httpx2.Response(200, content=data).json()
        except (httpx2.HTTPError, TimeoutError, ValueError) as error:
            raise Unavailable(tell("oidc_away", host=urlsplit(url).netloc)) from error
        if not isinstance(found, dict):
            raise Unavailable(tell("oidc_away", host=urlsplit(url).netloc))
        return found

    # ------------------------------------------------------------ the account
    async def _user(self, claims: Mapping[str, Any]) -> User:
        """The account of these claims; a new one where the settings allow it. Accounts with a password are never taken
        over, whatever name or address the provider tells.
        """
        subject = f"{self._settings.issuer.rstrip('/')} {claims['sub']}"[:512]
        self._check_domain(claims)
        role = self._role(claims)
        async with self._db.session() as session:
            row = await session.scalar(select(UserRow).where(UserRow.subject == subject).with_for_update())
            if row is not None:
                if row.disabled:
                    raise NoAccount(tell("oidc_unknown"))
                if role is not None and row.role != Role.OWNER.value:
                    row.role = role.value
                return user_of(row)
        if not self._settings.create:
            raise NoAccount(tell("oidc_unknown"))
        for name in _names(claims, self._settings.name_claim):
            row = UserRow(
                id=new_id(), name=name, password_hash="", role=(role or self._settings.role).value,
                disabled=False, everywhere=True, subject=subject,
            )  # fmt: skip
            try:
                async with self._db.session() as session:
                    session.add(row)
            except IntegrityError:
                continue
            return user_of(row)
        raise LoginNeeded(tell("oidc_refused"))

    def _check_domain(self, claims: Mapping[str, Any]) -> None:
        allowed = {domain.lower().lstrip("@") for domain in self._settings.domains}
        domain = str(claims.get("email", "")).rpartition("@")[2].lower()
        if allowed and not (domain in allowed and claims.get("email_verified") is True):
            raise NoAccount(tell("oidc_unknown"))

    def _role(self, claims: Mapping[str, Any]) -> Role | None:
        """The highest that the person's groups give; None where the settings say nothing of groups."""
        if not self._settings.roles:
            return None
        groups = claims.get(self._settings.groups_claim) or []
        given = {groups} if isinstance(groups, str) else {str(group) for group in groups}
        roles = [role for group, role in self._settings.roles.items() if group in given]
        return min(roles, key=list(Role).index, default=self._settings.role)


def _safe(url: str) -> str:
    """The address, where what goes there cannot be read on the way. Raises ConfigError."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")):
        return url
    raise ConfigError(tell("oidc_not_https", url=url))


def _names(claims: Mapping[str, Any], wanted: str) -> Sequence[str]:
    """Names for a new account, the best first."""
    given = [claims.get(wanted), claims.get("preferred_username"), claims.get("email"), claims.get("name")]
    names = []
    for one in given:
        name = "".join(char for char in str(one or "").lower().replace(" ", ".") if char.isalnum() or char in "._-@+")
        if name:
            names.append(good_name(name[:90]))
    names = names or ["person"]
    return [*dict.fromkeys(names), *(f"{names[0]}-{secrets.token_hex(3)}" for _ in range(3))]
