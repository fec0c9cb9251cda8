"""One sample of LangChain + FAISS, with or without its BM25 retriever; runs in the peers' environment."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


class Stub:
    """Text to a unit vector out of a fixed pool, at about 2 µs a text."""

    def __init__(self, dimension: int = 384, pool: int = 4096) -> None:
        vectors = np.random.default_rng(0).standard_normal((pool, dimension), dtype=np.float32)
        self.pool: list[list[float]] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).tolist()

    def __call__(self, texts: list[str]) -> list[list[float]]:
        size = len(self.pool)
        return [
            self.pool[int.from_bytes(hashlib.blake2b(t.encode(), digest_size=4).digest(), "little") % size]
            for t in texts
        ]


def main() -> None:
    logging.disable(logging.WARNING)
    side, folder = sys.argv[1], Path(sys.argv[2])
    from langchain_community.retrievers import BM25Retriever
    from langchain_community.vectorstores import FAISS
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    stub = Stub()

    class StubEmbeddings(Embeddings):  # type: ignore[misc]  # the peers' environment has no types for us
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return stub(texts)

        def embed_query(self, text: str) -> list[float]:
            return stub([text])[0]

    splitter = RecursiveCharacterTextSplitter(chunk_size=250, chunk_overlap=50)
    kept: list[Any] = []
    characters: list[int] = []

    def ingest(paths: list[Path]) -> int:
        documents = [Document(page_content=p.read_text(encoding="utf-8"), metadata={"source": p.name}) for p in paths]
        chunks = splitter.split_documents(documents)
        kept.append(FAISS.from_documents(chunks, StubEmbeddings(), normalize_L2=True))
        if side == "faiss+bm25":
            kept.append(BM25Retriever.from_documents(chunks))
        characters[:] = [len(chunk.page_content) for chunk in chunks]
        return len(chunks)

    paths = sorted(folder.iterdir())
    ingest(paths[:5])
    started = time.process_time()
    count = ingest(paths)
    used = time.process_time() - started
    size = sum(characters) / len(characters)
    print(json.dumps({"chunks": count, "characters": size, "cpu_us_per_chunk": used / count * 1e6}))


if __name__ == "__main__":
    main()
