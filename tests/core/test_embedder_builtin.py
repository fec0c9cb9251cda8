"""The default embedder: its threads, what it costs, and how it behaves when something is wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from core.embedders.bert_onnx import Precision
from core.embedders.builtin import BuiltinEmbedder, is_ready, open_embedder
from core.embedders.carrier import MINILM
from core.embedders.fetch import ensure_model
from core.embedders.folder import GRAPH, ModelCard, read_card
from core.embedders.known import PRESETS, preset_of
from core.embedders.lanes import Lane
from core.errors import EmbedderUnavailable
from core.inference.sections import settings_with
from core.known import KNOWN, known_model
from core.settings import EmbedderSettings, Settings
from core.types import Vector
from tests.fakes.builder import forked_builder
from tests.fakes.model import model_dir, tiny_model

__all__ = ["forked_builder", "model_dir"]  # fixtures, found by their names here

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_builder")]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("tiny")
    return Settings(
        data_dir=folder / "data", embedder=EmbedderSettings(model_dir=tiny_model(folder / "model"), threads=2)
    )


@pytest.fixture
async def embedder(tiny_settings: Settings) -> AsyncIterator[BuiltinEmbedder]:
    opened = await open_embedder(tiny_settings)
    assert isinstance(opened, BuiltinEmbedder)
    yield opened
    await opened.close()


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("embed-")]


# ---------------------------------------------------------------- opening
async def test_it_is_ready_once_it_was_built(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, embedder=EmbedderSettings(model_dir=tiny_model(tmp_path / "model")))
    assert not is_ready(settings)
    told: list[tuple[str, float]] = []
    embedder = await open_embedder(settings, lambda stage, done: told.append((stage, done)))
    await embedder.close()
    assert told == [("build", 0.0), ("build", 1.0), ("load", 0.0), ("load", 1.0)]
    assert is_ready(settings)


async def test_without_network_and_model_it_says_what_to_do(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, embedder=EmbedderSettings(fetch=False))
    assert not is_ready(settings)
    with pytest.raises(EmbedderUnavailable, match="KVASIR_EMBEDDER__MODEL_DIR"):
        await open_embedder(settings)


async def test_a_graph_that_does_not_run_is_an_embedder_that_is_not_there(
    embedder: BuiltinEmbedder, tiny_settings: Settings, tmp_path: Path
) -> None:
    model = embedder._model
    (tmp_path / GRAPH).write_bytes(b"not a graph")
    with pytest.raises(EmbedderUnavailable, match="does not run here"):
        BuiltinEmbedder(dataclasses.replace(model, folder=tmp_path), 1)


def test_libraries_are_loaded_late_and_the_builder_never(tiny_settings: Settings) -> None:
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from core.embedders.builtin import is_ready, open_embedder\n"
        "from core.settings import EmbedderSettings, Settings\n"
        "settings = Settings(data_dir=Path(sys.argv[1]), embedder=EmbedderSettings(model_dir=Path(sys.argv[2])))\n"
        "is_ready(settings)\n"
        "print(sorted({'onnx', 'onnxruntime', 'tokenizers'} & set(sys.modules)))\n"
        "asyncio.run(open_embedder(settings))\n"
        "print(sorted({'onnx', 'onnxruntime', 'tokenizers', 'torch'} & set(sys.modules)))\n"
    )
    arguments = [sys.executable, "-c", code, str(tiny_settings.data_dir), str(tiny_settings.embedder.model_dir)]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stdout.splitlines() == ["[]", "['onnxruntime', 'tokenizers']"], ended.stderr


# ---------------------------------------------------------------- what the rest must know
async def test_the_fingerprint_changes_with_all_that_could_change_a_vector(embedder: BuiltinEmbedder) -> None:
    model = embedder._model
    card = model.card
    variants = [
        dataclasses.replace(model, weights="0" * 64),
        dataclasses.replace(model, tokenizer="0" * 64),
        dataclasses.replace(model, precision="fp32"),
        dataclasses.replace(model, card=dataclasses.replace(card, pooling="cls")),
        dataclasses.replace(model, card=dataclasses.replace(card, max_tokens=8)),
        dataclasses.replace(model, card=dataclasses.replace(card, query_prefix="find: ")),
        dataclasses.replace(model, card=dataclasses.replace(card, document_prefix="text: ")),
    ]
    assert len({one.fingerprint for one in [model, *variants]}) == 8
    elsewhere = dataclasses.replace(
        model, folder=Path("elsewhere"), card=dataclasses.replace(card, name="same", weight=1)
    )
    assert elsewhere.fingerprint == model.fingerprint


async def test_prefixes_go_before_the_text(embedder: BuiltinEmbedder) -> None:
    card: ModelCard = dataclasses.replace(embedder._model.card, query_prefix="question ", document_prefix="the ")
    prefixed = BuiltinEmbedder(dataclasses.replace(embedder._model, card=card), 1)
    plain = await embedder.embed_documents(["question leave", "the leave"])
    np.testing.assert_array_equal(await prefixed.embed_query("leave"), plain[0])
    np.testing.assert_array_equal((await prefixed.embed_documents(["leave"]))[0], plain[1])
    await prefixed.close()


async def test_a_folder_that_does_not_say_pools_as_the_settings_do(tmp_path: Path) -> None:
    said, unsaid = tiny_model(tmp_path / "said", pooling="cls"), tiny_model(tmp_path / "unsaid")
    (unsaid / "1_Pooling" / "config.json").unlink()
    rows = []
    for folder, values in ((said, {}), (said, {"pooling": "cls"}), (unsaid, {"pooling": "cls"}), (unsaid, {})):
        wanted = EmbedderSettings.model_validate({"model_dir": folder, "threads": 1, **values})
        embedder = await open_embedder(Settings(data_dir=tmp_path / "data", embedder=wanted))
        rows.append(await embedder.embed_query("annual leave"))
        await embedder.close()
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])
    assert not np.array_equal(rows[2], rows[3]), "it was built anew"


async def test_prefixes_of_the_settings_go_before_the_texts_and_make_another_index(
    tiny_settings: Settings, embedder: BuiltinEmbedder
) -> None:
    given = {"query_prefix": "question ", "document_prefix": "the "}
    wanted = tiny_settings.embedder.model_copy(update=given)
    prefixed = await open_embedder(tiny_settings.model_copy(update={"embedder": wanted}))
    plain = await embedder.embed_documents(["question leave", "the leave"])
    np.testing.assert_array_equal(await prefixed.embed_query("leave"), plain[0])
    np.testing.assert_array_equal((await prefixed.embed_documents(["leave"]))[0], plain[1])
    assert prefixed.info.fingerprint != embedder.info.fingerprint
    await prefixed.close()


def test_well_known_models_are_ready_to_be_filled_in(tmp_path: Path) -> None:
    assert len({model.name for model in KNOWN}) == len(KNOWN)
    settings = Settings(data_dir=tmp_path)
    assert (PRESETS[0].name, PRESETS[0].values) == ("default", {})
    for preset in PRESETS[1:]:
        made = settings_with(settings, "embedder", "builtin", preset.values).embedder
        assert str(made.model_dir).startswith("/PATH/TO/")
    e5, bge = (
        preset_of(known) for name in ("multilingual-e5-small", "bge-small-zh-v1.5") if (known := known_model(name))
    )
    assert (e5.values["query_prefix"], e5.values["document_prefix"]) == ("query: ", "passage: ")
    assert bge.values["pooling"] == "cls"
    assert "document_prefix" not in bge.values


async def test_control_tokens_in_a_text_are_text(embedder: BuiltinEmbedder) -> None:
    plain, spoken = await embedder.embed_documents(["annual leave", "annual [SEP] leave"])
    assert not np.array_equal(plain, spoken)
    tokens = embedder._encoder._tokenizer.encode("annual [SEP] leave").ids
    assert tokens.count(3) == 1


async def test_the_default_model_says_what_it_is(model_dir: Path, tmp_path: Path) -> None:
    embedder = await open_embedder(Settings(data_dir=tmp_path, embedder=EmbedderSettings(model_dir=model_dir)))
    info = embedder.info
    await embedder.close()
    assert (info.name, info.dimension, info.max_tokens) == ("all-MiniLM-L6-v2", 384, 256)
    assert (info.scripts, info.weight) == (frozenset({"Latin"}), 0.4)
    assert Path(info.vocabulary).is_file()


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0.001), ("int8", 0.05)])
async def test_the_default_model_gives_the_cosines_its_authors_publish(
    model_dir: Path, tmp_path: Path, precision: Precision, tolerance: float
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in MINILM.files:
        (source / name).symlink_to(model_dir.absolute() / name)
    model = await ensure_model(tmp_path / "built", model_dir=source, precision=precision)
    embedder = BuiltinEmbedder(model, 2)
    rows = await embedder.embed_documents(
        ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    )
    await embedder.close()
    np.testing.assert_allclose(rows[1:] @ rows[0], [0.695, 0.943, 0.257], atol=tolerance)


# ---------------------------------------------------------------- threads
async def test_closing_ends_the_threads_and_what_waits(embedder: BuiltinEmbedder) -> None:
    assert len(our_threads()) >= 3
    waiting = asyncio.create_task(embedder.embed_documents(["the annual leave question " * 20] * 3000))
    await asyncio.sleep(0.05)
    before = len(our_threads())
    await embedder.close()
    with pytest.raises(EmbedderUnavailable, match="closed"):
        await waiting
    assert len(our_threads()) == before - 3
    with pytest.raises(EmbedderUnavailable, match="closed"):
        await embedder.embed_query("leave")


class Slow:
    """An encoder that goes on one text at a time, when told."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.steps = threading.Semaphore(0)
        self._begun = threading.Semaphore(0)

    def __call__(self, text: str) -> Vector:
        self.started.append(text)
        self._begun.release()
        assert self.steps.acquire(timeout=20)
        if text == "fails":
            raise RuntimeError("as told")
        return np.ones(4, np.float32)

    async def begin(self, count: int) -> None:
        """Wait until that many more texts are under way."""
        for _ in range(count):
            assert await asyncio.to_thread(self._begun.acquire, timeout=20)


