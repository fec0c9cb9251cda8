"""Knowledge bases."""

from __future__ import annotations

from fastapi import APIRouter

from admin.deps import CallerDep, KvasirDep
from admin.schemas import KbOut, Kbs, NewKb
from core.access import Action

router = APIRouter(prefix="/kbs")


@router.get("")
async def list_kbs(caller: CallerDep) -> Kbs:
    """Those the caller may ask."""
    return Kbs(items=[KbOut.model_validate(kb) for kb in await caller.kbs(Action.ASK)])


@router.post("", status_code=201)
async def create_kb(given: NewKb, caller: CallerDep, kvasir: KvasirDep) -> KbOut:
    caller.require(Action.MANAGE)
    return KbOut.model_validate(await kvasir.knowledge.create(**given.model_dump()))


@router.delete("/{name}", status_code=204)
async def delete_kb(name: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    kb = await caller.kb(name, Action.MANAGE)
    await kvasir.knowledge.delete(kb.name)
