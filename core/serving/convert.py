"""Makes a model that CTranslate2 runs out of one as it was published: `kvasir model convert`.

The work is done by a process that ends with this one; what it writes lies in a folder of its own until it is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from core.errors import Conflict, UserError
from core.serving import convert_child
from core.serving.driver import CannotLoad
from core.serving.drivers.ctranslate2_folder import ORIGIN, WEIGHTS, read_folder
from core.texts import tell

Quantization: TypeAlias = Literal["int8", "int8_float16", "int8_bfloat16", "float16", "bfloat16", "float32"]
Progress: TypeAlias = Callable[[str, int, int], None]
"""(stage, bytes written, bytes there will be)"""

_SHARE: Final[Mapping[str, float]] = {"int8": 0.55, "int8_float16": 0.55, "int8_bfloat16": 0.55, "float32": 2.0}
"""Size of the converted weights, as a share of 16-bit ones."""
_RESERVE: Final = 256 << 20
_LINES: Final = 6
_LONGEST_LINE: Final = 1 << 20
_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Source:
    """A published model that can be converted."""

    folder: Path
    architecture: str
    context_size: int
    weights: int
    """Bytes."""
    cell: int
    """Numbers that a token takes in the cache; 0: nobody knows."""
    is_awq: bool
    """Its weights have four bits already, and stay so."""


@dataclass(frozen=True, slots=True)
class Converted:
    folder: Path
    weights: int
    quantization: str
    needs_cuda: bool
    alike: float
    """Mean correlation of what it thinks with what the published model does; 0 where that could not be tried."""


def look_at(folder: Path) -> Source:
    """What is to be converted. Raises UserError where it cannot be, or could run code."""
    config = _config(folder)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        key = "convert_pickle" if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")) else "convert_no_weights"
        raise UserError(tell(key, folder=folder))
    if config.get("auto_map"):
        raise UserError(tell("convert_code", folder=folder))
    quantized = config.get("quantization_config")
    method = str(quantized.get("quant_method") or "?") if isinstance(quantized, dict) else ""
    if method not in ("", "awq"):
        raise UserError(tell("convert_quantized", folder=folder, method=method))
    architectures = config.get("architectures")
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    context = text.get("max_position_embeddings") if isinstance(text, dict) else None
    return Source(
        folder=folder,
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
        context_size=context if isinstance(context, int) and context > 0 else 0,
        weights=sum(one.stat().st_size for one in weights),
        cell=_cell(text if isinstance(text, dict) else {}),
        is_awq=method == "awq",
    )


async def convert(
    source: Source, target: Path, *, quantization: Quantization, python: str = "", progress: Progress
) -> Converted:
    """The model in the folder `target`, whole or not at all. Raises UserError, and Conflict where there is one."""
    target = target.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Conflict(tell("convert_target_there", folder=target))
    expected = int(source.weights * (1.0 if source.is_awq else _SHARE.get(quantization, 1.0)))
    await asyncio.to_thread(_make_room, target, expected)
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    kept_as = "awq" if source.is_awq else quantization
    try:
        await _run(source, unfinished, "" if source.is_awq else quantization, kept_as, python, expected, progress)
        await asyncio.to_thread(_finish, unfinished, target)
    finally:
        await asyncio.to_thread(shutil.rmtree, unfinished, ignore_errors=True)
    alike = json.loads((target / ORIGIN).read_text()).get("alike")
    weights = (target / WEIGHTS).stat().st_size
    return Converted(target, weights, kept_as, source.is_awq, float(alike or 0))


def _make_room(target: Path, expected: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < expected + _RESERVE:
        raise UserError(tell("convert_disk", folder=target.parent, needed=_gb(expected + _RESERVE), free=_gb(free)))


def _finish(unfinished: Path, target: Path) -> None:
    try:
        read_folder(unfinished)
    except CannotLoad as error:
        raise UserError(tell("convert_failed", reason=error)) from error
    if target.exists():
        target.rmdir()
    unfinished.rename(target)


async def _run(
    source: Source, target: Path, quantization: str, kept_as: str, python: str, expected: int, progress: Progress
) -> None:
    asked = {
        "source": str(source.folder.absolute()),
        "target": str(target),
        "quantization": quantization,
        "parent": os.getpid(),
        "origin": {
            "source": source.folder.absolute().name,
            "architecture": source.architecture,
            "context_size": source.context_size,
            "quantization": kept_as,
            "cell": source.cell,
            "needs_cuda": source.is_awq,
        },
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KVASIR_")}
    try:
        process = await asyncio.create_subprocess_exec(
            python or sys.executable, "-I", convert_child.__file__, json.dumps(asked),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1"},
            start_new_session=True,
            limit=_LONGEST_LINE,
        )  # fmt: skip
    except OSError as error:
        raise UserError(tell("convert_no_python", python=python, reason=error.strerror or error)) from error
    errors: deque[str] = deque(maxlen=_LINES)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_drain(process, errors))
            said = group.create_task(_follow(process, target / WEIGHTS, expected, progress))
        status = await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    _check(status, said.result(), errors, source, python)


async def _follow(process: asyncio.subprocess.Process, weights: Path, expected: int, progress: Progress) -> str:
    """What it says that went wrong; empty where all went well."""
    assert process.stdout is not None  # noqa: S101  it was asked for
    stage, error = "import", ""
    progress(stage, 0, expected)
    reading = asyncio.ensure_future(process.stdout.readline())
    try:
        while True:
            done, _ = await asyncio.wait({reading}, timeout=_LOOK_SECONDS)
            if done:
                line = reading.result()
                if not line:
                    return error
                told = _told(line)
                stage, error = str(told.get("stage") or stage), str(told.get("error") or error)
                reading = asyncio.ensure_future(process.stdout.readline())
            progress(stage, weights.stat().st_size if weights.exists() else 0, expected)
    finally:
        reading.cancel()


async def _drain(process: asyncio.subprocess.Process, lines: deque[str]) -> None:
    assert process.stderr is not None  # noqa: S101  it was asked for
    while chunk := await process.stderr.read(1 << 16):
        lines.extend(line[-300:] for line in chunk.decode("utf-8", "replace").splitlines() if line.strip())


def _told(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:  # a library that prints
        return {}
    return found if isinstance(found, dict) else {}


def _check(status: int, said: str, errors: deque[str], source: Source, python: str) -> None:
    if status == 0:
        return
    if said.startswith("missing:"):
        packages = said.removeprefix("missing:").replace(",", ", ")
        key = "convert_missing_there" if python else "convert_missing"
        raise UserError(tell(key, packages=packages, python=python, command="pip install 'kvasir[convert]'"))
    if said.startswith("differs:"):
        raise UserError(tell("convert_differs", alike=said.removeprefix("differs:")))
    if status < 0:
        raise UserError(tell("convert_killed", signal=-status, needed=_gb(2 * source.weights)))
    raise UserError(tell("convert_failed", reason=said or " / ".join(errors) or f"status {status}"))


def _cell(config: Mapping[str, Any]) -> int:
    try:
        heads = int(config["num_attention_heads"])
        width = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
        return 2 * int(config["num_hidden_layers"]) * int(config.get("num_key_value_heads") or heads) * width
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return 0


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError as error:
        raise UserError(tell("convert_no_model", folder=folder)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(tell("convert_bad_config", file=folder / "config.json", reason=error)) from error
    if not isinstance(found, dict):
        raise UserError(tell("convert_no_model", folder=folder))
    return found


def _gb(size: int) -> str:
    return f"{size / (1 << 30):.1f}"
