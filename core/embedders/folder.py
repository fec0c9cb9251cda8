"""What lies in a model's folder: the published files, how the model wants to be used, and what was built from them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from core.embedders import bert_onnx
from core.embedders.bert_onnx import Pooling, Precision, read_config
from core.errors import ConfigError
from core.ports import EmbedderInfo
from core.usage import pooled_by, read_json, table, usage_of

GRAPH: Final = "model.onnx"
TOKENIZER: Final = "tokenizer.json"
WEIGHTS: Final = "model.safetensors"
CONFIG: Final = "config.json"
MANIFEST: Final = "manifest.json"

_MODULES: Final = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True, slots=True)
class ModelCard:
    """How a model wants to be used."""

    name: str
    pooling: Pooling
    max_tokens: int
    scripts: tuple[str, ...]
    """Unicode scripts it knows; `*` for all."""
    weight: float
    """Weight of its scores in fusion, 0..1."""
    query_prefix: str = ""
    document_prefix: str = ""


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model that is ready to run: graph and tokenizer in `folder`, and what they were made from."""

    folder: Path
    card: ModelCard
    dimension: int
    precision: Precision
    weights: str
    """Hex sha256 of the weights the graph was built from; likewise the next two."""
    tokenizer: str
    graph: str
    graph_size: int
    origin: str = ""
    """Size and time of the weights in the folder named by the settings; empty where they are pinned."""

    @property
    def info(self) -> EmbedderInfo:
        return EmbedderInfo(
            name=self.card.name,
            fingerprint=self.fingerprint,
            dimension=self.dimension,
            max_tokens=self.card.max_tokens,
            scripts=frozenset(self.card.scripts),
            weight=self.card.weight,
            vocabulary=str(self.folder / TOKENIZER),
        )

    @property
    def fingerprint(self) -> str:
        card = self.card
        parts = [bert_onnx.SPACE, self.weights, self.tokenizer, self.precision, card.pooling]
        parts += [str(card.max_tokens), card.query_prefix, card.document_prefix]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def write(self) -> None:
        """Leave the manifest in the folder; `read_built` gives the same again."""
        values = asdict(self) | {"builder": bert_onnx.VERSION}
        del values["folder"]
        values["seal"] = _seal(values)
        (self.folder / MANIFEST).write_text(json.dumps(values, indent=2), encoding="utf-8")

    def intact(self) -> bool:
        """Whether graph and tokenizer are still what was built. Reads both files."""
        try:
            return digest(self.folder / GRAPH) == self.graph and digest(self.folder / TOKENIZER) == self.tokenizer
        except OSError:
            return False


def read_built(folder: Path) -> BuiltModel | None:
    """What stands ready in the folder by its manifest; None where there is nothing that this version can use."""
    try:
        values = json.loads((folder / MANIFEST).read_bytes())
        if values.pop("seal") != _seal(values) or values.pop("builder") != bert_onnx.VERSION:
            return None
        card = values.pop("card")
        built = BuiltModel(folder=folder, card=ModelCard(**card | {"scripts": tuple(card["scripts"])}), **values)
        complete = (folder / GRAPH).stat().st_size == built.graph_size and (folder / TOKENIZER).is_file()
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return built if complete else None


def _seal(values: dict[str, Any]) -> str:
    """A digest that shows a manifest to be as it was written."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def origin_of(folder: Path) -> str:
    """A short text that changes when the weights in the folder are replaced; empty where there are none."""
    try:
        stat = (folder / WEIGHTS).stat()
    except OSError:
        return ""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def read_card(folder: Path, pooling: Pooling = "mean") -> ModelCard:
    """How the model in the folder wants to be used, by its files and by what is known of its name (`core/usage.py`).

    It pools by `pooling` where nothing there says how. Raises ConfigError for a folder that does not hold a
    model we can run.
    """
    for name in (WEIGHTS, TOKENIZER, CONFIG):
        if not (folder / name).is_file():
            raise ConfigError(
                f"{folder} holds no {name}: `model_dir` must name a folder with {CONFIG}, {TOKENIZER} "
                f"and {WEIGHTS} (other kinds of weight files can run code, and are not read)."
            )
    modules = read_json(folder / "modules.json", [])
    kinds = {str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules if isinstance(module, dict)}
    if kinds - _MODULES:
        raise ConfigError(f"The model in {folder} has layers that cannot be run; choose one that only pools.")
    usage = usage_of(folder)
    limit = table(folder / "sentence_bert_config.json").get("max_seq_length", usage.max_tokens)
    positions = read_config(folder).positions
    if pooling == "mean" and usage.pooling == "cls":
        pooling = "cls"
    return ModelCard(
        name=usage.name,
        scripts=usage.scripts,
        weight=usage.weight,
        query_prefix=usage.query_prefix,
        document_prefix=usage.document_prefix,
        pooling=_pooling(folder) or pooling,
        max_tokens=min(limit, positions) if isinstance(limit, int) and limit >= 8 else positions,
    )


def digest(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pooling(folder: Path) -> Pooling | None:
    """As the folder says; None where it does not."""
    chosen = pooled_by(folder)
    if not chosen:
        return None
    if chosen == {"cls"}:
        return "cls"
    if chosen == {"mean"}:
        return "mean"
    raise ConfigError(
        f"The model in {folder} pools in a way that is not supported; choose one with mean or cls pooling."
    )
