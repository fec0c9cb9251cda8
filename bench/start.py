"""From `kvasir up` to the first answered /healthz, and the memory of the whole process with its children when idle."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

ROUNDS = 5
IDLE_SECONDS = 4.0


def main() -> None:
    seconds: list[float] = []
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as data:
        for number in range(ROUNDS + 1):  # the first makes the database and loads everything from disk
            took, mib = one(Path(data))
            if number:
                seconds.append(took)
                memory.append(mib)
    print(f"ready after {statistics.median(seconds):.2f} s [{min(seconds):.2f}..{max(seconds):.2f}] (bar: ≤ 3 s)")
    print(f"idle memory {statistics.median(memory):.0f} MiB [{min(memory):.0f}..{max(memory):.0f}] (bar: ≤ 350 MiB)")


def one(data: Path) -> tuple[float, float]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = dict(os.environ, KVASIR_DATA_DIR=str(data), KVASIR_WEB__PORT=str(port))
    if model := os.environ.get("KVASIR_TEST_MODEL_DIR"):
        environment["KVASIR_EMBEDDER__MODEL_DIR"] = model
    program = Path(sys.executable).with_name("kvasir")
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(program), "up"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not healthy(port):
            if time.perf_counter() - started > 60 or process.poll() is not None:
                raise SystemExit("kvasir up did not become ready")
            time.sleep(0.01)
        took = time.perf_counter() - started
        time.sleep(IDLE_SECONDS)
        watched = psutil.Process(process.pid)
        mib = sum(p.memory_info().rss for p in (watched, *watched.children(recursive=True))) / 2**20
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
    return took, mib


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
