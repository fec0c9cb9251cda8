"""Tiny real models through the whole path: settings, a worker process, the engine, `kvasir ask`."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from core.engines import ctranslate2, llamacpp
from core.engines.local import LocalEngine
from core.errors import EngineUnavailable
from core.inference import sections
from core.opening import Adapters
from core.settings import Settings, load
from core.types import Ended, Prompt, Sampling, Turn
from tests.fakes.commands import Commands
from tests.fakes.engine import text_of
from tests.models.ct2_dir import write_ct2
from tests.models.gguf_file import write_gguf

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
PACKAGES = {"ctranslate2": "ctranslate2", "llamacpp": "llama_cpp"}
ENGINES = {"ctranslate2": ctranslate2.open_engine, "llamacpp": llamacpp.open_engine}


@pytest.fixture(scope="module", params=["ctranslate2", "llamacpp"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(engine, its model)"""
    if importlib.util.find_spec(PACKAGES[request.param]) is None:
        pytest.skip(f"{PACKAGES[request.param]} is not installed; make test-models has it")
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "llamacpp":
        return request.param, write_gguf(folder / "tiny.gguf")
    return request.param, write_ct2(folder / "tiny")


def variables(made: tuple[str, Path], **more: object) -> dict[str, str]:
    name, path = made
    values = {"MODEL_PATH": path, "THREADS": 1, "START_TIMEOUT_SECONDS": 60, **more}
    return {f"KVASIR_{name.upper()}__{key}": str(value) for key, value in values.items()}


def settings(made: tuple[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch, **more: object) -> Settings:
    for key, value in variables(made, **more).items():
        monkeypatch.setenv(key, value)
    return load(data_dir=folder)


@asynccontextmanager
async def opened(name: str, chosen: Settings) -> AsyncIterator[LocalEngine]:
    stages: list[str] = []
    engine = await ENGINES[name](chosen, progress=lambda stage, _done: stages.append(stage))
    try:
        assert stages[-1] == "ready"
        yield engine
    finally:
        await engine.close()


def prompt(question: str, ended: list[Ended] | None = None) -> Prompt:
    turns = (Turn("system", "Answer in one word."), Turn("user", question))
    return Prompt(turns, question, (), on_end=ended.append if ended is not None else None)


async def test_answers_stream_stop_and_are_cancelled(
    made: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(made[0], settings(made, tmp_path, monkeypatch)) as engine:
        assert (engine.info.model, engine.info.context_size) == ("tiny", 2048)
        assert await engine.health() == ""
        ended: list[Ended] = []
        greedy = Sampling(max_tokens=40, temperature=0.0)
        pieces = [str(piece) async for piece in engine.stream(prompt("Who?", ended), greedy)]
        text = "".join(pieces)
        assert len(pieces) > 1  # what comes within a hundredth of a second comes together
        assert ended[0].reason == "length"
        assert ended[0].answer_tokens == 40
        stop = text[20:24]
        cut = await text_of(engine.stream(prompt("Who?"), Sampling(40, 0.0, stop=(stop,))))
        assert cut.rstrip() == text.partition(stop)[0].rstrip()
        for _ in range(5):  # more than there is room for: each gives its place back
            async with aclosing(engine.stream(prompt("And when?"), Sampling(max_tokens=1500))) as stream:
                async for _piece in stream:
                    break
        assert await text_of(engine.stream(prompt("Who?"), greedy)) == text
        with pytest.raises(EngineUnavailable, match="too long for the model «tiny»"):
            [piece async for piece in engine.stream(prompt("word " * 3000), greedy)]


async def test_what_cannot_be_loaded_is_one_sentence(
    made: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineUnavailable, match="made for 2048 tokens"):
        async with opened(made[0], settings(made, tmp_path, monkeypatch, CONTEXT_SIZE=99_999)):
            pass


def test_its_memory_is_known_before_it_is_loaded(
    made: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.inference.models import Model

    chosen = settings(made, tmp_path, monkeypatch)
    found = Adapters().memory(Model(made[0], "engine", made[0], is_added=False), chosen)
    weights = made[1].stat().st_size if made[1].is_file() else (made[1] / "model.bin").stat().st_size
    cells = 2 * 2048 * 4096 if made[0] == "llamacpp" else 0
    assert found == weights + cells
    if made[0] == "ctranslate2":  # what conversion wrote down counts the cache too
        folder = shutil.copytree(made[1], tmp_path / "tiny")
        (folder / "kvasir.json").write_text(json.dumps({"context_size": 9000, "cell": 100}))
        chosen = settings((made[0], folder), tmp_path, monkeypatch, PARALLEL=2)
        assert ctranslate2.memory(chosen) == weights + 2 * 4096 * 100 * 4


@pytest.mark.parametrize("module", [ctranslate2, llamacpp])
def test_its_presets_can_be_set(module: Any) -> None:
    for preset in module.PRESETS:
        adapter = module.PRESETS[0].name
        sections.settings_with(Settings(), "engine", adapter, {**preset.values, "model_path": "/models/some"})


@pytest.mark.usefixtures("parser_here")
def test_a_question_on_the_command_line_is_answered_by_it(
    made: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {
        **variables(made, STALL_SECONDS=60),
        "KVASIR_EMBEDDER__KIND": "none",
        "KVASIR_ANSWER__ENGINE": made[0],
        "KVASIR_ANSWER__MAX_TOKENS": "24",
        "KVASIR_ANSWER__TEMPERATURE": "0",
        "KVASIR_ANSWER__MIN_EVIDENCE": "0",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "bees.md").write_text("# Bees\n\nThe bees on the roof are looked after by Mira Okafor.\n")
    kvasir = Commands(tmp_path / "data")
    kvasir("ingest", tmp_path / "bees.md", "--kb", "handbook")
    answer = kvasir.json("ask", "Who looks after the bees?", "--kb", "handbook")
    assert answer["engine"] == made[0]
    assert answer["answer"].strip()
