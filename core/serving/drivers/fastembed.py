"""Models in ONNX that fastembed runs, from a folder or by a name that it knows: embedders, and rerankers."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.known import known_model
from core.serving.driver import CannotLoad, Card, OutOfMemory, Refused, Report, Scalar
from core.serving.drivers.model_folder import digest_of, fingerprint_of, object_in, telling_files
from core.serving.drivers.sentence_transformers import in_batches, normal, pooling_of, usage_in
from core.serving.drivers.torch_device import threads_of
from core.types import Matrix
from core.usage import Usage, pooled_by

_VERSION: Final = "fastembed/1"
_GRAPHS: Final = ("model.onnx", "onnx/model.onnx", "model_optimized.onnx", "onnx/model_quantized.onnx")
_DEFAULT_TOKENS: Final = 512
_CHARACTERS_A_TOKEN: Final = 32
_numbers = itertools.count(1)
"""A name is taken once only in a process."""


def make(values: Mapping[str, Any]) -> Embeds:
    return Embeds(values)


def make_reranker(values: Mapping[str, Any]) -> Reranks:
    return Reranks(values)


class Embeds:
    """Embeds with fastembed's `TextEmbedding`; prefixes are ours, since it adds none."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._batch = max(1, int(values.get("batch") or 32))
        self._model: Any = None
        self._longest = 0
        self._usage = Usage("", (), 0)

    def load(self, report: Report) -> Card:
        library = _library(report, self._values)
        folder, pooling = _folder(self._values), "own"
        if folder is None:
            name = _known_name(library.TextEmbedding, self._values)
            model = _fetched(library.TextEmbedding, name, self._values, report)
            folder = Path(model.model._model_dir)
            usage = _usage_by_name(name, folder, self._values)
        else:
            usage = usage_in(folder, self._values)
            graph = _graph_in(folder)
            rank, has_mask = _shape(graph)
            if not has_mask:
                self._batch = 1  # it cannot leave padding out
            pooling = "own" if rank == 2 else _pooling(folder, self._values, usage)
            model = self._from_folder(library, folder, graph, pooling)
        digest = digest_of(_files(folder), folder, report)
        tokens = _tokens(model)
        self._model, self._usage, self._longest = model, usage, tokens * _CHARACTERS_A_TOKEN
        rows = self.embed(["warm"], query=False)
        report("load", 1, 1)
        return Card(
            model=usage.name,
            features=frozenset({"embed"}),
            dimension=int(rows.shape[1]),
            max_tokens=tokens,
            fingerprint=fingerprint_of(_VERSION, digest, pooling, tokens, usage.query_prefix, usage.document_prefix),
            details={
                **_details(library, model, folder),
                "pooling": pooling,
                "scripts": ",".join(usage.scripts),
                "weight": usage.weight,
                "query_prefix": usage.query_prefix,
                "document_prefix": usage.document_prefix,
            },
        )

    def embed(self, texts: Sequence[str], *, query: bool) -> Matrix:
        prefix = self._usage.query_prefix if query else self._usage.document_prefix
        given = [prefix + text[: self._longest] for text in texts]
        # The longest first, so that each batch is padded little.
        order = sorted(range(len(given)), key=lambda at: -len(given[at]))
        embed = self._model.query_embed if query else self._model.passage_embed
        found = in_batches(
            lambda size: _run(lambda: list(embed([given[at] for at in order], batch_size=size))), self._batch
        )
        rows = np.empty((len(given), len(found[0])), np.float32)
        rows[order] = np.asarray(found, np.float32)
        return normal(rows)

    def rerank(self, query: str, texts: Sequence[str]) -> Sequence[float]:  # noqa: ARG002  it takes none
        raise Refused("This model embeds and does not rerank.", code="unsupported")

    def close(self) -> None:
        self._model = None

    def _from_folder(self, library: Any, folder: Path, graph: Path, pooling: str) -> Any:
        from fastembed.common.model_description import ModelSource, PoolingType

        kinds = {"mean": "MEAN", "cls": "CLS", "last": "LAST_TOKEN", "own": "DISABLED"}
        name = f"kvasir/{folder.name}-{next(_numbers)}"
        library.TextEmbedding.add_custom_model(
            model=name,
            pooling=PoolingType[kinds[pooling]],
            normalization=True,
            sources=ModelSource(hf=name),
            dim=1,  # it is read from the graph
            model_file=graph.relative_to(folder).as_posix(),
        )
        return _opened(library.TextEmbedding, name, self._values, specific_model_path=str(folder))


