"""What an ExLlama model's folder holds, and what of it is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import opening
from core.engines import exllamav2, exllamav3
from core.inference.sections import FormField
from core.serving.driver import CannotLoad
from core.serving.drivers import exllama_folder
from core.serving.drivers.exllama_folder import (
    Library,
    cache_bytes,
    check_architecture,
    memory_bytes,
    normalised,
    read_folder,
)
from core.serving.drivers.exllama_options import Options
from core.settings import load
from tests.fakes.model import write_safetensors
from tests.models.llama_dir import END, EOS, write_llama, write_tokenizer

SMALL = {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 288,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "tiny", **SMALL)


def quantized(folder: Path, **told: Any) -> Path:
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": told}))
    return folder


# ---------------------------------------------------------------- formats
@pytest.mark.parametrize(
    ("library", "told", "said"),
    [
        ("exllamav2", {}, "FP16"),
        ("exllamav2", {"quant_method": "exl2", "bits": 4.65}, "EXL2 4.65 bits"),
        ("exllamav2", {"quant_method": "gptq", "bits": 4, "desc_act": True}, "GPTQ 4 bits"),
        ("exllamav3", {"quant_method": "exl3", "bits": 3.0}, "EXL3 3 bits"),
        ("exllamav3", {}, "FP16"),
    ],
)
def test_what_a_library_takes_is_told_in_words(folder: Path, library: Library, told: dict[str, Any], said: str) -> None:
    assert read_folder(quantized(folder, **told) if told else folder, library).quantization == said


@pytest.mark.parametrize(
    ("library", "told", "words"),
    [
        (
            "exllamav2",
            {"quant_method": "exl3", "bits": 3.0},
            "is EXL3; exllamav2 takes EXL2.* The engine exllamav3 takes it",
        ),
        ("exllamav3", {"quant_method": "exl2", "bits": 4.0}, "engine exllamav2 takes it"),
        ("exllamav3", {"quant_method": "gptq", "bits": 4}, "exllamav2 takes it where it has 4 bits"),
        ("exllamav2", {"quant_method": "gptq", "bits": 8}, "GPTQ with 8 bits; exllamav2 takes 4"),
        ("exllamav2", {"quant_method": "awq", "bits": 4}, "is AWQ.*vLLM"),
        ("exllamav2", {"quant_method": "fp8"}, "is FP8"),
        ("exllamav2", {"quant_method": "bitsandbytes"}, "is BITSANDBYTES.*engine openai"),
        ("exllamav2", {"bits": 4}, "is UNKNOWN"),
    ],
)
def test_what_it_does_not_take_is_refused_with_who_does(
    folder: Path, library: Library, told: dict[str, Any], words: str
) -> None:
    with pytest.raises(CannotLoad, match=words):
        read_folder(quantized(folder, **told), library)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["model.gguf"], "GGUF.*llamacpp"),
        (["pytorch_model.bin", "tokenizer_config.json"], "pytorch_model.bin, which can run code"),
        (["model.pt", "tokenizer_config.json"], "can run code"),
        (["model.bin", "vocabulary.json"], "CTranslate2.*ctranslate2"),
        ([], "no weights"),
    ],
)
def test_other_files_are_no_model_of_it(tmp_path: Path, names: list[str], words: str) -> None:
    for name in ("config.json", *names):
        (tmp_path / name).write_text("{}")
    with pytest.raises(CannotLoad, match=words):
        read_folder(tmp_path, "exllamav2")


def test_what_is_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("")
    with pytest.raises(CannotLoad, match=r"is a file; exllamav3 takes a folder\. The engine llamacpp takes it"):
        read_folder(tmp_path / "model.gguf", "exllamav3")
    with pytest.raises(CannotLoad, match="no folder"):
        read_folder(tmp_path / "nothing", "exllamav3")


# ---------------------------------------------------------------- hostile and broken folders
def test_an_index_reads_no_file_of_others(folder: Path) -> None:
    for name in ("../secret.safetensors", "/etc/passwd", "model.bin"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(CannotLoad, match="none of its own"):
            read_folder(folder, "exllamav2")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    with pytest.raises(CannotLoad, match="is missing"):
        read_folder(folder, "exllamav2")


def test_a_second_copy_and_adapters_are_not_read_as_weights(folder: Path) -> None:
    for name in ("consolidated.00.safetensors", "adapter_model.safetensors"):
        (folder / name).write_bytes((folder / "model.safetensors").read_bytes())
    assert read_folder(folder, "exllamav2").weights == ("model.safetensors",)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b"[]", "no JSON object"),
        ("config.json", b"{", "cannot be read"),
        ("config.json", b"[" * 100_000, "cannot be read"),
        ("config.json", b'{"architectures": []}', "no architecture"),
        ("config.json", b'{"architectures": ["A", "B"]}', "no architecture, or several"),
        ("model.safetensors", b"short", "cut off"),
        ("model.safetensors", b"\xff" * 64, "cut off"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0[]", "cannot be read"),
        ("model.safetensors", b'\x0b\0\0\0\0\0\0\0{"a": {}}  ', "cannot be read"),
    ],
)
def test_a_broken_file_is_one_sentence(folder: Path, name: str, content: bytes, words: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(CannotLoad, match=words):
        read_folder(folder, "exllamav2")


# ---------------------------------------------------------------- configurations
@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, {"rope_theta": 5e5}),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}, {"rope_theta": 5e5}),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}},
            {"rope_theta": 1e6, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}},
            {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
        ),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, {"partial_rotary_factor": 0.5}),
        (
            {"rope_scaling": {"type": "x", "rope_type": "x", "factor": 2}},
            {"rope_scaling": {"rope_type": "x", "factor": 2}},
        ),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, {"rope_scaling": {"type": "linear", "factor": 2}}),
        ({"rope_scaling": None, "rope_parameters": None}, {"rope_scaling": None}),
    ],
)
def test_new_words_become_those_that_both_libraries_read(told: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for made in (normalised(told), normalised({"text_config": told})["text_config"]):
        assert {key: made.get(key) for key in expected} == expected


def test_a_model_keeps_its_original_configuration(folder: Path) -> None:
    before = (folder / "config.json").read_bytes()
    read_folder(folder, "exllamav2")
    assert (folder / "config.json").read_bytes() == before


def test_stops_are_those_of_both_files(folder: Path) -> None:
    assert read_folder(folder, "exllamav2").stops == (EOS, END)
    (folder / "generation_config.json").write_text('{"eos_token_id": 5}')
    assert read_folder(folder, "exllamav2").stops == (5, EOS)
    (folder / "generation_config.json").unlink()
    assert read_folder(folder, "exllamav2").stops == (EOS,)


def test_an_architecture_is_looked_up_in_the_librarys_own_source(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    check_architecture(read_folder(folder, "exllamav2"), "exllamav2")  # it is not installed: whoever loads it says so
    monkeypatch.setattr(exllama_folder, "architectures_of", lambda _library: frozenset({"QwenForCausalLM"}))
    with pytest.raises(
        CannotLoad, match=r"LlamaForCausalLM, which exllamav2 does not know\. It knows: QwenForCausalLM"
    ):
        check_architecture(read_folder(folder, "exllamav2"), "exllamav2")


# ---------------------------------------------------------------- memory
def test_memory_grows_by_what_is_kept(folder: Path) -> None:
    read = read_folder(folder, "exllamav2")
    assert (read.layers, read.kv_width, read.head_dim()) == (2, 32, 32)
    assert cache_bytes(read, 1000, "fp16", "exllamav3") == 1024 * 32 * 2 * 2 * 2
    sizes = [cache_bytes(read, 4096, kind, "exllamav3") for kind in ("fp16", "q8", "6,4", "q4", "q2")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[3] < sizes[0] * 0.3
    little = memory_bytes(read, "exllamav2", tokens=2048, cache="fp16", chunk=512)
    assert memory_bytes(read, "exllamav2", tokens=65_536, cache="fp16", chunk=512) - little == 63_488 * 32 * 2 * 4


def test_weights_count_as_they_lie_on_the_card(folder: Path) -> None:
    """FP32 is made FP16; embeddings stay in main memory, unless they are the head, too."""
    read = read_folder(folder, "exllamav2")
    embeddings = 288 * 64 * 2
    write_safetensors(
        folder / "model.safetensors", {"model.embed_tokens.weight": np.zeros((288, 64)), "x": np.zeros(100)}
    )
    assert read_folder(folder, "exllamav2").weight_bytes == embeddings + 200
    write_safetensors(
        folder / "model.safetensors",
        {"model.embed_tokens.weight": np.zeros((288, 64)), "lm_head.weight": np.zeros((288, 64))},
    )
    assert read_folder(folder, "exllamav2").weight_bytes == embeddings
    assert read.weight_bytes > embeddings


def test_the_page_of_models_is_told_before_anything_is_loaded(folder: Path, tmp_path: Path) -> None:
    settings = load(
        data_dir=tmp_path, exllamav2={"model_path": folder}, exllamav3={"model_path": folder, "cache": "6,4"}
    )
    assert 2**30 > exllamav2.memory(settings) > 700 * 2**20
    assert exllamav2.memory(settings) != exllamav3.memory(settings) > 0
    assert exllamav2.memory(load(data_dir=tmp_path, exllamav2={"model_path": tmp_path / "nothing"})) == 0


# ---------------------------------------------------------------- settings and forms
def test_values_of_forms_and_presets_are_taken(folder: Path) -> None:
    adapters = opening.Adapters()
    for name in ("exllamav2", "exllamav3"):
        fields: dict[str, FormField] = {field.name: field for field in adapters.fields("engine", name)}
        assert {"model_path", "cache", "cache_size", "gpu_split", "lora_dir", "ngram_draft"} <= fields.keys()
        for preset in adapters.presets("engine", name):
            assert preset.values.keys() <= fields.keys()
            read = Options.read({"model_path": str(folder), **preset.values}, name)
            assert read.cache_size % 256 == 0


def test_a_cache_that_the_models_heads_do_not_allow_is_refused(tmp_path: Path) -> None:
    from tests.serving.exllama_generator import TheirGenerator, TheirLibrary, driver_of, saying

    folder = write_llama(tmp_path / "odd", **{**SMALL, "head_dim": 24})
    write_tokenizer(folder)
    with pytest.raises(CannotLoad, match="heads of 24 numbers"):
        driver_of(folder, TheirLibrary(TheirGenerator(saying("x"))), cache="q4")
