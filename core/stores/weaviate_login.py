"""A token for a Weaviate server by OpenID Connect with client credentials.

The client's own way needs one HTTP library where authlib takes another, and fails; as a bearer token, which is how it
sends an API key, the same token opens both ports.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from core.errors import ConfigError
from core.settings import WeaviateSettings
from core.texts import tell

_SECONDS: Final = 10.0
_LIFETIME: Final = 60.0
"""Of a token that does not say how long it lives."""
_BEFORE: Final = 30.0
"""Seconds before its end at which a token is renewed, and of a short-lived one half of its life."""


@dataclass(frozen=True, slots=True)
class Token:
    value: str
    renew_at: float
    """On the monotonic clock."""


async def log_in(settings: WeaviateSettings, address: str) -> Token:
    """Ask the provider that the server names. Raises ConfigError, PermissionError or ConnectionError."""
    secret = settings.oidc_client_secret
    assert secret is not None  # noqa: S101  nobody calls it without
    try:
        async with asyncio.timeout(_SECONDS), httpx2.AsyncClient(follow_redirects=False, trust_env=False) as client:
            found = await client.get(f"{address}/v1/.well-known/openid-configuration")
            if found.status_code == httpx2.codes.NOT_FOUND:
                raise ConfigError(tell("weaviate_no_oidc", url=address))
            told = _table(found)
            endpoint = str(_table(await client.get(str(told["href"])))["token_endpoint"])
            scopes = [*map(str, told.get("scopes") or ()), *settings.oidc_scopes]
            asked = {
                "grant_type": "client_credentials",
                "client_id": str(told["clientId"]),
                "client_secret": secret.get_secret_value(),
                "scope": " ".join(dict.fromkeys(scopes)),
            }
            given = await client.post(endpoint, data=asked)
            if given.status_code in (httpx2.codes.BAD_REQUEST, httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
                raise PermissionError("unauthorized by the identity provider")
            token = _table(given)
            life = float(token.get("expires_in") or _LIFETIME)
            return Token(str(token["access_token"]), time.monotonic() + max(life - _BEFORE, life / 2))
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, KeyError, TypeError, ValueError) as error:
        raise ConnectionError("the identity provider cannot be reached") from error


def _table(response: httpx2.Response) -> Mapping[str, Any]:
    """Raises HTTPError or ValueError."""
    response.raise_for_status()
    found = response.json()
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found
