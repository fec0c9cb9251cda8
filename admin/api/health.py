"""For those who watch the service."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from admin.deps import KvasirDep
from admin.problem import problem
from core.texts import tell

router = APIRouter()


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> PlainTextResponse:
    """`ok` while the process lives."""
    return PlainTextResponse("ok")


@router.get("/readyz", response_class=PlainTextResponse, responses={503: {"description": "Not now."}})
async def readyz(kvasir: KvasirDep) -> Response:
    """Whether questions can be taken now."""
    try:
        async with asyncio.timeout(5):
            await kvasir.accounts.any_user()
    except TimeoutError:
        return problem(503, tell("database_busy"))
    return PlainTextResponse("ready")
