"""The `ctranslate2` engine: a model that was converted once, on this machine's CPU or its CUDA card."""

from __future__ import annotations

from core.engines.local import LocalEngine, Progress, open_local
from core.settings import Settings


async def open_engine(settings: Settings, *, progress: Progress, **_: object) -> LocalEngine:
    """The engine of the settings, its model loaded in a process of its own."""
    return await open_local("ctranslate2", settings, progress, on_gpu=settings.ctranslate2.device == "cuda")
