"""Settings of agents' roster entries, and what we wrote there by them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

SCHEMA = "provisioner"


def upgrade() -> None:
    now = sa.func.now()
    op.create_table(
        "agent_settings",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("target_id", sa.Uuid(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("value", JSONB(), nullable=False),
        sa.Column("locked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("scope", "target_id", "field", name="agent_settings_pkey"),
        sa.CheckConstraint("scope IN ('gateway', 'board', 'agent')", name="agent_settings_scope_check"),
        sa.CheckConstraint(
            "jsonb_typeof(value) <> 'null' AND length(value::text) <= 65536",
            name="agent_settings_value_check",
        ),
        schema=SCHEMA,
    )
    op.create_table(
        "roster_fields",
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("openclaw_id", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("wrote", JSONB(), nullable=False),
        sa.Column("had", JSONB(), nullable=True),
        sa.Column("written_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("gateway_id", "openclaw_id", "field", name="roster_fields_pkey"),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("roster_fields", schema=SCHEMA)
    op.drop_table("agent_settings", schema=SCHEMA)
