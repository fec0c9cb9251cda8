"""The `ctranslate2` engine: a model that was converted once, on this machine's CPU or its CUDA card."""

from __future__ import annotations

import asyncio
from typing import Final

from core.engines.local import LocalEngine, Progress, open_local
from core.inference.sections import Preset
from core.serving.drivers.ctranslate2_folder import memory_bytes
from core.settings import Settings

_CARD = {"device": "cuda", "compute_type": "int8_float16", "parallel": 2}
PRESETS: Final = (
    Preset("ctranslate2", "", {}, needs_key=False),
    Preset("ctranslate2-card", "CTranslate2 · CUDA card / CUDA 显卡", _CARD, needs_key=False),
)


async def open_engine(settings: Settings, *, progress: Progress, **_: object) -> LocalEngine:
    """The engine of the settings, its model loaded in a process of its own."""
    needed = await asyncio.to_thread(memory, settings)
    return await open_local(
        "ctranslate2", settings, progress, memory=needed, on_gpu=settings.ctranslate2.device == "cuda"
    )


def memory(settings: Settings) -> int:
    """Bytes of weights and cache together; 0 where there is nothing to be read."""
    chosen = settings.ctranslate2
    return memory_bytes(chosen.model_path, chosen.context_size, chosen.parallel) if chosen.model_path else 0
