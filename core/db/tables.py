"""The tables of Kvasir's own database. Times are UTC and aware; ids are 32 lower-case hex digits."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def new_id() -> str:
    return uuid.uuid4().hex


def now() -> datetime:
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time in Python; SQLite, which keeps no zone, gets and gives UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive time; use core.db.tables.now()")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
        str: Text,
    }


Id = String(32)


class KnowledgeBaseRow(Table):
    __tablename__ = "knowledge_bases"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    description: Mapped[str] = mapped_column(default="")
    private: Mapped[bool] = mapped_column(default=False)
    chunk_size: Mapped[int]
    """Tokens."""
    chunk_overlap: Mapped[int]
    title_enhance: Mapped[bool] = mapped_column(default=True)
    top_k: Mapped[int | None]
    """Passages for an answer; None: the settings' value."""
    mode: Mapped[str | None] = mapped_column(String(16))
    """hybrid, vector, or keyword; NULL: hybrid."""
    dense_weight: Mapped[float | None]
    """Weight of vectors in hybrid search, 0..1; NULL: the settings' value."""
    min_evidence: Mapped[float | None]
    """Evidence below which an answer is refused, 0..1; NULL: the settings' value."""
    reranker: Mapped[str | None] = mapped_column(String(64))
    """Reranker by name; empty: none; NULL: that of the settings."""
    embedder: Mapped[str | None] = mapped_column(String(64))
    """Name of the embedder of its index; empty: none, keywords alone; NULL: that of the settings."""
    engine: Mapped[str | None] = mapped_column(String(64))
    """What writes answers from it; NULL: the settings' engine."""
    fallbacks: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    """Engines to be tried in turn where that one is not to be had; NULL: those of the settings."""
    sampling: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    """The answer preset: rules as `core/answering/sampling.py` reads them; NULL: none."""
    instructions: Mapped[str | None]
    """For the language model, in the place of those of the settings."""
    max_documents: Mapped[int | None]
    max_mb: Mapped[int | None]
    """Quotas of its own, below those of the settings."""
    expires_at: Mapped[datetime | None]
    """Set where it holds what was sent in one conversation; it is deleted then, and listed nowhere."""
    live_generation_id: Mapped[str | None] = mapped_column(Id)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class GenerationRow(Table):
    __tablename__ = "generations"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    kb_id: Mapped[str] = mapped_column(ForeignKey("knowledge_bases.id", ondelete="CASCADE"), index=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    dimension: Mapped[int]
    embedder: Mapped[str] = mapped_column(default="")
    """The embedder's name, for people; empty: keyword search only."""
    profile: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What the fingerprint is made of: embedder, analyzer and splitter settings."""
    state: Mapped[str] = mapped_column(String(16), default="building")
    """building, moving (to another store), ready (complete, waiting to be switched to), live, former (kept for a way
    back), or retired."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    switched_at: Mapped[datetime | None]
    """When it last became live, or stopped being it."""
    store: Mapped[str | None] = mapped_column(String(32))
    """Kind of the store that it is in; NULL: that of the settings."""
    figures: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What it held when it was ready, what could not be read, and beside it the same of the index that was live."""


class DocumentRow(Table):
    __tablename__ = "documents"
    __table_args__ = (
        UniqueConstraint("kb_id", "name"),
        Index(None, "kb_id", "status"),
        Index(None, "kb_id", "content_hash"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    kb_id: Mapped[str] = mapped_column(ForeignKey("knowledge_bases.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(1024))
    """Path relative to the ingested folder, POSIX separators; text only, never used as a path of ours."""
    title: Mapped[str] = mapped_column(default="")
    media_type: Mapped[str] = mapped_column(String(100), default="")
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    content_hash: Mapped[str] = mapped_column(String(64))
    """Hex sha256 of the newest bytes; names them in the blob folder."""
    live_hash: Mapped[str | None] = mapped_column(String(64))
    """That of the bytes that the live generation answers from; None: nothing live yet."""
    status: Mapped[str] = mapped_column(String(16), default="queued")
    """queued, working, indexed, failed, disabled (kept, and not searched), or deleting."""
    stage: Mapped[str] = mapped_column(String(16), default="stored")
    """stored, parsed, split, embedded, or live."""
    reason: Mapped[str | None]
    """Why it failed, or what was left out: one sentence."""
    chunks: Mapped[int] = mapped_column(default=0)
    source: Mapped[str] = mapped_column(default="")
    """Where it came from: a URL, `upload`, or `folder`."""
    source_id: Mapped[str | None] = mapped_column(Id, index=True)
    """The source that brought it and looks after it."""
    by: Mapped[str] = mapped_column(String(255), default="")
    """Name of who put its newest bytes in, where that is known."""
    meta: Mapped[dict[str, Any]] = mapped_column(default=dict)
    job_id: Mapped[str | None] = mapped_column(Id, index=True)
    """The job that brings it in, or last did."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class JobRow(Table):
    __tablename__ = "jobs"
    __table_args__ = (Index(None, "state", "created_at"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    kind: Mapped[str] = mapped_column(String(32))
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(String(16), default="queued")
    """queued, running, done, failed, or cancelled."""
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    error: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0)
    fence: Mapped[int] = mapped_column(default=0)
    """Grows with every lease; a worker with an older number may write nothing."""
    lease_until: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class ConversationRow(Table):
    __tablename__ = "conversations"
    __table_args__ = (Index(None, "person", "updated_at"), Index(None, "platform", "workspace", "channel", "thread"))

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    platform: Mapped[str] = mapped_column(String(32))
    workspace: Mapped[str] = mapped_column(String(255), default="")
    channel: Mapped[str] = mapped_column(String(255), default="")
    thread: Mapped[str] = mapped_column(String(255), default="")
    person: Mapped[str] = mapped_column(String(255))
    """Who opened it."""
    title: Mapped[str] = mapped_column(default="")
    kb: Mapped[str | None] = mapped_column(String(100))
    """The knowledge base chosen in it, by name."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


_FIGURES = (
    "created_at", "state", "answered", "platform", "workspace", "channel", "kbs", "engine", "model", "first_token_ms",
    "total_ms", "prompt_tokens", "answer_tokens", "person", "conversation_id", "id",
)  # fmt: skip
"""What statistics read. SQLite finds all of it in an index; it would have to pass by passages and prompt otherwise."""


class AnswerRow(Table):
    """One question with its answer."""

    __tablename__ = "answers"
    __table_args__ = (
        Index(None, "conversation_id", "created_at"),
        Index(None, "created_at"),
        Index(None, "person", "created_at"),
        Index(None, "answered", "created_at"),
        Index("ix_answers_figures", *_FIGURES, info={"only": "sqlite"}).ddl_if(dialect="sqlite"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    conversation_id: Mapped[str | None] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    person: Mapped[str] = mapped_column(String(255))
    platform: Mapped[str] = mapped_column(String(32))
    kbs: Mapped[list[Any]] = mapped_column(default=list)
    question: Mapped[str]
    standalone_question: Mapped[str]
    text: Mapped[str] = mapped_column(default="")
    state: Mapped[str] = mapped_column(String(16), default="complete")
    """complete, stopped (by the asker), failed, or replaced (by a regenerated one)."""
    answered: Mapped[bool] = mapped_column(default=False)
    error: Mapped[str | None]
    notice: Mapped[str] = mapped_column(default="")
    engine: Mapped[str] = mapped_column(String(64), default="")
    model: Mapped[str] = mapped_column(String(255), default="")
    passages: Mapped[list[Any]] = mapped_column(default=list)
    """Those offered to the engine, each as a JSON object, with `cited`."""
    prompt: Mapped[list[Any]] = mapped_column(default=list)
    """The turns as they were sent."""
    evidence: Mapped[float | None]
    """The gate's value, 0..1."""
    timings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Milliseconds of each step."""
    workspace: Mapped[str] = mapped_column(String(255), default="")
    channel: Mapped[str] = mapped_column(String(255), default="")
    """Where it was asked, as its conversation says."""
    first_token_ms: Mapped[float | None]
    total_ms: Mapped[float | None]
    prompt_tokens: Mapped[int | None]
    answer_tokens: Mapped[int | None]
    """As the engine counts them; NULL where no language model was asked."""
    curated_id: Mapped[str | None] = mapped_column(Id)
    """The curated answer it consists of."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class RatingRow(Table):
    __tablename__ = "ratings"
    __table_args__ = (UniqueConstraint("answer_id", "person"), Index(None, "value", "updated_at"))

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    answer_id: Mapped[str] = mapped_column(ForeignKey("answers.id", ondelete="CASCADE"), index=True)
    person: Mapped[str] = mapped_column(String(255))
    value: Mapped[int]
    """1 for 👍, -1 for 👎, 0 where it was withdrawn."""
    reason: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class UserRow(Table):
    __tablename__ = "users"
    __table_args__ = (Index(None, "subject", unique=True),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    """Lower-case login name."""
    password_hash: Mapped[str]
    role: Mapped[str] = mapped_column(String(16))
    disabled: Mapped[bool] = mapped_column(default=False)
    everywhere: Mapped[bool] = mapped_column(default=True)
    """The role counts in every knowledge base; false: only in those that are public or granted."""
    subject: Mapped[str | None] = mapped_column(String(512))
    """`issuer subject` of the identity provider whose login this is; NULL: logs in with a password."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class SessionRow(Table):
    """A login in a browser; the cookie holds a random token, this its hash."""

    __tablename__ = "sessions"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    user_agent: Mapped[str] = mapped_column(String(255), default="")
    address: Mapped[str] = mapped_column(String(64), default="")
    """The network address it was opened from."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    seen_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]


class OneTimeTokenRow(Table):
    """A link that works once, e.g. the one that creates the first administrator."""

    __tablename__ = "one_time_tokens"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(32))
    """setup, invitation, or login (the way to an identity provider and back)."""
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What it stands for, e.g. the role of whoever was invited."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]


class LoginFailureRow(Table):
    """Failed logins by account and by address, for the growing wait between tries."""

    __tablename__ = "login_failures"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    count: Mapped[int] = mapped_column(default=0)
    last_at: Mapped[datetime] = mapped_column(default=now)


class ApiKeyRow(Table):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(12))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]


