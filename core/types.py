"""The plain data that travels between the parts of Kvasir; frozen, and without behaviour that does IO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:  # it takes longer to import than all else here, and every command imports this
    import numpy as np
    from numpy.typing import NDArray

Vector: TypeAlias = "NDArray[np.float32]"
"""One embedding, shape (dimension,), L2-normalised."""

Matrix: TypeAlias = "NDArray[np.float32]"
"""Embeddings of several texts, shape (n, dimension), each row L2-normalised."""

Metadata: TypeAlias = Mapping[str, str | int | float | bool]
Language: TypeAlias = Literal["en", "zh"]
SearchMode: TypeAlias = Literal["hybrid", "vector", "keyword"]


# ---------------------------------------------------------------- documents
@dataclass(frozen=True, slots=True)
class Locator:
    """Where in its document a text stands: a page, slide, sheet with rows, or lines (numbers count from 1)."""

    kind: Literal["", "page", "slide", "sheet", "rows", "lines", "cell", "part"] = ""
    label: str = ""
    """The sheet's or part's name, where it has one."""
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of a parsed document under one heading path, at one place."""

    text: str
    kind: Literal["text", "table", "code"] = "text"
    headings: tuple[str, ...] = ()
    locator: Locator = Locator()


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a loader gets out of a file."""

    sections: tuple[Section, ...]
    title: str = ""
    """The document's own title; empty where it has none."""
    metadata: Metadata = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Sentences for the person who uploaded it, e.g. «Only the first 2,000,000 characters were read»."""


class Chunk(NamedTuple):
    """A piece of a document as it is indexed; a tuple, which is made in a quarter of the time, and there are many."""

    number: int
    """Its place in the document, from 0."""
    text: str
    """What a person reads."""
    tokens: str
    """Search tokens of title, headings and text, joined by spaces (see `core/analyzer.py`)."""
    content_hash: str
    """Hex digest of what is embedded (`embed_text`), so equal texts share one embedding."""
    headings: tuple[str, ...] = ()
    locator: Locator = Locator()
    embed_text: str = ""
    """What the embedder reads: `text`, with its title and headings in front where title enhancement is on."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One index of one knowledge base: built by one embedder, analyzer and splitter, and named by their fingerprint."""

    id: str
    """32 lower-case hex digits."""
    kb_id: str
    fingerprint: str
    dimension: int
    """0 where the generation has no vectors (keyword search only)."""
    embedder: str = ""
    """Fingerprint of the embedder whose vectors it holds; never search it with another's."""
    store: str = ""
    """Kind of the store that it is in; empty: the one of the settings."""


@dataclass(frozen=True, slots=True)
class IndexedDocument:
    """One version of one document, ready for a store."""

    id: str
    name: str
    """Its path relative to the ingested folder, POSIX separators."""
    title: str
    content_hash: str
    """Hex sha256 of the original bytes; where people changed its chunks, one of both (`overrides.index_hash`)."""
    chunks: tuple[Chunk, ...]
    vectors: Matrix | None
    """Row i belongs to chunks[i]; None in a generation of dimension 0."""
    metadata: Metadata = field(default_factory=dict)
    terms: bytes = b""
    """`analyzer.terms` of all chunks one behind the other, where somebody has made them."""


# ---------------------------------------------------------------- filters
@dataclass(frozen=True, slots=True)
class Compare:
    """`field op value`; fields are `document` (name), `folder` (name prefix up to a slash), or `meta.<key>`."""

    field: str
    op: Literal["eq", "ne", "in", "lt", "le", "gt", "ge", "prefix"]
    value: str | int | float | bool | tuple[str | int | float | bool, ...]


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of `parts` holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Filter


Filter: TypeAlias = "Compare | All | Some | Not"


# ---------------------------------------------------------------- search
class Hit(NamedTuple):
    """A chunk found by one leg of a search; a tuple, since each question makes hundreds."""

    document_id: str
    document: str
    title: str
    chunk: Chunk
    vector_score: float | None = None
    """Cosine similarity to the query, where the vector leg looked at it."""
    keyword_score: float | None = None
    """BM25 (k1 1.2, b 0.75; higher is better, unbounded), where the keyword leg looked at it."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a store found: both legs' hits in one list, in no promised order, and the statistics that scores hang on."""

    hits: tuple[Hit, ...]
    chunk_count: int
    """Chunks in the generation."""
    document_frequency: Mapping[str, int]
    """For each distinct query token: in how many chunks it stands (0 where unknown)."""


@dataclass(frozen=True, slots=True)
class StoreCount:
    documents: int
    chunks: int
    digest: str
    """Hex digest over all (document id, chunk number, content hash), in any order and every store the same."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk found, with its score."""

    kb: str
    document_id: str
    document: str
    title: str
    chunk: int
    text: str
    headings: tuple[str, ...]
    locator: Locator
    score: float
    """0..1, higher is better."""
    vector_score: float | None = None
    keyword_score: float | None = None
    rerank_score: float | None = None


