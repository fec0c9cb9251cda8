"""The composition root: reads settings, builds every part once, and closes them in turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import core.db.migrate
from core import registry, reindex, scheduled
from core.accounts import Accounts
from core.answer import Answers
from core.audit import Audit
from core.blobs import Blobs
from core.channels import Channels
from core.completion import Completions
from core.connections import Connections
from core.conversation import Conversations
from core.curated import Curated
from core.curated_match import CuratedMatch
from core.db.session import Database
from core.embedders.cache import CachedEmbedder
from core.errors import ConfigError, EmbedderUnavailable, KvasirError
from core.evaluations import Evaluations
from core.feedback import Feedback
from core.generations import Generations
from core.grants import Grants
from core.indexes import Indexes
from core.ingest import Ingest
from core.jobs import Job, Jobs
from core.knowledge import Knowledge
from core.leases import Leases
from core.loaders import media_type
from core.outbox import Outbox
from core.oidc import Oidc
from core.parse.pool import ParserPool
from core.people import People
from core.persons import Persons
from core.ports import Embedder, Engine, Reranker, VectorStore
from core.records import Records
from core.retrieve import Retriever
from core.scheduler import Scheduler
from core.schedules import Schedules
from core.settings import Settings
from core.splitters.structural import VERSION as SPLITTER_VERSION
from core.statistics import Statistics
from core.temporary import TemporaryBases
from core.texts import system_language, tell
from core.vault import Vault

logger = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
WhenEmbedder = Literal["wait", "background", "if_ready"]


@dataclass(slots=True)
class EmbedderState:
    """How far the embedder is; `reason` says in one sentence why it is not there."""

    ready: bool = False
    stage: str = ""
    progress: float = 0.0
    reason: str = ""


class EmbedderSlot:
    """Holds the embedder from when it is there; it may come later, while everything else works already."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.state = EmbedderState()
        self.embedder: Embedder | None = None

    def current(self) -> Embedder | None:
        return self.embedder

    def named(self, name: str | None) -> Embedder | None:
        return None if name == "" else self.embedder

    async def ready(self, name: str | None) -> Embedder | None:
        return self.named(name)

    def maker(self, fingerprint: str) -> Embedder | None:
        one = self.embedder
        return one if one is not None and one.info.fingerprint == fingerprint else None

    async def open(self, progress: Progress | None = None, *, fetch: bool = True) -> None:
        """Load it, fetching and building it first where need be; a failure is kept in `state`."""
        wanted = self._settings.embedder
        if wanted.kind == "none":
            self.state.reason = tell("embedder_off")
            return

        def follow(stage: str, done: float) -> None:
            self.state.stage, self.state.progress = stage, done
            if progress:
                progress(stage, done)

        settings = self._settings.model_copy(
            update={"embedder": wanted.model_copy(update={"fetch": wanted.fetch and fetch})}
        )
        open_embedder = registry.load("kvasir.embedders", wanted.kind)
        try:
            embedder: Embedder = await open_embedder(settings, follow)
        except EmbedderUnavailable as error:
            self.state.reason = str(error) if fetch else tell("embedder_not_fetched")
            if fetch:
                logger.warning("no embedder: %s", error)
            return
        self.use(CachedEmbedder(embedder, settings.data_dir / "embeddings.db") if wanted.cache else embedder)

    def use(self, embedder: Embedder) -> None:
        self.embedder, self.state.ready, self.state.reason = embedder, True, ""

    async def close(self) -> None:
        if self.embedder is not None:
            await self.embedder.close()


class Engines:
    """The engines by name, opened when first asked for."""

    def __init__(self, settings: Settings, slot: EmbedderSlot) -> None:
        self._settings = settings
        self._slot = slot
        self._open: dict[str, Engine] = {}
        self._lock = asyncio.Lock()

    async def get(self, name: str) -> Engine:
        async with self._lock:
            if name not in self._open:
                open_engine = registry.load("kvasir.engines", name)
                self._open[name] = await open_engine(self._settings, embedder=self._slot.current)
            return self._open[name]

    async def close(self) -> None:
        for engine in self._open.values():
            await engine.close()


