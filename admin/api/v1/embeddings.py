"""Vectors of texts, by an embedder that also serves the knowledge bases."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from admin.api.v1.saying import tokens_of
from admin.api.v1.schemas import Embed
from admin.deps import CallerDep, KvasirDep, may_ask, take_turn
from admin.stream import while_there
from core.app import Kvasir
from core.errors import EmbedderUnavailable, NotFound, UserError
from core.ports import Embedder
from core.texts import tell
from core.types import Matrix

router = APIRouter(prefix="/embeddings", dependencies=[Depends(may_ask)])

_BATCH: Final = 32
"""Between two batches others have their turn, and a client that went is noticed."""


@router.post("")
async def embed(given: Embed, caller: CallerDep, kvasir: KvasirDep, request: Request) -> Response:
    """One vector a text; texts longer than the embedder reads are cut by it."""
    embedder = _embedder(given.model, kvasir)
    if given.dimensions not in (None, embedder.info.dimension):
        raise UserError(tell("api_dimensions", dimension=embedder.info.dimension))
    await take_turn(request.app.state.questions, caller, request)
    vectors = await while_there(request, _vectors(embedder, given.input))
    return await asyncio.to_thread(_reply, given, vectors)


def _embedder(model: str, kvasir: Kvasir) -> Embedder:
    """Raises EmbedderUnavailable, or NotFound where another model is wanted."""
    found = kvasir.embedder.open_by_name()
    if not found:
        state = kvasir.embedder_state
        raise EmbedderUnavailable(tell("api_no_embedder", reason=state.reason or state.stage))
    if model in found:
        return found[model]
    for embedder in found.values():
        if embedder.info.name == model:
            return embedder
    raise NotFound(tell("no_such_model", name=model))


async def _vectors(embedder: Embedder, texts: Sequence[str]) -> Matrix:
    batches = [await embedder.embed_documents(texts[at : at + _BATCH]) for at in range(0, len(texts), _BATCH)]
    return np.concatenate(batches)


def _reply(given: Embed, vectors: Matrix) -> JSONResponse:
    def shown(row: Any) -> Any:
        little = row.astype("<f4")
        return base64.b64encode(little.tobytes()).decode() if given.encoding_format == "base64" else little.tolist()

    data = [{"object": "embedding", "index": n, "embedding": shown(row)} for n, row in enumerate(vectors)]
    tokens = sum(tokens_of(text) for text in given.input)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": data, "model": given.model, "usage": usage})
