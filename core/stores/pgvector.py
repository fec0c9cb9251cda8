"""The `pgvector` store: chunks, vectors and postings in PostgreSQL, each change and each search in one transaction.

Vectors are compared exactly; in an index of very many chunks pgvector's own HNSW index finds them. BM25 is ours, with
the formula, the statistics and the terms of the `local` store.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from sqlalchemy import URL

from core.db.session import checked_url
from core.errors import ConfigError, KvasirError, MissingExtra, StoreUnavailable, UserError
from core.ports import QueryVector
from core.settings import PgvectorSettings, Settings
from core.stores import pgvector_writing as writing
from core.stores.asked import asked_vector
from core.stores.counting import counted
from core.stores.pgvector_search import CHUNK, Wanted, chunk_of, search
from core.stores.pgvector_tables import (
    LAST_CHUNK,
    MOST_INDEXED_DIMENSIONS,
    SCHEMA,
    decode_vector,
    encode_vector,
    given,
    kept,
)
from core.texts import tell
from core.types import Chunk, Filter, Generation, IndexedDocument, SearchResult, StoreCount

logger = logging.getLogger(__name__)

_TABLES_LOCK: Final = 0x6B76_6173  # one process at a time makes tables
_CLOSE_SECONDS: Final = 5.0
_SESSION: Final = {
    "application_name": "kvasir",
    "plan_cache_mode": "force_custom_plan",  # else a plan may not see which partial index it can use
    "jit": "off",  # it takes longer than the searches that it is for
    "hnsw.ef_search": "200",
    "hnsw.iterative_scan": "strict_order",
}

T = TypeVar("T")
Work = Callable[[Any], Awaitable[T]]


async def open_store(settings: Settings) -> PgvectorStore:
    """The store in the PostgreSQL of the settings, its tables made where they are missing.

    Raises ConfigError, MissingExtra or StoreUnavailable.
    """
    store = PgvectorStore(address(settings), settings.pgvector)
    await store.open()
    return store


def address(settings: Settings) -> URL:
    """Of the section, else of the database. Raises ConfigError where that is no PostgreSQL."""
    own = settings.pgvector.url
    url = checked_url(own.get_secret_value() if own and own.get_secret_value() else settings.database_url)
    if url.get_backend_name() != "postgresql":
        raise ConfigError(tell("pgvector_needs_postgres"))
    return url.set(drivername="postgresql")


class PgvectorStore:
    def __init__(self, url: URL, settings: PgvectorSettings) -> None:
        if importlib.util.find_spec("asyncpg") is None:
            raise MissingExtra("PostgreSQL", "postgres")
        self._url = url
        self._settings = settings
        self._schema = settings.namespace
        self._pool: Any = None
        self._indexing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        import asyncpg  # late: it is an extra

        seconds = self._settings.seconds
        dsn = self._url.render_as_string(hide_password=False)
        with Meaning(self._url):
            connection = await asyncpg.connect(dsn, timeout=seconds, command_timeout=seconds)
            try:
                path = await self._prepare(connection)
            finally:
                await connection.close(timeout=_CLOSE_SECONDS)
            self._pool = await asyncpg.create_pool(
                dsn,
                min_size=0,
                max_size=self._settings.connections,
                timeout=seconds,
                command_timeout=seconds,
                server_settings={**_SESSION, "search_path": path},
                init=_with_vectors,
            )

    async def close(self) -> None:
        for task in self._indexing:
            task.cancel()
        if self._indexing:
            await asyncio.wait(self._indexing)
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), _CLOSE_SECONDS)
            except TimeoutError:
                self._pool.terminate()

    async def ensure_generation(self, generation: Generation) -> None:
        sql = (
            f"INSERT INTO {self._schema}.generations (key, kb, fingerprint, dimension) VALUES ($1, $2, $3, $4)"  # noqa: S608
            " ON CONFLICT (key) DO NOTHING"
        )
        values = (generation.id, generation.kb_id, generation.fingerprint, generation.dimension)
        await self._run(lambda connection: connection.execute(sql, *values))

    async def drop_generation(self, generation: Generation) -> None:
        number = await self._write(lambda connection: writing.drop(connection, self._schema, generation))
        if number is not None:
            await self._run(lambda connection: connection.execute(_unindexed(self._schema, number)))

    async def put(self, generation: Generation, documents: Sequence[IndexedDocument]) -> None:
        prepared = await asyncio.to_thread(writing.prepare, generation, documents)
        chunks = await self._write(lambda connection: writing.put(connection, self._schema, generation, prepared))
        if chunks >= self._settings.hnsw_from and 0 < generation.dimension <= MOST_INDEXED_DIMENSIONS:
            self._index_soon(generation)

    async def delete(self, generation: Generation, document_ids: Sequence[str]) -> None:
        await self._write(lambda connection: writing.delete(connection, self._schema, generation, document_ids))

    async def search(
        self,
        generation: Generation,
        *,
        vector: QueryVector,
        tokens: Sequence[str],
        limit: int,
        filter: Filter | None = None,
    ) -> SearchResult:
        wanted = Wanted(await asked_vector(generation, vector), tokens, limit, filter)
        return await self._look(lambda connection: search(connection, self._schema, generation, wanted))

    async def chunks(self, generation: Generation, document_id: str) -> Sequence[Chunk]:
        sql = (
            f"SELECT {CHUNK} FROM {self._schema}.generations g"  # noqa: S608 - names of ours
            f" JOIN {self._schema}.documents d ON d.generation = g.number AND d.key = $2"
            f" JOIN {self._schema}.chunks c ON c.id BETWEEN d.number << 20 AND (d.number << 20) + {LAST_CHUNK}"
            " WHERE g.key = $1 ORDER BY c.id"
        )
        rows = await self._run(lambda connection: connection.fetch(sql, generation.id, kept(document_id)))
        return [chunk_of(*row) for row in rows]

    async def read(self, generation: Generation, document_ids: Sequence[str]) -> Sequence[IndexedDocument]:
        return await self._look(lambda connection: writing.read(connection, self._schema, generation, document_ids))

    async def documents(self, generation: Generation) -> Sequence[tuple[str, str, int]]:
        rows = await self._run(lambda connection: connection.fetch(self._documents(), generation.id))
        return [(given(key), given(content_hash), chunks) for key, content_hash, chunks in rows]

    async def count(self, generation: Generation) -> StoreCount:
        """Counted from the rows themselves, so that it tells what is there."""
        sql = (
            f"SELECT d.key, c.id, c.content_hash FROM {self._schema}.generations g"  # noqa: S608 - names of ours
            f" JOIN {self._schema}.entries e ON e.generation = g.number JOIN {self._schema}.chunks c ON c.id = e.id"
            f" JOIN {self._schema}.documents d ON d.number = e.document WHERE g.key = $1"
        )

        async def look(connection: Any) -> tuple[int, Sequence[Any]]:
            listed = await connection.fetch(self._documents(), generation.id)
            return len(listed), await connection.fetch(sql, generation.id)

        listed, rows = await self._look(look)
        found = ((given(key), row & LAST_CHUNK, given(content_hash)) for key, row, content_hash in rows)
        return await asyncio.to_thread(counted, listed, found)

    # ------------------------------------------------------------ connections
    async def _prepare(self, connection: Any) -> str:
        """Make what is missing, for which one needs rights only the first time; gives where pgvector's names are."""
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _TABLES_LOCK)
            if await _place(connection) is None:
                await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            place = await _place(connection)
            await connection.execute(f"SET LOCAL search_path = {place}")
            if await connection.fetchval("SELECT to_regclass($1)", f"{self._schema}.entries") is None:
                await connection.execute(SCHEMA.format(schema=self._schema))
        return str(place)

    def _documents(self) -> str:
        return (
            f"SELECT d.key, d.content_hash, d.chunks FROM {self._schema}.generations g"  # noqa: S608 - names of ours
            f" JOIN {self._schema}.documents d ON d.generation = g.number WHERE g.key = $1 ORDER BY d.key"
        )

    async def _write(self, work: Work[T]) -> T:
        async def alone(connection: Any) -> T:
            async with connection.transaction():
                return await work(connection)

        return await self._run(alone)

    async def _look(self, work: Work[T]) -> T:
        """In one unchanging view of the tables."""

        async def unchanging(connection: Any) -> T:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await work(connection)

        return await self._run(unchanging)

    async def _run(self, work: Work[T]) -> T:
        """Once more where the connection was lost: whatever is done here can be done twice."""
        from asyncpg import ConnectionDoesNotExistError, InterfaceError  # late: it is an extra

        with Meaning(self._url):
            try:
                async with self._acquired() as connection:
                    return await work(connection)
            except (ConnectionDoesNotExistError, InterfaceError, ConnectionError) as error:
                logger.info("a connection to PostgreSQL was lost: %s", error)
            async with self._acquired() as connection:
                return await work(connection)

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[Any]:
        async with self._pool.acquire(timeout=self._settings.seconds) as connection:
            yield connection

    # ------------------------------------------------------------ HNSW
    def _index_soon(self, generation: Generation) -> None:
        if self._indexing:  # the next documents begin it, when this one is done
            return
        task = asyncio.create_task(self._index(generation), name="pgvector-index")
        self._indexing.add(task)
        task.add_done_callback(self._indexing.discard)

    async def _index(self, generation: Generation) -> None:
        """Make the HNSW index of a large index, unless it is there; its documents come and go meanwhile."""
        try:
            await self._run(lambda connection: _indexed(connection, self._schema, generation))
        except KvasirError as error:
            logger.warning("vectors are compared one by one: %s", error)


