"""The cache of embeddings: equal text is embedded once; the file may be shared, full, damaged or gone."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.embedders.cache import CachedEmbedder
from core.errors import EmbedderUnavailable
from tests import processes
from tests.fakes.embedder import HashEmbedder

pytestmark = pytest.mark.anyio

TEXTS = [f"paragraph {number} of the handbook" for number in range(600)]
ROOT = Path(__file__).parents[2]


async def embedded(path: Path, texts: list[str], inner: HashEmbedder | None = None, **options: int) -> list[str]:
    """What the inner embedder had to embed; the rows are checked on the way."""
    inner = inner or HashEmbedder()
    cached = CachedEmbedder(inner, path, **options)
    try:
        rows = await cached.embed_documents(texts)
    finally:
        await cached.close()
    done = list(inner.embedded)
    np.testing.assert_array_equal(rows, await inner.embed_documents(texts))
    return done


async def test_equal_text_is_embedded_once(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    assert await embedded(path, TEXTS[:300] + TEXTS[:10]) == TEXTS[:300]
    assert await embedded(path, TEXTS) == TEXTS[300:]
    assert await embedded(path, [*TEXTS[::-1], "new", "new"]) == ["new"]


async def test_batches_larger_than_a_block_are_found_again(tmp_path: Path) -> None:
    texts = [f"line {number}" for number in range(2500)]
    assert len(await embedded(tmp_path / "embeddings.db", texts)) == 2500
    assert await embedded(tmp_path / "embeddings.db", texts) == []


async def test_embedders_do_not_share_vectors(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    await embedded(path, TEXTS[:5], HashEmbedder(name="one"))
    assert await embedded(path, TEXTS[:5], HashEmbedder(name="two")) == TEXTS[:5]
    assert await embedded(path, TEXTS[:5], HashEmbedder(dimension=32, name="one")) == TEXTS[:5]
    assert await embedded(path, TEXTS[:5], HashEmbedder(name="one")) == []


async def test_odd_text_has_its_own_vector(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    texts = ["", "\0", "\ud83d", "\ufffd", "?", "a\0b"]
    assert await embedded(path, texts) == texts
    assert await embedded(path, texts) == []


async def test_calls_at_once_are_fine(tmp_path: Path) -> None:
    cached = CachedEmbedder(HashEmbedder(), tmp_path / "embeddings.db")
    expected = await HashEmbedder().embed_documents(TEXTS)
    results = await asyncio.gather(*(cached.embed_documents(TEXTS[start : start + 100]) for start in range(0, 500, 20)))
    for start, rows in zip(range(0, 500, 20), results, strict=True):
        np.testing.assert_array_equal(rows, expected[start : start + 100])
    await cached.close()


async def test_once_closed_it_says_so(tmp_path: Path) -> None:
    cached = CachedEmbedder(HashEmbedder(), tmp_path / "embeddings.db")
    await cached.close()
    with pytest.raises(EmbedderUnavailable, match="closed"):
        await cached.embed_documents(["text"])


async def test_what_another_process_kept_is_used(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    inner = HashEmbedder()
    cached = CachedEmbedder(inner, path)
    await cached.embed_documents(TEXTS[:10])
    await embedded(path, TEXTS[10:20])
    await cached.embed_documents(TEXTS[:30])
    assert inner.embedded == TEXTS[:10] + TEXTS[20:30]
    await cached.close()


async def test_the_oldest_go_first_and_the_file_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    inner = HashEmbedder(dimension=384)
    cached = CachedEmbedder(inner, path, max_bytes=300_000)
    for start in range(0, 600, 50):
        await cached.embed_documents(TEXTS[start : start + 50])
    inner.embedded.clear()
    await cached.embed_documents(TEXTS[550:])
    assert inner.embedded == []
    await cached.embed_documents(TEXTS[:50])
    assert inner.embedded == TEXTS[:50]
    await cached.close()
    assert path.stat().st_size < 500_000


# ---------------------------------------------------------------- what may befall the file
async def test_a_file_that_is_no_database_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "embeddings.db"
    path.write_bytes(b"This is not a database. " * 1000)
    assert await embedded(path, TEXTS[:5]) == TEXTS[:5]
    assert "damaged" in caplog.text
    assert (tmp_path / "embeddings.db.damaged").read_bytes().startswith(b"This is not")
    await embedded(path, TEXTS[:5])
    assert await embedded(path, TEXTS[:5]) == []


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file with all texts."""
    path = tmp_path_factory.mktemp("kept") / "embeddings.db"
    for start in range(0, 600, 100):
        asyncio.run(embedded(path, TEXTS[start : start + 100]))
    return path.read_bytes()


@pytest.mark.parametrize("seed", range(12))
async def test_overwritten_pages_never_yield_a_wrong_vector(tmp_path: Path, kept: bytes, seed: int) -> None:
    path = tmp_path / "embeddings.db"
    random = np.random.default_rng(seed)
    raw = bytearray(kept)
    for _ in range(8):
        place = int(random.integers(0, len(raw) - 512))
        raw[place : place + 512] = random.bytes(512)
    path.write_bytes(raw)
    await embedded(path, TEXTS)  # compares every row
    await embedded(path, TEXTS)
    await embedded(path, TEXTS)


async def test_a_truncated_file_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    await embedded(path, TEXTS)
    os.truncate(path, path.stat().st_size // 2)
    for _ in range(3):
        await embedded(path, TEXTS)
    assert await embedded(path, TEXTS) == []


async def test_a_file_that_vanishes_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    await embedded(path, TEXTS[:5])
    for file in tmp_path.iterdir():
        file.unlink()
    assert await embedded(path, TEXTS[:5]) == TEXTS[:5]


async def test_where_nothing_can_be_kept_it_goes_on_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    cached = CachedEmbedder(HashEmbedder(), tmp_path / "file" / "embeddings.db")
    for _ in range(5):
        await cached.embed_documents(TEXTS[:5])
    await cached.close()
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 1


CHILD = """
import asyncio, resource, sys
from pathlib import Path
from core.embedders.cache import CachedEmbedder
from tests.fakes.embedder import HashEmbedder

async def main(path, limit, start, step):
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    inner = HashEmbedder()
    cached = CachedEmbedder(inner, Path(path))
    number = start
    while number < 600:
        texts = [f"text {one}" for one in range(number, number + 50)]
        rows = await cached.embed_documents(texts)
        assert (rows == await HashEmbedder().embed_documents(texts)).all()
        number += step
        print(number, len(inner.embedded), flush=True)
    await cached.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
"""


def child(path: Path, limit: int = 0, start: int = 0, step: int = 50) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CHILD, *map(str, (path, limit, start, step))]
    return processes.start(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output, errors


async def test_on_a_full_disk_it_goes_on_with_one_warning(tmp_path: Path) -> None:
    _, errors = finish(child(tmp_path / "embeddings.db", limit=60_000))
    assert errors.count("embeddings are not kept") == 1
    await embedded(tmp_path / "embeddings.db", TEXTS)
    assert await embedded(tmp_path / "embeddings.db", TEXTS) == []


async def test_processes_share_one_file(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    writers = [child(path, start=start) for start in (0, 400, 200)]
    outputs = [finish(writer) for writer in writers]
    assert not any(errors for _, errors in outputs)
    last, _ = finish(child(path))
    assert last.splitlines()[-1].endswith(" 0")


async def test_a_killed_process_leaves_a_file_that_works(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    for _ in range(3):
        process = child(path)
        assert process.stdout is not None
        for _ in range(4):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    output, errors = finish(child(path))
    assert not errors
    assert int(output.splitlines()[-1].split()[1]) < 600
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
