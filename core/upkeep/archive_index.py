"""The indexes of a backup in a form that every store takes, so that no restore has to embed anything anew.

An index is some parts of a few documents each: their texts as JSON lines, their vectors as rows of 32-bit numbers.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import numpy as np
from sqlalchemy.exc import StatementError

from core.db.tables import GenerationRow, KnowledgeBaseRow
from core.errors import Conflict, KvasirError, UserError
from core.indexing.moving import groups
from core.ports import VectorStore
from core.settings import Settings
from core.texts import tell
from core.types import Chunk, Generation, IndexedDocument, Locator, Matrix

_DAMAGE = (
    KeyError, TypeError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, StatementError
)  # fmt: skip
"""RuntimeError: parts that are encrypted, or packed in a way that is not known here."""
STORE_FILE: Final = "index.db"
_LARGEST_PART: Final = 1 << 30
_NUMBERS: Final = np.dtype("<f4")
_KINDS: Final = frozenset(get_args(get_type_hints(Locator)["kind"]))

OnDocuments = Callable[[int, int], None]
OpenStore = Callable[[Settings, str], Awaitable[VectorStore]]
"""Opens the store of a kind as these settings say."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An index in a backup."""

    generation: Generation
    parts: int
    documents: int
    chunks: int

    def as_json(self) -> dict[str, Any]:
        return {"id": self.generation.id, "parts": self.parts, "documents": self.documents, "chunks": self.chunks}


# ---------------------------------------------------------------- out
async def write_index(archive: zipfile.ZipFile, store: VectorStore, generation: Generation) -> Kept:
    """All that an index holds just now. Raises StoreUnavailable."""
    parts = documents = chunks = 0
    for group in groups([(key, count) for key, _, count in await store.documents(generation)]):
        found = await store.read(generation, group)
        await asyncio.to_thread(_write_part, archive, _part(generation, parts), found)
        parts += 1
        documents += len(found)
        chunks += sum(len(document.chunks) for document in found)
    return Kept(generation, parts, documents, chunks)


def _write_part(archive: zipfile.ZipFile, name: str, documents: Sequence[IndexedDocument]) -> None:
    lines = [json.dumps(_as_json(document), ensure_ascii=False) for document in documents]
    archive.writestr(f"{name}.jsonl", "\n".join(lines))
    vectors = [np.asarray(one.vectors, _NUMBERS).tobytes() for one in documents if one.vectors is not None]
    if vectors:
        archive.writestr(f"{name}.f32", b"".join(vectors), zipfile.ZIP_STORED)  # they hardly shrink


def _part(generation: Generation, number: int) -> str:
    return f"index/{generation.id}/{number}"


def _as_json(document: IndexedDocument) -> dict[str, Any]:
    return {
        "id": document.id,
        "name": document.name,
        "title": document.title,
        "hash": document.content_hash,
        "meta": dict(document.metadata),
        "chunks": [
            [
                chunk.number,
                chunk.text,
                chunk.tokens,
                chunk.content_hash,
                list(chunk.headings),
                [chunk.locator.kind, chunk.locator.label, chunk.locator.first, chunk.locator.last],
            ]
            for chunk in document.chunks
        ],
    }


