"""What every store must do: subclass `VectorStoreContract` and say where its data lies and how to open it."""

from __future__ import annotations

import asyncio
import hashlib
import math
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from core.analyzer import query_tokens, terms, tokens
from core.errors import KvasirError, UserError
from core.ports import VectorStore
from core.settings import PgvectorSettings, Settings, WeaviateSettings
from core.stores.local import open_store
from core.stores.pgvector import open_store as open_pgvector
from core.stores.weaviate import open_store as open_weaviate
from core.types import (
    All,
    Chunk,
    Compare,
    Filter,
    Generation,
    Hit,
    IndexedDocument,
    Locator,
    Metadata,
    Not,
    SearchResult,
    Some,
    Vector,
)
from tests import processes
from tests.databases import Postgres
from tests.weaviate_server import empty

pytestmark = pytest.mark.anyio

DIMENSION = 8
GENERATION = Generation("a" * 32, "kb1", "fingerprint", DIMENSION, "embedder")
OTHER = Generation("b" * 32, "kb2", "fingerprint", DIMENSION, "embedder")
WORDLESS = Generation("c" * 32, "kb1", "keywords", 0)

Open = Callable[[], Awaitable[VectorStore]]


def vector(seed: int) -> Vector:
    drawn = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn), np.float32)


def document(
    id: str, *texts: str, name: str = "", seed: int = 0, version: str = "1", metadata: Metadata | None = None
) -> IndexedDocument:
    return IndexedDocument(
        id=id,
        name=name or f"{id}.md",
        title=f"Title of {id}",
        content_hash=f"{id}-{version}",
        chunks=tuple(
            Chunk(
                number,
                text,
                " ".join(tokens(text)),
                f"{id}-{version}-{number}",
                ("Top", f"part {number}"),
                Locator("page", first=number + 1),
            )
            for number, text in enumerate(texts)
        ),
        vectors=np.stack([vector(seed + number) for number in range(len(texts))])
        if texts
        else np.zeros((0, DIMENSION), np.float32),
        metadata=metadata or {},
    )


def spelt(number: int) -> str:
    """A word of its own for each number."""
    return "q" + "".join("bcdfghjklm"[int(digit)] for digit in str(number)) + "q"


async def keyword(
    store: VectorStore, text: str, generation: Generation = GENERATION, filter: Filter | None = None
) -> list[Hit]:
    found = await store.search(generation, vector=None, tokens=query_tokens(text), limit=50, filter=filter)
    return sorted(found.hits, key=lambda hit: -(hit.keyword_score or 0))


def texts(hits: Sequence[Hit]) -> list[str]:
    return [hit.chunk.text for hit in hits]


FILTERS: Sequence[tuple[Filter, str]] = [
    (Compare("document", "eq", "handbook/travel.md"), "0"),
    (Compare("document", "ne", "handbook/travel.md"), "1234"),
    (Compare("document", "in", ("handbook/travel.md", "手册/差旅.md", "none")), "03"),
    (Compare("document", "in", ()), ""),
    (Compare("document", "prefix", "handbook"), "012"),
    (Compare("folder", "eq", "handbook"), "01"),
    (Compare("folder", "eq", "handbook/leave/"), "1"),
    (Compare("folder", "in", ("手册", "handbook/leave")), "13"),
    (Compare("folder", "eq", ""), "01234"),
    (Compare("meta.year", "eq", 2024), "0"),
    (Compare("meta.year", "ge", 2024), "01"),
    (Compare("meta.year", "lt", 2024), "2"),
    (Compare("meta.year", "ge", "2000"), "3"),
    (Compare("meta.weight", "gt", 1), "1"),
    (Compare("meta.draft", "eq", True), "0"),
    (Compare("meta.author", "prefix", "Ada"), "02"),
    (Compare("meta.author", "in", ("李雷", "Bo")), "13"),
    (Compare("meta.absent", "ne", "x"), "01234"),
    (All((Compare("folder", "eq", "handbook"), Not(Compare("meta.draft", "eq", True)))), "1"),
    (Some((Compare("meta.year", "eq", 2019), Compare("meta.author", "eq", "李雷"))), "23"),
    (All(()), "01234"),
    (Some(()), ""),
    (Not(Some(())), "01234"),
]
"""Each with the numbers of the documents that it lets through."""


