"""The `fastembed` reranker: cross-encoders in ONNX, by a name that this library knows or from a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from core.embedders.described import graph_bytes
from core.embedders.known import reranker_presets
from core.ports import Reranker
from core.rerankers.local import open_local
from core.settings import Settings

PRESETS: Final = reranker_presets("fastembed")


async def open_reranker(
    settings: Settings, *, progress: Callable[[str, float], None] | None = None, **_: object
) -> Reranker:
    """The reranker of the settings, its model loaded. Raises Unavailable or ConfigError where it cannot be."""
    return await open_local(
        "fastembed",
        settings,
        progress or (lambda _stage, _done: None),
        driver="fastembed-reranker",
        memory=await asyncio.to_thread(memory, settings),
        on_gpu=settings.reranker.device == "cuda",
    )


def memory(settings: Settings) -> int:
    """Bytes of the graph's weights; 0 where they lie elsewhere, or are not fetched yet."""
    wanted = settings.reranker
    return 0 if wanted.base_url else graph_bytes(wanted.model_dir)
