"""The `fastembed` embedder: models in ONNX, by a name that this library knows or from a folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from core.embedders.described import graph_bytes, open_described
from core.embedders.known import presets_for
from core.ports import Embedder
from core.settings import Settings

PRESETS: Final = presets_for("fastembed")


async def open_embedder(settings: Settings, progress: Callable[[str, float], None] | None = None) -> Embedder:
    """The embedder of the settings, its model loaded. Raises EmbedderUnavailable or ConfigError where it cannot be."""
    return await open_described("fastembed", settings, progress, memory)


def memory(settings: Settings) -> int:
    """Bytes of the graph's weights; 0 where they lie elsewhere, or are not fetched yet."""
    wanted = settings.embedder
    return 0 if wanted.base_url else graph_bytes(wanted.model_dir)