# ---------------------------------------------------------------- in
def moved_to(settings: Settings, generation: Generation) -> Generation:
    """The same index under an id of this place, and always the same one: two places may share a server."""
    place = f"{generation.id}\0{settings.database_url}\0{settings.data_dir.absolute()}"
    key = hashlib.blake2b(place.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return replace(generation, id=key, store=settings.store.kind)


async def from_parts(archive: zipfile.ZipFile, kept: Kept) -> AsyncIterator[Sequence[IndexedDocument]]:
    """What `write_index` wrote. Raises what `damage_told` tells."""
    count = 0
    for number in range(kept.parts):
        name = _part(kept.generation, number)
        documents = await asyncio.to_thread(_read_part, archive, name, kept.generation.dimension)
        count += len(documents)
        yield documents
    if count != kept.documents:
        raise ValueError("indexes")


async def from_store(store: VectorStore, generation: Generation) -> AsyncIterator[Sequence[IndexedDocument]]:
    for group in groups([(key, count) for key, _, count in await store.documents(generation)]):
        yield await store.read(generation, group)


async def bring(
    store: VectorStore,
    generation: Generation,
    documents: AsyncIterator[Sequence[IndexedDocument]],
    on_documents: Callable[[int], None],
) -> None:
    """Put them into an index of their own. Raises KvasirError where the store does not hold them all then."""
    count = chunks = 0
    await store.ensure_generation(generation)
    async for group in documents:
        await store.put(generation, group)
        count += len(group)
        chunks += sum(len(document.chunks) for document in group)
        on_documents(len(group))
    held = await store.count(generation)
    if (held.documents, held.chunks) != (count, chunks):
        raise KvasirError(tell("restore_differs", store=generation.store))


def kept_in(manifest: Mapping[str, Any], generations: Mapping[str, Generation]) -> list[Kept]:
    """The indexes that a backup's manifest lists. Raises as `from_parts`."""
    found = manifest.get("indexes", [])
    return [
        Kept(generations[str(one["id"])], int(one["parts"]), int(one["documents"]), int(one["chunks"])) for one in found
    ]


def _read_part(archive: zipfile.ZipFile, name: str, dimension: int) -> list[IndexedDocument]:
    lines = [line for line in _bytes(archive, f"{name}.jsonl").decode().split("\n") if line]
    rows = [json.loads(line) for line in lines]
    chunks = [tuple(_chunk(*one) for one in row["chunks"]) for row in rows]
    vectors: list[Matrix | None] = [None] * len(rows)
    if dimension:
        every = np.frombuffer(_bytes(archive, f"{name}.f32"), _NUMBERS).astype(np.float32)
        matrix = every.reshape(sum(map(len, chunks)), dimension)
        if not np.isfinite(matrix).all():
            raise ValueError(f"{name}.f32")
        ends = np.cumsum([len(own) for own in chunks])
        vectors = list(np.split(matrix, ends[:-1])) if len(ends) else []
    documents = zip(rows, chunks, vectors, strict=True)
    return [_document(row, own, matrix) for row, own, matrix in documents]


def _document(row: Mapping[str, Any], chunks: tuple[Chunk, ...], vectors: Matrix | None) -> IndexedDocument:
    key, name, title, content = (_text(row[field]) for field in ("id", "name", "title", "hash"))
    return IndexedDocument(key, name, title, content, chunks, vectors, _meta(row["meta"]))


def _bytes(archive: zipfile.ZipFile, name: str) -> bytes:
    part = archive.getinfo(name)
    if part.file_size > _LARGEST_PART:
        raise ValueError(name)
    return archive.read(part)


def _chunk(number: Any, text: Any, tokens: Any, content: Any, headings: Any, place: Any) -> Chunk:
    kind, label, first, last = place
    if kind not in _KINDS:
        raise ValueError("locator")
    locator = Locator(kind, _text(label), _place(first), _place(last))
    return Chunk(int(number), _text(text), _text(tokens), _text(content), tuple(map(_text, headings)), locator)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _place(value: Any) -> int | None:
    return None if value is None else int(value)


def _meta(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(one, str | int | float | bool) for one in value.values()):
        raise TypeError("meta")
    return value


class Source:
    """The indexes of a backup that go into another store than they were in, or come in no store's own form."""

    def __init__(
        self, archive: zipfile.ZipFile, manifest: Mapping[str, Any], settings: Settings, open_store: OpenStore
    ) -> None:
        self._archive = archive
        self._manifest = manifest
        self._settings = settings
        self._open_store = open_store

    async def bring(self, on_documents: OnDocuments) -> dict[str, str]:
        """Put them into the store of the settings; gives their ids there by the former ones.

        Raises UserError for a damaged file; KvasirError where the store does not hold what it was given, and then it
        is given nothing.
        """
        with damage_told():
            live = await asyncio.to_thread(self._live)
            kept = kept_in(self._manifest, live)
        in_file = [] if kept or self._manifest.get("store") != "local" else list(live.values())
        if not kept and not in_file:
            return {}
        await self._refuse_local_file()
        target = await self._open_store(self._settings, self._settings.store.kind)
        try:
            if kept:
                total = sum(one.documents for one in kept)
                found = [(one.generation, from_parts(self._archive, one)) for one in kept]
                return await self._put(target, found, on_documents, total)
            return await self._from_file(target, in_file, on_documents)
        finally:
            await target.close()

    async def _from_file(
        self, target: VectorStore, live: Sequence[Generation], on_documents: OnDocuments
    ) -> dict[str, str]:
        """From the file of a `local` store, which has not all of them where some were in another store."""
        with tempfile.TemporaryDirectory(dir=self._settings.data_dir) as folder:
            with damage_told():
                await asyncio.to_thread(unpack_store, self._archive, Path(folder, STORE_FILE))
            local = await self._open_store(self._settings.model_copy(update={"data_dir": Path(folder)}), "local")
            try:
                found, total = [], 0
                for generation in live:
                    if generation.store in ("", "local"):
                        total += len(await local.documents(generation))
                        found.append((generation, from_store(local, generation)))
                return await self._put(target, found, on_documents, total)
            finally:
                await local.close()

    async def _put(
        self,
        target: VectorStore,
        found: Sequence[tuple[Generation, AsyncIterator[Sequence[IndexedDocument]]]],
        on_documents: OnDocuments,
        total: int,
    ) -> dict[str, str]:
        done, brought = 0, {}

        def follow(count: int) -> None:
            nonlocal done
            done += count
            on_documents(done, total)

        made = []
        try:
            for generation, documents in found:
                there = moved_to(self._settings, generation)
                made.append(there)
                with damage_told():
                    await bring(target, there, documents, follow)
                brought[generation.id] = there.id
        except KvasirError:
            for there in made:
                with suppress(KvasirError):
                    await target.drop_generation(there)
            raise
        return brought

    async def _refuse_local_file(self) -> None:
        index = self._settings.data_dir / STORE_FILE
        if self._settings.store.kind == "local" and index.exists():
            await asyncio.to_thread(refuse_unless_bare, index, self._of_this_place())

    def _of_this_place(self) -> frozenset[str]:
        """Indexes that a try before this one may have left."""
        return frozenset(moved_to(self._settings, one).id for one in self._live().values())

    def _live(self) -> dict[str, Generation]:
        """The indexes that questions were answered from, by id."""
        bases = rows_of(self._archive, KnowledgeBaseRow.__tablename__)
        wanted = {row["live_generation_id"] for row in bases}
        return {
            row["id"]: Generation(
                str(row["id"]), str(row["kb_id"]), str(row["fingerprint"]), int(row["dimension"]),
                str((row["profile"] or {}).get("embedder", "")), str(row["store"] or ""),
            )
            for row in rows_of(self._archive, GenerationRow.__tablename__)
            if row["id"] in wanted
        }  # fmt: skip


def refuse_unless_bare(index: Path, known: frozenset[str] = frozenset()) -> None:
    """`known`: indexes that may be there. Raises Conflict."""
    marks = ", ".join("?" * len(known))
    other = f"SELECT id FROM generations WHERE key IS NOT NULL AND key NOT IN ({marks})"  # noqa: S608 - marks only
    try:
        with closing(sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            asked = f"SELECT EXISTS (SELECT 1 FROM documents WHERE generation IN ({other}))"  # noqa: S608 - as above
            holds = connection.execute(asked, sorted(known)).fetchone()[0]
    except sqlite3.Error:
        holds = True
    if holds:
        raise Conflict(tell("restore_not_empty"))


def unpack_store(archive: zipfile.ZipFile, target: Path) -> None:
    with archive.open("store/local") as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)


def rows_of(archive: zipfile.ZipFile, table: str) -> list[dict[str, Any]]:
    """Of a table of the backup."""
    name = f"tables/{table}.jsonl"
    if name not in archive.namelist():
        return []
    lines = archive.read(name).decode().split("\n")  # texts may hold other line ends
    return [json.loads(line) for line in lines if line]


@contextmanager
def damage_told() -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise UserError(tell("backup_part_damaged", name=str(error)[:80])) from error
