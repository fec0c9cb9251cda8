"""Every index says which store it is in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("generations", sa.Column("store", sa.String(length=32), nullable=True))


def downgrade() -> None:
    op.drop_column("generations", "store")
