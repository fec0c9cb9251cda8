"""The `fastembed` embedder: models in ONNX, by a name that this library knows or from a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from core.embedders.described import graph_bytes, info_of
from core.embedders.known import presets_for
from core.embedders.local import open_local
from core.ports import Embedder
from core.settings import Settings

PRESETS: Final = presets_for("fastembed")


async def open_embedder(settings: Settings, progress: Callable[[str, float], None] | None = None) -> Embedder:
    """The embedder of the settings, its model loaded. Raises EmbedderUnavailable or ConfigError where it cannot be."""
    wanted = settings.embedder
    folder = None if wanted.base_url else wanted.model_dir
    return await open_local(
        "fastembed",
        settings,
        progress,
        describe=lambda card, background: info_of(card, background, folder),
        memory=await asyncio.to_thread(memory, settings),
        on_gpu=wanted.device == "cuda",
    )


def memory(settings: Settings) -> int:
    """Bytes of the graph's weights; 0 where they lie elsewhere, or are not fetched yet."""
    wanted = settings.embedder
    return 0 if wanted.base_url else graph_bytes(wanted.model_dir)
