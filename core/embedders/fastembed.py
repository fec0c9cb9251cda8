"""The `fastembed` embedder: models in ONNX, by a name that this library knows or from a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from core.embedders.described import graph_bytes, info_of
from core.embedders.known import named_presets
from core.embedders.local import open_local
from core.ports import Embedder
from core.settings import Settings

PRESETS: Final = named_presets(
    "BAAI/bge-small-zh-v1.5",
    "BAAI/bge-small-en-v1.5",
    "BAAI/bge-base-en-v1.5",
    "BAAI/bge-large-en-v1.5",
    "jinaai/jina-embeddings-v2-base-zh",
    "jinaai/jina-embeddings-v2-base-en",
    "intfloat/multilingual-e5-large",
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    "sentence-transformers/all-MiniLM-L6-v2",
    "mixedbread-ai/mxbai-embed-large-v1",
    "nomic-ai/nomic-embed-text-v1.5",
    "Qwen/Qwen3-Embedding-0.6B",
    "google/embeddinggemma-300m",
)


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
