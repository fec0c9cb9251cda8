"""Small embedders that work: one whose vectors mean something, and one that costs almost nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from core.ports import Embedder, EmbedderInfo
from core.types import Matrix, Vector

_POOL = 4096
_WORD = re.compile(r"[\u4e00-\u9fff]|[^\W_]+")


@cache
def _pool(dimension: int) -> Matrix:
    rows = _normalised(np.random.default_rng(0).standard_normal((_POOL, dimension), dtype=np.float32))
    rows.flags.writeable = False
    return rows


def _normalised(rows: Matrix) -> Matrix:
    scaled: Matrix = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled.astype(np.float16).astype(np.float32)


def _slot(text: str) -> int:
    data = text.encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "little") % _POOL


class HashEmbedder:
    """Texts that share words (or Chinese characters) are near each other."""

    def __init__(self, dimension: int = 64, name: str = "words", scripts: frozenset[str] = frozenset({"*"})) -> None:
        self._pool = _pool(dimension)
        self.info = EmbedderInfo(
            name=name,
            fingerprint=hashlib.sha256(f"{name}-{dimension}".encode()).hexdigest()[:32],
            dimension=dimension,
            max_tokens=256,
            scripts=scripts,
            weight=0.4,
        )
        self.embedded: list[str] = []
        """Every document text that came, in order."""

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        self.embedded += texts
        if not texts:
            return np.empty((0, self.info.dimension), np.float32)
        return _normalised(np.stack([self._sum(text) for text in texts]))

    async def embed_query(self, text: str) -> Vector:
        vector: Vector = _normalised(self._sum(text)[None])[0]
        return vector

    async def close(self) -> None:
        return None

    def _sum(self, text: str) -> Vector:
        words = _WORD.findall(text.lower()) or [""]
        vector: Vector = self._pool[[_slot(word) for word in words]].sum(axis=0)
        return vector


class StubEmbedder:
    """A vector that depends on the text and means nothing, for about 2 µs; for benchmarks of what is around it."""

    def __init__(self, dimension: int = 384) -> None:
        self._pool = _pool(dimension)
        self.info = EmbedderInfo(
            name="stub",
            fingerprint=hashlib.sha256(f"stub-{dimension}".encode()).hexdigest()[:32],
            dimension=dimension,
            max_tokens=256,
            scripts=frozenset({"Latin"}),
            weight=0.4,
        )
        self.calls = 0
        """Texts embedded so far."""

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        self.calls += len(texts)
        rows: Matrix = self._pool[[_slot(text) for text in texts]]
        return rows

    async def embed_query(self, text: str) -> Vector:
        vector: Vector = self._pool[_slot(text)]
        return vector

    async def close(self) -> None:
        return None


class OneEmbedder:
    """Known embedders where there is but one, which every knowledge base uses."""

    def __init__(self, current: Callable[[], Embedder | None]) -> None:
        self._current = current

    def named(self, name: str | None) -> Embedder | None:
        return None if name == "" else self._current()

    async def ready(self, name: str | None) -> Embedder | None:
        return self.named(name)

    async def maker(self, fingerprint: str) -> Embedder | None:
        one = self._current()
        return one if one is not None and one.info.fingerprint == fingerprint else None
