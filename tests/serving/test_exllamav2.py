"""ExLlamaV2's own generator behind our driver, its CUDA kernels done by torch (`tests/models/exllamav2_cpu.py`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if find_spec("exllamav2") is None:
    pytest.skip("ExLlamaV2 is not installed: make test-models has it", allow_module_level=True)

from core.serving.driver import CannotLoad, Refused
from core.serving.drivers import exllamav2
from core.serving.drivers.exllama import ExLlamaDriver
from core.serving.drivers.exllama_folder import architectures_of, check_architecture, read_folder
from core.serving.drivers.exllama_overlay import Overlay
from tests.fakes.model import write_safetensors
from tests.models.exllamav2_cpu import on_cpu
from tests.models.llama_dir import BOS, END, EOS, write_llama
from tests.models.llama_reference import Reference
from tests.serving.driving import a_job, answer, silent
from tests.serving.exllama_promises import PROMPT, SMALL, ExLlamaPromises

pytestmark = pytest.mark.filterwarnings("ignore")  # the library warns of what it does itself


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("v2") / "tiny", **SMALL)


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exllamav2, "provide", lambda *_: None)  # there is nothing to compile
        yield patch


def loaded(folder: Path, **values: Any) -> ExLlamaDriver:
    driver = exllamav2.make({"model_path": str(folder), "context_size": 1024, "chunk_size": 256, **values})
    driver.load(silent)
    return driver


@pytest.fixture(scope="module", params=["serial", "paged"])
def driver(request: pytest.FixtureRequest, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[ExLlamaDriver]:
    with on_cpu(flash=request.param == "paged"):
        made = loaded(folder, parallel=8, cache_size=8192)
        yield made
        made.close()


@pytest.fixture(scope="module")
def side_by_side(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[ExLlamaDriver]:
    with on_cpu(flash=True):
        made = loaded(folder, parallel=8, cache_size=8192)
        yield made
        made.close()


class TestGenerator(ExLlamaPromises):
    """Serial and paged."""


# ---------------------------------------------------------------- guesses, adapters, modes
@pytest.mark.parametrize("flash", [False, True])
def test_guessing_ahead_changes_nothing_of_what_is_said(
    folder: Path, patch: pytest.MonkeyPatch, flash: bool, tmp_path: Path
) -> None:
    draft = write_llama(tmp_path / "draft", **SMALL, num_hidden_layers=1)
    with on_cpu(flash=flash), ExitStack() as open_:
        said = []
        for values in ({}, {"ngram_draft": True}, {"draft_model_dir": str(draft), "draft_tokens": 3}):
            driver = loaded(folder, parallel=4, **values)
            open_.callback(driver.close)
            said.append([answer(driver, a_job(PROMPT, max_tokens=count))[0] for count in (1, 40)])
            with pytest.raises(Refused):
                driver.begin(a_job([65] * 1024))
            full = answer(driver, a_job([65] * 1000, max_tokens=500))[1]
            assert (full.reason, full.new_tokens) == ("length", 24)
    assert said[0] == said[1] == said[2]


@pytest.mark.parametrize(
    "values",
    [{"cache": "q8"}, {"cache": "q6"}, {"cache": "q4", "paged": "off"}, {"gpu_split": [2.0]}, {"gpu_reserve": [0.1]}],
)
def test_caches_and_cards_are_taken_as_they_are_set(
    folder: Path, patch: pytest.MonkeyPatch, values: dict[str, Any]
) -> None:
    """How exact a quantized cache is only a card shows; here it keeps all."""
    prompt = [BOS, *(65 + (number * 7) % 26 for number in range(300))]
    with on_cpu(flash=True):
        driver = loaded(folder, **values)
        text, _ = answer(driver, a_job(prompt, max_tokens=12))
        cache = type(driver._loaded.generator.cache).__name__  # type: ignore[union-attr]
        driver.close()
    assert cache == "_".join(["ExLlamaV2Cache", *(kind.upper() for kind in [values.get("cache")] if kind)])
    assert text.encode() == bytes(Reference(folder).greedy(prompt, 12))


def test_a_lora_changes_what_is_said(folder: Path, patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    name = "base_model.model.model.layers.0.self_attn.o_proj"
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    (tmp_path / "adapter_model.bin").write_bytes(b"the library would read this one first")
    with on_cpu(flash=False):
        plain = loaded(folder)
        said = [answer(plain, a_job(PROMPT, max_tokens=12))[0]]
        plain.close()
        for strength in (0.0, 5.0):
            halves = {
                f"{name}.lora_A.weight": random.standard_normal((4, 128)).astype(np.float32),
                f"{name}.lora_B.weight": (random.standard_normal((128, 4)) * strength).astype(np.float32),
            }
            write_safetensors(tmp_path / "adapter_model.safetensors", halves, "F16")
            driver = loaded(folder, lora_dir=str(tmp_path))
            said.append(answer(driver, a_job(PROMPT, max_tokens=12))[0])
            driver.close()
    assert said[0] == said[1] != said[2]


def test_how_it_runs_is_told(folder: Path, patch: pytest.MonkeyPatch) -> None:
    values = {"model_path": str(folder), "parallel": 3, "context_size": 512}
    with on_cpu(flash=False):
        driver = exllamav2.make(values)
        card = driver.load(silent)
        driver.close()
        assert (card.parallel, card.details["mode"]) == (1, exllamav2.SERIAL)
        with pytest.raises(CannotLoad, match="flash-attn"):
            exllamav2.make({**values, "paged": "on"}).load(silent)
    with on_cpu(flash=True):
        stages: list[str] = []
        driver = exllamav2.make(values)
        card = driver.load(lambda stage, *_: stages.append(stage))
        driver.close()
        assert (card.parallel, card.details["mode"]) == (3, "paged")
        assert "exllamav2 0.3.2" in str(card.details["library"])
        assert list(dict.fromkeys(stages)) == ["read", "weights", "rehearse", "start"]
        driver = exllamav2.make({**values, "paged": "off"})
        assert driver.load(silent).parallel == 1
        driver.close()


# ---------------------------------------------------------------- configurations
@pytest.mark.parametrize(
    ("told", "base", "scale"),
    [
        ({"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}, 500000.0, 1.0),
        (
            {"rope_theta": None, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 20000.0}},
            20000.0,
            2.0,
        ),
        ({"rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 4.0}}, 10000.0, 4.0),
    ],
)
def test_new_words_of_a_configuration_reach_the_library(
    told: dict[str, Any], base: float, scale: float, tmp_path: Path
) -> None:
    path = write_llama(tmp_path / "model", **SMALL, **told)
    overlay = Overlay(read_folder(path, "exllamav2"))
    with on_cpu(flash=False) as (library, _):
        config = library.ExLlamaV2Config()
        config.model_dir = str(overlay.path)
        config.prepare()
        assert (config.rotary_embedding_base, config.scale_pos_emb) == (base, scale)
    overlay.close()


def test_an_architecture_that_the_library_would_take_for_a_llama_is_refused(tmp_path: Path) -> None:
    known = architectures_of("exllamav2")
    assert {"LlamaForCausalLM", "Qwen3MoeForCausalLM", "Gemma3ForConditionalGeneration", "MixtralForCausalLM"} <= known
    path = write_llama(tmp_path / "model", **SMALL, architectures=["Qwen9ForCausalLM"])
    with pytest.raises(CannotLoad, match="Qwen9ForCausalLM, which exllamav2 does not know"):
        check_architecture(read_folder(path, "exllamav2"), "exllamav2")


def test_every_stop_of_the_model_is_known(folder: Path) -> None:
    assert read_folder(folder, "exllamav2").stops == (EOS, END)