class Reranks:
    """Scores with fastembed's `TextCrossEncoder`, through the logistic function."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._batch = max(1, int(values.get("batch") or 32))
        self._model: Any = None
        self._longest = 0

    def load(self, report: Report) -> Card:
        library = _library(report, self._values)
        from fastembed.common.model_description import ModelSource
        from fastembed.rerank.cross_encoder import TextCrossEncoder

        folder = _folder(self._values)
        if folder is None:
            name = _known_name(TextCrossEncoder, self._values)
            model = _fetched(TextCrossEncoder, name, self._values, report)
            folder = Path(model.model._model_dir)
            shown = name.rpartition("/")[2]
        else:
            shown = folder.resolve().name
            graph = _graph_in(folder)
            name = f"kvasir/{folder.name}-{next(_numbers)}"
            if not _shape(graph)[1]:
                self._batch = 1
            TextCrossEncoder.add_custom_model(
                model=name, sources=ModelSource(hf=name), model_file=graph.relative_to(folder).as_posix()
            )
            model = _opened(TextCrossEncoder, name, self._values, specific_model_path=str(folder))
        digest = digest_of(_files(folder), folder, report)
        tokens = _tokens(model)
        self._model, self._longest = model, tokens * _CHARACTERS_A_TOKEN
        self.rerank("warm", ["warm"])
        report("load", 1, 1)
        return Card(
            model=shown,
            features=frozenset({"rerank"}),
            max_tokens=tokens,
            fingerprint=fingerprint_of(_VERSION, digest, tokens),
            details=_details(library, model, folder),
        )

    def embed(self, texts: Sequence[str], *, query: bool) -> Matrix:  # noqa: ARG002  it takes none
        raise Refused("This model reranks and does not embed.", code="unsupported")

    def rerank(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        question, given = query[: self._longest], [text[: self._longest] for text in texts]
        logits = in_batches(
            lambda size: _run(lambda: list(self._model.rerank(question, given, batch_size=size))), self._batch
        )
        return [_logistic(float(one)) for one in logits]

    def close(self) -> None:
        self._model = None


# ---------------------------------------------------------------- parts
def _library(report: Report, values: Mapping[str, Any]) -> Any:
    report("import", 0, 1)
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if not values.get("download"):
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import fastembed
    except ImportError as error:
        raise CannotLoad(
            f"fastembed cannot be imported ({error}); install it with: pip install 'kvasir[fastembed]'"
        ) from error
    report("import", 1, 1)
    return fastembed


def _folder(values: Mapping[str, Any]) -> Path | None:
    """That of the settings, looked at; None where they name a model instead."""
    if not values.get("model_dir"):
        return None
    folder = Path(str(values["model_dir"])).expanduser()
    if not folder.is_dir():
        raise CannotLoad(f"There is no folder {folder}: set `model_dir` to the model's folder on the worker's machine.")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise CannotLoad(f"{folder} holds no {name}, which fastembed needs beside the graph.")
    return folder


def _graph_in(folder: Path) -> Path:
    found = [folder / name for name in _GRAPHS if (folder / name).is_file()]
    found = found or sorted(folder.glob("*.onnx")) or sorted((folder / "onnx").glob("*.onnx"))
    if not found:
        raise CannotLoad(f"{folder} holds no model in ONNX: get the model's `onnx` files, or use another embedder.")
    if not found[0].resolve().is_relative_to(folder.resolve()) and not found[0].is_symlink():
        raise CannotLoad(f"{found[0]} lies outside of its folder.")
    return found[0]


def _shape(graph: Path) -> tuple[int, bool]:
    """Dimensions of what it gives, and whether it knows what is padding. Raises CannotLoad."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises many kinds of its own
        raise CannotLoad(f"{graph} is no graph that onnxruntime can run: {_line(error)}") from error
    return len(session.get_outputs()[0].shape), "attention_mask" in {one.name for one in session.get_inputs()}


def _pooling(folder: Path, values: Mapping[str, Any], usage: Usage) -> str:
    said = pooled_by(folder)
    if not said:
        return pooling_of(values, usage)
    [one] = said if len(said) == 1 else ["+".join(sorted(said))]
    if one == "lasttoken":
        return "last"
    if one not in ("mean", "cls"):
        raise CannotLoad(f"The model in {folder} pools by «{one}», which fastembed cannot.")
    return one


