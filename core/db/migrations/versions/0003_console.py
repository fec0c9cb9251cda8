"""The console: audit, models, sources, schedules, curated answers, reviews, evaluations and connections."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db import tables

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("object", sa.String(length=255), nullable=False),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_created_at"), "audit", ["created_at"], unique=False)
    op.create_index(op.f("ix_audit_kind_object_created_at"), "audit", ["kind", "object", "created_at"], unique=False)
    op.create_table(
        "connections",
        sa.Column("platform", sa.String(length=32), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("secrets", sa.Text(), nullable=False),
        sa.Column("status", sa.JSON(), nullable=False),
        sa.Column("updated_by", sa.String(length=255), nullable=False),
        sa.Column("updated_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("platform", name=op.f("pk_connections")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("until", tables.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("adapter", sa.String(length=64), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("secrets", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("name", name=op.f("uq_models_name")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("platform", sa.String(length=32), nullable=False),
        sa.Column("workspace", sa.String(length=255), nullable=False),
        sa.Column("channel", sa.String(length=255), nullable=False),
        sa.Column("thread", sa.String(length=255), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("lease_until", tables.UtcDateTime(timezone=True), nullable=True),
        sa.Column("created_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.Column("sent_at", tables.UtcDateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index(
        op.f("ix_outbox_state_platform_created_at"), "outbox", ["state", "platform", "created_at"], unique=False
    )
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("target", sa.String(length=255), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("cron", sa.String(length=100), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("next_at", tables.UtcDateTime(timezone=True), nullable=True),
        sa.Column("created_by", sa.String(length=255), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
    )
    op.create_index(op.f("ix_schedules_kind_target"), "schedules", ["kind", "target"], unique=False)
    op.create_table(
        "curated_answers",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("kb_id", sa.String(length=32), nullable=False),
        sa.Column("document_id", sa.String(length=32), nullable=True),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("paraphrases", sa.JSON(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("rests_on", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("answer_id", sa.String(length=32), nullable=True),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=False),
        sa.Column("expires_at", tables.UtcDateTime(timezone=True), nullable=True),
        sa.Column("created_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["kb_id"], ["knowledge_bases.id"], name=op.f("fk_curated_answers_kb_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_curated_answers")),
    )
    op.create_index(op.f("ix_curated_answers_document_id"), "curated_answers", ["document_id"], unique=False)
    op.create_index(op.f("ix_curated_answers_kb_id_state"), "curated_answers", ["kb_id", "state"], unique=False)
    op.create_index(
        op.f("ix_curated_answers_kb_id_updated_at"), "curated_answers", ["kb_id", "updated_at"], unique=False
    )
    op.create_table(
        "evaluation_sets",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("kb_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["kb_id"], ["knowledge_bases.id"], name=op.f("fk_evaluation_sets_kb_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluation_sets")),
        sa.UniqueConstraint("kb_id", "name", name=op.f("uq_evaluation_sets_kb_id_name")),
    )
    op.create_table(
        "schedule_runs",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("schedule_id", sa.String(length=32), nullable=False),
        sa.Column("slot", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name=op.f("fk_schedule_runs_schedule_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule_runs")),
        sa.UniqueConstraint("schedule_id", "slot", name=op.f("uq_schedule_runs_schedule_id_slot")),
    )
    op.create_table(
        "sources",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("kb_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("secrets", sa.Text(), nullable=False),
        sa.Column("cursor", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.Column("synced_at", tables.UtcDateTime(timezone=True), nullable=True),
        sa.Column("created_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["kb_id"], ["knowledge_bases.id"], name=op.f("fk_sources_kb_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sources")),
        sa.UniqueConstraint("kb_id", "name", name=op.f("uq_sources_kb_id_name")),
    )
    op.create_table(
        "chunk_overrides",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("document_id", sa.String(length=32), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("original", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("applied", sa.Boolean(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=True),
        sa.Column("by", sa.String(length=255), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name=op.f("fk_chunk_overrides_document_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chunk_overrides")),
    )
    op.create_index(
        op.f("ix_chunk_overrides_document_id_created_at"),
        "chunk_overrides",
        ["document_id", "created_at"],
        unique=False,
    )
    op.create_table(
        "document_versions",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("document_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=255), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name=op.f("fk_document_versions_document_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_document_versions")),
        sa.UniqueConstraint("document_id", "number", name=op.f("uq_document_versions_document_id_number")),
    )
    op.create_table(
        "evaluation_questions",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("set_id", sa.String(length=32), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("answers", sa.JSON(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["set_id"], ["evaluation_sets.id"], name=op.f("fk_evaluation_questions_set_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluation_questions")),
    )
    op.create_index(op.f("ix_evaluation_questions_set_id"), "evaluation_questions", ["set_id"], unique=False)
    op.create_table(
        "evaluation_runs",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("set_id", sa.String(length=32), nullable=False),
        sa.Column("generation_id", sa.String(length=32), nullable=True),
        sa.Column("job_id", sa.String(length=32), nullable=True),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("results", sa.JSON(), nullable=False),
        sa.Column("outcomes", sa.JSON(), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["set_id"], ["evaluation_sets.id"], name=op.f("fk_evaluation_runs_set_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluation_runs")),
    )
    op.create_index(
        op.f("ix_evaluation_runs_set_id_created_at"), "evaluation_runs", ["set_id", "created_at"], unique=False
    )
    op.create_table(
        "reviews",
        sa.Column("answer_id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("assignee", sa.String(length=32), nullable=True),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("cure", sa.JSON(), nullable=False),
        sa.Column("again_id", sa.String(length=32), nullable=True),
        sa.Column("updated_by", sa.String(length=255), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["answer_id"], ["answers.id"], name=op.f("fk_reviews_answer_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["assignee"], ["users.id"], name=op.f("fk_reviews_assignee"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("answer_id", name=op.f("pk_reviews")),
    )
    op.create_index(op.f("ix_reviews_state_updated_at"), "reviews", ["state", "updated_at"], unique=False)
    op.add_column("answers", sa.Column("workspace", sa.String(length=255), nullable=False, server_default=""))
    op.add_column("answers", sa.Column("channel", sa.String(length=255), nullable=False, server_default=""))
    op.add_column("answers", sa.Column("first_token_ms", sa.Double(), nullable=True))
    op.add_column("answers", sa.Column("total_ms", sa.Double(), nullable=True))
    op.add_column("answers", sa.Column("prompt_tokens", sa.Integer(), nullable=True))
    op.add_column("answers", sa.Column("answer_tokens", sa.Integer(), nullable=True))
    op.add_column("answers", sa.Column("curated_id", sa.String(length=32), nullable=True))
    op.create_index(op.f("ix_answers_answered_created_at"), "answers", ["answered", "created_at"], unique=False)
    op.create_index(op.f("ix_answers_person_created_at"), "answers", ["person", "created_at"], unique=False)
    op.add_column("documents", sa.Column("source_id", sa.String(length=32), nullable=True))
    op.add_column("documents", sa.Column("by", sa.String(length=255), nullable=False, server_default=""))
    op.create_index(op.f("ix_documents_kb_id_content_hash"), "documents", ["kb_id", "content_hash"], unique=False)
    op.create_index(op.f("ix_documents_source_id"), "documents", ["source_id"], unique=False)
    op.add_column("generations", sa.Column("figures", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("generations", sa.Column("switched_at", tables.UtcDateTime(timezone=True), nullable=True))
    op.add_column("kb_grants", sa.Column("right", sa.String(length=8), nullable=False, server_default="ask"))
    op.add_column("knowledge_bases", sa.Column("mode", sa.String(length=16), nullable=True))
    op.add_column("knowledge_bases", sa.Column("dense_weight", sa.Double(), nullable=True))
    op.add_column("knowledge_bases", sa.Column("min_evidence", sa.Double(), nullable=True))
    op.add_column("knowledge_bases", sa.Column("reranker", sa.String(length=64), nullable=True))
    op.add_column("knowledge_bases", sa.Column("embedder", sa.String(length=64), nullable=True))
    op.add_column("knowledge_bases", sa.Column("engine", sa.String(length=64), nullable=True))
    op.add_column("knowledge_bases", sa.Column("fallbacks", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("knowledge_bases", sa.Column("instructions", sa.Text(), nullable=True))
    op.add_column("knowledge_bases", sa.Column("max_documents", sa.Integer(), nullable=True))
    op.add_column("knowledge_bases", sa.Column("max_mb", sa.Integer(), nullable=True))
    op.add_column("one_time_tokens", sa.Column("payload", sa.JSON(), nullable=False, server_default="{}"))
    op.create_index(op.f("ix_ratings_value_updated_at"), "ratings", ["value", "updated_at"], unique=False)
    op.add_column("sessions", sa.Column("address", sa.String(length=64), nullable=False, server_default=""))
    op.add_column("users", sa.Column("everywhere", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("users", sa.Column("subject", sa.String(length=512), nullable=True))
    op.create_index(op.f("ix_users_subject"), "users", ["subject"], unique=True)
    op.execute("DELETE FROM answers WHERE platform = 'eval'")  # nobody asked them: evaluations left them before
    # What was asked before has its place and its times too.
    op.execute(
        "UPDATE answers SET total_ms = CAST(timings ->> 'total' AS FLOAT), "
        "first_token_ms = CAST(timings ->> 'first_token' AS FLOAT)"
    )
    op.execute(
        "UPDATE answers SET workspace = conversations.workspace, channel = conversations.channel "
        "FROM conversations WHERE conversations.id = answers.conversation_id"
    )
    if op.get_bind().dialect.name == "sqlite":
        # All that statistics read; in the row it would stand behind the passages and the prompt.
        figures = [
            "created_at", "state", "answered", "platform", "workspace", "channel", "kbs", "engine", "model",
            "first_token_ms", "total_ms", "prompt_tokens", "answer_tokens", "person", "conversation_id", "id",
        ]  # fmt: skip
        op.create_index("ix_answers_figures", "answers", figures, unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_users_subject"), "users")
    op.drop_column("users", "subject")
    op.drop_column("users", "everywhere")
    op.drop_column("sessions", "address")
    op.drop_index(op.f("ix_ratings_value_updated_at"), "ratings")
    op.drop_column("one_time_tokens", "payload")
    op.drop_column("knowledge_bases", "max_mb")
    op.drop_column("knowledge_bases", "max_documents")
    op.drop_column("knowledge_bases", "instructions")
    op.drop_column("knowledge_bases", "fallbacks")
    op.drop_column("knowledge_bases", "engine")
    op.drop_column("knowledge_bases", "embedder")
    op.drop_column("knowledge_bases", "reranker")
    op.drop_column("knowledge_bases", "min_evidence")
    op.drop_column("knowledge_bases", "dense_weight")
    op.drop_column("knowledge_bases", "mode")
    op.drop_column("kb_grants", "right")
    op.drop_column("generations", "switched_at")
    op.drop_column("generations", "figures")
    op.drop_index(op.f("ix_documents_source_id"), "documents")
    op.drop_index(op.f("ix_documents_kb_id_content_hash"), "documents")
    op.drop_column("documents", "by")
    op.drop_column("documents", "source_id")
    op.drop_index(op.f("ix_answers_person_created_at"), "answers")
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index("ix_answers_figures", "answers")
    op.drop_index(op.f("ix_answers_answered_created_at"), "answers")
    op.drop_column("answers", "curated_id")
    op.drop_column("answers", "answer_tokens")
    op.drop_column("answers", "prompt_tokens")
    op.drop_column("answers", "total_ms")
    op.drop_column("answers", "first_token_ms")
    op.drop_column("answers", "channel")
    op.drop_column("answers", "workspace")
    op.drop_index(op.f("ix_reviews_state_updated_at"), "reviews")
    op.drop_table("reviews")
    op.drop_index(op.f("ix_evaluation_runs_set_id_created_at"), "evaluation_runs")
    op.drop_table("evaluation_runs")
    op.drop_index(op.f("ix_evaluation_questions_set_id"), "evaluation_questions")
    op.drop_table("evaluation_questions")
    op.drop_table("document_versions")
    op.drop_index(op.f("ix_chunk_overrides_document_id_created_at"), "chunk_overrides")
    op.drop_table("chunk_overrides")
    op.drop_table("sources")
    op.drop_table("schedule_runs")
    op.drop_table("evaluation_sets")
    op.drop_index(op.f("ix_curated_answers_kb_id_updated_at"), "curated_answers")
    op.drop_index(op.f("ix_curated_answers_kb_id_state"), "curated_answers")
    op.drop_index(op.f("ix_curated_answers_document_id"), "curated_answers")
    op.drop_table("curated_answers")
    op.drop_index(op.f("ix_schedules_kind_target"), "schedules")
    op.drop_table("schedules")
    op.drop_index(op.f("ix_outbox_state_platform_created_at"), "outbox")
    op.drop_table("outbox")
    op.drop_table("models")
    op.drop_table("leases")
    op.drop_table("connections")
    op.drop_index(op.f("ix_audit_kind_object_created_at"), "audit")
    op.drop_index(op.f("ix_audit_created_at"), "audit")
    op.drop_table("audit")
