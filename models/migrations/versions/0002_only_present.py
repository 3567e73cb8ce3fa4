"""Intents that add no agent to a roster: heartbeat settings are only for agents that are in it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "roster_intents",
        sa.Column("only_present", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema="provisioner",
    )
