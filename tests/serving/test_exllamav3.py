"""ExLlamaV3's own generator behind our driver, over a Llama of torch's making (`tests/models/exllamav3_cpu.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("exllamav3") is None:
    pytest.skip("ExLlamaV3 is not installed: make test-models has it", allow_module_level=True)

from core.serving.driver import Broke, CannotLoad, OutOfMemory
from core.serving.drivers import exllamav3
from core.serving.drivers.exllama import ExLlamaDriver
from core.serving.drivers.exllama_folder import architectures_of, check_architecture, read_folder
from core.serving.drivers.exllama_overlay import Overlay
from tests.models.exllamav3_cpu import on_cpu
from tests.models.llama_dir import write_llama
from tests.serving.driving import a_job, answer, silent, text_of, to_the_end
from tests.serving.exllama_promises import PROMPT, SMALL, ExLlamaPromises

pytestmark = pytest.mark.filterwarnings("ignore")  # the library warns of what it does itself


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("v3") / "tiny", **SMALL)


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exllamav3, "provide", lambda *_: None)  # there is nothing to compile
        yield patch


def loaded(folder: Path, **values: object) -> ExLlamaDriver:
    driver = exllamav3.make({"model_path": str(folder), "context_size": 1024, "chunk_size": 256, **values})
    driver.load(silent)
    return driver


@pytest.fixture(scope="module")
def driver(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[ExLlamaDriver]:
    exllamav3._filter_class.cache_clear()
    with on_cpu():
        made = loaded(folder, parallel=8, cache_size=8192)
        yield made
        made.close()


@pytest.fixture(scope="module")
def side_by_side(driver: ExLlamaDriver) -> ExLlamaDriver:
    return driver


class TestGenerator(ExLlamaPromises):
    """It is always paged."""

    def test_a_failure_of_one_prompt_stays_with_it(
        self, driver: ExLlamaDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The library contains it; so do we, and its memory is free for the others."""
        import exllamav3 as library

        own = library.Model.prefill

        def failing(self: object, input_ids: object, params: object) -> object:
            if 90 in input_ids[0].tolist():  # type: ignore[index]
                raise RuntimeError("CUDA out of memory. Tried to allocate 1.00 GiB")
            return own(self, input_ids, params)

        wanted, _ = answer(driver, a_job(PROMPT, max_tokens=8))
        monkeypatch.setattr(library.Model, "prefill", failing)
        bad, good = a_job([90] * 700, max_tokens=8), a_job(PROMPT, max_tokens=8)
        events = to_the_end(driver, bad, good)
        assert [type(one) for one in events[bad.id]] == [Broke]
        assert events[bad.id][0].code == "out_of_memory"  # type: ignore[union-attr]
        assert text_of(events[good.id]) == wanted

    def test_after_an_error_of_a_step_it_is_used_no_more(
        self, folder: Path, driver: ExLlamaDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import exllamav3 as library

        other = loaded(folder)
        monkeypatch.setattr(
            library.Model, "forward", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("CUDA out of memory"))
        )
        with pytest.raises(OutOfMemory, match="smaller context_size"):
            to_the_end(other, a_job(PROMPT))
        other.close()


def test_a_draft_model_changes_nothing_of_what_is_said(folder: Path, patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    draft = write_llama(tmp_path / "draft", **{**SMALL, "num_hidden_layers": 1})
    said = []
    with on_cpu():
        for values in (dict[str, object](), {"draft_model_dir": str(draft), "draft_tokens": 3}):
            driver = loaded(folder, parallel=2, **values)
            said.append([answer(driver, a_job(PROMPT, max_tokens=count))[0] for count in (1, 2, 30)])
            full = answer(driver, a_job([65] * 1000, max_tokens=500))[1]
            assert (full.reason, full.new_tokens) == ("length", 24)
            driver.close()
    assert said[0] == said[1]


@pytest.mark.parametrize("cache", ["q8", "6,4"])
def test_a_quantized_cache_is_asked_for(folder: Path, patch: pytest.MonkeyPatch, cache: str) -> None:
    with on_cpu() as library:
        made: list[tuple[object, dict[str, object]]] = []
        own = library.Cache.__init__

        def noted(self: object, *args: object, **values: object) -> None:
            made.append((values["layer_type"], values))
            own(self, *args, **values)

        patch.setattr(library.Cache, "__init__", noted)
        driver = loaded(folder, cache=cache)
        assert made[0][0] is library.CacheLayer_quant
        assert (made[0][1]["k_bits"], made[0][1]["v_bits"]) == {"q8": (8, 8), "6,4": (6, 4)}[cache]
        driver.close()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"gpu_split": [20.0, 24.0]}, {"use_per_device": [20.0, 24.0]}),
        ({"gpu_reserve": [2.0]}, {"reserve_per_device": [2.0]}),
        ({}, {}),
    ],
)
def test_cards_are_taken_as_they_are_set(
    folder: Path, patch: pytest.MonkeyPatch, values: dict[str, object], expected: dict[str, object]
) -> None:
    with on_cpu() as library:
        own, told = library.Model.load, dict[str, object]()

        def noted(self: object, **given: object) -> None:
            told.update(given)
            own(self, **given)

        with pytest.MonkeyPatch.context() as once:
            once.setattr(library.Model, "load", noted)
            loaded(folder, **values).close()
    assert {key: told[key] for key in told if key.endswith("per_device")} == expected
    assert told["max_chunk_size"] == 256


def test_how_it_runs_is_told(folder: Path, patch: pytest.MonkeyPatch) -> None:
    with on_cpu():
        stages: list[str] = []
        driver = exllamav3.make({"model_path": str(folder), "context_size": 512, "parallel": 3})
        card = driver.load(lambda stage, *_: stages.append(stage))
        driver.close()
    assert (card.parallel, card.details["mode"], card.context_size) == (3, "paged", 512)
    assert "exllamav3 1.6.5" in str(card.details["library"])
    assert list(dict.fromkeys(stages)) == ["read", "weights", "rehearse", "start"]


def test_new_words_of_a_configuration_reach_the_library(tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 500000.0}
    path = write_llama(tmp_path / "model", **SMALL, rope_theta=None, rope_parameters=rope)
    overlay = Overlay(read_folder(path, "exllamav3"))
    with on_cpu() as library:
        assert library.Config.from_directory(str(overlay.path)).rope_settings.rope_theta == 500000.0
    overlay.close()


def test_an_architecture_that_it_does_not_know_is_refused_by_name(tmp_path: Path) -> None:
    with on_cpu():
        from exllamav3.architecture.architectures import get_architectures

        assert set(get_architectures()) <= architectures_of("exllamav3")
    path = write_llama(tmp_path / "model", **SMALL, architectures=["Qwen9ForCausalLM"])
    with pytest.raises(CannotLoad, match="Qwen9ForCausalLM, which exllamav3 does not know"):
        check_architecture(read_folder(path, "exllamav3"), "exllamav3")