class Rerankers:
    """The rerankers by name, opened when first asked for."""

    def __init__(self, settings: Settings, slot: EmbedderSlot) -> None:
        self._settings = settings
        self._slot = slot
        self._open: dict[str, Reranker] = {}
        self._lock = asyncio.Lock()

    async def get(self, name: str) -> Reranker:
        """Raises ConfigError where there is none of that name."""
        async with self._lock:
            if name not in self._open:
                open_reranker = registry.load("kvasir.rerankers", name)
                self._open[name] = await open_reranker(self._settings, embedder=self._slot.current)
            return self._open[name]

    async def close(self) -> None:
        for reranker in self._open.values():
            await reranker.close()


@dataclass(frozen=True)
class Kvasir:
    """Everything Kvasir can do, ready to use."""

    settings: Settings
    db: Database
    store: VectorStore
    knowledge: Knowledge
    grants: Grants
    temporary: TemporaryBases
    indexes: Indexes
    generations: Generations
    ingest: Ingest
    retriever: Retriever
    answers: Answers
    completions: Completions
    conversations: Conversations
    feedback: Feedback
    statistics: Statistics
    records: Records
    persons: Persons
    curated: Curated
    evaluations: Evaluations
    accounts: Accounts
    people: People
    oidc: Oidc
    channels: Channels
    connections: Connections
    outbox: Outbox
    vault: Vault
    audit: Audit
    jobs: Jobs
    leases: Leases
    schedules: Schedules
    scheduler: Scheduler
    engines: Engines
    embedder: EmbedderSlot

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        *,
        embedder: WhenEmbedder | Embedder = "if_ready",
        progress: Progress | None = None,
    ) -> AsyncIterator[Kvasir]:
        """Kvasir on the data of these settings; the database is brought up to date first.

        `embedder` says whether to wait for the model of the settings, or is one that is used instead and left open.
        """
        make_data_dir(settings)
        async with AsyncExitStack() as stack:
            db = Database(settings.database_url)
            stack.push_async_callback(db.close)
            await core.db.migrate.upgrade(db)
            store: VectorStore = await registry.load("kvasir.stores", settings.store.kind)(settings)
            stack.push_async_callback(store.close)
            slot = EmbedderSlot(settings)
            kvasir = await _build(stack, settings, db, store, slot)
            if isinstance(embedder, str):
                stack.push_async_callback(slot.close)
                await _start_embedder(stack, kvasir, embedder, progress)
            else:
                slot.use(embedder)
            yield kvasir

    @property
    def embedder_state(self) -> EmbedderState:
        return self.embedder.state

    async def run_job(self, job: Job) -> str | None:
        """Do the work of a claimed job; what came of it, where that can be said in a sentence.

        What can be scheduled has its line in `scheduled.KINDS`, and needs none here.
        """
        match job.kind:
            case "ingest":
                try:
                    await self.ingest.run(job)
                except KvasirError as error:
                    await self.ingest.give_up(job, str(error))
                    raise
            case "reindex" | "switch":
                return await reindex.run(self, job)
            case kind if kind in scheduled.KINDS:
                result = await scheduled.KINDS[kind].work(self, job)
                await self.schedules.note(job, result)
                return result
            case _:
                raise ConfigError(f"This version knows no job of kind «{job.kind}».")
        return None

    async def retry_job(self, job_id: str) -> None:
        """Queue a failed or cancelled job once more, with the documents it left unfinished."""
        await self.jobs.retry(job_id)
        await self.ingest.queue_failed(job_id)

    async def add_vectors(self) -> None:
        """Queue a re-index of every knowledge base that has no vectors though there is an embedder now."""
        waiting = {
            str(job.payload.get("kb"))
            for state in ("queued", "running")
            for job in await self.jobs.list(state=state, limit=1000)
            if job.kind == "reindex"
        }
        for kb in await self.knowledge.list(temporary=True):
            if not kb.vectors and kb.name not in waiting and await self.indexes.needs_reindex(kb.name):
                await self.jobs.add("reindex", {"kb": kb.name})


