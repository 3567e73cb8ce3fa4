"""A row for each worker process: whether it can write, and the messages that it could not read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("started_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("seen_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("pauses", sa.Integer(), server_default="0", nullable=False),
        sa.Column("paused_s", sa.Double(), server_default="0", nullable=False),
        sa.Column("last_pause", sa.Text(), nullable=True),
        sa.Column("last_pause_at", moment, nullable=True),
        sa.Column("messages_dropped", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("messages_moved", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("name", name="workers_pkey"),
        schema="provisioner",
    )