async def _indexed(connection: Any, schema: str, generation: Generation) -> None:
    sql = f"SELECT number FROM {schema}.generations WHERE key = $1 AND NOT indexed"  # noqa: S608 - a name of ours
    number = await connection.fetchval(sql, generation.id)
    if number is None or not await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", _TABLES_LOCK, number):
        return
    try:
        await connection.execute(_unindexed(schema, number), timeout=None)  # one that was not finished
        await connection.execute(
            f"CREATE INDEX CONCURRENTLY hnsw_{number} ON {schema}.entries USING hnsw"
            f" ((vector::halfvec({generation.dimension})) halfvec_ip_ops) WHERE generation = {number}",
            timeout=86_400,
        )
        await connection.execute(f"UPDATE {schema}.generations SET indexed = true WHERE number = $1", number)  # noqa: S608
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1, $2)", _TABLES_LOCK, number)


def _unindexed(schema: str, number: int) -> str:
    return f"DROP INDEX CONCURRENTLY IF EXISTS {schema}.hnsw_{number}"


async def _place(connection: Any) -> str | None:
    """The schema in which pgvector's types are."""
    place: str | None = await connection.fetchval(
        "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
        " WHERE e.extname = 'vector'"
    )
    return place


async def _with_vectors(connection: Any) -> None:
    place = (await _place(connection) or "").strip('"')
    await connection.set_type_codec(
        "halfvec", schema=place, encoder=encode_vector, decoder=decode_vector, format="binary"
    )


class Meaning:
    """Turns the driver's errors into Kvasir's."""

    def __init__(self, url: URL) -> None:
        self._where = url.render_as_string(hide_password=True)

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        import asyncpg  # late: it is an extra

        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        match error:
            case asyncpg.UndefinedFileError() | asyncpg.FeatureNotSupportedError() | asyncpg.UndefinedObjectError():
                raise ConfigError(tell("pgvector_missing", where=self._where, reason=reason)) from error
            case asyncpg.DataError() | asyncpg.UntranslatableCharacterError():
                raise UserError(tell("store_bad_value")) from error
            case asyncpg.DiskFullError():
                raise StoreUnavailable(tell("pgvector_full", where=self._where)) from error
            case asyncpg.PostgresError() | asyncpg.InterfaceError() | OSError() | TimeoutError():
                raise StoreUnavailable(tell("pgvector_unreachable", where=self._where, reason=reason)) from error
