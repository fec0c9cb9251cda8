"""The driver of ExLlama's generators, against one with the same contract; the libraries run only on a card."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.serving.driver import (
    Broke,
    CannotLoad,
    Done,
    DriverError,
    Event,
    Job,
    OutOfMemory,
    Piece,
    Poisoned,
    Prefilled,
    Refused,
)
from core.serving.drivers.exllama import ExLlamaDriver
from tests.models.llama_dir import BOS, END, EOS, write_llama, write_tokenizer
from tests.serving.exllama_generator import TheirGenerator, TheirLibrary, driver_of, saying

SMALL = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1,
    "num_key_value_heads": 1, "head_dim": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("model") / "tiny", **SMALL)


@pytest.fixture
def opened(folder: Path) -> Iterator[Callable[..., tuple[ExLlamaDriver, TheirLibrary]]]:
    drivers: list[ExLlamaDriver] = []

    def open_(generator: TheirGenerator, **values: Any) -> tuple[ExLlamaDriver, TheirLibrary]:
        library = TheirLibrary(generator)
        drivers.append(driver_of(folder, library, **values))
        return drivers[-1], library

    yield open_
    for driver in drivers:
        driver.close()


def run(driver: ExLlamaDriver, most: int = 2000) -> list[Event]:
    """All that comes until every job is over."""
    events: list[Event] = []
    for _ in range(most):
        found = driver.step()
        events += found
        if not driver._running:
            return events
    raise AssertionError("it does not end")


def text_of(events: Sequence[Event], job_id: str = "a") -> str:
    return "".join(one.text for one in events if isinstance(one, Piece) and one.job_id == job_id)


def job(name: str = "a", prompt: Sequence[int] = (BOS, 65, 66), max_tokens: int = 50, **values: Any) -> Job:
    return Job(name, tuple(prompt), max_tokens, **values)


# ---------------------------------------------------------------- text
def test_text_comes_in_whole_characters_up_to_the_end_of_the_answer(opened: Any) -> None:
    driver, _ = opened(TheirGenerator(saying("Grüße, 世界! 🌍", EOS)))
    driver.begin(job())
    events = run(driver)
    assert text_of(events) == "Grüße, 世界! 🌍"
    assert all("\ufffd" not in one.text for one in events if isinstance(one, Piece))
    assert events[-1] == Done("a", "stop", prompt_tokens=3, new_tokens=len("Grüße, 世界! 🌍".encode()) + 1)


def test_every_id_that_ends_an_answer_does(opened: Any) -> None:
    driver, library = opened(TheirGenerator(saying("yes", END)))
    driver.begin(job())
    assert text_of(run(driver)) == "yes"
    assert {EOS, END} <= set(library.jobs[0].stops)


def test_a_stop_string_is_left_out_and_what_only_looked_like_one_is_not(opened: Any) -> None:
    driver, _ = opened(TheirGenerator(saying("one STOP two", EOS)))
    driver.begin(job("a", stop=("STOP",)))
    driver.begin(job("b", stop=("two!",)))
    events = run(driver)
    assert text_of(events, "a") == "one "
    assert text_of(events, "b") == "one STOP two"
    assert [one.reason for one in events if isinstance(one, Done)] == ["stop", "stop"]


@pytest.mark.parametrize("values", [{}, {"ngram_draft": True, "draft_tokens": 3}])
def test_an_answer_is_as_long_as_it_may_be_and_not_a_token_longer(opened: Any, values: dict[str, Any]) -> None:
    driver, _ = opened(TheirGenerator(saying("abcdefgh")), **values)
    driver.begin(job(max_tokens=10))
    events = run(driver)
    assert text_of(events) == "abcdefghab"
    assert events[-1] == Done("a", "length", prompt_tokens=3, new_tokens=10)


def test_a_character_that_the_limit_cuts_in_two_is_not_shown(opened: Any) -> None:
    driver, _ = opened(TheirGenerator(saying("a世")))
    driver.begin(job(max_tokens=3))
    assert text_of(run(driver)) == "a"


def test_an_answer_ends_where_the_context_does(opened: Any) -> None:
    driver, library = opened(TheirGenerator(saying("x")), context_size=256)
    driver.begin(job(prompt=[65] * 250, max_tokens=1000))
    assert run(driver)[-1] == Done("a", "length", prompt_tokens=250, new_tokens=6)
    assert library.generator.max_pages == 1


# ---------------------------------------------------------------- several jobs
def test_answers_run_side_by_side_and_keep_apart(opened: Any) -> None:
    def reply(prompt: Sequence[int]) -> Iterator[int]:
        yield from [prompt[-1]] * prompt[-2]
        yield EOS

    driver, _ = opened(TheirGenerator(reply, batch=8), parallel=8, cache_size=4096)
    for number in range(8):
        driver.begin(job(f"job {number}", prompt=[BOS, 5 + number, 65 + number]))
    events = run(driver)
    for number in range(8):
        assert text_of(events, f"job {number}") == chr(65 + number) * (5 + number)
    assert len([one for one in events if isinstance(one, Done)]) == 8


def test_how_far_a_long_prompt_is_read_is_told(opened: Any) -> None:
    driver, library = opened(TheirGenerator(saying("x", EOS), chunk=256))
    driver.begin(job(prompt=[65] * 600))
    library.jobs[0].cached_pages = 1
    read = [one for one in run(driver) if isinstance(one, Prefilled)]
    assert [(one.done, one.total, one.cached) for one in read] == [(256, 599, 256), (512, 599, 256), (599, 599, 256)]


def test_nothing_comes_of_a_cancelled_job_and_its_pages_are_free_again(opened: Any) -> None:
    driver, library = opened(TheirGenerator(saying("x")), context_size=512)
    driver.begin(job("a", max_tokens=400))
    driver.step()
    driver.cancel("a")
    driver.cancel("a")
    driver.cancel("never heard of")
    assert driver.step() == ()
    assert library.generator.active == library.generator.pending == []
    driver.begin(job("b", max_tokens=5))
    assert text_of(run(driver), "b") == "xxxxx"


def test_a_job_that_waits_for_pages_can_be_cancelled_too(opened: Any) -> None:
    driver, library = opened(TheirGenerator(saying("x")), context_size=512)
    driver.begin(job("a", max_tokens=400))
    driver.begin(job("b", max_tokens=400))
    driver.step()
    assert [one.identifier for one in library.generator.pending] == ["b"]
    driver.cancel("b")
    assert library.generator.pending == []


# ---------------------------------------------------------------- refusals
def test_a_prompt_that_does_not_fit_is_refused_and_the_others_go_on(opened: Any) -> None:
    driver, _ = opened(TheirGenerator(saying("x", EOS)), context_size=256)
    driver.begin(job("a"))
    with pytest.raises(Refused, match="256") as caught:
        driver.begin(job("b", prompt=[65] * 256))
    assert caught.value.code == "context_length"
    assert text_of(run(driver), "a") == "x"


def test_what_the_library_does_not_take_is_that_jobs_alone(opened: Any) -> None:
    driver, library = opened(TheirGenerator(saying("x", EOS)))
    library.generator.max_pages = 1
    with pytest.raises(Refused, match="pages") as caught:
        driver.begin(job("a", prompt=[65] * 300))
    assert caught.value.code == "context_length"
    with pytest.raises(Refused) as caught:
        driver.begin(job("b", stop=("\ud800",)))
    assert caught.value.code == "bad_request"
    driver.begin(job("c"))
    assert text_of(run(driver), "c") == "x"


def test_a_prompt_too_short_for_ngram_drafts_is_refused_before_it_breaks_the_library(opened: Any) -> None:
    driver, _ = opened(TheirGenerator(saying("x", EOS)), ngram_draft=True)
    with pytest.raises(Refused, match="at least 3"):
        driver.begin(job(prompt=[65, 66]))


# ---------------------------------------------------------------- what ends a process
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), OutOfMemory),
        (RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED"), OutOfMemory),
        (type("OutOfMemoryError", (RuntimeError,), {})("no room"), OutOfMemory),
        (
            RuntimeError("CUDA error: an illegal memory access was encountered\nFor debugging …"),
            Poisoned,
        ),
        (AssertionError("page.ref_count == 1"), Poisoned),
        (IndexError("list index out of range"), Poisoned),
    ],
)
def test_after_any_error_of_a_step_the_generator_is_used_no_more(
    opened: Any, error: Exception, expected: type[DriverError]
) -> None:
    driver, library = opened(TheirGenerator(saying("x")))
    driver.begin(job())
    driver.step()
    library.generator.fails = error
    with pytest.raises(expected) as caught:
        driver.step()
    assert "\n" not in str(caught.value)
    assert expected is Poisoned or "q4" in str(caught.value)
    library.generator.fails = None
    with pytest.raises(Poisoned):
        driver.step()
    driver.cancel("a")  # nothing is asked of it any more
    driver.close()
    assert library.closed == 0


def test_a_cancel_that_fails_on_the_card_ends_the_process_too(opened: Any) -> None:
    driver, library = opened(TheirGenerator(saying("x")))
    driver.begin(job())
    driver.step()
    library.generator.cancel_fails = RuntimeError("CUDA error: unspecified launch failure")
    driver.cancel("a")
    with pytest.raises(Poisoned, match="launch failure"):
        driver.step()


def test_what_exllamav3_keeps_to_one_job_stays_with_it(opened: Any) -> None:
    driver, library = opened(TheirGenerator(saying("x", EOS)))
    library.generator.job_fails = {
        "a": RuntimeError("CUDA out of memory"),
        "b": ValueError("an odd prompt"),
    }
    for name in "abc":
        driver.begin(job(name))
    events = run(driver)
    broke = {one.job_id: one for one in events if isinstance(one, Broke)}
    assert broke["a"].code == "out_of_memory"
    assert (broke["b"].code, "odd prompt" in broke["b"].sentence) == ("failed", True)
    assert text_of(events, "c") == "x"


def test_a_cuda_error_of_one_job_is_everybodys(opened: Any) -> None:
    driver, library = opened(TheirGenerator(saying("x", EOS)))
    library.generator.job_fails = {"a": RuntimeError("CUDA error: device-side assert triggered")}
    driver.begin(job("a"))
    driver.begin(job("b"))
    with pytest.raises(Poisoned, match="device-side"):
        run(driver)


# ---------------------------------------------------------------- loading
def test_what_was_loaded_is_told(folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    driver = ExLlamaDriver(
        {"model_path": str(folder), "cache": "q4", "cache_size": 3000, "parallel": 6, "context_size": 1000},
        TheirLibrary(TheirGenerator(saying("x"))),
    )
    card = driver.load(lambda *one: told.append(one))
    assert (card.model, card.context_size, card.parallel) == ("tiny", 1000, 6)
    assert {"chat", "completion"} <= card.features
    assert card.details["architecture"] == "LlamaForCausalLM"
    assert card.details["cache"] == "q4, 3072 tokens"
    assert card.details["quantization"] == "FP16"
    assert ("load", 2, 3) in told
    driver.close()


def test_the_library_reads_a_folder_of_links_that_goes_when_the_driver_does(folder: Path, tmp_path: Path) -> None:
    library = TheirLibrary(TheirGenerator(saying("x")))
    driver = driver_of(folder, library)
    assert library.plan is not None
    path = library.plan.path
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert (path / "model.safetensors").resolve() == (folder / "model.safetensors").resolve()
    assert not (path / "config.json").is_symlink()
    driver.close()
    driver.close()
    assert not path.exists()
    assert (folder / "model.safetensors").is_file()
    assert library.closed == 1


def test_links_of_processes_that_were_killed_are_taken_away_by_the_next(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, other = tmp_path / "kvasir-model-4194399-abc", tmp_path / "kvasir-model-1-abc"
    for one in (left, other):
        one.mkdir()
        (one / "model.safetensors").symlink_to(folder / "model.safetensors")
    driver_of(folder, TheirLibrary(TheirGenerator(saying("x")))).close()
    assert [one.name for one in tmp_path.iterdir()] == [other.name]
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (RuntimeError("Insufficient VRAM for model and cache"), OutOfMemory, "cache of q8"),
        (AssertionError("Insufficient space in device allocation"), OutOfMemory, "context_size"),
        (RuntimeError("CUDA error: no kernel image is available for execution"), CannotLoad, "kvasir model build"),
        (ValueError(" ## Could not find model.layers.0.* in model"), CannotLoad, "Could not find"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            CannotLoad,
            r"pip install 'kvasir\[exllamav2\]'",
        ),
        (CannotLoad("its own sentence"), CannotLoad, "^its own sentence$"),
    ],
)
def test_what_goes_wrong_while_loading_is_a_sentence_and_leaves_nothing(
    folder: Path, error: Exception, expected: type[DriverError], words: str
) -> None:
    library = TheirLibrary(TheirGenerator(saying("x")), fails=error)
    driver = ExLlamaDriver({"model_path": str(folder)}, library)
    with pytest.raises(expected, match=words):
        driver.load(lambda *_: None)
    assert library.plan is not None
    assert not library.plan.path.exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_path": ""}, "model_path"),
        ({"cache": "q5"}, "no cache «q5»"),
        ({"ngram_draft": True, "draft_model_dir": "/x"}, "not both"),
        ({"gpu_split": [1], "gpu_reserve": [1]}, "not both"),
    ],
)
def test_settings_that_cannot_be_are_said(folder: Path, values: dict[str, Any], words: str) -> None:
    with pytest.raises(CannotLoad, match=words):
        ExLlamaDriver({"model_path": str(folder), **values}, TheirLibrary(TheirGenerator(saying("x"))))


def test_a_lora_is_taken_from_safetensors_alone(folder: Path, tmp_path: Path) -> None:
    library = TheirLibrary(TheirGenerator(saying("x")))
    values = {"model_path": str(folder), "lora_dir": str(tmp_path)}
    with pytest.raises(CannotLoad, match="no LoRA"):
        ExLlamaDriver(values, library)
    (tmp_path / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(CannotLoad, match="can run code"):
        ExLlamaDriver(values, library)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"{}")
    with pytest.raises(CannotLoad, match="adapter_config"):
        ExLlamaDriver(values, library)
    (tmp_path / "adapter_config.json").write_text("{}")
    driver = ExLlamaDriver(values, library)
    assert "lora" in driver.load(lambda *_: None).features
    driver.close()


def test_a_draft_model_has_the_same_tokens(folder: Path, tmp_path: Path) -> None:
    draft = write_llama(tmp_path / "draft", **SMALL)
    library = TheirLibrary(TheirGenerator(saying("abcdefgh")))
    driver = driver_of(folder, library, draft_model_dir=str(draft), draft_tokens=2)
    assert library.plan is not None
    assert library.plan.draft_path is not None
    assert library.plan.cache_tokens == 2048 + 256  # what is guessed at the end of a full context has room
    driver.begin(job(max_tokens=7))
    assert text_of(run(driver)) == "abcdefg"
    driver.close()

    write_tokenizer(draft)
    told = json.loads((draft / "tokenizer.json").read_bytes())
    vocabulary = told["model"]["vocab"]
    vocabulary["T"], vocabulary["h"] = vocabulary["h"], vocabulary["T"]
    (draft / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(CannotLoad, match="other tokens"):
        driver_of(folder, TheirLibrary(TheirGenerator(saying("x"))), draft_model_dir=str(draft))
