"""The `cross-encoder` reranker: a BERT that reads question and passage together, in int8 on the CPU, without torch."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from core.embedders.builtin import graph_of, most_threads, readable
from core.embedders.fetch import ensure_model
from core.embedders.folder import GRAPH, BuiltModel
from core.embedders.known import reranker_presets
from core.errors import ConfigError, Unavailable
from core.settings import Settings
from core.texts import tell
from core.types import Passage

logger = logging.getLogger(__name__)

PRESETS: Final = reranker_presets("cross-encoder")
_CHARACTERS_A_TOKEN: Final = 32


async def open_reranker(
    settings: Settings, *, progress: Callable[[str, float], None] | None = None, **_: object
) -> CrossEncoder:
    """The reranker of the settings; its graph is built from the published files first where it must be.

    Raises ConfigError where the folder holds no cross-encoder, Unavailable where it cannot be built or run now.
    """
    wanted = settings.reranker
    if wanted.model_dir is None:
        raise ConfigError(tell("rerank_no_folder"))
    report = progress or (lambda _stage, _done: None)
    target = _target(settings, wanted.model_dir)
    model = await ensure_model(target, model_dir=wanted.model_dir, pooling="score", progress=report)
    if model.card.pooling != "score":
        raise ConfigError(tell("rerank_no_head", folder=wanted.model_dir))
    report("load", 0.0)
    reranker = await asyncio.to_thread(CrossEncoder, model, wanted.threads or most_threads())
    report("load", 1.0)
    logger.info("reranking with %s, %s", model.card.name, model.precision)
    return reranker


def memory(settings: Settings) -> int:
    """Bytes of the model's weights; 0 until it was built."""
    folder = settings.reranker.model_dir
    graph = _target(settings, folder) / GRAPH if folder else None
    return graph.stat().st_size if graph and graph.is_file() else 0


class CrossEncoder:
    """Scores one pair a call, on a few threads."""

    def __init__(self, model: BuiltModel, threads: int) -> None:
        self._longest = model.card.max_tokens * _CHARACTERS_A_TOKEN
        try:
            self._session, self._tokenizer = graph_of(model)
            self._score("warm", "warm")
        except Exception as error:  # both libraries raise just that
            raise Unavailable(tell("rerank_not_running", folder=model.folder, kind=type(error).__name__)) from error
        self._threads = ThreadPoolExecutor(threads, "rerank")

    async def rerank(self, query: str, passages: Sequence[Passage]) -> Sequence[Passage]:
        """The passages as the model judges them; of a long one it reads the beginning."""
        loop = asyncio.get_running_loop()
        try:
            scoring = [loop.run_in_executor(self._threads, self._score, query, passage.text) for passage in passages]
        except RuntimeError as error:  # it was closed
            raise Unavailable(tell("rerank_closed")) from error
        scores = await asyncio.gather(*scoring)
        judged = [replace(passage, rerank_score=score) for passage, score in zip(passages, scores, strict=True)]
        return sorted(judged, key=lambda passage: passage.rerank_score or 0.0, reverse=True)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    def _score(self, query: str, text: str) -> float:
        """How well the text answers, 0..1; may be called by several threads at once."""
        tokens = self._tokenizer.encode(readable(query, self._longest), readable(text, self._longest))
        given = {"input_ids": [tokens.ids], "token_type_ids": [tokens.type_ids]}
        [rows] = self._session.run(None, {name: np.array(values, np.int64) for name, values in given.items()})
        logit = float(np.clip(rows[0][0], -50, 50))
        return 1 / (1 + math.exp(-logit))


def _target(settings: Settings, folder: Path) -> Path:
    """Where the built model is kept."""
    path = folder.absolute()
    return settings.data_dir / "models" / f"{path.name}-rerank-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
