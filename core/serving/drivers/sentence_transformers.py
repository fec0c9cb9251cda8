"""Any model folder that sentence-transformers runs: embedders, and cross-encoders that rerank. Needs torch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.errors import ConfigError
from core.serving.driver import CannotLoad, Card, DriverError, OutOfMemory, Refused, Report, Scalar
from core.serving.drivers.model_folder import (
    digest_of,
    fingerprint_of,
    folder_of,
    modules_of,
    object_in,
    telling_files,
)
from core.serving.drivers.torch_device import Missing, device_of, guarded, quiet_hub, threads_of
from core.types import Matrix
from core.usage import Usage, pooled_by, usage_of

logger = logging.getLogger(__name__)

_VERSION: Final = "sentence-transformers/1"
_LONGEST: Final = 131_072
_CHARACTERS_A_TOKEN: Final = 32
_POOLING: Final = {"mean": "mean", "cls": "cls", "last": "lasttoken"}


def make(values: Mapping[str, Any]) -> Embeds:
    return Embeds(values)


def make_reranker(values: Mapping[str, Any]) -> Reranks:
    return Reranks(values)


class Embeds:
    """Embeds with a `SentenceTransformer`, with the prefixes that the model wants before questions and documents."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._batch = max(1, int(values.get("batch") or 32))
        self._model: Any = None
        self._longest = 0
        self._usage = Usage("", (), 0)

    def load(self, report: Report) -> Card:
        folder = folder_of(self._values)
        places = modules_of(folder)
        usage = self._usage = usage_in(folder, self._values)
        digest = digest_of(telling_files(places), folder, report)
        torch, library = imported(report)
        torch.set_num_threads(threads_of(self._values))
        device, precision = device_of(self._values, torch), precision_of(self._values)
        report("load", 0, 1)
        with missing_refused(folder):
            model = opened(library.SentenceTransformer, folder, device, dtype_of(torch, precision))
        pooling = self._pooled(model, folder, usage)
        tokens = tokens_of(model, folder, usage.max_tokens)
        model.max_seq_length = tokens
        self._model, self._longest = model, tokens * _CHARACTERS_A_TOKEN
        rows = self.embed(["warm"], query=False)
        report("load", 1, 1)
        return Card(
            model=usage.name,
            features=frozenset({"embed"}),
            dimension=int(rows.shape[1]),
            max_tokens=tokens,
            fingerprint=fingerprint_of(
                _VERSION, digest, pooling, precision, tokens, usage.query_prefix, usage.document_prefix
            ),
            details={
                **details_of(model, library, device, precision),
                "pooling": pooling,
                "scripts": ",".join(usage.scripts),
                "weight": usage.weight,
                "query_prefix": usage.query_prefix,
                "document_prefix": usage.document_prefix,
            },
        )

    def embed(self, texts: Sequence[str], *, query: bool) -> Matrix:
        prefix = self._usage.query_prefix if query else self._usage.document_prefix
        encode = self._model.encode_query if query else self._model.encode_document
        cut = [text[: self._longest] for text in texts]
        return normal(
            in_batches(
                lambda size: encode(
                    cut, prompt=prefix, batch_size=size, show_progress_bar=False, convert_to_numpy=True
                ),
                self._batch,
            )
        )

    def rerank(self, query: str, texts: Sequence[str]) -> Sequence[float]:  # noqa: ARG002  it takes none
        raise Refused("This model embeds and does not rerank.", code="unsupported")

    def close(self) -> None:
        self._model = None

    def _pooled(self, model: Any, folder: Path, usage: Usage) -> str:
        """How it pools, which the settings or its authors say where its folder does not."""
        from sentence_transformers.sentence_transformer.modules import Pooling

        for place, module in model.named_children():
            if isinstance(module, Pooling):
                if not (folder / "modules.json").is_file() and not pooled_by(folder):
                    wanted = _POOLING[pooling_of(self._values, usage)]
                    model._modules[place] = module = Pooling(module.embedding_dimension, pooling_mode=wanted)
                mode = module.pooling_mode
                return "+".join((mode,) if isinstance(mode, str) else mode)
        return "own"


