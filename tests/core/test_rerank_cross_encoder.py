"""The `cross-encoder` reranker: what it gives is what its model gives, and what is wrong with a folder is said."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from core.embedders.bert_onnx import Precision, build
from core.embedders.folder import CONFIG
from core.errors import ConfigError, Unavailable
from core.rerankers.cross_encoder import CrossEncoder, memory, open_reranker
from core.settings import RerankerSettings, Settings
from tests.core.library import passage
from tests.fakes.builder import forked_builder, start_anew
from tests.fakes.model import cross_tensors, reference_score, tiny_cross_encoder, tiny_model

__all__ = ["forked_builder"]  # a fixture, found by its name here

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_builder")]

SHELF = [
    passage(text, document=f"{n}.md", score=0.5) for n, text in enumerate(("annual leave", "nine days", "the", ""))
]


def settings_for(folder: Path, data: Path) -> Settings:
    return Settings(data_dir=data, reranker=RerankerSettings(model_dir=folder, threads=2))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("tiny")
    return settings_for(tiny_cross_encoder(folder / "model"), folder / "data")


@pytest.fixture
async def reranker(settings: Settings) -> AsyncIterator[CrossEncoder]:
    opened = await open_reranker(settings)
    yield opened
    await opened.close()


@pytest.mark.parametrize(("precision", "nearness"), [("fp32", 1e-3), ("int8", 0.25)])
def test_the_graph_agrees_with_the_model_written_out_in_numpy(
    tmp_path: Path, precision: Precision, nearness: float
) -> None:
    source = tiny_cross_encoder(tmp_path / "model")
    tensors = cross_tensors(json.loads((source / CONFIG).read_text())["vocab_size"])
    build(source, tmp_path / "graph", pooling="score", precision=precision)
    session = onnxruntime.InferenceSession(str(tmp_path / "graph"), providers=["CPUExecutionProvider"])
    for ids, types in (
        ([2, 9, 3, 12, 3], [0, 0, 0, 1, 1]),
        ([2, 9, 3, 12, 3], [0] * 5),
        ([2, 3, 5, 6, 3], [0, 0, 1, 1, 1]),
    ):
        given = {"input_ids": np.array([ids], np.int64), "token_type_ids": np.array([types], np.int64)}
        [rows] = session.run(None, given)
        assert rows.shape == (1, 1)
        assert abs(float(rows[0][0]) - reference_score(tensors, ids, types)) < nearness


async def test_passages_come_in_the_order_of_the_model_s_scores(reranker: CrossEncoder, settings: Settings) -> None:
    ranked = await reranker.rerank("annual leave days", SHELF)
    assert {one.document for one in ranked} == {one.document for one in SHELF}
    scores = [one.rerank_score or 0.0 for one in ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert len(set(scores)) > 1
    again = await reranker.rerank("annual leave days", list(reversed(SHELF)))
    assert {one.document: one.rerank_score for one in again} == {one.document: one.rerank_score for one in ranked}
    assert memory(settings) > 0


async def test_a_score_is_the_logistic_of_the_model_s(
    reranker: CrossEncoder, settings: Settings, tmp_path: Path
) -> None:
    assert settings.reranker.model_dir is not None
    build(settings.reranker.model_dir, tmp_path / "graph", pooling="score", precision="int8")
    session = onnxruntime.InferenceSession(str(tmp_path / "graph"), providers=["CPUExecutionProvider"])
    tokens = reranker._tokenizer.encode("annual leave", "nine days")
    assert set(tokens.type_ids) == {0, 1}
    given = {"input_ids": np.array([tokens.ids], np.int64), "token_type_ids": np.array([tokens.type_ids], np.int64)}
    [[[logit]]] = session.run(None, given)
    [one] = await reranker.rerank("annual leave", [passage("nine days")])
    assert one.rerank_score == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-4)


async def test_long_and_odd_texts_are_read_as_far_as_they_can_be(reranker: CrossEncoder) -> None:
    odd = [passage("leave " * 100_000), passage("\ud800\0[SEP]"), passage("年假")]
    assert len(await reranker.rerank("annual " * 10_000, odd)) == 3
    assert await reranker.rerank("annual", []) == []


async def test_closing_ends_the_threads(settings: Settings) -> None:
    opened = await open_reranker(settings)
    await opened.rerank("annual", SHELF)
    assert any(thread.name.startswith("rerank") for thread in threading.enumerate())
    await opened.close()
    assert not any(thread.name.startswith("rerank") for thread in threading.enumerate())
    with pytest.raises(Unavailable, match="closed"):
        await opened.rerank("annual", SHELF)


async def test_a_folder_without_such_a_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_anew(monkeypatch)  # one that is forked may have a warning to say beside
    for folder, words in ((tiny_model(tmp_path / "embedder"), "no cross-encoder"), (tmp_path, "holds no")):
        with pytest.raises(ConfigError, match=words):
            await open_reranker(settings_for(folder, tmp_path / "data"))
    with pytest.raises(ConfigError, match="classifier"):  # of the builder, too
        build(tiny_cross_encoder(tmp_path / "many", outputs=3), tmp_path / "graph", pooling="score", precision="int8")
    with pytest.raises(ConfigError, match="KVASIR_RERANKER__MODEL_DIR"):
        await open_reranker(Settings(data_dir=tmp_path))
