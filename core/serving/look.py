"""How a model that is set up for this machine would do, without loading it."""

from __future__ import annotations

import asyncio

from core.inference import sections
from core.ports import Finding
from core.serving.client import Lost, health
from core.serving.memory import lacking, weight_bytes
from core.serving.plan import plan_of
from core.serving.workers import RemoteWorker
from core.settings import LocalModelSettings, Settings
from core.texts import spoken, tell

_SECONDS = 3.0
_GB = 1 << 30


async def look(settings: Settings, adapter: str, name: str, *, is_open: bool) -> Finding | None:
    """Whether an engine's model is there and fits, or its worker answers; None for one that runs no model here.

    `is_open`: it is loaded already, and so needs no more room.
    """
    section = sections.section_of("engine", adapter)
    values = getattr(settings, section) if section else None
    if not isinstance(values, LocalModelSettings):
        return None
    what, plan = tell("doctor_engine", name=name), plan_of(settings, "engine", adapter)
    if plan.base_url:
        address = RemoteWorker(plan, lambda _stage, _done: None).address
        try:
            async with address.client() as asking:
                await health(asking, _SECONDS)
        except Lost:
            return Finding(what, False, tell("engine_no_connection", host=address.host))
        return Finding(what, True, tell("doctor_works"))
    path = values.model_path
    if path is None or not path.exists():
        return Finding(what, False, tell("doctor_no_model", path=path or "-"))
    size = await asyncio.to_thread(weight_bytes, path)
    trouble = None if is_open else await lacking(plan_of(settings, "engine", adapter, memory=size))
    if trouble is not None:
        return Finding(what, False, trouble.say(spoken()))
    return Finding(what, True, tell("doctor_model", path=path, gigabytes=f"{size / _GB:.1f}"))
