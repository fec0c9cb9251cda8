"""An identity provider on loopback that speaks OpenID Connect on the wire, with every lie a test may want."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from joserfc import jwk, jwt
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response


@cache
def _key(_name: str) -> jwk.RSAKey:
    """One for each name; to make one takes half a second."""
    return jwk.RSAKey.generate_key(2048, {"kid": "1"})


@dataclass
class Provider:
    """Whoever comes is `claims`; `lies` replace what its ID token says."""

    server: HTTPServer
    claims: dict[str, Any] = field(default_factory=lambda: {"sub": "s1", "preferred_username": "Ann"})
    lies: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "RS256"
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key, self.other = _key("own"), _key("other")
        self.signing: Any = self.key
        self.issuer = self.server.url_for("").rstrip("/")
        self.server.expect_request("/.well-known/openid-configuration").respond_with_handler(self._about)
        self.server.expect_request("/keys").respond_with_handler(self._keys)
        self.server.expect_request("/token").respond_with_handler(self._token)

    def consent(self, url: str, code: str = "c0de") -> dict[str, str]:
        """What the browser brings back, after the person has agreed at `url`."""
        asked = dict(parse_qsl(urlsplit(url).query))
        self.codes[code] = asked
        return {"state": asked["state"], "code": code}

    def _about(self, _request: Request) -> Response:
        return _json(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            }
        )

    def _keys(self, _request: Request) -> Response:
        return _json({"keys": [self.key.as_dict(private=False)]})

    def _token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs(request.get_data(as_text=True)).items()}
        self.seen.append(request.headers.get("authorization", ""))
        asked = self.codes.pop(form["code"], None)
        verified = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if (
            asked is None
            or verified.decode() != asked["code_challenge"]
            or form["redirect_uri"] != asked["redirect_uri"]
        ):
            return _json({"error": "invalid_grant"}, 400)
        now = int(time.time())
        told = {
            "iss": self.issuer,
            "aud": asked["client_id"],
            "exp": now + 300,
            "iat": now,
            "nonce": asked["nonce"],
            "email": "ann@example.org",
            "email_verified": True,
            **self.claims,
            **self.lies,
        }
        told = {name: value for name, value in told.items() if value is not None}
        token = jwt.encode({"alg": self.algorithm, "kid": "1"}, told, self.signing, algorithms=[self.algorithm])
        return _json({"id_token": token, "access_token": "at", "token_type": "Bearer"})


def _json(document: Any, status: int = 200) -> Response:
    return Response(json.dumps(document), status, content_type="application/json")