def _known_name(kind: Any, values: Mapping[str, Any]) -> str:
    """The name as fastembed writes it. Raises CannotLoad where it knows none such."""
    wanted = str(values.get("model") or "").strip().lower()
    if not wanted:
        raise CannotLoad("No model is named: set `model_dir` to a folder, or `model` to a name that fastembed knows.")
    names = [str(one["model"]) for one in kind.list_supported_models()]
    for name in names:
        if wanted in (name.lower(), name.rpartition("/")[2].lower()):
            return name
    raise CannotLoad(f"fastembed knows no model «{values['model']}»; it knows: {', '.join(sorted(names))}.")


def _fetched(kind: Any, name: str, values: Mapping[str, Any], report: Report) -> Any:
    allowed = bool(values.get("download"))
    report("fetch" if allowed else "load", 0, 1)
    try:
        return _opened(kind, name, values, local_files_only=not allowed)
    except CannotLoad as error:
        if allowed:
            raise
        raise CannotLoad(
            f"The files of {name} are not in {_cache(values)}, and nothing is fetched unless it is allowed: switch "
            "`download` on, or set `model_dir` to a folder with them."
        ) from error


def _opened(kind: Any, name: str, values: Mapping[str, Any], **more: Any) -> Any:
    try:
        return kind(
            model_name=name,
            cache_dir=_cache(values),
            threads=threads_of(values),
            providers=_providers(values),
            **more,
        )
    except Exception as error:  # it and what it stands on raise many kinds
        raise CannotLoad(f"fastembed cannot load {name}: {_line(error)}") from error


def _providers(values: Mapping[str, Any]) -> list[str]:
    """Raises CannotLoad where a card is wanted, and this build of onnxruntime has none."""
    import onnxruntime

    wanted = str(values.get("device") or "auto")
    has_card = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if wanted == "cuda" and not has_card:
        raise CannotLoad("This onnxruntime computes on no graphics card: set `device` to `auto` or `cpu`.")
    cpu = ["CPUExecutionProvider"]
    return ["CUDAExecutionProvider", *cpu] if has_card and wanted != "cpu" else cpu


def _cache(values: Mapping[str, Any]) -> str:
    return str(values.get("cache_dir") or os.environ.get("FASTEMBED_CACHE_PATH") or _home() / "fastembed")


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _usage_by_name(name: str, folder: Path, values: Mapping[str, Any]) -> Usage:
    """As `usage_in`, for files that lie in a folder without the model's name."""
    usage, known = usage_in(folder, values), known_model(name)
    return Usage(
        name=name.rpartition("/")[2],
        scripts=known.scripts if known else usage.scripts,
        weight=known.weight if known else usage.weight,
        query_prefix=usage.query_prefix or (known.query_prefix if known else ""),
        document_prefix=usage.document_prefix or (known.document_prefix if known else ""),
    )


def _files(folder: Path) -> list[Path]:
    """The graph with what belongs to it, and what lies beside it."""
    graphs = [*folder.glob("*.onnx*"), *folder.glob("*.data"), *(folder / "onnx").glob("*.onnx*")]
    return [*(file for file in graphs if file.is_file()), *telling_files([folder])]


def _tokens(model: Any) -> int:
    truncation = getattr(getattr(model.model, "tokenizer", None), "truncation", None) or {}
    return int(truncation.get("max_length") or _DEFAULT_TOKENS)


def _details(library: Any, model: Any, folder: Path) -> dict[str, Scalar]:
    session = getattr(model.model, "model", None)
    providers = session.get_providers() if session is not None else []
    return {
        "library": f"fastembed {library.__version__}",
        "architecture": str((object_in(folder / "config.json").get("architectures") or ["ONNX"])[0]),
        "device": "cuda" if "CUDAExecutionProvider" in providers else "cpu",
        "memory_bytes": sum(file.stat().st_size for file in _files(folder) if ".onnx" in file.name),
    }


def _run(work: Any) -> Any:
    """What it gives. Raises OutOfMemory for what onnxruntime says in words only."""
    try:
        return work()
    except MemoryError as error:
        raise OutOfMemory("Memory ran out: set a smaller `batch`.") from error
    except Exception as error:
        if "Failed to allocate memory" in str(error) or "bad_alloc" in str(error):
            raise OutOfMemory("Memory ran out: set a smaller `batch`.") from error
        raise


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
