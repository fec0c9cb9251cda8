"""Several processes as one: which there are, limits that they share, what one wants of another."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db import tables

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _share()


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
    op.drop_column("inbox", "wanted")
    op.drop_table("limits")
    op.drop_table("processes")
