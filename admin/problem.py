"""Errors over HTTP: `application/problem+json` (RFC 9457), and in OpenAI's form where its clients are spoken to."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from sqlalchemy.exc import DBAPIError, IntegrityError
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from core.errors import (
    ConfigError,
    Conflict,
    DocumentError,
    KvasirError,
    LoginNeeded,
    MissingExtra,
    NotAccepted,
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


OPENAI_FOLDER: Final = "/v1/"
"""Below it OpenAI's clients are spoken to."""
_OPENAI_STATUS: Final = {422: 400, 507: 503}
_OPENAI_CODES: Final = {401: "invalid_api_key", 404: "unknown_url", 429: "rate_limit_exceeded"}


class Problem(JSONResponse):
    """The error in the form of the folder it is sent in."""

    media_type = "application/problem+json"
    in_openai_form: JSONResponse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(OPENAI_FOLDER):
            await self.in_openai_form(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, code: str | None = None, **more: Any
) -> Problem:
    """`code` is said to OpenAI's clients alone."""
    title = HTTPStatus(status).phrase
    made = Problem({"type": "about:blank", "title": title, "status": status, "detail": detail, **more}, status, headers)
    status = 400 if code == "context_length_exceeded" else _OPENAI_STATUS.get(status, status)
    param = next((error["field"] for error in more.get("errors", ())), None)
    body = openai_error(status, detail, code=code, param=param)
    made.in_openai_form = JSONResponse(body, status, headers)
    return made


def openai_error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """The body of an error as OpenAI's clients read it."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code or _OPENAI_CODES.get(status)}}


def problem_of(error: KvasirError) -> Problem:
    """Says what the error says; of a database in trouble only that it is, since the rest is for the log."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    headers = {"retry-after": "5"} if isinstance(error, Unavailable) else None
    if isinstance(error, TooMany) and error.seconds:
        headers = {"retry-after": str(math.ceil(error.seconds))}
    if isinstance(error.__cause__, DBAPIError) and not isinstance(error.__cause__, IntegrityError):
        logger.warning("%s", error)
        return problem(status, tell("database_busy"), headers=headers)
    more: dict[str, Any] = {}
    if isinstance(error, NotAccepted):
        more["errors"] = [{"field": name, "message": says} for name, says in error.fields.items()]
    return problem(status, str(error), headers=headers, code=_code_of(error), **more)


def _code_of(error: KvasirError) -> str | None:
    if isinstance(error, NotFound):
        return "model_not_found"  # what OpenAI's clients can name is a model, if only one of a knowledge base
    return "context_length_exceeded" if isinstance(error, TooLarge) else None
