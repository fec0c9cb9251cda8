"""Errors as people and programs get them over HTTP: `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import JSONResponse

from core.errors import (
    ConfigError,
    Conflict,
    DocumentError,
    KvasirError,
    LoginNeeded,
    MissingExtra,
    NotAllowed,
    NotFound,
    StorageFull,
    TooLarge,
    TooMany,
    Unavailable,
    UserError,
)

_STATUS: Final[tuple[tuple[type[KvasirError], int], ...]] = (
    # The first that fits holds.
    (NotFound, 404),
    (Conflict, 409),
    (LoginNeeded, 401),
    (NotAllowed, 403),
    (TooLarge, 413),
    (TooMany, 429),
    (UserError, 422),
    (DocumentError, 422),
    (StorageFull, 507),
    (Unavailable, 503),
    (MissingExtra, 503),
    (ConfigError, 503),
)


class Problem(JSONResponse):
    media_type = "application/problem+json"


def problem(status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Problem:
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return Problem(body, status, headers)


def problem_of(error: KvasirError) -> Problem:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return problem(status, str(error))
