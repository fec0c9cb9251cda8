"""Keeps embeddings by content, so that equal text is embedded once, whatever document it stands in."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import numpy as np

from core.embedders.vector_file import KEY_BYTES, VectorFile
from core.errors import EmbedderUnavailable
from core.ports import Embedder, EmbedderInfo
from core.types import Matrix, Vector

P = ParamSpec("P")
T = TypeVar("T")

MAX_BYTES: Final = 1 << 30


class CachedEmbedder:
    """An embedder that asks `inner` only for texts whose vectors are not kept yet in the file at `path`.

    What was kept and what is fresh is equal to the bit. When the file cannot be used, everything goes on without it.
    """

    def __init__(self, inner: Embedder, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._inner = inner
        info = inner.info
        self._seed = hashlib.blake2b(info.fingerprint.encode() + b"\0", digest_size=KEY_BYTES)
        self._file = VectorFile(path, info.fingerprint, info.dimension, max_bytes)
        self._closed = False
        self._thread = ThreadPoolExecutor(1, "embedding-cache")

    @property
    def info(self) -> EmbedderInfo:
        return self._inner.info

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        if not texts:
            return await self._inner.embed_documents(texts)
        keys, rows, missing = await self._in_thread(self._look_up, texts)
        if missing:
            first: dict[bytes, int] = {}  # equal texts are embedded once
            for number in missing:
                first.setdefault(keys[number], number)
            wanted = list(first.values())
            fresh = await self._inner.embed_documents([texts[number] for number in wanted])
            halves = await self._in_thread(self._keep, list(first), fresh)
            place = {key: row for row, key in enumerate(first)}
            rows[missing] = halves[[place[keys[number]] for number in missing]]
        return rows

    async def embed_query(self, text: str) -> Vector:
        return await self._inner.embed_query(text)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
            self._thread.shutdown()
        await self._inner.close()

    async def _in_thread(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        if self._closed:
            raise EmbedderUnavailable("The embedder is closed; start Kvasir again.")
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *arguments, **named))

    def _look_up(self, texts: Sequence[str]) -> tuple[list[bytes], Matrix, list[int]]:
        """Keys of the texts, a row for each, and the numbers of those whose rows are not filled."""
        keys = []
        for text in texts:
            hasher = self._seed.copy()
            hasher.update(text.encode("utf-8", "surrogatepass"))
            keys.append(hasher.digest())
        rows = np.empty((len(keys), self.info.dimension), np.float32)
        return keys, rows, self._file.fill(keys, rows)

    def _keep(self, keys: Sequence[bytes], fresh: Matrix) -> np.ndarray[tuple[int, int], np.dtype[np.float16]]:
        halves = fresh.astype(np.float16)
        self._file.add(keys, halves)
        return halves
