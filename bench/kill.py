"""kill -9 at random moments of an ingestion, again and again, while documents change; in the end the index must hold
exactly what one clean run gives, and nothing else must be left behind.

`python -m bench kill` does it 200 times; the tests do it a few times.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.common import write_corpus
from core import settings as settings_module
from core.app import Kvasir

KILLS = 200
DOCUMENTS = 150
CHANGED_EACH_TIME = 12

Content = dict[str, tuple[str, list[tuple[int, str]]]]
"""Document name -> (hash of its bytes, [(chunk number, content hash)])."""
Begin = Callable[..., subprocess.Popen[Any]]
"""`subprocess.Popen`, or what does as it does."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = drill(Path(folder), kills=KILLS, documents=DOCUMENTS, seed=1)
    print(report)


def drill(folder: Path, *, kills: int, documents: int, seed: int, begin: Begin = subprocess.Popen) -> str:
    """Run it in `folder`; raises AssertionError where something differs, else gives one sentence."""
    chance = random.Random(seed)
    corpus = folder / "corpus"
    paths = write_corpus(corpus, documents, 2500, seed)
    killed_inside = 0
    whole = clean_seconds(folder / "timing", corpus, begin)
    for number in range(kills):
        killed_inside += ingest(folder / "data", corpus, begin, kill_after=chance.uniform(0.05, whole * 1.1))
        for path in chance.sample(paths, CHANGED_EACH_TIME):
            path.write_text(path.read_text(encoding="utf-8") + f"\n\nChange {number}.\n", encoding="utf-8")
    ingest(folder / "data", corpus, begin)
    ingest(folder / "clean", corpus, begin)
    survived, clean = content(folder / "data"), content(folder / "clean")
    assert survived == clean, f"{len(survived)} documents differ from {len(clean)} of a clean run"
    left = originals(folder / "data") - {found for found, _ in survived.values()}
    chunks = sum(len(found) for _, found in survived.values())
    return (
        f"{kills} kills, {killed_inside} of them before the process had ended: {len(survived)} documents, "
        f"{chunks} chunks, "
        f"equal to one clean run by name, number and hash; {len(left)} superseded originals wait for the daily clean-up"
    )


def clean_seconds(data: Path, corpus: Path, begin: Begin) -> float:
    started = time.monotonic()
    ingest(data, corpus, begin)
    return time.monotonic() - started


def ingest(data: Path, corpus: Path, begin: Begin, kill_after: float | None = None) -> bool:
    """One `kvasir ingest`; True when it was killed before it had ended."""
    program = Path(sys.executable).with_name("kvasir")
    environment = dict(os.environ, KVASIR_DATA_DIR=str(data), KVASIR_EMBEDDER__KIND="none", KVASIR_LOG__LEVEL="ERROR")
    process = begin(
        [str(program), "ingest", str(corpus), "--kb", "kb", "--json"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        _, errors = process.communicate(timeout=kill_after if kill_after is not None else 300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        return True
    assert process.returncode == 0, errors.decode()
    return False


def content(data: Path) -> Content:
    logging.disable(logging.WARNING)
    try:
        return asyncio.run(_content(data))
    finally:
        logging.disable(logging.NOTSET)


async def _content(data: Path) -> Content:
    settings = settings_module.load(data_dir=data, embedder=settings_module.EmbedderSettings(kind="none"))
    async with Kvasir.open(settings) as kvasir:
        await kvasir.ingest.recover()
        found: Content = {}
        documents, total = await kvasir.knowledge.documents("kb", limit=100_000)
        for document in documents:
            assert document.status == "indexed", f"{document.name} is {document.status}: {document.reason}"
            original = await kvasir.knowledge.original(document.id)
            chunks = [(chunk.number, chunk.content_hash) for chunk in await kvasir.knowledge.chunks(document.id)]
            assert len(chunks) == document.chunks
            found[document.name] = (hashlib.sha256(original.read_bytes()).hexdigest(), chunks)
        live = await kvasir.knowledge.live(["kb"])
        count = await kvasir.store.count(live[0].generation)
        assert (count.documents, count.chunks) == (total, sum(len(chunks) for _, chunks in found.values()))
    return found


def originals(data: Path) -> set[str]:
    """Hashes of all that is stored, in files and in the common one."""
    with closing(sqlite3.connect(data / "blobs" / "small.db")) as connection:
        small = {key for (key,) in connection.execute("SELECT lower(hex(hash)) FROM originals")}
    return small | {path.name for path in (data / "blobs").glob("?/*")}