class Reranks:
    """Scores with a `CrossEncoder` that has one output, through the logistic function."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._batch = max(1, int(values.get("batch") or 32))
        self._model: Any = None
        self._sigmoid: Any = None
        self._longest = 0

    def load(self, report: Report) -> Card:
        folder = folder_of(self._values)
        places = modules_of(folder)
        digest = digest_of(telling_files(places), folder, report)
        torch, library = imported(report)
        torch.set_num_threads(threads_of(self._values))
        device, precision = device_of(self._values, torch), precision_of(self._values)
        report("load", 0, 1)
        with missing_refused(folder):
            model = opened(library.CrossEncoder, folder, device, dtype_of(torch, precision))
        if model.num_labels != 1:
            raise CannotLoad(f"The model in {folder} has {model.num_labels} outputs: a reranker has one.")
        tokens = tokens_of(model, folder)
        model.max_seq_length = tokens
        self._model, self._sigmoid, self._longest = model, torch.nn.Sigmoid(), tokens * _CHARACTERS_A_TOKEN
        self.rerank("warm", ["warm"])
        report("load", 1, 1)
        return Card(
            model=folder.resolve().name,
            features=frozenset({"rerank"}),
            max_tokens=tokens,
            fingerprint=fingerprint_of(_VERSION, digest, precision, tokens),
            details=details_of(model, library, device, precision),
        )

    def embed(self, texts: Sequence[str], *, query: bool) -> Matrix:  # noqa: ARG002  it takes none
        raise Refused("This model reranks and does not embed.", code="unsupported")

    def rerank(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        question = query[: self._longest]
        pairs = [(question, text[: self._longest]) for text in texts]
        scores = in_batches(
            lambda size: self._model.predict(
                pairs, batch_size=size, show_progress_bar=False, convert_to_numpy=True, activation_fn=self._sigmoid
            ),
            self._batch,
        )
        checked(scores)
        return [min(1.0, max(0.0, float(score))) for score in scores.reshape(len(texts))]

    def close(self) -> None:
        self._model = None


# ---------------------------------------------------------------- what all drivers with torch do
def imported(report: Report) -> tuple[Any, Any]:
    """torch and sentence-transformers, which take seconds to come. Raises CannotLoad."""
    report("import", 0, 1)
    quiet_hub()
    try:
        import sentence_transformers
        import torch
    except ImportError as error:
        raise CannotLoad(
            f"sentence-transformers cannot be imported ({error}); install it with: pip install "
            "'kvasir[sentence-transformers]'"
        ) from error
    report("import", 1, 1)
    return torch, sentence_transformers


def usage_in(folder: Path, values: Mapping[str, Any]) -> Usage:
    """How the model wants to be used. Raises CannotLoad."""
    try:
        return usage_of(
            folder,
            query_prefix=str(values.get("query_prefix") or ""),
            document_prefix=str(values.get("document_prefix") or ""),
        )
    except ConfigError as error:
        raise CannotLoad(str(error)) from error


def opened(kind: Any, folder: Path, device: str, dtype: Any) -> Any:
    """The model, in memory. Raises CannotLoad for what the library refuses, OutOfMemory or Poisoned."""
    try:
        with guarded():
            model = kind(
                str(folder),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "dtype": dtype},
            )
            return model.to(dtype=dtype).eval()
    except DriverError:
        raise
    except Exception as error:  # the libraries under it raise many kinds of their own
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise CannotLoad(f"The model in {folder} cannot be loaded: {said}") from error


class missing_refused(Missing):  # noqa: N801  used as a `with` block is
    """Refuses a model whose files lack weights: made-up ones would give vectors that mean nothing."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._hearing: Any = None

    def __enter__(self) -> None:
        self._hearing = self.heard()
        self._hearing.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._hearing.__exit__(*error)
        if error[0] is None and self.names:
            raise CannotLoad(
                f"The files in {self._folder} lack {len(self.names)} of the model's weights, {self.names[0]} among "
                "them: it is another kind of model, or not whole."
            )


def precision_of(values: Mapping[str, Any]) -> str:
    return str(values.get("precision") or "float32")


def dtype_of(torch: Any, precision: str) -> Any:
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[precision]


def pooling_of(values: Mapping[str, Any], usage: Usage) -> str:
    """For a folder that does not say: as the settings do, or as the authors."""
    wanted = str(values.get("pooling") or "mean")
    return usage.pooling or wanted if wanted == "mean" else wanted


def tokens_of(model: Any, folder: Path, known: int | None = None) -> int:
    """Tokens that the model reads of one text: as its files say, as is known, or as many as it has positions."""
    own = model.max_seq_length
    if known and not (folder / "sentence_bert_config.json").is_file():
        own = min(known, own) if isinstance(own, int) else known
    if not isinstance(own, int) or not 8 <= own <= _LONGEST:
        own = int(object_in(folder / "config.json").get("max_position_embeddings") or 512)
    return min(max(own, 8), _LONGEST)


def details_of(model: Any, library: Any, device: str, precision: str) -> dict[str, Scalar]:
    parameters = list(model.parameters())
    config = getattr(getattr(model[0], "model", None), "config", None)
    return {
        "library": f"sentence-transformers {library.__version__}",
        "architecture": (getattr(config, "architectures", None) or [type(model[0]).__name__])[0],
        "device": device,
        "precision": precision,
        "memory_bytes": sum(one.numel() * one.element_size() for one in parameters),
    }


def in_batches(run: Any, size: int) -> Any:
    """What `run` gives for batches of that size, or of smaller ones where memory does not do."""
    while True:
        try:
            with guarded():
                return run(size)
        except OutOfMemory:
            if size == 1:
                raise
            size = max(1, size // 4)
            logger.warning("memory ran out: trying batches of %s", size)
            _empty_cache()


def normal(found: Any) -> Matrix:
    """L2-normalised, in float32. Raises CannotLoad for what are no numbers."""
    found = np.asarray(found, np.float32)
    checked(found)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    rows: Matrix = np.asarray(found / np.maximum(lengths, 1e-12), np.float32)
    rows[lengths[:, 0] == 0, 0] = 1  # nothing was read: it has no direction of its own
    return rows


def checked(rows: Any) -> None:
    if not np.isfinite(rows).all():
        raise CannotLoad("The model gives no numbers at this precision: set `precision` to float32 or bfloat16.")


def _empty_cache() -> None:
    torch = sys.modules.get("torch")  # fastembed does without
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
