"""The well-known models as presets: what a form of each embedder and reranker can be filled with."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from core.known import KNOWN, RERANKERS, KnownModel, KnownReranker, known_model
from core.sections import Preset

_NOTHING: Final = Preset("default", "", {}, needs_key=False)


def preset_of(model: KnownModel) -> Preset:
    """Ready to be filled into a form; the folder is to be named."""
    values: dict[str, Any] = {"model_dir": f"/PATH/TO/{model.folder}"}
    if model.shape != "instructor":
        values |= {"pooling": model.pooling}
        values |= {"query_prefix": model.query_prefix, "document_prefix": model.document_prefix}
    return Preset(
        model.name, title_of(model), {name: value for name, value in values.items() if value}, needs_key=False
    )


def reranker_preset(model: KnownReranker) -> Preset:
    """Likewise for a reranker."""
    title = f"{model.repository} · {model.languages} · {model.max_tokens} tokens"
    return Preset(model.name, title, {"model_dir": f"/PATH/TO/{model.folder}"}, needs_key=False)


def presets_for(shapes: Collection[str]) -> tuple[Preset, ...]:
    """Of the models of those shapes, in the order of a list to choose from."""
    return (_NOTHING, *(preset_of(model) for model in KNOWN if model.shape in shapes))


def named_presets(*repositories: str) -> tuple[Preset, ...]:
    """Of models that an adapter knows by their name, so that there is no folder to be named."""
    found = (known_model(name) for name in repositories)
    return (
        _NOTHING,
        *(Preset(one.name, title_of(one), {"model": one.repository}, needs_key=False) for one in found if one),
    )


def title_of(model: KnownModel) -> str:
    return f"{model.repository} · {model.languages} · {model.dimension}d · {model.max_tokens} tokens"


def reranker_presets(shapes: Collection[str]) -> tuple[Preset, ...]:
    return (_NOTHING, *(reranker_preset(model) for model in RERANKERS if model.shape in shapes))


PRESETS: Final = presets_for({"bert"})
"""Those that `builtin` runs; what is written large in a path is to be filled in."""
