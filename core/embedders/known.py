"""The well-known models as presets: what a form of each embedder and reranker can be filled with."""

from __future__ import annotations

from typing import Any, Final

from core.inference.sections import Preset
from core.known import KNOWN, RERANKERS, KnownModel, KnownReranker

_NOTHING: Final = Preset("default", "", {}, needs_key=False)
_BY_NAME: Final = "fastembed"
"""It takes models by their names, so that there is no folder to be filled in."""


def preset_of(model: KnownModel, adapter: str = "builtin") -> Preset:
    """Ready to be filled into a form; what is written large in a path is to be filled in."""
    values: dict[str, Any] = _place(model, adapter)
    if adapter in ("builtin", "sentence-transformers"):
        values |= {"pooling": model.pooling}
        prefixes = {"query_prefix": model.query_prefix, "document_prefix": model.document_prefix}
        values |= {
            name: prefix for name, prefix in prefixes.items() if "\n" not in prefix
        }  # no field of a form holds it
    title = f"{model.repository} · {model.languages} · {model.dimension}d · {model.max_tokens} tokens"
    return Preset(model.name, title, {name: value for name, value in values.items() if value}, needs_key=False)


def presets_for(adapter: str) -> tuple[Preset, ...]:
    """Those that the embedder runs, in the order of a list to choose from."""
    return (_NOTHING, *(preset_of(model, adapter) for model in KNOWN if adapter in model.adapters))


def reranker_presets(adapter: str) -> tuple[Preset, ...]:
    """Likewise for a reranker."""
    found = (model for model in RERANKERS if adapter in model.adapters)
    return (_NOTHING, *(Preset(model.name, _title(model), _place(model, adapter), needs_key=False) for model in found))


def _place(model: KnownModel | KnownReranker, adapter: str) -> dict[str, Any]:
    return {"model": model.repository} if adapter == _BY_NAME else {"model_dir": f"/PATH/TO/{model.folder}"}


def _title(model: KnownReranker) -> str:
    return f"{model.repository} · {model.languages} · {model.max_tokens} tokens"


PRESETS: Final = presets_for("builtin")
