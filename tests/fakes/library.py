"""Everything between bytes and an index, with a small embedder and a parser in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from core.answering.retrieve import Retriever
from core.blobs import Blobs
from core.db.session import Database
from core.indexing.bulk import Bulk
from core.indexing.chunks import Chunks
from core.indexing.indexes import Indexes
from core.indexing.ingest import Incoming, Ingest, Outcome, Ticket
from core.indexing.storage import Opener, Stores
from core.indexing.versions import Versions
from core.kb.documents import Documents
from core.kb.grants import Grants
from core.kb.knowledge import Knowledge
from core.kb.temporary import TemporaryBases
from core.loaders import media_type
from core.ports import Embedder, ParseResult, ParseTask, VectorStore
from core.settings import IngestSettings, Settings, load
from core.splitters.counting import token_counter
from core.splitters.structural import VERSION
from core.stores.local import open_store
from core.types import Generation
from core.work.jobs import Job, Jobs, run_job
from tests.databases import put_sqlite
from tests.fakes.embedder import HashEmbedder, OneEmbedder
from tests.fakes.parser import InProcessParser


class WatchedParser(InProcessParser):
    """Lets a test look, wait or fail before a group of files is read."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[Sequence[ParseTask]], Awaitable[None]] | None = None
        self.read: list[str] = []
        """Names of the documents that were read, in order."""

    async def parse(self, tasks: Sequence[ParseTask]) -> AsyncIterator[tuple[int, ParseResult]]:
        if self.before is not None:
            await self.before(tasks)
        async for index, result in super().parse(tasks):
            self.read.append(tasks[index].name)
            yield index, result


class Library:
    """Knowledge bases on one data directory; a second one on the same directory stands for another process."""

    def __init__(self, settings: Settings, db: Database, store: VectorStore, embedder: Embedder | None) -> None:
        self.settings, self.db, self.store, self.embedder = settings, db, store, embedder
        self.blobs = Blobs(settings.data_dir / "blobs")
        self.jobs = Jobs(db)
        self.parser = WatchedParser()
        self.knowledge = Knowledge(db, store, self.blobs, settings.splitter)
        self.grants = Grants(db)
        self.temporary = TemporaryBases(db, store, settings.splitter)
        self.indexes = Indexes(db, store, self.blobs, self.parser, OneEmbedder(lambda: self.embedder), VERSION)
        self.retriever = Retriever(store, lambda: self.embedder, self.knowledge.live, settings.retrieval)
        self.ingest = self.with_limits()
        self.documents = Documents(db, self.knowledge, settings.ingest)
        self.bulk = Bulk(db, store, self.jobs, self.knowledge, settings.ingest)
        self.versions = Versions(db, self.blobs, self.jobs, settings.ingest, media_type)
        embedders = OneEmbedder(lambda: self.embedder)
        self.chunks = Chunks(db, store, self.jobs, embedders, token_counter)

    def with_limits(self, **limits: int) -> Ingest:
        """Ingestion under other limits than the settings'."""
        settings = IngestSettings(**limits) if limits else self.settings.ingest  # type: ignore[arg-type]  # all are int
        return Ingest(
            self.db, self.store, self.blobs, self.jobs, self.knowledge, self.indexes, self.parser, settings, media_type
        )

    async def submit(self, kb: str, files: Mapping[str, str | bytes], *, claimed: bool = False) -> Ticket:
        await self.knowledge.get_or_create(kb)
        return await self.ingest.submit(kb, incoming(files), claimed=claimed)

    async def bring(self, kb: str, files: Mapping[str, str | bytes]) -> dict[str, Outcome]:
        """Ingest these files; how each came out, by name."""
        ticket = await self.submit(kb, files, claimed=True)
        await run_job(self.jobs, ticket.job, self.work)
        ended = [*ticket.refused, *ticket.unchanged, *await self.ingest.outcomes(ticket.job.id)]
        return {outcome.name: outcome for outcome in ended}

    async def work(self, job: Job) -> None:
        if job.kind == "reindex":
            await self.indexes.reindex(str(job.payload["kb"]))
        else:
            await self.ingest.run(job)

    async def do(self, job: Job) -> None:
        """Work a claimed job off."""
        await run_job(self.jobs, job, self.work)

    async def work_off(self) -> int:
        """Do all queued jobs; gives their number."""
        done = 0
        while (job := await self.jobs.claim()) is not None:
            await run_job(self.jobs, job, self.work)
            done += 1
        return done

    async def found(self, kb: str, query: str, limit: int = 10) -> list[str]:
        """Names of the documents that a search finds, best first."""
        result = await self.retriever.retrieve(query, [kb], limit=limit)
        return list(dict.fromkeys(passage.document for passage in result.passages))

    async def live(self, kb: str) -> Generation:
        (found,) = await self.knowledge.live([kb])
        return found.generation

    async def texts(self, kb: str) -> dict[str, str]:
        """What the live index holds: each document's text, by name."""
        generation = await self.live(kb)
        rows, _ = await self.knowledge.documents(kb, limit=10_000)
        names = {row.id: row.name for row in rows}
        found = {}
        for document_id, _, _ in await self.store.documents(generation):
            chunks = await self.store.chunks(generation, document_id)
            found[names.get(document_id, f"? {document_id}")] = "\n".join(chunk.text for chunk in chunks)
        return found

    async def agrees(self, kb: str) -> bool:
        """Whether database and index count the same documents and chunks."""
        base = await self.knowledge.get(kb)
        count = await self.store.count(await self.live(kb))
        return (base.documents, base.chunks) == (count.documents, count.chunks)


async def incoming(files: Mapping[str, str | bytes]) -> AsyncIterator[Incoming]:
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        yield Incoming(name, lambda data=data: data)  # type: ignore[misc]  # a default binds the value of this turn


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    """An upload as it streams in."""
    for piece in data:
        await asyncio.sleep(0)
        yield piece


@asynccontextmanager
async def opened_library(
    folder: Path,
    url: str = "",
    embedder: Embedder | None = None,
    *,
    keywords_only: bool = False,
    others: Opener | None = None,
) -> AsyncIterator[Library]:
    """`others` opens stores beside `local`."""
    settings = load(data_dir=folder)
    folder.mkdir(exist_ok=True)
    db = Database(url or await put_sqlite(folder / "kvasir.db"))
    local = await open_store(settings)
    store = Stores("local", local, others) if others else local
    library = Library(settings, db, store, None if keywords_only else embedder or HashEmbedder())
    try:
        yield library
    finally:
        library.blobs.close()
        await store.close()
        await db.close()
