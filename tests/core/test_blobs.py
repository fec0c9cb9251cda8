"""Originals are stored once, whole or not at all, and under no name from outside."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.blobs import SMALL, Blobs
from core.errors import TooLarge, Unavailable

pytestmark = pytest.mark.anyio

LARGE = b"large" * SMALL


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_equal_bytes_are_stored_once(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    first = blobs.put(b"abc")
    assert first.content_hash == hashlib.sha256(b"abc").hexdigest()
    assert blobs.put_all([b"abc", LARGE, b"abc", LARGE]) == [first, *blobs.put_all([LARGE]), first, blobs.put(LARGE)]
    found = blobs.get(first.content_hash)
    assert found is not None
    assert found.read_bytes() == b"abc"
    assert sorted(path.stat().st_size for path in tmp_path.glob("?/*")) == [len(LARGE)]
    blobs.close()


async def test_a_stream_is_stored_once_too(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    first = await blobs.put_stream(_pieces(b"a", b"bc"), limit=10, name="x")
    assert await blobs.put_stream(_pieces(b"ab", b"c"), limit=10, name="y") == first
    assert [path.read_bytes() for path in _files(tmp_path)] == [b"abc"]


def test_where_machines_share_the_folder_no_database_is_in_it(tmp_path: Path) -> None:
    """Protection: SQLite's log, shared over a network, loses what was written."""
    together, apart = Blobs(tmp_path), Blobs(tmp_path, apart=True)
    old = together.put(b"from the time of one machine")
    together.close()
    new = apart.put_all([b"", b"small", LARGE])
    assert sorted(path.stat().st_size for path in tmp_path.glob("?/*")) == [0, 5, len(LARGE)]
    found = [apart.get(blob.content_hash) for blob in (old, *new)]
    assert [one.read_bytes() for one in found if one] == [b"from the time of one machine", b"", b"small", LARGE]
    apart.close()
    alone = tmp_path / "alone"
    Blobs(alone, apart=True).put(b"small")
    assert [path.name for path in _files(alone)] == [hashlib.sha256(b"small").hexdigest()]


def test_what_is_given_again_is_young_again(tmp_path: Path) -> None:
    """Protection: a clean-up between its being stored and its being named would take it."""
    blobs = Blobs(tmp_path)
    blob = blobs.put(LARGE)
    os.utime(blobs.path(blob.content_hash), (1, 1))
    assert blobs.put(LARGE) == blob
    assert blobs.remove_all_but([], older_than=time.time() - 60) == 0
    assert blobs.has(blob.content_hash)
    blobs.close()


def test_what_is_read_by_another_process_is_what_was_given(tmp_path: Path) -> None:
    mine, others = Blobs(tmp_path), Blobs(tmp_path)
    many = [b"", b"small", b"x" * SMALL, LARGE]
    hashes = [blob.content_hash for blob in mine.put_all(many)]
    sources = others.sources([*hashes, "0" * 64])
    assert [source for source in sources if isinstance(source, bytes)] == many[:3]
    assert [Path(source).is_file() for source in sources if isinstance(source, str)] == [True, False]
    assert all(others.has(content_hash) for content_hash in hashes)
    assert others.get("0" * 64) is None
    mine.close()
    others.close()


def test_many_that_store_the_same_at_once_store_it(tmp_path: Path) -> None:
    """Each with a file handle of its own, as processes have; the first of them makes the file."""
    many = [b"%d" % number for number in range(50)] + [LARGE]

    def store(_turn: int) -> list[str]:
        blobs = Blobs(tmp_path)
        try:
            return [blob.content_hash for blob in blobs.put_all(many)]
        finally:
            blobs.close()

    with ThreadPoolExecutor(8) as threads:
        ended = list(threads.map(store, range(24)))
    blobs = Blobs(tmp_path)
    assert all(hashes == ended[0] for hashes in ended)
    assert [original.read_bytes() for original in map(blobs.get, ended[0]) if original] == many
    assert blobs.remove_all_but([], older_than=math.inf) == len(many)
    blobs.close()


def test_a_damaged_common_file_is_said(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    blobs.put(b"abc")
    blobs.close()
    for path in _files(tmp_path):
        path.write_bytes(b"no database at all " * 999)
    with pytest.raises(Unavailable):
        blobs.put(b"abc")
    blobs.close()


async def test_too_large_a_stream_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match=r"big\.pdf"):
        await Blobs(tmp_path).put_stream(_pieces(b"a" * 6, b"b" * 6), limit=10, name="big.pdf")
    assert _files(tmp_path) == []


async def test_a_stream_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ConnectionError

    with pytest.raises(Unavailable):
        await Blobs(tmp_path).put_stream(breaks(), limit=10, name="x")
    assert _files(tmp_path) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protection: the partial file is removed and the error is ours (fault 76)."""

    def full(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    blobs = Blobs(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(Unavailable, match="No space left"):
            blobs.put(LARGE)
    assert _files(tmp_path) == []
    assert blobs.put(LARGE).size == len(LARGE)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a" * 63, "A" * 64, "", "a" * 64 + "\n"])
def test_only_a_hash_names_a_file(tmp_path: Path, name: str) -> None:
    """Protection: `path` (faults 1 and 3)."""
    with pytest.raises(ValueError, match="hash"):
        Blobs(tmp_path).path(name)


def test_only_old_blobs_that_nothing_names_are_removed(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    kept, dropped, large = blobs.put_all([b"kept", b"dropped", LARGE])
    assert blobs.remove_all_but([kept.content_hash], older_than=time.time() - 60) == 0
    assert blobs.remove_all_but([kept.content_hash], older_than=time.time() + 60) == 2
    assert blobs.has(kept.content_hash)
    assert not blobs.has(dropped.content_hash)
    assert not blobs.has(large.content_hash)
    blobs.close()


def test_a_small_one_that_is_given_again_is_young_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protection: the upsert of `_PUT`; the clean-up must not take what somebody is about to name."""
    blobs = Blobs(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: 1_000_000.0)
        blobs.put(b"abc")
    blobs.put(b"abc")
    assert blobs.remove_all_but([], older_than=time.time() - 60) == 0
    blobs.close()
