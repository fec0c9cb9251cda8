"""Several processes as one: which there are, limits that they share, what one wants of another; answer presets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db import tables

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


_DELIVER = """
CREATE FUNCTION kvasir_deliver_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM procrastinate_defer_jobs_v1(ARRAY[
        ROW(NEW.kind, 'kvasir.job', 0, NULL, NULL, jsonb_build_object('job_id', NEW.id), NULL)
        ::procrastinate_job_to_defer_v1
    ]);
    RETURN NULL;
END;
$$
"""
_NEW_JOB = """
CREATE TRIGGER kvasir_deliver_new_job AFTER INSERT ON jobs
FOR EACH ROW WHEN (NEW.state = 'queued') EXECUTE FUNCTION kvasir_deliver_job()
"""
_JOB_AGAIN = """
CREATE TRIGGER kvasir_deliver_job_again AFTER UPDATE OF state ON jobs
FOR EACH ROW WHEN (NEW.state = 'queued' AND OLD.state != 'queued') EXECUTE FUNCTION kvasir_deliver_job()
"""


def upgrade() -> None:
    _share()
    _deliver()
    op.add_column("knowledge_bases", sa.Column("sampling", sa.JSON(none_as_null=True), nullable=True))
    op.create_index(op.f("ix_inbox_answer_id"), "inbox", ["answer_id"])  # answers are deleted by the hundred thousand


def _deliver() -> None:
    """What waits is handed to the queue engine in the transaction that lets it wait; SQLite has none."""
    if op.get_bind().dialect.name == "postgresql":
        for statement in (_DELIVER, _NEW_JOB, _JOB_AGAIN):
            op.execute(statement)


def _share() -> None:
    """Which processes there are, limits that they share, and what one wants of another."""
    op.create_table(
        "processes",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("machine", sa.String(length=255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("started_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.Column("seen_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_processes")),
    )
    op.create_table(
        "limits",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("minute", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("before", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_limits")),
    )
    op.add_column("inbox", sa.Column("wanted", sa.String(length=16), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_index(op.f("ix_inbox_answer_id"), table_name="inbox")
    op.drop_column("knowledge_bases", "sampling")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER kvasir_deliver_job_again ON jobs")
        op.execute("DROP TRIGGER kvasir_deliver_new_job ON jobs")
        op.execute("DROP FUNCTION kvasir_deliver_job()")
    op.drop_column("inbox", "wanted")
    op.drop_table("limits")
    op.drop_table("processes")