HOSTILE = (
    "' OR 1=1 --", '" OR 1=1 --', "'; DROP TABLE documents; --", "%", "_", "*", "handbook/travel.md' OR 'a'='a",
    "$.x", '"}}}', "x\x00y", "\\", "../..", "a" * 100_000,
)  # fmt: skip
ODD = ("文档 1", "a'b\"c", "x\x00y", "../../etc/passwd", "😀", "a" * 2000, " ", "%_*", "NULL", "1")


class VectorStoreContract:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path

    @pytest.fixture
    def opened(self, folder: Path) -> Open:
        """Opens another client of the same store, as another process would."""
        raise NotImplementedError

    @pytest.fixture
    async def store(self, opened: Open) -> AsyncIterator[VectorStore]:
        store = await opened()
        for generation in (GENERATION, OTHER, WORDLESS):
            await store.ensure_generation(generation)
        yield store
        await store.close()

    # ------------------------------------------------------------ documents come and go
    async def test_an_empty_generation_finds_nothing(self, store: VectorStore) -> None:
        found = await store.search(GENERATION, vector=vector(1), tokens=["tea"], limit=5)
        assert found == SearchResult((), 0, {"tea": 0})
        count = await store.count(GENERATION)
        assert (count.documents, count.chunks) == (0, 0)
        assert await store.documents(GENERATION) == []

    async def test_what_is_put_comes_back_whole(self, store: VectorStore) -> None:
        given = document("d1", "Tea at four.", "Cake at five.")
        await store.put(GENERATION, [given])
        assert tuple(await store.chunks(GENERATION, "d1")) == given.chunks
        assert list(await store.documents(GENERATION)) == [("d1", "d1-1", 2)]
        (hit,) = await keyword(store, "cake")
        assert (hit.document_id, hit.document, hit.title) == ("d1", "d1.md", "Title of d1")
        assert hit.chunk == given.chunks[1]

    async def test_documents_are_read_as_they_were_put(self, store: VectorStore) -> None:
        metadata: Metadata = {"year": 2024, "author": "李雷", "weight": 1.5, "it's": "x"}
        given = {
            "d1": document("d1", "Tea at four.", "Cake\x00 at five.", name="a/手册.md", seed=3, metadata=metadata),
            "d2": document("d2", "Bread.", seed=7),
            "d3": document("d3"),
            "long": document("long", *(f"Page {spelt(number)}." for number in range(600))),
        }
        await store.put(GENERATION, list(given.values()))
        found = await store.read(GENERATION, ["long", "d3", "never there", "d1"])
        assert [one.id for one in found] == ["long", "d3", "d1"]
        for one in found:
            expected = given[one.id]
            assert replace(one, vectors=None, terms=b"") == replace(expected, vectors=None)
            assert one.terms in (b"", b"".join(terms(chunk.tokens) for chunk in expected.chunks))
            assert one.vectors is not None
            assert expected.vectors is not None
            np.testing.assert_allclose(one.vectors, expected.vectors, atol=2e-3)
        await store.put(OTHER, await store.read(GENERATION, list(given)))
        assert await store.count(OTHER) == await store.count(GENERATION)
        again = await store.read(OTHER, ["d1", "long"])
        for one, other in zip(again, await store.read(GENERATION, ["d1", "long"]), strict=True):
            assert replace(one, vectors=None) == replace(other, vectors=None)
            np.testing.assert_array_equal(one.vectors, other.vectors)
        await store.put(WORDLESS, [replace(given["d2"], vectors=None)])
        assert [one.vectors for one in await store.read(WORDLESS, ["d2"])] == [None]
        assert await store.read(GENERATION, []) == []

    async def test_the_digest_is_the_same_in_every_store(self, store: VectorStore) -> None:
        await store.put(GENERATION, [document("d1", "Tea.", "Cake."), document("文档", "Bread.")])
        assert (await store.count(GENERATION)).digest == "c03a6d797e1034038d6a8d2377efbea6"

    async def test_putting_twice_changes_nothing(self, store: VectorStore) -> None:
        await store.put(GENERATION, [document("d1", "Tea."), document("d2", "Cake.")])
        before = await store.count(GENERATION)
        await store.put(GENERATION, [document("d1", "Tea.")])
        assert await store.count(GENERATION) == before
        assert len(await keyword(store, "tea")) == 1

    async def test_a_new_version_replaces_the_old_one(self, store: VectorStore) -> None:
        await store.put(GENERATION, [document("d1", "Tea at four.", "Old page."), document("d2", "Cake.")])
        await store.put(GENERATION, [document("d1", "Tea at five.", version="2")])
        assert [chunk.text for chunk in await store.chunks(GENERATION, "d1")] == ["Tea at five."]
        assert await keyword(store, "old page") == []
        assert texts(await keyword(store, "tea")) == ["Tea at five."]
        count = await store.count(GENERATION)
        assert (count.documents, count.chunks) == (2, 2)

    async def test_deleted_documents_are_gone(self, store: VectorStore) -> None:
        await store.put(GENERATION, [document("d1", "Tea."), document("d2", "Cake."), document("d3", "Bread.")])
        await store.delete(GENERATION, ["d1", "d3", "never there"])
        assert await keyword(store, "tea bread") == []
        found = await store.search(GENERATION, vector=vector(0), tokens=[], limit=9)
        assert texts(found.hits) == ["Cake."]
        assert await store.chunks(GENERATION, "d1") == []
        await store.put(GENERATION, [document("d1", "Tea.")])
        assert texts(await keyword(store, "tea")) == ["Tea."]

    async def test_a_document_without_chunks_is_a_document(self, store: VectorStore) -> None:
        await store.put(GENERATION, [document("d1")])
        assert list(await store.documents(GENERATION)) == [("d1", "d1-1", 0)]
        assert (await store.count(GENERATION)).documents == 1

    async def test_generations_do_not_see_each_other(self, store: VectorStore) -> None:
        await store.put(GENERATION, [document("d1", "Tea at four.")])
        await store.put(OTHER, [document("d1", "Tea at five.")])
        assert texts(await keyword(store, "tea", OTHER)) == ["Tea at five."]
        await store.drop_generation(GENERATION)
        await store.drop_generation(GENERATION)
        assert await keyword(store, "tea") == []
        assert (await store.count(GENERATION)).chunks == 0
        assert texts(await keyword(store, "tea", OTHER)) == ["Tea at five."]

    async def test_a_dropped_generation_can_be_made_anew(self, store: VectorStore) -> None:
        await store.put(GENERATION, [document("d1", "Tea.")])
        await store.drop_generation(GENERATION)
        with pytest.raises(KvasirError):
            await store.put(GENERATION, [document("d1", "Tea.")])
        await store.ensure_generation(GENERATION)
        assert await keyword(store, "tea") == []
        await store.put(GENERATION, [document("d2", "Tea.")])
        assert len(await keyword(store, "tea")) == 1

    async def test_many_generations(self, store: VectorStore) -> None:
        generations = [Generation(f"{number:032x}", f"kb{number}", "f", DIMENSION) for number in range(40)]
        for number, generation in enumerate(generations):
            await store.ensure_generation(generation)
            await store.put(generation, [document("d1", f"Tea number{number}.")])
        for number, generation in enumerate(generations):
            assert texts(await keyword(store, "tea", generation)) == [f"Tea number{number}."]

    async def test_a_long_document_is_stored_whole(self, store: VectorStore) -> None:
        long = document("long", *(f"Page {spelt(number)}." for number in range(2600)))
        await store.put(GENERATION, [long, document("short", "Tea.")])
        assert (await store.count(GENERATION)).chunks == 2601
        assert tuple(await store.chunks(GENERATION, "long")) == long.chunks
        assert texts(await keyword(store, spelt(2599))) == [f"Page {spelt(2599)}."]
        await store.put(GENERATION, [document("long", "Page one.", version="2")])
        assert (await store.count(GENERATION)).chunks == 2
        assert await keyword(store, spelt(2599)) == []

    async def test_the_digest_tells_content_and_not_order(self, store: VectorStore) -> None:
        one, two = document("d1", "Tea.", "Cake."), document("d2", "Bread.")
        await store.put(GENERATION, [one, two])
        await store.put(OTHER, [two])
        await store.put(OTHER, [document("d3", "Gone."), one])
        assert (await store.count(GENERATION)).digest != (await store.count(OTHER)).digest
        await store.delete(OTHER, ["d3"])
        assert await store.count(GENERATION) == await store.count(OTHER)

    # ------------------------------------------------------------ search
    async def test_vectors_rank_by_cosine_and_score_every_hit(self, store: VectorStore) -> None:
        await store.put(GENERATION, [document("d1", *(f"Page {spelt(number)}." for number in range(30)))])
        query = vector(17)
        found = await store.search(GENERATION, vector=query, tokens=[spelt(3)], limit=5)
        by_number = {hit.chunk.number: hit for hit in found.hits}
        expected = sorted(range(30), key=lambda number: -float(vector(number) @ query))[:5]
        assert set(by_number) == {3, *expected}
        for number, hit in by_number.items():
            assert hit.vector_score == pytest.approx(float(vector(number) @ query), abs=2e-3)
        assert by_number[17].vector_score == pytest.approx(1, abs=2e-3)

    async def test_a_vector_may_be_on_its_way_while_the_index_changes(self, store: VectorStore) -> None:
        await store.put(GENERATION, [document("d1", *(f"Page {spelt(number)}." for number in range(30)))])
        before = [await store.search(GENERATION, vector=one, tokens=[spelt(3)], limit=5) for one in (vector(17), None)]
        coming: asyncio.Future[Vector | None] = asyncio.get_running_loop().create_future()
        nothing: asyncio.Future[Vector | None] = asyncio.get_running_loop().create_future()
        searches = [store.search(GENERATION, vector=one, tokens=[spelt(3)], limit=5) for one in (coming, nothing)]
        searching = asyncio.gather(*searches)
        await store.put(GENERATION, [document("d2", f"Leaf {spelt(3)}.")])
        coming.set_result(vector(17))
        nothing.set_result(None)
        after = [await store.search(GENERATION, vector=one, tokens=[spelt(3)], limit=5) for one in (vector(17), None)]
        for found, old, new in zip(await searching, before, after, strict=True):
            assert any(
                (set(found.hits), found.chunk_count, found.document_frequency)
                == (set(one.hits), one.chunk_count, one.document_frequency)
                for one in (old, new)
            )

    async def test_keywords_rank_by_bm25(self, store: VectorStore) -> None:
        pages = ["tea tea with cake", "tea", "cake and bread and butter and jam", "water", "bread tea"]
        await store.put(GENERATION, [document(f"d{number}", page) for number, page in enumerate(pages)])
        found = await store.search(GENERATION, vector=None, tokens=["tea", "cake", "nothing"], limit=9)
        analysed = [tokens(page) for page in pages]
        average = sum(map(len, analysed)) / len(analysed)
        frequency = {word: sum(word in page for page in analysed) for word in ("tea", "cake", "nothing")}
        assert dict(found.document_frequency) == frequency == {"tea": 3, "cake": 2, "nothing": 0}
        assert found.chunk_count == 5
        for hit in found.hits:
            page = analysed[pages.index(hit.chunk.text)]
            expected = sum(
                math.log(1 + (5 - frequency[word] + 0.5) / (frequency[word] + 0.5))
                * (page.count(word) * 2.2)
                / (page.count(word) + 1.2 * (0.25 + 0.75 * len(page) / average))
                for word in ("tea", "cake")
            )
            assert hit.keyword_score == pytest.approx(expected, rel=1e-4)
            assert hit.vector_score is None
        assert len(found.hits) == 4

    async def test_statistics_forget_what_is_deleted(self, store: VectorStore) -> None:
        await store.put(GENERATION, [document(f"d{number}", "tea", "cake") for number in range(20)])
        await keyword(store, "tea")
        await store.put(GENERATION, [document("d3", "bread", version="2")])
        await store.delete(GENERATION, ["d5"])
        found = await store.search(GENERATION, vector=None, tokens=["tea", "bread"], limit=1)
        assert (found.chunk_count, dict(found.document_frequency)) == (37, {"tea": 18, "bread": 1})
        (score,) = [hit.keyword_score for hit in found.hits]
        await store.put(OTHER, [document(f"d{number}", "tea", "cake") for number in range(20) if number not in (3, 5)])
        await store.put(OTHER, [document("d3", "bread")])
        again = await store.search(OTHER, vector=None, tokens=["tea", "bread"], limit=1)
        assert again.hits[0].keyword_score == pytest.approx(score)

    async def test_chinese_is_found_by_words_of_two_characters(self, store: VectorStore) -> None:
        pages = ["出差结束后十五天内提交发票。", "茶点每天下午四点供应。", "会议室在三楼。"]
        await store.put(GENERATION, [document(f"d{number}", page) for number, page in enumerate(pages)])
        assert texts(await keyword(store, "发票"))[0] == pages[0]
        assert texts(await keyword(store, "什么时候供应茶点？"))[0] == pages[1]
        assert texts(await keyword(store, "楼")) == [pages[2]]

    async def test_a_generation_without_vectors_is_searched_by_keywords(self, store: VectorStore) -> None:
        plain = document("d1", "Tea at four.")
        await store.put(WORDLESS, [IndexedDocument("d1", "d1.md", "", "h", plain.chunks, None)])
        found = await store.search(WORDLESS, vector=None, tokens=["tea"], limit=3)
        assert [hit.vector_score for hit in found.hits] == [None]
        found = await store.search(WORDLESS, vector=vector(1), tokens=["tea"], limit=3)
        assert texts(found.hits) == ["Tea at four."]

    async def test_vectors_of_another_dimension_are_refused(self, store: VectorStore) -> None:
        await store.put(GENERATION, [document("d1", "Tea.")])
        wrong = document("d2", "Cake.")
        for vectors in (np.ones((1, DIMENSION + 1), np.float32), np.ones((2, DIMENSION), np.float32), None):
            with pytest.raises(KvasirError):
                await store.put(GENERATION, [IndexedDocument("d2", "d2", "", "h", wrong.chunks, vectors)])
        with pytest.raises(KvasirError):
            await store.search(GENERATION, vector=np.ones(DIMENSION + 1, np.float32), tokens=[], limit=3)
        with pytest.raises(KvasirError):
            await store.put(
                GENERATION,
                [IndexedDocument("d2", "d2", "", "h", wrong.chunks, np.full((1, DIMENSION), np.nan, np.float32))],
            )
        assert (await store.count(GENERATION)).documents == 1

    async def test_the_limit_holds_for_each_leg(self, store: VectorStore) -> None:
        await store.put(GENERATION, [document("d1", *["tea"] * 10)])

        async def found(vector: Vector | None, tokens: Sequence[str], limit: int) -> int:
            return len((await store.search(GENERATION, vector=vector, tokens=tokens, limit=limit)).hits)

        for limit in (0, 1, 3):
            assert await found(None, ["tea"], limit) == limit
            assert await found(vector(1), [], limit) == limit
            assert await found(vector(1), ["tea"], limit) <= 2 * limit

    # ------------------------------------------------------------ filters
    @pytest.fixture
    async def filled(self, store: VectorStore) -> VectorStore:
        rows: list[tuple[str, Metadata]] = [
            ("handbook/travel.md", {"year": 2024, "author": "Ada", "draft": True}),
            ("handbook/leave/sick.md", {"year": 2025, "author": "Bo", "weight": 1.5}),
            ("handbook-old/travel.md", {"year": 2019, "author": "Ada's son"}),
            ("手册/差旅.md", {"author": "李雷", "year": "2024"}),
            ("100%_real\\'name\".md", {"it's": 1}),
        ]
        await store.put(
            GENERATION,
            [document(f"d{number}", "tea", name=name, metadata=data) for number, (name, data) in enumerate(rows)],
        )
        return store

    async def test_filters(self, filled: VectorStore) -> None:
        for condition, digits in FILTERS:
            expected = {f"d{digit}" for digit in digits}
            hits = await keyword(filled, "tea", filter=condition)
            assert {hit.document_id for hit in hits} == expected, condition
            found = await filled.search(GENERATION, vector=vector(0), tokens=[], limit=9, filter=condition)
            assert {hit.document_id for hit in found.hits} == expected, condition

    async def test_hostile_values_and_fields_are_only_data(self, filled: VectorStore) -> None:
        for hostile in HOSTILE:
            for condition in (
                Compare("document", "eq", hostile),
                Compare("document", "prefix", hostile),
                Compare("folder", "in", (hostile, hostile)),
                Compare("meta.author", "eq", hostile),
                Compare(f"meta.{hostile}", "eq", "x"),
                Compare("meta.year", "lt", hostile) if hostile > "2024" else Compare("meta.year", "eq", hostile),
            ):
                hits = await keyword(filled, "tea", filter=condition)
                assert {hit.document_id for hit in hits} <= {"d3"} if condition.op == "lt" else hits == [], condition
            with pytest.raises(UserError):
                await keyword(filled, "tea", filter=Compare(hostile, "eq", "x"))
            assert len(await keyword(filled, "tea")) == 5, hostile
            assert await keyword(filled, "tea", filter=Compare("meta.it's", "eq", 1)) != [], hostile

    async def test_filters_too_big_are_refused_in_a_sentence(self, filled: VectorStore) -> None:
        deep: Filter = Compare("document", "eq", "x")
        for _ in range(500):
            deep = Not(deep)
        for condition in (
            deep,
            Compare("document", "in", tuple(map(str, range(50_000)))),
            Compare("meta.x", "eq", 10**30),
        ):
            with pytest.raises(UserError):
                await keyword(filled, "tea", filter=condition)

    # ------------------------------------------------------------ odd data
    async def test_odd_ids_and_names_are_kept_apart(self, store: VectorStore) -> None:
        for odd in ODD:
            await store.put(GENERATION, [document(odd, "Tea.", name=odd), document("plain", "Tea.")])
            assert [chunk.text for chunk in await store.chunks(GENERATION, odd)] == ["Tea."], odd
            assert {hit.document for hit in await keyword(store, "tea")} == {odd, "plain.md"}
            await store.delete(GENERATION, [odd])
            assert [hit.document_id for hit in await keyword(store, "tea")] == ["plain"], odd
        await store.put(GENERATION, [document(odd, "Tea.", name=odd) for odd in ODD])
        assert {hit.document for hit in await keyword(store, "tea")} == {*ODD, "plain.md"}

    async def test_broken_characters_are_refused_with_nothing_changed(self, store: VectorStore) -> None:
        for broken in (
            document("d1", "half \ud800 a pair"),
            document("\udcff", "Tea."),
            document("d1", "Tea.", name="\udcff"),
        ):
            with pytest.raises(KvasirError):
                await store.put(GENERATION, [document("d2", "Tea."), broken])
        assert (await store.count(GENERATION)).documents == 0

    async def test_odd_tokens_find_nothing_and_break_nothing(self, store: VectorStore) -> None:
        await store.put(GENERATION, [document("d1", "Tea.")])
        odd = ['"', "tea*", "NEAR(", "tea OR cake", "", " ", "\x00", "AND", "\ud800", "-tea", "^tea", "{}"]
        found = await store.search(GENERATION, vector=None, tokens=odd, limit=5)
        assert found.hits == ()
        assert set(found.document_frequency.values()) == {0}

    # ------------------------------------------------------------ several at once
    async def test_another_client_sees_each_change(self, store: VectorStore, opened: Open) -> None:
        other = await opened()
        try:
            for number in range(5):
                await store.put(
                    GENERATION, [document(f"d{number}", "tea"), document("same", "tea", version=str(number))]
                )
                assert len(await keyword(other, "tea")) == number + 2
            await other.delete(GENERATION, ["same"])
            assert len(await keyword(store, "tea")) == 5
            await store.drop_generation(GENERATION)
            await store.ensure_generation(GENERATION)
            await store.put(GENERATION, [document("anew", "tea")])
            assert [hit.document_id for hit in await keyword(other, "tea")] == ["anew"]
            await store.drop_generation(GENERATION)
            assert await keyword(other, "tea") == []
        finally:
            await other.close()

    async def test_searches_while_writing_see_whole_documents(self, store: VectorStore) -> None:
        done = asyncio.Event()

        async def write() -> None:
            for number in range(30):
                await store.put(
                    GENERATION, [document(f"d{number % 7}", *["tea"] * (1 + number % 5), version=str(number))]
                )
            done.set()

        async def read() -> None:
            while not done.is_set():
                found = await store.search(GENERATION, vector=vector(1), tokens=["tea"], limit=200)
                assert len(found.hits) == found.chunk_count == found.document_frequency["tea"]
                versions = {hit.document_id: set[str]() for hit in found.hits}
                for hit in found.hits:
                    versions[hit.document_id].add(hit.chunk.content_hash.split("-")[1])
                assert all(len(one) == 1 for one in versions.values())

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(write())
            for _ in range(3):
                group.create_task(read())

    async def test_a_writer_process_killed_at_any_moment_leaves_whole_documents(
        self, store: VectorStore, folder: Path
    ) -> None:
        """While it writes, this process reads; after a kill all that was acknowledged is there, in whole."""
        for number in range(4):
            word = spelt(number)
            command = [sys.executable, "-c", self.WRITER, str(folder), str(number)]
            writer = await asyncio.to_thread(processes.start, command, stdout=subprocess.PIPE)
            assert writer.stdout is not None
            acknowledged = 0
            async with asyncio.timeout(30):
                while acknowledged < 4 + number * 3:
                    acknowledged = int(await asyncio.to_thread(writer.stdout.readline))
                    found = await store.search(GENERATION, vector=vector(1), tokens=[word], limit=3)
                    assert found.document_frequency[word] >= acknowledged * 20
                await asyncio.sleep(0.003 * number)
                writer.send_signal(signal.SIGKILL)
                rest, _ = await asyncio.to_thread(writer.communicate)
                acknowledged = max([acknowledged, *map(int, rest.split())])
            found = await store.search(GENERATION, vector=None, tokens=[word], limit=1)
            assert found.document_frequency[word] in (acknowledged * 20, (acknowledged + 1) * 20)
        documents = await store.documents(GENERATION)
        assert {chunks for _, _, chunks in documents} == {4}
        count = await store.count(GENERATION)
        assert (count.documents, count.chunks) == (len(documents), 4 * len(documents))
        await store.put(GENERATION, [document("after", "tea")])
        assert (await store.count(GENERATION)).documents == len(documents) + 1

    WRITER = ""
    """Python that opens the store in folder argv[1] and puts batch after batch into GENERATION, each of five
    documents of four chunks with the word `spelt(int(argv[2]))`, and prints after each how many batches it has put."""


