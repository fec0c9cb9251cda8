"""The ports of the core: what an adapter must be able to do. Plain data in, plain data out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from core.types import (
    Chunk,
    Filter,
    Generation,
    IndexedDocument,
    Matrix,
    Metadata,
    Parsed,
    Passage,
    Prompt,
    Queued,
    Sampling,
    SearchResult,
    StoreCount,
    Vector,
)

if TYPE_CHECKING:
    from asyncio import Future  # a parser process does without asyncio, which is a third of its start


@dataclass(frozen=True, slots=True)
class EmbedderInfo:
    """What the rest of Kvasir must know of an embedder."""

    name: str
    fingerprint: str
    """Changes whenever the same text could get another vector: weights, pooling, prefixes, precision."""
    dimension: int
    max_tokens: int
    """Longer texts are cut."""
    scripts: frozenset[str]
    """Unicode scripts the model knows, by name: `Latin`, `Han`, …; `*` for all."""
    weight: float
    """Weight of its scores in fusion for a query in a script it knows, 0..1."""
    background: float = 0.0
    """Cosine of texts that have nothing to do with each other; what is above it counts as evidence."""
    vocabulary: str = ""
    """Path of a WordPiece `vocab.txt` or `tokenizer.json`, for counting as the model does; empty: estimate."""


class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def info(self) -> EmbedderInfo: ...

    async def embed_documents(self, texts: Sequence[str]) -> Matrix: ...

    async def embed_query(self, text: str) -> Vector: ...

    async def close(self) -> None: ...


class KnownEmbedders(Protocol):
    """The embedders there are; a knowledge base names its own: None is the house's, an empty name none."""

    def named(self, name: str | None) -> Embedder | None:
        """It, where it is ready."""

    async def ready(self, name: str | None) -> Embedder | None:
        """The same, waited for where it has a name of its own. Raises EmbedderUnavailable where that cannot be had."""

    async def maker(self, fingerprint: str) -> Embedder | None:
        """The one whose vectors an index holds (`Generation.embedder`); None where it is not there any more."""


QueryVector: TypeAlias = "Vector | Future[Vector | None] | None"
"""A question's vector, there or still on its way; None, now or then: there is none."""


class VectorStore(Protocol):
    """Keeps chunks, vectors and tokens, and finds them again; each method is atomic, towards other processes too."""

    async def ensure_generation(self, generation: Generation) -> None:
        """Make room for it; does nothing when it is there."""

    async def drop_generation(self, generation: Generation) -> None:
        """Remove it with all its documents; does nothing when it is not there."""

    async def put(self, generation: Generation, documents: Sequence[IndexedDocument]) -> None:
        """Store the documents, each replacing its former version, if any, in one step."""

    async def delete(self, generation: Generation, document_ids: Sequence[str]) -> None: ...

    async def search(
        self,
        generation: Generation,
        *,
        vector: QueryVector,
        tokens: Sequence[str],
        limit: int,
        filter: Filter | None = None,
    ) -> SearchResult:
        """The best `limit` chunks by vector and the best `limit` by keywords, in one list.

        Every hit carries the scores of the legs that can score it: with a `vector`, each hit has its `vector_score`,
        also those found by keywords alone. For a vector that is on its way the store waits as long as it takes, and may
        look for the keywords meanwhile.
        """

    async def chunks(self, generation: Generation, document_id: str) -> Sequence[Chunk]:
        """The document's chunks in order (`embed_text` may be empty); an empty sequence when it is not there."""

    async def read(self, generation: Generation, document_ids: Sequence[str]) -> Sequence[IndexedDocument]:
        """The documents as they were put, in this order; those that are not there are left out.

        Vectors are as exact as the store keeps them; `embed_text` and `terms` may be empty.
        """

    async def documents(self, generation: Generation) -> Sequence[tuple[str, str, int]]:
        """(document id, content hash, number of chunks) of all documents of the generation."""

    async def count(self, generation: Generation) -> StoreCount: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class EngineInfo:
    name: str
    model: str
    is_language_model: bool
    """False: it can only quote; it cannot rewrite a question or follow a prompt."""
    context_size: int
    is_scripted: bool = False
    """What it says was written beforehand: it is neither too long nor repeating itself by mistake."""


class Engine(Protocol):
    """Generates the text of an answer. Closing the iterator of `stream` cancels everything behind it."""

    @property
    def info(self) -> EngineInfo: ...

    def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[str | Queued]:
        """The answer's text piece by piece, and before it where in a queue it waits.

        Raises EngineUnavailable with a sentence that says why.
        """

    def count_tokens(self, text: str) -> int: ...

    async def health(self) -> str:
        """Empty when it works, else one sentence that says what is wrong."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ProcessState:
    """How the process is that a part runs in."""

    state: Literal["ready", "away", "failed"] = "ready"
    """`away`: a fresh one is being started; `failed`: it was given up."""
    reason: str = ""


@runtime_checkable
class InProcess(Protocol):
    """A part that runs in a process of its own, which can be away for a while."""

    @property
    def process(self) -> ProcessState: ...

    def revive(self) -> None:
        """Try again to start it after it was given up."""


class Reranker(Protocol):
    async def rerank(self, query: str, passages: Sequence[Passage]) -> Sequence[Passage]:
        """The same passages, best first, with `rerank_score` (0..1) set."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SplitterSpec:
    """How a knowledge base is cut into chunks; sizes are tokens of the embedder."""

    chunk_size: int
    chunk_overlap: int
    title_enhance: bool
    vocabulary: str = ""
    """`EmbedderInfo.vocabulary`."""


@dataclass(frozen=True, slots=True)
class ParseTask:
    source: bytes | str
    """The bytes, where they are few, else the path of the file that has them."""
    name: str
    """The document's name; its suffix helps to tell the kind of file."""
    splitter: SplitterSpec


@dataclass(frozen=True, slots=True)
class ParseResult:
    """A document read, split and analysed; `error` is empty or one sentence that says why it could not be read."""

    title: str = ""
    chunks: tuple[Chunk, ...] = ()
    metadata: Metadata = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str = ""
    terms: bytes = b""
    """`analyzer.terms` of all chunks one behind the other; empty where nobody has made them."""


class Parser(Protocol):
    """Reads, splits and analyses documents in child processes with limits (`core/parse`)."""

    def parse(self, tasks: Sequence[ParseTask]) -> AsyncIterator[tuple[int, ParseResult]]:
        """(index of the task, result) for every task, in any order; a hostile file costs only its own result."""

    async def close(self) -> None: ...


class Loader(Protocol):
    """Reads one kind of file. Runs only inside the limited child process (`core/parse`)."""

    def load(self, data: bytes, name: str) -> Parsed:
        """Raises DocumentError with one sentence where the file cannot be read."""


class Splitter(Protocol):
    def split(self, parsed: Parsed, name: str) -> Iterable[Chunk]:
        """Pure: the same input always gives the same chunks."""


# ---------------------------------------------------------------- chat platforms, as the doctor sees them
@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, in a sentence; found by a platform's check (entry points `kvasir.checks`)."""

    what: str
    ok: bool
    says: str
    field: str = ""
    """The setting to be changed, of those of a platform, where nothing works before it is; `*`: some of them."""

    def as_json(self) -> dict[str, Any]:
        return {"what": self.what, "ok": self.ok, "says": self.says}
