"""The composition root: reads settings, builds every part once, and closes them in turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import core.db.migrate
from core import registry, scheduled
from core.answer import Answers
from core.answering.completion import Completions
from core.answering.conversation import Conversations
from core.answering.curated_match import CuratedMatch
from core.answering.retrieve import Retriever
from core.blobs import Blobs, open_blobs
from core.chats.channels import Channels
from core.chats.connections import Connections
from core.chats.outbox import Outbox
from core.chats.places import Places
from core.db.session import Database
from core.errors import ConfigError, KvasirError
from core.identity.accounts import Accounts
from core.identity.audit import Audit
from core.identity.oidc import Oidc
from core.identity.people import People
from core.indexing import reindex
from core.indexing.bulk import Bulk
from core.indexing.chunks import Chunks
from core.indexing.generations import Generations
from core.indexing.indexes import Indexes
from core.indexing.ingest import Ingest
from core.indexing.moving import Moving, settle
from core.indexing.storage import Stores, is_set_up
from core.indexing.versions import Versions
from core.inference import modellog
from core.inference.embedding import Embedders, EmbedderSlot, EmbedderState
from core.inference.models import Models
from core.inference.running import Engines, Rerankers
from core.inference.sections import KINDS
from core.kb.documents import Documents
from core.kb.grants import Grants
from core.kb.knowledge import Knowledge
from core.kb.temporary import TemporaryBases
from core.loaders import media_type
from core.loaders.kinds import SUFFIXES
from core.opening import Adapters, Opener, open_added_embedder, open_embedder
from core.parse.pool import ParserPool
from core.ports import Embedder, VectorStore
from core.quality.curated import Curated
from core.quality.evaluations import Evaluations
from core.quality.feedback import Feedback
from core.quality.gaps import Gaps
from core.quality.records import Records
from core.quality.reviews import Reviews
from core.quality.statistics import Statistics
from core.settings import Settings
from core.sources.register import Sources
from core.splitters.counting import token_counter
from core.splitters.structural import VERSION as SPLITTER_VERSION
from core.texts import system_language, tell
from core.upkeep import archive
from core.upkeep.archive import Restored
from core.upkeep.archive_index import OnDocuments
from core.upkeep.persons import Persons
from core.upkeep.removal import Removal
from core.vault import Vault
from core.work.folder import OneFolder
from core.work.jobs import Job, Jobs, run_job
from core.work.leases import Leases
from core.work.limits import Limits
from core.work.presence import Presence
from core.work.scheduler import Scheduler
from core.work.schedules import Schedules

logger = logging.getLogger(__name__)

_AT_ONCE_SECONDS = 15.0

Progress = Callable[[str, float], None]
_MODELS_PAUSE = 10.0
WhenEmbedder = Literal["wait", "background", "if_ready", "never"]
"""When the embedder of the settings is opened; `never`: what asks for no passage does without its half second."""


@dataclass(frozen=True)
class Kvasir:
    """Everything Kvasir can do, ready to use."""

    settings: Settings
    db: Database
    store: Stores
    blobs: Blobs
    moving: Moving
    knowledge: Knowledge
    grants: Grants
    temporary: TemporaryBases
    indexes: Indexes
    generations: Generations
    ingest: Ingest
    documents: Documents
    bulk: Bulk
    versions: Versions
    chunks: Chunks
    retriever: Retriever
    answers: Answers
    completions: Completions
    conversations: Conversations
    feedback: Feedback
    statistics: Statistics
    records: Records
    removal: Removal
    persons: Persons
    curated: Curated
    reviews: Reviews
    gaps: Gaps
    evaluations: Evaluations
    accounts: Accounts
    people: People
    oidc: Oidc
    channels: Channels
    connections: Connections
    outbox: Outbox
    places: Places
    vault: Vault
    audit: Audit
    jobs: Jobs
    leases: Leases
    folder: OneFolder
    presence: Presence
    limits: Limits
    schedules: Schedules
    scheduler: Scheduler
    sources: Sources
    adapters: Adapters
    models: Models
    engines: Engines
    rerankers: Rerankers
    embedder: Embedders

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
            db = Database(settings.database_url, settings.database)
            stack.push_async_callback(db.close)
            await core.db.migrate.upgrade(db)
            store = await Stores.open(settings.store.kind, partial(_open_store, settings))
            stack.push_async_callback(store.close)
            await store.prepare(await settle(db, settings.store.kind))
            stack.enter_context(modellog.listening())
            slot = EmbedderSlot(settings, open_embedder)
            kvasir = await _build(stack, settings, db, store, slot)
            await kvasir.folder.check()
            if isinstance(embedder, str):
                stack.push_async_callback(slot.close)
                await _start_embedder(stack, kvasir, embedder, progress)
            else:
                slot.use(embedder)
            yield kvasir

    def with_settings(self, settings: Settings) -> Kvasir:
        """The same parts under other settings, for what reads those of a platform."""
        return replace(self, settings=settings)

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
            case "reindex" | "switch" | "move":
                return await reindex.run(self, job)
            case kind if kind in scheduled.KINDS:
                result = await scheduled.KINDS[kind].work(self, job)
                await self.schedules.note(job, result)
                return result
            case _:
                raise ConfigError(f"This version knows no job of kind «{job.kind}».")
        return None

    async def stores_set_up(self) -> list[str]:
        """Kinds of the stores that an index can be in here: those of the settings, and those that hold one."""
        held = await self.moving.kinds()
        return [kind for kind in registry.names("kvasir.stores") if kind in held or is_set_up(self.settings, kind)]

    async def mirror_live(self) -> None:
        """Let stores that show which indexes are live know it. Raises StoreUnavailable."""
        names = [base.name for base in await self.knowledge.list(temporary=True)]
        await self.store.mirror([one.generation for one in await self.knowledge.live(names)])

    async def at_once(self, job: Job) -> None:
        """Do a job that this process has claimed; one that takes long is left to the queue."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_AT_ONCE_SECONDS):
                await run_job(self.jobs, job, self.run_job)

    async def cancel_job(self, job_id: str) -> None:
        """Stop a job that waits or runs; the documents it was to bring in end as failed. Raises NotFound, Conflict."""
        await self.jobs.cancel(job_id)
        await self.ingest.give_up(await self.jobs.get(job_id), tell("document_cancelled"))

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