# ---------------------------------------------------------------- questions and answers
@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat as an engine reads it."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a conversation happens; equal places share one history."""

    platform: str
    workspace: str = ""
    channel: str = ""
    thread: str = ""


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """How a question is to be searched for and answered; None leaves it to whatever comes behind."""

    top_k: int | None = None
    """Passages an answer may draw on."""
    mode: SearchMode | None = None
    dense_weight: float | None = None
    """Weight of vectors in hybrid search, 0..1."""
    reranker: str | None = None
    """By name; empty: none."""
    min_evidence: float | None = None
    """Evidence below which the answer is a refusal, 0..1."""
    engine: str | None = None
    instructions: str | None = None
    """For the language model; blank: as None."""
    generation: Generation | None = None
    """Index to search in the place of the live one of the only knowledge base that is asked."""
    fallbacks: tuple[str, ...] | None = None
    """Engines to be tried in turn where `engine` is not to be had."""
    sampling: tuple[str, ...] | None = None
    """The answer preset: rules as `core/answering/sampling.py` reads them."""
    samplers: Mapping[str, Any] | None = None
    """What whoever asks wants of the drawing of words: fields of `Sampling`."""


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """How a question is searched for and answered, with nothing left open (`core/answering/options.py`)."""

    top_k: int
    mode: SearchMode
    dense_weight: float | None
    """None: what suits model and script of the question."""
    reranker: str
    min_evidence: float
    engine: str
    instructions: str | None
    """None: those of the settings."""
    generation: Generation | None = None
    fallbacks: tuple[str, ...] = ()
    """Engines to be tried in turn where `engine` is not to be had; one that is tried out has none."""
    sampling: Sampling | None = None
    """None: as the settings say."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question of one person."""

    text: str
    kbs: tuple[str, ...]
    """Names of the knowledge bases to answer from, already checked against what the asker may read."""
    person: str
    """The asker, stable on its platform, e.g. `web:3f…`."""
    conversation_id: str | None = None
    """None: a question that stands alone and leaves no history."""
    engine: str | None = None
    """None: that of the knowledge bases, else of the settings."""
    language: Language | None = None
    """Language of Kvasir's own words; None: that of the question."""
    platform: str = "terminal"
    workspace: str = ""
    channel: str = ""
    """Where on the platform it was asked."""
    filter: Filter | None = None
    instructions: str | None = None
    """For the language model; None: those of the knowledge bases, else of the settings."""
    options: AnswerOptions = AnswerOptions()
    """What goes before all that was set anywhere."""
    trial: bool = False
    """Asked to try something out: the answer begins with `Considered`, and nothing of it is kept."""
    history: tuple[PastTurn, ...] = ()
    """What was said before, oldest first, where the conversation itself knows of nothing."""
    answer_id: str | None = None
    """Id the answer is recorded under; None: a new one. A complete record is never overwritten."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an engine draws its words; None leaves a value to the server."""

    max_tokens: int = 1024
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """What the server of a language model itself says about an answer that has ended."""

    reason: Literal["", "stop", "length"] = ""
    """`length`: it was cut at its limit; empty: not told."""
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine gets. Language models read `turns`; the `extractive` engine reads the rest."""

    turns: tuple[Turn, ...]
    question: str
    """The standalone question."""
    passages: tuple[Passage, ...]
    """Numbered from 1 in `turns`, in this order."""
    language: Language = "en"
    terms: Mapping[str, float] = field(default_factory=dict)
    """The question's search tokens with their idf weight."""
    on_end: Callable[[Ended], None] | None = field(default=None, compare=False, repr=False)
    """Called at the end by an engine that knows more of it than its text."""
    asker: str = field(default="", compare=False, repr=False)
    """Whose question it is, so that an engine of our own can let all have their turn; no other server hears of it."""


@dataclass(frozen=True, slots=True)
class Source:
    """A passage that an answer cites as [n]."""

    n: int
    passage: Passage


@dataclass(frozen=True, slots=True)
class Considered:
    """First event of a trial: what was found for it, how it was judged, and what the engine will read."""

    plan: AnswerPlan
    passages: tuple[Passage, ...]
    """Best first, and more than an answer draws on: that are the first `plan.top_k` of them."""
    evidence: float
    """Below `plan.min_evidence`, the engine is not asked."""
    terms: Mapping[str, float]
    """The question's search tokens with their idf weight."""
    dense_weight: float
    """With which vectors were weighed in the end; 0 where they were not looked at."""
    prompt: Prompt | None
    """As the engine gets it, where it is asked; None where nothing was found."""
    tokens: tuple[int, ...] = ()
    """Of each turn of the prompt, as the engine counts."""
    context_size: int = 0
    """Tokens that the engine can read; 0 where it is no language model."""
    curated: bool = False
    """A curated answer is given, and the engine not asked."""


@dataclass(frozen=True, slots=True)
class Sources:
    """First event of an answer that has evidence: the passages it may cite."""

    sources: tuple[Source, ...]
    standalone_question: str


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of the answer's text (CommonMark)."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Last event of every answer; the record is written when it comes."""

    answer_id: str
    text: str
    """The whole text, as recorded."""
    answered: bool
    """False: refused for want of evidence."""
    sources: tuple[Source, ...]
    """Those cited in `text`."""
    engine: str
    standalone_question: str
    timings_ms: Mapping[str, float]
    notice: str = ""
    """A sentence beside the answer, e.g. «Quoted from your documents; no language model is configured.»"""


