"""Alembic's entry: runs on the connection that `core/db/migrate.py` hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from core.db.tables import Table

connection: Connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
    user_module_prefix="tables.",
)
with context.begin_transaction():
    context.run_migrations()