class TestLocalStore(VectorStoreContract):
    @pytest.fixture
    def opened(self, folder: Path) -> Open:
        return lambda: open_store(Settings(data_dir=folder))

    WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from core.settings import Settings
from core.stores.local import open_store
from tests.contracts.test_vector_store import GENERATION, document, spelt

async def main():
    store = await open_store(Settings(data_dir=Path(sys.argv[1])))
    for batch in itertools.count():
        pages = [f"tea {spelt(int(sys.argv[2]))} page"] * 4
        await store.put(GENERATION, [document(f"r{sys.argv[2]}-{batch}-{n}", *pages) for n in range(5)])
        print(batch + 1, flush=True)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def pgvector_server(postgres: Postgres) -> Iterator[str]:
    """One database for all tests; each has tables of its own."""
    with asyncio.Runner() as runner:
        database = postgres.database(migrated=False)
        yield runner.run(database.__aenter__())
        runner.run(database.__aexit__(None, None, None))


@pytest.mark.postgres
class TestPgvectorStore(VectorStoreContract):
    @pytest.fixture
    def own(self, pgvector_server: str, folder: Path) -> Settings:
        (folder / "pgvector").write_text(pgvector_server, encoding="utf-8")
        return pgvector_settings(folder)

    @pytest.fixture
    def opened(self, own: Settings) -> Open:
        return lambda: open_pgvector(own)

    WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from core.stores.pgvector import open_store
