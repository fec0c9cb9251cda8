"""What can be named as `model`: language models, embedders, and `kb:<name>` for what answers from documents."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter, Depends

from admin.deps import Caller, CallerDep, KvasirDep, may_ask
from core.access import Action
from core.app import Kvasir
from core.errors import NotFound
from core.texts import tell

router = APIRouter(prefix="/models", dependencies=[Depends(may_ask)])

KB: Final = "kb:"


@router.get("")
async def list_models(caller: CallerDep, kvasir: KvasirDep) -> dict[str, Any]:
    """The models that can be asked, and `kb:…` for each knowledge base."""
    return {"object": "list", "data": await _models(caller, kvasir)}


@router.get("/{model_id:path}")
async def read_model(model_id: str, caller: CallerDep, kvasir: KvasirDep) -> dict[str, Any]:
    """One of them, by its id; `kb:a,b` stands for several knowledge bases."""
    if model_id.startswith(KB):
        names = await asked_kbs(model_id, caller)
        return _model(KB + ",".join(names), "kvasir")
    for model in await _models(caller, kvasir):
        if model_id in (model["id"], model["owned_by"]):
            return model
    raise NotFound(tell("no_such_model", name=model_id))


async def asked_kbs(model_id: str, caller: Caller) -> tuple[str, ...]:
    """Names of the knowledge bases of `kb:<name>,<name>…`. Raises NotFound for those the caller may not ask."""
    names = [name.strip() for name in model_id.removeprefix(KB).split(",")]
    return tuple(dict.fromkeys([(await caller.kb(name, Action.ASK)).name for name in names]))


async def _models(caller: Caller, kvasir: Kvasir) -> list[dict[str, Any]]:
    found = [_model(one.info.model or one.info.name, one.info.name) for one in await kvasir.completions.models()]
    found += [_model(one.info.name, name) for name, one in kvasir.embedder.open_by_name().items()]
    return found + [_model(KB + kb.name, "kvasir", kb.created_at) for kb in await caller.kbs(Action.ASK)]


def _model(name: str, owner: str, created: datetime | None = None) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(created.timestamp()) if created else 0, "owned_by": owner}
