"""A published model becomes one that CTranslate2 runs: whole, or not at all."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.errors import Conflict, UserError
from core.serving.convert import Converted, convert, look_at
from tests.fakes.commands import Commands
from tests.models.llama_dir import BOS, write_llama, write_tokenizer
from tests.serving.driving import a_job, answer, silent

pytestmark = pytest.mark.anyio
HAS_ALL = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "ctranslate2"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("hf") / "tiny")


def small(folder: Path, **config: object) -> Path:
    """What looks like a model until it is read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], **config}))
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    return folder


def a_python(folder: Path, script: str) -> str:
    """A program in the place of Python; `$TARGET` is the folder that it is to fill."""
    file = folder / "python"
    find = 'TARGET=$(printf %s "$3" | sed \'s/.*"target": "\\([^"]*\\)".*/\\1/\')'
    file.write_text(f"#!/bin/sh\n{find}\n{script}\n")
    file.chmod(0o755)
    return str(file)


async def converted(
    source: Path, target: Path, python: str = "", seen: list[tuple[str, int]] | None = None
) -> Converted:
    def progress(stage: str, done: int, total: int) -> None:
        assert total > 0
        if seen is not None:
            seen.append((stage, done))

    return await convert(look_at(source), target, quantization="int8", python=python, progress=progress)


# ---------------------------------------------------------------- what is refused
def test_what_is_no_model_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        look_at(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        look_at(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"no \.safetensors"):
        look_at(tmp_path)


def test_what_could_run_code_is_refused(tmp_path: Path) -> None:
    folder = small(tmp_path, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    with pytest.raises(UserError, match="code of its own"):
        look_at(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match="can run code"):
        look_at(folder)


def test_what_is_quantized_already_is_refused_but_for_awq(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gptq"):
        look_at(small(tmp_path, quantization_config={"quant_method": "gptq"}))
    found = look_at(small(tmp_path, quantization_config={"quant_method": "awq"}, max_position_embeddings=99))
    assert (found.is_awq, found.context_size, found.weights) == (True, 99, 1000)


async def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(Conflict, match="not empty"):
        await converted(small(tmp_path / "source"), target)
    assert (target / "mine.txt").read_text() == "mine"


async def test_too_little_room_is_said_before_anything_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="lacks room"):
        await converted(small(tmp_path / "source"), tmp_path / "target", python="/nowhere")


@pytest.mark.skipif(HAS_ALL, reason="torch and transformers are installed here")
async def test_missing_packages_are_named_with_the_command_that_brings_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"torch, transformers.*pip install 'kvasir\[convert\]'"):
        await converted(small(tmp_path / "source"), tmp_path / "target")
    with pytest.raises(UserError, match="lacks"):
        await converted(small(tmp_path / "source"), tmp_path / "target", python=sys.executable)
    with pytest.raises(UserError, match="/nowhere cannot be started"):
        await converted(small(tmp_path / "source"), tmp_path / "target", python="/nowhere")


# ---------------------------------------------------------------- nothing half
def left(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir() if one.name not in ("source", "python"))


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('mkdir "$TARGET"; echo half > "$TARGET/model.bin"; kill -9 $$', "signal 9.*memory"),
        ('mkdir "$TARGET"; echo half > "$TARGET/model.bin"; echo why >&2; exit 1', "why"),
        ('echo \'{"error": "ValueError: not this one"}\'; exit 1', "not this one"),
        ('mkdir "$TARGET"; echo "no JSON"; exit 0', r"no model\.bin"),
        ('mkdir "$TARGET"; touch "$TARGET/model.bin"; exit 0', "no vocabulary"),
    ],
)
async def test_what_fails_leaves_nothing_behind(tmp_path: Path, script: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        await converted(small(tmp_path / "source"), tmp_path / "target", python=a_python(tmp_path, script))
    assert left(tmp_path) == []


async def test_who_gives_up_ends_the_process_and_leaves_nothing_behind(tmp_path: Path) -> None:
    script = 'mkdir "$TARGET"; echo half > "$TARGET/model.bin"; echo $$ > ' + f"{tmp_path}/source/pid; exec sleep 60"
    source = small(tmp_path / "source")
    task = asyncio.create_task(converted(source, tmp_path / "target", python=a_python(tmp_path, script)))
    while not (source / "pid").exists() or not (source / "pid").read_text().strip():
        await asyncio.sleep(0.01)
    assert len(left(tmp_path)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left(tmp_path) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((source / "pid").read_text()), 0)


# ---------------------------------------------------------------- the real thing
@pytest.mark.skipif(not HAS_ALL, reason="torch and transformers are not installed: make test-models has them")
async def test_a_published_model_is_converted_and_says_the_same(published: Path, tmp_path: Path) -> None:
    from core.serving.drivers.ctranslate2 import make
    from tests.models.ct2_dir import write_ct2

    seen: list[tuple[str, int]] = []
    made = await converted(published, tmp_path / "made", seen=seen)
    assert (made.folder, made.quantization, made.needs_cuda) == (tmp_path / "made", "int8", False)
    assert made.alike > 0.99
    assert {"import", "read", "quantize", "write", "try"} >= {stage for stage, _ in seen} >= {"import", "read"}
    assert left(tmp_path) == ["made"]
    assert json.loads((made.folder / "kvasir.json").read_text())["cell"] == 2 * 2 * 8 * 64
    texts = []
    for folder in (made.folder, write_ct2(tmp_path / "by-hand")):
        driver = make({"model_path": str(folder), "threads": 1})
        card = driver.load(silent)
        texts.append(answer(driver, a_job((BOS, *b"Who looks after the bees?")))[0])
        driver.close()
        assert card.context_size == 2048
    assert texts[0] == texts[1]


@pytest.mark.skipif(not HAS_ALL, reason="torch and transformers are not installed: make test-models has them")
async def test_a_model_that_thinks_otherwise_once_converted_is_not_kept(tmp_path: Path) -> None:
    """The converter leaves out by which number Gemma scales its attention, where that is not a head's width."""
    from transformers import AutoModelForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=288, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, query_pre_attn_scalar=1, max_position_embeddings=512,
    )  # fmt: skip
    source = tmp_path / "source"
    AutoModelForCausalLM.from_config(config).save_pretrained(source)
    write_tokenizer(source)
    told = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps({**told, "unk_token": "<|pad|>"}))
    with pytest.raises(UserError, match="does not think as the published one"):
        await converted(source, tmp_path / "target")
    assert left(tmp_path) == []


