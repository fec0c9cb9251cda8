"""CPU that Kvasir itself takes per chunk (read, split, analyse, store, keyword index, durable), with a stub for the
embedder, against LangChain + FAISS (one write to memory, no keyword index) and LangChain + FAISS + its BM25 retriever.

Each sample is a process of its own; the peers live in `.venv-peers`, which is made at the first run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.common import paired, ratio, write_corpus

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv-peers"
PACKAGES = (
    "langchain-core",
    "langchain-community",
    "langchain-text-splitters",
    "faiss-cpu",
    "rank-bm25",
    "psutil",
    "numpy",
)
ROUNDS = 5


def main() -> None:
    python = peers_python()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        write_corpus(corpus, 400, 3000)

        def run(program: Path, module: str, side: str) -> float:
            environment = dict(
                os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTHONHASHSEED="0", PYTHONPATH=str(ROOT)
            )
            # What a sample wrote stays until the end: a file system is slow to give out what was just deleted.
            data = tempfile.mkdtemp(dir=folder)
            done = subprocess.run(
                [str(program), "-m", module, side, str(corpus), data],
                env=environment, cwd=folder, capture_output=True, text=True, timeout=300, check=True,
            )  # fmt: skip
            found = json.loads(done.stdout.splitlines()[-1])
            chunks[side] = f"{found['chunks']} of {found['characters']:.0f} characters"
            return float(found["cpu_us_per_chunk"])

        chunks: dict[str, str] = {}
        found = paired(
            ROUNDS,
            {
                "kvasir": lambda: run(Path(sys.executable), "bench.framework_kvasir", "kvasir"),
                "langchain+faiss": lambda: run(python, "bench.framework_peer", "faiss"),
                "langchain+faiss+bm25": lambda: run(python, "bench.framework_peer", "faiss+bm25"),
            },
        )
    print("| | CPU µs per chunk, median | Kvasir against it |\n|---|---|---|")
    for name, values in found.items():
        against = "" if name == "kvasir" else ratio(found["kvasir"], values)
        print(f"| {name} | {sorted(values)[len(values) // 2]:.1f} | {against} |")
    print(f"\nchunks: {chunks}")


def peers_python() -> Path:
    python = PEERS / "bin" / "python"
    if not (PEERS / ".ready").exists():
        print("making .venv-peers …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True, timeout=300)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True, timeout=900)
        (PEERS / ".ready").touch()
    return python
