"""Login through the identity provider: there, and back again."""

from __future__ import annotations

import logging
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response

from admin.auth import local_path, set_session
from admin.deps import KvasirDep
from admin.guard import is_https
from core.app import Kvasir
from core.errors import KvasirError, LoginNeeded
from core.identity.oidc import NoAccount

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/login/oidc", include_in_schema=False)

_COOKIE: Final = "kvasir_oidc"
_SECONDS: Final = 600


@router.get("")
async def begin(request: Request, kvasir: KvasirDep, next: Annotated[str, Query(max_length=2000)] = "/") -> Response:
    """On to the provider. The state is kept in a cookie, so that only this browser can come back with it."""
    begun = await kvasir.oidc.begin(_address(request, kvasir), local_path(next))
    response = RedirectResponse(begun.url, 303, {"cache-control": "no-store"})
    secure = is_https(request.scope, kvasir.settings.web)
    response.set_cookie(
        _COOKIE, begun.state, max_age=_SECONDS, path="/login/oidc", httponly=True, samesite="lax", secure=secure
    )
    return response


@router.get("/callback")
async def callback(
    request: Request,
    kvasir: KvasirDep,
    state: Annotated[str, Query(max_length=200)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
    iss: Annotated[str, Query(max_length=500)] = "",
) -> Response:
    """Back from the provider; what does not fit leads to the login page with its sentence."""
    kept = cookie_parser(request.headers.get("cookie", "")).get(_COOKIE, "")
    address = request.client.host if request.client else ""
    try:
        proven = await kvasir.oidc.finish(_address(request, kvasir), state=state, kept=kept, code=code, issuer=iss)
        agent = request.headers.get("user-agent", "")
        login = await kvasir.accounts.open_session(proven.user, user_agent=agent, address=address)
    except KvasirError as error:
        logger.warning("a login through the identity provider was refused: %s", error)
        return RedirectResponse(f"/login?refused={_kind(error)}", 303, {"cache-control": "no-store"})
    await kvasir.audit.note(proven.user.person, "oidc.log_in", kind="me", address=address)
    response = RedirectResponse(local_path(proven.next), 303, {"cache-control": "no-store"})
    response.delete_cookie(_COOKIE, path="/login/oidc")
    set_session(response, request.scope, kvasir.settings.web, login.token)
    return response


def _address(request: Request, kvasir: Kvasir) -> str:
    """Where the provider sends people back to."""
    public = kvasir.settings.web.public_url.rstrip("/")
    return f"{public or str(request.base_url).rstrip('/')}/login/oidc/callback"


def _kind(error: KvasirError) -> str:
    """What the login page says more about."""
    match error:
        case NoAccount():
            return "unknown"
        case LoginNeeded():
            return "refused"
    return "away"
