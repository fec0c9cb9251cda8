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

from core.serving.driver import CannotLoad, Done, Prefilled, Refused
from core.serving.drivers import exllamav2
from core.serving.drivers.exllama import ExLlamaDriver
from core.serving.drivers.exllama_folder import architectures_of, check_architecture, read_folder
from core.serving.drivers.exllama_overlay import Overlay
from tests.fakes.model import write_safetensors
from tests.models.exllamav2_cpu import on_cpu
from tests.models.llama_dir import ASSISTANT, BOS, END, EOS, USER, write_llama
from tests.models.llama_reference import Reference
from tests.serving.driving import a_job, answer, silent, text_of, to_the_end, until_it_writes

pytestmark = pytest.mark.filterwarnings("ignore")  # the library warns of what it does itself

PROMPT = (BOS, USER, *b"Who looks after the bees?", END, ASSISTANT)
SMALL = {
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}


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
def paged(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[ExLlamaDriver]:
    with on_cpu(flash=True):
        made = loaded(folder, parallel=8, cache_size=8192)
        yield made
        made.close()


# ---------------------------------------------------------------- what it says
@pytest.mark.parametrize("length", [3, 300])
def test_it_says_what_the_model_says(driver: ExLlamaDriver, folder: Path, length: int) -> None:
    """With 300 tokens the prompt is read in two steps. Torch's attention, which the library prefers where there is no
    flash-attn, leaves out the causal mask: with it this fails."""
    prompt = [BOS, *(65 + (number * 7) % 26 for number in range(length))]
    text, done = answer(driver, a_job(prompt, max_tokens=12))
    assert text.encode() == bytes(Reference(folder).greedy(prompt, 12))
    assert done == Done(done.job_id, "length", len(prompt), 12, done.cached_tokens)


def test_an_answer_ends_by_stops_and_by_its_length(driver: ExLlamaDriver) -> None:
    text, _ = answer(driver, a_job(PROMPT, max_tokens=12))
    cut, done = answer(driver, a_job(PROMPT, max_tokens=12, stop=(text[4:6], "never")))
    assert (cut, done.reason) == (text[: text.index(text[4:6])], "stop")
    for count in (1, 2, 5):
        assert answer(driver, a_job(PROMPT, max_tokens=count))[0] == text[:count]


def test_a_schema_is_kept_to_and_the_answer_ends_with_it(driver: ExLlamaDriver) -> None:
    schema = {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}, "colour": {"enum": ["red", "blue"]}},
        "required": ["yes", "colour"],
        "additionalProperties": False,
    }
    text, done = answer(driver, a_job(PROMPT, max_tokens=200, json_schema=schema))
    assert json.loads(text)["colour"] in ("red", "blue")
    assert done.reason == "stop"
    text, done = answer(driver, a_job(PROMPT, max_tokens=50, regex="[0-9]{4}-[0-9]{2}"))
    assert (len(text), text[4], done.reason) == (7, "-", "stop")


def test_samplers_do_what_they_are_asked_for_and_nothing_else(driver: ExLlamaDriver) -> None:
    """The stand-in for the kernel fails where a sampler is on that nobody set."""
    warm = {"temperature": 5.0, "max_tokens": 16}
    same = {answer(driver, a_job(PROMPT, seed=7, **warm))[0] for _ in range(2)}
    assert len(same) == 1
    assert len({answer(driver, a_job(PROMPT, seed=seed, **warm))[0] for seed in range(4)}) > 1
    greedy, _ = answer(driver, a_job(PROMPT, max_tokens=16))
    assert answer(driver, a_job(PROMPT, top_k=1, **warm))[0] == greedy
    assert answer(driver, a_job(PROMPT, top_p=1e-6, **warm))[0] == greedy
    assert answer(driver, a_job(PROMPT, min_p=1.0, **warm))[0] == greedy
    assert answer(driver, a_job(PROMPT, max_tokens=16, presence_penalty=100.0))[0] != greedy
    twice, _ = answer(driver, a_job(PROMPT, max_tokens=16, repetition_penalty=1.3))
    assert twice != greedy


# ---------------------------------------------------------------- side by side
def test_eight_answers_at_a_time_say_what_each_says_alone(paged: ExLlamaDriver) -> None:
    prompts = [(BOS, USER, *f"question {number}? ".encode() * (1 + number * 4), END) for number in range(8)]
    alone = [answer(paged, a_job(prompt, max_tokens=20))[0] for prompt in prompts]
    jobs = [a_job(prompt, max_tokens=20) for prompt in prompts]
    together = to_the_end(paged, *jobs)
    assert [text_of(together[job.id]) for job in jobs] == alone


def test_a_prompt_that_begins_like_the_last_is_not_read_again(paged: ExLlamaDriver) -> None:
    start = (BOS, *(65 + number % 23 for number in range(600)))
    first, _ = answer(paged, a_job((*start, 70), max_tokens=8))
    job = a_job((*start, 71), max_tokens=8)
    events = to_the_end(paged, job)[job.id]
    done = events[-1]
    assert isinstance(done, Done)
    assert done.cached_tokens >= 512
    read = [one for one in events if isinstance(one, Prefilled)]
    assert (read[-1].done, read[-1].total) == (601, 601)
    assert answer(paged, a_job((*start, 70), max_tokens=8))[0] == first


def test_a_cancelled_answer_leaves_the_others_as_they_are(driver: ExLlamaDriver) -> None:
    wanted, _ = answer(driver, a_job(PROMPT, max_tokens=20))
    for _ in range(20):
        job = a_job(PROMPT, max_tokens=500)
        until_it_writes(driver, job)
        driver.cancel(job.id)
    assert driver.step() == ()
    assert answer(driver, a_job(PROMPT, max_tokens=20))[0] == wanted


def test_what_does_not_fit_is_refused_and_the_others_go_on(driver: ExLlamaDriver) -> None:
    with pytest.raises(Refused) as caught:
        driver.begin(a_job([65] * 1024))
    assert caught.value.code == "context_length"
    _, done = answer(driver, a_job([65] * 1020, max_tokens=100))
    assert (done.reason, done.new_tokens) == ("length", 4)
    for bad in ({"stop": ("\ud800",)}, {"regex": "(("}, {"json_schema": {"type": "nothing"}}):
        with pytest.raises(Refused) as caught:
            driver.begin(a_job(PROMPT, **bad))
        assert caught.value.code == "bad_request"
    assert driver.step() == ()


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
