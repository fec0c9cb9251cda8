"""The `sentence-transformers` embedder: any model folder that this library runs, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from core.embedders.described import loaded_bytes, open_described
from core.embedders.known import presets_for
from core.ports import Embedder
from core.settings import Settings

PRESETS: Final = presets_for("sentence-transformers")


async def open_embedder(settings: Settings, progress: Callable[[str, float], None] | None = None) -> Embedder:
    """The embedder of the settings, its model loaded. Raises EmbedderUnavailable or ConfigError where it cannot be."""
    return await open_described("sentence-transformers", settings, progress, memory)


def memory(settings: Settings) -> int:
    """Bytes that its weights take once they are loaded; 0 where they lie elsewhere."""
    wanted = settings.embedder
    return 0 if wanted.base_url else loaded_bytes(wanted.model_dir, wanted.precision)
