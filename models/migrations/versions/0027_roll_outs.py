"""Roll-outs: rings of agents that get a change one after the other."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0027"
down_revision = "0024"
branch_labels = None
depends_on = None

SCHEMA = "provisioner"
STATES = "'waiting', 'delivering', 'delivered', 'healthy', 'unknown', 'failed', 'gone'"


def upgrade() -> None:
    none = sa.text("'{}'::uuid[]")
    no = sa.text("false")
    op.create_table(
        "roll_outs",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("gateways", ARRAY(sa.Uuid()), nullable=False),
        sa.Column("ring", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rings", sa.Integer(), server_default="0", nullable=False),
        sa.Column("children", ARRAY(sa.Uuid()), server_default=none, nullable=False),
        sa.Column("plan", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("wait_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("templates_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="roll_outs_pkey"),
        sa.ForeignKeyConstraint(
            ["job_id"], [f"{SCHEMA}.jobs.id"], name="roll_outs_job_id_fkey", ondelete="CASCADE"
        ),
        schema=SCHEMA,
    )
    op.create_index(
        "roll_outs_gateways_idx", "roll_outs", ["gateways"], schema=SCHEMA, postgresql_using="gin"
    )
    op.create_table(
        "roll_out_agents",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("agent_name", sa.Text(), nullable=True),
        sa.Column("is_main", sa.Boolean(), server_default=no, nullable=False),
        sa.Column("ring", sa.Integer(), nullable=False),
        sa.Column("change", sa.Text(), nullable=False),
        sa.Column("entry", sa.Boolean(), server_default=no, nullable=False),
        sa.Column("former", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("reached_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "agent_id", name="roll_out_agents_pkey"),
        sa.ForeignKeyConstraint(
            ["job_id"], [f"{SCHEMA}.roll_outs.job_id"], name="roll_out_agents_job_id_fkey", ondelete="CASCADE"
        ),
        sa.CheckConstraint(f"state IN ({STATES})", name="roll_out_agents_state_check"),
        schema=SCHEMA,
    )
    op.create_index("roll_out_agents_ring_idx", "roll_out_agents", ["job_id", "ring"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("roll_out_agents", schema=SCHEMA)
    op.drop_table("roll_outs", schema=SCHEMA)
