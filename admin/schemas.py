"""What the HTTP API takes in and gives out. Unknown fields are refused, so none can be slipped in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _without_controls(text: str) -> str:
    return "".join(char for char in text if char.isprintable() or char in "\n\t")


Text = Annotated[str, AfterValidator(_without_controls)]
"""Text as people type it; control characters are taken out (PostgreSQL takes no NUL either)."""
ShortText = Annotated[Text, Field(max_length=200)]


class Given(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Out(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


# ---------------------------------------------------------------- who
class SetUp(Given):
    token: Annotated[str, Field(max_length=200)]
    name: Annotated[str, Field(max_length=200)]
    password: Annotated[str, Field(max_length=1000)]


class Login(Given):
    name: Annotated[str, Field(max_length=200)]
    password: Annotated[str, Field(max_length=1000)]
    next: Annotated[str | None, Field(max_length=2000)] = None


class Ways(Out):
    provider: str | None
    """What the button of the identity provider says; None where there is none."""


class Next(Out):
    next: str


class EmbedderOut(Out):
    ready: bool
    stage: str
    progress: float
    reason: str


class EngineOut(Out):
    name: str
    is_language_model: bool


class Me(Out):
    name: str
    role: str
    anonymous: bool
    language: Literal["auto", "en", "zh"]
    can_upload: bool
    can_manage: bool
    can_console: bool
    """Whether there is a page of the console for them."""
    notice: str
    """What a person should know: a part that is missing, in one sentence; else empty."""
    embedder: EmbedderOut
    engine: EngineOut
    version: str
    max_file_mb: int
    max_question_chars: int


# ---------------------------------------------------------------- knowledge bases and documents
class DocumentOut(Out):
    id: str
    name: str
    title: str
    media_type: str
    size: int
    status: str
    stage: str
    reason: str | None
    chunks: int
    created_at: datetime
    updated_at: datetime


class ListedOut(DocumentOut):
    kb: str
    source: str
    """upload, folder, curated, or the address it came from."""
    source_id: str | None
    """The source that looks after it."""
    by: str
    """Who put its newest bytes in; empty where that is not known."""
    is_live: bool
    """Whether it is searched, perhaps in a former version."""
    copies: int
    """Other documents of the knowledge base with the same bytes."""
    versions: int
    """Former versions that are kept."""
    changes: int
    """What people changed in its chunks."""
    changes_lost: int
    """Changes whose chunk was not found when it was last read."""


class Documents(Out):
    items: Sequence[ListedOut]
    total: int


class NotTaken(Out):
    name: str
    reason: str | None


class Uploaded(Out):
    job_id: str
    documents: Sequence[DocumentOut]
    unchanged: Sequence[NotTaken]
    """Files whose bytes are indexed already."""
    refused: Sequence[NotTaken]
    """Files that were not accepted, each with its reason."""


class ChunkOut(Out):
    number: int
    text: str
    headings: Sequence[str]
    locator: str
    html: str


class Chunks(Out):
    items: Sequence[ChunkOut]


# ---------------------------------------------------------------- conversations
class SourceOut(Out):
    n: int
    kb: str
    document_id: str
    document: str
    title: str
    chunk: int
    locator: str
    headings: Sequence[str]
    score: float
    text: str


class RatingOut(Out):
    value: int
    reason: str


class Rate(Given):
    value: Literal[1, -1]
    reason: Annotated[Text, Field(max_length=2000)] = ""


class NewConversation(Given):
    kb: Annotated[str, Field(max_length=200)] | None = None


class ChangedConversation(Given):
    title: ShortText | None = None
    kb: ShortText | None = None


class ConversationOut(Out):
    id: str
    title: str
    kb: str | None
    updated_at: datetime


class Conversations(Out):
    items: Sequence[ConversationOut]


class Exchange(Out):
    answer_id: str
    question: str
    html: str
    text: str
    answered: bool
    state: str
    notice: str
    sources: Sequence[SourceOut]
    rating: RatingOut | None
    created_at: datetime


class ConversationWhole(Out):
    id: str
    title: str
    kb: str | None
    exchanges: Sequence[Exchange]


class Ask(Given):
    text: Text
    kb: ShortText | None = None
    regenerate: Annotated[str, Field(max_length=64)] | None = None
