"""Hybrid search against the bare calls under it, and against plain SQLite and numpy, on the same chunks.

`store`: embed the question, one call of the store. `plain`: embed the question, one FTS5 query, one matrix product.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.common import quantile, ratio
from core import settings as settings_module
from core.analyzer import query_tokens, tokens
from core.answering.retrieve import LiveKb, Retriever
from core.blobs import Blobs
from core.cli import collect_seldom, keep_memory
from core.db.migrate import upgrade
from core.db.session import Database
from core.db.tables import GenerationRow, KnowledgeBaseRow
from core.embedders.builtin import open_embedder
from core.errors import EmbedderUnavailable
from core.kb.knowledge import Knowledge
from core.ports import Embedder, EmbedderInfo, VectorStore
from core.settings import EmbedderSettings, RetrievalSettings, SplitterSettings
from core.stores.local import open_store
from core.types import Chunk, Generation, IndexedDocument, Matrix, Vector

SIZES = (1_000, 10_000, 100_000)
KBS = 10
DIMENSION = 384
PER_DOCUMENT = 10
WORDS_PER_CHUNK = 90
VOCABULARY = 50_000
PAIRS = 150
SAMPLES = 2_000
WIDTHS = (8, 9, 9, 9, 24, 24, 19, 8, 8)


class NoModel:
    """Stands in where the model is not there: a vector costs nothing, on both sides."""

    def __init__(self) -> None:
        self.info = EmbedderInfo("none", "none", DIMENSION, 256, frozenset({"Latin"}), 0.4)
        self._draw = np.random.default_rng(0)

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return np.stack([await self.embed_query(text) for text in texts])

    async def embed_query(self, text: str) -> Vector:  # noqa: ARG002 - any text will do
        drawn = self._draw.standard_normal(DIMENSION, np.float32)
        return np.asarray(drawn / np.linalg.norm(drawn), np.float32)

    async def close(self) -> None:
        return


@dataclass
class Bare:
    """One knowledge base as plain SQLite and numpy hold it."""

    connection: sqlite3.Connection
    matrix: Matrix

    def search(self, words: Sequence[str], vector: Vector, limit: int) -> int:
        match = " OR ".join(f'"{word}"' for word in words)
        sql = "SELECT rowid, bm25(texts) FROM texts WHERE texts MATCH ? ORDER BY rank LIMIT ?"
        rows = self.connection.execute(sql, (match, limit)).fetchall()
        # Not by `@`: BLAS's threads go on turning for some milliseconds, at the cost of the way that is measured next.
        similarities: NDArray[np.float32] = np.vecdot(self.matrix, vector)
        best = np.argpartition(similarities, -min(limit, len(similarities)))[-limit:]
        return len(rows) + len(best)


class Corpus:
    """Texts whose words are as unevenly frequent as those of a language."""

    def __init__(self) -> None:
        self._chance = random.Random(7)
        self._words = [_spelt(number) for number in range(VOCABULARY)]
        weights = 1 / np.arange(2, VOCABULARY + 2)
        self._weights = np.cumsum(weights).tolist()
        self._draw = np.random.default_rng(7)

    def text(self, words: int) -> str:
        return " ".join(self._chance.choices(self._words, cum_weights=self._weights, k=words))

    def vectors(self, rows: int) -> Matrix:
        drawn = self._draw.standard_normal((rows, DIMENSION), np.float32)
        return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def main() -> None:
    collect_seldom()
    keep_memory()  # as every process of Kvasir's
    asyncio.run(measure())


async def measure() -> None:
    logging.disable(logging.WARNING)
    embedder = await _embedder()
    limit = RetrievalSettings().candidates
    print(f"{KBS} knowledge bases, a question to one of them, {limit} candidates from each leg; milliseconds")
    names = ("hybrid", "store", "plain", "hybrid/store", "hybrid/plain", "no embedding p50", "p99", "first")
    print("".join(f"{name:>{width}}" for name, width in zip(("chunks", *names), WIDTHS, strict=True)))
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            store = await open_store(settings_module.load(data_dir=Path(folder)))
            db = Database(f"sqlite:///{folder}/kvasir.db")
            try:
                await _measure_size(size, store, embedder, Path(folder), db)
            finally:
                await db.close()
                await store.close()
    print(
        "bars: ≤ 1.2 times the store call and the embedding; without embedding p50 ≤ 10 and p99 ≤ 30 at 100,000 chunks"
    )
    await embedder.close()


@dataclass
class Sides:
    """The same search in three ways; each gives the seconds it took."""

    store: VectorStore
    embedder: Embedder
    live: list[LiveKb]
    bare: list[Bare]
    retriever: Retriever
    limit: int

    async def hybrid(self, question: str, kb: int) -> float:
        started = time.perf_counter()
        await self.retriever.retrieve(question, [self.live[kb].name], limit=10, judged=False)
        return time.perf_counter() - started

    async def store_alone(self, question: str, kb: int) -> float:
        started = time.perf_counter()
        vector = await self.embedder.embed_query(question)
        asked = query_tokens(question)
        await self.store.search(self.live[kb].generation, vector=vector, tokens=asked, limit=self.limit)
        return time.perf_counter() - started

    async def plain(self, question: str, kb: int) -> float:
        started = time.perf_counter()
        vector = await self.embedder.embed_query(question)
        self.bare[kb].search(query_tokens(question), vector, self.limit)
        return time.perf_counter() - started


async def _measure_size(size: int, store: VectorStore, embedder: Embedder, folder: Path, db: Database) -> None:
    corpus = Corpus()
    sides = await _sides(size, store, embedder, corpus, folder, db)
    first = [await sides.hybrid(corpus.text(6), kb) for kb in range(KBS)]
    ways = (sides.hybrid, sides.store_alone, sides.plain)
    took: list[list[float]] = [[], [], []]
    orders = cycle(permutations(range(len(ways))))  # each comes as often after each, with that one's data in the caches
    for number, order in zip(range(PAIRS), orders, strict=False):
        question = corpus.text(4 + number % 8)
        for way in order:
            # In a knowledge base of its own, so that no way finds texts in memory that another has just read.
            took[way].append(await ways[way](question, (number + way) % KBS))
    # Asked again, a question's vector is remembered.
    questions = [corpus.text(4 + number % 8) for number in range(100)]
    for question in questions:
        await sides.hybrid(question, 0)
    alone = [await sides.hybrid(questions[number % len(questions)], number % KBS) for number in range(SAMPLES)]
    columns = [
        str(size),
        *(f"{statistics.median(way) * 1000:.2f}" for way in took),
        ratio(took[0], took[1]),
        ratio(took[0], took[2]),
        *(f"{quantile(alone, share) * 1000:.2f}" for share in (0.5, 0.99)),
        f"{max(first) * 1000:.0f}",
    ]
    print("".join(f"{column:>{width}}" for column, width in zip(columns, WIDTHS, strict=True)), flush=True)
    for one in sides.bare:
        one.connection.close()


async def _sides(
    size: int, store: VectorStore, embedder: Embedder, corpus: Corpus, folder: Path, db: Database
) -> Sides:
    live, bare = [], []
    for number in range(KBS):
        generation = Generation(f"{number:032x}", f"kb{number}", "bench", DIMENSION, embedder.info.fingerprint)
        live.append(LiveKb(f"kb{number}", generation))
        bare.append(await _fill(store, generation, corpus, size // KBS, folder / f"bare{number}.db"))
    await _recorded(db, live)

    settings = RetrievalSettings()
    knowledge = Knowledge(db, store, Blobs(folder / "blobs"), SplitterSettings())
    retriever = Retriever(store, lambda: embedder, knowledge.live, settings)
    return Sides(store, embedder, live, bare, retriever, settings.candidates)


async def _recorded(db: Database, live: Sequence[LiveKb]) -> None:
    """In the database, which each question asks for the live indexes."""
    await upgrade(db)
    async with db.session() as session:
        for name, one in ((one.name, one.generation) for one in live):
            kb = KnowledgeBaseRow(id=one.kb_id, name=name, chunk_size=256, chunk_overlap=0, live_generation_id=one.id)
            session.add(kb)
            await session.flush()
            profile = {"embedder": one.embedder}
            session.add(
                GenerationRow(
                    id=one.id, kb_id=one.kb_id, fingerprint=one.fingerprint, dimension=one.dimension, profile=profile
                )
            )


async def _fill(store: VectorStore, generation: Generation, corpus: Corpus, chunks: int, path: Path) -> Bare:
    await store.ensure_generation(generation)
    matrix = corpus.vectors(chunks)
    texts = [corpus.text(WORDS_PER_CHUNK) for _ in range(chunks)]
    analysed = [" ".join(tokens(text)) for text in texts]
    documents = []
    for first in range(0, chunks, PER_DOCUMENT):
        rows = range(first, min(first + PER_DOCUMENT, chunks))
        parts = tuple(Chunk(row - first, texts[row], analysed[row], f"{row:032x}") for row in rows)
        documents.append(IndexedDocument(f"d{first}", f"d{first}.md", "", "", parts, matrix[rows.start : rows.stop]))
    for first in range(0, len(documents), 50):
        await store.put(generation, documents[first : first + 50])
    connection = sqlite3.connect(path)
    connection.execute("CREATE VIRTUAL TABLE texts USING fts5(words, content='')")
    connection.executemany("INSERT INTO texts (rowid, words) VALUES (?, ?)", list(enumerate(analysed)))
    connection.commit()
    return Bare(connection, matrix)


async def _embedder() -> Embedder:
    model = os.environ.get("KVASIR_TEST_MODEL_DIR")
    chosen = EmbedderSettings(model_dir=Path(model) if model else None, fetch=False)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return await open_embedder(settings_module.load(data_dir=Path(folder), embedder=chosen))
        except EmbedderUnavailable as error:
            print(f"The question's embedding is left out on both sides: {error}")
            return NoModel()


def _spelt(number: int) -> str:
    """A word of consonants and vowels for each number."""
    letters = ""
    while True:
        number, digit = divmod(number, 100)
        letters += "bcdfghklmnprstvwxyzj"[digit // 5] + "aeiou"[digit % 5]
        if not number:
            return letters


if __name__ == "__main__":
    main()
