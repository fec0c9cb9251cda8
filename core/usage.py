"""How an embedding model wants to be used: by the settings, `kvasir.json` in its folder, its authors, and its files.

What comes first in that row holds. Nothing here loads a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.errors import ConfigError
from core.known import Pools, known_model

OVERRIDES: Final = "kvasir.json"
_TOKENIZER: Final = "tokenizer.json"
_NAMED: Final = ("name", "scripts", "weight", "query_prefix", "document_prefix")
_QUERY: Final = ("query", "retrieval.query", "search_query", "Retrieval-query", "s2p_query")
_DOCUMENT: Final = ("document", "passage", "corpus", "retrieval.passage", "search_document", "Retrieval-document")
_WEIGHT: Final = 0.4


@dataclass(frozen=True, slots=True)
class Usage:
    name: str
    scripts: tuple[str, ...]
    """Unicode scripts it knows; `*` for all."""
    weight: float
    """Weight of its scores in fusion, 0..1."""
    query_prefix: str = ""
    document_prefix: str = ""
    pooling: Pools | None = None
    """As its authors say, for a folder that does not; likewise what follows."""
    max_tokens: int | None = None


def usage_of(folder: Path, *, query_prefix: str = "", document_prefix: str = "") -> Usage:
    """How the model in the folder is to be used; the prefixes are those of the settings.

    Raises ConfigError where a file of it cannot be read, or `kvasir.json` says what it may not.
    """
    name = folder.resolve().name
    known = known_model(name)
    prompts = table(folder / "config_sentence_transformers.json").get("prompts")
    prompts = prompts if isinstance(prompts, dict) else {}
    own = _overrides(folder)
    found: dict[str, Any] = {
        "name": name,
        "scripts": known.scripts if known else scripts_of(folder),
        "weight": known.weight if known else _WEIGHT,
        "query_prefix": (known.query_prefix if known else "") or _prompt(prompts, _QUERY),
        "document_prefix": (known.document_prefix if known else "") or _prompt(prompts, _DOCUMENT),
    }
    found |= own
    if query_prefix:
        found["query_prefix"] = query_prefix
    if document_prefix:
        found["document_prefix"] = document_prefix
    found["scripts"] = tuple(found["scripts"])
    if known:
        found |= {"pooling": known.pooling, "max_tokens": known.max_tokens}
    return Usage(**found)


def pooled_by(folder: Path) -> frozenset[str]:
    """How the folder says that it pools, by sentence-transformers' names: `cls`, `mean`, …; empty: it does not say."""
    values = table(folder / "1_Pooling" / "config.json")
    mode = values.get("pooling_mode", ())  # since version 6
    modes = mode if isinstance(mode, (list, tuple)) else (mode,)
    old = (name for name, on in values.items() if name.startswith("pooling_mode_") and on is True)
    found = [*modes, *(name.removeprefix("pooling_mode_").removesuffix("_tokens") for name in old)]
    return frozenset(str(one).removesuffix("_token") for one in found)


def scripts_of(folder: Path) -> tuple[str, ...]:
    """Which scripts the model's vocabulary is made for; an English one holds only a few hundred Han characters."""
    model = table(folder / _TOKENIZER).get("model", {})
    vocabulary = model.get("vocab", ()) if isinstance(model, dict) else ()
    if len(vocabulary) >= 100_000:
        return ("*",)
    words = (str(word[0] if isinstance(word, list) else word).removeprefix("##") for word in vocabulary)
    han = sum(len(word) == 1 and "\u4e00" <= word <= "\u9fff" for word in words)
    return ("Latin", "Han") if han >= 3000 else ("Latin",)


def table(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none. Raises ConfigError for what is no JSON."""
    value = read_json(path, {})
    return value if isinstance(value, dict) else {}


def read_json(path: Path, default: Any) -> Any:
    """What stands in a JSON file. Raises ConfigError for what is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return default
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON; get the model's files once more.") from error


def _prompt(prompts: Mapping[str, Any], names: tuple[str, ...]) -> str:
    found = next((prompts[name] for name in names if prompts.get(name)), "")
    return found if isinstance(found, str) else ""


def _overrides(folder: Path) -> dict[str, Any]:
    path = folder / OVERRIDES
    values = table(path)
    for name, value in values.items():
        kind = (int, float) if name == "weight" else list if name == "scripts" else str
        if name not in _NAMED or not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(f"{path} may set {', '.join(sorted(_NAMED))}; correct its «{name}».")
    if not 0 <= values.get("weight", 0) <= 1 or not all(isinstance(one, str) for one in values.get("scripts", [])):
        raise ConfigError(f"{path} needs a weight from 0 to 1 and scripts by name; correct it.")
    return values
