"""What can be set for a knowledge base: every setting comes back as it was given, and nonsense changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.errors import TooLarge, UserError
from core.kb.kb_settings import FIELDS
from core.kb.knowledge import Knowledge
from tests.fakes.library import Library, incoming, opened_library

pytestmark = pytest.mark.anyio

ALL: dict[str, Any] = {
    "description": "Of tides.", "instructions": "Answer like a sailor.", "private": True, "title_enhance": False,
    "chunk_size": 100, "chunk_overlap": 10, "mode": "keyword", "top_k": 3, "dense_weight": 0.25, "min_evidence": 0,
    "max_documents": 7, "max_mb": 2, "engine": "openai", "embedder": "", "reranker": "sentences",
    "fallbacks": ["openai", "extractive"],
    "sampling": ["temperature=0.2!", "top_k=40", "stop+=END"],
}  # fmt: skip
DEFAULTS = dict.fromkeys(("mode", "top_k", "dense_weight", "min_evidence", "max_documents", "max_mb", "engine",
                          "embedder", "reranker", "instructions", "fallbacks", "sampling"))  # fmt: skip


@pytest.fixture
async def library(tmp_path: Path, database_url: str) -> AsyncIterator[Library]:
    async with opened_library(tmp_path / "data", database_url) as library:
        yield library


async def values(library: Library) -> dict[str, Any]:
    kb = await library.knowledge.get("kb")
    return {field: getattr(kb, "wanted_embedder" if field == "embedder" else field) for field in FIELDS}


async def test_every_setting_comes_back_and_none_is_the_default_again(library: Library) -> None:
    assert set(ALL) == set(FIELDS)
    await library.knowledge.create("kb")
    before = await values(library)
    await library.knowledge.change("kb", **ALL)
    assert await values(library) == ALL
    await library.knowledge.change("kb", **DEFAULTS)
    assert await values(library) == ALL | DEFAULTS
    assert {key: before[key] for key in DEFAULTS} == DEFAULTS
    await library.knowledge.delete("kb")
    await library.knowledge.create("kb", **ALL)
    assert await values(library) == ALL


NONSENSE: Sequence[dict[str, Any]] = [
    {"top_k": 0}, {"top_k": 51}, {"top_k": 2.5}, {"top_k": "3"}, {"top_k": True}, {"dense_weight": 1.01},
    {"min_evidence": -0.1}, {"max_documents": 0}, {"max_mb": 0}, {"mode": "best"}, {"private": "no"},
    {"private": None}, {"description": 1}, {"description": "a" * 2001}, {"instructions": "a" * 20_001},
    {"chunk_size": 31}, {"chunk_size": None}, {"chunk_overlap": 60}, {"engine": 5}, {"id": "x"},
    {"min_evidence": float("nan")}, {"expires_at": None}, {"fallbacks": "openai"}, {"fallbacks": [5]},
    {"sampling": "temperature=1"}, {"sampling": ["warmth=1"]}, {"sampling": ["top_p+=1"]}, {"sampling": ["seed=x"]},
    {"sampling": ["temperature=nan"]}, {"sampling": ["stop="]}, {"sampling": [f"stop+={n}" for n in range(5)]},
    {"fallbacks": [""]}, {"fallbacks": [f"engine {number}" for number in range(6)]},
]  # fmt: skip


async def test_nonsense_changes_nothing(library: Library) -> None:
    await library.knowledge.create("kb", chunk_size=100, chunk_overlap=10)
    before = await values(library)
    for nonsense in NONSENSE:
        with pytest.raises(UserError):
            await library.knowledge.change("kb", **{"description": "New"} | nonsense)
        assert await values(library) == before, nonsense


async def test_only_parts_that_are_there_can_be_named(library: Library) -> None:
    async def parts(kind: str) -> Sequence[str]:
        return {"engine": ["extractive"], "embedder": ["builtin"]}.get(kind, [])

    knowledge = Knowledge(library.db, library.store, library.blobs, library.settings.splitter, parts)
    await knowledge.create("kb", engine="extractive", embedder="builtin")
    for field in ("engine", "embedder", "reranker"):
        with pytest.raises(UserError, match="absent"):
            await knowledge.change("kb", **{field: "absent"})
    with pytest.raises(UserError, match="absent"):
        await knowledge.change("kb", fallbacks=["extractive", "absent"])
    assert (await knowledge.change("kb", embedder="", engine=None)).wanted_embedder == ""


async def test_a_quota_of_its_own_goes_below_that_of_the_settings(library: Library) -> None:
    await library.bring("kb", {"a.md": "# A\n\nText.", "b.md": "# B\n\nText."})
    await library.knowledge.change("kb", max_documents=2)
    with pytest.raises(TooLarge, match="2 documents"):
        await library.ingest.submit("kb", incoming({"c.md": "# C\n\nText."}))
    await library.knowledge.change("kb", max_documents=3, max_mb=1)
    with pytest.raises(TooLarge, match="1 MB"):
        await library.ingest.submit("kb", incoming({"c.md": "c" * (1 << 20)}))
    assert (await library.bring("kb", {"c.md": "# C\n\nText."}))["c.md"].status == "indexed"
    with pytest.raises(TooLarge, match=r"ingest\.max_documents"):
        await library.with_limits(max_documents=2).submit("kb", incoming({"d.md": "# D\n\nText."}))


async def test_it_counts_what_waits_what_failed_and_all_bytes(library: Library) -> None:
    files = {"a.md": b"# A\n\nText.", "b.pdf": b"%PDF-1.4 broken"}
    await library.bring("kb", files)
    await library.submit("kb", {"c.md": "# C"})
    kb = await library.knowledge.get("kb")
    sizes = sum(map(len, files.values())) + len("# C")
    assert (kb.documents, kb.waiting, kb.failed, kb.size) == (1, 1, 1, sizes)