from tests.contracts.test_vector_store import GENERATION, document, pgvector_settings, spelt

async def main():
    store = await open_store(pgvector_settings(Path(sys.argv[1])))
    for batch in itertools.count():
        pages = [f"tea {spelt(int(sys.argv[2]))} page"] * 4
        await store.put(GENERATION, [document(f"r{sys.argv[2]}-{batch}-{n}", *pages) for n in range(5)])
        print(batch + 1, flush=True)

asyncio.run(main())
"""


def pgvector_settings(folder: Path) -> Settings:
    """The address is in the folder, whose name is that of the tables' place."""
    namespace = "t" + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    url = SecretStr((folder / "pgvector").read_text(encoding="utf-8"))
    return Settings(data_dir=folder, pgvector=PgvectorSettings(url=url, namespace=namespace, connections=4))


class TestWeaviateStore(VectorStoreContract):
    @pytest.fixture
    async def own(self, weaviate_server: WeaviateSettings, folder: Path) -> AsyncIterator[Settings]:
        (folder / "weaviate.json").write_text(weaviate_server.model_dump_json(exclude={"api_key"}), encoding="utf-8")
        yield Settings(data_dir=folder, weaviate=weaviate_server)
        await empty(weaviate_server)

    @pytest.fixture
    def opened(self, own: Settings) -> Open:
        return lambda: open_weaviate(own)

    WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from core.settings import Settings, WeaviateSettings
from core.stores.weaviate import open_store
from tests.contracts.test_vector_store import GENERATION, document, spelt
from tests.weaviate_server import with_key

async def main():
    folder = Path(sys.argv[1])
    weaviate = with_key(WeaviateSettings.model_validate_json((folder / "weaviate.json").read_text()))
    store = await open_store(Settings(data_dir=folder, weaviate=weaviate))
    for batch in itertools.count():
        pages = [f"tea {spelt(int(sys.argv[2]))} page"] * 4
        await store.put(GENERATION, [document(f"r{sys.argv[2]}-{batch}-{n}", *pages) for n in range(5)])
        print(batch + 1, flush=True)

asyncio.run(main())
"""
