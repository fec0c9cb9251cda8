"""The tables of Kvasir's own database. Times are UTC and aware; ids are 32 lower-case hex digits."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
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
    """building, live, or retired."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class DocumentRow(Table):
    __tablename__ = "documents"
    __table_args__ = (UniqueConstraint("kb_id", "name"), Index(None, "kb_id", "status"))

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
    """queued, working, indexed, failed, or deleting."""
    stage: Mapped[str] = mapped_column(String(16), default="stored")
    """stored, parsed, split, embedded, or live."""
    reason: Mapped[str | None]
    """Why it failed, or what was left out: one sentence."""
    chunks: Mapped[int] = mapped_column(default=0)
    source: Mapped[str] = mapped_column(default="")
    """Where it came from: a URL, `upload`, or `folder`."""
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


class AnswerRow(Table):
    """One question with its answer."""

    __tablename__ = "answers"
    __table_args__ = (Index(None, "conversation_id", "created_at"), Index(None, "created_at"))

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
    created_at: Mapped[datetime] = mapped_column(default=now)


class RatingRow(Table):
    __tablename__ = "ratings"
    __table_args__ = (UniqueConstraint("answer_id", "person"),)

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

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    """Lower-case login name."""
    password_hash: Mapped[str]
    role: Mapped[str] = mapped_column(String(16))
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=now)


class SessionRow(Table):
    """A login in a browser; the cookie holds a random token, this its hash."""

    __tablename__ = "sessions"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    user_agent: Mapped[str] = mapped_column(String(255), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    seen_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]


class OneTimeTokenRow(Table):
    """A link that works once, e.g. the one that creates the first administrator."""

    __tablename__ = "one_time_tokens"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(32))
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
    answer_id: Mapped[str] = mapped_column(Id, default=new_id)
    """Id the answer is recorded under; another one after the question was edited."""
    state: Mapped[str] = mapped_column(String(16), default="working")
    """waiting, working, done, failed, late (too old to be answered), or withdrawn (the question was deleted)."""
    edits: Mapped[int] = mapped_column(default=0)
    """How often it was answered anew since its text was changed."""
    attempts: Mapped[int] = mapped_column(default=0)
    fence: Mapped[int] = mapped_column(default=0)
    """Grows with every lease; a process with an older number may write nothing."""
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
    """Who may ask a private knowledge base, besides those with an account."""

    __tablename__ = "kb_grants"
    __table_args__ = (UniqueConstraint("kb_id", "person"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    kb_id: Mapped[str] = mapped_column(ForeignKey("knowledge_bases.id", ondelete="CASCADE"))
    person: Mapped[str] = mapped_column(String(255))
    """A person's key, e.g. `slack:T1:U9`, or `slack:T1:*` for all of a workspace."""
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
