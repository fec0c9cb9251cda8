"""The drivers of vectors, with tiny models that their libraries run: `make test-models` has them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed: make test-models has it")

import configs
from core.embedders import builtin
from core.serving.driver import CannotLoad, Card
from core.serving.kinds import make_driver
from core.settings import EmbedderSettings, Settings
from tests.fakes.model import model_dir, tiny_model
from tests.models import instructor_reference
from tests.models.bert_dir import write_encoder, write_reranker
from tests.models.t5_dir import write_instructor

__all__ = ["model_dir"]  # a fixture, found by its name here

# Libraries that warn of what they themselves do.
pytestmark = pytest.mark.filterwarnings("ignore")

TEXTS = ("How many days of annual leave?", "the leave, 25 days", "x", "parking is free. " * 12)
REFERENCE = json.loads(instructor_reference.FILE.read_text())


def silent(stage: str, done: int, total: int) -> None:
    """For who wants to know nothing of loading."""


def loaded(kind: str, **values: Any) -> tuple[Any, Card]:
    driver = make_driver(kind, {name: str(one) if isinstance(one, Path) else one for name, one in values.items()})
    return driver, driver.load(silent)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("bert") / "tiny-bert")


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reranker(tmp_path_factory.mktemp("cross") / "tiny-cross")


@pytest.fixture(scope="module")
def instructor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_instructor(tmp_path_factory.mktemp("t5") / "instructor-tiny")


def gap(one: Any, other: Any) -> float:
    return float(np.abs(np.asarray(one) - np.asarray(other)).max())


# ---------------------------------------------------------------- sentence-transformers
def test_vectors_are_those_of_sentence_transformers(bert: Path) -> None:
    from sentence_transformers import SentenceTransformer

    driver, card = loaded("sentence-transformers", model_dir=bert, query_prefix="question: ", batch=3)
    own = SentenceTransformer(str(bert), device="cpu", local_files_only=True)
    assert gap(driver.embed(TEXTS, query=False), own.encode(list(TEXTS), normalize_embeddings=True)) < 1e-5
    wanted = own.encode(["question: " + text for text in TEXTS], normalize_embeddings=True)
    assert gap(driver.embed(TEXTS, query=True), wanted) < 1e-5
    assert (card.model, card.dimension, set(card.features)) == ("tiny-bert", 32, {"embed"})
    assert card.details["query_prefix"] == "question: "
    assert (card.details["pooling"], card.details["device"], card.details["scripts"]) == ("mean", "cpu", "Latin")
    assert int(card.details["memory_bytes"]) > 1000


def test_the_fingerprint_changes_with_what_makes_a_vector(bert: Path, tmp_path: Path) -> None:
    def fingerprint(folder: Path = bert, **values: Any) -> str:
        return loaded("sentence-transformers", model_dir=folder, **values)[1].fingerprint

    other = write_encoder(tmp_path / "other")
    tiny_model(other, seed=3)
    cls = write_encoder(tmp_path / "cls", pooling="cls")
    named = shutil.copytree(bert, tmp_path / "tiny-bert")
    (named / "kvasir.json").write_text('{"weight": 0.1}')
    first = fingerprint()
    assert fingerprint(batch=1, threads=1) == first
    assert fingerprint(named) == first, "it is the same model in another place"
    changed = [
        fingerprint(other),
        fingerprint(cls),
        fingerprint(query_prefix="q "),
        fingerprint(document_prefix="q "),
        fingerprint(precision="bfloat16"),
    ]
    assert len({first, *changed}) == 6


def test_a_bare_folder_pools_as_its_authors_or_the_settings_say(bert: Path, tmp_path: Path) -> None:
    cls = write_encoder(tmp_path / "cls", pooling="cls")
    wanted = loaded("sentence-transformers", model_dir=cls)[0].embed(TEXTS, query=False)
    for name, values in (("mine", {"pooling": "cls"}), ("bge-small-en-v1.5", {})):
        bare = shutil.copytree(bert, tmp_path / name)
        (bare / "modules.json").unlink()
        shutil.rmtree(bare / "1_Pooling")
        driver, card = loaded("sentence-transformers", model_dir=bare, **values)
        assert card.details["pooling"] == "cls"
        assert gap(driver.embed(TEXTS, query=False), wanted) < 1e-5
    assert card.details["query_prefix"] == "Represent this sentence for searching relevant passages: "


@pytest.mark.anyio
async def test_vectors_of_builtin_are_near_those_of_sentence_transformers(model_dir: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tmp_path / "all-MiniLM-L6-v2"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).symlink_to(model_dir / name)
    handbook = Path(configs.__file__).parent / "sample" / "documents" / "handbook"
    texts = [part for file in sorted(handbook.rglob("*.md")) for part in file.read_text().split("\n\n")][:40]
    settings = Settings(data_dir=tmp_path / "data", embedder=EmbedderSettings(model_dir=model_dir))
    embedder = await builtin.open_embedder(settings)
    quick = await embedder.embed_documents(texts)
    await embedder.close()
    driver, card = loaded("sentence-transformers", model_dir=folder)
    exact = driver.embed(texts, query=False)
    own = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    own.max_seq_length = card.max_tokens
    assert card.max_tokens == 256
    assert gap(exact, own.encode(texts, normalize_embeddings=True)) < 1e-5
    cosines = (quick.astype(np.float32) * exact).sum(axis=1)
    assert cosines.mean() > 0.99
    assert cosines.min() > 0.97


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "is a pickle"),
        (lambda folder: _set(folder, "config.json", auto_map={"AutoModel": "own--modeling.Own"}), "code that lies in"),
        (lambda folder: _module(folder, "os.path.Pooling", "1_Pooling"), "is not run"),
        (lambda folder: _module(folder, "sentence_transformers.models.Pooling", "../other"), "outside of the folder"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "cannot be loaded"),
        (lambda folder: _set(folder, "config.json", num_hidden_layers=9), "lack"),
        (lambda folder: shutil.rmtree(folder), "There is no folder"),
        (lambda folder: (folder / "kvasir.json").write_text('{"weight": 7}'), "weight from 0 to 1"),
    ],
)  # fmt: skip
def test_what_is_not_safe_or_not_whole_is_refused(
    bert: Path, tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    folder = shutil.copytree(bert, tmp_path / "model")
    spoil(folder)
    with pytest.raises(CannotLoad, match=said):
        loaded("sentence-transformers", model_dir=folder)


def test_a_card_that_is_not_there_is_said_to_be_missing(bert: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a graphics card")
    with pytest.raises(CannotLoad, match="graphics card"):
        loaded("sentence-transformers", model_dir=bert, device="cuda")


# ---------------------------------------------------------------- instructor
def test_vectors_are_those_of_the_package_by_its_working_pins(instructor: Path) -> None:
    driver, card = loaded("instructor", model_dir=instructor, batch=2)
    assert gap(driver.encode(REFERENCE["pairs"]), REFERENCE["vectors"]) < 1e-5
    texts = [text for _, text in REFERENCE["pairs"]]
    kinds = [instruction for instruction, _ in REFERENCE["pairs"]]
    for query, instruction in ((True, instructor_reference.QUERY), (False, instructor_reference.DOCUMENT)):
        rows = driver.embed(texts, query=query)
        places = [at for at, one in enumerate(kinds) if one == instruction]
        assert places
        assert gap(rows[places], np.asarray(REFERENCE["vectors"])[places]) < 1e-5
    assert (card.dimension, card.max_tokens) == (48, 128)


def test_the_package_is_refused_by_name_on_a_stack_that_it_does_not_work_with(instructor: Path) -> None:
    pytest.importorskip("InstructorEmbedding")
    _, card = loaded("instructor", model_dir=instructor)
    assert "InstructorEmbedding 1.0.1 is not used" in str(card.details["refused"])
    assert "sentence-transformers 6." in str(card.details["refused"])
    assert str(card.details["library"]).startswith("sentence-transformers 6.")


def test_instructions_make_another_index(instructor: Path) -> None:
    made = [
        loaded("instructor", model_dir=instructor, **values)[1].fingerprint
        for values in ({}, {"query_instruction": "Find: "}, {"document_instruction": "Keep: "}, {"batch": 1})
    ]
    assert made[0] == made[3]
    assert len(set(made)) == 3


# ---------------------------------------------------------------- fastembed
def test_vectors_are_those_of_fastembed(bert: Path, onnx_folder: Path) -> None:
    driver, card = loaded("fastembed", model_dir=onnx_folder, query_prefix="question: ")
    other, _ = loaded("sentence-transformers", model_dir=bert, query_prefix="question: ")
    for query in (True, False):
        assert gap(driver.embed(TEXTS, query=query), other.embed(TEXTS, query=query)) < 1e-4
    assert (card.dimension, card.details["pooling"], card.max_tokens) == (32, "mean", 64)


def test_nothing_is_fetched_unless_it_is_allowed(tmp_path: Path) -> None:
    pytest.importorskip("fastembed")
    with pytest.raises(CannotLoad, match="switch `download` on"):
        loaded("fastembed", model="bge-small-zh-v1.5", cache_dir=tmp_path)
    with pytest.raises(CannotLoad, match="fastembed knows no model"):
        loaded("fastembed", model="nobody/knows-it")
    with pytest.raises(CannotLoad, match="No model is named"):
        loaded("fastembed")
    (tmp_path / "model").mkdir()
    with pytest.raises(CannotLoad, match=r"holds no tokenizer.json"):
        loaded("fastembed", model_dir=tmp_path / "model")


@pytest.fixture(scope="module")
def onnx_folder(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("fastembed")
    return as_onnx(bert, tmp_path_factory.mktemp("onnx") / "tiny-onnx", "AutoModel")


def as_onnx(source: Path, folder: Path, kind: str) -> Path:
    """The same model as a graph, as torch writes it."""
    import torch
    import transformers

    shutil.copytree(source, folder)
    (folder / "model.safetensors").unlink()
    model = getattr(transformers, kind).from_pretrained(source, attn_implementation="eager").eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]

    class Plain(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)[0]

    shape = torch.ones((2, 7), dtype=torch.int64)
    axes = {name: {0: "batch", 1: "tokens"} for name in names}
    torch.onnx.export(
        Plain(), (shape, shape, torch.zeros_like(shape)), str(folder / "model.onnx"),
        input_names=names, output_names=["out"], dynamic_axes={**axes, "out": {0: "batch"}}, dynamo=False,
    )  # fmt: skip
    return folder


# ---------------------------------------------------------------- reranking
def test_scores_are_those_of_sentence_transformers_between_0_and_1(cross: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    driver, card = loaded("sentence-transformers-reranker", model_dir=cross, batch=2)
    own = CrossEncoder(str(cross), device="cpu", local_files_only=True)
    wanted = own.predict([(TEXTS[0], text) for text in TEXTS], activation_fn=torch.nn.Sigmoid())
    scores = driver.rerank(TEXTS[0], TEXTS)
    assert gap(scores, wanted) < 1e-5
    assert all(0 <= score <= 1 for score in scores)
    assert len(set(scores)) == len(TEXTS)
    assert set(card.features) == {"rerank"}


def test_scores_of_fastembed_are_the_same(cross: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastembed")
    folder = as_onnx(cross, tmp_path / "cross-onnx", "AutoModelForSequenceClassification")
    driver, _ = loaded("fastembed-reranker", model_dir=folder)
    other, _ = loaded("sentence-transformers-reranker", model_dir=cross)
    assert gap(driver.rerank(TEXTS[0], TEXTS), other.rerank(TEXTS[0], TEXTS)) < 1e-5


def test_an_embedder_is_no_reranker(bert: Path) -> None:
    with pytest.raises(CannotLoad, match="lack 2 of the model's weights"):
        loaded("sentence-transformers-reranker", model_dir=bert)


def _set(folder: Path, name: str, **values: Any) -> None:
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def _module(folder: Path, kind: str, path: str) -> None:
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    modules.append({"idx": 1, "name": "1", "path": path, "type": kind})
    (folder / "modules.json").write_text(json.dumps(modules))