@pytest.mark.skipif(not HAS_ALL, reason="torch and transformers are not installed: make test-models has them")
async def test_what_the_library_cannot_convert_is_said_in_its_words(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "source", model_type="bert", architectures=["BertModel"])
    with pytest.raises(UserError, match="could not be converted"):
        await converted(source, tmp_path / "target")
    assert left(tmp_path) == []


# ---------------------------------------------------------------- the command
def test_the_command_says_how_to_go_on(tmp_path: Path, published: Path) -> None:
    kvasir = Commands(tmp_path / "data")
    assert "config.json" in kvasir.fails("model", "convert", tmp_path, tmp_path / "target")
    kvasir("model", "convert", published, tmp_path / "target", "--quantization", "int3", status=2)
    from tests.models.ct2_dir import write_ct2

    pytest.importorskip("ctranslate2")
    ready = write_ct2(tmp_path / "ready")
    (ready / "kvasir.json").write_text('{"alike": 0.987}')
    python = a_python(tmp_path, f'cp -r "{ready}" "$TARGET"')
    out = kvasir("model", "convert", published, tmp_path / "target", "--python", python)
    assert f"kvasir model add target --adapter ctranslate2 --set model_path={tmp_path}/target" in out.replace("\n", "")
    assert ".987" in out
    assert (tmp_path / "target" / "model.bin").is_file()