async def _build(
    stack: AsyncExitStack, settings: Settings, db: Database, store: VectorStore, slot: EmbedderSlot
) -> Kvasir:
    blobs = Blobs(settings.data_dir / "blobs")
    stack.callback(blobs.close)
    jobs = Jobs(db)
    knowledge = Knowledge(db, store, blobs, settings.splitter, _part_names)
    words = system_language() if settings.language == "auto" else settings.language
    parser = ParserPool(settings.ingest, words)
    stack.push_async_callback(parser.close)
    engines = Engines(settings, slot)
    stack.push_async_callback(engines.close)
    rerankers = Rerankers(settings, slot)
    stack.push_async_callback(rerankers.close)
    if settings.retrieval.reranker:
        await rerankers.get(settings.retrieval.reranker)  # one that cannot be had is told at the start
    indexes = Indexes(db, store, blobs, parser, slot, SPLITTER_VERSION)
    retriever = Retriever(store, slot.current, knowledge.live, settings.retrieval, rerankers.get)
    conversations = Conversations(db)
    temporary = TemporaryBases(db, store, settings.splitter)
    records = Records(db, temporary.delete)
    accounts = Accounts(db, settings)
    stack.push_async_callback(accounts.close)
    match = CuratedMatch(db, slot.current)
    leases = Leases(db)
    vault = Vault(settings.data_dir, settings.secret_key)
    schedules = Schedules(db, jobs, leases, scheduled.KINDS)
    answers = Answers(db, retriever, engines.get, settings, match)
    stack.push_async_callback(answers.close)
    ingest = Ingest(db, store, blobs, jobs, knowledge, indexes, parser, settings.ingest, media_type)
    return Kvasir(
        settings=settings,
        db=db,
        store=store,
        knowledge=knowledge,
        grants=Grants(db),
        temporary=temporary,
        indexes=indexes,
        generations=Generations(db, store, indexes),
        ingest=ingest,
        retriever=retriever,
        answers=answers,
        completions=Completions(engines.get, lambda: registry.names("kvasir.engines"), settings.answer),
        conversations=conversations,
        feedback=Feedback(db),
        statistics=Statistics(db),
        records=records,
        persons=Persons(db, records, blobs, temporary.delete),
        evaluations=Evaluations(db, answers, knowledge, jobs),
        curated=Curated(db, ingest, jobs, knowledge, match.remember),
        accounts=accounts,
        people=People(db, accounts),
        oidc=Oidc(db, settings.oidc),
        channels=Channels(db, settings.channels, lambda: registry.names("kvasir.engines")),
        connections=Connections(db, vault, settings, _platforms, partial(registry.load, "kvasir.checks")),
        outbox=Outbox(db),
        vault=vault,
        audit=Audit(db),
        jobs=jobs,
        leases=leases,
        schedules=schedules,
        scheduler=Scheduler(schedules, leases),
        engines=engines,
        embedder=slot,
    )


def _platforms() -> list[str]:
    """Those that people talk on from outside; the terminal is a person's own."""
    return [name for name in registry.names("kvasir.platforms") if name != "terminal"]


async def _part_names(kind: str) -> list[str]:
    """Names of the engines, embedders or rerankers there are."""
    return registry.names(f"kvasir.{kind}s")


async def _start_embedder(stack: AsyncExitStack, kvasir: Kvasir, when: WhenEmbedder, progress: Progress | None) -> None:
    slot = kvasir.embedder
    if when == "wait":
        await slot.open(progress)
        return
    await slot.open(fetch=False)
    if when == "if_ready":
        return

    async def later() -> None:
        try:
            if not slot.state.ready:
                await slot.open(progress)
            if slot.state.ready:  # also where another process fetched it, for what came in before that
                await kvasir.add_vectors()
        except KvasirError as error:
            slot.state.reason = slot.state.reason or str(error)
            logger.warning("no vectors yet: %s", error)
        except Exception:
            logger.exception("the embedder could not be opened")

    task = asyncio.create_task(later(), name="embedder")
    stack.push_async_callback(_end, task)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def make_data_dir(settings: Settings) -> None:
    """Make the folder, closed to other users of the machine. Raises ConfigError where it cannot be."""
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # what people ask is nobody else's
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(tell("data_dir_refused", folder=settings.data_dir, reason=reason)) from error
