"""What the stores `lancedb` and `milvus` hold in memory of an index, over rows in a test; `local` is the measure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from core.ports import VectorStore
from core.settings import Settings
from core.stores.database import CHUNK_BITS
from core.stores.local import open_store
from core.stores.outline import Head, Outlines, Restless, Words
from core.stores.outlined import Kept, Row, Wanted, Within, search
from core.stores.postings import analyse
from core.types import Compare, Filter, IndexedDocument, Not, SearchResult, Vector
from tests.contracts.test_vector_store import GENERATION, document, vector

pytestmark = pytest.mark.anyio

WORDS = ("tea", "cake", "bread", "tide", "boat")


class Rows:
    """An index elsewhere: editions by number, at a version."""

    MOST_LISTED = 3
    MOST_FOUND = 1000

    def __init__(self) -> None:
        self.version = 0
        self.editions: dict[int, IndexedDocument] = {}
        self.loaded: list[int] = []
        self.asked: list[Within | None] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def put(self, *documents: IndexedDocument) -> None:
        self.drop(*(document.id for document in documents))
        for one in documents:
            self.editions[max(self.editions, default=0) + 1000] = one

    def drop(self, *ids: str) -> None:
        self.version += 1
        self.editions = {number: one for number, one in self.editions.items() if one.id not in ids}

    async def numbers(self) -> set[int]:
        return set(self.editions)

    async def load(self, numbers: Collection[int] | None) -> AsyncIterator[tuple[Sequence[Head], Sequence[Words]]]:
        await self.gate.wait()
        wanted = [number for number in self.editions if numbers is None or number in numbers]
        self.loaded += wanted
        for number in wanted:
            one = self.editions[number]
            head = Head(number, one.id, one.name, one.title, one.content_hash, len(one.chunks), one.metadata)
            yield [head], [Words(number, *analyse([chunk.tokens for chunk in one.chunks]))]

    async def nearest(self, vector: Vector, limit: int, within: Within | None) -> Sequence[int]:
        self.asked.append(within)
        found = []
        for number, one in self.editions.items():
            if within is None or (number in within.numbers) != within.is_excluded:
                assert one.vectors is not None
                found += [(float(own @ vector), (number << CHUNK_BITS) + n) for n, own in enumerate(one.vectors)]
        return [row for _, row in sorted(found, reverse=True)[:limit]]

    async def rows(self, ids: Sequence[int], *, vectors: bool) -> Mapping[int, Row]:
        found = {}
        for row in ids:
            one = self.editions.get(row >> CHUNK_BITS)
            if one is not None and one.vectors is not None:
                place = row & ((1 << CHUNK_BITS) - 1)
                found[row] = Row(one.chunks[place], one.vectors[place] if vectors else None)
        return found


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[VectorStore]:
    store = await open_store(Settings(data_dir=tmp_path))
    await store.ensure_generation(GENERATION)
    yield store
    await store.close()


@pytest.fixture
async def outlines() -> AsyncIterator[Outlines]:
    outlines = Outlines(1 << 20, 10)
    yield outlines
    await outlines.close()


def many(count: int) -> list[IndexedDocument]:
    return [
        document(
            f"d{number}",
            *(" ".join(WORDS[: 1 + (number + place) % 5]) for place in range(3)),
            seed=3 * number,
            name=f"{number % 3}/{number}.md",
            metadata={"year": 2000 + number},
        )
        for number in range(count)
    ]


def told(found: SearchResult | None) -> tuple[list[tuple[str, int]], list[float], int, Mapping[str, int]]:
    assert found is not None
    hits = sorted(found.hits, key=lambda hit: (hit.document_id, hit.chunk.number))
    scores = [score or 0 for hit in hits for score in (hit.vector_score, hit.keyword_score)]
    return [(hit.document_id, hit.chunk.number) for hit in hits], scores, found.chunk_count, found.document_frequency


@pytest.mark.parametrize(
    "filter",
    [
        None,
        Compare("folder", "eq", "1"),  # as many as can not be named, and as many others
        Compare("meta.year", "lt", 2002),
        Not(Compare("document", "eq", "0/3.md")),
        Compare("document", "eq", "nowhere"),
    ],
)
async def test_it_finds_what_local_finds(filter: Filter | None, local: VectorStore, outlines: Outlines) -> None:
    rows = Rows()
    steps: list[tuple[list[IndexedDocument], list[str]]] = [
        (many(20), []),
        ([document("d3", "tide", seed=3), document("d7")], ["d1", "d4"]),
        (many(3), [f"d{number}" for number in range(5, 15)]),
    ]
    for documents, gone in steps:
        await local.delete(GENERATION, gone)
        await local.put(GENERATION, documents)
        rows.drop(*gone)
        rows.put(*documents)
        asked = Wanted(vector(5), ["tea", "tide", "nothing"], 100, filter)
        ours = told(await search(await outlines.current("a", rows), "a", rows, Kept(), asked))
        theirs = told(
            await local.search(GENERATION, vector=asked.vector, tokens=asked.tokens, limit=100, filter=filter)
        )
        assert (ours[0], ours[2:]) == (theirs[0], theirs[2:])
        assert ours[1] == pytest.approx(theirs[1], abs=2e-3)
        near = Wanted(vector(5), [], 2, filter)
        ours = told(await search(await outlines.current("a", rows), "a", rows, Kept(), near))
        theirs = told(await local.search(GENERATION, vector=near.vector, tokens=[], limit=2, filter=filter))
        assert ours[0] == theirs[0]


async def test_only_what_is_new_is_read(outlines: Outlines) -> None:
    rows = Rows()
    rows.put(*many(10))
    await outlines.current("a", rows)
    assert len(rows.loaded) == 10
    rows.put(document("new", "tea"))
    await outlines.current("a", rows)
    await outlines.current("a", rows)
    assert len(rows.loaded) == 11
    rows.drop(*(f"d{number}" for number in range(6)))  # so much that it is read anew
    outline = await outlines.current("a", rows)
    assert len(rows.loaded) == 16
    assert sorted(outline.by_key) == ["d6", "d7", "d8", "d9", "new"]


async def test_rows_that_go_while_they_are_read(outlines: Outlines) -> None:
    rows = Rows()
    rows.put(*many(3))
    rows.gate.clear()
    waiting = asyncio.create_task(outlines.current("a", rows))
    await asyncio.sleep(0)
    while not outlines._loading:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    rows.drop("d1")
    rows.gate.set()
    with pytest.raises(Restless):
        await waiting
    assert sorted((await outlines.current("a", rows)).by_key) == ["d0", "d2"]
    held = await outlines.current("a", rows)
    kept = Kept()
    rows.drop("d2")
    assert await search(held, "a", rows, kept, Wanted(None, ["tea"], 9, None)) is None


async def test_a_search_that_is_given_up_leaves_its_work_to_the_next(outlines: Outlines) -> None:
    rows = Rows()
    rows.put(*many(3))
    rows.gate.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await outlines.current("a", rows)
    rows.gate.set()
    await outlines.current("a", rows)
    assert len(rows.loaded) == 3


async def test_the_longest_unused_is_given_up() -> None:
    outlines = Outlines(1, 10)
    rows = Rows()
    rows.put(*many(3))
    for key in ("a", "b"):
        await outlines.current(key, rows)
    assert (outlines.held("a"), outlines.held("b") is not None) == (None, True)
    await outlines.close()


async def test_what_came_in_since_does_not_push_out_what_is_known(outlines: Outlines) -> None:
    rows = Rows()
    rows.put(*many(4))
    outline = await outlines.current("a", rows)
    rows.put(*(document(f"new{number}", "tea", seed=5) for number in range(30)))
    found = await search(outline, "a", rows, Kept(), Wanted(vector(5), [], 3, None))
    assert found is not None
    assert len(found.hits) == 3
    expected = sorted((float(np.vecdot(vector(n), vector(5))) for n in range(12)), reverse=True)[:3]
    assert sorted((hit.vector_score or 0 for hit in found.hits), reverse=True) == pytest.approx(expected, abs=1e-5)
