"""A small knowledge base in a real store, for the tests of what searches and answers."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from core.analyzer import tokens
from core.answering.retrieve import LiveKb
from core.ports import Embedder
from core.sentences import sentences
from core.stores.local import LocalStore
from core.types import Chunk, Generation, IndexedDocument, Locator, Passage

ENGLISH = {
    "travel.md": (
        "Travel",
        "Book trains through the travel desk. Hotels may cost up to 140 euros a night. Keep receipts.",
    ),
    "leave.md": (
        "Holidays",
        "Everyone has 28 days of holiday a year. Parents get 16 weeks of leave when a child is born.",
    ),
    "office.md": (
        "Office",
        "The office opens at seven. Dr. Lind keeps the keys of the archive in room 12. Bikes stay outside.",
    ),
    "security.md": (
        "Security",
        "Passwords have fourteen characters or more. Report a lost laptop to the help desk within an hour.",
    ),
    "food.md": ("Canteen", "The canteen serves lunch from noon. On Fridays there is fish. Visitors pay nine euros."),
    "history.md": ("Company history", "Ada Berg founded the company in 1998. It moved to Bergen in 2005 after a fire."),
}
CHINESE = {
    "出差.md": ("出差", "出差请通过差旅部订票。酒店每晚不得超过八百元。请保留发票。"),
    "休假.md": ("休假", "员工每年有二十八天年假。生育孩子的父母有十六周假期。"),
    "办公室.md": ("办公室", "办公室早上七点开门。林博士在十二号房间保管档案室的钥匙。"),
    "食堂.md": ("食堂", "食堂中午开始供应午餐。每周五供应鱼。访客需要付九元。"),
}


def chunk(title: str, text: str, number: int = 0, headings: tuple[str, ...] = ()) -> Chunk:
    return Chunk(
        number=number,
        text=text,
        tokens=" ".join(tokens(" ".join((title, *headings))) + tokens(text)),
        content_hash=hashlib.sha256(text.encode()).hexdigest(),
        headings=headings,
        embed_text=f"{title}\n{text}",
    )


def passage(text: str, *, title: str = "", document: str = "a.md", score: float = 0.5, kb: str = "kb") -> Passage:
    return Passage(kb, document, document, title, 0, text, (), Locator(), score)


async def indexed(texts: Mapping[str, tuple[str, str]], embedder: Embedder | None) -> list[IndexedDocument]:
    documents = []
    for name, (title, text) in texts.items():
        chunks = (chunk(title, text),)
        vectors = await embedder.embed_documents([one.embed_text for one in chunks]) if embedder else None
        documents.append(IndexedDocument(f"id-{name}", name, title, name, chunks, vectors))
    return documents


class Library:
    """Knowledge bases by name in one local store."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store
        self.live_kbs: dict[str, LiveKb] = {}

    async def add(self, name: str, texts: Mapping[str, tuple[str, str]], embedder: Embedder | None = None) -> LiveKb:
        info = embedder.info if embedder else None
        generation = Generation(
            id=hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(),
            kb_id=name,
            fingerprint="test",
            dimension=info.dimension if info else 0,
            embedder=info.fingerprint if info else "",
        )
        await self.store.ensure_generation(generation)
        await self.store.put(generation, await indexed(texts, embedder))
        self.live_kbs[name] = LiveKb(name, generation)
        return self.live_kbs[name]

    async def live(self, names: Sequence[str]) -> Sequence[LiveKb]:
        return [self.live_kbs[name] for name in names]


@asynccontextmanager
async def library(folder: Path) -> AsyncIterator[Library]:
    store = LocalStore(folder / "index.db", cache_mb=16)
    await store.open()
    try:
        yield Library(store)
    finally:
        await store.close()


def sentences_of(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]
