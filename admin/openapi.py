"""The document that describes the API (OpenAPI 3.1), served beside it; a page of the console shows it."""

from __future__ import annotations

import asyncio
from threading import Lock
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import Field
from starlette.responses import Response

from admin.auth import is_open
from admin.schemas import Out
from core.texts import say

MEDIA_TYPE: Final = "application/problem+json"


class FieldProblem(Out):
    field: str
    message: str


class ProblemOut(Out):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="One sentence that a person may read.")
    errors: list[FieldProblem] | None = None


_MEANINGS: Final = {
    400: "The request cannot be read.",
    401: "Nobody is logged in, or the key is not good.",
    403: "The caller may not do this.",
    404: "There is no such thing, or the caller may not see it.",
    405: "The address knows no such method.",
    408: "The request took too long.",
    409: "It does not fit the present state.",
    413: "Something is too large.",
    415: "The body is of another kind than is asked for.",
    421: "The request is for another host.",
    422: "A value will not do; `errors` says which.",
    429: "That was too much in a short time.",
    503: "A part that is needed is away.",
    507: "The disk is full.",
}
ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {
        "description": meaning,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}}},
    }
    for status, meaning in _MEANINGS.items()
}
"""What every route may answer besides."""

OPENAI_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {
        "description": meaning,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIErrorOut"}}},
    }
    for status, meaning in _MEANINGS.items()
    if status != 507
}
"""The same in the form of OpenAI's clients."""


class OpenAIError(Out):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorOut(Out):
    """What went wrong, as OpenAI's clients read it."""

    error: OpenAIError


router = APIRouter(include_in_schema=False)
_writing: Final = Lock()


@router.get("/openapi.json")
async def document(request: Request) -> Response:
    """This API as an OpenAPI document."""
    return Response(await asyncio.to_thread(_written, request.app), media_type="application/json")


def _written(app: FastAPI) -> bytes:
    """The document as it is sent; to make it takes a second or two, in which nobody else shall wait."""
    with _writing:
        if not hasattr(app.state, "openapi"):
            app.state.openapi = JSONResponse(described(app)).body
    written: bytes = app.state.openapi
    return written


def name_of(route: APIRoute) -> str:
    """An operation's id: module and function, e.g. `kbs.create_kb`."""
    return f"{route.endpoint.__module__.removeprefix('admin.api.')}.{route.endpoint.__name__}"


def described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the routes below `/api/v1` and `/v1`; each is tagged with its noun."""
    found = get_openapi(
        title="Kvasir",
        version=app.version,
        summary=say("api_summary", "en"),
        description=say("api_description", "en"),
        routes=app.routes,
    )
    parts = found.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    for model in (ProblemOut, FieldProblem, OpenAIErrorOut, OpenAIError):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        schemas[model.__name__] = schema
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    parts["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": say("api_key_hint", "en")},
        "login": {"type": "apiKey", "in": "cookie", "name": "kvasir_session"},
    }
    found["security"] = [{"key": []}, {"login": []}]
    for path, methods in found["paths"].items():
        for operation in methods.values():
            operation["tags"] = [operation["operationId"].rpartition(".")[0]]
            if is_open(path):
                operation["security"] = []
    return found
