"""The web application: every route, behind the guard and the gate; and the one place where errors become HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute

from admin import openapi
from admin.api import (
    answers,
    audit,
    bulk,
    channels,
    chunks,
    connections,
    conversations,
    curated,
    documents,
    evaluations,
    generations,
    grants,
    health,
    jobs,
    kbs,
    me,
    models,
    oidc,
    own,
    people,
    persons,
    playground,
    records,
    reviews,
    schedules,
    sources,
    statistics,
    versions,
)
from admin.api.v1 import completions, embeddings
from admin.api.v1 import models as openai_models
from admin.audited import audited
from admin.auth import Gate
from admin.chat.page import add_pages
from admin.chat.platform import Handler, WebPlatform
from admin.console.app import add_console
from admin.guard import Guard, Policy
from admin.problem import problem, problem_of
from admin.rate import Rate
from core.app import Kvasir
from core.errors import KvasirError
from core.texts import tell

API = "/api/v1"
OPENAI = "/v1"
ROUTERS: Final = (
    me.router,
    kbs.router,
    grants.router,
    generations.router,
    documents.router,
    bulk.router,
    chunks.router,
    versions.router,
    jobs.router,
    conversations.router,
    answers.router,
    schedules.router,
    sources.router,
    models.router,
    connections.router,
    channels.router,
    audit.router,
    own.router,
    people.router,
    people.open_router,
    statistics.router,
    records.router,
    reviews.router,
    curated.router,
    persons.router,
    playground.router,
    evaluations.router,
)
"""Everything below `API`."""
_version = cache(version)  # it reads files


def create_app(kvasir: Kvasir, handler: Handler) -> FastAPI:
    """The application, ready to be served; `handler` answers what is asked in the chat page. Raises ConfigError."""
    app = FastAPI(
        title="Kvasir",
        version=_version("kvasir"),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "auto_configure": False},
    )
    app.state.kvasir = kvasir
    app.state.platform = WebPlatform(handler)
    app.state.questions = Rate(kvasir.limits, "questions", kvasir.settings.web.questions_per_minute)
    app.state.conversations = Rate(kvasir.limits, "conversations", kvasir.settings.web.questions_per_minute)
    app.state.closing = asyncio.Event()
    app.router.routes.extend(_operations())
    add_pages(app)
    add_console(app, kvasir)
    # The last one added is the outermost.
    app.add_middleware(Gate, accounts=kvasir.accounts, web=kvasir.settings.web)
    app.add_middleware(Guard, policy=Policy.of(kvasir.settings))
    _add_error_handlers(app)
    return app


@cache
def _operations() -> Sequence[BaseRoute]:
    """The same for each application, as it takes long to work them out."""
    api = APIRouter(redirect_slashes=False, generate_unique_id_function=openapi.name_of)
    api.include_router(health.router)
    for router in ROUTERS:
        api.include_router(
            router, prefix=API, dependencies=[Depends(audited, scope="function")], responses=openapi.ERRORS
        )
    api.include_router(openapi.router, prefix=API)
    api.include_router(oidc.router)
    for part in (openai_models, completions, embeddings):
        api.include_router(part.router, prefix=OPENAI, responses=openapi.OPENAI_ERRORS)
    return api.routes


def work_out_routes(app: FastAPI) -> None:
    """What FastAPI would do on the first request: half a second in which the event loop would stand still."""
    for _ in iter_route_contexts(app.routes):
        pass


def _add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(KvasirError, _of_ours)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(ClientDisconnect, _of_nobody)


async def _of_ours(_request: Request, error: Exception) -> Response:
    assert isinstance(error, KvasirError)  # noqa: S101  what it is registered for
    return problem_of(error)


async def _of_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  what it is registered for
    sentences = {404: "no_such_page", 405: "no_such_method"}
    key = sentences.get(error.status_code)
    return problem(error.status_code, tell(key) if key else error.detail, headers=error.headers)


async def _of_validation(_request: Request, error: Exception) -> Response:
    """Names the fields and the rules; never what was sent, which may be a password."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  what it is registered for
    errors = [{"field": _field(item), "message": str(item["msg"])} for item in error.errors()[:20]]
    detail = "; ".join(f"{item['field']}: {item['message']}" for item in errors[:3])
    return problem(422, tell("bad_request", detail=detail), errors=errors)


def _field(item: Any) -> str:
    return ".".join(str(part)[:100] for part in item["loc"][1:6]) or str(item["loc"][0])


async def _of_nobody(_request: Request, _error: Exception) -> Response:
    return problem(400, tell("client_gone"))
