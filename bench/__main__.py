"""Runs the benchmarks by name."""

from __future__ import annotations

import importlib
import os
import sys
import time

NAMES = (
    "framework",
    "ingestion",
    "search",
    "start",
    "lag",
    "question",
    "chat",
    "console",
    "memory",
    "kill",
    "kill_chat",
    "kill_jobs",
    "curated",
    "capacity",
    "simulate",
    "worker",
)


def main() -> None:
    wanted = sys.argv[1:] or NAMES
    for name in wanted:
        if name not in NAMES:
            sys.exit(f"There is no benchmark {name}; there are: {', '.join(NAMES)}.")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}, Python {sys.version.split()[0]}\n")
    for name in wanted:
        started = time.monotonic()
        print(f"## {name}\n")
        importlib.import_module(f"bench.{name}").main()
        print(f"\n({time.monotonic() - started:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()