@dataclass(frozen=True, slots=True)
class Queued:
    """The answer waits for its engine; told anew whenever its place changes."""

    place: int
    """From 1, the next to begin; 0: it waits no more."""


AnswerEvent: TypeAlias = "Considered | Sources | Queued | Delta | Finished"


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A question and its answer earlier in a conversation."""

    question: str
    standalone_question: str
    answer: str
    answered: bool
    sources: tuple[str, ...] = ()
    """Names of the documents the answer cited."""


class Role(StrEnum):
    """What a person may do, from most to least."""

    OWNER = "owner"
    ADMIN = "admin"
    EDITOR = "editor"
    REVIEWER = "reviewer"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may ask: a user of the console, or an account on a chat platform."""

    key: str
    """Stable and unique, e.g. `user:<id>` or `slack:T1:U9`."""
    name: str
    role: Role = Role.VIEWER
    member: bool = False
    """Its chat platform vouches that the person belongs to the workspace; guests from elsewhere do not."""
    groups: tuple[str, ...] = ()
    """Ids of the groups the person is in, where the platform tells."""
    everywhere: bool = True
    """The account's role counts in every knowledge base; False: only in those that are public or granted."""


Trigger: TypeAlias = Literal["mention", "dm", "thread", "heard", "command"]
"""How a question came: to us by name, in a direct message, in a thread we are in, overheard, or by a command."""


@dataclass(frozen=True, slots=True)
class ChatFile:
    """A file sent on a chat platform."""

    id: str
    """By which the platform gives its bytes."""
    name: str
    size: int = 0
    """Bytes; 0 where the platform does not say."""


@dataclass(frozen=True, slots=True)
class Said:
    """A message of a thread, as its platform tells it."""

    text: str
    author: str
    by_us: bool = False


@dataclass(frozen=True, slots=True)
class Mention:
    """A question put to Kvasir on a platform."""

    place: Place
    message_id: str
    """Unique in its place; the same message always has the same id."""
    person: Person
    text: str
    """Without the mention itself."""
    conversation_id: str | None = None
    """Set by platforms that keep named conversations; else the place decides."""
    kbs: tuple[str, ...] = ()
    """Chosen with the question; empty: those of the conversation, channel or settings."""
    language: Language | None = None
    regenerate: str | None = None
    """Id of the answer that is to be replaced."""
    filter: Filter | None = None
    """Documents it is to be answered from; None: all."""
    trigger: Trigger = "mention"
    alone: bool = False
    """Only the asker will see the answer: a direct message, or one shown to nobody else."""
    said_at: datetime | None = None
    """When it was asked, by the platform's clock; None: now."""
    edited: bool = False
    """The message has changed since it was first asked."""
    files: tuple[ChatFile, ...] = ()
    """Sent with it."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """What the platform needs to answer it, e.g. a token of the request; kept with it, shown to nobody."""


@dataclass(frozen=True, slots=True)
class Thumb:
    """A rating given on a platform."""

    answer_id: str
    """Empty where `post` says which answer is meant."""
    person: Person
    value: Literal[-1, 0, 1]
    """0 withdraws."""
    reason: str = ""
    was: Literal[-1, 0, 1] = 0
    """Where `value` is 0: withdraw only this vote, e.g. when a reaction was removed; 0: whatever it was."""
    place: Place | None = None
    post: str = ""
    """Id of our message that was rated, in `place`."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """A message was taken back."""

    place: Place
    message_id: str


@dataclass(frozen=True, slots=True)
class Press:
    """A control under one of our messages was used."""

    control: Literal["stop", "again", "human", "resolved", "keep"]
    """Stop the answer; answer anew; call a human; the human has helped; keep a helper's words as an answer."""
    place: Place
    post: str
    """Id of our message; for `keep`, of the helper's; for `stop`, also of the question, or empty for the newest."""
    person: Person
    may_manage: bool = False
    """The platform says that the person looks after this channel."""
    text: str = ""
    """For `keep`: the helper's words."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command about Kvasir itself: `kb`, `status`, `help`, …; questions come as `Mention`."""

    name: str
    arguments: str
    place: Place
    person: Person
    may_manage: bool = False
    alone: bool = False
    """Only the person sees the reply."""
    channel_name: str = ""


ChatEvent: TypeAlias = "Mention | Thumb | Deleted | Press | Command"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a platform can show, and how often."""

    max_length: int
    """Characters of one message."""
    streaming: Literal["native", "draft", "edit", "post"]
    """How a text that arrives is shown: by the platform's own stream, as a draft until the answer stands, by editing
    one message, or not before it is whole."""
    edit_interval: float
    """Seconds between two edits at least; 0 for native streaming."""
    edit_growth: float = 1.0
    """By which the interval grows with each edit of an answer."""


@dataclass(frozen=True, slots=True)
class Rating:
    answer_id: str
    person: str
    value: Literal[-1, 1]
    reason: str
    at: datetime


JSON: TypeAlias = "dict[str, Any]"
