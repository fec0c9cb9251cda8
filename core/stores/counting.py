"""What an index holds, counted the same way in every store, so that copies can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from core.types import StoreCount


def counted(listed: int, rows: Iterable[tuple[str, int, str]]) -> StoreCount:
    """From (document, number, content hash) of all chunks, in any order; `listed` documents there are at least."""
    documents: set[str] = set()
    chunks = digest = 0
    for key, number, content_hash in rows:
        documents.add(key)
        chunks += 1
        line = f"{len(key)} {key} {number} {content_hash}".encode()
        digest += int.from_bytes(hashlib.blake2b(line, digest_size=16).digest(), "big")
    return StoreCount(max(listed, len(documents)), chunks, f"{digest % (1 << 128):032x}")
