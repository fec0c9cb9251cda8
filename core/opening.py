"""Opens engines, embedders and rerankers by the names of their adapters, which are found by entry point.

Beside its `open_…` function an adapter's module may have `memory(settings)`, the bytes that it will take, `PRESETS`,
ready settings for forms (`sections.Preset`), and `CHOICES`, the values that a field of plain text can have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core import registry
from core.embedders.cache import CachedEmbedder
from core.errors import KvasirError
from core.inference import sections
from core.inference.models import Model
from core.inference.pool import Progress
from core.inference.sections import KINDS, FormField, Kind, Preset
from core.ports import Embedder, Engine, Reranker
from core.serving.memory import weight_bytes
from core.settings import Settings


class Adapters:
    """What is installed; looked for once, since that takes longer than many an answer."""

    def __init__(self) -> None:
        self._names: dict[Kind, list[str]] = {kind: registry.names(_group(kind)) for kind in KINDS}

    def names(self, kind: Kind) -> Sequence[str]:
        return self._names[kind]

    def fields(self, kind: Kind, adapter: str) -> list[FormField]:
        choices: Mapping[str, tuple[str, ...]] = self._beside(kind, adapter, "CHOICES", {})
        return sections.fields_of(kind, adapter, choices)

    def presets(self, kind: Kind, adapter: str) -> Sequence[Preset]:
        found: Sequence[Preset] = self._beside(kind, adapter, "PRESETS", ())
        return found

    def memory(self, model: Model, settings: Settings) -> int:
        """Bytes of the weights that it would load; 0 for what runs elsewhere, or where nobody can say."""
        own: Callable[[Settings], int] | None = self._beside(model.kind, model.adapter, "memory", None)
        if own is not None:
            return own(settings)
        return sum(weight_bytes(path) for path in sections.paths_of(settings, model.kind, model.adapter))

    def _beside(self, kind: Kind, adapter: str, attribute: str, otherwise: Any) -> Any:
        try:
            return registry.beside(_group(kind), adapter, attribute, otherwise)
        except KvasirError:  # it is not installed, or lacks a package: whoever opens it is told
            return otherwise


async def open_embedder(settings: Settings, progress: Progress) -> Embedder:
    """That of the section `embedder`, with the vectors that are kept already."""
    open_one = registry.load(_group("embedder"), settings.embedder.kind)
    embedder: Embedder = await open_one(settings, progress)
    return CachedEmbedder(embedder, settings.data_dir / "embeddings.db") if settings.embedder.cache else embedder


async def open_added_embedder(_model: Model, settings: Settings, progress: Progress) -> Embedder:
    return await open_embedder(settings, progress)


class Opener:
    """Opens what needs the embedder of the moment."""

    def __init__(self, embedder: Callable[[], Embedder | None]) -> None:
        self._embedder = embedder

    async def engine(self, model: Model, settings: Settings, progress: Progress) -> Engine:
        open_one = registry.load(_group("engine"), model.adapter)
        engine: Engine = await open_one(settings, embedder=self._embedder, progress=progress)
        return engine

    async def reranker(self, model: Model, settings: Settings, progress: Progress) -> Reranker:
        open_one = registry.load(_group("reranker"), model.adapter)
        reranker: Reranker = await open_one(settings, embedder=self._embedder, progress=progress)
        return reranker


def _group(kind: Kind) -> str:
    return f"kvasir.{kind}s"
