"""Jobs of many agents: each row's position, its planned roster change, and one open sync per gateway."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job_agents", sa.Column("position", sa.Integer(), nullable=True), schema="provisioner")
    op.add_column(
        "job_agents",
        sa.Column("roster", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        schema="provisioner",
    )
    op.create_index(
        "jobs_one_sync_a_gateway",
        "jobs",
        ["gateway_id"],
        unique=True,
        schema="provisioner",
        postgresql_where=sa.text("kind = 'sync_gateway' AND status = 'running'"),
    )
