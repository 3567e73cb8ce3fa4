"""Agents that differ from their templates or settings, as dry runs find them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

SCHEMA = "provisioner"


def upgrade() -> None:
    now, moment = sa.func.now(), sa.DateTime(timezone=True)
    op.create_table(
        "agent_drift",
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("since", moment, server_default=now, nullable=False),
        sa.Column("seen_at", moment, server_default=now, nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("differs", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("agent_id", name="agent_drift_pkey"),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("agent_drift", schema=SCHEMA)
