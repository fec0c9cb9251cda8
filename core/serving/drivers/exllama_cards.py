"""The cards that torch sees."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from core.serving.driver import CannotLoad


@dataclass(frozen=True, slots=True)
class Cards:
    told: str
    """In words, e.g. `2 × NVIDIA H200`."""
    architectures: tuple[str, ...]
    """Compute capabilities, e.g. `9.0`, each once."""


def cards_of(torch: Any, library: str) -> Cards:
    """Those that there are. Raises CannotLoad where there is none that can be used."""
    if not torch.version.cuda:
        raise CannotLoad(
            f"{library} needs torch for CUDA; here is {torch.__version__}, which has none. On Linux, the torch of "
            "the package index is the one for CUDA."
        )
    if not torch.cuda.is_available():
        raise CannotLoad(
            f"{library} needs an NVIDIA card, and torch sees none: is there one, with a driver for CUDA "
            f"{torch.version.cuda} or newer, and does nvidia-smi show it?"
        )
    count = torch.cuda.device_count()
    names = Counter(torch.cuda.get_device_name(number) for number in range(count))
    pairs = {torch.cuda.get_device_capability(number) for number in range(count)}
    told = ", ".join(f"{times} × {name}" if times > 1 else name for name, times in names.items())
    return Cards(told, tuple(f"{major}.{minor}" for major, minor in sorted(pairs)))


def used_bytes(torch: Any) -> int:
    """Bytes that this process has taken of all cards."""
    return sum(int(torch.cuda.memory_reserved(number)) for number in range(torch.cuda.device_count()))


def gigabytes(number: float) -> int:
    return int(number * 1024**3)