async def test_what_is_nearly_done_goes_first() -> None:
    slow = Slow()
    lane = Lane("embed-test", str, slow, 4, threads=1)
    bulk = asyncio.create_task(lane.embed([f"a long text of a file {number}" for number in range(100)]))
    await slow.begin(1)
    answer = asyncio.create_task(lane.embed(["one", "two"]))
    await asyncio.sleep(0.01)
    for _ in range(3):
        slow.steps.release()
    assert (await answer).shape == (2, 4)
    assert sorted(slow.started[1:3]) == ["one", "two"]
    bulk.cancel()
    slow.steps.release()
    with pytest.raises(asyncio.CancelledError):
        await bulk
    await asyncio.sleep(0.05)
    assert len(slow.started) <= 5  # the rest of a cancelled call is not embedded
    slow.steps.release()
    await asyncio.to_thread(lane.close)


async def test_a_question_does_not_wait_for_documents(embedder: BuiltinEmbedder) -> None:
    slow = Slow()
    bulk = Lane("embed-test", str, slow, 4, threads=2)
    embedder._bulk.close()
    embedder._bulk = bulk
    waiting = asyncio.create_task(embedder.embed_documents(["text"] * 10))
    await slow.begin(2)
    await asyncio.wait_for(embedder.embed_query("leave"), 10)
    assert not waiting.done()
    for _ in range(10):
        slow.steps.release()
    await waiting


