"""The `sentence-transformers` reranker: any cross-encoder that this library runs, in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from core.embedders.described import loaded_bytes
from core.embedders.known import reranker_presets
from core.ports import Reranker
from core.rerankers.local import open_local
from core.settings import Settings

PRESETS: Final = reranker_presets("sentence-transformers")


async def open_reranker(
    settings: Settings, *, progress: Callable[[str, float], None] | None = None, **_: object
) -> Reranker:
    """The reranker of the settings, its model loaded. Raises Unavailable or ConfigError where it cannot be."""
    return await open_local(
        "sentence-transformers",
        settings,
        progress or (lambda _stage, _done: None),
        driver="sentence-transformers-reranker",
        memory=await asyncio.to_thread(memory, settings),
        on_gpu=settings.reranker.device == "cuda",
    )


def memory(settings: Settings) -> int:
    """Bytes that its weights take once they are loaded; 0 where they lie elsewhere."""
    wanted = settings.reranker
    return 0 if wanted.base_url else loaded_bytes(wanted.model_dir, wanted.precision)
