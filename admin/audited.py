"""Writes down every change that goes through the API, whatever routes there are."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import Request

from admin.auth import is_guest
from core.access import Identity
from core.app import Kvasir
from core.errors import KvasirError

logger = logging.getLogger(__name__)

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
NO_CHANGES: Final = frozenset(
    {
        "answers.rate",
        "answers.withdraw",
        "connections.check_connection",
        "conversations.ask",
        "conversations.change_conversation",
        "conversations.create_conversation",
        "conversations.delete_conversation",
        "me.log_out",
        "models.test_model",
        "models.try_settings",
        "playground.ask",
        "sources.preview_source",
        "sources.preview_source_again",
    }
)
"""Routes (module and function) that people use when they ask; what comes of them is kept anyway."""


async def audited(request: Request) -> AsyncIterator[None]:
    """A dependency of every route of the API. What raises an error has changed nothing, and is not written down."""
    body = await _body(request) if request.method not in _READING else {}
    yield
    endpoint = request.scope["endpoint"]
    kind = str(endpoint.__module__).rpartition(".")[2]
    action = f"{kind}.{endpoint.__name__}"
    identity: Identity | None = getattr(request.state, "identity", None)
    if request.method in _READING or action in NO_CHANGES or identity is None or is_guest(identity):
        return
    kvasir: Kvasir = request.app.state.kvasir
    try:
        await kvasir.audit.note(
            identity.person,
            action,
            kind=kind,
            object=_object(request, body),
            changes=body,
            address=request.client.host if request.client else "",
        )
    except KvasirError as error:
        logger.warning("the change %s was not written down: %s", action, error)


async def _body(request: Request) -> dict[str, Any]:
    if not request.headers.get("content-type", "").startswith("application/json"):
        return {}
    try:
        body = json.loads(await request.body())
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {"items": body}


def _object(request: Request, body: dict[str, Any]) -> str:
    named = [str(value) for value in request.path_params.values()]
    return " ".join(named) or str(body.get("name") or "")
