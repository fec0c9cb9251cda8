"""INSTRUCTOR models, which read an instruction before each text: `[[instruction, text], …]`.

The package InstructorEmbedding gives wrong vectors, or none, beside every current sentence-transformers. So it is used
only where its own modules are what runs; else sentence-transformers itself, told to leave the instruction's tokens out
of the mean, which gives the same vectors.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.known import DOCUMENT_INSTRUCTION, QUERY_INSTRUCTION
from core.serving.driver import CannotLoad, Card, DriverError, Refused, Report
from core.serving.drivers.model_folder import (
    digest_of,
    fingerprint_of,
    folder_of,
    modules_of,
    object_in,
    telling_files,
)
from core.serving.drivers.sentence_transformers import (
    checked,
    details_of,
    dtype_of,
    imported,
    in_batches,
    missing_refused,
    normal,
    opened,
    precision_of,
    tokens_of,
    usage_in,
)
from core.serving.drivers.torch_device import device_of, threads_of
from core.types import Matrix

logger = logging.getLogger(__name__)

_VERSION: Final = "instructor/1"
_PACKAGE: Final = "InstructorEmbedding"
_OLDEST: Final = 6
"""The major version of sentence-transformers from which its own vectors were found to be right."""
_CHARACTERS_A_TOKEN: Final = 32


def make(values: Mapping[str, Any]) -> Instructs:
    return Instructs(values)


class Instructs:
    """Embeds pairs of instruction and text; questions have one instruction, documents another."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._batch = max(1, int(values.get("batch") or 32))
        self._instructions = {
            True: str(values.get("query_instruction") or QUERY_INSTRUCTION),
            False: str(values.get("document_instruction") or DOCUMENT_INSTRUCTION),
        }
        self._model: Any = None
        self._is_package = False
        self._device = ""
        self._longest = 0

    def load(self, report: Report) -> Card:
        folder = folder_of(self._values)
        places = modules_of(folder)
        usage = usage_in(folder, self._values)
        digest = digest_of(telling_files(places), folder, report)
        torch, library = imported(report)
        torch.set_num_threads(threads_of(self._values))
        self._device, precision = device_of(self._values, torch), precision_of(self._values)
        report("load", 0, 1)
        refusal = self._package(folder, precision)
        if refusal:
            logger.warning("%s", refusal)
            self._native(folder, library, dtype_of(torch, precision), refusal)
        limit = object_in(folder / "sentence_bert_config.json").get("max_seq_length")
        tokens = limit if isinstance(limit, int) and 8 <= limit <= 8192 else tokens_of(self._model, folder)
        self._model.max_seq_length = tokens
        self._longest = tokens * _CHARACTERS_A_TOKEN
        rows = self.embed(["warm"], query=False)
        report("load", 1, 1)
        used = f"{_PACKAGE} {_version(_PACKAGE)}, " if self._is_package else ""
        details = details_of(self._model, library, self._device, precision)
        return Card(
            model=usage.name,
            features=frozenset({"embed"}),
            dimension=int(rows.shape[1]),
            max_tokens=tokens,
            fingerprint=fingerprint_of(
                _VERSION, digest, precision, tokens, self._instructions[True], self._instructions[False]
            ),
            details={
                **details,
                "library": used + str(details["library"]),
                "scripts": ",".join(usage.scripts),
                "weight": usage.weight,
                "query_instruction": self._instructions[True],
                "document_instruction": self._instructions[False],
                "refused": refusal,
            },
        )

    def embed(self, texts: Sequence[str], *, query: bool) -> Matrix:
        instruction = self._instructions[query]
        return self.encode([[instruction, text] for text in texts])

    def encode(self, pairs: Sequence[Sequence[str]]) -> Matrix:
        """A row for each `[instruction, text]`, as InstructorEmbedding is called."""
        cut = [[instruction, text[: self._longest]] for instruction, text in pairs]
        if self._is_package:
            return normal(self._by_package(cut))
        rows = np.empty((len(cut), 0), np.float32)
        for instruction in dict.fromkeys(one[0] for one in cut):
            places = [at for at, one in enumerate(cut) if one[0] == instruction]
            found = self._by_prompt(instruction, [cut[at][1] for at in places])
            if not rows.shape[1]:
                rows = np.empty((len(cut), found.shape[1]), np.float32)
            rows[places] = found
        return normal(rows)

    def rerank(self, query: str, texts: Sequence[str]) -> Sequence[float]:  # noqa: ARG002  it takes none
        raise Refused("This model embeds and does not rerank.", code="unsupported")

    def close(self) -> None:
        self._model = None

    # ------------------------------------------------------------ the package
    def _package(self, folder: Path, precision: str) -> str:
        """Take the package where it works; else why not, with the names and versions of what does not go together."""
        if importlib.util.find_spec(_PACKAGE) is None:
            return f"{_PACKAGE} is not installed: sentence-transformers runs the model itself."
        stack = ", ".join(f"{name} {_version(name)}" for name in ("sentence-transformers", "transformers"))
        refused = f"{_PACKAGE} {_version(_PACKAGE)} is not used, since it does not work with {stack}"
        if precision != "float32":
            return f"{_PACKAGE} {_version(_PACKAGE)} is not used, since it knows no precision but float32."
        try:
            with missing_refused(folder):
                model = _instructor(folder, self._device)
            kinds = [type(module).__name__ for module in model][:2]
            if kinds != ["INSTRUCTOR_Transformer", "INSTRUCTOR_Pooling"]:
                return f"{refused}: {' and '.join(kinds)} stand in the place of its own modules."
            self._model, self._is_package = model, True
            checked(self._by_package([["Represent the sentence: ", "warm"]]))
        except (DriverError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  it fails in many ways, and each means that it does not work here
            self._model, self._is_package = None, False
            return f"{refused}: {type(error).__name__}, {' '.join(str(error).split())[:150]}"
        return ""

    def _by_package(self, pairs: Sequence[Sequence[str]]) -> Any:
        given = [list(pair) for pair in pairs]
        return in_batches(
            lambda size: self._model.encode(
                given, batch_size=size, show_progress_bar=False, convert_to_numpy=True, device=self._device
            ),
            self._batch,
        )

    # ------------------------------------------------------------ sentence-transformers itself
    def _native(self, folder: Path, library: Any, dtype: Any, refusal: str) -> None:
        version = str(library.__version__)
        if int(version.partition(".")[0]) < _OLDEST:
            raise CannotLoad(
                f"{refusal} And sentence-transformers {version} alone is too old to give an INSTRUCTOR's vectors: "
                "install a newer one with: pip install 'kvasir[instructor]'"
            )
        with missing_refused(folder):
            model = opened(library.SentenceTransformer, folder, self._device, dtype)
        model.set_pooling_include_prompt(False)
        pooling = [one for one in model if hasattr(one, "include_prompt")]
        if not pooling or any(one.include_prompt for one in pooling):
            raise CannotLoad(f"The model in {folder} does not pool: it is no INSTRUCTOR.")
        self._model, self._is_package = model, False

    def _by_prompt(self, instruction: str, texts: Sequence[str]) -> Any:
        return in_batches(
            lambda size: self._model.encode(
                list(texts), prompt=instruction, batch_size=size, show_progress_bar=False, convert_to_numpy=True
            ),
            self._batch,
        )


def _instructor(folder: Path, device: str) -> Any:
    """The package's model of its own modules, its dense layer read from safetensors; raises whatever fails in it."""
    import torch
    from InstructorEmbedding import INSTRUCTOR
    from InstructorEmbedding.instructor import INSTRUCTOR_Pooling, INSTRUCTOR_Transformer
    from safetensors.torch import load_file
    from sentence_transformers import models

    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        parts: list[Any] = [INSTRUCTOR_Transformer(str(folder))]
    for place in modules_of(folder)[1:]:
        if place.name.endswith("Pooling"):
            parts.append(INSTRUCTOR_Pooling.load(str(place)))
        elif place.name.endswith("Dense"):
            config = object_in(place / "config.json")
            layer = models.Dense(
                config["in_features"],
                config["out_features"],
                bias=bool(config.get("bias", True)),
                activation_function=torch.nn.Identity(),
            )
            if not str(config.get("activation_function", "")).endswith("Identity"):
                raise ValueError("its dense layer has an activation")
            layer.load_state_dict(load_file(place / "model.safetensors"))
            parts.append(layer)
        elif place.name.endswith("Normalize"):
            parts.append(models.Normalize())
        else:
            raise ValueError(f"it has a part {place.name}")
    return INSTRUCTOR(modules=parts, device=device).eval()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "?"