async def test_nobody_stands_still_for_a_thread_that_does_not_begin() -> None:
    may_begin = threading.Event()

    def prepare(text: str) -> str:
        assert may_begin.wait(20)
        return text

    lane = Lane("embed-test", prepare, lambda _: np.ones(4, np.float32), 4, threads=1)
    first = asyncio.create_task(lane.embed(["one"]))
    await asyncio.sleep(0)
    second = asyncio.create_task(lane.embed(["two"]))
    await asyncio.sleep(0)
    may_begin.set()  # we come here although the thread waits for us
    assert [one.shape for one in await asyncio.gather(first, second)] == [(1, 4), (1, 4)]
    await asyncio.to_thread(lane.close)


async def test_a_failing_text_fails_its_caller_alone(caplog: pytest.LogCaptureFixture) -> None:
    slow = Slow()
    for _ in range(10):
        slow.steps.release()
    lane = Lane("embed-test", str, slow, 4, threads=1)
    with pytest.raises(EmbedderUnavailable, match="RuntimeError"):
        await lane.embed(["fails"])
    assert (await lane.embed(["works"])).shape == (1, 4)
    assert "embedding a text failed" in caplog.text
    await asyncio.to_thread(lane.close)


async def test_a_well_known_folder_is_used_as_its_authors_say(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "bge-small-zh-v1.5")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))  # as version 6 writes it
    (folder / "config_sentence_transformers.json").unlink(missing_ok=True)
    card = read_card(folder)
    assert (card.pooling, card.scripts) == ("cls", ("Latin", "Han"))
    assert card.query_prefix == "为这个句子生成表示以用于检索相关文章："
    (folder / "1_Pooling" / "config.json").unlink()
    assert read_card(folder).pooling == "cls"
    (folder / "kvasir.json").write_text('{"query_prefix": "", "scripts": ["*"]}')
    assert (read_card(folder).query_prefix, read_card(folder).scripts) == ("", ("*",))
