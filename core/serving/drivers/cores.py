"""How many threads a model on the CPU gets.

With more than there are cores it is ten times slower, since threads wait for each other spinning (measured with
llama.cpp on two busy cores: 192 tokens a second with one thread, 15 with two).
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def threads(wanted: int = 0, *, cpus: Path = _CPUS, quota: Path = _QUOTA) -> int:
    """So many as are `wanted`; 0: one a physical core that this process may use, without one that others need."""
    return wanted or max(1, physical_cores(cpus, quota) - 1)


def physical_cores(cpus: Path = _CPUS, quota: Path = _QUOTA) -> int:
    """Cores that this process may use, by its affinity and its container's limit; two threads of a core are one."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_text(cpus / f"cpu{number}" / "topology" / "thread_siblings_list") or str(number) for number in usable}
    return max(1, min(len(cores), _allowed(quota)))


def _allowed(quota: Path) -> int:
    most, _, period = _text(quota).partition(" ")
    return math.ceil(int(most) / int(period)) if most.isdigit() and period.isdigit() and int(period) else 1 << 16


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