async def _build(stack: AsyncExitStack, settings: Settings, db: Database, store: Stores, slot: EmbedderSlot) -> Kvasir:
    blobs = open_blobs(settings)
    stack.callback(blobs.close)
    jobs = Jobs(db)
    adapters = Adapters()
    vault = Vault(settings.data_dir, settings.secret_key)
    models = Models(db, vault, settings, adapters.names)
    await models.refresh()
    embedders = Embedders(settings, models, slot, open_added_embedder)
    stack.push_async_callback(embedders.close)
    knowledge = Knowledge(db, store, blobs, settings.splitter, partial(_part_names, models))
    words = system_language() if settings.language == "auto" else settings.language
    parser = ParserPool(settings.ingest, words)
    stack.push_async_callback(parser.close)
    opener = Opener(embedders.current)
    engines = Engines(models, opener.engine)
    stack.push_async_callback(engines.close)
    rerankers = Rerankers(models, opener.reranker)
    stack.push_async_callback(rerankers.close)
    if settings.retrieval.reranker:
        await rerankers.get(settings.retrieval.reranker)  # one that cannot be had is told at the start
    indexes = Indexes(db, store, blobs, parser, embedders, SPLITTER_VERSION, settings.store.kind)
    retriever = Retriever(store, embedders.current, knowledge.live, settings.retrieval, rerankers.get, embedders.maker)
    conversations = Conversations(db)
    temporary = TemporaryBases(db, store, settings.splitter)
    removal = Removal(db, temporary.delete)
    accounts = Accounts(db, settings)
    stack.push_async_callback(accounts.close)
    leases = Leases(db)
    presence = Presence(db)
    schedules = Schedules(db, jobs, leases, scheduled.KINDS)
    answers = Answers(db, retriever, engines.get, settings, CuratedMatch(db), models.house)
    stack.push_async_callback(answers.close)
    ingest = Ingest(db, store, blobs, jobs, knowledge, indexes, parser, settings.ingest, media_type)
    return Kvasir(
        settings=settings,
        db=db,
        store=store,
        blobs=blobs,
        moving=Moving(db, store, indexes, settings.store.kind),
        knowledge=knowledge,
        grants=Grants(db),
        temporary=temporary,
        indexes=indexes,
        generations=Generations(db, store, indexes),
        ingest=ingest,
        documents=Documents(db, knowledge, settings.ingest),
        bulk=Bulk(db, store, jobs, knowledge, settings.ingest),
        versions=Versions(db, blobs, jobs, settings.ingest, media_type),
        chunks=Chunks(db, store, jobs, embedders, token_counter),
        retriever=retriever,
        answers=answers,
        completions=Completions(engines.get, partial(models.names, "engine"), settings.answer),
        conversations=conversations,
        feedback=Feedback(db),
        statistics=Statistics(db),
        records=Records(db),
        removal=removal,
        persons=Persons(db, removal, blobs, temporary.delete),
        evaluations=Evaluations(db, answers, knowledge, jobs),
        curated=Curated(db, ingest, jobs, knowledge),
        reviews=Reviews(db),
        gaps=Gaps(db, embedders.current),
        accounts=accounts,
        people=People(db, accounts),
        oidc=Oidc(db, settings.oidc),
        channels=Channels(db, settings.channels, partial(models.names, "engine")),
        connections=Connections(db, vault, settings, _platforms, partial(registry.load, "kvasir.checks")),
        outbox=Outbox(db),
        places=Places(db),
        vault=vault,
        audit=Audit(db),
        jobs=jobs,
        leases=leases,
        folder=OneFolder(db, leases, settings),
        presence=presence,
        limits=Limits(db, presence),
        schedules=schedules,
        scheduler=Scheduler(schedules, leases),
        sources=Sources(db, jobs, knowledge, schedules, vault, settings, SUFFIXES),
        adapters=adapters,
        models=models,
        engines=engines,
        rerankers=rerankers,
        embedder=embedders,
    )


