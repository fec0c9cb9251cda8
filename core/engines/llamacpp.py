"""The `llamacpp` engine: a GGUF file, run by llama.cpp on this machine."""

from __future__ import annotations

import asyncio
import shutil
from typing import Final

from core.engines.local import LocalEngine, Progress, open_local
from core.inference.sections import Preset
from core.serving.driver import CannotLoad
from core.serving.drivers.llamacpp_file import find_file, memory_bytes, read_header
from core.settings import Settings

_LITTLE = {"context_size": 4096, "cache": "q8_0", "parallel": 1}
_MANY = {"context_size": 4096, "cache_tokens": 32_768, "parallel": 8, "queue": 64}
PRESETS: Final = (
    Preset("llamacpp", "", {}, needs_key=False),
    Preset("llamacpp-little-memory", "llama.cpp · little memory / 内存较小", _LITTLE, needs_key=False),
    Preset("llamacpp-many-people", "llama.cpp · many people / 多人同时", _MANY, needs_key=False),
)


async def open_engine(settings: Settings, *, progress: Progress, **_: object) -> LocalEngine:
    """The engine of the settings, its model loaded in a process of its own."""
    needed = 0 if _may_be_on_a_card(settings) else await asyncio.to_thread(memory, settings)
    return await open_local("llamacpp", settings, progress, memory=needed)


def memory(settings: Settings) -> int:
    """Bytes of weights and cache together, by the file's header; 0 where there is none to be read."""
    chosen = settings.llamacpp
    if chosen.model_path is None:
        return 0
    try:
        header = read_header(find_file(chosen.model_path))
        return memory_bytes(header, chosen.context_size, chosen.cache_tokens, chosen.cache)
    except CannotLoad:  # the worker says why
        return 0


def _may_be_on_a_card(settings: Settings) -> bool:
    """Then nobody can say beforehand how much of it this machine's own memory has to hold."""
    return settings.llamacpp.gpu_layers != 0 and shutil.which("nvidia-smi") is not None
