"""Embedders and rerankers through the whole path: settings, a worker process with its library, an index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed: make test-models has it")

from core.app import Kvasir
from core.cli.documents import bring_in
from core.embedders import fastembed, instructor, sentence_transformers
from core.errors import EmbedderUnavailable
from core.inference.sections import settings_with
from core.opening import Adapters
from core.rerankers import sentence_transformers as reranking
from core.rerankers.http import HttpReranker
from core.serving.plan import plan_of
from core.serving.public import public_worker
from core.serving.vectors import Vectors
from core.settings import RerankerSettings, Settings, load
from core.types import Locator, Passage
from tests.fakes.embedder import HashEmbedder
from tests.models import instructor_reference
from tests.models.bert_dir import write_encoder, write_reranker
from tests.models.t5_dir import write_instructor

# Libraries that warn of what they themselves do.
pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TEXTS = ("How many days of annual leave?", "the leave, 25 days", "x", "parking is free. " * 12)
REFERENCE = json.loads(instructor_reference.FILE.read_text())


def chosen(kind: Any, adapter: str, folder: Path, **values: Any) -> Settings:
    return settings_with(Settings(data_dir=folder / "data"), kind, adapter, {"threads": 1, **values})


def gap(one: Any, other: Any) -> float:
    return float(np.abs(np.asarray(one) - np.asarray(other)).max())


async def test_vectors_of_the_worker_are_those_of_the_library(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = write_encoder(tmp_path / "e5-small-v2")
    settings = chosen("embedder", "sentence-transformers", tmp_path, model_dir=str(folder))
    stages: list[str] = []
    embedder = await sentence_transformers.open_embedder(settings, lambda stage, _done: stages.append(stage))
    own = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    wanted = own.encode([f"passage: {text}" for text in TEXTS], normalize_embeddings=True)
    try:
        assert {"import", "load", "ready"} <= set(stages)
        vectors = await Vectors.open(plan_of(settings, "embedder", "sentence-transformers"), lambda *_: None)
        assert gap(await vectors.embed(TEXTS, query=False), wanted) < 1e-5
        await vectors.close()
        rows = await embedder.embed_documents(TEXTS)
        assert gap(rows, wanted) < 1e-3, "at the precision that is kept"
        assert gap(rows, rows.astype(np.float16)) == 0
        question = await embedder.embed_query(TEXTS[0])
        assert gap(question, own.encode(f"query: {TEXTS[0]}", normalize_embeddings=True)) < 1e-3
        info = embedder.info
        assert (info.name, info.dimension, info.scripts) == ("e5-small-v2", 32, frozenset({"Latin"}))
        assert (info.weight, info.vocabulary) == (0.4, str(folder / "tokenizer.json"))
        assert 0 < info.background <= 0.9
        assert len(info.fingerprint) == 32
    finally:
        await embedder.close()


async def test_an_instructor_runs_in_a_worker(tmp_path: Path) -> None:
    folder = write_instructor(tmp_path / "instructor-tiny")
    settings = chosen("embedder", "instructor", tmp_path, model_dir=str(folder))
    files = list(folder.rglob("*.safetensors"))
    assert instructor.memory(settings) == sum(file.stat().st_size - _header(file) for file in files)
    embedder = await instructor.open_embedder(settings)
    try:
        places = [at for at, (kind, _) in enumerate(REFERENCE["pairs"]) if kind == instructor_reference.DOCUMENT]
        rows = await embedder.embed_documents([REFERENCE["pairs"][at][1] for at in places])
        assert gap(rows, np.asarray(REFERENCE["vectors"])[places]) < 1e-3
        assert embedder.info.dimension == 48
    finally:
        await embedder.close()


async def test_an_index_is_built_beside_the_live_one_and_switched_to(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "tiny-bert")
    (tmp_path / "leave.md").write_text("# Leave\n\nAnnual leave is 28 days a year. The office opens at seven.\n")
    settings = load(data_dir=tmp_path / "data", embedder={"kind": "none", "cache": False})
    async with Kvasir.open(settings, embedder=HashEmbedder(64, "own")) as kvasir:
        await kvasir.knowledge.create("ours")
        await bring_in(kvasir, "ours", [str(tmp_path / "leave.md")], show=False)
        await kvasir.models.add(
            "embedder", "tiny", "sentence-transformers", {"model_dir": str(folder), "threads": 1, "cache": False}
        )
        await kvasir.knowledge.change("ours", embedder="tiny")
        dimensions = []
        for _ in range(2):
            dimensions += [one.generation.dimension for one in await kvasir.knowledge.live(["ours"])]
            found = await kvasir.retriever.retrieve("How long is annual leave?", ["ours"], limit=3)
            assert found.passages[0].vector_score is not None
            await kvasir.indexes.reindex("ours")
        assert dimensions == [64, 32]


async def test_what_cannot_be_loaded_is_said_in_one_sentence(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "tiny-bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    settings = chosen("embedder", "sentence-transformers", tmp_path, model_dir=str(folder))
    with pytest.raises(EmbedderUnavailable, match="is a pickle"):
        await sentence_transformers.open_embedder(settings)
    pytest.importorskip("fastembed")
    named = chosen("embedder", "fastembed", tmp_path, model="BAAI/bge-small-zh-v1.5")
    with pytest.raises(EmbedderUnavailable, match="switch `download` on"):
        await fastembed.open_embedder(named)


async def test_a_reranker_judges_as_its_library_does_by_both_ways_to_its_worker(tmp_path: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    folder = write_reranker(tmp_path / "tiny-cross")
    settings = chosen("reranker", "sentence-transformers", tmp_path, model_dir=str(folder))
    own = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    wanted = own.predict([(TEXTS[0], text) for text in TEXTS], activation_fn=torch.nn.Sigmoid())
    passages = [_passage(text) for text in TEXTS]
    plan = plan_of(settings, "reranker", "sentence-transformers", driver="sentence-transformers-reranker")
    async with public_worker(plan, "127.0.0.1", 0, "a-key-of-a-worker", lambda *_: None) as (_, url):
        values = {"base_url": f"{url}/v1", "api_key": "a-key-of-a-worker", "model": "tiny-cross", "timeout_seconds": 30}
        elsewhere = chosen("reranker", "sentence-transformers", tmp_path, base_url=url, api_key="a-key-of-a-worker")
        own_client = await reranking.open_reranker(elsewhere)
        for asked in (own_client, HttpReranker(RerankerSettings.model_validate(values))):
            judged = await asked.rerank(TEXTS[0], passages)
            await asked.close()
            assert [one.text for one in judged] == [TEXTS[at] for at in np.argsort(-wanted)]
            assert gap([one.rerank_score for one in judged], np.sort(wanted)[::-1]) < 1e-5


def test_the_memory_that_a_model_takes_is_known_beforehand(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "tiny-bert")
    (folder / "onnx").mkdir()
    shutil.copy(folder / "model.safetensors", folder / "onnx" / "model.onnx")
    whole = chosen("embedder", "sentence-transformers", tmp_path, model_dir=str(folder))
    half = chosen("embedder", "sentence-transformers", tmp_path, model_dir=str(folder), precision="bfloat16")
    assert sentence_transformers.memory(whole) == 2 * sentence_transformers.memory(half) > 10_000
    assert (
        sentence_transformers.memory(chosen("embedder", "sentence-transformers", tmp_path, base_url="http://a:1")) == 0
    )
    assert "last" in {
        choice
        for field in Adapters().fields("embedder", "sentence-transformers")
        if field.name == "pooling"
        for choice in field.choices
    }


def _passage(text: str) -> Passage:
    return Passage("kb", "d", "d.md", "D", 0, text, (), Locator(), 0.5)


def _header(file: Path) -> int:
    return 8 + int.from_bytes(file.read_bytes()[:8], "little")
