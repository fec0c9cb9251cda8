"""The `exllamav3` engine: EXL3 and FP16 on NVIDIA cards of this machine."""

from __future__ import annotations

import asyncio
from typing import Final

from core.engines.exllama import presets_for
from core.engines.local import LocalEngine, Progress, open_local
from core.serving.driver import CannotLoad
from core.serving.drivers.exllama_options import memory_of, with_build_dir
from core.settings import Settings

PRESETS: Final = presets_for("exllamav3", "ExLlamaV3")


async def open_engine(settings: Settings, *, progress: Progress, **_: object) -> LocalEngine:
    """The engine of the settings, its model loaded in a process of its own."""
    own = with_build_dir(settings.exllamav3, settings.data_dir)
    needed = await asyncio.to_thread(memory, settings)
    settings = settings.model_copy(update={"exllamav3": own})
    return await open_local("exllamav3", settings, progress, memory=needed, on_gpu=True)


def memory(settings: Settings) -> int:
    """Bytes that the model takes on the cards, by its files; 0 where there are none to be read."""
    try:
        return memory_of(settings.exllamav3.model_dump(mode="json", exclude={"api_key"}), "exllamav3")
    except CannotLoad:  # the worker says why
        return 0
