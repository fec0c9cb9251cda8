"""Errors as people and programs get them over HTTP: `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from sqlalchemy.exc import DBAPIError
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
from core.texts import tell

logger = logging.getLogger(__name__)

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
    """Says what the error says; of a database in trouble only that it is, since the rest is for the log."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    headers = {"retry-after": "5"} if isinstance(error, Unavailable) else None
    if isinstance(error.__cause__, DBAPIError):
        logger.warning("%s", error)
        return problem(status, tell("database_busy"), headers=headers)
    return problem(status, str(error), headers=headers)
