"""Embedders whose model runs in a worker that says itself how the model is to be used, and how much memory it takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from core.embedders.local import open_local
from core.ports import Embedder, EmbedderInfo
from core.serving.driver import Card
from core.serving.memory import weight_bytes
from core.settings import Settings

_BYTES: Final = {"float32": 4, "float16": 2, "bfloat16": 2}
_WIDTHS: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})
_LONGEST_HEADER: Final = 100_000_000


async def open_described(
    adapter: str,
    settings: Settings,
    progress: Callable[[str, float], None] | None,
    memory: Callable[[Settings], int],
) -> Embedder:
    """The embedder of an adapter, its model loaded. Raises EmbedderUnavailable or ConfigError where it cannot be."""
    wanted = settings.embedder
    folder = None if wanted.base_url else wanted.model_dir
    return await open_local(
        adapter,
        settings,
        progress,
        describe=lambda card, background: info_of(card, background, folder),
        memory=await asyncio.to_thread(memory, settings),
        on_gpu=wanted.device == "cuda",
    )


def info_of(card: Card, background: float, folder: Path | None) -> EmbedderInfo:
    """By what its worker says; its tokenizer counts for us where it lies in a folder of this machine."""
    tokenizer = folder / "tokenizer.json" if folder else None
    scripts = str(card.details.get("scripts", "*")).split(",")
    return EmbedderInfo(
        name=card.model,
        fingerprint=card.fingerprint,
        dimension=card.dimension,
        max_tokens=card.max_tokens,
        scripts=frozenset(scripts),
        weight=float(card.details.get("weight", 0.5)),
        background=background,
        vocabulary=str(tokenizer) if tokenizer and tokenizer.is_file() else "",
    )


def loaded_bytes(folder: Path | None, precision: str) -> int:
    """Of the weights in the folder's safetensors, once they are loaded; 0 where there are none."""
    if folder is None:
        return 0
    width = _BYTES[precision]
    files = [*folder.glob("*.safetensors"), *folder.glob("[0-9]_*/*.safetensors")]
    return sum(numbers * (width if dtype in _FLOATS else _WIDTHS.get(dtype, 1)) for dtype, numbers in _held(files))


def graph_bytes(folder: Path | None) -> int:
    """Of the largest graph in the folder, with what lies beside it; 0 where there is none."""
    if folder is None:
        return 0
    graphs = [*folder.glob("*.onnx*"), *(folder / "onnx").glob("model.onnx*")]
    return max((weight_bytes(graph) for graph in graphs), default=0)


def _held(files: list[Path]) -> Iterator[tuple[str, int]]:
    """Kind and count of the numbers of each tensor; nothing of a file that cannot be read."""
    for file in files:
        try:
            with file.open("rb") as opened:
                length = int.from_bytes(opened.read(8), "little")
                header: Any = json.loads(opened.read(length)) if length <= _LONGEST_HEADER else {}
            for name, tensor in header.items():
                if name != "__metadata__":
                    yield str(tensor["dtype"]), _product(tensor["shape"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue


def _product(shape: list[int]) -> int:
    found = 1
    for size in shape:
        found *= int(size)
    return found
