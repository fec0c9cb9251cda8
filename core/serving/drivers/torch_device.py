"""Where torch computes, how exactly, and what its errors mean."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from core.serving.driver import CannotLoad, OutOfMemory, Poisoned

_MEMORY: Final = ("out of memory", "can't allocate memory", "bad_alloc")
_BROKEN: Final = ("CUDA error", "cuBLAS", "CUBLAS_STATUS", "CUDNN_STATUS", "cuDNN error", "device-side assert")
_MOST_THREADS: Final = 4


def quiet_hub() -> None:
    """Let the hub's libraries look at files alone, and tell nobody; before they are imported."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ[name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def threads_of(values: Mapping[str, Any]) -> int:
    """As the settings say, or one per core that is ours, at most 4."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(values.get("threads") or 0) or min(cores, _MOST_THREADS)


def device_of(values: Mapping[str, Any], torch: Any) -> str:
    """`cuda` or `cpu`. Raises CannotLoad where the one that is wanted is not there."""
    wanted = str(values.get("device") or "auto")
    has_card = bool(torch.cuda.is_available())
    if wanted == "cuda" and not has_card:
        raise CannotLoad("No graphics card can be used here, and `device` is `cuda`: set it to `auto` or `cpu`.")
    return "cuda" if has_card and wanted != "cpu" else "cpu"


@contextmanager
def guarded() -> Iterator[None]:
    """Raises OutOfMemory or Poisoned for what torch says in words only."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory("Memory ran out.") from error
    except RuntimeError as error:
        said = str(error)
        if any(word in said for word in _MEMORY):
            raise OutOfMemory("Memory ran out: set a smaller `batch`, or `precision` to float16 on a card.") from error
        if any(word in said for word in _BROKEN):
            raise Poisoned(f"The graphics card failed: {_line(said)}") from error
        raise


class Missing(logging.Handler):
    """Hears which weights transformers made up because the files lack them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        for line in record.getMessage().splitlines():
            name, _, status = line.partition("|")
            if "MISSING" in status and "pooler" not in name:
                self.names.append(name.strip())

    @contextmanager
    def heard(self) -> Iterator[Missing]:
        loud = logging.getLogger("transformers")
        level = loud.level
        loud.setLevel(logging.WARNING)
        loud.addHandler(self)
        try:
            yield self
        finally:
            loud.removeHandler(self)
            loud.setLevel(level)


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
