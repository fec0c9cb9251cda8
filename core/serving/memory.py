"""How much memory a model takes, and how much there is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Final

from core.serving.plan import Plan, Trouble
from core.texts import tell

_WEIGHTS: Final = frozenset({".safetensors", ".onnx", ".gguf", ".bin", ".data"})
_MOST_FILES: Final = 2000
_SMI: Final = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
_SMI_SECONDS: Final = 10.0
_GB: Final = 1 << 30


def weight_bytes(path: Path) -> int:
    """Size of the file, or of the weights in the folder; 0 where there are none."""
    try:
        if path.is_file():
            return path.stat().st_size
        files = [one for _, one in zip(range(_MOST_FILES), path.rglob("*"), strict=False)]
        return sum(one.stat().st_size for one in files if one.suffix in _WEIGHTS and one.is_file())
    except OSError:
        return 0


def cache_bytes(folder: Path, tokens: int, bits: int = 16) -> int:
    """Size of the cache for so many tokens, by the folder's `config.json`; 0 where that does not say."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config") or config
        heads = int(config["num_attention_heads"])
        width = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
        pairs = 2 * int(config["num_hidden_layers"]) * int(config.get("num_key_value_heads") or heads)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return 0
    return pairs * width * tokens * bits // 8


async def lacking(plan: Plan) -> Trouble | None:
    """The sentence for a model that cannot fit into what is free now."""
    free = await (_free_on_gpus() if plan.on_gpu else asyncio.to_thread(_free_ram))
    if not plan.memory or free is None or plan.memory <= free:
        return None
    memory = tell("worker_vram" if plan.on_gpu else "worker_ram")
    numbers = {"needed": f"{plan.memory / _GB:.1f}", "free": f"{free / _GB:.1f}"}
    return Trouble("worker_no_room", {"memory": memory, **numbers}, is_final=True)


async def _free_on_gpus() -> int | None:
    """Bytes that are free on all cards together; None where nobody can say."""
    try:
        process = await asyncio.create_subprocess_exec(
            *_SMI, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(_SMI_SECONDS):
            output, _ = await process.communicate()
        return sum(int(line) for line in output.decode().split()) << 20 or None
    except (TimeoutError, ValueError):
        return None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _free_ram() -> int | None:
    """Bytes that can be had without swapping, in this container where there is one."""
    found = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        found.append(int(_table(Path("/proc/meminfo"))["MemAvailable:"]) << 10)
    for folder in _groups():
        with contextlib.suppress(OSError, ValueError, KeyError):
            used = int((folder / "memory.current").read_text()) - int(_table(folder / "memory.stat")["inactive_file"])
            found.append(int((folder / "memory.max").read_text()) - used)
    return min(found) if found else None


def _groups() -> list[Path]:
    """The folders of the control groups that this process is in, whose limits hold for what it starts."""
    top = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    inner = next((line.partition("::/")[2] for line in lines if line.startswith("0::")), "")
    folder = top / inner
    return [folder, *(one for one in folder.parents if one.is_relative_to(top))]


def _table(path: Path) -> dict[str, str]:
    """The lines of a file of the kernel's, by their first word."""
    words = (line.split() for line in path.read_text().splitlines())
    return {line[0]: line[1] for line in words if len(line) > 1}