# ---------------------------------------------------------------- chat platforms
class InboxRow(Table):
    """A question from a chat platform, from before it is acknowledged until its answer stands there."""

    __tablename__ = "inbox"
    __table_args__ = (
        UniqueConstraint("platform", "workspace", "channel", "message"),
        Index(None, "state", "lease_until"),
        Index(None, "created_at"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    platform: Mapped[str] = mapped_column(String(32))
    workspace: Mapped[str] = mapped_column(String(255), default="")
    channel: Mapped[str] = mapped_column(String(255), default="")
    message: Mapped[str] = mapped_column(String(255))
    """The platform's id of the message; unique in its channel."""
    mention: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The question as plain data; empty once there is nothing left to do with it."""
    answer_id: Mapped[str] = mapped_column(Id, default=new_id, index=True)
    """Id the answer is recorded under; another one after the question was edited."""
    state: Mapped[str] = mapped_column(String(16), default="working")
    """waiting, working, done, failed, late (too old to be answered), or withdrawn (the question was deleted)."""
    edits: Mapped[int] = mapped_column(default=0)
    """How often it was answered anew since its text was changed."""
    attempts: Mapped[int] = mapped_column(default=0)
    fence: Mapped[int] = mapped_column(default=0)
    """Grows with every lease; a process with an older number may write nothing."""
    wanted: Mapped[str] = mapped_column(String(16), default="", server_default="")
    """«stop»: what somebody asked another process to do than the one that answers it."""
    lease_until: Mapped[datetime | None]
    said_at: Mapped[datetime]
    """When it was asked, by the platform's clock."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


class PostRow(Table):
    """A message of ours on a platform, kept before it is first edited."""

    __tablename__ = "posts"
    __table_args__ = (UniqueConstraint("platform", "workspace", "channel", "message"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    inbox_id: Mapped[str] = mapped_column(Id, index=True)
    number: Mapped[int] = mapped_column(default=0)
    """Its place in the answer, from 0."""
    platform: Mapped[str] = mapped_column(String(32))
    workspace: Mapped[str] = mapped_column(String(255), default="")
    channel: Mapped[str] = mapped_column(String(255), default="")
    message: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(default=now)


class ChannelRow(Table):
    """What was set for a channel; an empty `channel` means the whole workspace. NULL: as the next wider place says."""

    __tablename__ = "channels"
    __table_args__ = (UniqueConstraint("platform", "workspace", "channel"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    platform: Mapped[str] = mapped_column(String(32))
    workspace: Mapped[str] = mapped_column(String(255), default="")
    channel: Mapped[str] = mapped_column(String(255), default="")
    name: Mapped[str] = mapped_column(String(255), default="")
    """As people know it."""
    kbs: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    engine: Mapped[str | None] = mapped_column(String(64))
    instructions: Mapped[str | None]
    """Prompt of its own, in the place of the settings'."""
    mode: Mapped[str | None] = mapped_column(String(16))
    """mention, auto (also questions without a mention), or off."""
    language: Mapped[str | None] = mapped_column(String(8))
    feedback: Mapped[bool | None]
    follow_ups: Mapped[bool | None]
    """Whether a thread the bot is in is answered without a mention."""
    managers: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    """Keys of people who may change this, besides the platform's own administrators."""
    helpers: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    """Whom «ask a human» calls, as the platform names them."""
    askers: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    """Who is answered here: people and groups; NULL: everybody."""
    digest: Mapped[str | None] = mapped_column(String(16))
    """daily or weekly: how often a summary is posted; off."""
    updated_by: Mapped[str] = mapped_column(String(255), default="")
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class KbGrantRow(Table):
    """Who was let into a knowledge base: people of chat platforms, and accounts that are not let in everywhere."""

    __tablename__ = "kb_grants"
    __table_args__ = (UniqueConstraint("kb_id", "person"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    kb_id: Mapped[str] = mapped_column(ForeignKey("knowledge_bases.id", ondelete="CASCADE"))
    person: Mapped[str] = mapped_column(String(255))
    """A person's key, e.g. `slack:T1:U9` or `user:<id>`, or `slack:T1:*` for all of a workspace."""
    right: Mapped[str] = mapped_column(String(8), default="ask")
    """ask (and read), or edit: what the account's role allows, here too."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class EscalationRow(Table):
    """Somebody asked for a human."""

    __tablename__ = "escalations"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    answer_id: Mapped[str] = mapped_column(ForeignKey("answers.id", ondelete="CASCADE"), unique=True)
    person: Mapped[str] = mapped_column(String(255))
    resolved_by: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(default=now)
    resolved_at: Mapped[datetime | None]


class PlatformStateRow(Table):
    """What a platform must remember over restarts, e.g. when it last heard anything; secrets are encrypted."""

    __tablename__ = "platform_state"
    __table_args__ = (UniqueConstraint("platform", "workspace", "key"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    platform: Mapped[str] = mapped_column(String(32))
    workspace: Mapped[str] = mapped_column(String(255), default="")
    key: Mapped[str] = mapped_column(String(64))
    value: Mapped[str] = mapped_column(default="")
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


# ---------------------------------------------------------------- the console
class AuditRow(Table):
    """Somebody changed something; secrets are masked before they come here."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "created_at"), Index(None, "kind", "object", "created_at"))

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    person: Mapped[str] = mapped_column(String(255))
    """The key of who did it, e.g. `user:<id>`, `terminal:operator`, or `schedule:<id>`."""
    name: Mapped[str] = mapped_column(String(255), default="")
    """As people knew them then."""
    action: Mapped[str] = mapped_column(String(64))
    """A noun and a verb, e.g. `kb.create`."""
    kind: Mapped[str] = mapped_column(String(32), default="")
    """The noun of what was changed."""
    object: Mapped[str] = mapped_column(String(255), default="")
    """Its name or id."""
    changes: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Field → its new value."""
    address: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)


class ModelRow(Table):
    """An engine, embedder or reranker with its settings, added while Kvasir runs."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    """engine, embedder, or reranker."""
    adapter: Mapped[str] = mapped_column(String(64))
    """Name of its entry point, e.g. `openai`."""
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """In the place of those of the adapter's section; no secrets."""
    secrets: Mapped[str] = mapped_column(default="")
    """Encrypted JSON object of the secret ones; empty: none."""
    enabled: Mapped[bool] = mapped_column(default=True)
    is_default: Mapped[bool] = mapped_column(default=False)
    """The one of its kind that is used where none is named; else that of the settings is."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class SourceRow(Table):
    """A place that documents of a knowledge base come from, again and again."""

    __tablename__ = "sources"
    __table_args__ = (UniqueConstraint("kb_id", "name"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    kb_id: Mapped[str] = mapped_column(ForeignKey("knowledge_bases.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))
    kind: Mapped[str] = mapped_column(String(16))
    """url, sitemap, git, rss, or folder."""
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Address and what to take from it."""
    secrets: Mapped[str] = mapped_column(default="")
    """Encrypted JSON object; empty: none."""
    cursor: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What was seen last, so that only what changed is fetched."""
    state: Mapped[str] = mapped_column(String(16), default="new")
    """new, running, done, or failed."""
    reason: Mapped[str | None]
    """Why it failed, or what was left out: one sentence."""
    documents: Mapped[int] = mapped_column(default=0)
    synced_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class ScheduleRow(Table):
    """Something to be done again and again; the queue does it, a scheduler only says when."""

    __tablename__ = "schedules"
    __table_args__ = (Index(None, "kind", "target"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100))
    kind: Mapped[str] = mapped_column(String(32))
    """sync, retention, curated, evaluation, backup, or digest."""
    target: Mapped[str] = mapped_column(String(255), default="")
    """What it is for, e.g. the id of a source."""
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    cron: Mapped[str] = mapped_column(String(100))
    """Five fields: minute, hour, day of the month, month, day of the week."""
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    enabled: Mapped[bool] = mapped_column(default=True)
    next_at: Mapped[datetime | None]
    """As the leading scheduler last said."""
    created_by: Mapped[str] = mapped_column(String(255), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class ScheduleRunRow(Table):
    """One run of a schedule; unique for each time, so that two schedulers start it once."""

    __tablename__ = "schedule_runs"
    __table_args__ = (UniqueConstraint("schedule_id", "slot"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"))
    slot: Mapped[str] = mapped_column(String(64))
    """The time it was due, or `now-<id>` where a person started it."""
    job_id: Mapped[str] = mapped_column(Id)
    result: Mapped[str] = mapped_column(default="")
    """What came of it, one sentence."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class LeaseRow(Table):
    """What only one process may do at a time, e.g. lead the schedules."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str] = mapped_column(String(255))
    """Machine and process, for people."""
    fence: Mapped[int] = mapped_column(default=0)
    until: Mapped[datetime]


class ProcessRow(Table):
    """A running Kvasir, as it says itself every few seconds."""

    __tablename__ = "processes"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    machine: Mapped[str] = mapped_column(String(255))
    number: Mapped[int]
    """Of the process, on its machine."""
    roles: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Each role that it runs, and what its parts are like, e.g. {"bots": {"slack": "connected"}}."""
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class LimitRow(Table):
    """What processes have used up together of something that is limited. Times are seconds since 1970."""

    __tablename__ = "limits"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    until: Mapped[float] = mapped_column(Double, default=0.0)
    """Nothing before then: a platform said so, or the next turn comes then."""
    minute: Mapped[int] = mapped_column(default=0)
    count: Mapped[int] = mapped_column(default=0)
    """In that minute."""
    before: Mapped[int] = mapped_column(default=0)
    """In the minute before it."""


class DocumentVersionRow(Table):
    """A former version of a document, whose bytes are still kept."""

    __tablename__ = "document_versions"
    __table_args__ = (UniqueConstraint("document_id", "number"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    document_id: Mapped[str] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"))
    number: Mapped[int]
    """From 1, the oldest."""
    content_hash: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    by: Mapped[str] = mapped_column(String(255), default="")
    """Who put it in, where that is known."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class ChunkOverrideRow(Table):
    """A person's change to how a document is indexed; it is applied again whenever the document is."""

    __tablename__ = "chunk_overrides"
    __table_args__ = (Index(None, "document_id", "created_at"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    document_id: Mapped[str] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"))
    action: Mapped[str] = mapped_column(String(16))
    """edit, disable, delete, or add."""
    original: Mapped[str] = mapped_column(default="")
    """Text of the chunk it changes, or behind which it adds one (empty: at the end)."""
    text: Mapped[str] = mapped_column(default="")
    """The new text."""
    applied: Mapped[bool] = mapped_column(default=True)
    """False: its chunk was not found when the document was last indexed."""
    place: Mapped[int | None]
    """Number of the first chunk it touched then; of one that is left out, of the chunk in its place."""
    by: Mapped[str] = mapped_column(String(255), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)


class CuratedRow(Table):
    """An answer that a person wrote, given whenever one of its questions is asked; also a document of its base."""

    __tablename__ = "curated_answers"
    __table_args__ = (Index(None, "kb_id", "state"), Index(None, "kb_id", "updated_at"))

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    kb_id: Mapped[str] = mapped_column(ForeignKey("knowledge_bases.id", ondelete="CASCADE"))
    document_id: Mapped[str | None] = mapped_column(Id, index=True)
    """The document that holds it."""
    question: Mapped[str]
    paraphrases: Mapped[list[Any]] = mapped_column(default=list)
    """Other ways to ask the same."""
    text: Mapped[str]
    """CommonMark."""
    rests_on: Mapped[list[Any]] = mapped_column(default=list)
    """[document id, content hash] of the documents it was written from."""
    state: Mapped[str] = mapped_column(String(16), default="active")
    """active, review (a document it rests on has changed), expired, or off."""
    reason: Mapped[str] = mapped_column(default="")
    """Why it is to be reviewed."""
    answer_id: Mapped[str | None] = mapped_column(Id)
    """The answer it was written to better."""
    used: Mapped[int] = mapped_column(default=0)
    """How often it was given."""
    created_by: Mapped[str] = mapped_column(String(255), default="")
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class ReviewRow(Table):
    """What became of an answer that was rated 👎, or of a question that was not answered."""

    __tablename__ = "reviews"
    __table_args__ = (Index(None, "state", "updated_at"),)

    answer_id: Mapped[str] = mapped_column(ForeignKey("answers.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), default="new")
    """new, working, or solved."""
    assignee: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    labels: Mapped[list[Any]] = mapped_column(default=list)
    note: Mapped[str] = mapped_column(default="")
    cure: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What was done: its kind, and what of that kind."""
    again_id: Mapped[str | None] = mapped_column(Id)
    """The answer to the same question after the cure."""
    updated_by: Mapped[str] = mapped_column(String(255), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class EvaluationSetRow(Table):
    """Questions with what is expected, to measure a knowledge base by."""

    __tablename__ = "evaluation_sets"
    __table_args__ = (UniqueConstraint("kb_id", "name"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    kb_id: Mapped[str] = mapped_column(ForeignKey("knowledge_bases.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(default=now)


class EvaluationQuestionRow(Table):
    __tablename__ = "evaluation_questions"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    set_id: Mapped[str] = mapped_column(ForeignKey("evaluation_sets.id", ondelete="CASCADE"), index=True)
    question: Mapped[str]
    answers: Mapped[list[Any]] = mapped_column(default=list)
    """Texts one of which a right answer contains."""
    document: Mapped[str] = mapped_column(default="")
    """Name of the document it is to be found in; empty: it has no answer here."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class EvaluationRunRow(Table):
    __tablename__ = "evaluation_runs"
    __table_args__ = (Index(None, "set_id", "created_at"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    set_id: Mapped[str] = mapped_column(ForeignKey("evaluation_sets.id", ondelete="CASCADE"))
    generation_id: Mapped[str | None] = mapped_column(Id)
    job_id: Mapped[str | None] = mapped_column(Id)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """How was searched and answered."""
    results: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The figures of `kvasir eval`; empty while it runs."""
    outcomes: Mapped[list[Any]] = mapped_column(default=list)
    """What became of each question, as JSON objects."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class ConnectionRow(Table):
    """A chat platform as the console sets it; what the settings say goes before it."""

    __tablename__ = "connections"

    platform: Mapped[str] = mapped_column(String(32), primary_key=True)
    enabled: Mapped[bool] = mapped_column(default=True)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    secrets: Mapped[str] = mapped_column(default="")
    """Encrypted JSON object of its tokens; empty: none."""
    status: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What its process last said of it: state, since, last event, error."""
    updated_by: Mapped[str] = mapped_column(String(255), default="")
    updated_at: Mapped[datetime] = mapped_column(default=now)


class OutboxRow(Table):
    """A message to be posted on a platform by whatever process runs it."""

    __tablename__ = "outbox"
    __table_args__ = (Index(None, "state", "platform", "created_at"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    platform: Mapped[str] = mapped_column(String(32))
    workspace: Mapped[str] = mapped_column(String(255), default="")
    channel: Mapped[str] = mapped_column(String(255))
    thread: Mapped[str] = mapped_column(String(255), default="")
    text: Mapped[str]
    """CommonMark."""
    purpose: Mapped[str] = mapped_column(String(32), default="")
    """test, digest, or reply."""
    state: Mapped[str] = mapped_column(String(16), default="waiting")
    """waiting, sending, sent, or failed."""
    error: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    sent_at: Mapped[datetime | None]
