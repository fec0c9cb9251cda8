"""The default embedder: a BERT sentence encoder in int8 on the CPU, by ONNX Runtime, without torch."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.embedders.carrier import MINILM
from core.embedders.fetch import ensure_model, standing_model
from core.embedders.folder import GRAPH, TOKENIZER, BuiltModel, ModelCard
from core.embedders.known import PRESETS
from core.embedders.lanes import Lane
from core.errors import ConfigError, EmbedderUnavailable
from core.ports import Embedder, EmbedderInfo
from core.settings import EmbedderSettings, Settings
from core.texts import tell
from core.types import Matrix, Vector

logger = logging.getLogger(__name__)

__all__ = ["CHOICES", "PRESETS", "BuiltinEmbedder", "is_ready", "memory", "most_threads", "open_embedder", "readable"]

CHOICES: Final = {"pooling": ("mean", "cls")}
_MOST_THREADS: Final = 4
_CHARACTERS_A_TOKEN: Final = 32

_Inputs: TypeAlias = dict[str, NDArray[np.int64]]
"""Of the graph."""


async def open_embedder(settings: Settings, progress: Callable[[str, float], None] | None = None) -> Embedder:
    """The embedder of the settings; its model is fetched and built first where it must be.

    `progress` gets a stage (`wait`, `fetch`, `build`, `load`) and how much of it is done, 0..1. Raises
    EmbedderUnavailable when the model cannot be had now, ConfigError when `model_dir` of the settings holds none.
    """
    report = progress or (lambda _stage, _done: None)
    wanted = settings.embedder
    if wanted.pooling == "last":
        raise ConfigError(tell("embed_pools_otherwise"))
    made = await ensure_model(
        _target(settings), model_dir=wanted.model_dir, fetch=wanted.fetch, pooling=wanted.pooling, progress=report
    )
    model = replace(made, card=_prefixed(made.card, wanted))
    report("load", 0.0)
    embedder = await asyncio.to_thread(BuiltinEmbedder, model, wanted.threads or most_threads())
    report("load", 1.0)
    logger.info("embedding with %s, %s dimensions, %s", model.card.name, model.dimension, model.precision)
    return embedder


def is_ready(settings: Settings) -> bool:
    """Whether the model stands built, so that `open_embedder` needs no network and little time."""
    return standing_model(_target(settings), settings.embedder.model_dir) is not None


def memory(settings: Settings) -> int:
    """Bytes of the model's weights; 0 until it was built."""
    graph = _target(settings) / GRAPH
    return graph.stat().st_size if graph.is_file() else 0


class BuiltinEmbedder:
    """Embeds documents on a few threads, and questions on one of their own."""

    def __init__(self, model: BuiltModel, threads: int) -> None:
        self._model = model
        self._encoder = _Encoder(model)
        width = model.dimension
        self._bulk = Lane("embed-documents", self._document, self._encoder.encode, width, threads=threads)
        self._questions = Lane("embed-questions", self._question, self._encoder.encode, width, threads=1)

    @property
    def info(self) -> EmbedderInfo:
        return self._model.info

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return await self._bulk.embed(texts)

    async def embed_query(self, text: str) -> Vector:
        rows = await self._questions.embed([text])
        vector: Vector = rows[0]
        return vector

    async def close(self) -> None:
        await asyncio.gather(asyncio.to_thread(self._bulk.close), asyncio.to_thread(self._questions.close))

    def _document(self, text: str) -> _Inputs:
        return self._encoder.prepare(self._model.card.document_prefix + text)

    def _question(self, text: str) -> _Inputs:
        return self._encoder.prepare(self._model.card.query_prefix + text)


def graph_of(model: BuiltModel) -> tuple[Any, Any]:
    """The model's session of onnxruntime, one thread a call, and its tokenizer. Raises what both libraries raise."""
    # Late: they cost time and memory, and most commands do without.
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # it keeps a plan for every length of text
    options.log_severity_level = 3
    graph = str(model.folder / GRAPH)
    tokenizer = Tokenizer.from_file(str(model.folder / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.card.max_tokens)
    tokenizer.encode_special_tokens = True  # «[SEP]» in a document is text like any other
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]), tokenizer


class _Encoder:
    """Tokenizer and graph; may be called by several threads at once."""

    def __init__(self, model: BuiltModel) -> None:
        self._longest = model.card.max_tokens * _CHARACTERS_A_TOKEN
        try:
            self._session, self._tokenizer = graph_of(model)
            self.encode(self.prepare("warm"))
        except Exception as error:  # both libraries raise just that
            raise EmbedderUnavailable(
                f"The embedding model in {model.folder} does not run here ({type(error).__name__}): "
                "remove that folder, so that it is built anew."
            ) from error

    def prepare(self, text: str) -> _Inputs:
        tokens = self._tokenizer.encode(readable(text, self._longest))
        return {"input_ids": np.array([tokens.ids], np.int64)}

    def encode(self, inputs: _Inputs) -> Vector:
        [rows] = self._session.run(None, inputs)
        vector: Vector = rows[0]
        return vector


def readable(text: str, longest: int) -> str:
    """The text as the tokenizer can take it: not much longer than what counts, and without lone surrogates."""
    if len(text) > longest:
        # Blank runs count for nothing, and must not push out the words behind them.
        text = " ".join(text[: 16 * longest].split())[:longest]
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _prefixed(card: ModelCard, wanted: EmbedderSettings) -> ModelCard:
    """The card with the prefixes of the settings, where there are any."""
    return replace(
        card,
        query_prefix=wanted.query_prefix or card.query_prefix,
        document_prefix=wanted.document_prefix or card.document_prefix,
    )


def _target(settings: Settings) -> Path:
    """Where the model is kept; one that was built from a folder of the admin's is told apart by that folder's path."""
    models = settings.data_dir / "models"
    source = settings.embedder.model_dir
    if source is None:
        return models / MINILM.card.name
    path = source.absolute()
    pooling = b"\0cls" if settings.embedder.pooling == "cls" else b""
    return models / f"{path.name}-{hashlib.sha256(os.fsencode(path) + pooling).hexdigest()[:8]}"


def most_threads() -> int:
    """One per CPU core that is ours, at most 4."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_THREADS)