async def restore(settings: Settings, file: Path, on_documents: OnDocuments = lambda _done, _total: None) -> Restored:
    """As `archive.restore`, with the stores that are installed."""
    return await archive.restore(settings, file, _open_store, on_documents)


async def _open_store(settings: Settings, kind: str) -> VectorStore:
    store: VectorStore = await registry.load("kvasir.stores", kind)(settings)
    return store


def _platforms() -> list[str]:
    """Those that people talk on from outside; the terminal is a person's own."""
    return [name for name in registry.names("kvasir.platforms") if name != "terminal"]


async def _part_names(models: Models, kind: str) -> list[str]:
    """Names of the engines, embedders or rerankers there are."""
    return [name for one in KINDS if one == kind for name in models.names(one)]


async def _start_embedder(stack: AsyncExitStack, kvasir: Kvasir, when: WhenEmbedder, progress: Progress | None) -> None:
    slot = kvasir.embedder.slot
    if when == "never":
        return
    if when == "wait":
        await slot.open(progress)
    else:
        await slot.open(fetch=False)
    if when == "if_ready":
        return
    following = asyncio.create_task(_keep_open(kvasir), name="models")
    stack.push_async_callback(_end, following)
    if when == "wait":
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


async def _keep_open(kvasir: Kvasir) -> None:
    """Hear of changes of models, and have those that were added open; one that fails is tried again."""
    opening: dict[str, asyncio.Task[None]] = {}

    async def engines() -> None:
        await kvasir.engines.open_added()

    async def embedders() -> None:
        if await kvasir.embedder.open_added():
            await kvasir.add_vectors()

    async def begin() -> None:
        """In the background: a model may load for minutes, and changes are to be heard meanwhile."""
        for work in (engines, embedders):
            former = opening.get(work.__name__)
            if former is None or former.done():
                opening[work.__name__] = asyncio.create_task(_opened(work()), name=f"open-{work.__name__}")

    try:
        while True:
            try:
                await kvasir.models.watch(begin)
            except Exception:  # the outermost loop of what keeps models open
                logger.exception("changes of models were not heard of")
            await asyncio.sleep(_MODELS_PAUSE)
    finally:
        for task in opening.values():
            await _end(task)


async def _opened(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except KvasirError as error:
        logger.info("models could not be opened: %s", error)
    except Exception:  # the outermost of what opens models
        logger.exception("models could not be opened")


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
