"""Originals are stored once, whole or not at all, and under no name from outside."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.blobs import Blobs
from core.errors import TooLarge, Unavailable

pytestmark = pytest.mark.anyio


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_equal_bytes_are_stored_once(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    first = blobs.put(b"abc")
    second = await blobs.put_stream(_pieces(b"a", b"bc"), limit=10, name="x")
    assert first == second
    assert first.content_hash == hashlib.sha256(b"abc").hexdigest()
    assert [path.read_bytes() for path in _files(tmp_path)] == [b"abc"]


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
            blobs.put(b"abc")
    assert _files(tmp_path) == []
    assert blobs.put(b"abc").size == 3


@pytest.mark.parametrize("name", ["../../etc/passwd", "a" * 63, "A" * 64, "", "a" * 64 + "\n"])
def test_only_a_hash_names_a_file(tmp_path: Path, name: str) -> None:
    """Protection: `path` (faults 1 and 3)."""
    with pytest.raises(ValueError, match="hash"):
        Blobs(tmp_path).path(name)


def test_only_old_blobs_that_nothing_names_are_removed(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    kept, dropped = blobs.put(b"kept"), blobs.put(b"dropped")
    assert blobs.remove_all_but([kept.content_hash], older_than=time.time() - 60) == 0
    assert blobs.remove_all_but([kept.content_hash], older_than=time.time() + 60) == 1
    assert blobs.has(kept.content_hash)
    assert not blobs.has(dropped.content_hash)
